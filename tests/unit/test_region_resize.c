/* SPDX-License-Identifier: Apache-2.0
 * test_region_resize.c - a region that a job is to be resized in: refusals, repeats, failovers (region_puppet.h).  The job has two
 * ranks, and runs on one device or two.
 */
#include "region_puppet.h"

#include "orr_test.h"

static int elastic_setup(void **state)
{
    least_gpus = 1;
    return puppet_setup(state);
}

static void start_running(void)
{
    assert_int_equal(seen.n_assigns, 1);
    assert_int_equal(seen.devices, 0);
    update(ORR_JOB_LAUNCHING);
    update(ORR_JOB_RUNNING);
    assert_int_equal(show()->row.gpus, 2);
}

static uint16_t resize(uint32_t devices)
{
    return POST(job_resize, .job = ORR_LIT("eu1-1"), .devices = devices);
}

static void refused(uint32_t devices, uint32_t code, const char *word)
{
    assert_int_equal(resize(devices), ORR_MSG_failed);
    assert_int_equal(answer.code, code);
    if (!strstr(answer.text, word))
        fail_msg("%s: does not say %s", answer.text, word);
}

static void resized_job_is_told_of_its_devices_once_it_runs(void **state)
{
    (void)state;
    start_running();
    assert_int_equal(resize(2), ORR_MSG_ack); /* it has them */
    assert_int_equal(seen.n_orders, 0);
    assert_int_equal(resize(1), ORR_MSG_ack);
    assert_int_equal(seen.order.order, ORR_ORDER_RESIZE);
    assert_int_equal(seen.order.devices, 1);
    assert_true(seen.order.may_move);
    assert_int_equal(resize(1), ORR_MSG_ack); /* the same: under way */
    assert_int_equal(seen.n_orders, 1);
    update(ORR_JOB_STOPPING);
    wait_for(500); /* its cluster is heard of */
    update_on(ORR_JOB_RESTORING, 1);
    assert_int_equal(show()->order_state, ORR_ORDER_IS_TAKEN);
    assert_int_equal(answer.detail->order_devices, 1);
    update(ORR_JOB_RUNNING);
    assert_int_equal(show()->order_state, ORR_ORDER_IS_DONE);
    assert_int_equal(answer.detail->row.gpus, 1);
    assert_int_equal(answer.detail->ranks.at[1].device, 0);
    tables_match();
    fail_over(1);
    assert_int_equal(show()->row.gpus, 1);
}

static void order_lasts_over_failovers(void **state)
{
    (void)state;
    start_running();
    resize(1);
    fail_over(1);
    assert_int_equal(seen.n_orders, 2); /* the new leader repeats it */
    assert_int_equal(seen.order.devices, 1);
    assert_int_equal(seen.order.number, 1);
    assert_true(seen.order.may_move);
    update_on(ORR_JOB_RESTORING, 1);
    fail_over(0); /* the cluster has restarted, too */
    assert_true(seen.is_recovery);
    assert_int_equal(seen.n_orders, 3);
    update(ORR_JOB_RUNNING); /* an actor that finds it done */
    assert_int_equal(show()->order_state, ORR_ORDER_IS_DONE);
    tables_match();
}

static void resize_that_fails_leaves_the_job_as_it_was(void **state)
{
    (void)state;
    start_running();
    resize(1);
    update(ORR_JOB_STOPPING);
    POST(order_failed,
         .job = ORR_LIT("eu1-1"),
         .generation = 1,
         .number = 1,
         .code = ORR_EIO,
         .text = ORR_LIT("release: too little memory"));
    update(ORR_JOB_RUNNING);
    assert_int_equal(show()->order_state, ORR_ORDER_IS_FAILED);
    assert_string_equal(answer.detail->order_text.ptr, "release: too little memory");
    assert_int_equal(answer.detail->row.gpus, 2);
    wait_for(5000);
    assert_int_equal(seen.n_orders, 1); /* its user has to ask again */
    resize(1);
    assert_int_equal(seen.order.number, 2);
    tables_match();
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    assert_int_equal(POST(job_resize, .job = ORR_LIT("eu1-9"), .devices = 1),
                     ORR_MSG_failed);
    assert_int_equal(answer.code, ORR_ENOENT);
    refused(1, ORR_ESTATE, "placing");
    start_running();
    refused(0, ORR_EINVAL, "gpus");
    refused(3, ORR_EINVAL, "1..2");
    POST(job_checkpoint, .job = ORR_LIT("eu1-1"));
    refused(1, ORR_ESTATE, "checkpoint is under way");
    commit(1, 1, 5, PUPPET_HASH);
    POST(job_suspend, .job = ORR_LIT("eu1-1"));
    refused(1, ORR_ESTATE, "suspend");
    update(ORR_JOB_SUSPENDED);
    refused(1, ORR_ESTATE, "suspended");
    POST(job_resume, .job = ORR_LIT("eu1-1"));
    update(ORR_JOB_RUNNING);
    POST(job_cancel, .job = ORR_LIT("eu1-1"));
    refused(1, ORR_ESTATE, "cancelled");
    end(ORR_OUTCOME_CANCELLED, false);
    refused(1, ORR_ESTATE, "ended");
}

static uint16_t own(uint32_t devices, uint32_t to, const char *waiting)
{
    const struct orr_rec_job_size size = {
        .job = ORR_LIT("eu1-1"), .generation = 1, .devices = devices, .to = to};
    return POST(jobs_resize,
                .cluster = ORR_LIT("c1"),
                .sizes = {&size, 1},
                .waiting = orr_str(waiting),
                .devices = *waiting ? 1 : 0,
                .why = ORR_LIT("because"));
}

static void
own_refused(uint32_t devices, uint32_t to, const char *waiting, uint32_t code)
{
    assert_int_equal(own(devices, to, waiting), ORR_MSG_failed);
    assert_int_equal(answer.code, code);
}

/* What its cluster plans is looked at again, and any order of its user replaces it and stays. */
static void own_resize_gives_way_to_the_users(void **state)
{
    (void)state;
    start_running();
    own_refused(2, 1, "", ORR_ESTALE); /* for nobody */
    own_refused(2, 1, "eu1-2", ORR_ESTALE);
    gpus_free = 0;
    summary();
    POST(job_submit,
         .key = ORR_LIT("second"),
         .owner = ORR_LIT("u"),
         .spec = puppet_spec());
    wait_for(500);
    assert_int_equal(seen.n_waiting, 1);
    own_refused(1, 2, "", ORR_ESTALE); /* while somebody waits */
    own_refused(1, 2, "eu1-2", ORR_ESTALE);
    assert_int_equal(own(2, 1, "eu1-2"), ORR_MSG_ack);
    assert_int_equal(seen.n_orders, 1);
    assert_int_equal(seen.order.devices, 1);
    assert_false(seen.order.may_move);
    assert_string_equal(show()->order_text.ptr, "to 1 device: because");
    own_refused(2, 1, "eu1-2", ORR_EBUSY);
    fail_over(1);
    assert_int_equal(resize(1), ORR_MSG_ack); /* the new leader knows whose it is */
    assert_int_equal(seen.order.number, 2);
    update_on(ORR_JOB_RESTORING, 1);
    update(ORR_JOB_RUNNING);
    assert_int_equal(show()->order_state, ORR_ORDER_IS_DONE);
    assert_int_equal(answer.detail->asked_devices, 1);
    POST(job_cancel, .job = ORR_LIT("eu1-2"));
    wait_for(500);
    assert_int_equal(seen.n_waiting, 0);
    own_refused(1, 2, "", ORR_EPERM);
    tables_match();
    fail_over(1);
    assert_int_equal(show()->asked_devices, 1);
    own_refused(1, 2, "", ORR_EPERM);
}

static void job_that_cannot_be_saved_does_not_move(void **state)
{
    (void)state;
    job_level = ORR_LEVEL_INPLACE;
    start_running();
    resize(1);
    assert_false(seen.order.may_move);
    assert_int_equal(seen.order.checkpoint, 0);
}

static void without_room_for_it_elsewhere_it_does_not_move(void **state)
{
    (void)state;
    start_running();
    update_on(ORR_JOB_RESTORING, 1);
    update(ORR_JOB_RUNNING);
    gpus_free = 0;
    wait_for(1000);
    resize(2);
    assert_false(seen.order.may_move);
    assert_int_equal(seen.order.devices, 2);
}

static void moved_job_starts_with_that_number(void **state)
{
    (void)state;
    start_running();
    resize(1);
    assert_int_equal(commit(1, seen.order.checkpoint, 5, PUPPET_HASH), ORR_MSG_ack);
    end(ORR_OUTCOME_MOVED, false);
    wait_for(500);
    assert_int_equal(seen.n_assigns, 2);
    assert_int_equal(seen.devices, 1);
    assert_int_equal(seen.manifest, 1);
    fail_over(2);
    update_on(ORR_JOB_LAUNCHING, 1);
    update(ORR_JOB_RESTORING);
    update(ORR_JOB_RUNNING);
    assert_int_equal(show()->order_state, ORR_ORDER_IS_DONE);
    assert_int_equal(answer.detail->row.gpus, 1);
    tables_match();
    unsigned before = seen.n_assigns;
    end(ORR_OUTCOME_LOST, false); /* later it is placed as its spec says */
    wait_for(2000);
    assert_true(seen.n_assigns > before);
    assert_int_equal(seen.devices, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, elastic_setup, puppet_teardown)
        T(resized_job_is_told_of_its_devices_once_it_runs),
        T(order_lasts_over_failovers),
        T(resize_that_fails_leaves_the_job_as_it_was),
        T(what_cannot_be_is_refused),
        T(own_resize_gives_way_to_the_users),
        T(job_that_cannot_be_saved_does_not_move),
        T(without_room_for_it_elsewhere_it_does_not_move),
        T(moved_job_starts_with_that_number),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
