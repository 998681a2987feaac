/* SPDX-License-Identifier: Apache-2.0
 * cluster_grow.c - running jobs grow by themselves where devices are free, and give back for jobs that wait (docs/adr/0024-growth.md):
 * the snapshots for the plans of cluster_elastic.c, and what comes of them.
 *
 * START      a job's actor reports (job_report), the region says who waits (jobs_waiting)
 * OPERATION  Each second: grow.  At each jobs_waiting: give back for the first job for which that is enough.  A plan goes to the
 *            region (jobs_resize), which makes it orders, or refuses it.  A job that is asked for something is left alone until
 *            its report says what came of it
 * HYSTERESIS A job grows no earlier than its quiet time, which is time.min_run or QUIET_MIN_MS, after it began to run, or was
 *            resized by anyone.  It gives back no earlier than that after its start, or after it became smaller: what it has grown
 *            it gives back at once, so that nobody waits because of it.  So of three resizes in a row the first and the third
 *            are a quiet time apart
 * FAILURES   What is refused, fails, or is not heard of again within WISH_MS is tried later: each time twice as late, up to an
 *            hour.  A restarted cluster counts from when it found the job
 */
#include "cluster_calls.h"

enum {
    QUIET_MIN_MS = 1000,
    PLAN_EVERY_MS = 1000,
    ASK_MS = 2000,
    WISH_MS = 120000,
    REFUSED_MS = 1000, /* first waits before the next try */
    FAILED_MS = 10000,
    LATER_MAX_MS = 3600000,
    WAITED_MS = 5000, /* the region would have said it again */
    HORIZON_MS = 600000,
    GUESS_US = 5000000, /* a resize of a job that has had none yet */
};

/* ---- what is known of a job ---- */

void cluster_growth_init(struct cluster_job *job, const struct orr_msg_job_spec *spec)
{
    job->growth = (struct cluster_growth){
        .world = spec->world,
        .gpus_min = spec->gpus_min,
        .gpus_max = spec->gpus_max,
        .tier = spec->tier,
        .is_ordered = spec->reduce == ORR_REDUCE_ORDERED,
        .quiet_ms = spec->min_run_ms > QUIET_MIN_MS ? spec->min_run_ms : QUIET_MIN_MS};
}

static void try_later(struct orr_ctx *ctx, struct cluster_job *job, uint64_t first_ms)
{
    struct cluster_growth *growth = &job->growth;
    uint64_t next = growth->later_ms * 2 > first_ms ? growth->later_ms * 2 : first_ms;
    growth->later_ms = next < LATER_MAX_MS ? next : LATER_MAX_MS;
    growth->not_before_ms = orr_now_ms(ctx) + growth->later_ms;
    growth->wish = 0;
}

static void judge_wish(struct orr_ctx *ctx, struct cluster_job *job)
{
    struct cluster_growth *growth = &job->growth;
    bool is_over = !growth->is_busy && growth->phase == ORR_JOB_RUNNING;
    if (!growth->wish)
        return;
    growth->is_wish_begun = growth->is_wish_begun || growth->is_busy;
    if (is_over && growth->devices == growth->wish) {
        growth->wish = 0;
        growth->later_ms = 0;
    } else if ((is_over && growth->is_wish_begun) ||
               orr_now_ms(ctx) >= growth->wish_until_ms) {
        try_later(
            ctx, job, growth->quiet_ms > FAILED_MS ? growth->quiet_ms : FAILED_MS);
    }
}

static void read_needs(struct cluster *self,
                       struct cluster_job *job,
                       const struct orr_list_device_need needs)
{
    for (struct cluster_hold *hold = orr_pool_at(&self->holds, job->first_hold); hold;
         hold = orr_pool_at(&self->holds, hold->next)) {
        const struct cluster_node *node = orr_pool_at(&self->nodes, hold->node);
        hold->ranks = hold->least = 0;
        for (uint32_t i = 0; i < needs.n; i++)
            if (orr_str_eq(needs.at[i].node, orr_str(node->name))) {
                hold->ranks = needs.at[i].ranks;
                hold->least = needs.at[i].least;
            }
    }
}

enum orr_err cluster_job_reported(struct orr_ctx *ctx,
                                  struct cluster *self,
                                  const struct orr_msg_job_report *msg)
{
    struct cluster_job *job = cluster_job_find(self, msg->job, msg->generation);
    if (!job || job->state != CLUSTER_JOB_LIVE || !orr_addr_eq(job->addr, ctx->from))
        return ORR_OK; /* of an earlier life of its actor */
    struct cluster_growth *growth = &job->growth;
    uint64_t now = orr_now_ms(ctx);
    bool runs = msg->phase == ORR_JOB_RUNNING;
    bool has_begun =
        runs && (!growth->changed_ms || growth->phase == ORR_JOB_SUSPENDED);
    if (has_begun || msg->devices != growth->devices)
        growth->changed_ms = now;
    if (has_begun || msg->devices < growth->devices)
        growth->shrunk_ms = now;
    growth->is_known = true;
    growth->is_busy = msg->is_busy;
    growth->phase = msg->phase == ORR_JOB_STOPPING ? growth->phase : msg->phase;
    growth->level = msg->level;
    growth->devices = msg->devices;
    growth->shards = msg->shards;
    growth->cost = msg->cost;
    read_needs(self, job, msg->needs);
    judge_wish(ctx, job);
    return ORR_OK;
}

/* ---- snapshots ---- */

static bool is_settled(const struct cluster_job *job, uint64_t now)
{
    const struct cluster_growth *growth = &job->growth;
    return job->state == CLUSTER_JOB_LIVE && growth->gpus_min < growth->gpus_max &&
           growth->is_known && !growth->is_busy && growth->phase == ORR_JOB_RUNNING &&
           growth->level != ORR_LEVEL_NONE && growth->level != ORR_LEVEL_UNKNOWN &&
           !growth->wish && now >= growth->not_before_ms;
}

/* The fewest devices that its ranks can stay on where they are.  0: not now, a node is out of reach. */
static uint32_t least_here(const struct cluster *self, const struct cluster_job *job)
{
    uint32_t least = 0;
    for (const struct cluster_hold *hold = orr_pool_at(&self->holds, job->first_hold);
         hold;
         hold = orr_pool_at(&self->holds, hold->next)) {
        const struct cluster_node *node = orr_pool_at(&self->nodes, hold->node);
        if (hold->ranks && node->state != ORR_NODE_UP)
            return 0;
        least += hold->least;
    }
    return least > job->growth.gpus_min ? least : job->growth.gpus_min;
}

static struct elastic_job snapshot(const struct cluster *self,
                                   const struct cluster_job *job)
{
    const struct cluster_growth *growth = &job->growth;
    return (struct elastic_job){.index = orr_pool_index(&self->jobs, job),
                                .world = growth->world,
                                .shards = growth->shards,
                                .is_ordered = growth->is_ordered,
                                .least = least_here(self, job),
                                .most = growth->gpus_max,
                                .devices = growth->devices,
                                .tier = growth->tier,
                                .may_change = true,
                                .cost = growth->cost,
                                .guess_us = GUESS_US};
}

/* ---- growing ---- */

/* Devices of jobs that are suspended there are left for them: they can go on nowhere else. */
static uint64_t but_parked(const struct cluster *self, uint32_t node, uint64_t free)
{
    uint32_t parked = 0;
    for (const struct cluster_hold *hold = NULL;
         (hold = orr_pool_next(&self->holds, hold)) != NULL;)
        parked += hold->node == node ? (uint32_t)__builtin_popcountll(hold->parked) : 0;
    for (; parked > 0 && free; parked--)
        free &= free - 1;
    return free;
}

/* Where it could grow; false: nowhere, or there is no room for it in the plan. */
static bool add_spots(struct cluster *self,
                      const struct cluster_job *job,
                      struct elastic_job *plan,
                      uint32_t *n_spots)
{
    struct cluster_plan *scratch = self->plan.at;
    plan->first_spot = *n_spots;
    for (const struct cluster_hold *hold = orr_pool_at(&self->holds, job->first_hold);
         hold;
         hold = orr_pool_at(&self->holds, hold->next)) {
        const struct cluster_node *node = orr_pool_at(&self->nodes, hold->node);
        uint32_t has = (uint32_t)__builtin_popcountll(hold->devices);
        if (!has || hold->ranks <= has || node->is_draining ||
            !cluster_node_can_be_given_up(self, node))
            continue;
        uint32_t own = (uint32_t)__builtin_ctzll(hold->devices);
        uint64_t usable =
            but_parked(self, hold->node, cluster_devices_like(node, node->used, own));
        if (usable && *n_spots == ELASTIC_SPOTS_MAX)
            return false;
        if (usable)
            scratch->spots[(*n_spots)++] = (struct elastic_spot){
                .node = hold->node, .cap = hold->ranks - has, .usable = usable};
    }
    plan->n_spots = *n_spots - plan->first_spot;
    return plan->n_spots > 0;
}

static void wish_for(struct orr_ctx *ctx,
                     struct cluster *self,
                     const struct elastic_job *plan,
                     uint32_t seq)
{
    struct cluster_growth *growth =
        &((struct cluster_job *)orr_pool_at(&self->jobs, plan->index))->growth;
    growth->wish = plan->to;
    growth->wish_seq = seq;
    growth->is_wish_begun = growth->is_giving = false;
    growth->wish_until_ms = orr_now_ms(ctx) + WISH_MS;
}

static struct orr_rec_job_size size_of(struct cluster *self,
                                       const struct elastic_job *plan)
{
    const struct cluster_job *job = orr_pool_at(&self->jobs, plan->index);
    return (struct orr_rec_job_size){.job = orr_str(job->job),
                                     .generation = job->generation,
                                     .devices = plan->devices,
                                     .to = plan->to};
}

/* Each on its own: that one is refused is nothing to the others. */
static void
ask_growth(struct orr_ctx *ctx, struct cluster *self, const struct elastic_job *plan)
{
    const struct cluster_plan *scratch = self->plan.at;
    struct orr_rec_job_size size = size_of(self, plan);
    uint32_t free = 0, seq = ++self->next_seq;
    char why[48];
    for (uint32_t i = plan->first_spot; i < plan->first_spot + plan->n_spots; i++)
        free += (uint32_t)__builtin_popcountll(scratch->spots[i].usable);
    snprintf(why,
             sizeof(why),
             "%u device%s %s free",
             free,
             free == 1 ? "" : "s",
             free == 1 ? "is" : "are");
    wish_for(ctx, self, plan, seq);
    orr_ask(ctx,
            cluster_leader(self),
            ASK_MS,
            cluster_tag(CLUSTER_TAG_RESIZE, plan->index, seq),
            jobs_resize,
            .cluster = orr_str(self->args.cluster),
            .sizes = {&size, 1},
            .why = orr_str(why));
}

/* The jobs that may grow now; those after the last plan's first. */
static uint32_t list_growing(struct orr_ctx *ctx, struct cluster *self)
{
    struct cluster_plan *scratch = self->plan.at;
    uint64_t now = orr_now_ms(ctx);
    uint32_t n = 0, n_spots = 0, n_all = self->jobs.n_fresh;
    for (uint32_t i = 0; i < n_all && n < ELASTIC_JOBS_MAX; i++) {
        uint32_t index = (self->grow_next + i) % n_all;
        const struct cluster_job *job = orr_pool_at(&self->jobs, index);
        if (!job || !is_settled(job, now) ||
            job->growth.devices >= job->growth.gpus_max ||
            now - job->growth.changed_ms < job->growth.quiet_ms)
            continue;
        struct elastic_job *plan = &scratch->jobs[n];
        *plan = snapshot(self, job);
        n += plan->least && add_spots(self, job, plan, &n_spots);
        if (n == ELASTIC_JOBS_MAX)
            self->grow_next = index + 1;
    }
    return n;
}

void cluster_grow_tick(struct orr_ctx *ctx, struct cluster *self)
{
    struct cluster_plan *scratch = self->plan.at;
    uint64_t now = orr_now_ms(ctx);
    bool is_waited = self->waited_ms && now - self->waited_ms < WAITED_MS;
    bool has_wish = false;
    if (self->args.is_rigid || now - self->planned_ms < PLAN_EVERY_MS)
        return;
    self->planned_ms = now;
    for (struct cluster_job *job = NULL;
         (job = orr_pool_next(&self->jobs, job)) != NULL;) {
        judge_wish(ctx, job);
        has_wish = has_wish || job->growth.wish;
    }
    if (!self->is_registered || self->n_awaited || is_waited || has_wish)
        return;
    uint32_t n = list_growing(ctx, self);
    if (!n ||
        !elastic_grow(scratch->jobs, n, scratch->spots, UINT64_C(1000) * HORIZON_MS))
        return;
    for (uint32_t i = 0; i < n; i++)
        if (scratch->jobs[i].to > scratch->jobs[i].devices)
            ask_growth(ctx, self, &scratch->jobs[i]);
}

/* ---- giving back ---- */

/* Whatever it gives back, the job that waits can use. */
static bool is_of_use(const struct cluster *self,
                      const struct cluster_job *job,
                      const struct orr_msg_job_spec *spec)
{
    for (const struct cluster_hold *hold = orr_pool_at(&self->holds, job->first_hold);
         hold;
         hold = orr_pool_at(&self->holds, hold->next)) {
        const struct cluster_node *node = orr_pool_at(&self->nodes, hold->node);
        if (hold->devices && (!cluster_node_suits(self, node, spec) ||
                              (hold->devices & ~cluster_node_fitting(node, spec))))
            return false;
    }
    return true;
}

/* Those that can give the most; so that a plan with the fewest jobs is among them. */
static uint32_t list_giving(struct orr_ctx *ctx,
                            struct cluster *self,
                            const struct orr_msg_job_spec *spec,
                            uint32_t tier)
{
    struct elastic_job *jobs = ((struct cluster_plan *)self->plan.at)->jobs;
    uint64_t now = orr_now_ms(ctx);
    uint32_t n = 0;
    for (const struct cluster_job *job = NULL;
         (job = orr_pool_next(&self->jobs, job)) != NULL;) {
        if (!is_settled(job, now) || job->growth.tier < tier ||
            now - job->growth.shrunk_ms < job->growth.quiet_ms ||
            !is_of_use(self, job, spec))
            continue;
        struct elastic_job plan = snapshot(self, job);
        if (!plan.least || plan.least >= plan.devices)
            continue;
        uint32_t at = n < ELASTIC_JOBS_MAX ? n++ : ELASTIC_JOBS_MAX;
        for (; at > 0 &&
               plan.devices - plan.least > jobs[at - 1].devices - jobs[at - 1].least;
             at--)
            if (at < ELASTIC_JOBS_MAX)
                jobs[at] = jobs[at - 1];
        if (at < ELASTIC_JOBS_MAX)
            jobs[at] = plan;
    }
    return n;
}

static uint32_t count_free(const struct cluster *self,
                           const struct orr_msg_job_spec *spec)
{
    uint32_t n = 0;
    for (const struct cluster_node *node = NULL;
         (node = orr_pool_next(&self->nodes, node)) != NULL;)
        if (cluster_node_suits(self, node, spec))
            n += (uint32_t)__builtin_popcountll(cluster_node_usable(node, spec));
    return n;
}

static void ask_giving(struct orr_ctx *ctx,
                       struct cluster *self,
                       const struct orr_rec_waiting_job *waiting,
                       uint32_t n)
{
    struct cluster_plan *scratch = self->plan.at;
    struct orr_rec_job_size sizes[ELASTIC_JOBS_MAX];
    uint32_t n_sizes = 0, seq = ++self->next_seq;
    char why[ORR_JOB_ID_MAX + 16];
    for (uint32_t i = 0; i < n; i++) {
        const struct elastic_job *plan = &scratch->jobs[i];
        if (plan->to >= plan->devices)
            continue;
        sizes[n_sizes++] = size_of(self, plan);
        wish_for(ctx, self, plan, seq);
        ((struct cluster_job *)orr_pool_at(&self->jobs, plan->index))
            ->growth.is_giving = true;
    }
    snprintf(why, sizeof(why), "for job %.*s", ORR_STR_ARGS(waiting->job));
    orr_ask(ctx,
            cluster_leader(self),
            ASK_MS,
            cluster_tag(CLUSTER_TAG_RESIZE, 0, seq),
            jobs_resize,
            .cluster = orr_str(self->args.cluster),
            .sizes = {sizes, n_sizes},
            .waiting = waiting->job,
            .devices = waiting->devices,
            .why = orr_str(why));
}

/* Returns whether something is done for it. */
static bool give_back_for(struct orr_ctx *ctx,
                          struct cluster *self,
                          const struct orr_rec_waiting_job *waiting)
{
    struct cluster_plan *scratch = self->plan.at;
    struct orr_msg_job_spec *spec = self->spec.at;
    memset(spec, 0, sizeof(*spec));
    if (waiting->spec.len && orr_msg_decode(orr_msg_desc_job_spec(),
                                            waiting->spec.ptr,
                                            waiting->spec.len,
                                            self->spec.at,
                                            self->spec.size) != ORR_OK)
        return false;
    uint32_t free = count_free(self, spec);
    if (waiting->devices <= free)
        return true; /* the region sees it soon */
    uint32_t need = waiting->devices - free;
    uint32_t n =
        need <= self->args.world_max ? list_giving(ctx, self, spec, waiting->tier) : 0;
    if (!n || !elastic_give_back(scratch->jobs, n, waiting->tier, need, self->sums.at))
        return false;
    ask_giving(ctx, self, waiting, n);
    return true;
}

enum orr_err cluster_jobs_waiting(struct orr_ctx *ctx,
                                  struct cluster *self,
                                  const struct orr_msg_jobs_waiting *msg)
{
    bool is_done = self->args.is_rigid || !self->is_registered || self->n_awaited;
    self->waited_ms = msg->jobs.n ? orr_now_ms(ctx) : 0;
    for (struct cluster_job *job = NULL;
         (job = orr_pool_next(&self->jobs, job)) != NULL;)
        is_done = is_done || (job->growth.wish && job->growth.is_giving);
    for (uint32_t i = 0; i < msg->jobs.n && !is_done; i++)
        is_done = give_back_for(ctx, self, &msg->jobs.at[i]);
    return ORR_OK;
}

/* ---- the region's answer ---- */

void cluster_resize_failed(struct orr_ctx *ctx,
                           struct cluster *self,
                           uint32_t seq,
                           const struct orr_msg_failed *msg)
{
    if (msg->code == ORR_ETIMEOUT || msg->code == ORR_EUNREACH)
        return; /* perhaps it is an order: the job's report tells */
    for (struct cluster_job *job = NULL;
         (job = orr_pool_next(&self->jobs, job)) != NULL;)
        if (job->growth.wish && (job->growth.wish_seq & 0xffffff) == seq)
            try_later(ctx, job, REFUSED_MS);
}
