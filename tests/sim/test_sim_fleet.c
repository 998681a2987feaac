/* SPDX-License-Identifier: Apache-2.0
 * test_sim_fleet.c - a whole fleet under faults: one region, two clusters of three nodes, a client (gateways/sim/fleet.h).
 *
 * Each case is one history with a fault at a place that matters; random ones are test_sim_seeds.c's.  A failure prints its
 * seed; ORR_SIM_LOG=1 shows what the actors log.
 */
#include "fleet.h"

#include "orr_test.h"

enum { FAULTS_MS = 30000, END_MS = 300000, NODES = 6, CLUSTERS = 2 };

static struct fleet fleet;

static void show_log(void *arg,
                     enum orr_log_level level,
                     uint64_t wall,
                     const char *who,
                     const char *text)
{
    (void)arg;
    (void)wall;
    fprintf(stderr,
            "%8u %d %s: %s\n",
            (unsigned)orr_sim_now_ms(fleet.sim),
            (int)level,
            who,
            text);
}

static void set_up(uint64_t seed, unsigned kinds)
{
    struct orr_error err = {0};
    const struct fleet_plan plan = {.has_no_orders = true,
                                    .seed = seed,
                                    .kinds = kinds,
                                    .faults_ms = FAULTS_MS,
                                    .settle_ms = END_MS - FAULTS_MS,
                                    .log = getenv("ORR_SIM_LOG") ? show_log : NULL};
    if (fleet_init(&fleet, &plan, &err) != ORR_OK)
        fail_msg("%s", err.text);
}

static struct fleet_result run(void)
{
    struct fleet_result result;
    fleet_run(&fleet, &result);
    if (result.broken)
        fail_msg("seed %u, %u ms: %s: %s",
                 (unsigned)fleet.plan.seed,
                 (unsigned)result.at_ms,
                 result.broken,
                 result.text);
    return result;
}

static void at(uint64_t ms, orr_sim_event_f fn, uint64_t number)
{
    assert_int_equal(orr_sim_at(fleet.sim, ms, fn, NULL, number), ORR_OK);
}

static void calm(void *arg, struct orr_sim *sim, uint64_t number)
{
    (void)arg;
    (void)sim;
    (void)number;
    for (uint32_t host = 0; host < fleet.n_hosts; host++) {
        fleet_side_set(&fleet, host, 0);
        fleet_restart(&fleet, host);
    }
}

/* Nothing goes wrong but the programs themselves: each job ends as its plan says. */
static void fleet_without_faults_ends_each_job_as_planned(void **state)
{
    (void)state;
    set_up(5, 0);
    run();
    for (uint32_t i = 0; i < fleet.client.n_jobs; i++) {
        const struct client_job *job = &fleet.jobs[i];
        if (job->phase == ORR_JOB_CANCELLED)
            continue;
        assert_int_equal(job->phase, job->bad_rank < 0 ? ORR_JOB_DONE : ORR_JOB_FAILED);
        assert_int_equal(job->culprit, job->bad_rank);
        assert_int_equal(job->end_signal, job->signal);
        assert_int_equal(job->end_exit_code, job->exit_code);
        assert_int_equal(job->restarts, job->bad_rank < 0 ? 0 : job->retries_user);
    }
    fleet_fini(&fleet);
}

static void plan_one_job(uint32_t run_ms)
{
    fleet.client.n_jobs = 1;
    fleet.jobs[0] = (struct client_job){.world = 1, .run_ms = run_ms, .bad_rank = -1};
}

static void cut_off_its_node(void *arg, struct orr_sim *the_sim, uint64_t number)
{
    (void)arg;
    (void)number;
    for (uint32_t m = 0; m < NODES; m++)
        for (uint32_t i = 0; i < WORLD_PROCS; i++)
            if (proc_is_live(&fleet.machines[m].procs[i], orr_sim_now_ms(the_sim)))
                fleet_side_set(&fleet, fleet.first_node + m, 1);
}

static void crash_clusters(void *arg, struct orr_sim *the_sim, uint64_t number)
{
    (void)arg;
    (void)the_sim;
    (void)number;
    for (uint32_t i = 0; i < CLUSTERS; i++)
        fleet_crash(&fleet, fleet.first_cluster + i);
}

/* Longer than the lease: the job starts elsewhere, and its ranks on the node that is cut off stand still. */
static void node_cut_off_beyond_its_lease_never_doubles_a_job(void **state)
{
    (void)state;
    set_up(11, 0);
    plan_one_job(25000);
    at(5000, cut_off_its_node, 0);
    at(FAULTS_MS, calm, 0);
    run();
    assert_int_equal(fleet.jobs[0].phase, ORR_JOB_DONE);
    assert_int_equal(fleet.jobs[0].generation, 2);
    assert_int_equal(fleet.world.n_launched, 2);
    fleet_fini(&fleet);
}

/* Also longer than the lease: nobody can give the job up, so it runs on. */
static void job_runs_on_while_its_cluster_is_down(void **state)
{
    (void)state;
    set_up(12, 0);
    plan_one_job(25000);
    at(5000, crash_clusters, 0);
    at(FAULTS_MS, calm, 0);
    run();
    assert_int_equal(fleet.jobs[0].phase, ORR_JOB_DONE);
    assert_int_equal(fleet.jobs[0].generation, 1);
    assert_true(fleet.world.now_ms < FAULTS_MS + 5000); /* it never stood still */
    fleet_fini(&fleet);
}

static void mute_cluster(void *arg, struct orr_sim *the_sim, uint64_t is_mute)
{
    (void)arg;
    const struct orr_sim_faults faults = {
        .delay_min_ms = 1, .delay_max_ms = 80, .loss_ppm = is_mute ? 1000000 : 0};
    assert_int_equal(orr_sim_faults_set(the_sim, fleet.first_cluster, 0, &faults),
                     ORR_OK);
    if (is_mute)
        fleet_crash(&fleet,
                    fleet.first_cluster +
                        1); /* so that the next try goes to the same cluster */
}

/* The cluster took the job and could not say so: the region tries again, and the first try must not launch any more. */
static void try_that_was_withdrawn_gets_no_permit(void **state)
{
    (void)state;
    for (uint64_t seed = 204; seed < 214; seed++) {
        set_up(seed, 0);
        plan_one_job(3000);
        fleet.jobs[0].submit_at_ms = 1000;
        at(900, mute_cluster, 1);
        at(2950, mute_cluster, 0);
        run();
        assert_int_equal(fleet.jobs[0].phase, ORR_JOB_DONE);
        assert_int_equal(fleet.world.n_launched, 1);
        fleet_fini(&fleet);
    }
}

/* The first node that has ranks; NODES: none. */
static uint32_t busy_node(void)
{
    uint32_t m = 0;
    for (; m < NODES; m++)
        for (uint32_t i = 0; i < WORLD_PROCS; i++)
            if (proc_is_live(&fleet.machines[m].procs[i], fleet.world.now_ms))
                return m;
    return m;
}

enum { CRASH_HOST, CRASH_MACHINE };
static void crash_busy_node(void *arg, struct orr_sim *the_sim, uint64_t what)
{
    (void)arg;
    (void)the_sim;
    world_now(&fleet.world);
    uint32_t node = busy_node();
    assert_true(node < NODES);
    fleet_crash(&fleet, fleet.first_node + node);
    if (what == CRASH_MACHINE)
        machine_dies(&fleet.machines[node]);
}

struct outcome {
    uint64_t generation, n_launched, ended_ms;
};

static struct outcome
run_wide_job_with(orr_sim_event_f fault_at_5s, uint64_t number, uint64_t calm_ms)
{
    set_up(13, 0);
    plan_one_job(20000);
    fleet.jobs[0].world = 6;
    fleet.jobs[0].gpus_min = fleet.jobs[0].gpus_max = 6;
    at(5000, fault_at_5s, number);
    at(calm_ms, calm, 0);
    run();
    assert_int_equal(fleet.jobs[0].phase, ORR_JOB_DONE);
    struct outcome outcome = {
        fleet.jobs[0].generation, fleet.world.n_launched, orr_sim_now_ms(fleet.sim)};
    fleet_fini(&fleet);
    return outcome;
}

static void host_that_restarts_adopts_its_ranks(void **state)
{
    (void)state;
    struct outcome outcome = run_wide_job_with(crash_busy_node, CRASH_HOST, 9000);
    assert_int_equal(outcome.generation, 1);
    assert_int_equal(outcome.n_launched, 6);
}

static void cluster_that_restarts_adopts_its_jobs(void **state)
{
    (void)state;
    struct outcome outcome = run_wide_job_with(crash_clusters, 0, 9000);
    assert_int_equal(outcome.generation, 1);
    assert_int_equal(outcome.n_launched, 6);
}

/* Its peers fail at once because of it; yet it is not the program's fault, which has no retry. */
static void machine_that_dies_costs_no_user_retry(void **state)
{
    (void)state;
    struct outcome outcome = run_wide_job_with(crash_busy_node, CRASH_MACHINE, 9000);
    assert_int_equal(outcome.generation, 2);
    outcome = run_wide_job_with(crash_busy_node, CRASH_MACHINE, 60000);
    assert_int_equal(outcome.generation, 2); /* given up by lease, placed elsewhere */
    assert_true(outcome.ended_ms < 60000);
}

/* Its cluster still hears its nodes, but they hear nothing. */
static void mute_towards_nodes(void *arg, struct orr_sim *sim, uint64_t is_mute)
{
    const struct orr_sim_faults faults = {
        .delay_min_ms = 1, .delay_max_ms = 3, .loss_ppm = is_mute ? 1000000 : 0};
    (void)arg;
    for (uint32_t m = 0; m < NODES / CLUSTERS; m++)
        assert_int_equal(
            orr_sim_faults_set(sim, fleet.first_cluster, fleet.first_node + m, &faults),
            ORR_OK);
    if (is_mute)
        fleet_crash(&fleet, fleet.first_cluster + 1); /* the job goes to this one */
}

static void crash_node(void *arg, struct orr_sim *sim, uint64_t node)
{
    (void)arg;
    (void)sim;
    fleet_crash(&fleet, fleet.first_node + (uint32_t)node);
}

/* Whichever of them it is: that of rank 0, which is asked first, or one that is still to be asked. */
static void node_lost_before_its_launch_costs_a_generation(void **state)
{
    (void)state;
    for (uint64_t node = 0; node < NODES / CLUSTERS; node++) {
        set_up(14, 0);
        plan_one_job(1000);
        fleet.jobs[0].world = 6;
        fleet.jobs[0].gpus_min = fleet.jobs[0].gpus_max = 6;
        fleet.jobs[0].submit_at_ms = 1000;
        at(900, mute_towards_nodes, 1);
        at(2000, crash_node, node);
        at(14000, mute_towards_nodes, 0);
        at(FAULTS_MS, calm, 0);
        run();
        assert_int_equal(fleet.jobs[0].phase, ORR_JOB_DONE);
        assert_true(fleet.jobs[0].generation >= 2);
        fleet_fini(&fleet);
    }
}

static void slow_down(void *arg, struct orr_sim *sim, uint64_t cluster)
{
    (void)arg;
    assert_int_equal(
        orr_sim_drift_set(sim, fleet.first_cluster + (uint32_t)cluster, -400000),
        ORR_OK);
}

/* When the first try has ended, its cluster is cut off: the next one goes to the other. */
static void move_on(void *arg, struct orr_sim *sim, uint64_t number)
{
    (void)arg;
    (void)sim;
    (void)number;
    world_now(&fleet.world);
    uint32_t at_node = NODES;
    for (uint32_t m = 0; m < NODES; m++)
        if (fleet.machines[m].n_procs > 0)
            at_node = m;
    if (at_node < NODES && busy_node() == NODES && fleet.world.n_launched == 1)
        fleet_side_set(
            &fleet, fleet.first_cluster + fleet_cluster_of(&fleet, at_node), 1);
}

/* Clocks of hosts have nothing to do with each other: what the one cluster said last is not newer than what the other says
 * first. */
static void job_moves_to_a_cluster_whose_clock_is_behind(void **state)
{
    (void)state;
    for (uint64_t slow = 0; slow < CLUSTERS; slow++) {
        set_up(15, 0);
        plan_one_job(2000);
        fleet.jobs[0].submit_at_ms = 20000;
        fleet.jobs[0].bad_rank = 0;
        fleet.jobs[0].exit_code = 1;
        fleet.jobs[0].retries_user = 1;
        at(1, slow_down, slow);
        for (uint64_t ms = 21000; ms < 21200; ms += 10)
            at(ms, move_on, 0);
        at(40000, calm, 0);
        run();
        assert_int_equal(fleet.jobs[0].phase, ORR_JOB_FAILED);
        assert_int_equal(fleet.world.n_launched, 2);
        fleet_fini(&fleet);
    }
}

static void shuffle(void *arg, struct orr_sim *sim, uint64_t number)
{
    const struct orr_sim_faults faults = {
        .delay_min_ms = 1, .delay_max_ms = 200, .reorder_ppm = 1000000};
    (void)arg;
    (void)number;
    assert_int_equal(orr_sim_faults_set(sim, ORR_SIM_ALL, ORR_SIM_ALL, &faults),
                     ORR_OK);
}

/* The cluster's answer and the question of the job actor come from two actors: either may be first. */
static void frozen_ranks_go_on_whoever_is_heard_first(void **state)
{
    (void)state;
    for (uint64_t seed = 30; seed < 50; seed++) {
        set_up(seed, 0);
        plan_one_job(20000);
        at(5000, cut_off_its_node, 0);
        at(12000, crash_clusters, 0); /* they are frozen, and not given up */
        at(12300, shuffle, 0);
        at(12400, calm, 0);
        run();
        assert_int_equal(fleet.jobs[0].phase, ORR_JOB_DONE);
        assert_int_equal(fleet.jobs[0].generation, 1);
        fleet_fini(&fleet);
    }
}

static uint64_t hash_of(uint64_t seed)
{
    set_up(seed, FAULTS_ALL);
    uint64_t hash = run().hash;
    fleet_fini(&fleet);
    return hash;
}

static void same_seed_gives_same_history(void **state)
{
    (void)state;
    uint64_t first = hash_of(7);
    assert_int_equal(hash_of(7), first);
    assert_int_not_equal(hash_of(8), first);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fleet_without_faults_ends_each_job_as_planned),
        cmocka_unit_test(node_cut_off_beyond_its_lease_never_doubles_a_job),
        cmocka_unit_test(job_runs_on_while_its_cluster_is_down),
        cmocka_unit_test(try_that_was_withdrawn_gets_no_permit),
        cmocka_unit_test(host_that_restarts_adopts_its_ranks),
        cmocka_unit_test(cluster_that_restarts_adopts_its_jobs),
        cmocka_unit_test(machine_that_dies_costs_no_user_retry),
        cmocka_unit_test(node_lost_before_its_launch_costs_a_generation),
        cmocka_unit_test(job_moves_to_a_cluster_whose_clock_is_behind),
        cmocka_unit_test(frozen_ranks_go_on_whoever_is_heard_first),
        cmocka_unit_test(same_seed_gives_same_history),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
