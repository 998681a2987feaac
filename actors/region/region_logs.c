/* SPDX-License-Identifier: Apache-2.0
 * region_logs.c - what ranks wrote is read through the region: it knows which cluster and node has the file, and passes the answer on.
 */
#include "region_calls.h"

enum { LOG_ASK_MS = 10000 };

enum orr_err region_log_read(struct orr_ctx *ctx,
                             struct region *self,
                             const struct orr_msg_log_read *msg)
{
    struct region_job *job = NULL;
    enum orr_err err = region_find_job(ctx, self, msg->job, &job);
    if (err == ORR_OK && job->phase == ORR_JOB_MOVED)
        err = region_refuse_moved(ctx, job);
    if (err != ORR_OK)
        return err;
    struct orr_list_rank_place ranks = region_places(self, job);
    const struct region_cluster *cluster = orr_pool_at(&self->clusters, job->cluster);
    if (!cluster || ranks.n == 0)
        return orr_refuse(ctx,
                          ORR_ESTATE,
                          "job %s is %s and has no log yet",
                          job->id,
                          orr_job_phase_name(job->phase));
    if (msg->rank >= ranks.n)
        return orr_refuse(
            ctx, ORR_ENOENT, "job %s has ranks 0..%u", job->id, ranks.n - 1);
    struct region_wait *wait = region_wait_new(ctx, self);
    if (!wait)
        return region_wait_refuse(ctx, self);
    uint64_t left =
        wait->until_ms > orr_now_ms(ctx) ? wait->until_ms - orr_now_ms(ctx) : 1;
    orr_ask(ctx,
            cluster->addr,
            left < LOG_ASK_MS ? left : LOG_ASK_MS,
            (uint64_t)REGION_TAG_LOG << 56 | orr_pool_index(&self->waits, wait),
            log_read,
            .job = orr_str(job->id),
            .generation = msg->generation ? msg->generation : job->generation,
            .rank = msg->rank,
            .stream = msg->stream,
            .offset = msg->offset,
            .max_bytes = msg->max_bytes,
            .node = ranks.at[msg->rank].node);
    return ORR_OK;
}

struct region_wait *region_log_wait(const struct orr_ctx *ctx,
                                    const struct region *self)
{
    struct region_wait *wait = orr_pool_at(&self->waits, (uint32_t)ctx->tag);
    return ctx->tag >> 56 == REGION_TAG_LOG && wait && wait->job == ORR_NONE ? wait
                                                                             : NULL;
}

enum orr_err region_log_chunk(struct orr_ctx *ctx,
                              struct region *self,
                              const struct orr_msg_log_chunk *msg)
{
    struct region_wait *wait = region_log_wait(ctx, self);
    if (!wait)
        return ORR_OK;
    ctx->ops->reply(ctx, &wait->request, orr_msg_desc_log_chunk(), msg);
    orr_pool_give(&self->waits, wait);
    return ORR_OK;
}
