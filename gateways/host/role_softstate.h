/* SPDX-License-Identifier: Apache-2.0
 * role_softstate.h - the softstate edge, which every host has.
 */
#ifndef ORR_ROLE_SOFTSTATE_H
#define ORR_ROLE_SOFTSTATE_H

#include "roles.h"

/* Open it and spawn /edge/softstate.  Redis need not be there.  Errors: as the edge's. */
ORR_NODISCARD enum orr_err role_softstate_start(struct host *host,
                                                struct orr_error *err);
/* After the system has stopped. */
void role_softstate_close(struct host *host);

#endif
