/* SPDX-License-Identifier: Apache-2.0
 * ledger_port.h - the actor at /edge/ledger: between a region actor and its ledger.
 *
 * News go to the region when they change and every 100 ms; a region that lost one hears
 * the next.  Requests about voters are answered when the ledger has done them.
 */
#ifndef ORR_LEDGER_PORT_H
#define ORR_LEDGER_PORT_H

#include "ledger.h"
#include "orrery/actor.h"

struct orr_system;

/* orr_system_post, orr_system_reply */
typedef enum orr_err (*orr_ledger_post_f)(struct orr_system *system,
                                          struct orr_addr from,
                                          struct orr_addr to,
                                          const struct orr_msg_desc *desc,
                                          const void *msg);
typedef enum orr_err (*orr_ledger_reply_f)(struct orr_system *system,
                                           struct orr_addr from,
                                           const struct orr_request *request,
                                           const struct orr_msg_desc *desc,
                                           const void *msg);

struct orr_ledger_port_args {
    struct orr_ledger *ledger; /* borrowed: closed after the system has stopped */
    struct orr_system *system; /* borrowed: freed after the ledger was closed */
    orr_ledger_post_f post;
    orr_ledger_reply_f reply;
    struct orr_addr region; /* named, so that it stays right when the region restarts */
    char region_name[ORR_NAME_MAX];
    char host[ORR_NAME_MAX];
};

extern const struct orr_actor_type orr_ledger_port_type;

#endif
