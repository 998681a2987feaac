/* SPDX-License-Identifier: Apache-2.0
 * test_rank_map_cases.c - the nearest legal map: cases by hand, and what is refused.
 */
#include <string.h>

#include "orr_test.h"
#include "rank_map_large.h"

static void assert_map(const struct large *l, const uint32_t *want)
{
    for (uint32_t r = 0; r < l->world; r++)
        if (l->next[r] != want[r])
            fail_msg("rank %u is on %u, not %u", r, l->next[r], want[r]);
}

static void first_map_is_in_order(void **state)
{
    (void)state;
    static const uint32_t shards[] = {1, 2, 4, 8};
    for (uint32_t i = 0; i < 2 * ORR_ARRAY_SIZE(shards); i++) {
        struct large l;
        large_init(&l, 32, shards[i / 2], i % 2);
        for (uint32_t n = 32; n >= shards[i / 2]; n /= 2) {
            large_give_first(&l, n);
            large_make(&l, l.next);
            uint32_t want[32], here = 32 / n; /* ranks of a device */
            for (uint32_t r = 0; r < 32; r++)
                want[r] =
                    l.shards.replica_of[r] / here * shards[i / 2] + r % shards[i / 2];
            assert_map(&l, want);
        }
        large_fini(&l);
    }
}

static void eight_in_order_on_three_are_four_two_and_two(void **state)
{
    (void)state;
    struct large l;
    large_init(&l, 8, 1, true);
    large_give_first(&l, 8);
    large_make(&l, l.old);
    large_give_first(&l, 3);
    struct rank_map_cost cost = large_make(&l, l.next);
    assert_int_equal(cost.load_max, 4);
    assert_int_equal(cost.load_min, 2);
    assert_int_equal(cost.n_moved,
                     6); /* 0 and 1 or 2 stay; 2 and 1 have to make room */
    l.ask.is_ordered = false;
    cost = large_make(&l, l.next);
    assert_int_equal(cost.load_max, 3);
    assert_int_equal(cost.n_moved, 5);
    large_fini(&l);
}

/* [8,15) is two blocks, of 4 and 3: to halve the first costs less than to halve both of [0,8). */
static void block_that_costs_least_is_halved(void **state)
{
    (void)state;
    struct large l;
    large_init(&l, 15, 1, true);
    large_give_first(&l, 2);
    large_make(&l, l.old);
    assert_int_equal(l.old[7], 0);
    assert_int_equal(l.old[8], 1);
    large_give_first(&l, 6);
    assert_int_equal(large_make(&l, l.next).n_moved, 15 - 4 - 3);
    large_fini(&l);
}

/* Of [0,8) only [4,8) has ranks that count: it is halved last. */
static void block_of_lost_ranks_is_halved_first(void **state)
{
    (void)state;
    struct large l;
    large_init(&l, 16, 1, true);
    large_give_first(&l, 2);
    large_make(&l, l.old);
    for (uint32_t r = 1; r < 4; r++)
        l.old[r] = ORR_NO_DEVICE;
    large_give_first(&l, 6);
    assert_int_equal(large_make(&l, l.next).n_moved, 13 - 4 - 4);
    large_fini(&l);
}

static void loads_are_even_also_beside_a_rank_that_is_alone(void **state)
{
    (void)state;
    struct large l;
    large_init(&l, 11, 1, false);
    l.shards.n_shards = 2;
    l.shards.shard_of[10] = 1;
    l.shards.replica_of[10] = 0;
    large_give_first(&l, 5);
    large_make(&l, l.next);
    uint32_t load[5] = {0}, n[4] = {0};
    for (uint32_t r = 0; r < 11; r++)
        load[l.next[r]]++;
    for (uint32_t i = 0; i < 5; i++)
        n[load[i]]++;
    assert_int_equal(n[3], 2);
    assert_int_equal(n[2], 2);
    assert_int_equal(n[1], 1);
    large_fini(&l);
}

static void three_in_order_fit_on_one(void **state)
{
    (void)state;
    struct large l;
    large_init(&l, 3, 1, true);
    large_give_first(&l, 1);
    assert_int_equal(large_make(&l, l.next).load_max, 3);
    large_give_first(&l, 2);
    large_make(&l, l.next);
    assert_map(&l, (const uint32_t[]){0, 0, 1});
    large_fini(&l);
}

/* Two nodes of four devices; 3 devices remain: the node with two of them halves its block. */
static void nobody_leaves_its_node_without_need(void **state)
{
    (void)state;
    for (uint32_t first = 0; first < 2; first++) {
        struct large l;
        large_init(&l, 8, 1, true);
        for (uint32_t i = 0; i < l.n_slots; i++)
            l.slots[i].node = i / 4 % 2;
        large_give_first(&l, 8);
        large_make(&l, l.old);
        large_give_first(&l, 0);
        l.slots[4 * first].is_given = l.slots[4 * first + 1].is_given = true;
        l.slots[4 - 4 * first].is_given = true;
        assert_int_equal(large_make(&l, l.next).n_left_node, 0);
        large_fini(&l);
    }
}

/* To the other half of the devices of each node, with too many of them for rank_map_nodes. */
static void many_stay_on_their_nodes(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        struct large l;
        uint32_t n_shards = i < 2 ? 1 : 2;
        large_init(&l, 1024, n_shards, i % 2);
        for (uint32_t r = 0; r < 1024; r++)
            l.old[r] = 1022 - 2 * (l.shards.replica_of[r] / 2 + r % n_shards * 256);
        for (uint32_t slot = 1; slot < 1024; slot += 2)
            l.slots[slot].is_given = true;
        struct rank_map_cost cost = large_make(&l, l.next);
        assert_int_equal(cost.n_moved, 1024);
        assert_int_equal(cost.n_left_node, 0);
        large_fini(&l);
    }
}

/* Nodes of eight devices, replicas of eight shards: each new node gets whole replicas. */
static void replicas_stay_together_on_new_nodes(void **state)
{
    (void)state;
    for (uint32_t is_ordered = 0; is_ordered < 2; is_ordered++) {
        struct large l;
        large_init(&l, 32, 8, is_ordered);
        large_give_first(&l, 16);
        large_make(&l, l.old);
        large_give_first(&l, 32);
        struct rank_map_cost cost = large_make(&l, l.next);
        assert_int_equal(cost.n_moved, 16);
        assert_int_equal(cost.n_left_node, 16);
        for (uint32_t r = 0; r < 32; r++)
            assert_int_equal(l.next[r] % 8, r % 8);
        for (uint32_t r = 1; r < 32; r++)
            if (r % 8 != 0)
                assert_int_equal(l.next[r] / 8, l.next[r - 1] / 8);
        large_fini(&l);
    }
}

/* ---- what is refused ----------------------------------------------------------------------- */

static void assert_refused(struct large *l, const char *why)
{
    struct orr_error err = {.text = ""};
    struct rank_map_cost cost = {.n_moved = 77};
    for (uint32_t r = 0; r < l->world; r++)
        l->next[r] = 4711;
    assert_int_equal(rank_map_make(&l->map, &l->ask, l->next, &cost, &err), ORR_EINVAL);
    if (!strstr(err.text, why))
        fail_msg("\"%s\" does not say \"%s\"", err.text, why);
    assert_int_equal(cost.n_moved, 77);
    for (uint32_t r = 0; r < l->world; r++)
        assert_int_equal(l->next[r], 4711);
}

static void what_cannot_be_is_refused_in_words(void **state)
{
    (void)state;
    struct large l;
    large_init(&l, 8, 4, true);
    large_give_first(&l, 3);
    assert_refused(&l, "4 shards do not fit on 3 devices");
    assert_refused(&l, "ask for 4 devices at least");
    large_give_first(&l, 0);
    assert_refused(&l, "4 shards do not fit on 0 devices");
    large_give_first(&l, 9);
    assert_refused(&l, "9 devices for 8 ranks");
    large_give_first(&l, 4);
    l.old[3] = 12;
    assert_refused(&l, "rank 3 is on device 12 of 12");
    l.old[3] = ORR_NO_DEVICE;
    l.slots[5].node = 99;
    assert_refused(&l, "device 5 is on node 99");
    l.slots[5].node = 0;
    l.ask.n_slots = 13;
    assert_refused(&l, "13 devices");
    large_fini(&l);
    struct rank_map map;
    assert_int_equal(rank_map_init(&map, ORR_WORLD_MAX + 1, 1, 1), ORR_EINVAL);
    assert_int_equal(rank_map_init(&map, 1, 2 * ORR_WORLD_MAX + 1, 1), ORR_EINVAL);
    assert_int_equal(rank_map_init(&map, 1, 1, 0), ORR_EINVAL);
}

static void maps_that_are_not_legal_are_named(void **state)
{
    (void)state;
    static const struct {
        bool is_ordered;
        uint32_t map[8];
        const char *why;
    } cases[] = {
        {false, {0, 1, 0, 1, 2, 3, 2, 9}, "rank 7 is on device 9, which is not given"},
        {false, {0, 1, 0, 1, 2, 3, 2, 0}, "device 0 has ranks of shards 0 and 1"},
        {false, {0, 1, 0, 1, 0, 3, 0, 3}, "device 2 is given and has no rank"},
        {false, {0, 1, 0, 1, 0, 3, 2, 3}, "device 0 has 3 ranks; 2 to 2 are possible"},
        {true,
         {0, 1, 2, 1, 0, 3, 2, 3},
         "device 0 has rank 0, but not all of an aligned"},
        {true,
         {0, 1, 2, 1, 2, 3, 0, 3},
         "device 0 has rank 0, but not all of an aligned"},
        {true,
         {0, 1, 0, 1, 0, 3, 2, 3},
         "device 0 has rank 0, but not all of an aligned"},
    };
    struct large l;
    large_init(&l, 8, 2, false);
    large_give_first(&l, 4);
    for (uint32_t i = 0; i < ORR_ARRAY_SIZE(cases); i++) {
        struct orr_error err = {.text = ""};
        l.ask.is_ordered = cases[i].is_ordered;
        assert_int_equal(rank_map_check(&l.map, &l.ask, cases[i].map, NULL, &err),
                         ORR_EINVAL);
        if (!strstr(err.text, cases[i].why))
            fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].why);
    }
    large_fini(&l);
    large_init(&l, 9, 1, false);
    large_give_first(&l, 4);
    const uint32_t lean[9] = {0, 0, 0, 1, 1, 1, 2, 2, 3};
    assert_int_equal(rank_map_check(&l.map, &l.ask, lean, NULL, NULL), ORR_EINVAL);
    large_fini(&l);
    large_init(&l, 4, 1, true);
    large_give_first(&l, 3);
    const uint32_t shifted[4] = {0, 1, 1, 2};
    assert_int_equal(rank_map_check(&l.map, &l.ask, shifted, NULL, NULL), ORR_EINVAL);
    large_fini(&l);
    large_init(&l, 8, 1, true);
    large_give_first(&l, 4);
    struct orr_error err = {.text = ""};
    const uint32_t uneven[8] = {0, 0, 0, 0, 1, 1, 2, 3};
    assert_int_equal(rank_map_check(&l.map, &l.ask, uneven, NULL, &err), ORR_EINVAL);
    assert_non_null(strstr(err.text, "device 0 has 4 ranks; loads can be more even"));
    large_fini(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_map_is_in_order),
        cmocka_unit_test(eight_in_order_on_three_are_four_two_and_two),
        cmocka_unit_test(block_that_costs_least_is_halved),
        cmocka_unit_test(block_of_lost_ranks_is_halved_first),
        cmocka_unit_test(loads_are_even_also_beside_a_rank_that_is_alone),
        cmocka_unit_test(three_in_order_fit_on_one),
        cmocka_unit_test(nobody_leaves_its_node_without_need),
        cmocka_unit_test(many_stay_on_their_nodes),
        cmocka_unit_test(replicas_stay_together_on_new_nodes),
        cmocka_unit_test(what_cannot_be_is_refused_in_words),
        cmocka_unit_test(maps_that_are_not_legal_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
