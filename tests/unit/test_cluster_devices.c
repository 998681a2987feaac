/* SPDX-License-Identifier: Apache-2.0
 * test_cluster_devices.c - devices of suspended jobs, nodes that drain, and the node that a job is to go to.
 */
#include "cluster_bed.h"

#include "orr_test.h"

static void freed_devices_are_for_others_and_come_back(void **state)
{
    (void)state;
    const uint32_t was[] = {0, 1};
    assign("a", 2, 2, "n1", false);
    assert_int_equal(got.msg, ORR_MSG_job_start);
    assert_string_equal(got.node[0], "n1");
    assert_string_equal(got.machine, "192.0.2.7:4789");
    assign("b", 4, 4, "n1", false);
    assert_int_equal(got.code, ORR_ENODEV);
    POST("/eu1/c1/job/a/1", devices_freed, .job = ORR_LIT("a"), .generation = 1);
    assert_int_equal(got.msg, ORR_MSG_ack);
    run_for(600);
    assert_int_equal(n1_free, DEVICES);
    assign("b", 4, 4, "n1", false);
    assert_int_equal(got.msg, ORR_MSG_job_start);
    want("/eu1/c1/job/a/1", "a", 2, was);
    assert_int_equal(got.msg, ORR_MSG_failed);
    assert_int_equal(got.code, ORR_ENODEV);
    POST("/eu1/c1/job/b/1",
         job_released,
         .job = ORR_LIT("b"),
         .generation = 1,
         .node = ORR_LIT("n1"));
    want("/eu1/c1/job/a/1", "a", 2, was);
    assert_int_equal(got.msg, ORR_MSG_devices_given);
    assert_int_equal(got.device[0], 0);
    assert_int_equal(got.device[1], 1);
    want("/eu1/c1/job/a/1", "a", 2, was); /* a repeat holds no more */
    run_for(600);
    assert_int_equal(n1_free, 2);
}

static void other_devices_are_of_the_same_type_and_shared_as_before(void **state)
{
    (void)state;
    const uint32_t shared[] = {0, 0, 0, 0}, h200[] = {3, 3, 3, 3};
    assign("a", 4, 1, "n1", false);
    assert_int_equal(got.device[3], 0);
    POST("/eu1/c1/job/a/1", devices_freed, .job = ORR_LIT("a"), .generation = 1);
    assign("b", 2, 2, "n1", false); /* takes 0 and 1 */
    want("/eu1/c1/job/a/1", "a", 4, shared);
    assert_int_equal(got.msg, ORR_MSG_devices_given);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(got.device[i], 2);
    POST("/eu1/c1/job/a/1", devices_freed, .job = ORR_LIT("a"), .generation = 1);
    assign("c", 1, 1, "n1", false); /* takes 2: only the H200 is left */
    want("/eu1/c1/job/a/1", "a", 4, shared);
    assert_int_equal(got.code, ORR_ENODEV);
    want("/eu1/c1/job/a/1", "a", 4, h200);
    assert_int_equal(got.device[0], 3);
}

static void recovered_suspended_job_holds_none(void **state)
{
    (void)state;
    assign("a", 2, 2, "", true);
    assert_int_equal(got.msg, ORR_MSG_job_start);
    assert_true(got.code); /* is_suspended is handed on */
    assign("b", 4, 4, "n1", false);
    assert_int_equal(got.msg, ORR_MSG_job_start);
    POST("/eu1", job_order, .job = ORR_LIT("a"), .generation = 1, .number = 7);
    assert_int_equal(got.msg, ORR_MSG_job_order);
    assert_int_equal(got.n, 7);
    POST("/eu1", job_order, .job = ORR_LIT("a"), .generation = 2, .number = 7);
    assert_int_equal(got.code, ORR_ENOENT);
}

static void nothing_is_placed_on_a_node_that_drains(void **state)
{
    (void)state;
    POST("/eu1", node_drain, .node = ORR_LIT("n1"), .is_draining = true);
    run_for(600);
    assert_int_equal(n1_state, ORR_NODE_DRAINING);
    assign("a", 4, 4, "", false);
    assert_string_equal(got.node[0], "n2");
    assign("b", 4, 4, "", false);
    assert_int_equal(got.code, ORR_ENODEV);
    assign("b", 1, 1, "n1", false);
    assert_int_equal(got.code, ORR_ENODEV);
    POST("/eu1", node_drain, .node = ORR_LIT("n1"));
    assign("b", 4, 4, "n1", false);
    assert_string_equal(got.node[3], "n1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(freed_devices_are_for_others_and_come_back),
        T(other_devices_are_of_the_same_type_and_shared_as_before),
        T(recovered_suspended_job_holds_none),
        T(nothing_is_placed_on_a_node_that_drains),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
