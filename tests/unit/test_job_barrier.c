/* SPDX-License-Identifier: Apache-2.0
 * test_job_barrier.c - the job's side of a barrier in time: new targets wait for nobody, what each step took is told, a
 * barrier waits no longer than time.hang.
 */
#include "job_stop_bed.h"

#include "orr_test.h"

static void raise_target(uint32_t node, uint64_t issued)
{
    const struct orr_rec_clock clock = {.rank = node * 2,
                                        .comm = 77,
                                        .me = node * 2,
                                        .n = WORLD,
                                        .issued = issued,
                                        .op = ORR_CLOCK_OP_ALL_REDUCE};
    const struct orr_msg_cut_report msg = {.job = ORR_LIT("eu1-1"),
                                           .generation = GENERATION,
                                           .cut = nodes[node].cut,
                                           .node = orr_str(node_name(node)),
                                           .step = ORR_CUT_TARGETS,
                                           .state = ORR_STEP_WORKING,
                                           .round = nodes[node].round,
                                           .clocks = {&clock, 1},
                                           .culprit = -1};
    post(orr_msg_desc_cut_report(), &msg);
}

static void new_targets_are_told_to_all_at_once(void **state)
{
    (void)state;
    start_running();
    nodes[0].works_at = nodes[1].works_at = ORR_CUT_TARGETS;
    order(1, ORR_ORDER_SUSPEND);
    run_for(20);
    for (uint32_t round = 1; round < 5; round++) {
        for (uint32_t i = 0; i < NODES; i++) {
            assert_int_equal(nodes[i].n_steps[ORR_CUT_TARGETS], round);
            assert_int_equal(nodes[i].round, round);
        }
        raise_target(round % 2, 8 + round);
        run_for(1);
    }
}

static const struct orr_rec_stop_step *told(uint32_t i, enum orr_cut_step step)
{
    assert_true(i < region.n_stop);
    assert_int_equal(region.stop[i].cut_step, step);
    return &region.stop[i];
}

static void what_each_step_took_is_told(void **state)
{
    (void)state;
    start_running();
    assert_int_equal(region.n_stop, 0);
    nodes[1].silent_at = ORR_CUT_TARGETS;
    order(1, ORR_ORDER_SUSPEND);
    run_for(3000);
    nodes[1].silent_at = 0;
    run_for(60000);
    assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
    assert_int_equal(region.n_stop, 4);
    assert_true(told(0, ORR_CUT_BEGIN)->took_us < 100000);
    assert_int_equal(told(0, ORR_CUT_BEGIN)->rounds, 1);
    assert_true(told(1, ORR_CUT_TARGETS)->took_us >= 3000000);
    assert_true(told(1, ORR_CUT_TARGETS)->took_us < 10000000);
    assert_int_equal(told(1, ORR_CUT_TARGETS)->rounds, 1);
    told(2, ORR_CUT_QUIESCE);
    assert_true(told(3, ORR_CUT_RELEASE)->took_us <
                100000); /* and not the time since */
    uint64_t cut = region.cut;
    assert_true(cut > 0);
    nodes[0].fail_at = ORR_CUT_RESUME;
    order(2, ORR_ORDER_RUN);
    run_for(2000);
    nodes[0].fail_at = 0;
    run_for(2000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_int_equal(region.n_stop, 5);
    assert_int_equal(region.cut, cut);
    assert_true(told(4, ORR_CUT_RESUME)->rounds > 1); /* attempts */
    assert_true(told(4, ORR_CUT_RESUME)->took_us >= 2000000);
}

static void checkpoint_tells_it_when_the_job_runs_again(void **state)
{
    (void)state;
    start_running();
    order(1, ORR_ORDER_CHECKPOINT);
    run_for(3000);
    assert_int_equal(region.n_commits, 1);
    assert_int_equal(region.n_stop, 5);
    told(3, ORR_CUT_SAVE);
    told(4, ORR_CUT_RESUME);
}

static void barrier_waits_no_longer_than_a_rank_may_be_silent(void **state)
{
    (void)state;
    start_running();
    nodes[1].silent_at = ORR_CUT_TARGETS;
    order(1, ORR_ORDER_SUSPEND);
    run_for(15000);
    assert_int_equal(region.n_failed, 0);
    run_for(10000);
    assert_int_equal(region.n_failed, 1);
    assert_non_null(strstr(region.failed, "barrier_targets: no end after 2"));
    nodes[1].silent_at = 0;
    run_for(5000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_true(steps(ORR_CUT_OPEN));
}

static int setup_hang(void **state)
{
    hang_ms = 20000;
    int rc = setup(state);
    hang_ms = 0;
    return rc;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STOP(new_targets_are_told_to_all_at_once),
        STOP(what_each_step_took_is_told),
        STOP(checkpoint_tells_it_when_the_job_runs_again),
        cmocka_unit_test_setup_teardown(
            barrier_waits_no_longer_than_a_rank_may_be_silent, setup_hang, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
