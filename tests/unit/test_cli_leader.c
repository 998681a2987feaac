/* SPDX-License-Identifier: Apache-2.0
 * test_cli_leader.c - the verbs against a region of several hosts (test_cli_region.c): who leads is found, lost and found again.
 */
#include "orr_test.h"

#include <unistd.h>

#include "cli.h"
#include "cli_main.h"
#include "test_cli_region.h"
#include "test_cli_run.h"

static int setup(void **state)
{
    (void)state;
    region_start();
    region.n_hosts = 3;
    setenv("ORRERY_REGION", "ipc:///r1,ipc:///r2,ipc:///r3", 1);
    unsetenv("ORRERY_STATE");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    region_stop();
    return 0;
}

static void leader_is_found_by_what_another_host_says(void **state)
{
    (void)state;
    region.leader = region.told = 2;
    assert_int_equal(orrery("ps"), EXIT_OK);
    expect(out, "r1-1");
    assert_int_equal(region.asked[0], 1);
    assert_int_equal(region.asked[1], 0); /* passed by */
    assert_string_equal(region.path, "/r1");
}

static void leader_is_found_from_any_one_host(void **state)
{
    (void)state;
    setenv("ORRERY_REGION", "ipc:///r2", 1);
    region.leader = region.told = 0;
    assert_int_equal(orrery("ps"), EXIT_OK);
    assert_int_equal(orrery("show r1-1 --region-name r1"), EXIT_OK);
}

static void hosts_that_are_away_are_passed_over(void **state)
{
    (void)state;
    region.is_gone[0] = region.is_hung[1] = true;
    region.leader = region.told = 2;
    assert_int_equal(orrery("ps"), EXIT_OK);
    assert_int_equal(region.asked[2], 2); /* two pages */
}

static void leader_that_is_told_and_gone_is_not_asked_for_ever(void **state)
{
    (void)state;
    region.is_gone[0] = true;
    region.leader = 2;
    region.told = 0; /* the others do not know better yet */
    assert_int_equal(orrery("ps"), EXIT_OK);
}

static void nobody_there_is_code_3_and_says_what_was_tried(void **state)
{
    (void)state;
    region.is_away = true;
    assert_int_equal(orrery("ps"), EXIT_UNREACH);
    expect(errors, "tried ipc:///r1 (the host cannot be reached), ipc:///r2");
}

static void no_leader_in_time_is_code_6_and_says_what_was_tried(void **state)
{
    (void)state;
    region.leader = region.told = 3;
    region.is_gone[1] = true;
    assert_int_equal(orrery("submit --timeout 400ms -- true"), EXIT_TIMEOUT);
    expect(errors, "ipc:///r1 (another host leads this region)");
    expect(errors, "ipc:///r2 (the host cannot be reached)");
    assert_true(region.asked[0] >= 2); /* round after round */
}

static void submit_keeps_its_key_from_host_to_host(void **state)
{
    (void)state;
    region.busy = 1;
    region.leader = region.told = 1;
    assert_int_equal(orrery("submit -- true"), EXIT_OK);
    assert_string_equal(out, "r1-3\n");
    assert_int_equal(region.submits, 2);
    assert_true(region.has_one_key);
}

static void wait_survives(enum fake_fate fate)
{
    region.fate = fate;
    region.fate_in = 3;
    assert_int_equal(orrery("wait r1-1 --timeout 20s"), 3);
    expect(out, "r1-3 failed");
    assert_int_equal(region.waits, 2);
    assert_true(region.asked[1] > 0);
}

static void wait_survives_a_leader_that_dies(void **state)
{
    (void)state;
    wait_survives(FATE_DIES);
}

static void wait_survives_a_leader_that_hangs(void **state)
{
    (void)state;
    wait_survives(FATE_HANGS);
}

static void wait_survives_a_leader_that_steps_down(void **state)
{
    (void)state;
    wait_survives(FATE_STEPS_DOWN);
}

static void endpoints_that_are_none_are_refused(void **state)
{
    (void)state;
    assert_int_equal(orrery("ps --region ipc:///r1,r2"), EXIT_USAGE);
    expect(errors, "r2: not an endpoint; write ipc:///PATH");
    assert_int_equal(orrery("ps --region ipc:///r1,"), EXIT_USAGE);
}

/* ---- region ---- */

static void region_ls_asks_each_host(void **state)
{
    (void)state;
    region.leader = region.told = 1;
    region.is_gone[2] = true;
    assert_int_equal(orrery("region ls"), EXIT_OK);
    expect(out, "region r1  term 7  h2 leads");
    expect(out, "h1    follows      40");
    expect(out, "h2    leads        41");
    expect(out, "h3    unreachable");
    assert_int_equal(orrery("region ls -o jsonl"), EXIT_OK);
    expect(out, "\"host\":\"h2\",\"term\":7,\"is_leading\":true");
    expect(out, "\"host\":\"h3\"");
    expect(out, "\"committed\":40");
    assert_null(strstr(out, "HOST"));
}

static void doctor_names_a_voter_that_is_away(void **state)
{
    (void)state;
    region.leader = region.told = 1;
    region.is_gone[2] = true;
    (void)orrery("doctor");
    expect(out, "h3 is away");
    assert_null(strstr(out, "h1 is away"));
    assert_null(strstr(out, "h2 is away"));
}

static void region_changes_go_to_the_leader(void **state)
{
    (void)state;
    region.leader = region.told = 2;
    assert_int_equal(orrery("region add h4 --address 127.0.0.1:9 --endpoint ipc:///r4"),
                     EXIT_OK);
    assert_string_equal(region.voter, "h4 127.0.0.1:9 ipc:///r4");
    assert_int_equal(orrery("region remove h1"), EXIT_OK);
    assert_string_equal(region.voter, "h1");
    assert_int_equal(orrery("region add h4"), EXIT_USAGE);
    expect(errors, "--address IP:PORT --endpoint ENDPOINT");
    assert_int_equal(orrery("region remove"), EXIT_USAGE);
    assert_int_equal(orrery("region mvoe"), EXIT_USAGE);
    expect(errors, "did you mean `orrery region move`?");
}

static void region_move_happens_once_and_names_who_leads(void **state)
{
    (void)state;
    assert_int_equal(orrery("region move"), EXIT_OK);
    assert_string_equal(out, "h2 leads\n");
    assert_int_equal(region.leader, 1);
    assert_int_equal(orrery("region move h2"), EXIT_OK); /* it does */
    assert_int_equal(region.leader, 1);
    assert_int_equal(orrery("region move h9"), EXIT_NONE);
    expect(errors, "h9: no such host in the region");
    assert_int_equal(orrery("region move h3 -o json"), EXIT_OK);
    assert_string_equal(out, "{\"leader\":\"h3\"}\n");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(leader_is_found_by_what_another_host_says),
        TEST(leader_is_found_from_any_one_host),
        TEST(hosts_that_are_away_are_passed_over),
        TEST(leader_that_is_told_and_gone_is_not_asked_for_ever),
        TEST(nobody_there_is_code_3_and_says_what_was_tried),
        TEST(no_leader_in_time_is_code_6_and_says_what_was_tried),
        TEST(submit_keeps_its_key_from_host_to_host),
        TEST(wait_survives_a_leader_that_dies),
        TEST(wait_survives_a_leader_that_hangs),
        TEST(wait_survives_a_leader_that_steps_down),
        TEST(endpoints_that_are_none_are_refused),
        TEST(region_ls_asks_each_host),
        TEST(doctor_names_a_voter_that_is_away),
        TEST(region_changes_go_to_the_leader),
        TEST(region_move_happens_once_and_names_who_leads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
