/* SPDX-License-Identifier: Apache-2.0
 * cluster_soft.c - what readers that only look may know of the cluster: its capacity and
 * its nodes, at each tick and soon after a change (include/orrery/soft.h).
 */
#include "cluster_calls.h"
#include "orrery/soft.h"

enum { PAUSE_NODE_MS = 2 }; /* for each node: a large cluster's rows are dear */

void cluster_soft_publish(struct orr_ctx *ctx, struct cluster *self)
{
    uint64_t now = orr_now_ms(ctx);
    if (!self->args.has_softstate ||
        (self->soft_ms && now - self->soft_ms < PAUSE_NODE_MS * self->nodes.n_used))
        return;
    struct orr_str region = orr_str(self->args.region);
    struct orr_list_node_row nodes = cluster_node_rows(ctx, self);
    struct orr_rec_cluster_row row = {.cluster = orr_str(self->args.cluster),
                                      .state = ORR_NODE_UP,
                                      .nodes = nodes.n,
                                      .jobs = self->jobs.n_used};
    self->soft_ms = now;
    for (uint32_t i = 0; i < nodes.n; i++) {
        row.gpus += nodes.at[i].gpus;
        row.gpus_free += nodes.at[i].state == ORR_NODE_UP ? nodes.at[i].gpus_free : 0;
        orr_soft_put_node(ctx, region, &nodes.at[i]);
    }
    orr_soft_put_cluster(ctx, region, &row);
}
