/* SPDX-License-Identifier: Apache-2.0
 * test_sim_fence.c - two generations never run at once, and yet jobs outlive their control plane: docs/fencing.md, on the
 * real actors.
 *
 * One region, one cluster, up to eight nodes.  Each scenario is one of the ways in which an older rule failed, or a promise;
 * the last test draws long histories of partitions, one-way losses, crashes and late joiners.  The invariants
 * (gateways/sim/invariants.h) find two generations of a job, or two owners of a device, that are not frozen.  ORR_SIM_SEED=n, ORR_SIM_LOG=1.
 */
#include "fleet.h"

#include "orr_test.h"

enum { LEASE_MS = 8000, NODES_MAX = 8, CUT_MS = 5000 };
enum host { REGION, CLUSTER, FIRST_NODE };

static struct fleet fleet;
static uint32_t n_nodes;
static bool is_down[FIRST_NODE + NODES_MAX];
static uint32_t busy; /* the machine that has the job; NODES_MAX: not known yet */

static void show_log(void *arg,
                     enum orr_log_level level,
                     uint64_t wall,
                     const char *who,
                     const char *text)
{
    (void)arg;
    (void)wall;
    if (getenv("ORR_SIM_LOG"))
        fprintf(stderr,
                "%8u %d %s: %s\n",
                (unsigned)orr_sim_now_ms(fleet.sim),
                (int)level,
                who,
                text);
}

static void
set_up(uint64_t seed, uint32_t nodes_n, uint32_t jobs, uint32_t size, uint32_t run_ms)
{
    const struct fleet_plan plan = {.has_no_orders = true,
                                    .seed = seed,
                                    .clusters = 1,
                                    .nodes = nodes_n,
                                    .jobs = jobs,
                                    .lease_ms = LEASE_MS,
                                    .log = show_log};
    struct orr_error err;
    memset(is_down, 0, sizeof(is_down));
    n_nodes = nodes_n;
    busy = NODES_MAX;
    assert_int_equal(fleet_init(&fleet, &plan, &err), ORR_OK);
    for (uint32_t i = 0; i < jobs; i++)
        fleet.jobs[i] = (struct client_job){.submit_at_ms = 1000,
                                            .world = size,
                                            .gpus_min = size,
                                            .gpus_max = size,
                                            .run_ms = run_ms,
                                            .bad_rank = -1};
}

static void crash(uint32_t host)
{
    if (!is_down[host])
        fleet_crash(&fleet, host);
    is_down[host] = true;
}

static void start(uint32_t host)
{
    if (is_down[host])
        fleet_restart(&fleet, host);
    is_down[host] = false;
}

/* ---- what happens when ---- */

static void at(uint64_t ms, orr_sim_event_f fn, uint64_t number)
{
    assert_int_equal(orr_sim_at(fleet.sim, ms, fn, NULL, number), ORR_OK);
}

/* The scenarios call the node that has the job n1, whichever that is. */
static uint32_t real(uint64_t host)
{
    for (uint32_t m = 0; m < n_nodes && busy == NODES_MAX; m++)
        for (uint32_t i = 0; i < WORLD_PROCS; i++)
            if (proc_is_live(&fleet.machines[m].procs[i], world_now(&fleet.world)))
                busy = m;
    uint32_t at_first = busy == NODES_MAX ? 0 : busy;
    if (host == FIRST_NODE)
        return FIRST_NODE + at_first;
    return host == FIRST_NODE + at_first ? FIRST_NODE : (uint32_t)host;
}

static void on_crash(void *arg, struct orr_sim *the_sim, uint64_t host)
{
    (void)arg;
    (void)the_sim;
    crash(real(host));
}

static void on_start(void *arg, struct orr_sim *the_sim, uint64_t host)
{
    (void)arg;
    (void)the_sim;
    start(real(host));
}

/* Bit i: host i goes to the other side. */
static void on_split(void *arg, struct orr_sim *the_sim, uint64_t hosts)
{
    (void)arg;
    (void)the_sim;
    for (uint32_t host = 0; host < FIRST_NODE + n_nodes; host++)
        fleet_side_set(&fleet, real(host), hosts >> host & 1);
}

/* What the cluster says no longer reaches those hosts; what they say still reaches it. */
static void on_deafen(void *arg, struct orr_sim *the_sim, uint64_t hosts)
{
    (void)arg;
    for (uint32_t host = FIRST_NODE; host < FIRST_NODE + n_nodes; host++) {
        const struct orr_sim_faults faults = {.delay_min_ms = 1,
                                              .delay_max_ms = 4,
                                              .loss_ppm =
                                                  hosts >> host & 1 ? 1000000 : 0};
        assert_int_equal(orr_sim_faults_set(the_sim, CLUSTER, real(host), &faults),
                         ORR_OK);
    }
}

/* And the other way round. */
static void on_mute(void *arg, struct orr_sim *the_sim, uint64_t hosts)
{
    (void)arg;
    for (uint32_t host = FIRST_NODE; host < FIRST_NODE + n_nodes; host++) {
        const struct orr_sim_faults faults = {.delay_min_ms = 1,
                                              .delay_max_ms = 4,
                                              .loss_ppm =
                                                  hosts >> host & 1 ? 1000000 : 0};
        assert_int_equal(orr_sim_faults_set(the_sim, real(host), CLUSTER, &faults),
                         ORR_OK);
    }
}

static uint32_t node(uint32_t number)
{
    return FIRST_NODE + number - 1;
}

static uint64_t nodes(uint32_t first, uint32_t last)
{
    uint64_t mask = 0;
    for (uint32_t i = first; i <= last; i++)
        mask |= UINT64_C(1) << node(i);
    return mask;
}

static bool has_ended(void *arg, struct orr_sim *the_sim)
{
    (void)arg;
    (void)the_sim;
    return fleet.client.n_ended == fleet.client.n_jobs;
}

static void run_all(uint64_t until_ms)
{
    struct orr_error err = {0};
    if (orr_sim_run_until(fleet.sim, until_ms, has_ended, NULL, &err) != ORR_OK)
        fail_msg("seed %u: %s; the first job is %s: %s",
                 (unsigned)fleet.plan.seed,
                 err.text,
                 orr_job_phase_name(fleet.jobs[0].phase),
                 fleet.jobs[0].reason);
    for (uint32_t i = 0; i < fleet.client.n_jobs; i++)
        assert_int_equal(fleet.jobs[i].phase, ORR_JOB_DONE);
}

/* To the end of the job, which succeeds.  Returns when that was. */
static uint64_t run(uint64_t until_ms, uint64_t generation, uint64_t n_launched)
{
    run_all(until_ms);
    assert_int_equal(fleet.jobs[0].generation, generation);
    assert_int_equal(fleet.world.n_launched, n_launched);
    uint64_t now = orr_sim_now_ms(fleet.sim);
    fleet_fini(&fleet);
    return now;
}

/* One job of one device, which is on n1, the first in the table; it would run for a minute. */
static void set_up_small(uint32_t n)
{
    set_up(1, n, 1, 1, 60000);
}

/* ---- the cluster may give up: and then nothing runs where it was ---- */

/* Nobody is there who could freeze the ranks but their keepers. */
static void host_down_beyond_the_lease_leaves_its_ranks_frozen(void **state)
{
    (void)state;
    set_up_small(3);
    at(CUT_MS, on_crash, node(1));
    at(120000, on_start, node(1));
    run(300000, 2, 2);
}

static void host_back_within_the_lease_goes_on_with_its_ranks(void **state)
{
    (void)state;
    set_up_small(3);
    at(CUT_MS, on_crash, node(1));
    at(CUT_MS + LEASE_MS * 7 / 8, on_start, node(1)); /* frozen, and not given up */
    assert_true(run(100000, 1, 1) < 1000 + 60000 + 4000);
}

static void half_that_is_cut_off_is_given_up_and_stands_still(void **state)
{
    (void)state;
    set_up_small(4);
    at(CUT_MS, on_split, nodes(1, 2));
    at(120000, on_split, 0);
    run(300000, 2, 2);
}

/* That host, wherever the job is. */
static void on_first_crash(void *arg, struct orr_sim *the_sim, uint64_t number)
{
    (void)arg;
    (void)the_sim;
    (void)number;
    crash(FIRST_NODE);
}

/* Its list is itself alone, which nobody can outvote: it gets no job before it knows the others. */
static void node_that_dies_before_it_knows_the_others_had_no_job(void **state)
{
    (void)state;
    set_up_small(3);
    fleet.jobs[0].submit_at_ms = 3500;
    at(1, on_crash, node(2));
    at(1, on_crash, node(3));
    at(3000, on_mute, nodes(1, 1));
    at(3000, on_start, node(2));
    at(3000, on_start, node(3));
    at(4500, on_first_crash, 0);
    run(100000, 1, 1);
}

static uint32_t count_live(void)
{
    uint32_t n = 0;
    uint64_t now = world_now(&fleet.world);
    for (uint32_t m = 0; m < n_nodes; m++)
        for (uint32_t i = 0; i < WORLD_PROCS; i++)
            n += proc_is_live(&fleet.machines[m].procs[i], now);
    return n;
}

/* n1 is back while its job, which was given up with it, still waits for n2: what stands still on n1 is stopped all the same. */
static void node_that_returns_while_its_job_ends_keeps_no_ranks(void **state)
{
    (void)state;
    struct orr_error err = {0};
    set_up(1, 6, 1, 12, 60000);
    at(CUT_MS, on_crash, node(1));
    at(CUT_MS + LEASE_MS / 2, on_crash, node(2));
    at(CUT_MS + LEASE_MS + 1500, on_start, node(1));
    at(120000, on_start, node(2));
    run_all(300000);
    assert_int_equal(fleet.jobs[0].generation, 2);
    uint64_t later_ms = orr_sim_now_ms(fleet.sim) + 20000;
    assert_int_equal(orr_sim_run_until(fleet.sim, later_ms, NULL, NULL, &err), ORR_OK);
    assert_int_equal(count_live(), 0);
    fleet_fini(&fleet);
}

/* The cluster's host dies when it has given n1 up and has told the others' ranks to end, and before it could say so. */
static void
job_that_was_ended_for_a_lost_node_goes_on_when_the_cluster_dies_then(void **state)
{
    (void)state;
    set_up(1, 6, 1, 12, 60000);
    at(CUT_MS, on_crash, node(1));
    at(CUT_MS + LEASE_MS / 2, on_crash, node(2)); /* the end waits for it */
    at(CUT_MS + LEASE_MS + 1500, on_crash, CLUSTER);
    at(CUT_MS + LEASE_MS + 3000, on_crash, node(3)); /* its next life knows, too */
    for (uint32_t i = 1; i <= 3; i++)
        at(40000, on_start, node(i));
    at(45000, on_start, CLUSTER);
    run(300000, 2, 24);
}

/* ---- the cluster may not ---- */

static void cluster_that_hears_less_than_half_gives_nobody_up(void **state)
{
    (void)state;
    set_up_small(5);
    at(CUT_MS, on_split, nodes(1, 3));
    at(50000, on_split, 0);
    run(66000, 1, 1); /* it never stood still */
}

/* It does not know n2 and n3 any more: of those that it knows, it hears a majority. */
static void cluster_that_restarts_among_few_gives_nobody_up(void **state)
{
    (void)state;
    set_up_small(5);
    at(CUT_MS, on_split, nodes(1, 3));
    at(CUT_MS + 500, on_crash, CLUSTER);
    at(CUT_MS + 1500, on_start, CLUSTER);
    at(50000, on_split, 0);
    run(66000, 1, 1);
}

/* n1 to n3 do not know of those who joined, and vouch for each other. */
static void nodes_that_join_later_make_no_majority(void **state)
{
    (void)state;
    set_up_small(8);
    for (uint32_t i = 4; i <= 8; i++) {
        at(1, on_crash, node(i));
        at(CUT_MS + 1000 + 100 * i, on_start, node(i));
    }
    at(CUT_MS, on_split, nodes(1, 3));
    at(50000, on_split, 0);
    run(66000, 1, 1);
}

/* They do not hear the cluster and vouch for n1, which is cut off; the cluster hears them. */
static void nodes_that_only_talk_make_no_majority(void **state)
{
    (void)state;
    set_up_small(3);
    at(CUT_MS, on_deafen, nodes(1, 3));
    at(CUT_MS, on_mute, nodes(1, 1));
    at(50000, on_deafen, 0);
    at(50000, on_mute, 0);
    run(70000, 1, 1);
}

/* ---- jobs run on ---- */

/* Region and cluster are gone for half an hour; the hosts of the nodes are started anew, one by one. */
static void jobs_run_on_for_half_an_hour_without_a_control_plane(void **state)
{
    (void)state;
    enum { RUN_MS = 40 * 60000, DOWN_MS = 30 * 60000 };
    set_up(1, 4, 1, 8, RUN_MS);
    at(CUT_MS, on_crash, CLUSTER);
    at(CUT_MS, on_crash, REGION);
    for (uint32_t i = 1; i <= 4; i++) {
        at(CUT_MS + 300000 * i, on_crash, node(i));
        at(CUT_MS + 300000 * i + 1000, on_start, node(i));
    }
    at(CUT_MS + DOWN_MS, on_start, CLUSTER);
    at(CUT_MS + DOWN_MS, on_start, REGION);
    run(RUN_MS + 10000, 1, 8); /* it never stood still */
}

/* Even when all hosts of the nodes go down and come back meanwhile, faster than the lease. */
static void jobs_run_on_when_every_host_restarts_at_once(void **state)
{
    (void)state;
    set_up(1, 3, 1, 6, 60000);
    at(CUT_MS, on_crash, CLUSTER);
    for (uint32_t i = 1; i <= 3; i++) {
        at(20000, on_crash, node(i));
        at(21000, on_start, node(i));
    }
    at(50000, on_start, CLUSTER);
    run(66000, 1, 6);
}

/* In a cluster of one nobody can be given up, so nothing freezes, not even while its host is down. */
static void only_node_never_freezes(void **state)
{
    (void)state;
    set_up_small(1);
    at(CUT_MS, on_crash, CLUSTER);
    at(20000, on_crash, node(1));
    at(40000, on_start, node(1));
    at(50000, on_start, CLUSTER);
    run(66000, 1, 1);
}

/* ---- any history ---- */

static void on_any_fault(void *arg, struct orr_sim *the_sim, uint64_t number)
{
    (void)arg;
    (void)number;
    uint32_t one = FIRST_NODE + (uint32_t)(orr_sim_random(the_sim) % n_nodes);
    uint64_t some =
        orr_sim_random(the_sim) & (nodes(1, n_nodes) | UINT64_C(1) << CLUSTER);
    switch (orr_sim_random(the_sim) % 8) {
    case 0:
        crash(one);
        break;
    case 1:
        crash(CLUSTER);
        break;
    case 2:
        on_split(NULL, the_sim, some);
        break;
    case 3:
        on_split(NULL, the_sim, 0);
        break;
    case 4:
        on_deafen(NULL, the_sim, some);
        break;
    case 5:
        on_deafen(NULL, the_sim, 0);
        break;
    default:
        start(CLUSTER);
        start(one);
        break;
    }
}

static void on_calm(void *arg, struct orr_sim *the_sim, uint64_t number)
{
    (void)arg;
    (void)number;
    on_split(NULL, the_sim, 0);
    on_deafen(NULL, the_sim, 0);
    for (uint32_t host = 0; host < FIRST_NODE + n_nodes; host++)
        start(host);
}

static void any_history_keeps_one_generation(void **state)
{
    (void)state;
    const char *only = getenv("ORR_SIM_SEED");
    const char *count = getenv("ORR_SIM_SEEDS");
    uint64_t first = only ? strtoull(only, NULL, 10) : 1;
    uint64_t n = count ? strtoull(count, NULL, 10) : only ? 1 : 40;
    for (uint64_t seed = first; seed < first + n; seed++) {
        set_up(seed, 2 + (uint32_t)(seed % 5), 4, 1, 100000);
        for (uint64_t ms = 3000; ms < 200000; ms += 500 + fleet_pick(&fleet, 8000))
            at(ms, on_any_fault, 0);
        at(200000, on_calm, 0);
        run_all(900000);
        fleet_fini(&fleet);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host_down_beyond_the_lease_leaves_its_ranks_frozen),
        cmocka_unit_test(host_back_within_the_lease_goes_on_with_its_ranks),
        cmocka_unit_test(half_that_is_cut_off_is_given_up_and_stands_still),
        cmocka_unit_test(node_that_dies_before_it_knows_the_others_had_no_job),
        cmocka_unit_test(node_that_returns_while_its_job_ends_keeps_no_ranks),
        cmocka_unit_test(
            job_that_was_ended_for_a_lost_node_goes_on_when_the_cluster_dies_then),
        cmocka_unit_test(cluster_that_hears_less_than_half_gives_nobody_up),
        cmocka_unit_test(cluster_that_restarts_among_few_gives_nobody_up),
        cmocka_unit_test(nodes_that_join_later_make_no_majority),
        cmocka_unit_test(nodes_that_only_talk_make_no_majority),
        cmocka_unit_test(jobs_run_on_for_half_an_hour_without_a_control_plane),
        cmocka_unit_test(jobs_run_on_when_every_host_restarts_at_once),
        cmocka_unit_test(only_node_never_freezes),
        cmocka_unit_test(any_history_keeps_one_generation),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
