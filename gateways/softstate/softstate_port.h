/* SPDX-License-Identifier: Apache-2.0
 * softstate_port.h - the actor /edge/softstate: puts of this host's actors, the host's
 * own line in the directory, and answers about both.
 *
 * Takes soft_put, soft_gone and soft_drop from actors of its own host; answers
 * soft_status_get and soft_scan to anybody.  Puts share the telemetry lane: when more
 * come than fit, the oldest go, and their publishers' next round makes up for it.
 */
#ifndef ORR_SOFTSTATE_PORT_H
#define ORR_SOFTSTATE_PORT_H

#include "softstate.h"

struct orr_softstate_port_args {
    struct orr_softstate *softstate; /* borrowed: closed after the system has stopped */
    struct orr_msg_soft_host host;   /* texts borrowed: outlive the actor */
};

extern const struct orr_actor_type orr_softstate_port_type;

#endif
