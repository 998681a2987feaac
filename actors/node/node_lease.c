/* SPDX-License-Identifier: Apache-2.0
 * node_lease.c - what a node does that does not hear its cluster (docs/adr/0010-node-loss.md).
 *
 * The cluster may give up a silent node's ranks when the lease is over and it hears at least half of its nodes; new ones may
 * then run elsewhere.  So after three quarters of the lease this node freezes its ranks (SIGSTOP, nothing is lost), unless
 * more than half of the cluster's nodes, itself included, do not hear the cluster: then the cluster cannot give anybody up,
 * and its jobs run on without it.
 * A heartbeat that is answered thaws all: nobody was given up.  After a new registration only those thaw that a job actor
 * asks for (ranks_get); the others are stopped as orphans, and killed while frozen.
 */
#include "node_calls.h"

enum { PROBE_MS = 1000, FRESH_MS = 2000, SIGNAL_CONT = 18, SIGNAL_STOP = 19 };

/* A restarted host does not know how long it was silent: it has a quarter of a lease to be heard. */
void node_lease_start(const struct orr_ctx *ctx, struct node *self)
{
    uint64_t now = orr_now_ms(ctx);
    self->lease_ms = NODE_LEASE_MS;
    self->contact_ms = now > NODE_LEASE_MS / 2 ? now - NODE_LEASE_MS / 2 : 0;
}

bool node_is_cut_off(const struct orr_ctx *ctx, const struct node *self)
{
    return orr_now_ms(ctx) - self->contact_ms > self->lease_ms / 2;
}

void node_peers_set(struct node *self, const struct orr_msg_node_registered *msg)
{
    self->members = msg->members;
    self->n_peers = 0;
    for (uint32_t i = 0; i < msg->peers.n && self->n_peers < NODE_PEERS_MAX; i++)
        if (!orr_str_eq(msg->peers.at[i].node, orr_str(self->args.node)))
            self->peers[self->n_peers++] =
                (struct node_peer){.addr = msg->peers.at[i].addr};
}

void node_thaw(struct orr_ctx *ctx, struct node *self, struct node_group *group)
{
    if (!group->is_frozen)
        return;
    group->is_frozen = group->is_in_doubt = false;
    node_group_signal(ctx, self, group, SIGNAL_CONT);
}

void node_lease_renewed(struct orr_ctx *ctx, struct node *self, uint64_t sent_ms)
{
    if (sent_ms <= self->contact_ms)
        return;
    self->contact_ms = sent_ms;
    for (struct node_group *group = NULL;
         (group = orr_pool_next(&self->groups, group)) != NULL;)
        if (!group->is_in_doubt)
            node_thaw(ctx, self, group);
}

static void freeze(struct orr_ctx *ctx, struct node *self)
{
    for (struct node_group *group = NULL;
         (group = orr_pool_next(&self->groups, group)) != NULL;) {
        if (!group->is_frozen)
            orr_log(ctx,
                    ORR_LOG_WARN,
                    "the lease is over: %s is frozen until the cluster is heard",
                    group->key);
        group->is_frozen = true;
        node_group_signal(ctx, self, group, SIGNAL_STOP);
    }
}

void node_lease_check(struct orr_ctx *ctx, struct node *self)
{
    uint64_t now = orr_now_ms(ctx);
    if (self->groups.n_used == 0 || !node_is_cut_off(ctx, self))
        return;
    uint32_t n_cut_off = 1;
    for (uint32_t i = 0; i < self->n_peers; i++) {
        const struct node_peer *peer = &self->peers[i];
        n_cut_off += peer->cut_off_ms && now - peer->cut_off_ms < FRESH_MS;
        if (!orr_addr_is_none(peer->addr))
            orr_ask(ctx,
                    peer->addr,
                    PROBE_MS,
                    node_tag(NODE_TAG_PROBE, i, (uint32_t)self->members),
                    node_probe,
                    .cluster = orr_str(self->args.cluster));
    }
    bool is_alone = n_cut_off * 2 <= self->n_peers + 1 || self->members == 0;
    if (is_alone && now - self->contact_ms > self->lease_ms / 4 * 3)
        freeze(ctx, self);
}
