/* SPDX-License-Identifier: Apache-2.0
 * cluster.c - the cluster actor: what it accepts.
 *
 * START       finds the region's leader and registers (cluster_region.c)
 * OPERATION   one tick per heartbeat: watch nodes, check orphans, send the summary
 * STOP        its job actors go with it; their ranks run on, and the next life adopts
 *             them
 */
#include "cluster_calls.h"

ORR_HANDLER(cluster, cluster_registered)
ORR_HANDLER(cluster, node_register)
ORR_HANDLER(cluster, node_heartbeat)
ORR_HANDLER(cluster, job_assign)
ORR_HANDLER(cluster, job_stop)
ORR_HANDLER(cluster, job_order)
ORR_HANDLER(cluster, node_drain)
ORR_HANDLER(cluster, stores_collect)
ORR_HANDLER(cluster, store_collected)
ORR_HANDLER(cluster, devices_freed)
ORR_HANDLER(cluster, devices_want)
ORR_HANDLER(cluster, devices_keep)
ORR_HANDLER(cluster, job_released)
ORR_HANDLER(cluster, job_report)
ORR_HANDLER(cluster, jobs_waiting)
ORR_HANDLER(cluster, log_read)
ORR_HANDLER(cluster, down)
ORR_HANDLER(cluster, ack)
ORR_HANDLER(cluster, failed)
ORR_HANDLER(cluster, timer)

static struct orr_str node_key(const void *item)
{
    return orr_str(((const struct cluster_node *)item)->name);
}

static struct orr_str job_key(const void *item)
{
    return orr_str(((const struct cluster_job *)item)->key);
}

static void cluster_fini(void *state)
{
    struct cluster *self = state;
    orr_map_fini(&self->nodes_by_name);
    orr_map_fini(&self->jobs_by_key);
    orr_pool_fini(&self->nodes);
    orr_pool_fini(&self->jobs);
    orr_pool_fini(&self->holds);
    orr_block_fini(&self->spec);
    orr_block_fini(&self->view);
    orr_block_fini(&self->places);
    orr_block_fini(&self->slots);
    orr_block_fini(&self->list);
    orr_block_fini(&self->plan);
    orr_block_fini(&self->sums);
}

static uint32_t default_to(uint32_t value, uint32_t otherwise)
{
    return value ? value : otherwise;
}

static enum orr_err take_storage(struct cluster *self)
{
    uint32_t nodes = self->args.nodes_max;
    uint32_t jobs = self->args.jobs_max;
    size_t rows = nodes * sizeof(struct orr_rec_node_row);
    size_t claims = jobs * sizeof(struct orr_rec_job_claim);
    enum orr_err err = orr_pool_init(&self->nodes, sizeof(struct cluster_node), nodes);
    if (err == ORR_OK)
        err = orr_pool_init(&self->jobs, sizeof(struct cluster_job), jobs);
    if (err == ORR_OK)
        err =
            orr_pool_init(&self->holds, sizeof(struct cluster_hold), jobs * 4 + nodes);
    if (err == ORR_OK)
        err = orr_map_init(&self->nodes_by_name, &self->nodes, node_key);
    if (err == ORR_OK)
        err = orr_map_init(&self->jobs_by_key, &self->jobs, job_key);
    if (err == ORR_OK)
        err = orr_block_init(&self->spec, CLUSTER_SPEC_BYTES);
    if (err == ORR_OK)
        err = orr_block_init(&self->view, nodes * sizeof(struct place_node));
    if (err == ORR_OK)
        err = orr_block_init(&self->places,
                             self->args.world_max * sizeof(struct orr_rec_rank_place));
    if (err == ORR_OK)
        err = orr_block_init(&self->slots,
                             self->args.world_max * sizeof(struct orr_rec_device_slot));
    if (err == ORR_OK)
        err = orr_block_init(&self->list, rows > claims ? rows : claims);
    if (err == ORR_OK)
        err = orr_block_init(&self->plan, sizeof(struct cluster_plan));
    if (err == ORR_OK)
        err = orr_block_init(&self->sums,
                             (self->args.world_max + 1) * sizeof(struct elastic_sum));
    return err;
}

static enum orr_err cluster_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct cluster *self = state;
    self->args = *(const struct orr_cluster_args *)args;
    self->args.nodes_max = default_to(self->args.nodes_max, 256);
    self->args.jobs_max = default_to(self->args.jobs_max, 4096);
    self->args.world_max = default_to(self->args.world_max, 4096);
    self->args.heartbeat_ms = default_to(self->args.heartbeat_ms, 500);
    self->args.suspect_ms = default_to(self->args.suspect_ms, 2000);
    self->args.lease_ms = default_to(self->args.lease_ms, 30000);
    enum orr_err err = take_storage(self);
    if (err != ORR_OK) {
        cluster_fini(self);
        return orr_refuse(ctx,
                          err,
                          "cluster %s: no memory for %u nodes and %u jobs",
                          self->args.cluster,
                          self->args.nodes_max,
                          self->args.jobs_max);
    }
    cluster_region_start(ctx, self);
    orr_timer_set(ctx, CLUSTER_T_TICK, self->args.heartbeat_ms, 0);
    return ORR_OK;
}

static enum orr_err
cluster_on_cluster_registered(struct orr_ctx *ctx,
                              struct cluster *self,
                              const struct orr_msg_cluster_registered *msg)
{
    return cluster_registered(ctx, self, msg);
}

/* ---- nodes ---- */

static enum orr_err cluster_on_node_register(struct orr_ctx *ctx,
                                             struct cluster *self,
                                             const struct orr_msg_node_register *msg)
{
    return cluster_node_register(ctx, self, msg);
}

static enum orr_err cluster_on_node_heartbeat(struct orr_ctx *ctx,
                                              struct cluster *self,
                                              const struct orr_msg_node_heartbeat *msg)
{
    return cluster_node_heartbeat(ctx, self, msg);
}

static enum orr_err cluster_on_log_read(struct orr_ctx *ctx,
                                        struct cluster *self,
                                        const struct orr_msg_log_read *msg)
{
    const struct cluster_node *node = cluster_node_find(self, msg->node);
    if (!node || orr_addr_is_none(node->addr))
        return orr_refuse(
            ctx,
            ORR_ENOENT,
            "node %.*s has the log and is not here now; try again when it is back",
            ORR_STR_ARGS(msg->node));
    char path[3 * ORR_NAME_MAX + 4];
    snprintf(path,
             sizeof(path),
             "/%s/%s/%s",
             self->args.region,
             self->args.cluster,
             node->name);
    /* By name: logs are the machine's, whichever life of its host reads them. */
    orr_relay(
        ctx,
        (struct orr_addr){.host = node->addr.host, .slot = orr_hash(orr_str(path))});
    return ORR_OK;
}

/* ---- jobs ---- */

static enum orr_err cluster_on_job_assign(struct orr_ctx *ctx,
                                          struct cluster *self,
                                          const struct orr_msg_job_assign *msg)
{
    return cluster_job_assign(ctx, self, msg);
}

static enum orr_err relay_to_job(struct orr_ctx *ctx,
                                 const struct cluster *self,
                                 struct orr_str id,
                                 uint64_t generation)
{
    const struct cluster_job *job = cluster_job_find(self, id, generation);
    if (!job || job->state != CLUSTER_JOB_LIVE)
        return orr_refuse(ctx,
                          ORR_ENOENT,
                          "cluster %s has no actor of job %.*s",
                          self->args.cluster,
                          ORR_STR_ARGS(id));
    orr_relay(ctx, job->addr);
    return ORR_OK;
}

static enum orr_err cluster_on_job_stop(struct orr_ctx *ctx,
                                        struct cluster *self,
                                        const struct orr_msg_job_stop *msg)
{
    return relay_to_job(ctx, self, msg->job, msg->generation);
}

static enum orr_err cluster_on_job_order(struct orr_ctx *ctx,
                                         struct cluster *self,
                                         const struct orr_msg_job_order *msg)
{
    return relay_to_job(ctx, self, msg->job, msg->generation);
}

static enum orr_err cluster_on_devices_freed(struct orr_ctx *ctx,
                                             struct cluster *self,
                                             const struct orr_msg_devices_freed *msg)
{
    return cluster_devices_freed(ctx, self, msg);
}

static enum orr_err cluster_on_devices_want(struct orr_ctx *ctx,
                                            struct cluster *self,
                                            const struct orr_msg_devices_want *msg)
{
    return cluster_devices_want(ctx, self, msg);
}

static enum orr_err cluster_on_devices_keep(struct orr_ctx *ctx,
                                            struct cluster *self,
                                            const struct orr_msg_devices_keep *msg)
{
    return cluster_devices_keep(ctx, self, msg);
}

static enum orr_err cluster_on_job_report(struct orr_ctx *ctx,
                                          struct cluster *self,
                                          const struct orr_msg_job_report *msg)
{
    return cluster_job_reported(ctx, self, msg);
}

static enum orr_err cluster_on_jobs_waiting(struct orr_ctx *ctx,
                                            struct cluster *self,
                                            const struct orr_msg_jobs_waiting *msg)
{
    return cluster_jobs_waiting(ctx, self, msg);
}

static enum orr_err cluster_on_node_drain(struct orr_ctx *ctx,
                                          struct cluster *self,
                                          const struct orr_msg_node_drain *msg)
{
    cluster_node_drain(ctx, self, msg->node, msg->is_draining);
    return ORR_OK;
}

static enum orr_err cluster_on_stores_collect(struct orr_ctx *ctx,
                                              struct cluster *self,
                                              const struct orr_msg_stores_collect *msg)
{
    return cluster_collect(ctx, self, msg);
}

static enum orr_err
cluster_on_store_collected(struct orr_ctx *ctx,
                           struct cluster *self,
                           const struct orr_msg_store_collected *msg)
{
    cluster_collected(ctx, self, msg);
    return ORR_OK;
}

static enum orr_err cluster_on_job_released(struct orr_ctx *ctx,
                                            struct cluster *self,
                                            const struct orr_msg_job_released *msg)
{
    struct cluster_job *job = cluster_job_find(self, msg->job, msg->generation);
    struct cluster_node *node = cluster_node_find(self, msg->node);
    struct cluster_hold *hold = job ? orr_pool_at(&self->holds, job->first_hold) : NULL;
    while (hold && orr_pool_at(&self->nodes, hold->node) != node)
        hold = orr_pool_at(&self->holds, hold->next);
    /* Of a node that is back the actor knows nothing: when it has ended, they are an orphan's (cluster_jobs.c). */
    if (hold && !(hold->is_given_up && node->state != ORR_NODE_LOST))
        cluster_hold_drop(self, hold);
    cluster_changed(ctx, self);
    return ORR_OK;
}

static enum orr_err cluster_on_down(struct orr_ctx *ctx,
                                    struct cluster *self,
                                    const struct orr_msg_down *msg)
{
    cluster_job_gone(ctx, self, msg);
    return ORR_OK;
}

/* ---- answers and time ---- */

static enum orr_err
cluster_on_ack(struct orr_ctx *ctx, struct cluster *self, const struct orr_msg_ack *msg)
{
    (void)msg;
    if (ctx->tag >> 56 == CLUSTER_TAG_FORGET)
        cluster_forgotten(
            ctx, self, (uint32_t)ctx->tag, (uint32_t)(ctx->tag >> 32) & 0xffffff);
    return ORR_OK;
}

static enum orr_err cluster_on_failed(struct orr_ctx *ctx,
                                      struct cluster *self,
                                      const struct orr_msg_failed *msg)
{
    uint32_t seq = (uint32_t)(ctx->tag >> 32) & 0xffffff;
    switch (ctx->tag >> 56) {
    case CLUSTER_TAG_REGISTER:
        cluster_register_failed(ctx, self, msg);
        break;
    case CLUSTER_TAG_SUMMARY:
        cluster_summary_failed(ctx, self, seq, msg);
        break;
    case CLUSTER_TAG_CHECK: {
        struct cluster_job *job = orr_pool_at(&self->jobs, (uint32_t)ctx->tag);
        if (job && (job->seq & 0xffffff) == seq && job->state == CLUSTER_JOB_ORPHAN &&
            (msg->code == ORR_ESTALE || msg->code == ORR_ENOENT))
            cluster_job_doom(self, job);
        break;
    }
    case CLUSTER_TAG_COLLECT:
        cluster_collect_failed(ctx, self, msg);
        break;
    case CLUSTER_TAG_RESIZE:
        cluster_resize_failed(ctx, self, seq, msg);
        break;
    default:
        break;
    }
    return ORR_OK;
}

static enum orr_err cluster_on_timer(struct orr_ctx *ctx,
                                     struct cluster *self,
                                     const struct orr_msg_timer *msg)
{
    if (msg->id == CLUSTER_T_SUMMARY) {
        cluster_send_summary(ctx, self);
        return ORR_OK;
    }
    if (msg->id == CLUSTER_T_SEARCH) {
        if (!self->is_registered)
            cluster_send_register(ctx, self);
        return ORR_OK;
    }
    cluster_nodes_watch(ctx, self);
    cluster_orphans_check(ctx, self);
    cluster_send_summary(ctx, self);
    cluster_grow_tick(ctx, self);
    orr_timer_set(ctx, CLUSTER_T_TICK, self->args.heartbeat_ms, 0);
    return ORR_OK;
}

static const struct orr_handler handlers[] = {
    /*     actor    message             accepted in    role            on overflow */
    ORR_ON(cluster, cluster_registered, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(cluster, node_register, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(cluster, node_heartbeat, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_COALESCE),
    ORR_ON(cluster, job_assign, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(cluster, job_stop, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(cluster, job_order, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(cluster, node_drain, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(cluster, stores_collect, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(cluster, store_collected, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(cluster, devices_freed, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(cluster, devices_want, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(cluster, devices_keep, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(cluster, job_released, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(cluster, job_report, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(cluster, jobs_waiting, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_COALESCE),
    ORR_ON(cluster, log_read, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(cluster, down, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(cluster, ack, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(cluster, failed, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(cluster, timer, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};

const struct orr_actor_type orr_cluster_type = {
    .name = "cluster",
    .state_size = sizeof(struct cluster),
    .args_size = sizeof(struct orr_cluster_args),
    .init = cluster_init,
    .fini = cluster_fini,
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
    .supervision = {ORR_ONE_FOR_ONE,
                    .intensity = 100,
                    .period_ms = 10000,
                    .backoff_min_ms = 100,
                    .backoff_max_ms = 5000},
};
