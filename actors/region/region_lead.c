/* SPDX-License-Identifier: Apache-2.0
 * region_lead.c - from the tables of a standby to those of a leader: order, queues, and whom to ask again.
 *
 * Nothing here changes what the ledger means.  A cluster keeps its jobs; what it holds it says when it registers with this
 * leader (region_cluster_register), and that also finds the jobs whose offer or stop died with the former leader.
 */
#include "region_calls.h"

enum { SOON_MS = 10 };

static int by_age(const void *a, const void *b, void *arg)
{
    const struct region *self = arg;
    uint64_t x = region_job_at(self, *(const uint32_t *)a)->counter;
    uint64_t y = region_job_at(self, *(const uint32_t *)b)->counter;
    return (x > y) - (x < y);
}

/* Indices of all jobs, oldest first, in scratch memory. */
static const uint32_t *sorted(struct orr_ctx *ctx, struct region *self, uint32_t *ret_n)
{
    uint32_t *order = self->list.at; /* has room: it is sized for a claim of each job */
    uint32_t n = 0;
    for (struct region_job *job = NULL;
         (job = orr_pool_next(&self->jobs, job)) != NULL;) {
        if (job->is_recorded && job->spec != ORR_NONE) {
            order[n++] = orr_pool_index(&self->jobs, job);
            continue;
        }
        orr_log(ctx,
                ORR_LOG_ERROR,
                "ledger: job %s has no %s record; left out",
                job->id,
                job->is_recorded ? "spec/" : "job/");
        region_job_forget(self, job);
    }
    qsort_r(order, n, sizeof(*order), by_age, self);
    *ret_n = n;
    return order;
}

static void
wait_for_start(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    uint64_t delay =
        job->start_unix_ms > ctx->wall_ms ? job->start_unix_ms - ctx->wall_ms : 0;
    uint64_t most = 2 * job->backoff_max_ms + SOON_MS; /* whatever the clocks say */
    if (delay == 0) {
        region_enqueue(self, job);
        return;
    }
    job->where = REGION_BACKOFF;
    orr_timer_set(ctx,
                  region_job_timer_id(self, job, REGION_JOB_START),
                  delay < most ? delay : most,
                  0);
}

static void hold(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    job->where = REGION_HELD;
    if (!job->is_parked || !job->gpus_max)
        region_debit(self, job, 1);
    if (job->is_cancelled)
        orr_timer_set(ctx, region_job_timer_id(self, job, REGION_JOB_STOP), SOON_MS, 0);
}

static void
put_in_place(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    region_list_append_all(self, job);
    self->n_running += job->phase == ORR_JOB_RUNNING;
    if (orr_job_phase_is_final(job->phase)) {
        job->where = REGION_ENDED;
        region_list_append_finished(self, job);
        if (region_peer_is_due(job))
            region_peer_ask(ctx, self, job);
    } else if (region_order_is_away(job)) {
        job->where = REGION_LEAVING;
        region_peer_ask(ctx, self, job);
    } else if (job->phase == ORR_JOB_SUSPENDED && !region_has_places(job)) {
        job->where = REGION_PARKED;
    } else if (job->phase == ORR_JOB_QUEUED || job->cluster == ORR_NONE) {
        wait_for_start(ctx, self, job);
    } else {
        hold(ctx, self, job);
    }
}

void region_lead(struct orr_ctx *ctx, struct region *self)
{
    uint32_t n;
    const uint32_t *order = sorted(ctx, self, &n);
    for (struct region_cluster *cluster = NULL;
         (cluster = orr_pool_next(&self->clusters, cluster)) != NULL;)
        cluster->seen_ms = orr_now_ms(ctx); /* a full wait for each */
    self->next_counter = self->counter_min ? self->counter_min : 1;
    for (uint32_t i = 0; i < n; i++) {
        struct region_job *job = region_job_at(self, order[i]);
        if (job->counter >= self->next_counter)
            self->next_counter = job->counter + 1;
        put_in_place(ctx, self, job);
    }
    if (self->epoch ==
        0) { /* a new ledger: later than any before it, and with numbers that none before gave away on
                               this host, whose ranks may still run */
        self->epoch = ctx->wall_ms / 1000 + 1;
        self->next_counter = (uint64_t)(ctx->self.incarnation - 1) << 20 | 1;
        self->counter_min = self->next_counter;
        self->ledger.is_region_dirty = true;
    }
    char subject[ORR_NAME_MAX + 8];
    snprintf(subject, sizeof(subject), "region/%s", self->args.region);
    region_event(ctx,
                 self,
                 &(struct orr_msg_event){.type = ORR_LIT("region.leader"),
                                         .subject = orr_str(subject),
                                         .to = orr_str(self->args.host)});
    region_collect_soon(ctx, self);
    region_schedule(ctx, self);
}
