/* SPDX-License-Identifier: Apache-2.0
 * rank_port.h - the actor at /edge/rank, through which a node reaches the libraries in its ranks.
 *
 * Takes rank_expect, rank_forgotten, cut_step (answered with how far it is); tells the node cut_report on change, rank_ability,
 * rank_idle.  It keeps no state: what is true is in the edge.
 */
#ifndef ORR_RANK_PORT_H
#define ORR_RANK_PORT_H

#include "orrery/actor.h"
#include "rank_edge.h"

struct orr_system;

/* orr_system_post */
typedef enum orr_err (*orr_rank_post_f)(struct orr_system *system,
                                        struct orr_addr from,
                                        struct orr_addr to,
                                        const struct orr_msg_desc *desc,
                                        const void *msg);

struct orr_rank_port_args {
    struct orr_rank_edge *edge; /* borrowed: closed after the system has stopped */
    struct orr_system *system;  /* borrowed */
    orr_rank_post_f post;
    struct orr_addr
        node; /* named, so that it stays right when the node actor restarts */
};

extern const struct orr_actor_type orr_rank_port_type;

#endif
