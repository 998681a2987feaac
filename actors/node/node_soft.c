/* SPDX-License-Identifier: Apache-2.0
 * node_soft.c - what readers that only look may know of the node: how its ranks get on,
 * with each heartbeat (include/orrery/soft.h).
 */
#include "node_calls.h"
#include "orrery/soft.h"

enum { PERIOD_MS = 200 }; /* however short the heartbeat is */

void node_soft_publish(struct orr_ctx *ctx, struct node *self)
{
    uint64_t now = orr_now_ms(ctx);
    if (!self->args.has_softstate || (self->soft_ms && now - self->soft_ms < PERIOD_MS))
        return;
    struct orr_msg_soft_progress msg = {.cluster = orr_str(self->args.cluster),
                                        .node = orr_str(self->args.node),
                                        .is_registered = self->is_registered};
    self->soft_ms = now;
    for (struct node_row *row = NULL;
         (row = orr_pool_next(&self->rows, row)) != NULL;) {
        msg.ranks_starting += row->state == ORR_RANK_STARTING;
        msg.ranks_running += row->state == ORR_RANK_RUNNING;
        msg.ranks_ended += !node_rank_is_live(row->state);
    }
    orr_soft_put_progress(ctx, orr_str(self->args.region), &msg);
}
