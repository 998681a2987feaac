/* SPDX-License-Identifier: Apache-2.0
 * cluster_nodes.c - the nodes: registration, heartbeats, silence.
 *
 * UP -> UNKNOWN after suspect_ms of silence; nothing is concluded from that.  UNKNOWN
 * -> LOST only by the lease rule (docs/fencing.md): the node was silent for lease_ms, and
 * for half a lease this cluster has heard at least half of every list of nodes that the
 * node may have.  A list is the nodes of the table up to some place, since they are never
 * given back; which lists a node may have is known once it has confirmed one of this life.
 * A node that registers again is UP whatever it was, and what it lists is what lives there.
 */
#include "cluster_calls.h"

struct cluster_node *cluster_node_find(const struct cluster *self, struct orr_str name)
{
    return orr_map_find(&self->nodes_by_name, name);
}

/* Grows over all lives of the cluster: by the start of its host, and the time within. */
static void next_members(const struct orr_ctx *ctx, struct cluster *self)
{
    uint64_t now = (uint64_t)ctx->self.incarnation << 40 | orr_now_ms(ctx);
    self->members = self->members < now ? now : self->members + 1;
}

struct cluster_node *
cluster_node_get(struct orr_ctx *ctx, struct cluster *self, struct orr_str name)
{
    struct cluster_node *node = cluster_node_find(self, name);
    if (node)
        return node;
    node = name.len < ORR_NAME_MAX ? orr_pool_take(&self->nodes) : NULL;
    if (!node)
        return NULL;
    orr_str_copy(node->name, sizeof(node->name), name);
    node->state = ORR_NODE_UNKNOWN;
    node->seen_ms = orr_now_ms(ctx);
    orr_map_add(&self->nodes_by_name, node);
    next_members(ctx, self);
    node->joined = self->members;
    return node;
}

static void
tell_jobs(struct orr_ctx *ctx, struct cluster *self, const struct cluster_node *node)
{
    uint32_t index = orr_pool_index(&self->nodes, node);
    for (struct cluster_hold *hold = NULL;
         (hold = orr_pool_next(&self->holds, hold)) != NULL;) {
        const struct cluster_job *job = orr_pool_at(&self->jobs, hold->job);
        if (hold->node == index && job->state == CLUSTER_JOB_LIVE)
            orr_send(ctx,
                     job->addr,
                     node_changed,
                     .node = orr_str(node->name),
                     .state = node->state,
                     .addr = node->addr);
    }
}

static void set_state(struct orr_ctx *ctx,
                      struct cluster *self,
                      struct cluster_node *node,
                      uint32_t state)
{
    if (node->state != state)
        orr_log(ctx,
                state == ORR_NODE_UP ? ORR_LOG_INFO : ORR_LOG_WARN,
                "node %s is %s",
                node->name,
                orr_node_state_name(state));
    node->state = state;
    tell_jobs(ctx, self, node);
    cluster_changed(ctx, self);
}

static void set_devices(struct cluster_node *node,
                        const struct orr_msg_node_register *msg)
{
    memset(node->devices, 0, sizeof(node->devices));
    for (uint32_t i = 0; i < msg->devices.n; i++) {
        const struct orr_rec_device_row *row = &msg->devices.at[i];
        if (row->index >= CLUSTER_DEVICES_MAX)
            continue;
        struct cluster_device *device = &node->devices[row->index];
        device->is_there = true;
        device->is_healthy = row->is_healthy;
        device->memory_bytes = row->memory_bytes;
        orr_str_copy(device->type, sizeof(device->type), row->type);
    }
    node->slots = msg->slots;
}

/* What the node lists is held; what it does not list and has no actor to ask about it
 * is free. */
static enum orr_err take_rows(struct orr_ctx *ctx,
                              struct cluster *self,
                              struct cluster_node *node,
                              const struct orr_msg_node_register *msg)
{
    uint32_t index = orr_pool_index(&self->nodes, node);
    for (struct cluster_hold *hold = NULL;
         (hold = orr_pool_next(&self->holds, hold)) != NULL;)
        hold->is_present = false;
    for (uint32_t i = 0; i < msg->ranks.n; i++) {
        const struct orr_rec_rank_row *row = &msg->ranks.at[i];
        struct cluster_job *job = cluster_job_get(self, row->job, row->generation);
        struct cluster_hold *hold = job ? cluster_hold_get(self, job, node) : NULL;
        if (!hold)
            return orr_refuse(ctx,
                              ORR_ENOSPC,
                              "cluster %s holds at most %u jobs; raise jobs_max",
                              self->args.cluster,
                              self->jobs.cap);
        bool is_first = !hold->is_present;
        hold->is_present = true;
        if (hold->is_placed && job->state == CLUSTER_JOB_LIVE)
            continue;
        if (is_first)
            cluster_hold_clear(self, hold);
        cluster_hold_add(self, hold, row->device);
    }
    for (struct cluster_hold *hold = NULL;
         (hold = orr_pool_next(&self->holds, hold)) != NULL;) {
        struct cluster_job *job = orr_pool_at(&self->jobs, hold->job);
        if (hold->node != index || hold->is_present || job->state == CLUSTER_JOB_LIVE)
            continue;
        cluster_hold_drop(self, hold);
        if (job->first_hold == ORR_NONE && !job->is_awaited)
            cluster_job_drop(self, job);
    }
    return ORR_OK;
}

static void reply_members(struct orr_ctx *ctx, struct cluster *self)
{
    struct orr_rec_job_node *list = self->list.at;
    uint32_t n = 0;
    for (struct cluster_node *node = NULL;
         (node = orr_pool_next(&self->nodes, node)) != NULL;)
        list[n++] = cluster_node_told(node);
    orr_reply(ctx,
              node_registered,
              .heartbeat_ms = self->args.heartbeat_ms,
              .lease_ms = self->args.lease_ms,
              .members = self->members,
              .peers = {list, n});
}

enum orr_err cluster_node_register(struct orr_ctx *ctx,
                                   struct cluster *self,
                                   const struct orr_msg_node_register *msg)
{
    struct cluster_node *node = cluster_node_get(ctx, self, msg->node);
    if (!node)
        return orr_refuse(ctx,
                          ORR_ENOSPC,
                          "cluster %s has room for %u nodes; raise nodes_max",
                          self->args.cluster,
                          self->nodes.cap);
    bool is_same_host = node->addr.host == ctx->from.host;
    if (is_same_host && ctx->from.incarnation < node->addr.incarnation)
        return orr_refuse(ctx, ORR_ESTALE, "node %s has restarted since", node->name);
    if (orr_addr_eq(ctx->from, node->addr) && msg->seq <= node->register_seq)
        return orr_refuse(ctx, ORR_ESTALE, "node %s has registered since", node->name);
    if (!is_same_host && !orr_addr_is_none(node->addr) && node->state == ORR_NODE_UP)
        return orr_refuse(ctx,
                          ORR_EEXIST,
                          "another host is node %s already; give this one its own name",
                          node->name);
    enum orr_err err = take_rows(ctx, self, node, msg);
    if (err != ORR_OK)
        return err;
    node->addr =
        ctx->from; /* this life of it: what was sent to an earlier one is void */
    node->register_seq = msg->seq;
    node->seen_ms = orr_now_ms(ctx); /* whether it hears us, its heartbeats say */
    node->n_told = 0; /* until it has confirmed the list of this answer */
    node->ranks = msg->ranks.n;
    orr_str_copy(node->host, sizeof(node->host), msg->host);
    orr_str_copy(node->endpoint, sizeof(node->endpoint), msg->endpoint);
    orr_str_copy(node->machine, sizeof(node->machine), msg->machine);
    orr_str_copy(
        node->machine_trouble, sizeof(node->machine_trouble), msg->machine_trouble);
    orr_str_copy(node->why_level, sizeof(node->why_level), msg->why_level);
    node->level = msg->level;
    set_devices(node, msg);
    set_state(ctx, self, node, ORR_NODE_UP);
    next_members(ctx, self);
    reply_members(ctx, self);
    return ORR_OK;
}

/* Of that version; 0 when it is an earlier life's. */
static uint32_t list_length(const struct cluster *self, uint64_t members)
{
    uint32_t n = 0;
    if (members > self->members) /* whose state was lost; ours will be told */
        return 0;
    for (const struct cluster_node *node = NULL;
         (node = orr_pool_next(&self->nodes, node)) != NULL && node->joined <= members;)
        n++;
    return n;
}

bool cluster_node_can_be_given_up(const struct cluster *self,
                                  const struct cluster_node *node)
{
    return node->n_told > 1 || self->nodes.n_used == 1;
}

enum orr_err cluster_node_heartbeat(struct orr_ctx *ctx,
                                    struct cluster *self,
                                    const struct orr_msg_node_heartbeat *msg)
{
    struct cluster_node *node = cluster_node_find(self, msg->node);
    bool is_known =
        node && orr_addr_eq(node->addr, ctx->from) && node->state != ORR_NODE_LOST;
    if (!is_known)
        return orr_refuse(
            ctx, ORR_ESTALE, "node %.*s is not registered", ORR_STR_ARGS(msg->node));
    node->seen_ms = orr_now_ms(ctx);
    if (!msg->is_unheard)
        node->heard_ms = node->seen_ms;
    node->ranks = msg->ranks;
    if (node->state == ORR_NODE_UNKNOWN)
        set_state(ctx, self, node, ORR_NODE_UP);
    bool had_room = cluster_node_can_be_given_up(self, node);
    node->n_told = list_length(self, msg->members);
    if (cluster_node_can_be_given_up(self, node) != had_room)
        cluster_changed(ctx, self);
    if (msg->members != self->members)
        reply_members(ctx, self);
    return ORR_OK;
}

/* Heard, and hearing us, so recently that it cannot be telling its peers that it is cut off. */
static bool is_heard(const struct orr_ctx *ctx,
                     const struct cluster *self,
                     const struct cluster_node *node)
{
    uint64_t fresh_ms = self->args.lease_ms / 8;
    if (self->args.suspect_ms < fresh_ms)
        fresh_ms = self->args.suspect_ms;
    return node->heard_ms && node->state == ORR_NODE_UP &&
           orr_now_ms(ctx) - node->heard_ms <= fresh_ms;
}

/* Returns the length from which on every list has had its majority for half a lease. */
static uint32_t watch_majorities(struct orr_ctx *ctx, struct cluster *self)
{
    uint64_t now = orr_now_ms(ctx);
    /* When it was this actor that was away, nodes may have been cut off meanwhile. */
    bool was_away = now - self->watched_ms > self->args.lease_ms / 8;
    uint32_t n = 0, n_heard = 0, first = 1;
    self->watched_ms = now;
    for (struct cluster_node *node = NULL;
         (node = orr_pool_next(&self->nodes, node)) != NULL;) {
        n++;
        n_heard += is_heard(ctx, self, node);
        if (n_heard * 2 < n || was_away)
            node->majority_since_ms = 0; /* perhaps it is we who are cut off */
        else if (!node->majority_since_ms)
            node->majority_since_ms = now;
        if (!node->majority_since_ms ||
            now - node->majority_since_ms < self->args.lease_ms / 2)
            first = n + 1;
    }
    return first;
}

void cluster_node_drain(struct orr_ctx *ctx,
                        struct cluster *self,
                        struct orr_str name,
                        bool is_draining)
{
    /* One that this life has not heard of yet must not be taken for free when it comes. */
    struct cluster_node *node =
        is_draining ? cluster_node_get(ctx, self, name) : cluster_node_find(self, name);
    if (!node || node->is_draining == is_draining)
        return;
    node->is_draining = is_draining;
    cluster_changed(ctx, self);
}

/* What stands still there is nobody's any more, once its job actors have ended. */
static void
give_up(struct orr_ctx *ctx, struct cluster *self, struct cluster_node *node)
{
    uint32_t index = orr_pool_index(&self->nodes, node);
    for (struct cluster_hold *hold = NULL;
         (hold = orr_pool_next(&self->holds, hold)) != NULL;)
        hold->is_given_up = hold->is_given_up || hold->node == index;
    set_state(ctx, self, node, ORR_NODE_LOST);
}

void cluster_nodes_watch(struct orr_ctx *ctx, struct cluster *self)
{
    uint64_t now = orr_now_ms(ctx);
    for (struct cluster_node *node = NULL;
         (node = orr_pool_next(&self->nodes, node)) != NULL;)
        if (node->state == ORR_NODE_UP && now - node->seen_ms > self->args.suspect_ms)
            set_state(ctx, self, node, ORR_NODE_UNKNOWN);
    uint32_t first = watch_majorities(ctx, self);
    for (struct cluster_node *node = NULL;
         (node = orr_pool_next(&self->nodes, node)) != NULL;)
        if (node->state == ORR_NODE_UNKNOWN && node->n_told >= first &&
            now - node->seen_ms > self->args.lease_ms)
            give_up(ctx, self, node);
}

static void node_row(const struct orr_ctx *ctx,
                     const struct cluster *self,
                     const struct cluster_node *node,
                     struct orr_rec_node_row *ret_row)
{
    bool is_draining = node->is_draining && node->state == ORR_NODE_UP;
    bool has_room = cluster_node_can_be_given_up(self, node) &&
                    !node->is_draining; /* what is free, is so for placing */
    *ret_row = (struct orr_rec_node_row){
        .cluster = orr_str(self->args.cluster),
        .node = orr_str(node->name),
        .state = is_draining ? ORR_NODE_DRAINING : node->state,
        .slots = node->slots,
        .slots_free = has_room && node->slots > node->slots_used
                          ? node->slots - node->slots_used
                          : 0,
        .ranks = node->ranks,
        .seen_ms = orr_now_ms(ctx) - node->seen_ms,
        .level = node->level,
        .why_level = orr_str(node->why_level),
        .host = orr_str(node->host),
        .endpoint = orr_str(node->endpoint),
        .machine = orr_str(node->machine),
        .machine_trouble = orr_str(node->machine_trouble),
    };
    for (uint32_t i = 0; i < CLUSTER_DEVICES_MAX; i++) {
        const struct cluster_device *device = &node->devices[i];
        if (!device->is_there)
            continue;
        ret_row->gpus++;
        ret_row->gpus_free += has_room && device->is_healthy && !(node->used >> i & 1);
        if (ret_row->gpus == 1 || device->memory_bytes < ret_row->gpu_memory_bytes)
            ret_row->gpu_memory_bytes = device->memory_bytes;
        ret_row->gpu_type = orr_str(device->type);
    }
}

struct orr_list_node_row cluster_node_rows(const struct orr_ctx *ctx,
                                           struct cluster *self)
{
    struct orr_rec_node_row *rows = self->list.at;
    uint32_t n = 0;
    for (struct cluster_node *node = NULL;
         (node = orr_pool_next(&self->nodes, node)) != NULL;)
        node_row(ctx, self, node, &rows[n++]);
    return (struct orr_list_node_row){rows, n};
}
