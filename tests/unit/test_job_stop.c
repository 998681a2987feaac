/* SPDX-License-Identifier: Apache-2.0
 * test_job_stop.c - the job actor's stop plan against two nodes, a cluster and a region that do as they should: orders,
 * recovery, restore.
 */
#include "job_stop_bed.h"

#include "orr_test.h"

static void suspended_job_frees_its_devices_and_goes_on_with_others(void **state)
{
    (void)state;
    start_running();
    order(1, ORR_ORDER_SUSPEND);
    run_for(1000);
    assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
    assert_int_equal(cluster.n_freed, 1);
    assert_true(steps(ORR_CUT_RELEASE));
    assert_false(steps(ORR_CUT_SAVE));
    order(1, ORR_ORDER_SUSPEND); /* repeated: nothing */
    run_for(60000);
    assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
    order(2, ORR_ORDER_RUN);
    run_for(1000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_true(region.has_restored_places);
    assert_int_equal(cluster.n_want, 1);
    assert_int_equal(region.n_failed, 0);
    order(3, ORR_ORDER_SUSPEND); /* again, with a later cut */
    run_for(1000);
    assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
}

static void resume_without_devices_stays_suspended_and_says_so(void **state)
{
    (void)state;
    start_running();
    order(1, ORR_ORDER_SUSPEND);
    run_for(1000);
    cluster.has_no_devices = true;
    order(2, ORR_ORDER_RUN);
    run_for(1000);
    assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
    assert_int_equal(region.failed_code, ORR_ENODEV);
    assert_int_equal(region.failed_number, 2);
    cluster.has_no_devices = false;
    order(3, ORR_ORDER_RUN);
    run_for(1000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
}

static void checkpoint_is_committed_while_the_job_runs(void **state)
{
    (void)state;
    start_running();
    nodes[1].has_no_parts = true;
    order(1, ORR_ORDER_CHECKPOINT);
    run_for(2000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_true(steps(ORR_CUT_RESUME));
    assert_int_equal(region.n_commits, 0);
    nodes[1].has_no_parts = false;
    run_for(3000);
    assert_int_equal(region.n_commits, 1);
    assert_int_equal(region.commit_order, 1);
    assert_int_equal(region.commit_parts, WORLD);
    assert_false(was_in(ORR_JOB_STOPPING));
}

static void store_that_never_ends_fails_the_order_and_not_the_job(void **state)
{
    (void)state;
    start_running();
    nodes[0].has_no_parts = true;
    order(1, ORR_ORDER_CHECKPOINT);
    run_for(100000);
    assert_int_equal(region.n_commits, 0);
    assert_int_equal(region.n_failed, 1);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
}

static void vacated_job_ends_moved_after_its_commit(void **state)
{
    (void)state;
    start_running();
    order(1, ORR_ORDER_VACATE);
    run_for(3000);
    assert_int_equal(region.n_commits, 1);
    assert_int_equal(region.n_ended, 1);
    assert_int_equal(region.outcome, ORR_OUTCOME_MOVED);
    assert_int_equal(nodes[0].n_steps[ORR_CUT_RESUME], 0);
}

static void refused_commit_undoes_the_move(void **state)
{
    (void)state;
    start_running();
    cluster.refuses_commit = true;
    order(1, ORR_ORDER_VACATE);
    run_for(3000);
    assert_int_equal(region.n_ended, 0);
    assert_int_equal(region.n_failed, 1);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
}

static void suspended_job_can_be_vacated(void **state)
{
    (void)state;
    start_running();
    order(1, ORR_ORDER_SUSPEND);
    run_for(1000);
    order(2, ORR_ORDER_VACATE);
    run_for(3000);
    assert_int_equal(region.outcome, ORR_OUTCOME_MOVED);
    assert_int_equal(region.n_commits, 1);
    assert_int_equal(cluster.n_want, 0);
}

static void suspended_job_can_be_saved_and_stays_suspended(void **state)
{
    (void)state;
    start_running();
    order(1, ORR_ORDER_SUSPEND);
    run_for(1000);
    order(2, ORR_ORDER_CHECKPOINT);
    run_for(3000);
    assert_int_equal(region.n_commits, 1);
    assert_int_equal(region.commit_paused_ms, 0);
    assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
    order(3, ORR_ORDER_RUN);
    run_for(1000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
}

static void recovered_suspended_job_stays_suspended(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < NODES; n++) {
        for (uint32_t r = 0; r < WORLD; r++)
            nodes[n].state[r] = ORR_RANK_RUNNING;
        nodes[n].found_cut = n == 0 ? 77 : 0; /* one has forgotten */
        nodes[n].found_step = n == 0 ? ORR_CUT_RELEASE : ORR_CUT_NONE;
    }
    start(&(struct orr_msg_job_start){.is_recovery = true, .is_suspended = true});
    run_for(2000);
    assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
    assert_int_equal(cluster.n_freed, 1);
    assert_int_equal(nodes[0].n_steps[ORR_CUT_RESUME], 0);
    order(5, ORR_ORDER_RUN);
    run_for(2000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
}

static void restored_job_resumes_with_a_later_cut(void **state)
{
    (void)state;
    struct orr_rec_part parts[WORLD];
    uint8_t body[4096];
    size_t len = 0;
    for (uint32_t i = 0; i < WORLD; i++)
        parts[i] = (struct orr_rec_part){.rank = i, .hash = ORR_LIT("p")};
    const struct orr_msg_manifest manifest = {
        .row = {.cut = 5, .level = ORR_LEVEL_IMAGE},
        .world = WORLD,
        .master_addr = ORR_LIT("10.0.0.1"),
        .master_port = 1,
        .parts = {parts, WORLD}};
    assert_int_equal(
        orr_msg_encode(orr_msg_desc_manifest(), &manifest, body, sizeof(body), &len),
        ORR_OK);
    nodes[0].silent_at = ORR_CUT_RESUME;
    start(&(struct orr_msg_job_start){.manifest = {body, (uint32_t)len}});
    assert_int_equal(region.phase, ORR_JOB_RESTORING);
    nodes[0].silent_at = 0;
    run_for(5000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_int_equal(nodes[0].n_steps[ORR_CUT_BEGIN], 0);
}

static void job_that_cannot_be_stopped_refuses(void **state)
{
    (void)state;
    start_running();
    struct orr_msg_rank_update msg = {.node = ORR_LIT("n0"), .rank = row_of(0)};
    msg.rank.level = ORR_LEVEL_NONE;
    msg.rank.why_level = ORR_LIT("uses cuMemAllocManaged");
    post(orr_msg_desc_rank_update(), &msg);
    run_for(500);
    assert_int_equal(region.level, ORR_LEVEL_NONE);
    order(1, ORR_ORDER_SUSPEND);
    run_for(1000);
    assert_int_equal(nodes[0].n_steps[ORR_CUT_BEGIN], 0);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STOP(suspended_job_frees_its_devices_and_goes_on_with_others),
        STOP(resume_without_devices_stays_suspended_and_says_so),
        STOP(checkpoint_is_committed_while_the_job_runs),
        STOP(store_that_never_ends_fails_the_order_and_not_the_job),
        STOP(vacated_job_ends_moved_after_its_commit),
        STOP(refused_commit_undoes_the_move),
        STOP(suspended_job_can_be_vacated),
        STOP(suspended_job_can_be_saved_and_stays_suspended),
        STOP(recovered_suspended_job_stays_suspended),
        STOP(restored_job_resumes_with_a_later_cut),
        STOP(job_that_cannot_be_stopped_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
