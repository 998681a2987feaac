/* SPDX-License-Identifier: Apache-2.0
 * test_cluster_resize.c - another number of devices for a job that runs, on its nodes or on others.
 */
#include "cluster_bed.h"

#include "orr_test.h"

/* Ranks 0.. on n1, on these devices; the rest on n2, on its device 0. */
static struct orr_list_rank_place
places_of(uint32_t world, uint32_t on_n1, const uint32_t *device)
{
    static struct orr_rec_rank_place places[PLACES_MAX];
    for (uint32_t i = 0; i < world; i++)
        places[i] = (struct orr_rec_rank_place){.rank = i,
                                                .node = i < on_n1 ? ORR_LIT("n1")
                                                                  : ORR_LIT("n2"),
                                                .device = i < on_n1 ? device[i] : 0};
    return (struct orr_list_rank_place){places, world};
}

static void want_number(struct orr_list_rank_place ranks,
                        uint32_t devices,
                        uint32_t on_n1,
                        uint32_t least_n1)
{
    const struct orr_rec_device_need needs[] = {
        {.node = ORR_LIT("n1"), .ranks = on_n1, .least = least_n1},
        {.node = ORR_LIT("n2"), .ranks = ranks.n - on_n1, .least = 1}};
    POST("/eu1/c1/job/a/1",
         devices_want,
         .job = ORR_LIT("a"),
         .generation = 1,
         .ranks = ranks,
         .devices = devices,
         .needs = {needs, ranks.n > on_n1 ? 2 : 1});
}

static void spread_to(struct orr_list_rank_place ranks, uint32_t devices)
{
    uint8_t wire[512];
    size_t len;
    uint32_t on_n1 = 0;
    const struct orr_msg_job_spec spec = {.name = ORR_LIT("t"), .world = ranks.n};
    assert_int_equal(
        orr_msg_encode(orr_msg_desc_job_spec(), &spec, wire, sizeof(wire), &len),
        ORR_OK);
    for (uint32_t i = 0; i < ranks.n; i++)
        on_n1 += orr_str_eq(ranks.at[i].node, ORR_LIT("n1"));
    const struct orr_rec_device_need needs[] = {
        {.node = ORR_LIT("n1"), .ranks = on_n1, .least = 1},
        {.node = ORR_LIT("n2"), .ranks = ranks.n - on_n1, .least = 1}};
    POST("/eu1/c1/job/a/1",
         devices_want,
         .job = ORR_LIT("a"),
         .generation = 1,
         .ranks = ranks,
         .devices = devices,
         .needs = {needs, ranks.n > on_n1 ? 2 : 1},
         .may_spread = true,
         .spec = {wire, (uint32_t)len});
}

static void keep(struct orr_list_rank_place ranks)
{
    POST("/eu1/c1/job/a/1",
         devices_keep,
         .job = ORR_LIT("a"),
         .generation = 1,
         .ranks = ranks);
    run_for(600);
}

static void resized_job_holds_both_until_it_says_which(void **state)
{
    (void)state;
    const uint32_t was[] = {0, 1}, one[] = {1, 1};
    assign("a", 2, 2, "n1", false);
    assert_string_equal(got.node[0], "n1");
    want_number(places_of(2, 2, was), 1, 2, 1);
    assert_int_equal(got.n_slots, 1);
    assert_int_equal(got.slot[0], 0); /* its own */
    run_for(600);
    assert_int_equal(n1_free, 2);
    keep(places_of(2, 2, one));
    assert_int_equal(got.msg, ORR_MSG_ack);
    assert_int_equal(n1_free, 3);
    assign("b", 1, 1, "n1", false); /* somebody takes device 0 */
    assert_int_equal(got.device[0], 0);
    want_number(places_of(2, 2, one), 2, 2, 1);
    assert_int_equal(got.n_slots, 2);
    assert_int_equal(got.slot[0], 1);
    assert_int_equal(got.slot[1], 2);           /* free, of the same type */
    want_number(places_of(2, 2, one), 2, 2, 1); /* a repeat holds no more */
    run_for(600);
    assert_int_equal(n1_free, 1);
    keep(places_of(2, 2, one)); /* it could not, after all */
    assert_int_equal(n1_free, 2);
}

static void number_that_the_nodes_do_not_have_is_refused(void **state)
{
    (void)state;
    const uint32_t was[] = {0, 1};
    assign("a", 2, 2, "n1", false);
    want_number(places_of(2, 2, was), 3, 2, 1); /* more than it has ranks there */
    assert_int_equal(got.code, ORR_ENODEV);
    want_number(places_of(2, 2, was), 1, 2, 2); /* two shards */
    assert_int_equal(got.code, ORR_ENODEV);
    run_for(600);
    assert_int_equal(n1_free, 2);
    want_number(places_of(4, 2, was), 1, 2, 1); /* two nodes */
    assert_int_equal(got.code, ORR_ENODEV);
}

static void number_is_shared_out_where_the_load_is(void **state)
{
    (void)state;
    const uint32_t was[] = {0, 0, 0, 0, 1, 1};
    assign("a", 2, 2, "n1", false);
    want_number(places_of(8, 6, was), 3, 6, 1); /* 6 ranks on n1, 2 on n2 */
    assert_int_equal(got.n_slots, 3);
    assert_string_equal(got.slot_node[1], "n1");
    assert_string_equal(got.slot_node[2], "n2");
    assert_int_equal(got.slot[0], 0); /* those with the most ranks first */
    assert_int_equal(got.slot[1], 1);
    want_number(places_of(8, 6, was), 4, 6, 1);
    assert_string_equal(got.slot_node[2], "n1");
}

/* Devices of other nodes, or of fewer than there are ranks on, for a job whose ranks may change node. */
static void ranks_that_may_change_node_get_devices_of_others(void **state)
{
    (void)state;
    const uint32_t was[] = {0, 0, 1, 1};
    assign("a", 4, 2, "n1", false);
    spread_to(places_of(4, 4, was), 3);
    assert_int_equal(got.n_others, 0); /* its own node has them */
    spread_to(places_of(4, 4, was), 5);
    assert_int_equal(got.n_slots, 5);
    assert_int_equal(got.n_others, 1);
    assert_string_equal(got.slot_node[2], "n1");
    assert_string_equal(got.slot_node[3], "n2");
    assert_string_equal(got.slot_node[4], "n2");
    assert_int_equal(got.slot[4], 1);
    spread_to(places_of(4, 4, was), 7); /* the fourth of a node is of another type */
    assert_int_equal(got.code, ORR_ENODEV);
    POST("/eu1", node_drain, .node = ORR_LIT("n2"), .is_draining = true);
    spread_to(places_of(4, 4, was), 5);
    assert_int_equal(got.code, ORR_ENODEV);
    keep(places_of(4, 4, was));
    assert_int_equal(n1_free, 2);
    spread_to(places_of(4, 3, was), 1); /* one is on n2 */
    assert_int_equal(got.n_slots, 1);
    assert_string_equal(got.slot_node[0], "n1");
    assert_int_equal(got.n_others, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(resized_job_holds_both_until_it_says_which),
        T(number_that_the_nodes_do_not_have_is_refused),
        T(number_is_shared_out_where_the_load_is),
        T(ranks_that_may_change_node_get_devices_of_others),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
