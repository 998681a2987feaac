/* SPDX-License-Identifier: Apache-2.0
 * node_lease.c - what a node does that does not hear its cluster (docs/fencing.md, docs/adr/0010-node-loss.md).
 *
 * The cluster may give up a silent node's ranks when the lease is over and it has long heard at least half of its nodes; new
 * ones may then run elsewhere.  So ranks have a time at which they are frozen (SIGSTOP, nothing is lost).  It is three quarters
 * of a lease after the cluster was last heard, and moves on by a quarter whenever more than half of the cluster's nodes, this
 * one included, say that the cluster has not answered them for half a lease: then it cannot give anybody up.
 * The time is told to the process edge beforehand, and the keepers keep it: it needs neither this actor nor its host.
 *
 *   silent for  1/8  heartbeats say so, and the cluster counts them no more for its majority
 *               1/4  peers are dialled
 *               1/2  this node tells peers that it is cut off, and asks them
 *               3/4  ranks freeze, unless the peers moved the time on
 *
 * A heartbeat that is answered thaws all: nobody was given up.  After a new registration only those thaw that a job actor
 * asks for (ranks_get, cut_step); the others are stopped as orphans, and killed while frozen.
 */
#include "node_calls.h"

enum {
    SIGNAL_CONT = 18,
    SIGNAL_STOP = 19,
    THAW_AGAIN_MS = 1000,
    LINKS_MAX = 48,
    NOTE_TIMEOUT_MS = 5000
};

/* Until the process edge tells what an earlier life knew, it counts as just heard: nobody is told that it is cut off. */
void node_lease_start(const struct orr_ctx *ctx, struct node *self)
{
    self->lease_ms = NODE_LEASE_MS;
    self->contact_ms = orr_now_ms(ctx);
}

static uint64_t silent_ms(const struct orr_ctx *ctx, const struct node *self)
{
    return orr_now_ms(ctx) - self->contact_ms;
}

bool node_is_unheard(const struct orr_ctx *ctx, const struct node *self)
{
    return silent_ms(ctx, self) > self->lease_ms / 8;
}

bool node_is_cut_off(const struct orr_ctx *ctx, const struct node *self)
{
    return silent_ms(ctx, self) > self->lease_ms / 2;
}

bool node_lease_is_over(const struct orr_ctx *ctx, const struct node *self)
{
    return self->frozen_at_ms && orr_now_ms(ctx) >= self->frozen_at_ms;
}

/* ---- freezing ---- */

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

static void thaw(struct orr_ctx *ctx, struct node *self, struct node_group *group)
{
    if (!group->is_frozen)
        return;
    group->is_frozen = group->is_in_doubt = false;
    group->thaw_until_ms = orr_now_ms(ctx) + THAW_AGAIN_MS;
    if (!group->cut.is_frozen) /* else its resume does it */
        node_group_signal(ctx, self, group, SIGNAL_CONT);
}

/* By its job actor, which has not given it up: it may go on, if it stood still for want of a lease. */
void node_asked(struct orr_ctx *ctx, struct node *self, struct node_group *group)
{
    group->asked_ms = orr_now_ms(ctx);
    if (!node_lease_is_over(ctx, self)) /* else it may have waited, too */
        thaw(ctx, self, group);
}

/* A keeper that read the old end a moment ago may stop its rank after our CONT: say it again. */
static void thaw_again(struct orr_ctx *ctx, struct node *self)
{
    for (struct node_group *group = NULL;
         (group = orr_pool_next(&self->groups, group)) != NULL;)
        if (!group->is_frozen && !group->cut.is_frozen &&
            orr_now_ms(ctx) < group->thaw_until_ms)
            node_group_signal(ctx, self, group, SIGNAL_CONT);
}

/* They may see the end a moment before they hear of a later one, although this actor sees none. */
static void doubt_keepers(const struct orr_ctx *ctx, struct node *self)
{
    for (struct node_group *group = NULL;
         (group = orr_pool_next(&self->groups, group)) != NULL;)
        group->thaw_until_ms = orr_now_ms(ctx) + THAW_AGAIN_MS;
}

/* Before a later end is set: what the keepers have stopped stays so until somebody who knows thaws it.  An end that an earlier
 * life had set may have come without this one's knowing, also to ranks that were launched since. */
static void note_end(struct orr_ctx *ctx, struct node *self)
{
    if (node_lease_is_over(ctx, self))
        freeze(ctx, self);
    else if (self->frozen_at_ms &&
             orr_now_ms(ctx) + THAW_AGAIN_MS >= self->frozen_at_ms)
        doubt_keepers(ctx, self);
    for (struct node_group *group = NULL;
         self->may_have_ended && (group = orr_pool_next(&self->groups, group)) != NULL;)
        group->is_frozen = true;
    self->may_have_ended = false;
}

static void run_until(struct orr_ctx *ctx, struct node *self, uint64_t until_ms)
{
    note_end(ctx, self);
    bool is_only = self->members && self->n_members == 1; /* nobody could give it up */
    if (until_ms > self->frozen_at_ms)
        self->frozen_at_ms = until_ms;
    if (is_only)
        self->frozen_at_ms = 0;
    orr_send(ctx,
             self->process_edge,
             process_lease,
             .until_ms = self->frozen_at_ms,
             .heard_ms = self->contact_ms);
}

/* ---- the cluster was heard ---- */

static bool dials(uint64_t own, uint64_t peer)
{
    return (own ^ peer) & 1 ? own < peer
                            : own > peer; /* one of the two, half of the pairs each */
}

/* By name: whichever life of the peer is asked, it knows when the cluster was last heard. */
static struct orr_addr peer_addr(const struct node *self,
                                 const struct orr_rec_job_node *rec)
{
    char path[3 * ORR_NAME_MAX + 4];
    snprintf(path,
             sizeof(path),
             "/%s/%s/%.*s",
             self->args.region,
             self->args.cluster,
             ORR_STR_ARGS(rec->node));
    return orr_addr_is_none(rec->addr)
               ? rec->addr
               : (struct orr_addr){.host = rec->addr.host,
                                   .slot = orr_hash(orr_str(path))};
}

static void peers_set(const struct orr_ctx *ctx,
                      struct node *self,
                      const struct orr_msg_node_registered *msg)
{
    self->members = msg->members;
    self->n_members = msg->peers.n;
    self->n_peers = 0;
    for (uint32_t i = 0; i < msg->peers.n && self->n_peers < NODE_PEERS_MAX; i++) {
        const struct orr_rec_job_node *rec = &msg->peers.at[i];
        if (orr_str_eq(rec->node, orr_str(self->args.node)))
            continue;
        struct node_peer *peer = &self->peers[self->n_peers++];
        *peer = (struct node_peer){.addr = peer_addr(self, rec)};
        bool is_linked = rec->addr.host == ctx->self.host ||
                         rec->addr.host == self->cluster.host; /* for good */
        if (rec->endpoint.len && !is_linked && dials(ctx->self.host, rec->addr.host)) {
            orr_str_copy(peer->host, sizeof(peer->host), rec->host);
            orr_str_copy(peer->endpoint, sizeof(peer->endpoint), rec->endpoint);
        }
    }
}

/* A restarted host finds it.  Only then may the cluster count on it. */
static void
note(struct orr_ctx *ctx, struct node *self, const struct orr_msg_node_registered *msg)
{
    size_t len = 0;
    enum orr_err err = orr_msg_encode(
        orr_msg_desc_node_registered(), msg, self->note.at, self->note.size, &len);
    if (err != ORR_OK) {
        orr_log(ctx,
                ORR_LOG_ERROR,
                "the list of %u nodes is too long to be kept; nothing is placed here",
                msg->peers.n);
        return;
    }
    self->noting = msg->members;
    self->note_seq = ++self->next_seq & 0xffffff;
    orr_ask(ctx,
            self->process_edge,
            NOTE_TIMEOUT_MS,
            node_tag(NODE_TAG_NOTE, 0, self->note_seq),
            node_note,
            .note = {self->note.at, (uint32_t)len});
}

static void links_drop(struct orr_ctx *ctx, struct node *self)
{
    self->is_linking = false;
    for (uint32_t i = 0; i < self->n_peers; i++)
        if (self->peers[i].endpoint[0])
            orr_send(
                ctx, self->links_edge, link_drop, .host = orr_str(self->peers[i].host));
}

/* A reordered answer must not bring back an older list: the cluster believes that this node has the newer one. */
void node_members_told(struct orr_ctx *ctx,
                       struct node *self,
                       const struct orr_msg_node_registered *msg)
{
    if (msg->lease_ms > 0)
        self->lease_ms = msg->lease_ms;
    if (msg->members < self->members)
        return;
    bool is_new = msg->members > self->members;
    if (is_new && self->is_linking)
        links_drop(ctx, self);
    peers_set(ctx, self, msg);
    if (self->noted != msg->members && self->noting != msg->members)
        note(ctx, self, msg);
}

void node_noted(struct orr_ctx *ctx, struct node *self, uint32_t seq, bool is_ok)
{
    if (seq != self->note_seq)
        return;
    if (is_ok)
        self->noted = self->noting;
    self->noting = 0;
    if (is_ok && self->is_confirm_due)
        orr_timer_set(ctx, NODE_T_HEARTBEAT, 1, 0);
    self->is_confirm_due = false;
}

void node_lease_renewed(struct orr_ctx *ctx, struct node *self, uint64_t sent_ms)
{
    if (sent_ms <= self->contact_ms)
        return;
    self->contact_ms = sent_ms;
    run_until(ctx, self, sent_ms + self->lease_ms / 4 * 3);
    if (node_lease_is_over(ctx, self)) /* the answer waited here, with our host */
        return;
    for (struct node_group *group = NULL;
         (group = orr_pool_next(&self->groups, group)) != NULL;)
        if (!group->is_in_doubt)
            thaw(ctx, self, group);
}

/* What is frozen may have been given up: only a job actor knows.  It may have asked before the cluster's answer came. */
void node_lease_begun(struct orr_ctx *ctx, struct node *self, uint64_t sent_ms)
{
    note_end(ctx, self);
    for (struct node_group *group = NULL;
         (group = orr_pool_next(&self->groups, group)) != NULL;)
        group->is_in_doubt = group->is_frozen;
    if (sent_ms > self->contact_ms)
        self->contact_ms = sent_ms;
    run_until(ctx, self, self->contact_ms + self->lease_ms / 4 * 3);
    if (node_lease_is_over(ctx, self))
        return;
    for (struct node_group *group = NULL;
         (group = orr_pool_next(&self->groups, group)) != NULL;)
        if (group->asked_ms >= sent_ms)
            thaw(ctx, self, group);
}

/* What an earlier life of this actor knew.  When ranks freeze, the keepers know. */
void node_lease_found(struct orr_ctx *ctx,
                      struct node *self,
                      const struct orr_msg_processes_found *msg)
{
    uint64_t now = orr_now_ms(ctx);
    if (self->has_processes || self->is_registered || !msg->has_lease)
        return;
    self->may_have_ended = true;
    self->contact_ms = now > msg->silent_ms ? now - msg->silent_ms : 0;
    if (msg->note.len && orr_msg_decode(orr_msg_desc_node_registered(),
                                        msg->note.ptr,
                                        msg->note.len,
                                        self->note.at,
                                        self->note.size) == ORR_OK) {
        const struct orr_msg_node_registered *note = self->note.at;
        if (note->lease_ms > 0)
            self->lease_ms = note->lease_ms;
        peers_set(ctx, self, note);
    }
}

/* ---- the cluster is silent ---- */

static void links_want(struct orr_ctx *ctx, struct node *self)
{
    uint32_t n = 0;
    self->is_linking = true;
    for (uint32_t i = 0; i < self->n_peers && n < LINKS_MAX; i++) {
        if (!self->peers[i].endpoint[0])
            continue;
        n++;
        orr_send(ctx,
                 self->links_edge,
                 link_want,
                 .host = orr_str(self->peers[i].host),
                 .endpoint = orr_str(self->peers[i].endpoint));
    }
}

/* A statement counts for an eighth of a lease from when it was asked for. */
static uint32_t count_cut_off(const struct orr_ctx *ctx, const struct node *self)
{
    uint32_t n = 1; /* itself */
    uint64_t now = orr_now_ms(ctx);
    for (uint32_t i = 0; i < self->n_peers; i++) {
        uint64_t said_ms = self->peers[i].cut_off_ms;
        n += said_ms && now - said_ms < self->lease_ms / 8;
    }
    return n;
}

static void ask_peers(struct orr_ctx *ctx, struct node *self)
{
    uint64_t now = orr_now_ms(ctx);
    for (uint32_t i = 0; i < self->n_peers; i++)
        if (!orr_addr_is_none(self->peers[i].addr))
            orr_ask(ctx,
                    self->peers[i].addr,
                    self->lease_ms / 8,
                    node_tag(NODE_TAG_PROBE, i, (uint32_t)now),
                    node_probe,
                    .cluster = orr_str(self->args.cluster));
}

/* As soon as there are enough of them; a host that was just restarted has little time. */
static void vouched(struct orr_ctx *ctx, struct node *self)
{
    uint64_t until_ms = orr_now_ms(ctx) + self->lease_ms / 4;
    if (self->members && node_is_cut_off(ctx, self) &&
        until_ms >= self->frozen_at_ms + self->args.heartbeat_ms / 2 &&
        count_cut_off(ctx, self) * 2 > self->n_members)
        run_until(ctx, self, until_ms);
}

void node_probe_answered(struct orr_ctx *ctx,
                         struct node *self,
                         const struct orr_msg_node_probed *msg)
{
    uint32_t index = (uint32_t)ctx->tag;
    uint64_t now = orr_now_ms(ctx);
    uint64_t ago = (now - (ctx->tag >> 32)) & 0xffffff;
    if (index < self->n_peers)
        self->peers[index].cut_off_ms = msg->is_cut_off && now > ago ? now - ago : 0;
    vouched(ctx, self);
}

void node_lease_check(struct orr_ctx *ctx, struct node *self)
{
    uint64_t now = orr_now_ms(ctx);
    bool is_silent = silent_ms(ctx, self) > self->lease_ms / 4;
    if (is_silent && !self->is_linking)
        links_want(ctx, self);
    else if (!is_silent && self->is_linking)
        links_drop(ctx, self);
    if (self->frozen_at_ms && now >= self->frozen_at_ms)
        freeze(ctx, self);
    else
        thaw_again(ctx, self);
    if (self->groups.n_used == 0 || !node_is_cut_off(ctx, self))
        return;
    vouched(ctx, self);
    ask_peers(ctx, self);
}
