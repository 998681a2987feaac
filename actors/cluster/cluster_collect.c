/* SPDX-License-Identifier: Apache-2.0
 * cluster_collect.c - passes the region's list of needed parts on to the store of each node.
 *
 * Which nodes share a store is known to the store alone: it takes a list once, and answers the others with zeros.  At most
 * BYTES_MAX leave at a time, so with a very long list the nodes take turns, one list after the other.
 */
#include "cluster_calls.h"

enum { BYTES_MAX = 64 << 20, ASK_MS = 600000 };

enum orr_err cluster_collect(struct orr_ctx *ctx,
                             struct cluster *self,
                             const struct orr_msg_stores_collect *msg)
{
    uint32_t left = BYTES_MAX / (msg->roots.len + 1024);
    uint32_t n = self->nodes.n_fresh;
    for (uint32_t i = 0; i < n && left > 0; i++) {
        uint32_t index = self->collect_next++ % n;
        const struct cluster_node *node = orr_pool_at(&self->nodes, index);
        if (!node || orr_addr_is_none(node->addr) || node->state == ORR_NODE_LOST)
            continue;
        const struct orr_addr store = {.host = node->addr.host,
                                       .slot = orr_hash(ORR_LIT("/edge/store"))};
        orr_ask(ctx,
                store,
                ASK_MS,
                cluster_tag(CLUSTER_TAG_COLLECT, index, 0),
                store_gc,
                .hashes = msg->roots,
                .grace_ms = msg->grace_ms,
                .region = msg->region,
                .epoch = msg->epoch,
                .term = msg->term,
                .round = msg->round);
        left--;
    }
    return ORR_OK;
}

void cluster_collected(struct orr_ctx *ctx,
                       struct cluster *self,
                       const struct orr_msg_store_collected *msg)
{
    const struct cluster_node *node = orr_pool_at(&self->nodes, (uint32_t)ctx->tag);
    if (node && (msg->parts_removed || msg->chunks_removed))
        orr_log(ctx,
                ORR_LOG_INFO,
                "store of node %s: %llu parts and %llu chunks removed, %llu bytes",
                node->name,
                (unsigned long long)msg->parts_removed,
                (unsigned long long)msg->chunks_removed,
                (unsigned long long)msg->bytes_removed);
}

/* The next list comes by itself; what will not pass by itself is said. */
void cluster_collect_failed(struct orr_ctx *ctx,
                            struct cluster *self,
                            const struct orr_msg_failed *msg)
{
    const struct cluster_node *node = orr_pool_at(&self->nodes, (uint32_t)ctx->tag);
    bool is_to_be_said = msg->code != ORR_EBUSY && msg->code != ORR_ETIMEOUT &&
                         msg->code != ORR_EUNREACH;
    if (node && is_to_be_said)
        orr_log(ctx,
                ORR_LOG_WARN,
                "store of node %s was not collected: %.*s",
                node->name,
                ORR_STR_ARGS(msg->text));
}
