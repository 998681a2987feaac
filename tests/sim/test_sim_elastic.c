/* SPDX-License-Identifier: Apache-2.0
 * test_sim_elastic.c - jobs that grow by themselves and give back, in a fleet of eight devices in which nothing goes
 * wrong (gateways/sim/fleet.h): when, how often, and for whom.  With faults: sim_seeds elastic.
 */
#include "fleet.h"

#include "orr_test.h"

enum { GPUS = 8, JOBS = 24 };

static struct fleet fleet;

static void set_up_fleet(uint32_t n_jobs, uint32_t nodes, bool is_rigid)
{
    struct orr_error err = {0};
    const struct fleet_plan plan = {.has_no_orders = true,
                                    .seed = 1,
                                    .clusters = 1,
                                    .nodes = nodes,
                                    .gpus = GPUS / nodes,
                                    .jobs = JOBS,
                                    .is_rigid = is_rigid,
                                    .faults_ms = 1000,
                                    .settle_ms = 600000};
    if (fleet_init(&fleet, &plan, &err) != ORR_OK)
        fail_msg("%s", err.text);
    fleet.client.n_jobs = n_jobs;
}

static void set_up(uint32_t n_jobs)
{
    set_up_fleet(n_jobs, 1, false);
}

static struct client_job *
plan(uint32_t i, uint64_t at_ms, uint32_t min, uint32_t max, uint32_t run_ms)
{
    fleet.jobs[i] = (struct client_job){.submit_at_ms = at_ms,
                                        .world = max,
                                        .gpus_min = min,
                                        .gpus_max = max,
                                        .run_ms = run_ms,
                                        .min_run_ms = 10000,
                                        .bad_rank = -1};
    return &fleet.jobs[i];
}

static void run(void)
{
    struct fleet_result result;
    fleet_run(&fleet, &result);
    if (result.broken)
        fail_msg("%u ms: %s: %s", (unsigned)result.at_ms, result.broken, result.text);
}

static uint32_t devices_of(const struct client_job *job)
{
    uint64_t now = world_now(&fleet.world);
    uint32_t n = 0;
    for (uint32_t m = 0; m < fleet.plan.nodes; m++) {
        const struct machine *machine = &fleet.machines[m];
        uint64_t used = 0;
        for (uint32_t i = 0; i < machine->n_procs; i++) {
            const struct proc *proc = &machine->procs[i];
            if (proc_is_live(proc, now) && !proc->is_stopped &&
                strcmp(proc->job, job->id) == 0)
                used |= UINT64_C(1) << proc->device;
        }
        n += (uint32_t)__builtin_popcountll(used);
    }
    return n;
}

static uint32_t seen[8];

static void look(void *arg, struct orr_sim *sim, uint64_t what)
{
    (void)arg;
    (void)sim;
    seen[what >> 32] = devices_of(&fleet.jobs[(uint32_t)what]);
}

/* Into seen[at]: how many devices the job has then. */
static void look_at(uint64_t ms, uint32_t at, uint32_t job)
{
    assert_int_equal(orr_sim_at(fleet.sim, ms, look, NULL, (uint64_t)at << 32 | job),
                     ORR_OK);
}

static void job_grows_when_its_quiet_time_is_over(void **state)
{
    (void)state;
    set_up(2);
    plan(0, 1000, 4, 4, 5000);
    plan(1, 2000, 4, 8, 40000);
    look_at(11000, 0, 1); /* the first has ended, and it runs for nine seconds */
    look_at(15000, 1, 1);
    run();
    assert_int_equal(seen[0], 4);
    assert_int_equal(seen[1], 8);
    fleet_fini(&fleet);
}

/* roles.cluster.elastic: false. */
static void rigid_cluster_leaves_jobs_as_they_are(void **state)
{
    (void)state;
    set_up_fleet(3, 1, true);
    plan(0, 1000, 4, 4, 5000);
    plan(1, 2000, 2, 8, 60000);
    plan(2, 30000, 8, 8, 4000);
    look_at(29000, 0, 1);
    look_at(60000, 1, 1);
    run();
    assert_int_equal(seen[0], 4); /* though others are free */
    assert_int_equal(seen[1], 4); /* though another one waits */
    fleet_fini(&fleet);
}

/* What it has grown it gives back at once; what it was started with, after its quiet time. */
static void job_gives_back_for_one_that_waits(void **state)
{
    (void)state;
    set_up(4);
    plan(0, 1000, 4, 4, 5000);
    plan(1, 2000, 4, 8, 60000); /* 4 devices, 8 from 12 s on */
    plan(2, 15000, 4, 4, 4000);
    plan(3, 21000, 2, 2, 2000);
    look_at(18000, 0, 1);
    look_at(18000, 1, 2);
    look_at(22500, 2, 1); /* there is room for the last one */
    look_at(32000, 3, 1); /* and it grows again */
    run();
    assert_int_equal(seen[0], 4);
    assert_int_equal(seen[1], 4);
    assert_int_equal(seen[2], 4);
    assert_int_equal(seen[3], 8);
    fleet_fini(&fleet);
}

static void job_keeps_what_it_was_started_with_for_its_quiet_time(void **state)
{
    (void)state;
    set_up(2);
    plan(0, 1000, 4, 8, 40000);
    plan(1, 3000, 4, 4, 5000);
    look_at(9000, 0, 0);
    look_at(14000, 1, 0);
    look_at(14000, 2, 1);
    run();
    assert_int_equal(seen[0], 8);
    assert_int_equal(seen[1], 4);
    assert_int_equal(seen[2], 4);
    fleet_fini(&fleet);
}

/* One short job after the other: it does not go to and fro with them. */
static void stream_of_short_jobs_does_not_wear_it_out(void **state)
{
    (void)state;
    set_up(JOBS);
    plan(0, 1000, 4, 8, 80000);
    for (uint32_t i = 1; i < JOBS; i++)
        plan(i, 10000 + 2500 * i, 4, 4, 500);
    run(); /* own resizes of a job are a quiet time apart */
    fleet_fini(&fleet);
}

static void slow_down(void *arg, struct orr_sim *sim, uint64_t number)
{
    const struct orr_sim_faults slow = {.delay_min_ms = 300, .delay_max_ms = 400};
    (void)arg;
    (void)number;
    assert_int_equal(
        orr_sim_faults_set(sim, fleet.first_cluster, fleet.first_node + 1, &slow),
        ORR_OK);
}

/* Two give back two each, one before the other, for one that needs four; a later one that needs two does not take them. */
static void what_is_given_back_is_kept_for_whom_it_is(void **state)
{
    (void)state;
    set_up_fleet(4, 2, false);
    plan(0, 1000, 2, 4, 90000);
    plan(1, 1000, 2, 4, 90000);
    plan(2, 15000, 4, 4, 10000);
    plan(3, 15010, 2, 2, 60000);
    assert_int_equal(orr_sim_at(fleet.sim, 14000, slow_down, NULL, 0), ORR_OK);
    look_at(24000, 0, 2);
    look_at(24000, 1, 3);
    look_at(50000, 2, 3);
    run();
    assert_int_equal(seen[0], 4);
    assert_int_equal(seen[1], 0);
    assert_int_equal(seen[2], 2);
    fleet_fini(&fleet);
}

/* They could not give enough, so they give nothing. */
static void nobody_gives_back_in_vain(void **state)
{
    (void)state;
    set_up(3);
    plan(0, 1000, 3, 4, 40000);
    plan(1, 1000, 3, 4, 40000);
    plan(2, 2000, 4, 4, 2000);
    look_at(30000, 0, 0);
    look_at(30000, 1, 1);
    run();
    assert_int_equal(seen[0], 4);
    assert_int_equal(seen[1], 4);
    fleet_fini(&fleet);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(job_grows_when_its_quiet_time_is_over),
        cmocka_unit_test(rigid_cluster_leaves_jobs_as_they_are),
        cmocka_unit_test(job_gives_back_for_one_that_waits),
        cmocka_unit_test(job_keeps_what_it_was_started_with_for_its_quiet_time),
        cmocka_unit_test(stream_of_short_jobs_does_not_wear_it_out),
        cmocka_unit_test(what_is_given_back_is_kept_for_whom_it_is),
        cmocka_unit_test(nobody_gives_back_in_vain),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
