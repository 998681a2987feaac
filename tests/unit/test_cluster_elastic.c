/* SPDX-License-Identifier: Apache-2.0
 * test_cluster_elastic.c - which jobs grow and which give back: examples, and random cases against what must hold and, for giving
 * back, against all choices there are.  ORR_ELASTIC_CASES sets how many.
 */
#include "cluster_elastic.h"

#include "orr_test.h"

#include <stdlib.h>

enum { JOBS = 5, NODES = 3, DEVICES = 6, HORIZON_US = 600000000 };

static uint64_t state_of_random;

static uint32_t pick(uint32_t n)
{
    uint64_t x = state_of_random += 0x9e3779b97f4a7c15u; /* splitmix64 */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((x ^ (x >> 31)) % n);
}

static uint32_t cases(void)
{
    const char *text = getenv("ORR_ELASTIC_CASES");
    return text ? (uint32_t)strtoul(text, NULL, 10) : 20000;
}

static struct elastic_job job_of(uint32_t world, uint32_t devices)
{
    return (struct elastic_job){.world = world,
                                .is_ordered = true,
                                .least = 1,
                                .most = world,
                                .devices = devices,
                                .tier = ORR_TIER_STANDARD,
                                .may_change = true,
                                .guess_us = 1000000};
}

/* All on one node, with so many devices free. */
static uint32_t
grow(struct elastic_job *jobs, uint32_t n, uint32_t free, uint64_t horizon_us)
{
    static struct elastic_spot spots[ELASTIC_JOBS_MAX];
    for (uint32_t i = 0; i < n; i++) {
        spots[i] = (struct elastic_spot){.cap = jobs[i].world - jobs[i].devices,
                                         .usable = (UINT64_C(1) << free) - 1};
        jobs[i].first_spot = i;
        jobs[i].n_spots = 1;
    }
    return elastic_grow(jobs, n, spots, horizon_us);
}

/* ---- examples ---- */

static void pace_is_that_of_the_fullest_device(void **state)
{
    (void)state;
    struct elastic_job job = job_of(8, 4);
    const uint32_t ordered[] = {8, 4, 4, 2, 2, 2, 2, 1};
    const uint32_t fast[] = {8, 4, 3, 2, 2, 2, 2, 1};
    for (uint32_t d = 1; d <= 8; d++)
        assert_int_equal(elastic_load(&job, d), ordered[d - 1]);
    job.is_ordered = false;
    for (uint32_t d = 1; d <= 8; d++)
        assert_int_equal(elastic_load(&job, d), fast[d - 1]);
    job.shards = 2; /* 4 replicas of each */
    assert_int_equal(elastic_load(&job, 2), 4);
    assert_int_equal(elastic_load(&job, 5), 2);
    assert_int_equal(elastic_size(&job, 2), 4);
}

static void job_grows_to_sizes_at_which_it_is_faster(void **state)
{
    (void)state;
    struct elastic_job job = job_of(8, 4);
    assert_int_equal(grow(&job, 1, 3, HORIZON_US), 0); /* 7 are as slow as 4 */
    assert_int_equal(job.to, 4);
    assert_int_equal(grow(&job, 1, 5, HORIZON_US), 1);
    assert_int_equal(job.to, 8);
    job.most = 7;
    assert_int_equal(grow(&job, 1, 5, HORIZON_US), 0);
    job = job_of(8, 1);
    assert_int_equal(grow(&job, 1, 5, HORIZON_US), 1);
    assert_int_equal(job.to, 4);
    job.may_change = false;
    assert_int_equal(grow(&job, 1, 5, HORIZON_US), 0);
}

static void neediest_job_grows_first(void **state)
{
    (void)state;
    struct elastic_job jobs[] = {job_of(8, 4), job_of(8, 2), job_of(8, 2)};
    assert_int_equal(grow(jobs, 3, 4, HORIZON_US), 2);
    assert_int_equal(jobs[0].to, 4);
    assert_int_equal(jobs[1].to, 4);
    assert_int_equal(jobs[2].to, 4);
    jobs[2].tier = ORR_TIER_PREMIUM;
    assert_int_equal(grow(jobs, 3, 2, HORIZON_US), 1);
    assert_int_equal(jobs[2].to, 4);
    assert_int_equal(grow(jobs, 2, 9, HORIZON_US), 2); /* both, and one of them again */
    assert_int_equal(jobs[0].to, 8);
    assert_int_equal(jobs[1].to, 4);
}

/* And what it does not take is for the others. */
static void growth_that_costs_more_than_it_gains_is_left_out(void **state)
{
    (void)state;
    struct elastic_job jobs[] = {job_of(8, 2), job_of(8, 4)};
    jobs[0].cost = (struct orr_rec_resize_cost){
        .stops = 1, .barrier_us = HORIZON_US, .devices = 2};
    assert_int_equal(grow(jobs, 2, 4, HORIZON_US), 1);
    assert_int_equal(jobs[0].to, 2);
    assert_int_equal(jobs[1].to, 8);
    jobs[0].cost.barrier_us = 0; /* 4 GB at 1 GB/s out of two devices and into four */
    jobs[0].cost.bytes = 4000000000;
    jobs[0].cost.out_bytes_per_s = jobs[0].cost.in_bytes_per_s = 1000000000;
    assert_int_equal(elastic_pause_us(&jobs[0], 4), 3000000);
    assert_int_equal(grow(jobs, 1, 4, 5000000), 0); /* it would gain 5 s */
    assert_int_equal(grow(jobs, 1, 4, 6000000), 1);
}

static bool
give_back(struct elastic_job *jobs, uint32_t n, uint32_t tier, uint32_t need)
{
    static struct elastic_sum sums[1024];
    assert_true(need < ORR_ARRAY_SIZE(sums));
    return elastic_give_back(jobs, n, tier, need, sums);
}

static void fewest_and_cheapest_jobs_give_back(void **state)
{
    (void)state;
    struct elastic_job jobs[] = {job_of(8, 4), job_of(8, 8), job_of(8, 8)};
    jobs[1].guess_us = 2000000;
    assert_true(give_back(jobs, 3, ORR_TIER_STANDARD, 4)); /* 4 - 1 are not enough */
    assert_int_equal(jobs[0].to, 4);
    assert_int_equal(jobs[1].to, 8);
    assert_int_equal(jobs[2].to, 4);
    jobs[1].tier = ORR_TIER_BASIC; /* before it */
    assert_true(give_back(jobs, 3, ORR_TIER_STANDARD, 4));
    assert_int_equal(jobs[1].to, 4);
    assert_int_equal(jobs[2].to, 8);
    assert_false(give_back(jobs, 1, ORR_TIER_STANDARD, 4));
    assert_int_equal(jobs[0].to, 4);
    jobs[0].tier = ORR_TIER_PREMIUM;
    assert_false(give_back(jobs, 1, ORR_TIER_STANDARD, 1));
    assert_true(give_back(jobs, 1, ORR_TIER_PREMIUM, 1));
    assert_int_equal(jobs[0].to, 2); /* 3 would be no faster */
    jobs[0].least = 3;
    assert_true(give_back(jobs, 1, ORR_TIER_PREMIUM, 1));
    assert_int_equal(jobs[0].to, 3);
}

/* ---- random ones ---- */

static struct elastic_job random_job(void)
{
    uint32_t shards = pick(3) ? 1 : 1 + pick(3);
    uint32_t world = shards * (1 + pick(12));
    struct elastic_job job = {.world = world,
                              .shards = pick(2) || shards > 1 ? shards : 0,
                              .is_ordered = pick(2),
                              .tier = pick(ORR_TIER_MAX_),
                              .may_change = pick(8) != 0,
                              .guess_us = 1 + pick(4) * 100000};
    job.most = shards + pick(world - shards + 1);
    job.least = 1 + pick(job.most);
    uint32_t least = job.least > shards ? job.least : shards;
    job.devices = least + pick(job.most - least + 1);
    if (pick(2))
        job.cost = (struct orr_rec_resize_cost){.stops = 1,
                                                .barrier_us = pick(1000),
                                                .bytes = pick(1000000),
                                                .out_bytes_per_s = pick(3) * 100000,
                                                .in_bytes_per_s = pick(3) * 100000};
    return job;
}

static void choose_best(const struct elastic_job *jobs,
                        uint32_t n,
                        uint32_t tier,
                        uint32_t need,
                        uint64_t ret[3 + 1])
{
    ret[0] = UINT64_MAX;
    for (uint32_t set = 1; set < 1u << n; set++) {
        uint64_t found[4] = {0};
        uint32_t freed = 0;
        bool is_allowed = true;
        for (uint32_t i = 0; i < n; i++) {
            const struct elastic_job *job = &jobs[i];
            uint32_t least = job->least > job->shards ? job->least : job->shards;
            if (!(set >> i & 1))
                continue;
            is_allowed = is_allowed && job->may_change && job->tier >= tier &&
                         job->devices > least;
            freed += job->devices - least;
            found[0]++;
            found[1] += ORR_TIER_MAX_ - 1 - job->tier;
            found[2] += elastic_pause_us(job, least);
        }
        bool is_better = found[0] != ret[0]   ? found[0] < ret[0]
                         : found[1] != ret[1] ? found[1] < ret[1]
                                              : found[2] < ret[2];
        if (is_allowed && freed >= need && is_better)
            memcpy(ret, found, sizeof(found));
    }
}

static void giving_back_is_the_best_of_all_choices(void **state)
{
    (void)state;
    state_of_random = 1;
    for (uint32_t c = 0; c < cases(); c++) {
        struct elastic_job jobs[JOBS];
        uint32_t n = 1 + pick(JOBS), tier = pick(ORR_TIER_MAX_), need = 1 + pick(24);
        uint64_t best[4], found[4] = {0};
        uint32_t freed = 0;
        for (uint32_t i = 0; i < n; i++)
            jobs[i] = random_job();
        choose_best(jobs, n, tier, need, best);
        bool is_possible = give_back(jobs, n, tier, need);
        assert_int_equal(is_possible, best[0] != UINT64_MAX);
        for (uint32_t i = 0; i < n; i++) {
            const struct elastic_job *job = &jobs[i];
            uint32_t least = job->least > job->shards ? job->least : job->shards;
            assert_true(job->to <= job->devices);
            if (job->to == job->devices)
                continue;
            assert_true(job->to >= least && job->tier >= tier && job->may_change);
            freed += job->devices - job->to;
            found[0]++;
            found[1] += ORR_TIER_MAX_ - 1 - job->tier;
            found[2] += elastic_pause_us(job, least);
        }
        if (!is_possible) {
            assert_int_equal(found[0], 0);
            continue;
        }
        assert_true(freed >= need);
        assert_memory_equal(found, best, 3 * sizeof(found[0]));
    }
}

/* Flow from jobs over their spots to devices: can all of them have what they are to have? */
struct flow {
    uint32_t demand[JOBS], cap[JOBS * NODES], used[JOBS * NODES];
    int32_t spot_of[NODES][64]; /* of each device; -1: nobody's */
    uint32_t job_of[JOBS * NODES];
};

static bool push(struct flow *flow,
                 const struct elastic_job *jobs,
                 const struct elastic_spot *spots,
                 uint32_t job,
                 bool seen[JOBS * NODES][64]);

/* That spot gets one more device, if need be another's, whose job finds another. */
static bool push_spot(struct flow *flow,
                      const struct elastic_job *jobs,
                      const struct elastic_spot *spots,
                      uint32_t spot,
                      bool seen[JOBS * NODES][64])
{
    uint32_t node = spots[spot].node;
    for (uint32_t d = 0; d < DEVICES; d++) {
        if (!(spots[spot].usable >> d & 1) || seen[spot][d])
            continue;
        seen[spot][d] = true;
        int32_t other = flow->spot_of[node][d];
        if (other == (int32_t)spot)
            continue;
        if (other >= 0) {
            flow->used[other]--;
            flow->spot_of[node][d] = (int32_t)spot;
            flow->used[spot]++;
            if (push(flow, jobs, spots, flow->job_of[other], seen))
                return true;
            flow->used[spot]--;
            flow->used[other]++;
            flow->spot_of[node][d] = other;
            continue;
        }
        flow->spot_of[node][d] = (int32_t)spot;
        flow->used[spot]++;
        return true;
    }
    return false;
}

static bool push(struct flow *flow,
                 const struct elastic_job *jobs,
                 const struct elastic_spot *spots,
                 uint32_t job,
                 bool seen[JOBS * NODES][64])
{
    for (uint32_t s = jobs[job].first_spot;
         s < jobs[job].first_spot + jobs[job].n_spots;
         s++)
        if (flow->used[s] < flow->cap[s] && push_spot(flow, jobs, spots, s, seen))
            return true;
    return false;
}

static bool is_feasible(const struct elastic_job *jobs,
                        uint32_t n,
                        const struct elastic_spot *spots)
{
    struct flow flow = {0};
    memset(flow.spot_of, 0xff, sizeof(flow.spot_of));
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t s = jobs[i].first_spot; s < jobs[i].first_spot + jobs[i].n_spots;
             s++) {
            flow.cap[s] = spots[s].cap;
            flow.job_of[s] = i;
        }
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = jobs[i].devices; k < jobs[i].to; k++) {
            bool seen[JOBS * NODES][64] = {{false}};
            if (!push(&flow, jobs, spots, i, seen))
                return false;
        }
    return true;
}

static void grown_jobs_are_faster_and_share_what_is_free(void **state)
{
    (void)state;
    state_of_random = 2;
    uint32_t n_grown = 0;
    for (uint32_t c = 0; c < cases(); c++) {
        struct elastic_job jobs[JOBS];
        struct elastic_spot spots[JOBS * NODES];
        uint32_t n = 1 + pick(JOBS), n_spots = 0;
        uint64_t horizon = pick(4) ? HORIZON_US : pick(1000000);
        for (uint32_t i = 0; i < n; i++) {
            jobs[i] = random_job();
            jobs[i].first_spot = n_spots;
            for (uint32_t node = 0; node < NODES; node++)
                if (pick(2))
                    spots[n_spots++] =
                        (struct elastic_spot){.node = node,
                                              .cap = 1 + pick(8),
                                              .usable = pick(1u << DEVICES)};
            jobs[i].n_spots = n_spots - jobs[i].first_spot;
        }
        uint32_t grown = elastic_grow(jobs, n, spots, horizon), found = 0;
        for (uint32_t i = 0; i < n; i++) {
            const struct elastic_job *job = &jobs[i];
            assert_true(job->to >= job->devices && job->to <= job->most);
            if (job->to == job->devices)
                continue;
            found++;
            uint32_t before = elastic_load(job, job->devices);
            uint32_t after = elastic_load(job, job->to);
            assert_true(job->may_change && after < before);
            assert_true(elastic_load(job, job->to - 1) > after ||
                        job->to - 1 < job->least); /* the fewest for that */
            assert_true(horizon / after * (before - after) >=
                        ELASTIC_GAIN * elastic_pause_us(job, job->to));
        }
        assert_int_equal(grown, found);
        assert_true(is_feasible(jobs, n, spots));
        n_grown += grown;
    }
    assert_true(n_grown > cases() / 4);
}

/* On one node, where all jobs can use all devices: nobody who could use what is left is left out. */
static void no_device_is_left_that_a_job_could_use(void **state)
{
    (void)state;
    state_of_random = 3;
    for (uint32_t c = 0; c < cases(); c++) {
        struct elastic_job jobs[JOBS], more;
        uint32_t n = 1 + pick(JOBS), free = 1 + pick(12), left = free;
        for (uint32_t i = 0; i < n; i++)
            jobs[i] = random_job();
        (void)grow(jobs, n, free, UINT64_C(1000) * HORIZON_US);
        for (uint32_t i = 0; i < n; i++)
            left -= jobs[i].to - jobs[i].devices;
        assert_true(left <= free);
        for (uint32_t i = 0; i < n; i++) {
            more = jobs[i];
            more.devices = more.to;
            assert_int_equal(grow(&more, 1, left, UINT64_C(1000) * HORIZON_US), 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pace_is_that_of_the_fullest_device),
        cmocka_unit_test(job_grows_to_sizes_at_which_it_is_faster),
        cmocka_unit_test(neediest_job_grows_first),
        cmocka_unit_test(growth_that_costs_more_than_it_gains_is_left_out),
        cmocka_unit_test(fewest_and_cheapest_jobs_give_back),
        cmocka_unit_test(giving_back_is_the_best_of_all_choices),
        cmocka_unit_test(grown_jobs_are_faster_and_share_what_is_free),
        cmocka_unit_test(no_device_is_left_that_a_job_could_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
