/* SPDX-License-Identifier: Apache-2.0
 * test_job_stop_faults.c - the same in each phase with a node that is silent, refuses, dies, repeats itself or answers late.
 */
#include "job_stop_bed.h"

#include "orr_test.h"

/* Each step of a way, and what happens to one node in it. */
static const enum orr_cut_step way[] = {
    ORR_CUT_BEGIN, ORR_CUT_TARGETS, ORR_CUT_QUIESCE, ORR_CUT_SAVE, ORR_CUT_RELEASE};

static enum orr_order order_with(enum orr_cut_step step)
{
    return step == ORR_CUT_SAVE ? ORR_ORDER_VACATE : ORR_ORDER_SUSPEND;
}

static void begin_with(enum orr_cut_step step,
                       void (*fault)(struct peer_script *, uint32_t))
{
    void *state = NULL;
    setup(&state);
    start_running();
    fault(&nodes[1], step);
    order(1, order_with(step));
}

static void is_undone(enum orr_cut_step step)
{
    bool is_early = step <= ORR_CUT_TARGETS;
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_int_equal(region.n_failed, 1);
    assert_int_equal(region.failed_number, 1);
    assert_non_null(strstr(region.failed, orr_cut_step_name(step)));
    assert_non_null(strstr(region.failed, "n1"));
    assert_true(steps(is_early ? ORR_CUT_OPEN : ORR_CUT_RESUME));
    assert_int_equal(cluster.n_freed, 0);
}

static void set_silent(struct peer_script *node, uint32_t step)
{
    node->silent_at = step;
}
static void silent_node_undoes_the_stop_in_each_phase(void **state)
{
    for (size_t i = 0; i < ORR_ARRAY_SIZE(way); i++) {
        begin_with(way[i], set_silent);
        run_for(200000);
        nodes[1].silent_at = 0;
        run_for(5000);
        is_undone(way[i]);
        nodes[1].n_steps[ORR_CUT_BEGIN] = 0; /* and it works at the next time */
        order(2, ORR_ORDER_SUSPEND);
        run_for(5000);
        assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
        teardown(state);
    }
}

static void set_failing(struct peer_script *node, uint32_t step)
{
    node->fail_at = step;
}
static void refusing_node_undoes_the_stop_in_each_phase(void **state)
{
    for (size_t i = 0; i < ORR_ARRAY_SIZE(way); i++) {
        begin_with(way[i], set_failing);
        run_for(5000);
        is_undone(way[i]);
        assert_non_null(strstr(region.failed, "rank 2"));
        assert_non_null(strstr(region.failed, "the driver said no"));
        teardown(state);
    }
}

static void set_late(struct peer_script *node, uint32_t step)
{
    node->late_at = step;
}
static void answers_of_an_older_cut_change_nothing(void **state)
{
    for (size_t i = 0; i < ORR_ARRAY_SIZE(way); i++) {
        begin_with(way[i], set_late);
        run_for(5000);
        assert_int_equal(region.n_failed, 0);
        assert_true(nodes[1].n_steps[way[i]] > 1);
        if (way[i] == ORR_CUT_SAVE)
            assert_int_equal(region.outcome, ORR_OUTCOME_MOVED);
        else
            assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
        teardown(state);
    }
}

static void node_lost_in_the_middle_is_judged_first(void **state)
{
    for (size_t i = 0; i < ORR_ARRAY_SIZE(way); i++) {
        begin_with(way[i], set_silent);
        run_for(1000);
        nodes[1].is_dead = true;
        post(orr_msg_desc_node_changed(),
             &(const struct orr_msg_node_changed){.node = ORR_LIT("n1"),
                                                  .state = ORR_NODE_LOST});
        run_for(5000);
        assert_int_equal(region.n_ended, 1);
        assert_int_equal(region.outcome, ORR_OUTCOME_LOST);
        assert_int_equal(region.n_commits, 0);
        teardown(state);
    }
}

static void rank_that_dies_in_the_middle_is_judged_first(void **state)
{
    for (size_t i = 0; i < ORR_ARRAY_SIZE(way); i++) {
        begin_with(way[i], set_silent);
        run_for(1000);
        nodes[0].state[1] = ORR_RANK_EXITED;
        struct orr_msg_rank_update msg = {.node = ORR_LIT("n0"), .rank = row_of(1)};
        msg.rank.signal = 9;
        post(orr_msg_desc_rank_update(), &msg);
        run_for(5000);
        assert_int_equal(region.n_ended, 1);
        assert_int_equal(region.outcome, ORR_OUTCOME_FAILED);
        teardown(state);
    }
}

static void later_order_replaces_an_earlier_one(void **state)
{
    for (size_t i = 0; i < ORR_ARRAY_SIZE(way); i++) {
        begin_with(way[i], set_silent);
        run_for(1000);
        order(2, ORR_ORDER_RUN);
        run_for(500);
        nodes[1].silent_at = 0;
        run_for(5000);
        assert_int_equal(region.phase, ORR_JOB_RUNNING);
        assert_int_equal(region.n_failed, 0);
        assert_int_equal(region.n_ended, 0);
        teardown(state);
    }
}

static void resume_that_fails_is_tried_again_until_its_time_is_over(void **state)
{
    (void)state;
    start_running();
    order(1, ORR_ORDER_SUSPEND);
    run_for(1000);
    nodes[0].fail_at = ORR_CUT_RESUME;
    order(2, ORR_ORDER_RUN);
    run_for(10000);
    assert_int_equal(region.phase, ORR_JOB_RESTORING);
    assert_true(nodes[0].n_steps[ORR_CUT_RESUME] > 3);
    assert_true(nodes[0].n_steps[ORR_CUT_RESUME] < 100);
    nodes[0].fail_at = 0;
    run_for(5000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    order(3, ORR_ORDER_SUSPEND);
    run_for(1000);
    nodes[0].fail_at = ORR_CUT_RESUME;
    order(4, ORR_ORDER_RUN);
    run_for(200000);
    assert_int_equal(region.outcome, ORR_OUTCOME_LOST);
    assert_non_null(strstr(region.reason, "the driver said no"));
}

/* The move that it was saved for is replaced; that its store is full then is no reason not to run. */
static void save_that_fails_for_an_older_order_does_not_fail_the_resume(void **state)
{
    (void)state;
    start_running();
    order(1, ORR_ORDER_SUSPEND);
    run_for(1000);
    nodes[0].silent_at = ORR_CUT_SAVE;
    order(2, ORR_ORDER_VACATE);
    run_for(500);
    order(3, ORR_ORDER_RUN);
    nodes[0].silent_at = ORR_CUT_NONE;
    nodes[0].fail_at = ORR_CUT_SAVE;
    run_for(5000);
    assert_int_equal(region.n_failed, 0);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
}

/* It was slow, which is no reason to lose its steps since the checkpoint; and hangs do end. */
static void resume_that_takes_long_is_given_more_time(void **state)
{
    (void)state;
    start_running();
    order(1, ORR_ORDER_SUSPEND);
    run_for(1000);
    nodes[0].silent_at = ORR_CUT_RESUME;
    order(2, ORR_ORDER_RUN);
    run_for(100000);
    assert_int_equal(region.phase, ORR_JOB_RESTORING);
    nodes[0].silent_at = ORR_CUT_NONE;
    run_for(2000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    order(3, ORR_ORDER_SUSPEND);
    run_for(1000);
    nodes[0].silent_at = ORR_CUT_RESUME;
    order(4, ORR_ORDER_RUN);
    run_for(450000);
    assert_int_equal(region.outcome, ORR_OUTCOME_LOST);
}

static void recovered_job_resumes_what_was_half_done(void **state)
{
    for (size_t i = 0; i < ORR_ARRAY_SIZE(way); i++) {
        setup(state);
        for (uint32_t n = 0; n < NODES; n++) {
            for (uint32_t r = 0; r < WORLD; r++)
                nodes[n].state[r] = ORR_RANK_RUNNING;
            nodes[n].found_cut = n == 0 ? 77 : 76;
            nodes[n].found_step = n == 0 ? way[i] : ORR_CUT_NONE;
        }
        start(&(struct orr_msg_job_start){.is_recovery = true});
        run_for(2000);
        assert_int_equal(region.phase, ORR_JOB_RUNNING);
        assert_true(steps(way[i] <= ORR_CUT_TARGETS ? ORR_CUT_OPEN : ORR_CUT_RESUME));
        /* some may have let go of communicators that others have: these do, too, first */
        assert_int_equal(steps(ORR_CUT_QUIESCE) > 0, way[i] == ORR_CUT_QUIESCE);
        teardown(state);
    }
}

/* ---- the host of its cluster dies when ranks have been told to end, and before the end is told ---- */

static void ended(uint32_t rank, uint32_t signal, uint64_t when, bool is_told)
{
    struct peer_script *node = &nodes[rank / 2];
    node->state[rank] = ORR_RANK_EXITED;
    node->signal[rank] = signal;
    node->changed_ms[rank] = when;
    node->is_told[rank] = is_told;
}

static void recover(void)
{
    start(&(struct orr_msg_job_start){.is_recovery = true});
    run_for(5000);
    assert_int_equal(region.n_ended, 1);
}

static void ranks_that_were_told_to_end_are_not_the_programs_fault(void **state)
{
    (void)state;
    nodes[0].state[0] = nodes[0].state[1] =
        ORR_RANK_RUNNING; /* froze, and were given up */
    ended(2, 15, 500, true);
    ended(3, 9, 700, true);
    recover();
    assert_int_equal(region.outcome, ORR_OUTCOME_LOST);
    assert_int_equal(nodes[0].state[0], ORR_RANK_EXITED);
    assert_non_null(strstr(region.reason, "n1"));
}

/* What fails because of it is not, either. */
static void end_after_one_that_was_told_is_its_consequence(void **state)
{
    (void)state;
    for (uint32_t rank = 0; rank < WORLD; rank++)
        ended(rank, rank < 2 ? 6 : 15, 500 + 10 * (WORLD - rank), rank >= 2);
    recover();
    assert_int_equal(region.outcome, ORR_OUTCOME_LOST);
}

/* It may end with exit code 0 then; the job is not done. */
static void job_that_was_told_to_end_is_not_done(void **state)
{
    (void)state;
    for (uint32_t rank = 0; rank < WORLD; rank++)
        ended(rank, 0, 500, rank > 0);
    recover();
    assert_int_equal(region.outcome, ORR_OUTCOME_LOST);
}

/* The others were told because of it. */
static void rank_that_failed_before_the_others_were_told_is_the_culprit(void **state)
{
    (void)state;
    for (uint32_t rank = 0; rank < WORLD; rank++)
        ended(rank, rank == 1 ? 6 : 9, rank == 1 ? 500 : 510 + rank, rank != 1);
    recover();
    assert_int_equal(region.outcome, ORR_OUTCOME_FAILED);
    assert_int_equal(region.culprit, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STOP(ranks_that_were_told_to_end_are_not_the_programs_fault),
        STOP(end_after_one_that_was_told_is_its_consequence),
        STOP(job_that_was_told_to_end_is_not_done),
        STOP(rank_that_failed_before_the_others_were_told_is_the_culprit),
        cmocka_unit_test(silent_node_undoes_the_stop_in_each_phase),
        cmocka_unit_test(refusing_node_undoes_the_stop_in_each_phase),
        cmocka_unit_test(answers_of_an_older_cut_change_nothing),
        cmocka_unit_test(node_lost_in_the_middle_is_judged_first),
        cmocka_unit_test(rank_that_dies_in_the_middle_is_judged_first),
        cmocka_unit_test(later_order_replaces_an_earlier_one),
        STOP(resume_that_fails_is_tried_again_until_its_time_is_over),
        STOP(resume_that_takes_long_is_given_more_time),
        STOP(save_that_fails_for_an_older_order_does_not_fail_the_resume),
        cmocka_unit_test(recovered_job_resumes_what_was_half_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
