/* SPDX-License-Identifier: Apache-2.0
 * test_cli_orders.c - suspend, resume, migrate, checkpoint, drain against a region made of a few functions.
 */
#include "orr_test.h"

#include "cli.h"
#include "test_cli_region.h"
#include "test_cli_run.h"

static int setup(void **state)
{
    (void)state;
    region_start();
    setenv("ORRERY_REGION", "ipc:///r1", 1);
    unsetenv("ORRERY_STATE");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    region_stop();
    return 0;
}

static void suspend_waits_until_it_is_done(void **state)
{
    (void)state;
    region.order_looks = 3;
    assert_int_equal(orrery("suspend r1-1"), EXIT_OK);
    assert_int_equal(region.order_looks, 0);
    assert_int_equal(region.order_kind, ORR_ORDER_SUSPEND);
    region.order_looks = 2;
    assert_int_equal(orrery("resume r1-1"), EXIT_OK);
    assert_int_equal(region.order_kind, ORR_ORDER_RUN);
}

static void suspend_no_wait_ends_at_once(void **state)
{
    (void)state;
    region.order_looks = 100;
    assert_int_equal(orrery("suspend r1-1 --no-wait --why x"), EXIT_OK);
    assert_true(region.order_looks > 90);
}

static void suspend_that_fails_names_phase_and_culprit(void **state)
{
    (void)state;
    region.order_looks = 2;
    region.order_fails = ORR_ETIMEOUT;
    assert_int_equal(orrery("suspend r1-1"), EXIT_TIMEOUT);
    expect(
        errors,
        "orrery suspend: job r1-1: suspend failed: barrier: rank 2 on n1 never came");
    assert_int_equal(orrery("suspend r1-3"), EXIT_REFUSED);
    expect(errors, "it has ended already");
    assert_int_equal(orrery("suspend r1-9"), EXIT_NONE);
}

static void suspend_out_of_time_says_where_it_is(void **state)
{
    (void)state;
    region.order_looks = 1000;
    assert_int_equal(orrery("suspend r1-1 --timeout 200ms"), EXIT_TIMEOUT);
    expect(errors, "suspend is not over yet: it is running");
}

static void migrate_names_its_target(void **state)
{
    (void)state;
    assert_int_equal(orrery("migrate r1-1 --to node:n1"), EXIT_OK);
    assert_string_equal(region.to, "  n1");
    assert_int_equal(orrery("migrate r1-1 --to node:c1/n1"), EXIT_OK);
    assert_string_equal(region.to, " c1 n1");
    assert_int_equal(orrery("migrate r1-1 --to cluster:c1"), EXIT_OK);
    assert_string_equal(region.to, " c1 ");
    assert_int_equal(orrery("migrate r1-1 --to n1"), EXIT_OK);
    assert_string_equal(region.to, " c1 n1");
    assert_int_equal(orrery("migrate r1-1 --to region:us2"), EXIT_OK);
    assert_string_equal(region.to, "us2  ");
    assert_int_equal(orrery("migrate r1-1 --to nowhere"), EXIT_NONE);
    expect(errors, "no node or cluster of that name");
    assert_int_equal(orrery("migrate r1-1 --to node:"), EXIT_USAGE);
    assert_int_equal(orrery("migrate r1-1"), EXIT_USAGE);
    expect(errors, "where to?");
    region.order_looks = 100; /* what was there before is not waited for */
    assert_int_equal(orrery("migrate r1-1 --to region:r1 --gone us2"), EXIT_OK);
    assert_string_equal(region.to, "r1   not us2");
    assert_true(region.order_looks > 90);
}

static void migrate_of_a_suspended_job_is_for_its_resume(void **state)
{
    (void)state;
    region.order_looks = 1000;
    region.order_phase = ORR_JOB_SUSPENDED;
    assert_int_equal(orrery("migrate r1-1 --to n1 --timeout 200ms"), EXIT_TIMEOUT);
    expect(errors, "it is suspended");
}

static void drain_waits_until_the_node_is_empty(void **state)
{
    (void)state;
    assert_int_equal(orrery("drain n1"), EXIT_OK);
    assert_string_equal(region.drained, " n1 1");
    assert_int_equal(orrery("drain c1/n1 --undo"), EXIT_OK);
    assert_string_equal(region.drained, "c1 n1 0");
}

static void checkpoint_prints_its_number(void **state)
{
    (void)state;
    assert_int_equal(orrery("checkpoint r1-1"), EXIT_OK);
    assert_string_equal(out, "7\n");
    assert_int_equal(orrery("checkpoint r1-1 -o json"), EXIT_OK);
    expect(out, "\"number\":7");
    expect(out, "\"level\":\"image\"");
}

static void checkpoint_list_show_and_remove(void **state)
{
    (void)state;
    assert_int_equal(orrery("checkpoint ls r1-1"), EXIT_OK);
    expect(out, "JOB   NUMBER  MADE");
    expect(out, "image  3MiB  1MiB  40ms    asked");
    assert_int_equal(orrery("checkpoint show r1-1 7"), EXIT_OK);
    expect(out, "abcd");
    assert_int_equal(orrery("checkpoint show r1-1 x"), EXIT_USAGE);
    assert_int_equal(orrery("checkpoint rm r1-1"), EXIT_USAGE);
    expect(errors, "which one?");
    assert_int_equal(orrery("checkpoint rm r1-1 7"), EXIT_OK);
    assert_int_equal(region.removed, 7);
    assert_int_equal(orrery("checkpoint qq r1-1"), EXIT_USAGE);
    assert_int_equal(orrery("checkpoint ls -o jsonl"), EXIT_OK);
    expect(out, "\"cause\":\"asked\"");
}

static void show_says_level_and_checkpoints(void **state)
{
    (void)state;
    region.order = 3;
    region.order_kind = ORR_ORDER_SUSPEND;
    region.order_fails = ORR_ETIMEOUT;
    assert_int_equal(orrery("show r1-1"), EXIT_OK);
    expect(out, "level        inplace: no CRIU");
    expect(out, "order        suspend, failed: barrier: rank 2 on n1 never came");
    expect(out, "r1-1  7");
    assert_int_equal(orrery("show r1-1 -o json"), EXIT_OK);
    expect(out, "\"order_state\":\"failed\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(suspend_waits_until_it_is_done),
        T(suspend_no_wait_ends_at_once),
        T(suspend_that_fails_names_phase_and_culprit),
        T(suspend_out_of_time_says_where_it_is),
        T(migrate_names_its_target),
        T(migrate_of_a_suspended_job_is_for_its_resume),
        T(drain_waits_until_the_node_is_empty),
        T(checkpoint_prints_its_number),
        T(checkpoint_list_show_and_remove),
        T(show_says_level_and_checkpoints),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
