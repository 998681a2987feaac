/* SPDX-License-Identifier: Apache-2.0
 * region_wishes.c - what clients want of a job: suspend, resume, checkpoint, resize, migrate.  Each is checked, and becomes the
 * job's newest order (region_orders.c).
 */
#include "region_calls.h"

static void open_order(struct orr_ctx *ctx,
                       struct region *self,
                       struct region_job *job,
                       enum orr_order kind,
                       struct orr_str why)
{
    region_order_open(ctx, self, job, kind, why, (struct region_resize){0});
}

static enum orr_err find_live(struct orr_ctx *ctx,
                              struct region *self,
                              struct orr_str id,
                              struct region_job **ret_job)
{
    enum orr_err err = region_find_job(ctx, self, id, ret_job);
    const struct region_job *job = *ret_job;
    if (err != ORR_OK)
        return err;
    if (job->phase == ORR_JOB_MOVED)
        return region_refuse_moved(ctx, job);
    if (job->where == REGION_ENDED)
        return orr_refuse(ctx,
                          ORR_ESTATE,
                          "job %s has ended already: %s",
                          job->id,
                          orr_job_phase_name(job->phase));
    if (job->is_cancelled)
        return orr_refuse(ctx, ORR_ESTATE, "job %s is being cancelled", job->id);
    if (job->where == REGION_LEAVING)
        return orr_refuse(ctx,
                          ORR_ESTATE,
                          "job %s is on its way to region %s; ask there once `orrery "
                          "show %s` says that it has moved",
                          job->id,
                          job->to_region,
                          job->id);
    return ORR_OK;
}

static enum orr_err
check_level(struct orr_ctx *ctx, const struct region_job *job, enum orr_order kind)
{
    if (job->level != ORR_LEVEL_NONE)
        return ORR_OK;
    return orr_refuse(ctx,
                      ORR_ENOSYS,
                      "%s: job %s can only be killed: %s",
                      orr_order_name(kind),
                      job->id,
                      job->why_level);
}

enum orr_err region_suspend(struct orr_ctx *ctx,
                            struct region *self,
                            const struct orr_msg_job_suspend *msg)
{
    struct region_job *job = NULL;
    enum orr_err err = find_live(ctx, self, msg->job, &job);
    if (err == ORR_OK && region_is_placed(job))
        err = check_level(ctx, job, ORR_ORDER_SUSPEND);
    if (err != ORR_OK || job->is_to_suspend)
        return err;
    struct orr_str why = msg->why.len ? msg->why : ORR_LIT("by its user");
    job->is_to_suspend = true;
    open_order(ctx, self, job, ORR_ORDER_SUSPEND, why);
    if (region_is_placed(job))
        return ORR_OK;
    region_order_close(ctx, self, job, ORR_OK, ORR_LIT("before it ran"));
    return region_requeue(ctx, self, job, 0, why);
}

enum orr_err region_resume(struct orr_ctx *ctx,
                           struct region *self,
                           const struct orr_msg_job_resume *msg)
{
    struct region_job *job = NULL;
    enum orr_err err = find_live(ctx, self, msg->job, &job);
    if (err != ORR_OK || !job->is_to_suspend)
        return err;
    job->is_to_suspend = false;
    open_order(ctx, self, job, ORR_ORDER_RUN, ORR_LIT("by its user"));
    return job->where == REGION_PARKED ? region_requeue(ctx, self, job, 0, ORR_LIT(""))
                                       : ORR_OK;
}

/* Two that ask at a time get the same one. */
enum orr_err region_take_checkpoint(struct orr_ctx *ctx,
                                    struct region *self,
                                    const struct orr_msg_job_checkpoint *msg)
{
    struct region_job *job = NULL;
    enum orr_err err = find_live(ctx, self, msg->job, &job);
    if (err == ORR_OK)
        err = check_level(ctx, job, ORR_ORDER_CHECKPOINT);
    if (err != ORR_OK)
        return err;
    bool is_open = region_order_is_open(job) && !job->order.is_own;
    if (!region_is_placed(job))
        return orr_refuse(ctx,
                          ORR_ESTATE,
                          "job %s is %s: there is nothing to save",
                          job->id,
                          orr_job_phase_name(job->phase));
    if (is_open && job->order.kind != ORR_ORDER_CHECKPOINT)
        return orr_refuse(ctx,
                          ORR_ESTATE,
                          "job %s: its %s is under way; try again when that is over",
                          job->id,
                          orr_order_name(job->order.kind));
    struct region_wait *wait = region_wait_new(ctx, self);
    if (!wait)
        return region_wait_refuse(ctx, self);
    if (!is_open)
        open_order(ctx, self, job, ORR_ORDER_CHECKPOINT, ORR_LIT("asked"));
    wait->order = job->order.number;
    wait->job = orr_pool_index(&self->jobs, job);
    wait->next = job->first_wait;
    job->first_wait = orr_pool_index(&self->waits, wait);
    return ORR_OK;
}

/* ---- another number of devices ---- */

static enum orr_err
check_devices(struct orr_ctx *ctx, const struct region_job *job, uint32_t devices)
{
    if (job->gpus_max == 0)
        return orr_refuse(ctx,
                          ORR_EINVAL,
                          "gpus: job %s runs without devices; its spec says so",
                          job->id);
    if (devices < job->gpus_min || devices > job->gpus_max)
        return orr_refuse(ctx,
                          ORR_EINVAL,
                          "gpus: job %s runs on %u..%u devices by its spec, not on %u",
                          job->id,
                          job->gpus_min,
                          job->gpus_max,
                          devices);
    if (devices < job->shards)
        return orr_refuse(ctx,
                          ORR_EINVAL,
                          "shards: job %s has %u, which share no device; give at least "
                          "as many",
                          job->id,
                          job->shards);
    return ORR_OK;
}

/* The same number again, while that is under way or done, changes nothing. */
enum orr_err region_resize(struct orr_ctx *ctx,
                           struct region *self,
                           const struct orr_msg_job_resize *msg)
{
    struct region_job *job = NULL;
    enum orr_err err = find_live(ctx, self, msg->job, &job);
    if (err == ORR_OK)
        err = check_devices(ctx, job, msg->devices);
    if (err == ORR_OK)
        err = check_level(ctx, job, ORR_ORDER_RESIZE);
    if (err != ORR_OK)
        return err;
    const struct region_order *order = &job->order;
    bool is_open = !order->is_own &&
                   (region_order_is_open(job) || order->state == ORR_ORDER_IS_QUEUED);
    if (is_open && order->kind == ORR_ORDER_RESIZE && order->devices == msg->devices)
        return ORR_OK;
    if (is_open)
        return orr_refuse(ctx,
                          ORR_ESTATE,
                          "job %s: its %s is under way; try again when that is over",
                          job->id,
                          orr_order_name(order->kind));
    if (job->is_to_suspend || job->is_parked)
        return orr_refuse(ctx,
                          ORR_ESTATE,
                          "job %s is suspended and has no devices; resume it first",
                          job->id);
    if (!region_is_placed(job))
        return orr_refuse(ctx,
                          ORR_ESTATE,
                          "job %s is %s: it has no devices yet",
                          job->id,
                          orr_job_phase_name(job->phase));
    bool is_there = job->phase == ORR_JOB_RUNNING && !region_order_is_open(job) &&
                    job->units == msg->devices;
    if (is_there) { /* and stays there */
        job->asked_devices = msg->devices;
        region_save(self, job, 0);
        return ORR_OK;
    }
    char why[48];
    snprintf(
        why, sizeof(why), "to %u device%s", msg->devices, msg->devices == 1 ? "" : "s");
    bool may_move =
        (job->level == ORR_LEVEL_IMAGE || job->level == ORR_LEVEL_COOPERATIVE) &&
        region_fits_devices(self, job, msg->devices);
    region_order_open(
        ctx,
        self,
        job,
        ORR_ORDER_RESIZE,
        orr_str(why),
        (struct region_resize){.devices = msg->devices, .may_move = may_move});
    return ORR_OK;
}

/* ---- migration ---- */

/* Go elsewhere: with its checkpoint if it runs, else when it starts. */
enum orr_err region_vacate(struct orr_ctx *ctx,
                           struct region *self,
                           struct region_job *job,
                           const char *cluster,
                           const char *node,
                           struct orr_str why)
{
    bool was_placed = region_is_placed(job);
    bool has_target = *cluster != '\0';
    char old_cluster[ORR_NAME_MAX], old_node[ORR_NAME_MAX];
    memcpy(old_cluster, job->to_cluster, sizeof(old_cluster));
    memcpy(old_node, job->to_node, sizeof(old_node));
    orr_str_copy(job->to_cluster, sizeof(job->to_cluster), orr_str(cluster));
    orr_str_copy(job->to_node, sizeof(job->to_node), orr_str(node));
    if (was_placed && has_target && !region_fits_now(self, job)) {
        char text[200];
        region_why_not(self, job, text, sizeof(text));
        memcpy(job->to_cluster, old_cluster, sizeof(old_cluster));
        memcpy(job->to_node, old_node, sizeof(old_node));
        return orr_refuse(ctx, ORR_ENODEV, "job %s stays: %s", job->id, text);
    }
    job->to_region[0] = '\0';
    open_order(ctx, self, job, ORR_ORDER_VACATE, why);
    if (was_placed || job->where == REGION_PARKED)
        return ORR_OK;
    return region_requeue(ctx, self, job, 0, ORR_LIT(""));
}

/* To another region, which would take it. */
enum orr_err region_order_away(struct orr_ctx *ctx,
                               struct region *self,
                               struct region_job *job,
                               const char *region)
{
    char why[ORR_NAME_MAX + 16];
    bool was_placed = region_is_placed(job);
    snprintf(why, sizeof(why), "to region %s", region);
    job->to_cluster[0] = job->to_node[0] = '\0';
    orr_str_copy(job->to_region, sizeof(job->to_region), orr_str(region));
    open_order(ctx, self, job, ORR_ORDER_VACATE, orr_str(why));
    return was_placed ? ORR_OK : region_leave(ctx, self, job);
}

enum orr_err region_migrate(struct orr_ctx *ctx,
                            struct region *self,
                            const struct orr_msg_job_migrate *msg)
{
    struct region_job *job = orr_map_find(&self->jobs_by_id, msg->job);
    if (job && msg->gone.len)
        return region_recall(ctx, self, job, msg);
    if (job && region_peer_is_it(job, msg->region))
        return ORR_OK;
    enum orr_err err = find_live(ctx, self, msg->job, &job);
    if (err == ORR_OK)
        err = check_level(ctx, job, ORR_ORDER_VACATE);
    if (err != ORR_OK)
        return err;
    if (msg->region.len && !orr_str_eq(msg->region, orr_str(self->args.region)))
        return region_migrate_away(ctx, self, job, msg->region);
    const struct region_node *node = NULL;
    const struct region_cluster *cluster = NULL;
    if (msg->node.len) {
        node = region_target_node(ctx, self, msg->cluster, msg->node);
        if (!node)
            return ORR_ENOENT;
        cluster = orr_pool_at(&self->clusters, node->cluster);
    } else if (msg->cluster.len) {
        cluster = orr_map_find(&self->clusters_by_name, msg->cluster);
        if (!cluster)
            return orr_refuse(ctx,
                              ORR_ENOENT,
                              "cluster %.*s: there is none in region %s; `orrery tree` "
                              "lists them",
                              ORR_STR_ARGS(msg->cluster),
                              self->args.region);
    }
    return region_vacate(ctx,
                         self,
                         job,
                         cluster ? cluster->name : "",
                         node ? node->name : "",
                         ORR_LIT("asked"));
}
