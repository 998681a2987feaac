/* SPDX-License-Identifier: Apache-2.0
 * role_ledger.h - the ledger of the region role, from the configuration, and its actor.
 */
#ifndef ORR_ROLE_LEDGER_H
#define ORR_ROLE_LEDGER_H

#include "ledger/ledger.h"
#include "roles.h"

/* Open it in STATE/ledger and spawn /edge/ledger.  Errors: as orr_ledger_raft_open. */
ORR_NODISCARD enum orr_err role_ledger_start(struct host *host, struct orr_error *err);

/* NULL ok; the system must have stopped. */
void role_ledger_close(struct orr_ledger *ledger);

#endif
