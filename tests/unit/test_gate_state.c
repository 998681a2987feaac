/* SPDX-License-Identifier: Apache-2.0
 * test_gate_state.c - the gate's decisions, one by one.
 */
#include "orr_test.h"

#include "gate_state.h"

enum { CAP = 8 };

static struct orri_clock clocks[CAP];
static uint64_t targets[CAP];
static struct orri_target wants[CAP];
static struct orri_gate gate;

static int set_up(void **state)
{
    (void)state;
    memset(clocks, 0, sizeof clocks);
    orri_gate_init(&gate, clocks, targets, CAP, wants, CAP);
    return 0;
}

static uint32_t add(uint64_t comm, enum orr_clock_kind kind, uint32_t me, uint32_t peer)
{
    clocks[gate.n].comm = comm;
    clocks[gate.n].kind = kind;
    clocks[gate.n].me = me;
    clocks[gate.n].peer = peer;
    orri_gate_add_clock(&gate);
    return gate.n - 1;
}

static void issue(uint32_t at, int times)
{
    while (times--)
        orri_gate_count(&gate, &at, 1);
}

static bool take(uint64_t cut, uint64_t round, struct orri_target target)
{
    return orri_gate_take_targets(&gate, cut, round, true, &target, 1, true);
}

static void closed_gate_waits_for_targets(void **state)
{
    (void)state;
    uint32_t c = add(7, ORR_CLOCK_COLLECTIVE, 0, 0);
    issue(c, 3);
    assert_true(orri_gate_may_go(&gate, false));
    assert_true(orri_gate_close(&gate, 1));
    assert_false(orri_gate_may_go(&gate, false));
    assert_false(orri_gate_is_at_cut(&gate, 0, 0));
    assert_true(take(1, 1, (struct orri_target){.comm = 7, .issued = 4}));
    assert_true(orri_gate_may_go(&gate, false));
    assert_false(orri_gate_is_at_cut(&gate, 0, 0));
    issue(c, 1);
    assert_false(orri_gate_may_go(&gate, false));
    assert_true(orri_gate_is_at_cut(&gate, 0, 0));
    assert_false(orri_gate_is_at_cut(&gate, 1, 0));
}

static void call_past_its_target_raises_it(void **state)
{
    (void)state;
    uint32_t at[2] = {add(7, ORR_CLOCK_COLLECTIVE, 0, 0),
                      add(8, ORR_CLOCK_COLLECTIVE, 0, 0)};
    orri_gate_close(&gate, 1);
    take(1, 1, (struct orri_target){.comm = 7, .issued = 1});
    assert_true(orri_gate_count(&gate, at, 2)); /* 8 was at its target */
    assert_int_equal(targets[0], 1);
    assert_int_equal(targets[1], 1);
    assert_true(orri_gate_is_at_cut(&gate, 0, 0));
    assert_true(
        take(1, 1, (struct orri_target){.comm = 8, .issued = 0})); /* an older view */
    assert_int_equal(targets[1], 1);
}

static void target_of_a_clock_to_come_lets_the_process_run_on(void **state)
{
    (void)state;
    issue(add(7, ORR_CLOCK_COLLECTIVE, 1, 0), 1);
    orri_gate_close(&gate, 1);
    take(1,
         1,
         (struct orri_target){
             .comm = 7, .kind = ORR_CLOCK_RECV, .me = 1, .peer = 0, .issued = 1});
    assert_true(orri_gate_may_go(&gate, false));
    uint32_t other = add(7, ORR_CLOCK_RECV, 1, 2);
    issue(other, 1);
    assert_true(orri_gate_may_go(&gate, false));
    uint32_t c = add(7, ORR_CLOCK_RECV, 1, 0);
    assert_true(orri_gate_may_go(&gate, false));
    assert_false(orri_gate_count(&gate, &c, 1)); /* wanted: no raise */
    assert_false(orri_gate_may_go(&gate, false));
    assert_true(orri_gate_is_at_cut(&gate, 0, 0));
}

static void incomplete_communicator_lets_strangers_run_on(void **state)
{
    (void)state;
    const struct orri_target absent = {
        .comm = 9, .me = ORRI_MEMBER_ABSENT, .issued = 1};
    orri_gate_close(&gate, 1);
    take(1, 1, absent);
    assert_true(orri_gate_may_go(&gate, false));
    assert_false(orri_gate_is_at_cut(&gate, 0, 0));
    uint32_t c =
        add(9, ORR_CLOCK_COLLECTIVE, 1, 0); /* made, not issued: a stranger yet */
    assert_true(orri_gate_may_go(&gate, false));
    assert_true(orri_gate_count(&gate, &c, 1));
    assert_false(orri_gate_may_go(&gate, false));
    assert_true(orri_gate_is_at_cut(&gate, 0, 0));

    set_up(NULL);
    orri_gate_close(&gate, 1);
    take(1,
         1,
         absent); /* not a member, after all: the next list says that all are there */
    assert_true(orri_gate_take_targets(&gate, 1, 2, true, NULL, 0, true));
    assert_true(orri_gate_is_at_cut(&gate, 0, 0));
    assert_int_equal(gate.round, 2);
}

static void older_cuts_change_nothing(void **state)
{
    (void)state;
    uint32_t c = add(7, ORR_CLOCK_COLLECTIVE, 0, 0);
    issue(c, 1);
    assert_true(orri_gate_close(&gate, 5));
    assert_false(orri_gate_close(&gate, 4));
    assert_false(orri_gate_open(&gate, 4));
    assert_false(take(4, 9, (struct orri_target){.comm = 7, .issued = 1}));
    assert_false(take(6, 9, (struct orri_target){.comm = 7, .issued = 1}));
    assert_true(take(5, 2, (struct orri_target){.comm = 7, .issued = 1}));
    assert_false(take(5, 1, (struct orri_target){.comm = 7, .issued = 3}));
    assert_true(orri_gate_is_at_cut(&gate, 0, 0));
    assert_true(orri_gate_close(&gate, 5)); /* asked again */
    assert_true(orri_gate_is_at_cut(&gate, 0, 0));
    assert_true(orri_gate_close(&gate, 6)); /* a newer one begins from the start */
    assert_false(orri_gate_is_at_cut(&gate, 0, 0));
    assert_int_equal(targets[c], 0);
    assert_true(orri_gate_open(&gate, 6));
    assert_true(orri_gate_may_go(&gate, false));
    assert_false(take(6, 1, (struct orri_target){.comm = 7, .issued = 1}));
}

static void pieces_of_a_list_count_when_it_is_whole(void **state)
{
    (void)state;
    const struct orri_target first = {.comm = 7, .issued = 1},
                             second = {.comm = 8, .issued = 1};
    issue(add(7, ORR_CLOCK_COLLECTIVE, 0, 0), 1);
    add(8, ORR_CLOCK_COLLECTIVE, 0, 0);
    orri_gate_close(&gate, 1);
    assert_true(orri_gate_take_targets(&gate, 1, 1, true, &first, 1, false));
    assert_false(orri_gate_may_go(&gate, false));
    assert_false(orri_gate_is_at_cut(&gate, 0, 0));
    assert_true(orri_gate_take_targets(&gate, 1, 1, false, &second, 1, true));
    assert_true(orri_gate_may_go(&gate, false));
}

static void shut_gate_lets_nobody_through(void **state)
{
    (void)state;
    uint32_t c = add(7, ORR_CLOCK_COLLECTIVE, 0, 0);
    orri_gate_close(&gate, 1);
    assert_false(orri_gate_shut(&gate, 0, 0));
    take(1, 1, (struct orri_target){.comm = 7, .issued = 1});
    assert_false(orri_gate_shut(&gate, 0, 0));
    issue(c, 1);
    assert_false(orri_gate_shut(&gate, 1, 0));
    assert_true(orri_gate_shut(&gate, 0, 0));
    assert_false(orri_gate_close(&gate, 2));
    assert_false(orri_gate_open(&gate, 2));
    assert_false(take(1, 2, (struct orri_target){.comm = 7, .issued = 5}));
    assert_false(orri_gate_may_go(&gate, false));
    orri_gate_unshut(&gate);
    assert_true(orri_gate_is_at_cut(&gate, 0, 0));
    assert_true(orri_gate_open(&gate, 1));
    assert_true(orri_gate_may_go(&gate, false));
}

static void cooperative_program_is_bound_at_points_alone(void **state)
{
    (void)state;
    uint32_t world = add(ORRI_WORLD_COMM, ORR_CLOCK_COLLECTIVE, 0, 0);
    uint32_t c = add(7, ORR_CLOCK_COLLECTIVE, 0, 0);
    gate.is_cooperative = true;
    issue(world, 2);
    issue(c, 1);
    orri_gate_close(&gate, 1);
    assert_true(orri_gate_may_go(&gate, false));
    assert_false(orri_gate_may_go(&gate, true));
    take(1, 1, (struct orri_target){.comm = ORRI_WORLD_COMM, .issued = 3});
    assert_false(orri_gate_count(&gate, &c, 1)); /* no raise: not part of it */
    assert_true(orri_gate_may_go(&gate, true));
    issue(world, 1);
    assert_false(orri_gate_may_go(&gate, true));
    assert_false(orri_gate_is_at_cut(&gate, 0, 0)); /* computes on to its next point */
    assert_true(orri_gate_is_at_cut(&gate, 0, 1));
    assert_true(orri_gate_may_go(&gate, false));
    assert_true(orri_gate_shut(&gate, 0, 1));
    assert_false(orri_gate_may_go(&gate, false));
}

static void ended_communicator_bars_no_cut(void **state)
{
    (void)state;
    uint32_t c = add(7, ORR_CLOCK_COLLECTIVE, 0, 0);
    issue(c, 1);
    clocks[c].is_over = 1;
    orri_gate_close(&gate, 1);
    take(1, 1, (struct orri_target){.comm = 7, .issued = 2});
    assert_true(orri_gate_is_at_cut(&gate, 0, 0));
}

static void target_of_another_process_of_the_rank_is_left_to_it(void **state)
{
    (void)state;
    issue(add(7, ORR_CLOCK_COLLECTIVE, 0, 0), 1);
    orri_gate_close(&gate, 1);
    take(1, 1, (struct orri_target){.comm = 7, .me = 1, .issued = 9});
    assert_true(orri_gate_is_at_cut(&gate, 0, 0));
}

static void too_many_wants_let_the_process_run_on(void **state)
{
    (void)state;
    struct orri_target many[CAP + 1];
    for (uint32_t i = 0; i <= CAP; i++)
        many[i] = (struct orri_target){.comm = 100 + i, .me = ORRI_MEMBER_ABSENT};
    orri_gate_close(&gate, 1);
    assert_true(orri_gate_take_targets(&gate, 1, 1, true, many, CAP + 1, true));
    assert_true(gate.is_overfull);
    assert_true(orri_gate_may_go(&gate, false));
    assert_false(orri_gate_is_at_cut(&gate, 0, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(closed_gate_waits_for_targets, set_up),
        cmocka_unit_test_setup(call_past_its_target_raises_it, set_up),
        cmocka_unit_test_setup(target_of_a_clock_to_come_lets_the_process_run_on,
                               set_up),
        cmocka_unit_test_setup(incomplete_communicator_lets_strangers_run_on, set_up),
        cmocka_unit_test_setup(older_cuts_change_nothing, set_up),
        cmocka_unit_test_setup(pieces_of_a_list_count_when_it_is_whole, set_up),
        cmocka_unit_test_setup(shut_gate_lets_nobody_through, set_up),
        cmocka_unit_test_setup(cooperative_program_is_bound_at_points_alone, set_up),
        cmocka_unit_test_setup(ended_communicator_bars_no_cut, set_up),
        cmocka_unit_test_setup(target_of_another_process_of_the_rank_is_left_to_it,
                               set_up),
        cmocka_unit_test_setup(too_many_wants_let_the_process_run_on, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
