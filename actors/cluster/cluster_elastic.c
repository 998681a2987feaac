/* SPDX-License-Identifier: Apache-2.0
 * cluster_elastic.c - see cluster_elastic.h.
 *
 * Giving back is a 0/1 knapsack over (jobs, tier and pause): sums[x] is the best set that frees x devices or more.  What a job
 * can free is bounded by what it has, so this is exact in ELASTIC_JOBS_MAX x need steps.
 */
#include "cluster_elastic.h"

enum { TIER_SHIFT = 48 }; /* of a cost: tiers before pauses */

static uint32_t least_of(const struct elastic_job *job)
{
    uint32_t shards = job->shards ? job->shards : 1;
    return job->least > shards ? job->least : shards;
}

uint32_t elastic_load(const struct elastic_job *job, uint32_t devices)
{
    uint32_t shards = job->shards ? job->shards : 1;
    uint32_t replicas = job->world / shards, each = devices / shards;
    if (!each)
        return replicas;
    if (!job->is_ordered)
        return (replicas + each - 1) / each;
    uint32_t block = 1; /* aligned blocks of a power of two, the last cut off */
    while ((replicas + block - 1) / block > each)
        block *= 2;
    return block < replicas ? block : replicas;
}

uint32_t elastic_size(const struct elastic_job *job, uint32_t load)
{
    uint32_t shards = job->shards ? job->shards : 1;
    uint32_t replicas = job->world / shards;
    uint32_t size = shards * ((replicas + load - 1) / load);
    return size > least_of(job) ? size : least_of(job);
}

static uint64_t copy_us(uint64_t bytes, uint64_t rate_of_one, uint32_t devices)
{
    return rate_of_one && devices ? bytes * 1000000 / rate_of_one / devices : 0;
}

uint64_t elastic_pause_us(const struct elastic_job *job, uint32_t to)
{
    const struct orr_rec_resize_cost *cost = &job->cost;
    if (!cost->stops)
        return job->guess_us;
    return cost->barrier_us + cost->remake_us +
           copy_us(cost->bytes, cost->out_bytes_per_s, job->devices) +
           copy_us(cost->bytes, cost->in_bytes_per_s, to);
}

/* ---- more ---- */

struct grab { /* what was handed out */
    uint32_t node[ELASTIC_SPOTS_MAX];
    uint64_t taken[ELASTIC_SPOTS_MAX];
    uint32_t used[ELASTIC_SPOTS_MAX]; /* of each spot's cap */
    uint32_t n_nodes;
};

static uint64_t *taken_of(struct grab *grab, uint32_t node)
{
    uint32_t i = 0;
    while (i < grab->n_nodes && grab->node[i] != node)
        i++;
    if (i == grab->n_nodes) {
        grab->node[i] = node;
        grab->taken[i] = 0;
        grab->n_nodes++;
    }
    return &grab->taken[i];
}

/* Takes that many of its spots, all or none. */
static bool take(struct grab *grab,
                 const struct elastic_job *job,
                 const struct elastic_spot *spots,
                 uint32_t n)
{
    uint32_t room = 0;
    for (uint32_t i = job->first_spot; i < job->first_spot + job->n_spots; i++) {
        uint64_t open = spots[i].usable & ~*taken_of(grab, spots[i].node);
        uint32_t here = (uint32_t)__builtin_popcountll(open);
        uint32_t left = spots[i].cap - grab->used[i];
        room += here < left ? here : left;
    }
    if (room < n)
        return false;
    for (uint32_t i = job->first_spot; n > 0; i++) {
        uint64_t *taken = taken_of(grab, spots[i].node);
        for (uint64_t open = spots[i].usable & ~*taken;
             open && n > 0 && grab->used[i] < spots[i].cap;
             open &= open - 1) {
            *taken |= open & -open;
            grab->used[i]++;
            n--;
        }
    }
    return true;
}

/* The next size at which it is faster; 0: there is none. */
static uint32_t step_up(const struct elastic_job *job, uint32_t devices)
{
    uint32_t load = elastic_load(job, devices);
    if (load <= 1)
        return 0;
    uint32_t size = elastic_size(job, job->is_ordered ? (load + 1) / 2 : load - 1);
    while (size < job->most && elastic_load(job, size) >= load)
        size++;
    return size <= job->most && elastic_load(job, size) < load ? size : 0;
}

/* Of `most`, x has less than y; else by tier. */
static bool is_needier(const struct elastic_job *x, const struct elastic_job *y)
{
    uint64_t a = (uint64_t)x->to * y->most, b = (uint64_t)y->to * x->most;
    return a != b ? a < b : x->tier < y->tier;
}

static struct elastic_job *
neediest(struct elastic_job *jobs, uint32_t n_jobs, const bool *is_done)
{
    struct elastic_job *best = NULL;
    for (uint32_t i = 0; i < n_jobs; i++)
        if (!is_done[i] && (!best || is_needier(&jobs[i], best)))
            best = &jobs[i];
    return best;
}

static void hand_out(struct elastic_job *jobs,
                     uint32_t n_jobs,
                     const struct elastic_spot *spots,
                     const bool *is_out)
{
    struct grab grab = {.n_nodes = 0};
    bool is_done[ELASTIC_JOBS_MAX];
    for (uint32_t i = 0; i < n_jobs; i++) {
        jobs[i].to = jobs[i].devices;
        is_done[i] = is_out[i] || !jobs[i].may_change;
    }
    for (struct elastic_job *job; (job = neediest(jobs, n_jobs, is_done)) != NULL;) {
        uint32_t size = step_up(job, job->to);
        if (size && take(&grab, job, spots, size - job->to))
            job->to = size;
        else
            is_done[job - jobs] = true;
    }
}

/* Ranks' work that the horizon has room for, more than at the old pace, as time at that pace. */
static bool is_worth_it(const struct elastic_job *job, uint64_t horizon_us)
{
    uint32_t before = elastic_load(job, job->devices);
    uint32_t after = elastic_load(job, job->to);
    uint64_t gain = horizon_us / after * (before - after);
    return gain >= ELASTIC_GAIN * elastic_pause_us(job, job->to);
}

uint32_t elastic_grow(struct elastic_job *jobs,
                      uint32_t n_jobs,
                      const struct elastic_spot *spots,
                      uint64_t horizon_us)
{
    bool is_out[ELASTIC_JOBS_MAX] = {false};
    for (bool is_again = true; is_again;) { /* each time one job fewer */
        hand_out(jobs, n_jobs, spots, is_out);
        is_again = false;
        for (uint32_t i = 0; i < n_jobs && !is_again; i++) {
            is_again =
                jobs[i].to > jobs[i].devices && !is_worth_it(&jobs[i], horizon_us);
            is_out[i] = is_out[i] || is_again;
        }
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_jobs; i++)
        n += jobs[i].to > jobs[i].devices;
    return n;
}

/* ---- fewer ---- */

static uint32_t surplus(const struct elastic_job *job, uint32_t tier)
{
    uint32_t least = least_of(job);
    bool is_asked = job->may_change && job->tier >= tier && job->devices > least;
    return is_asked ? job->devices - least : 0;
}

static uint64_t cost_of(const struct elastic_job *job)
{
    const uint64_t most = (UINT64_C(1) << (TIER_SHIFT - 7)) - 1; /* sums of 64 fit */
    uint64_t pause = elastic_pause_us(job, least_of(job));
    uint64_t above = job->tier < ORR_TIER_MAX_ ? ORR_TIER_MAX_ - 1 - job->tier : 0;
    return (pause < most ? pause : most) + (above << TIER_SHIFT);
}

static bool is_better(const struct elastic_sum *x, const struct elastic_sum *y)
{
    return x->n != y->n ? x->n < y->n : x->cost < y->cost;
}

/* So many of the set's `need`; a size at which it is no slower than it must be. */
static uint32_t give(struct elastic_job *job, uint32_t tier, uint32_t need)
{
    uint32_t most = surplus(job, tier);
    uint32_t n = need < most ? need : most;
    job->to = elastic_size(job, elastic_load(job, job->devices - n));
    return job->devices - job->to;
}

bool elastic_give_back(struct elastic_job *jobs,
                       uint32_t n_jobs,
                       uint32_t tier,
                       uint32_t need,
                       struct elastic_sum *sums)
{
    for (uint32_t x = 1; x <= need; x++)
        sums[x] = (struct elastic_sum){.n = UINT32_MAX};
    sums[0] = (struct elastic_sum){0};
    for (uint32_t i = 0; i < n_jobs; i++) {
        uint32_t most = surplus(&jobs[i], tier);
        jobs[i].to = jobs[i].devices;
        for (uint32_t x = need; x > 0 && most > 0; x--) {
            struct elastic_sum with = sums[x > most ? x - most : 0];
            if (with.n == UINT32_MAX)
                continue;
            with.n++;
            with.cost += cost_of(&jobs[i]);
            with.set |= UINT64_C(1) << i;
            if (is_better(&with, &sums[x]))
                sums[x] = with;
        }
    }
    if (!need || sums[need].n == UINT32_MAX)
        return false;
    uint32_t left = need;
    for (uint64_t set = sums[need].set; set; set &= set - 1) {
        uint32_t given = give(&jobs[__builtin_ctzll(set)], tier, left);
        left = left > given ? left - given : 0;
    }
    return true;
}
