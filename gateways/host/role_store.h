/* SPDX-License-Identifier: Apache-2.0
 * role_store.h - a node's checkpoint store: the directory, its threads, and /edge/store.
 */
#ifndef ORR_ROLE_STORE_H
#define ORR_ROLE_STORE_H

#include "roles.h"

/* Errors: as orr_store_open; err names the field. */
ORR_NODISCARD enum orr_err role_store_start(struct host *host, struct orr_error *err);

/* Cancels what is under way; the system must have stopped. */
void role_store_close(struct host *host);

#endif
