/* SPDX-License-Identifier: Apache-2.0
 * region_elastic.c - jobs that grow by themselves, and give back for others (docs/adr/0024-growth.md): clusters plan it, here it becomes
 * orders.
 *
 * OPERATION  A cluster is told which jobs wait and might run there, after its summaries.  What it makes of that comes as
 *            jobs_resize, and is looked at as if it were old: only what still holds becomes an order, all of it or nothing.  An order
 *            of a user replaces one of these at any time.
 *            What is given back is kept for the job that it is for: until that has left the queue, others see less room
 * FAILURES   A new leader knows the orders and not what is kept; then another job may be faster.  A job that cannot give back what
 *            was planned sets all free.  Nothing is kept for longer than KEPT_MS
 */
#include "region_calls.h"

enum {
    LOOK_MAX = 32, /* at the head of the queue: a long one never holds up the region */
    WAITING_MAX = 8,
    TELL_EVERY_MS = 200,
    SIZES_MAX = 64,
    KEPT_MS = 300000
};

/* ---- who waits ---- */

static bool waits_for(struct region *self,
                      const struct region_cluster *cluster,
                      const struct region_job *job)
{
    return job->gpus_max && !job->to_node[0] && region_may_run_in(self, cluster, job) &&
           !region_fits_now(self, job);
}

static struct region_job *first_from(const struct region *self, uint32_t tier)
{
    for (; tier < ORR_TIER_MAX_; tier++)
        if (self->queue[tier].head != ORR_NONE)
            return region_job_at(self, self->queue[tier].head);
    return NULL;
}

static struct region_job *after(const struct region *self, const struct region_job *job)
{
    struct region_job *next = region_job_at(self, job->in_progress.next);
    return next ? next : first_from(self, job->tier + 1);
}

/* False: there is no room for its spec. */
static bool list_job(struct region *self,
                     const struct region_job *job,
                     size_t *used,
                     struct orr_rec_waiting_job *ret_row)
{
    *ret_row = (struct orr_rec_waiting_job){.job = orr_str(job->id),
                                            .tier = job->tier,
                                            .devices = region_devices_least(job)};
    if (!job->has_rules)
        return true;
    struct orr_bytes spec = region_spec(self, job);
    if (spec.len > self->waiting.size - *used)
        return false;
    uint8_t *at = (uint8_t *)self->waiting.at + *used;
    memcpy(at, spec.ptr, spec.len);
    ret_row->spec = (struct orr_bytes){at, spec.len};
    *used += spec.len;
    return true;
}

void region_tell_waiting(struct orr_ctx *ctx,
                         struct region *self,
                         struct region_cluster *cluster)
{
    struct orr_rec_waiting_job rows[WAITING_MAX];
    struct region_job *job = first_from(self, 0);
    uint32_t n = 0;
    size_t used = 0;
    if (orr_now_ms(ctx) - cluster->told_ms < TELL_EVERY_MS) /* the next one will do */
        return;
    cluster->told_ms = orr_now_ms(ctx);
    for (uint32_t i = 0; job && i < LOOK_MAX && n < WAITING_MAX; i++) {
        if (waits_for(self, cluster, job) && list_job(self, job, &used, &rows[n]))
            n++;
        job = after(self, job);
    }
    if (n || cluster->is_waited)
        orr_send(ctx, cluster->addr, jobs_waiting, .jobs = {rows, n});
    cluster->is_waited = n > 0;
}

/* ---- what is kept for one of them ---- */

void region_kept_drop(struct orr_ctx *ctx,
                      struct region *self,
                      struct region_cluster *cluster)
{
    if (!cluster->kept)
        return;
    cluster->kept = 0;
    region_schedule(ctx, self);
}

void region_kept_watch(struct orr_ctx *ctx, struct region *self)
{
    for (struct region_cluster *cluster = NULL;
         (cluster = orr_pool_next(&self->clusters, cluster)) != NULL;) {
        const struct region_job *job = region_job_at(self, cluster->kept_for);
        bool is_waiting =
            job && job->counter == cluster->kept_counter && job->where == REGION_QUEUED;
        if (!is_waiting || orr_now_ms(ctx) >= cluster->kept_until_ms)
            region_kept_drop(ctx, self, cluster);
    }
}

static void keep(struct orr_ctx *ctx,
                 struct region *self,
                 struct region_cluster *cluster,
                 const struct region_job *job)
{
    cluster->kept = region_devices_least(job);
    cluster->kept_for = orr_pool_index(&self->jobs, job);
    cluster->kept_counter = job->counter;
    cluster->kept_until_ms = orr_now_ms(ctx) + KEPT_MS;
}

/* ---- what a cluster has planned ---- */

static enum orr_err check_devices(struct orr_ctx *ctx,
                                  const struct region_job *job,
                                  const struct orr_rec_job_size *size,
                                  bool is_given_back)
{
    bool is_right = is_given_back ? size->to < size->devices : size->to > size->devices;
    if (job->units != size->devices || !is_right || size->to < job->gpus_min ||
        size->to > job->gpus_max || size->to < job->shards)
        return orr_refuse(ctx,
                          ORR_ESTALE,
                          "job %s has %u devices, of %u..%u, and goes not to %u",
                          job->id,
                          job->units,
                          job->gpus_min,
                          job->gpus_max,
                          size->to);
    if (job->asked_devices)
        return orr_refuse(ctx,
                          ORR_EPERM,
                          "job %s stays on %u devices: its user has ordered that",
                          job->id,
                          job->asked_devices);
    return ORR_OK;
}

static enum orr_err check_job(struct orr_ctx *ctx,
                              struct region *self,
                              const struct orr_rec_job_size *size,
                              const struct region_job *waiting,
                              struct region_job **ret_job)
{
    struct region_job *job = NULL;
    enum orr_err err = region_speaks_for(ctx, self, size->job, size->generation, &job);
    if (err != ORR_OK)
        return err;
    bool is_calm = job->where == REGION_HELD && job->phase == ORR_JOB_RUNNING &&
                   region_is_placed(job) && !job->is_cancelled && !job->is_to_suspend &&
                   !job->is_parked && !region_order_is_open(job) &&
                   job->order.state != ORR_ORDER_IS_QUEUED;
    if (!is_calm)
        return orr_refuse(
            ctx, ORR_EBUSY, "job %s: something else is under way", job->id);
    if (job->level == ORR_LEVEL_NONE || job->level == ORR_LEVEL_UNKNOWN)
        return orr_refuse(ctx, ORR_ENOSYS, "job %s cannot be stopped", job->id);
    if (waiting && job->tier < waiting->tier)
        return orr_refuse(
            ctx, ORR_EPERM, "job %s is of a higher tier than %s", job->id, waiting->id);
    *ret_job = job;
    return check_devices(ctx, job, size, waiting != NULL);
}

/* Nobody gives back in vain, nor grows while somebody waits. */
static enum orr_err check_waiting(struct orr_ctx *ctx,
                                  struct region *self,
                                  const struct region_cluster *cluster,
                                  const struct orr_msg_jobs_resize *msg,
                                  struct region_job **ret_waiting)
{
    struct region_job *job = orr_map_find(&self->jobs_by_id, msg->waiting);
    if (msg->waiting.len) {
        *ret_waiting = job;
        if (job && job->where == REGION_QUEUED && waits_for(self, cluster, job) &&
            region_devices_least(job) == msg->devices)
            return ORR_OK;
        return orr_refuse(ctx,
                          ORR_ESTALE,
                          "job %.*s does not wait for %u devices any more",
                          ORR_STR_ARGS(msg->waiting),
                          msg->devices);
    }
    job = first_from(self, 0);
    for (uint32_t i = 0; job && i < LOOK_MAX; i++, job = after(self, job))
        if (waits_for(self, cluster, job))
            return orr_refuse(ctx, ORR_ESTALE, "job %s waits for devices now", job->id);
    return ORR_OK;
}

enum orr_err region_jobs_resize(struct orr_ctx *ctx,
                                struct region *self,
                                const struct orr_msg_jobs_resize *msg)
{
    struct region_job *jobs[SIZES_MAX], *waiting = NULL;
    struct region_cluster *cluster;
    enum orr_err err = region_cluster_known(ctx, self, msg->cluster, &cluster);
    if (err != ORR_OK)
        return err;
    if (msg->sizes.n == 0 || msg->sizes.n > SIZES_MAX)
        return orr_refuse(ctx, ORR_EINVAL, "sizes: give 1 to %d jobs", (int)SIZES_MAX);
    if (msg->waiting.len && cluster->kept)
        return orr_refuse(ctx, ORR_EBUSY, "what was given back before is not used yet");
    err = check_waiting(ctx, self, cluster, msg, &waiting);
    for (uint32_t i = 0; i < msg->sizes.n && err == ORR_OK; i++)
        err = check_job(ctx, self, &msg->sizes.at[i], waiting, &jobs[i]);
    if (err != ORR_OK)
        return err;
    for (uint32_t i = 0; i < msg->sizes.n; i++) {
        char why[160];
        uint32_t to = msg->sizes.at[i].to;
        snprintf(why,
                 sizeof(why),
                 "to %u device%s: %.*s",
                 to,
                 to == 1 ? "" : "s",
                 ORR_STR_ARGS(msg->why));
        region_order_open(ctx,
                          self,
                          jobs[i],
                          ORR_ORDER_RESIZE,
                          orr_str(why),
                          (struct region_resize){.devices = to, .is_own = true});
    }
    if (waiting)
        keep(ctx, self, cluster, waiting);
    return ORR_OK;
}
