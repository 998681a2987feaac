/* SPDX-License-Identifier: Apache-2.0
 * test_job_partial.c - the job actor when ranks change node in a resize, against two nodes and a spare one, a cluster and a region
 * that do what the test says: ranks 0 and 1 are on n0, 2 and 3 on n1, each on a device of its own.
 */
#include "job_stop_bed.h"

#include "orr_test.h"

static void resize(uint64_t number, uint32_t devices)
{
    const struct orr_msg_job_order msg = {.job = ORR_LIT("eu1-1"),
                                          .generation = GENERATION,
                                          .number = number,
                                          .order = ORR_ORDER_RESIZE,
                                          .checkpoint = 9,
                                          .devices = devices,
                                          .may_move = true};
    post(orr_msg_desc_job_order(), &msg);
}

static void give(uint32_t n, const uint32_t (*slots)[2])
{
    cluster.n_slots = n;
    for (uint32_t i = 0; i < n; i++) {
        cluster.slots[i].node = slots[i][0];
        cluster.slots[i].device = slots[i][1];
    }
}
static const uint32_t one[][2] = {{0, 0}};
static const uint32_t two[][2] = {{0, 1}, {1, 0}};
static const uint32_t wide[][2] = {{0, 1}, {1, 0}, {SPARE, 0}, {SPARE, 1}};

static void node_is(uint32_t index, uint32_t state)
{
    const struct orr_msg_node_changed msg = {
        .node = orr_str(node_name(index)),
        .state = state,
        .addr = peers[index < NODES ? index : NODES + 2]};
    post(orr_msg_desc_node_changed(), &msg);
}

/* Two devices; then n2 has two more. */
static void grow(void)
{
    give(2, two);
    resize(1, 2);
    run_for(1000);
    assert_int_equal(region.n_devices, 2);
    give(4, wide);
    resize(2, 4);
}

static void runs_as_before(uint32_t devices)
{
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_int_equal(region.n_devices, devices);
    for (uint32_t r = 0; r < WORLD; r++)
        assert_int_equal(region.node[r], "01"[r / 2]);
    assert_int_equal(nodes[0].n_here, 2);
    assert_int_equal(nodes[1].n_here, 2);
}

static void only_those_that_leave_are_saved_and_restored(void **state)
{
    (void)state;
    start_running();
    give(1, one);
    resize(1, 1);
    run_for(2000);
    assert_true(cluster.may_spread);
    assert_int_equal(nodes[0].n_saved, 0);
    assert_int_equal(nodes[1].n_saved, 2);
    assert_int_equal(nodes[0].n_joins, 1); /* beside those that wait there */
    assert_int_equal(nodes[0].joined, 0xc);
    assert_string_equal(nodes[0].parts[2], "p2");
    assert_string_equal(nodes[0].parts[3], "p3");
    assert_int_equal(nodes[0].n_here, WORLD);
    assert_int_equal(nodes[1].n_steps[ORR_CUT_RESUME], 0);
    assert_int_equal(nodes[1].n_stops, 1); /* it ends what has left, */
    assert_int_equal(nodes[1].n_forgets, 1);
    assert_int_equal(nodes[1].stop_cut, nodes[0].cut); /* and may get ranks later */
    for (uint32_t r = 0; r < WORLD; r++)
        assert_int_equal(region.node[r], '0');
    assert_false(region.is_placed_late);
    assert_int_equal(region.n_devices, 1);
    assert_int_equal(region.phase,
                     ORR_JOB_RUNNING); /* their ends there were not its ranks' */
    assert_int_equal(region.n_commits, 0);
    assert_int_equal(region.n_failed, 0);
    assert_int_equal(cluster.n_keep, 1);
}

static void node_that_was_left_may_be_joined_again(void **state)
{
    (void)state;
    start_running();
    give(1, one);
    nodes[1].keeps = 3;
    resize(1, 1);
    run_for(300);
    assert_int_equal(region.n_devices, 1);
    assert_int_equal(nodes[1].n_forgets, 0);
    give(2, two);
    resize(2, 2); /* waits until n1 has ended what has left it */
    run_for(4000);
    assert_int_equal(nodes[1].n_forgets, 1);
    assert_int_equal(cluster.n_needs, 1); /* only its nodes need any */
    assert_int_equal(nodes[1].n_joins, 1);
    assert_int_equal(nodes[1].joined, 0xc);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_int_equal(region.n_devices, 2);
    assert_int_equal(nodes[0].n_here, 2);
    assert_int_equal(nodes[1].n_here, 2);
    assert_int_equal(nodes[1].n_stops, 1);
    order(3, ORR_ORDER_SUSPEND);
    run_for(2000);
    assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
}

static void job_grows_onto_a_node_that_it_was_not_on(void **state)
{
    (void)state;
    start_running();
    grow();
    run_for(2000);
    assert_int_equal(nodes[SPARE].n_joins, 1);
    assert_int_equal(nodes[SPARE].n_here, 2);
    assert_int_equal(nodes[0].n_here, 1);
    assert_int_equal(nodes[1].n_here, 1);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_int_equal(region.n_devices, 4);
    assert_int_equal(nodes[0].n_stops + nodes[1].n_stops + nodes[SPARE].n_stops, 0);
    order(3, ORR_ORDER_CHECKPOINT); /* of all three */
    run_for(2000);
    assert_int_equal(nodes[SPARE].n_saved, WORLD);
}

/* Those that stay were never told of that machine: they are before anybody goes on, and before there is no way back. */
static void network_reaches_a_machine_that_is_new_to_the_job(void **state)
{
    (void)state;
    start_running();
    cluster.is_spare_far = true;
    give(2, two);
    resize(1, 2);
    run_for(1000);
    assert_string_equal(nodes[0].told_machine, "");
    nodes[0].fail_at = ORR_CUT_RELEASE;
    give(4, wide);
    resize(2, 4);
    run_for(2000);
    assert_int_equal(region.failed_number, 2);
    runs_as_before(2);
    nodes[0].fail_at = 0;
    resize(3, 4);
    run_for(2000);
    assert_string_equal(nodes[0].told_machine, "192.0.2.9:4789");
    assert_string_equal(nodes[1].told_machine, "192.0.2.9:4789");
    assert_string_equal(nodes[SPARE].told_machine, "");
    assert_int_equal(nodes[SPARE].n_here, 2);
    assert_int_equal(region.n_devices, 4);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
}

static void failure_up_to_the_record_goes_back(void **state)
{
    (void)state;
    start_running();
    nodes[SPARE].refuses_join = ORR_EIO;
    grow();
    run_for(2000);
    assert_int_equal(region.failed_number, 2);
    assert_non_null(strstr(region.failed, "it said no"));
    runs_as_before(2);
    assert_true(nodes[SPARE].n_stops >= 1 && nodes[SPARE].n_forgets == 1);
    nodes[SPARE].refuses_join = 0;
    nodes[SPARE].fail_at = ORR_CUT_RELEASE;
    resize(3, 4);
    run_for(2000);
    assert_int_equal(region.failed_number, 3);
    runs_as_before(2);
    assert_int_equal(nodes[SPARE].n_forgets, 2);
    assert_int_equal(nodes[SPARE].n_steps[ORR_CUT_RESUME], 0);
    nodes[SPARE].fail_at = 0;
    nodes[1].fail_at = ORR_CUT_SAVE;
    resize(4, 4);
    run_for(2000);
    nodes[1].fail_at = 0;
    run_for(1000);
    assert_int_equal(region.failed_number, 4);
    runs_as_before(2);
    resize(5, 4);
    run_for(2000);
    assert_int_equal(region.n_devices, 4);
    assert_int_equal(nodes[SPARE].n_here, 2);
}

static void target_out_of_reach_is_not_waited_for(void **state)
{
    (void)state;
    start_running();
    nodes[SPARE].joins_late = true;
    grow();
    run_for(500);
    assert_int_equal(nodes[SPARE].n_joins, 1);
    node_is(SPARE, ORR_NODE_UNKNOWN);
    run_for(1000);
    assert_int_equal(region.failed_number, 2);
    assert_non_null(strstr(region.failed, "n2"));
    runs_as_before(2);
    node_is(SPARE, ORR_NODE_LOST); /* it has nothing that the job needs */
    run_for(1000);
    runs_as_before(2);
    assert_int_equal(region.n_ended, 0);
}

static void nobody_ends_or_resumes_before_the_record(void **state)
{
    (void)state;
    start_running();
    give(1, one);
    region.is_silent = true;
    resize(1, 1);
    run_for(20000);
    assert_true(nodes[0].n_steps[ORR_CUT_RELEASE] > 0);
    assert_int_equal(nodes[0].n_steps[ORR_CUT_RESUME], 0);
    assert_int_equal(nodes[1].n_stops, 0);
    region.is_silent = false;
    run_for(5000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_int_equal(nodes[1].n_stops, 1);
    assert_int_equal(nodes[0].n_here, WORLD);
}

static void suspend_in_between_leaves_the_old_map(void **state)
{
    (void)state;
    start_running();
    nodes[SPARE].joins_late = true;
    grow();
    run_for(500);
    order(3, ORR_ORDER_SUSPEND);
    run_for(3000);
    assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
    assert_int_equal(nodes[SPARE].n_forgets, 1);
    assert_int_equal(nodes[SPARE].n_steps[ORR_CUT_RELEASE], 0);
    order(4, ORR_ORDER_RUN);
    run_for(3000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_int_equal(nodes[0].n_here, 2);
    assert_int_equal(nodes[1].n_here, 2);
}

static void recovered_actor_asks_for_no_other_nodes(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < NODES; i++)
        for (uint32_t r = 0; r < WORLD; r++)
            nodes[i].state[r] = ORR_RANK_RUNNING;
    give(1, one);
    start(&(struct orr_msg_job_start){.is_recovery = true});
    resize(1, 1);
    run_for(3000);
    assert_false(cluster.may_spread);
    assert_int_equal(nodes[0].n_joins, 0);
    assert_int_equal(region.outcome, ORR_OUTCOME_MOVED); /* as a whole */
}

/* Its cluster tells of a node that an earlier life had been moving ranks to. */
static void what_an_earlier_life_left_is_ended(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < NODES; i++)
        for (uint32_t r = 0; r < WORLD; r++)
            nodes[i].state[r] = ORR_RANK_RUNNING;
    start(&(struct orr_msg_job_start){.is_recovery = true});
    node_is(SPARE, ORR_NODE_UP);
    run_for(3000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_int_equal(nodes[SPARE].n_stops, 1);
    assert_int_equal(nodes[SPARE].n_forgets, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STOP(only_those_that_leave_are_saved_and_restored),
        STOP(node_that_was_left_may_be_joined_again),
        STOP(job_grows_onto_a_node_that_it_was_not_on),
        STOP(network_reaches_a_machine_that_is_new_to_the_job),
        STOP(failure_up_to_the_record_goes_back),
        STOP(target_out_of_reach_is_not_waited_for),
        STOP(nobody_ends_or_resumes_before_the_record),
        STOP(suspend_in_between_leaves_the_old_map),
        STOP(recovered_actor_asks_for_no_other_nodes),
        STOP(what_an_earlier_life_left_is_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
