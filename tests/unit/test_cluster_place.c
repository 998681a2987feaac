/* SPDX-License-Identifier: Apache-2.0
 * test_cluster_place.c - gang placement: how many units, and from which nodes.
 */
#include "cluster/cluster_place.h"

#include "orr_test.h"

enum { NODES = 4 };
static struct place_node nodes[NODES];

static uint32_t
place(struct place_want want, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    const uint32_t room[NODES] = {a, b, c, d};
    for (uint32_t i = 0; i < NODES; i++)
        nodes[i] = (struct place_node){.index = i, .room = room[i]};
    uint32_t units = 0;
    return cluster_place(&want, nodes, NODES, &units) == ORR_OK ? units : 0;
}

static void expect_takes(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    const uint32_t take[NODES] = {a, b, c, d};
    for (uint32_t i = 0; i < NODES; i++)
        assert_int_equal(nodes[i].take, take[i]);
}

static void place_one_node_suffices_takes_the_tightest(void **state)
{
    (void)state;
    assert_int_equal(
        place(
            (struct place_want){.world = 2, .gpus_min = 2, .gpus_max = 2}, 8, 3, 2, 4),
        2);
    expect_takes(0, 0, 2, 0);
}

static void place_too_big_for_one_takes_the_fewest_nodes(void **state)
{
    (void)state;
    assert_int_equal(
        place(
            (struct place_want){.world = 8, .gpus_min = 8, .gpus_max = 8}, 2, 4, 4, 1),
        8);
    expect_takes(0, 4, 4, 0);
    assert_int_equal(
        place(
            (struct place_want){.world = 6, .gpus_min = 6, .gpus_max = 6}, 2, 4, 1, 3),
        6);
    expect_takes(2, 4, 0, 0); /* the rest best fit: 2 of 2, not of 3 */
}

static void place_elastic_takes_the_most_that_divides_the_world(void **state)
{
    (void)state;
    struct place_want want = {.world = 8, .gpus_min = 1, .gpus_max = 8};
    assert_int_equal(place(want, 3, 2, 1, 1),
                     4); /* 7 are free; 7, 6 and 5 do not divide 8 */
    assert_int_equal(place(want, 1, 0, 0, 0), 1);
    assert_int_equal(place(want, 8, 8, 8, 8), 8);
}

static void place_elastic_without_a_divisor_takes_no_more_than_it_needs(void **state)
{
    (void)state;
    struct place_want want = {.world = 7, .gpus_min = 2, .gpus_max = 6};
    assert_int_equal(place(want, 8, 0, 0, 0), 4); /* two a device, as on 5 and 6 */
    assert_int_equal(place(want, 3, 0, 0, 0), 3);
    want = (struct place_want){.world = 8, .gpus_min = 1, .gpus_max = 8, .shards = 4};
    assert_int_equal(place(want, 3, 0, 0, 0), 0); /* shards share no device */
    assert_int_equal(place(want, 7, 0, 0, 0), 4);
    want.devices = 5; /* as was asked for */
    assert_int_equal(place(want, 7, 0, 0, 0), 5);
    assert_int_equal(place(want, 4, 0, 0, 0), 0);
}

static void place_without_room_takes_nothing(void **state)
{
    (void)state;
    assert_int_equal(
        place(
            (struct place_want){.world = 8, .gpus_min = 8, .gpus_max = 8}, 2, 2, 2, 1),
        0);
    assert_int_equal(place((struct place_want){.world = 3}, 1, 1, 0, 0), 0);
    assert_int_equal(
        place(
            (struct place_want){.world = 1, .gpus_min = 1, .gpus_max = 1}, 0, 0, 0, 0),
        0);
    expect_takes(0, 0, 0, 0);
}

static void place_without_devices_takes_a_slot_per_rank(void **state)
{
    (void)state;
    assert_int_equal(place((struct place_want){.world = 5}, 4, 6, 9, 0), 5);
    expect_takes(0, 5, 0, 0);
}

static void place_spread_takes_from_many(void **state)
{
    (void)state;
    struct place_want want = {
        .world = 4, .gpus_min = 4, .gpus_max = 4, .spread = ORR_SPREAD_SPREAD};
    assert_int_equal(place(want, 8, 8, 8, 8), 4);
    expect_takes(1, 1, 1, 1);
    assert_int_equal(place(want, 1, 4, 0, 0), 4);
    expect_takes(1, 3, 0, 0);
}

/* Whatever the room: all or nothing, never more than there is, never a useless node. */
static void place_random_rooms_keep_the_rules(void **state)
{
    (void)state;
    uint64_t x = 42;
    for (int i = 0; i < 20000; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        uint32_t room[NODES];
        uint32_t total = 0;
        for (uint32_t n = 0; n < NODES; n++)
            total += room[n] = (uint32_t)(x >> (8 * n + 16)) % 9;
        struct place_want want = {.world = 1 + (uint32_t)(x >> 56) % 16,
                                  .spread = (uint32_t)(x >> 50) % 2};
        want.gpus_max = (uint32_t)(x >> 40) % (want.world + 1);
        want.gpus_min = want.gpus_max ? 1 + (uint32_t)(x >> 44) % want.gpus_max : 0;
        uint32_t units = place(want, room[0], room[1], room[2], room[3]);
        uint32_t taken = 0;
        for (uint32_t n = 0; n < NODES; n++) {
            assert_true(nodes[n].take <= room[n]);
            taken += nodes[n].take;
        }
        assert_int_equal(taken, units);
        if (units && want.gpus_max)
            assert_true(units >= want.gpus_min && units <= want.gpus_max);
        if (!units && !want.gpus_max)
            assert_true(total < want.world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(place_one_node_suffices_takes_the_tightest),
        cmocka_unit_test(place_too_big_for_one_takes_the_fewest_nodes),
        cmocka_unit_test(place_elastic_takes_the_most_that_divides_the_world),
        cmocka_unit_test(place_elastic_without_a_divisor_takes_no_more_than_it_needs),
        cmocka_unit_test(place_without_room_takes_nothing),
        cmocka_unit_test(place_without_devices_takes_a_slot_per_rank),
        cmocka_unit_test(place_spread_takes_from_many),
        cmocka_unit_test(place_random_rooms_keep_the_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
