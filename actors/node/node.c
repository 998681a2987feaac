/* SPDX-License-Identifier: Apache-2.0
 * node.c - the node actor: what it accepts, and its ties to the edges and to its
 * cluster.
 *
 * START       the edges introduce themselves (devices_found, processes_found); then it
 * registers with its cluster OPERATION   heartbeats; launches, stops and reports ranks
 * (node_launch.c, node_ranks.c) FAILURES    a cluster that does not answer is asked
 * again for ever, at a bounded rate; ranks run on meanwhile.  A cluster that does not
 * know the node (ESTALE) gets a new registration with all rows. It keeps no truth of
 * its own: everything is rebuilt from the two edges, so a restart needs no file.
 */
#include "node_calls.h"
#include "node_moves.h"

enum {
    REGISTER_BACKOFF_MIN_MS = 100,
    REGISTER_BACKOFF_MAX_MS = 2000,
};

ORR_HANDLER(node, devices_found)
ORR_HANDLER(node, device_health)
ORR_HANDLER(node, processes_found)
ORR_HANDLER(node, process_event)
ORR_HANDLER(node, port_reserved)
ORR_HANDLER(node, node_registered)
ORR_HANDLER(node, node_probe)
ORR_HANDLER(node, node_probed)
ORR_HANDLER(node, rank_launch)
ORR_HANDLER(node, rank_stop)
ORR_HANDLER(node, ranks_get)
ORR_HANDLER(node, ranks_forget)
ORR_HANDLER(node, log_read)
ORR_HANDLER(node, cut_step)
ORR_HANDLER(node, cut_report)
ORR_HANDLER(node, rank_ability)
ORR_HANDLER(node, rank_idle)
ORR_HANDLER(node, job_posts)
ORR_HANDLER(node, device_used)
ORR_HANDLER(node, process_imaged)
ORR_HANDLER(node, image_ability)
ORR_HANDLER(node, store_kept)
ORR_HANDLER(node, store_got)
ORR_HANDLER(node, ack)
ORR_HANDLER(node, failed)
ORR_HANDLER(node, timer)

static struct orr_str group_key(const void *item)
{
    return orr_str(((const struct node_group *)item)->key);
}

static void node_fini(void *state)
{
    struct node *self = state;
    orr_map_fini(&self->groups_by_key);
    orr_pool_fini(&self->groups);
    orr_pool_fini(&self->rows);
    orr_pool_fini(&self->procs);
    orr_blobs_fini(&self->specs);
    orr_block_fini(&self->spec);
    orr_block_fini(&self->spec_body);
    orr_block_fini(&self->env);
    orr_block_fini(&self->text);
    orr_block_fini(&self->row_list);
    orr_block_fini(&self->part_list);
    orr_block_fini(&self->part_text);
    orr_block_fini(&self->place_list);
    orr_block_fini(&self->note);
}

static enum orr_err take_storage(struct node *self)
{
    uint32_t ranks = self->args.ranks_max;
    uint32_t procs = NODE_PROCS_PER_RANK * ranks + ORR_RANK_PROCS_MAX;
    enum orr_err err = orr_pool_init(&self->rows, sizeof(struct node_row), ranks);
    if (err == ORR_OK)
        err = orr_pool_init(&self->procs, sizeof(struct node_proc), procs);
    if (err == ORR_OK)
        err = orr_pool_init(&self->groups, sizeof(struct node_group), ranks);
    if (err == ORR_OK)
        err = orr_map_init(&self->groups_by_key, &self->groups, group_key);
    if (err == ORR_OK)
        err = orr_blobs_init(&self->specs, (size_t)4 << 20);
    if (err == ORR_OK)
        err = orr_block_init(&self->spec, NODE_SPEC_BYTES);
    if (err == ORR_OK)
        err = orr_block_init(&self->spec_body, NODE_SPEC_BYTES);
    if (err == ORR_OK)
        err = orr_block_init(&self->env, NODE_ENV_MAX * sizeof(struct orr_rec_env_var));
    if (err == ORR_OK)
        err = orr_block_init(&self->text, NODE_TEXT_BYTES);
    if (err == ORR_OK)
        err = orr_block_init(&self->note, NODE_NOTE_BYTES);
    if (err == ORR_OK)
        err = orr_block_init(&self->row_list, ranks * sizeof(struct orr_rec_rank_row));
    if (err == ORR_OK)
        err = orr_block_init(&self->part_list, ranks * sizeof(struct orr_rec_part));
    if (err == ORR_OK)
        err = orr_block_init(&self->part_text, (size_t)procs * NODE_ARENA_TEXT);
    if (err == ORR_OK)
        err = orr_block_init(&self->place_list,
                             ranks * sizeof(struct orr_rec_rank_place));
    return err;
}

static enum orr_err node_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct node *self = state;
    self->args = *(const struct orr_node_args *)args;
    if (!self->args.slots)
        self->args.slots = 64;
    if (!self->args.ranks_max)
        self->args.ranks_max = 1024;
    if (!self->args.heartbeat_ms)
        self->args.heartbeat_ms = 500;
    enum orr_err err = take_storage(self);
    if (err != ORR_OK) {
        node_fini(self);
        return orr_refuse(ctx,
                          err,
                          "node %s: no memory for %u ranks",
                          self->args.node,
                          self->args.ranks_max);
    }
    char path[2 * ORR_NAME_MAX + 3];
    snprintf(path, sizeof(path), "/%s/%s", self->args.region, self->args.cluster);
    self->cluster = orr_addr_named(orr_str(self->args.cluster_host), orr_str(path));
    self->process_edge = (struct orr_addr){.host = ctx->self.host,
                                           .slot = orr_hash(ORR_LIT("/edge/process"))};
    self->links_edge = (struct orr_addr){.host = ctx->self.host,
                                         .slot = orr_hash(ORR_LIT("/edge/links"))};
    self->device_edge = (struct orr_addr){.host = ctx->self.host,
                                          .slot = orr_hash(ORR_LIT("/edge/device"))};
    self->rank_edge = (struct orr_addr){.host = ctx->self.host,
                                        .slot = orr_hash(ORR_LIT("/edge/rank"))};
    self->store_edge = (struct orr_addr){.host = ctx->self.host,
                                         .slot = orr_hash(ORR_LIT("/edge/store"))};
    node_lease_start(ctx, self);
    orr_send(ctx, self->process_edge, edge_greet);
    orr_send(ctx, self->device_edge, edge_greet);
    if (self->args.has_stops)
        orr_send(ctx, self->rank_edge, edge_greet);
    orr_timer_set(ctx, NODE_T_HEARTBEAT, self->args.heartbeat_ms, 0);
    return ORR_OK;
}

static unsigned node_state_of(const void *state)
{
    return ((const struct node *)state)->state;
}

static const char *node_state_name(unsigned state)
{
    return state == NODE_READY ? "ready" : "waiting for its edges";
}

/* ---- cluster ---- */

static enum orr_err node_on_node_registered(struct orr_ctx *ctx,
                                            struct node *self,
                                            const struct orr_msg_node_registered *msg)
{
    if (!self->is_registered)
        orr_log(ctx, ORR_LOG_INFO, "registered with %s", self->args.cluster);
    if (ctx->tag >> 56 == NODE_TAG_REGISTER)
        self->is_confirm_due = true;
    node_members_told(ctx, self, msg);
    if (ctx->tag >> 56 == NODE_TAG_HEARTBEAT) {
        node_lease_renewed(ctx, self, node_sent_ms(ctx));
    } else {
        self->is_registering = false;
        self->is_registered = !self->is_changed;
        self->register_backoff_ms = 0;
        node_lease_begun(ctx, self, node_sent_ms(ctx));
    }
    if (msg->heartbeat_ms > 0 && msg->heartbeat_ms < 60000)
        self->args.heartbeat_ms = (uint32_t)msg->heartbeat_ms;
    return ORR_OK;
}

/* ---- edges ---- */

static void become_ready(struct orr_ctx *ctx, struct node *self)
{
    if (self->state == NODE_READY || !self->has_devices || !self->has_processes)
        return;
    self->state = NODE_READY;
    node_register_send(ctx, self);
}

static enum orr_err node_on_devices_found(struct orr_ctx *ctx,
                                          struct node *self,
                                          const struct orr_msg_devices_found *msg)
{
    node_devices_found(ctx, self, msg);
    become_ready(ctx, self);
    return ORR_OK;
}

static enum orr_err node_on_device_health(struct orr_ctx *ctx,
                                          struct node *self,
                                          const struct orr_msg_device_health *msg)
{
    if (node_device_health(self, msg))
        node_register_send(ctx, self); /* repeats until the cluster has it */
    return ORR_OK;
}

static enum orr_err node_on_processes_found(struct orr_ctx *ctx,
                                            struct node *self,
                                            const struct orr_msg_processes_found *msg)
{
    node_processes_found(ctx, self, msg);
    node_lease_check(ctx, self);
    become_ready(ctx, self);
    return ORR_OK;
}

static enum orr_err node_on_process_event(struct orr_ctx *ctx,
                                          struct node *self,
                                          const struct orr_msg_process_event *msg)
{
    struct node_row *row = node_row_of(self, &msg->rank);
    if (row)
        node_row_apply(ctx, self, row, &msg->rank);
    return ORR_OK;
}

/* ---- ranks ---- */

static enum orr_err node_on_rank_launch(struct orr_ctx *ctx,
                                        struct node *self,
                                        const struct orr_msg_rank_launch *msg)
{
    return node_launch(ctx, self, msg);
}

static enum orr_err node_on_port_reserved(struct orr_ctx *ctx,
                                          struct node *self,
                                          const struct orr_msg_port_reserved *msg)
{
    node_launch_port(
        ctx, self, (uint32_t)ctx->tag, (uint32_t)(ctx->tag >> 32) & 0xffffff, msg);
    return ORR_OK;
}

static enum orr_err node_on_rank_stop(struct orr_ctx *ctx,
                                      struct node *self,
                                      const struct orr_msg_rank_stop *msg)
{
    return node_rank_stop(ctx, self, msg);
}

static enum orr_err node_on_ranks_get(struct orr_ctx *ctx,
                                      struct node *self,
                                      const struct orr_msg_ranks_get *msg)
{
    return node_ranks_get(ctx, self, msg);
}

static enum orr_err node_on_ranks_forget(struct orr_ctx *ctx,
                                         struct node *self,
                                         const struct orr_msg_ranks_forget *msg)
{
    return node_ranks_forget(ctx, self, msg);
}

/* ---- stops ---- */

static enum orr_err node_on_cut_step(struct orr_ctx *ctx,
                                     struct node *self,
                                     const struct orr_msg_cut_step *msg)
{
    return node_cut_step(ctx, self, msg);
}

static enum orr_err node_on_cut_report(struct orr_ctx *ctx,
                                       struct node *self,
                                       const struct orr_msg_cut_report *msg)
{
    node_cut_heard(ctx, self, msg);
    return ORR_OK;
}

static enum orr_err node_on_rank_ability(struct orr_ctx *ctx,
                                         struct node *self,
                                         const struct orr_msg_rank_ability *msg)
{
    node_ability(ctx, self, msg);
    return ORR_OK;
}

/* From /edge/rank, for the job actor. */
static enum orr_err node_on_rank_idle(struct orr_ctx *ctx,
                                      struct node *self,
                                      const struct orr_msg_rank_idle *msg)
{
    const struct node_group *group = node_group_find(self, msg->job, msg->generation);
    if (group && !group->is_frozen && !group->cut.is_frozen)
        orr_send(ctx,
                 node_job_addr(self, group),
                 rank_idle,
                 .job = msg->job,
                 .generation = msg->generation,
                 .node = orr_str(self->args.node),
                 .clocks = msg->clocks,
                 .pauses = msg->pauses);
    return ORR_OK;
}

/* From /edge/rank for the job actor; or its answer. */
static enum orr_err node_on_job_posts(struct orr_ctx *ctx,
                                      struct node *self,
                                      const struct orr_msg_job_posts *msg)
{
    const struct node_group *group = node_group_find(self, msg->job, msg->generation);
    if (group)
        ctx->ops->send(ctx,
                       msg->is_answer ? self->rank_edge : node_job_addr(self, group),
                       orr_msg_desc_job_posts(),
                       msg);
    return ORR_OK;
}

static enum orr_err node_on_device_used(struct orr_ctx *ctx,
                                        struct node *self,
                                        const struct orr_msg_device_used *msg)
{
    node_cut_used(ctx, self, msg);
    return ORR_OK;
}

static enum orr_err node_on_process_imaged(struct orr_ctx *ctx,
                                           struct node *self,
                                           const struct orr_msg_process_imaged *msg)
{
    (void)msg;
    node_cut_worked(ctx, self, ctx->tag);
    return ORR_OK;
}

static enum orr_err node_on_image_ability(struct orr_ctx *ctx,
                                          struct node *self,
                                          const struct orr_msg_image_ability *msg)
{
    self->is_image_able = msg->is_able;
    orr_str_copy(self->image_text, sizeof(self->image_text), msg->text);
    self->is_changed = true; /* the cluster shows it */
    node_register_send(ctx, self);
    return ORR_OK;
}

static enum orr_err node_on_store_kept(struct orr_ctx *ctx,
                                       struct node *self,
                                       const struct orr_msg_store_kept *msg)
{
    node_save_kept(ctx, self, msg);
    return ORR_OK;
}

static enum orr_err node_on_store_got(struct orr_ctx *ctx,
                                      struct node *self,
                                      const struct orr_msg_store_got *msg)
{
    (void)msg;
    node_cut_worked(ctx, self, ctx->tag);
    return ORR_OK;
}

static enum orr_err node_on_log_read(struct orr_ctx *ctx,
                                     struct node *self,
                                     const struct orr_msg_log_read *msg)
{
    (void)msg;
    orr_relay(ctx, self->process_edge);
    return ORR_OK;
}

/* ---- peers ---- */

static enum orr_err node_on_node_probe(struct orr_ctx *ctx,
                                       struct node *self,
                                       const struct orr_msg_node_probe *msg)
{
    if (!orr_str_eq(msg->cluster, orr_str(self->args.cluster)))
        return orr_refuse(
            ctx, ORR_EINVAL, "node %s is of another cluster", self->args.node);
    orr_reply(ctx, node_probed, .is_cut_off = node_is_cut_off(ctx, self));
    return ORR_OK;
}

static enum orr_err node_on_node_probed(struct orr_ctx *ctx,
                                        struct node *self,
                                        const struct orr_msg_node_probed *msg)
{
    node_probe_answered(ctx, self, msg);
    return ORR_OK;
}

/* ---- answers and time ---- */

static enum orr_err
node_on_ack(struct orr_ctx *ctx, struct node *self, const struct orr_msg_ack *msg)
{
    (void)msg;
    uint32_t index = (uint32_t)ctx->tag;
    uint32_t seq = (uint32_t)(ctx->tag >> 32) & 0xffffff;
    if (ctx->tag >> 56 == NODE_TAG_LAUNCH)
        node_launch_answered(ctx, self, index, seq);
    else if (ctx->tag >> 56 == NODE_TAG_HEARTBEAT)
        node_lease_renewed(ctx, self, node_sent_ms(ctx));
    else if (ctx->tag >> 56 == NODE_TAG_UPDATE)
        node_row_answered(ctx, self, index, seq, true);
    else if (ctx->tag >> 56 == NODE_TAG_NOTE)
        node_noted(ctx, self, seq, true);
    else if (ctx->tag >> 56 == NODE_TAG_WORK)
        node_cut_worked(ctx, self, ctx->tag);
    else if (ctx->tag >> 56 == NODE_TAG_ARENA)
        node_arenas_dropped(self, ctx->tag);
    else if (ctx->tag >> 56 == NODE_TAG_LEAVE)
        node_left_answered(ctx, self, index, seq, ORR_OK);
    return ORR_OK;
}

static enum orr_err
node_on_failed(struct orr_ctx *ctx, struct node *self, const struct orr_msg_failed *msg)
{
    uint32_t index = (uint32_t)ctx->tag;
    uint32_t seq = (uint32_t)(ctx->tag >> 32) & 0xffffff;
    switch (ctx->tag >> 56) {
    case NODE_TAG_REGISTER:
        self->is_registering = false;
        self->register_backoff_ms = self->register_backoff_ms
                                        ? self->register_backoff_ms * 2
                                        : REGISTER_BACKOFF_MIN_MS;
        if (self->register_backoff_ms > REGISTER_BACKOFF_MAX_MS)
            self->register_backoff_ms = REGISTER_BACKOFF_MAX_MS;
        self->register_due_ms = orr_now_ms(ctx) + self->register_backoff_ms +
                                orr_random(ctx) % self->register_backoff_ms;
        break;
    case NODE_TAG_HEARTBEAT:
        if (msg->code != ORR_ESTALE || !self->is_registered)
            break;
        self->is_registered = false;
        node_register_send(ctx, self);
        break;
    case NODE_TAG_UPDATE:
        node_row_answered(ctx, self, index, seq, false);
        break;
    case NODE_TAG_NOTE:
        node_noted(ctx, self, seq, false);
        break;
    case NODE_TAG_CUT:
    case NODE_TAG_WORK:
        node_cut_failed(ctx, self, ctx->tag, msg);
        break;
    case NODE_TAG_SAVE:
        node_save_failed(ctx, self, ctx->tag, msg->text);
        break;
    case NODE_TAG_ARENA:
        node_arenas_failed(ctx, self, ctx->tag, msg->code);
        break;
    case NODE_TAG_LEAVE:
        node_left_answered(ctx, self, index, seq, msg->code);
        break;
    case NODE_TAG_PORT:
    case NODE_TAG_LAUNCH:
        node_launch_failed(ctx, self, ctx->tag, msg);
        break;
    default:
        break;
    }
    return ORR_OK;
}

static enum orr_err
node_on_timer(struct orr_ctx *ctx, struct node *self, const struct orr_msg_timer *msg)
{
    if (msg->id == NODE_T_HEARTBEAT)
        node_heartbeat_send(ctx, self);
    else if (msg->id == NODE_T_STAGE)
        node_cut_begin_due(ctx, self);
    else
        node_retry(ctx, self);
    return ORR_OK;
}

#define READY ORR_IN(NODE_READY)
static const struct orr_handler handlers[] = {
    /*     actor message       accepted in     role            on overflow */
    ORR_ON(node, devices_found, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(node, device_health, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(node, processes_found, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(node, process_event, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(node, port_reserved, READY, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(node, node_registered, READY, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(node, node_probe, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(node, node_probed, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(node, rank_launch, READY, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(node, rank_stop, READY, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(node, ranks_get, READY, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(node, ranks_forget, READY, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(node, log_read, READY, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(node, cut_step, READY, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(node, cut_report, READY, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(node, rank_ability, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(node, job_posts, READY, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(node, rank_idle, READY, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(node, device_used, READY, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(node, process_imaged, READY, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(node, image_ability, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(node, store_kept, READY, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(node, store_got, READY, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(node, ack, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(node, failed, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(node, timer, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};

const struct orr_actor_type orr_node_type = {
    .name = "node",
    .state_size = sizeof(struct node),
    .args_size = sizeof(struct orr_node_args),
    .init = node_init,
    .fini = node_fini,
    .state_of = node_state_of,
    .state_name = node_state_name,
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
};
