/* SPDX-License-Identifier: Apache-2.0
 * region_soft.c - what readers that only look may know of the region and its live jobs (include/orrery/soft.h).
 *
 * Only the leader publishes.  A job's row is put when its phase changes, and again in a round over all of them, since rows
 * lapse.  That a job has ended is repeated for a while, too: it may have been lost on its way, and a former leader's row may
 * have outlived the job.  A region with more live jobs than ROWS_MAX publishes no rows, and readers page through the region itself.
 */
#include "orrery/soft.h"
#include "region_calls.h"

enum {
    ROWS_MAX = 10000,
    ROUND_TICKS = 50, /* a round takes about 25 s */
    SLOTS_MIN = 64,
    PUTS_MAX = 512,  /* in one handler */
    GONE_MS = 60000, /* so long that two rounds say it again */
    REGION_MS = 1000,
    WHY_BYTES = 256,
};

static bool publishes(const struct region *self)
{
    return self->args.has_softstate && self->ledger.is_leading;
}

static uint32_t n_live(const struct region *self)
{
    return self->jobs.n_used - self->finished.n;
}

static void put_job(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    char why[WHY_BYTES];
    struct orr_rec_job_row row;
    region_job_row(ctx, self, job, why, sizeof(why), &row);
    orr_soft_put_job(ctx, orr_str(self->args.region), &row);
}

/* An earlier life on this host may have led. */
void region_soft_init(struct orr_ctx *ctx, const struct region *self)
{
    if (self->args.has_softstate)
        orr_soft_drop(ctx);
}

void region_soft_job(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    if (!publishes(self))
        return;
    if (orr_job_phase_is_final(job->phase))
        orr_soft_gone_job(ctx, orr_str(self->args.region), orr_str(job->id));
    else if (n_live(self) <= ROWS_MAX)
        put_job(ctx, self, job);
}

static void put_region(struct orr_ctx *ctx, struct region *self)
{
    struct orr_msg_soft_region row = {.region = orr_str(self->args.region),
                                      .host = orr_str(self->args.host),
                                      .jobs = n_live(self),
                                      .running = self->n_running,
                                      .clusters = self->clusters.n_used,
                                      .epoch = self->epoch,
                                      .seq = self->seq};
    for (uint32_t tier = 0; tier < ORR_TIER_MAX_; tier++)
        row.queued += self->queue[tier].n;
    for (struct region_cluster *cluster = NULL;
         (cluster = orr_pool_next(&self->clusters, cluster)) != NULL;) {
        row.gpus += cluster->gpus;
        row.gpus_free += cluster->gpus_free;
    }
    orr_soft_put_region(ctx, &row);
}

void region_soft_tick(struct orr_ctx *ctx, struct region *self)
{
    if (!publishes(self))
        return;
    if (orr_now_ms(ctx) - self->soft_ms >= REGION_MS) {
        self->soft_ms = orr_now_ms(ctx);
        put_region(ctx, self);
    }
    if (n_live(self) > ROWS_MAX)
        return;
    uint32_t slots = self->jobs.n_fresh / ROUND_TICKS + SLOTS_MIN;
    for (uint32_t puts = 0; slots > 0 && puts < PUTS_MAX; slots--) {
        if (self->soft_next >= self->jobs.n_fresh) {
            self->soft_next = 0;
            return;
        }
        struct region_job *job = region_job_at(self, self->soft_next++);
        if (!job || (job->where == REGION_ENDED &&
                     ctx->wall_ms > job->changed_unix_ms + GONE_MS))
            continue;
        region_soft_job(ctx, self, job);
        puts++;
    }
}
