/* SPDX-License-Identifier: Apache-2.0
 * test_job_hang.c - ranks that wait for one that does not come: who is named, when the job has failed, what is no hang.
 */
#include "job_stop_bed.h"

#include "orr_test.h"

static uint32_t pause_told; /* enum orr_pause, of all ranks */

static void tell_idle(uint32_t node, uint64_t issued, uint64_t idle_ms)
{
    const struct orr_rec_rank_pause pauses[2] = {
        {.rank = node * 2, .pause = pause_told, .call = ORR_LIT("cuStreamSynchronize")},
        {.rank = node * 2 + 1,
         .pause = pause_told,
         .call = ORR_LIT("cuStreamSynchronize")}};
    const struct orr_rec_clock clocks[2] = {
        {.rank = node * 2,
         .comm = 77,
         .me = node * 2,
         .n = WORLD,
         .issued = issued,
         .op = node ? ORR_CLOCK_OP_BROADCAST : ORR_CLOCK_OP_ALL_REDUCE,
         .idle_ms = idle_ms},
        {.rank = node * 2 + 1,
         .comm = 77,
         .me = node * 2 + 1,
         .n = WORLD,
         .issued = 42,
         .op = ORR_CLOCK_OP_ALL_REDUCE,
         .idle_ms = idle_ms}};
    const struct orr_msg_rank_idle msg = {.job = ORR_LIT("eu1-1"),
                                          .generation = GENERATION,
                                          .node = orr_str(node_name(node)),
                                          .clocks = {clocks, 2},
                                          .pauses = {pauses, 2}};
    post(orr_msg_desc_rank_idle(), &msg);
    run_for(100);
}

static void hang_names_rank_communicator_count_and_call(void **state)
{
    (void)state;
    start_running();
    tell_idle(0, 42, 20000);
    tell_idle(1, 41, 20000);
    assert_string_equal(region.reason, "");
    run_for(31000);
    tell_idle(0, 42, 31000);
    tell_idle(1, 41, 31000);
    assert_non_null(
        strstr(region.reason, "hangs: rank 2 has issued 41 of 42 collectives"));
    assert_non_null(strstr(region.reason,
                           "000000000000004d (4 ranks): peers wait in ncclAllReduce"));
    assert_non_null(strstr(region.reason, "ncclBroadcast"));
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    tell_idle(1, 42, 31000); /* it came */
    assert_string_equal(region.reason, "");
}

static void ranks_that_all_compute_do_not_hang(void **state)
{
    (void)state;
    start_running();
    run_for(31000);
    tell_idle(0, 42, 300000);
    tell_idle(1, 42, 300000);
    assert_string_equal(region.reason, "");
    run_for(30000); /* what node 0 said is old by then */
    tell_idle(1, 41, 300000);
    assert_non_null(strstr(region.reason, "rank 2")); /* rank 3 waits for it */
    tell_idle(0, 43, 5000); /* but now somebody has just come: no hang yet */
    assert_string_equal(region.reason, "");
}

/* The program's fault; what becomes of its ranks when they are stopped does not take the blame. */
static void hang_of_that_length_fails_the_job(void **state)
{
    (void)state;
    start_running();
    run_for(45000);
    tell_idle(0, 42, 45000);
    tell_idle(1, 41, 45000);
    assert_non_null(strstr(region.reason, "hangs: rank 2"));
    assert_int_equal(region.n_ended, 0);
    run_for(16000);
    tell_idle(0, 42, 61000);
    tell_idle(1, 41, 61000);
    run_for(30000);
    assert_int_equal(region.n_ended, 1);
    assert_int_equal(region.outcome, ORR_OUTCOME_FAILED);
    assert_int_equal(region.culprit, 2);
    assert_non_null(strstr(region.reason, "hung (time.hang): rank 2 has issued 41"));
}

/* An operation that does not end looks like this, and so does a long evaluation without one. */
static void ranks_in_calls_of_their_own_are_told_of_and_never_end_the_job(void **state)
{
    (void)state;
    start_running();
    run_for(61000);
    pause_told = ORR_PAUSE_CALL;
    tell_idle(0, 42, 61000);
    tell_idle(1, 42, 61000);
    pause_told = ORR_PAUSE_NONE;
    assert_non_null(strstr(region.reason, "all wait in cuStreamSynchronize"));
    run_for(30000);
    assert_int_equal(region.n_ended, 0);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
}

static void time_in_which_a_job_was_suspended_is_no_hang(void **state)
{
    (void)state;
    start_running();
    order(1, ORR_ORDER_SUSPEND);
    run_for(100000);
    order(2, ORR_ORDER_RUN);
    run_for(2000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    tell_idle(0, 42, 102000);
    tell_idle(1, 41, 102000);
    assert_string_equal(region.reason, "");
    assert_int_equal(region.n_ended, 0);
    run_for(61000);
    tell_idle(0, 42, 163000);
    tell_idle(1, 41, 163000);
    run_for(30000);
    assert_int_equal(region.n_ended, 1);
}

static int setup_hang(void **state)
{
    hang_ms = 60000;
    int rc = setup(state);
    hang_ms = 0;
    return rc;
}

#define HANG(f) cmocka_unit_test_setup_teardown(f, setup_hang, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        STOP(hang_names_rank_communicator_count_and_call),
        STOP(ranks_that_all_compute_do_not_hang),
        HANG(hang_of_that_length_fails_the_job),
        HANG(ranks_in_calls_of_their_own_are_told_of_and_never_end_the_job),
        HANG(time_in_which_a_job_was_suspended_is_no_hang),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
