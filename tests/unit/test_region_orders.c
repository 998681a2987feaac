/* SPDX-License-Identifier: Apache-2.0
 * test_region_orders.c - orders, checkpoints and drains in a region that fails over in between (region_puppet.h).
 */
#include "region_puppet.h"

#include "orr_test.h"

static void start_running(void)
{
    assert_int_equal(seen.n_assigns, 1);
    assert_int_equal(seen.manifest, 0);
    update(ORR_JOB_LAUNCHING);
    update(ORR_JOB_RUNNING);
}

/* ---- suspend and resume ---- */

static void suspend_lasts_over_failovers_and_frees_the_devices(void **state)
{
    (void)state;
    start_running();
    assert_int_equal(POST(job_suspend, .job = ORR_LIT("eu1-1")), ORR_MSG_ack);
    assert_int_equal(seen.order.order, ORR_ORDER_SUSPEND);
    assert_int_equal(seen.n_orders, 1);
    fail_over(1);
    assert_int_equal(seen.n_orders, 2); /* the new leader repeats it */
    assert_int_equal(seen.order.number, 1);
    update(ORR_JOB_SUSPENDED);
    assert_int_equal(show()->order_state, ORR_ORDER_IS_DONE);
    assert_int_equal(answer.detail->row.phase, ORR_JOB_SUSPENDED);
    assert_int_equal(answer.detail->row.gpus, 0);
    fail_over(0); /* the cluster has restarted, too */
    assert_true(seen.is_recovery);
    assert_true(seen.is_suspended);
    assert_int_equal(seen.n_orders, 2);
    assert_int_equal(POST(job_resume, .job = ORR_LIT("eu1-1")), ORR_MSG_ack);
    assert_int_equal(seen.order.order, ORR_ORDER_RUN);
    update(ORR_JOB_RESTORING);
    update(ORR_JOB_RUNNING);
    assert_int_equal(show()->order_state, ORR_ORDER_IS_DONE);
    assert_int_equal(answer.detail->row.gpus, PUPPET_WORLD);
    tables_match();
}

static void suspend_that_fails_leaves_the_job_running(void **state)
{
    (void)state;
    start_running();
    POST(job_suspend, .job = ORR_LIT("eu1-1"));
    POST(order_failed,
         .job = ORR_LIT("eu1-1"),
         .generation = 1,
         .number = 1,
         .code = ORR_ETIMEOUT,
         .text = ORR_LIT("barrier: rank 1 never came"));
    assert_int_equal(show()->order_state, ORR_ORDER_IS_FAILED);
    assert_string_equal(answer.detail->order_text.ptr, "barrier: rank 1 never came");
    assert_string_equal(answer.detail->row.reason.ptr,
                        "suspend: barrier: rank 1 never came");
    update(ORR_JOB_RUNNING);
    wait_for(5000);
    assert_int_equal(seen.n_orders, 1); /* its user has to ask again */
    seen.refuse_order = ORR_ENOSYS;
    POST(job_suspend, .job = ORR_LIT("eu1-1"));
    assert_int_equal(show()->order_state, ORR_ORDER_IS_FAILED);
    tables_match();
}

static void resume_without_devices_is_tried_again(void **state)
{
    (void)state;
    start_running();
    POST(job_suspend, .job = ORR_LIT("eu1-1"));
    update(ORR_JOB_SUSPENDED);
    POST(job_resume, .job = ORR_LIT("eu1-1"));
    for (unsigned i = 0; i < 3; i++) {
        uint64_t number = seen.order.number;
        POST(order_failed,
             .job = ORR_LIT("eu1-1"),
             .generation = 1,
             .number = number,
             .code = ORR_ENODEV,
             .text = ORR_LIT("n1 has none"));
        if (i == 1)
            fail_over(1);
        wait_for(8000);
        assert_true(seen.order.number > number);
        assert_int_equal(seen.order.order, ORR_ORDER_RUN);
    }
    update(ORR_JOB_RUNNING);
    assert_int_equal(show()->order_state, ORR_ORDER_IS_DONE);
    tables_match();
}

static void phase_that_is_not_what_its_user_wants_is_put_right(void **state)
{
    (void)state;
    start_running();
    POST(job_suspend, .job = ORR_LIT("eu1-1"));
    POST(job_resume, .job = ORR_LIT("eu1-1"));
    update(ORR_JOB_SUSPENDED); /* the resume came too early to stop it */
    assert_int_equal(seen.order.order, ORR_ORDER_RUN);
    assert_int_equal(seen.order.number, 3);
}

static void job_that_waits_is_held_back_and_let_go(void **state)
{
    (void)state;
    update(ORR_JOB_LAUNCHING);
    end(ORR_OUTCOME_LOST, false);
    assert_int_equal(seen.n_assigns, 2);
    assert_int_equal(POST(job_suspend, .job = ORR_LIT("eu1-1")), ORR_MSG_ack);
    assert_int_equal(show()->row.phase, ORR_JOB_SUSPENDED);
    assert_int_equal(POST(job_update,
                          .job = ORR_LIT("eu1-1"),
                          .generation = 2,
                          .phase = ORR_JOB_LAUNCHING,
                          .step = 1),
                     ORR_MSG_failed); /* no permit any more */
    assert_int_equal(answer.code, ORR_ESTALE);
    fail_over(0);
    wait_for(3000);
    assert_int_equal(seen.n_assigns, 2);
    POST(job_resume, .job = ORR_LIT("eu1-1"));
    wait_for(500);
    assert_int_equal(seen.n_assigns, 3);
    assert_int_equal(seen.generation, 3);
}

static void suspended_job_can_be_cancelled(void **state)
{
    (void)state;
    start_running();
    POST(job_suspend, .job = ORR_LIT("eu1-1"));
    update(ORR_JOB_SUSPENDED);
    POST(job_cancel, .job = ORR_LIT("eu1-1"));
    assert_int_equal(seen.n_stops, 1);
    end(ORR_OUTCOME_CANCELLED, false);
    assert_int_equal(show()->row.phase, ORR_JOB_CANCELLED);
    tables_match();
}

/* ---- checkpoints ---- */

static void checkpoint_counts_once_and_the_oldest_go(void **state)
{
    (void)state;
    start_running();
    assert_int_equal(POST(job_checkpoint, .job = ORR_LIT("eu1-1")), 0); /* waits */
    assert_int_equal(seen.order.checkpoint, 1);
    assert_int_equal(commit(1, 1, 1, ""), ORR_MSG_failed); /* a rank has no part */
    assert_int_equal(answer.code, ORR_EINVAL);
    commit(1, 1, 1, "bb");
    assert_int_equal(show()->checkpoints.n, 1);
    assert_int_equal(answer.number, 1);                   /* whoever waited was told */
    assert_int_equal(commit(1, 1, 1, "bb"), ORR_MSG_ack); /* a repeat */
    assert_int_equal(commit(0, 0, 2, "bb"), ORR_MSG_ack); /* periodic */
    assert_int_equal(commit(0, 0, 2, "bb"), ORR_MSG_ack);
    assert_int_equal(commit(0, 0, 3, "bb"), ORR_MSG_ack);
    fail_over(1);
    assert_int_equal(commit(0, 0, 3, "bb"), ORR_MSG_ack);
    POST(checkpoint_list, .job = ORR_LIT("eu1-1"));
    assert_int_equal(answer.n_rows, 2); /* keep: 2 */
    assert_int_equal(answer.number, 2);
    assert_int_equal(POST(checkpoint_remove, .job = ORR_LIT("eu1-1"), .number = 2),
                     ORR_MSG_ack);
    assert_int_equal(POST(checkpoint_remove, .job = ORR_LIT("eu1-1"), .number = 2),
                     ORR_MSG_failed);
    assert_int_equal(commit(0, 0, 4, "bb"), ORR_MSG_ack);
    assert_int_equal(show()->checkpoints.at[1].number, 4); /* never given twice */
    tables_match();
    end(ORR_OUTCOME_DONE, false);
    assert_int_equal(show()->checkpoints.n, 0);
    tables_match();
}

static void checkpoint_that_fails_answers_whoever_waits(void **state)
{
    (void)state;
    start_running();
    POST(job_checkpoint, .job = ORR_LIT("eu1-1"));
    end(ORR_OUTCOME_LOST, false);
    assert_int_equal(show()->order_state, ORR_ORDER_IS_FAILED);
    assert_int_equal(answer.code, ORR_ESTATE);
}

static void lost_job_goes_on_from_its_newest_checkpoint(void **state)
{
    (void)state;
    start_running();
    commit(0, 0, 1, "bb");
    commit(0, 0, 2, "bb");
    end(ORR_OUTCOME_LOST, false);
    assert_int_equal(seen.generation, 2);
    assert_int_equal(seen.manifest, 2);
    update(ORR_JOB_LAUNCHING);
    fail_over(0); /* all control hosts gone in the middle of the restore */
    assert_true(seen.is_recovery);
    assert_int_equal(seen.manifest, 2);
    assert_int_equal(POST(checkpoint_remove, .job = ORR_LIT("eu1-1"), .number = 2),
                     ORR_MSG_failed);
    assert_int_equal(answer.code, ORR_ESTATE); /* it is needed now */
    end(ORR_OUTCOME_LOST, true);
    assert_int_equal(seen.generation, 3);
    assert_int_equal(seen.manifest, 1);
    update(ORR_JOB_LAUNCHING);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(seen.manifest, 1);
        end(ORR_OUTCOME_LOST, false); /* lost for whatever reason, again and again */
    }
    assert_int_equal(seen.manifest, 0);
    assert_non_null(
        strstr(show()->row.reason.len ? answer.detail->row.reason.ptr : "", ""));
    update(ORR_JOB_LAUNCHING);
    update(ORR_JOB_RUNNING);
    commit(0, 0, 1, "bb"); /* a new one counts again */
    end(ORR_OUTCOME_LOST, false);
    assert_int_equal(seen.manifest, 3);
    tables_match();
}

/* ---- migration ---- */

static void migration_uses_no_retry_and_goes_where_it_was_sent(void **state)
{
    (void)state;
    start_running();
    assert_int_equal(POST(job_migrate, .job = ORR_LIT("eu1-1"), .node = ORR_LIT("n2")),
                     ORR_MSG_ack);
    assert_int_equal(seen.order.order, ORR_ORDER_VACATE);
    assert_int_equal(commit(1, seen.order.checkpoint, 1, "bb"), ORR_MSG_ack);
    fail_over(1);
    end(ORR_OUTCOME_MOVED, false);
    assert_int_equal(seen.generation, 2);
    assert_int_equal(seen.manifest, 1);
    assert_string_equal(seen.want_node, "n2");
    assert_int_equal(show()->restarts, 0);
    assert_int_equal(answer.detail->order_state, ORR_ORDER_IS_QUEUED);
    fail_over(0);
    assert_string_equal(show()->to_node.ptr, "n2");
    update(ORR_JOB_LAUNCHING);
    update(ORR_JOB_RESTORING);
    update(ORR_JOB_RUNNING);
    assert_int_equal(show()->order_state, ORR_ORDER_IS_DONE);
    assert_string_equal(answer.detail->to_node.ptr, "");
    tables_match();
}

static void migration_whose_node_dies_after_the_commit_has_moved(void **state)
{
    (void)state;
    start_running();
    POST(job_migrate, .job = ORR_LIT("eu1-1"), .cluster = ORR_LIT("c1"));
    commit(1, seen.order.checkpoint, 1, "bb");
    end(ORR_OUTCOME_LOST, false);
    assert_int_equal(seen.manifest, 1);
    assert_int_equal(show()->restarts, 0);
}

static void migration_without_room_or_target_is_refused(void **state)
{
    (void)state;
    start_running();
    gpus_free = 1;
    summary();
    assert_int_equal(POST(job_migrate, .job = ORR_LIT("eu1-1"), .node = ORR_LIT("n2")),
                     ORR_MSG_failed);
    assert_int_equal(answer.code, ORR_ENODEV);
    assert_int_equal(POST(job_migrate, .job = ORR_LIT("eu1-1"), .node = ORR_LIT("n9")),
                     ORR_MSG_failed);
    assert_int_equal(answer.code, ORR_ENOENT);
    assert_int_equal(
        POST(job_migrate, .job = ORR_LIT("eu1-1"), .region = ORR_LIT("us9")),
        ORR_MSG_failed);
    assert_int_equal(answer.code, ORR_ENOENT);
    assert_int_equal(seen.n_orders, 0);
    assert_int_equal(show()->order, 0);
}

/* ---- drain ---- */

static void drain_is_told_until_it_is_known_and_moves_jobs(void **state)
{
    (void)state;
    start_running();
    drain("n1", true);
    assert_int_equal(seen.n_drains, 1);
    assert_true(seen.is_draining);
    fail_over(1);
    assert_int_equal(seen.n_drains, 2); /* the cluster still says `up` */
    node_state = ORR_NODE_DRAINING;
    gpus_free = 1;
    wait_for(2000);
    assert_int_equal(seen.n_drains, 2);
    assert_int_equal(seen.n_orders, 0); /* no room: it stays, and says so */
    assert_string_equal(show()->row.reason.ptr,
                        "node n1 drains, and it cannot move: it needs 2 free devices, "
                        "and there is no room now");
    gpus_free = 4;
    wait_for(61000);
    assert_int_equal(seen.order.order, ORR_ORDER_VACATE);
    commit(seen.order.number, seen.order.checkpoint, 1, "bb");
    end(ORR_OUTCOME_MOVED, false);
    assert_int_equal(seen.generation, 2);
    drain("n1", false);
    assert_false(seen.is_draining);
    tables_match();
}

/* The whole list, from who can still commit, and later ones are told by (term, round). */
static void stores_are_told_what_is_needed_by_a_leader_that_leads(void **state)
{
    (void)state;
    start_running();
    commit(0, 0, 1, "bb"); /* no name of a part: the list would lack it */
    unsigned n = seen.n_collects;
    wait_for(10000);
    assert_int_equal(seen.n_collects, n);
    commit(0, 0, 2, PUPPET_HASH);
    commit(0, 0, 3, PUPPET_HASH); /* keep: 2 */
    wait_for(5000);
    assert_true(seen.n_collects > n);
    assert_int_equal(seen.n_roots, 2 * PUPPET_WORLD);
    POST(checkpoint_remove, .job = ORR_LIT("eu1-1"), .number = 2);
    n = seen.n_collects;
    wait_for(1000); /* soon, not only when its time has come */
    assert_true(seen.n_collects > n);
    assert_int_equal(seen.n_roots, PUPPET_WORLD);
    uint64_t term = seen.term, round = seen.round;
    wait_for(5000);
    assert_true(seen.term == term && seen.round > round);
    puppet_commits(false);
    n = seen.n_collects;
    wait_for(8000);
    assert_int_equal(seen.n_collects, n);
    puppet_commits(true);
    fail_over(1);
    wait_for(5000);
    assert_true(seen.n_collects > n);
    assert_true(seen.term > term);
    assert_int_equal(seen.n_roots, PUPPET_WORLD);
}

/* The answer to the commit was lost, the job ran on, and failed. */
static void failure_of_a_job_that_was_to_move_is_no_move(void **state)
{
    (void)state;
    start_running();
    POST(job_migrate, .job = ORR_LIT("eu1-1"), .node = ORR_LIT("n2"));
    assert_int_equal(commit(seen.order.number, seen.order.checkpoint, 1, PUPPET_HASH),
                     ORR_MSG_ack);
    end(ORR_OUTCOME_FAILED, false);
    assert_int_equal(show()->row.phase, ORR_JOB_FAILED);
    assert_int_equal(answer.detail->order_state, ORR_ORDER_IS_FAILED);
    assert_int_equal(seen.n_assigns, 1);
    tables_match();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, puppet_setup, puppet_teardown)
        T(suspend_lasts_over_failovers_and_frees_the_devices),
        T(suspend_that_fails_leaves_the_job_running),
        T(resume_without_devices_is_tried_again),
        T(phase_that_is_not_what_its_user_wants_is_put_right),
        T(job_that_waits_is_held_back_and_let_go),
        T(suspended_job_can_be_cancelled),
        T(checkpoint_counts_once_and_the_oldest_go),
        T(checkpoint_that_fails_answers_whoever_waits),
        T(lost_job_goes_on_from_its_newest_checkpoint),
        T(migration_uses_no_retry_and_goes_where_it_was_sent),
        T(migration_whose_node_dies_after_the_commit_has_moved),
        T(failure_of_a_job_that_was_to_move_is_no_move),
        T(migration_without_room_or_target_is_refused),
        T(drain_is_told_until_it_is_known_and_moves_jobs),
        T(stores_are_told_what_is_needed_by_a_leader_that_leads),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
