/* SPDX-License-Identifier: Apache-2.0
 * test_node_join.c - ranks that change node: a node actor that one joins, and that one leaves, while another waits at its cut.
 */
#include "node_stop_bed.h"

static const struct orr_rec_rank_place both[] = {{.rank = 0, .device = 0},
                                                 {.rank = 1, .device = 1}};

enum { ATTEMPTS = 3000 };

static void steps_for(enum orr_cut_step what, uint32_t from, uint32_t n)
{
    did[0] = '\0';
    next_step = (struct orr_msg_cut_step){.job = ORR_LIT("j"),
                                          .generation = GENERATION,
                                          .cut = 9,
                                          .step = what,
                                          .timeout_ms = 5000,
                                          .round = 1,
                                          .is_detached = true,
                                          .is_some = what == ORR_CUT_SAVE,
                                          .is_whole = what == ORR_CUT_RESUME,
                                          .ranks = {both + from, n}};
    ask();
}

static void tell(const struct orr_msg_desc *desc, const void *msg)
{
    did[0] = '\0';
    assert_int_equal(orr_system_post(sys, job, node, desc, msg), ORR_OK);
    run_for(500);
}

static void wait_at_the_cut(void)
{
    start_running();
    cut_and_quiesce();
    dies = true;
}

static void only_ranks_that_leave_are_saved(void **state)
{
    (void)state;
    wait_at_the_cut();
    steps_for(ORR_CUT_SAVE, 1, 1); /* rank 1, which is not here */
    assert_string_equal(did, "");
    assert_int_equal(last.state, ORR_STEP_DONE);
    next_step.round = 2;
    next_step.ranks.at = both;
    ask();
    assert_string_equal(did, "image0 put+arena-5*1 drop0 ");
    assert_int_equal(last.state, ORR_STEP_DONE);
}

static void rank_joins_those_that_wait_and_goes_on_with_them(void **state)
{
    (void)state;
    wait_at_the_cut();
    join(9);
    assert_true(is_launched && stays_frozen);
    assert_string_equal(did, "start1 lib-save-0 get*0 launch1 drop0 ");
    join(9); /* repeated: answered */
    assert_true(is_launched);
    assert_string_equal(did, "");
    steps_for(ORR_CUT_RELEASE, 0, 0); /* (these devices have no memory) */
    assert_int_equal(last.state, ORR_STEP_DONE);
    steps_for(ORR_CUT_RESUME, 0, 2);
    assert_int_equal(last.state, ORR_STEP_DONE);
    assert_non_null(strstr(did, "thaw0"));
    assert_non_null(strstr(did, "thaw1"));
    assert_int_equal(killed, 0);
}

/* By one of its ranks: they are on one network. */
static void network_reaches_more_machines_before_the_ranks_go_on(void **state)
{
    (void)state;
    const struct orr_rec_text far[] = {{ORR_LIT("192.0.2.9:4789")}};
    const struct orr_rec_text other_port[] = {{ORR_LIT("192.0.2.9:4790")}};
    wait_at_the_cut();
    join(9);
    steps_for(ORR_CUT_RELEASE, 0, 0);
    assert_null(strstr(did, "widen"));
    next_step = (struct orr_msg_cut_step){.job = ORR_LIT("j"),
                                          .generation = GENERATION,
                                          .cut = 9,
                                          .step = ORR_CUT_RELEASE,
                                          .timeout_ms = 5000,
                                          .round = 2,
                                          .overlay = 43,
                                          .machines = {far, 1}};
    did[0] = '\0';
    ask();
    const char *widen = strstr(did, "widen");
    assert_non_null(widen);
    assert_null(strstr(widen + 1, "widen"));
    assert_int_equal(last.state, ORR_STEP_DONE);
    next_step.round = 3;
    next_step.machines.at = other_port;
    ask();
    assert_int_equal(last.state, ORR_STEP_FAILED);
    assert_non_null(strstr(last_text, "roles.node.overlay.port"));
    refuses = ORR_MSG_process_widen;
    next_step.round = 4;
    next_step.machines.at = far;
    ask();
    assert_int_equal(last.state, ORR_STEP_FAILED);
    refuses = 0;
    steps_for(ORR_CUT_RESUME, 0, 2);
    assert_int_equal(last.state, ORR_STEP_DONE);
}

static void rank_that_a_resume_does_not_name_ends_frozen(void **state)
{
    (void)state;
    wait_at_the_cut();
    join(9);
    steps_for(ORR_CUT_RESUME, 0, 1);
    run_for(500);
    assert_int_equal(last.state, ORR_STEP_DONE);
    assert_non_null(strstr(did, "left1 "));
    assert_true(strstr(did, "left1 ") <
                strstr(did, "kill1 ")); /* first, or its peers wait for it */
    assert_non_null(strstr(did, "forget1 "));
    assert_null(strstr(did, "thaw1"));
    assert_non_null(strstr(did, "thaw0"));
    asks_ranks = true;
    ask();
    asks_ranks = false;
    assert_int_equal(found.ranks.n, 1);
}

static void join_that_fails_leaves_those_that_wait_alone(void **state)
{
    (void)state;
    wait_at_the_cut();
    refuses = ORR_MSG_store_get;
    join(9);
    run_for(500);
    assert_false(is_launched);
    assert_non_null(strstr(last_text, "the edge said no"));
    assert_null(strstr(did, "kill0"));
    refuses = 0;
    join(9); /* again */
    assert_true(is_launched);
    steps_for(ORR_CUT_RESUME, 0, 2);
    assert_int_equal(last.state, ORR_STEP_DONE);
    join(9); /* late: they do not wait any more */
    assert_string_equal(did, "");
    steps_for(ORR_CUT_RESUME, 0, 2);
}

/* More often than there is room for what each attempt needs. */
static void joins_that_fail_leave_nothing(void **state)
{
    (void)state;
    wait_at_the_cut();
    refuses = ORR_MSG_store_get;
    for (int i = 0; i < ATTEMPTS; i++) {
        join(9);
        assert_non_null(strstr(last_text, "the edge said no"));
        run_for(100);
    }
    refuses = 0;
    join(9);
    assert_true(is_launched);
}

static void rank_that_runs_is_not_joined(void **state)
{
    (void)state;
    start_running();
    join(9);
    assert_false(is_launched);
    assert_non_null(strstr(last_text, "does not wait"));
    assert_string_equal(did, "");
}

/* All of them have left: they end frozen, and what comes later may be launched. */
static void node_that_was_left_is_fenced_up_to_the_cut(void **state)
{
    (void)state;
    wait_at_the_cut();
    const struct orr_msg_rank_stop stop = {
        .job = ORR_LIT("j"), .generation = GENERATION, .grace_ms = 60000, .cut = 9};
    tell(orr_msg_desc_rank_stop(), &stop);
    assert_string_equal(did, "left0 kill0 forget0 ");
    const struct orr_msg_ranks_forget forget = {
        .job = ORR_LIT("j"), .generation = GENERATION, .cut = 9};
    tell(orr_msg_desc_ranks_forget(), &forget);
    join(9);
    assert_false(is_launched);
    assert_non_null(strstr(last_text, "has ended"));
    join(10);
    assert_true(is_launched && stays_frozen);
    tell(orr_msg_desc_rank_stop(), &stop); /* late: not of this one */
    assert_string_equal(did, "");
    const struct orr_msg_rank_stop end = {
        .job = ORR_LIT("j"), .generation = GENERATION, .grace_ms = 60000};
    tell(orr_msg_desc_rank_stop(), &end);
    assert_non_null(strstr(did, "kill1"));
}

#define STOP(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STOP(only_ranks_that_leave_are_saved),
        STOP(rank_joins_those_that_wait_and_goes_on_with_them),
        STOP(network_reaches_more_machines_before_the_ranks_go_on),
        STOP(rank_that_a_resume_does_not_name_ends_frozen),
        STOP(join_that_fails_leaves_those_that_wait_alone),
        STOP(joins_that_fail_leave_nothing),
        STOP(rank_that_runs_is_not_joined),
        STOP(node_that_was_left_is_fenced_up_to_the_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
