/* SPDX-License-Identifier: Apache-2.0
 * test_job_resize.c - the job actor on another number of devices, against two nodes, a cluster and a region that do what the test
 * says: ranks 0 and 1 are on n0, 2 and 3 on n1, each on a device of its own.
 */
#include "job_stop_bed.h"

#include "orr_test.h"

static void resize(uint64_t number, uint32_t devices, bool may_move)
{
    const struct orr_msg_job_order msg = {.job = ORR_LIT("eu1-1"),
                                          .generation = GENERATION,
                                          .number = number,
                                          .order = ORR_ORDER_RESIZE,
                                          .checkpoint = may_move ? 9 : 0,
                                          .devices = devices,
                                          .may_move = may_move};
    post(orr_msg_desc_job_order(), &msg);
}

static void give(uint32_t n, const uint32_t (*slots)[2])
{
    cluster.n_slots = n;
    for (uint32_t i = 0; i < n; i++) {
        cluster.slots[i].node = slots[i][0];
        cluster.slots[i].device = slots[i][1];
    }
}
static const uint32_t two[][2] = {{0, 1}, {1, 0}};
static const uint32_t three[][2] = {{0, 0}, {0, 7}, {1, 1}};
static const uint32_t one[][2] = {{0, 0}};

static void
expect(const uint32_t at[WORLD], uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    assert_int_equal(at[0], a);
    assert_int_equal(at[1], b);
    assert_int_equal(at[2], c);
    assert_int_equal(at[3], d);
}

/* Where the nodes were told to resume them. */
static void expect_run(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    const uint32_t at[WORLD] = {
        nodes[0].device[0], nodes[0].device[1], nodes[1].device[2], nodes[1].device[3]};
    expect(at, a, b, c, d);
}

static void shrunk_job_runs_on_and_gives_the_rest_back(void **state)
{
    (void)state;
    start_running();
    give(2, two);
    resize(1, 2, false);
    run_for(1000);
    assert_int_equal(cluster.devices, 2);
    assert_int_equal(cluster.needs[0].ranks, 2);
    assert_int_equal(cluster.needs[0].least, 1);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_true(was_in(ORR_JOB_STOPPING) && was_in(ORR_JOB_RESTORING));
    assert_true(steps(ORR_CUT_RELEASE));
    assert_false(steps(ORR_CUT_SAVE));
    expect_run(1, 1, 0, 0);
    assert_int_equal(nodes[0].next_device[0], 1); /* the nodes looked before */
    assert_false(region.is_placed_late);
    assert_int_equal(region.n_devices, 2);
    expect(region.device, 1, 1, 0, 0);
    assert_int_equal(cluster.n_keep, 1);
    expect(cluster.kept, 1, 1, 0, 0);
    assert_int_equal(cluster.n_freed, 0);
    assert_int_equal(region.n_failed, 0);
    resize(1, 2, false); /* repeated: nothing; and a new order for what it has: done */
    resize(2, 2, false);
    run_for(1000);
    assert_int_equal(cluster.n_want, 1);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    give(3, three);
    resize(3, 3, false);
    run_for(1000);
    assert_int_equal(region.n_devices, 3);
    assert_int_equal(nodes[1].device[2], nodes[1].device[3]);
    assert_int_not_equal(nodes[0].device[0], nodes[0].device[1]);
    assert_int_equal(region.n_failed, 0);
}

static void devices_that_are_not_there_cost_no_stop(void **state)
{
    (void)state;
    start_running();
    cluster.has_no_devices = true;
    resize(1, 2, false);
    run_for(1000);
    assert_int_equal(region.failed_code, ORR_ENODEV);
    assert_int_equal(region.failed_number, 1);
    assert_non_null(strstr(region.failed, "none"));
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_false(was_in(ORR_JOB_STOPPING));
    assert_int_equal(nodes[0].n_steps[ORR_CUT_BEGIN], 0);
    cluster.has_no_devices = false;
    give(1, one); /* ranks of n1 would have to leave it */
    resize(2, 1, false);
    run_for(1000);
    assert_int_equal(region.failed_number, 2);
    assert_int_equal(nodes[0].n_steps[ORR_CUT_BEGIN], 0);
    assert_true(cluster.n_keep > 0);
    expect(cluster.kept, 0, 1, 0, 1);
}

static void where_the_nodes_do_not_have_them_it_moves(void **state)
{
    (void)state;
    start_running();
    cluster.has_no_devices = true;
    resize(1, 1, true);
    run_for(3000);
    assert_int_equal(region.n_commits, 1);
    assert_int_equal(region.commit_order, 1);
    assert_int_equal(region.n_ended, 1);
    assert_int_equal(region.outcome, ORR_OUTCOME_MOVED);
    assert_int_equal(nodes[0].n_steps[ORR_CUT_RESUME], 0);
}

static void failure_up_to_the_release_goes_back_to_the_old_map(void **state)
{
    (void)state;
    static const enum orr_cut_step at[] = {
        ORR_CUT_BEGIN, ORR_CUT_QUIESCE, ORR_CUT_RELEASE};
    start_running();
    give(2, two);
    for (uint32_t i = 0; i < ORR_ARRAY_SIZE(at); i++) {
        uint32_t n_keep = cluster.n_keep;
        nodes[1].fail_at = at[i];
        resize(i + 1, 2, false);
        run_for(2000);
        nodes[1].fail_at = 0;
        run_for(2000);
        assert_int_equal(region.n_failed, i + 1);
        assert_int_equal(region.failed_number, i + 1);
        assert_int_equal(region.phase, ORR_JOB_RUNNING);
        assert_int_equal(region.n_devices, 4);
        assert_int_equal(cluster.n_keep, n_keep + 1);
        expect(cluster.kept, 0, 1, 0, 1);
    }
    expect_run(0, 1, 0, 1);
    resize(9, 2, false);
    run_for(2000);
    expect_run(1, 1, 0, 0);
}

static void nobody_resumes_before_the_region_knows_where(void **state)
{
    (void)state;
    start_running();
    give(2, two);
    region.is_silent = true;
    resize(1, 2, false);
    run_for(20000);
    assert_true(steps(ORR_CUT_RELEASE));
    assert_int_equal(nodes[0].n_steps[ORR_CUT_RESUME], 0);
    assert_int_equal(cluster.n_keep, 0);
    region.is_silent = false;
    run_for(5000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    expect_run(1, 1, 0, 0);
    expect(cluster.kept, 1, 1, 0, 0);
}

static void resume_on_the_new_map_is_tried_again(void **state)
{
    (void)state;
    start_running();
    give(2, two);
    nodes[1].fail_at = ORR_CUT_RESUME;
    resize(1, 2, false);
    run_for(5000);
    assert_int_equal(region.phase, ORR_JOB_RESTORING);
    assert_true(nodes[1].round > 1);
    nodes[1].fail_at = 0;
    run_for(2000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_int_equal(region.n_failed, 0);
    expect_run(1, 1, 0, 0);
}

static void suspend_in_between_wins(void **state)
{
    (void)state;
    start_running();
    give(2, two);
    nodes[0].works_at = ORR_CUT_TARGETS;
    resize(1, 2, false);
    run_for(500);
    order(2, ORR_ORDER_SUSPEND);
    nodes[0].works_at = 0;
    run_for(2000);
    assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
    assert_int_equal(cluster.n_freed, 1);
    assert_int_equal(cluster.n_keep, 0); /* it would hold what others have now */
    resize(3, 2, false);                 /* a suspended job has none: refused */
    run_for(500);
    assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
    order(4, ORR_ORDER_RUN);
    run_for(2000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    expect_run(4, 5, 4, 5);
}

static void suspend_while_the_region_is_away_takes_the_new_map_along(void **state)
{
    (void)state;
    start_running();
    give(2, two);
    region.is_silent = true;
    resize(1, 2, false);
    run_for(1000);
    assert_true(steps(ORR_CUT_RELEASE));
    order(2, ORR_ORDER_SUSPEND);
    run_for(1000);
    region.is_silent = false;
    run_for(5000);
    assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
    assert_int_equal(cluster.n_freed, 1);
    assert_int_equal(nodes[0].n_steps[ORR_CUT_RESUME], 0);
}

static void cluster_that_does_not_answer_fails_the_order(void **state)
{
    (void)state;
    start_running();
    give(2, two);
    cluster.silent_for = 1; /* lost once: asked again */
    resize(1, 2, false);
    run_for(5000);
    assert_int_equal(region.n_devices, 2);
    cluster.silent_for = 1000;
    resize(2, 4, false);
    run_for(30000);
    assert_int_equal(region.failed_number, 2);
    assert_int_equal(region.failed_code, ORR_EBUSY);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
}

static void recovered_job_runs_on_where_the_region_says(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < NODES; i++) {
        nodes[i].found_cut = 900;
        nodes[i].found_step = ORR_CUT_RELEASE;
        for (uint32_t r = 0; r < WORLD; r++)
            nodes[i].state[r] = ORR_RANK_RUNNING;
    }
    give(2, two);
    start(&(struct orr_msg_job_start){.is_recovery = true});
    resize(1, 2, false); /* the region repeats it */
    run_for(3000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    expect_run(1, 1, 0, 0);
    assert_int_equal(region.n_devices, 2);
}

/* ---- what it costs ---- */

/* Two nodes of 1000 bytes each, which one of them takes 10 ms to copy. */
static void cost_of_the_next_one_is_told_by_the_last(void **state)
{
    (void)state;
    start_running();
    assert_int_equal(region.cost.stops, 0);
    give(2, two);
    nodes[0].copy_us = 10000;
    nodes[1].copy_us = 1;
    nodes[0].works_at = ORR_CUT_QUIESCE;
    nodes[1].works_at = ORR_CUT_RESUME;
    resize(1, 2, false);
    run_for(500);
    nodes[0].works_at = 0;
    run_for(500);
    nodes[1].works_at = 0;
    run_for(2000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    const struct orr_rec_resize_cost *cost = &region.cost;
    assert_int_equal(cost->stops, 1);
    assert_int_equal(cost->bytes, 2000);
    assert_int_equal(cost->out_bytes_per_s, 50000); /* 4 devices */
    assert_int_equal(cost->in_bytes_per_s, 100000); /* 2 */
    assert_true(cost->remake_us > 800000 && cost->remake_us < 1500000);
    assert_int_equal(cost->devices, 2);
    assert_int_equal(cost->fewer, 1);
    assert_int_equal(cost->more, 4);
    uint64_t fixed_us = cost->barrier_us + cost->remake_us;
    assert_int_equal(cost->fewer_us, fixed_us + 20000 + 20000);
    assert_int_equal(cost->more_us, fixed_us + 20000 + 5000);
    order(2, ORR_ORDER_CHECKPOINT); /* keeps its devices */
    run_for(2000);
    assert_int_equal(cost->stops, 1);
    order(3, ORR_ORDER_SUSPEND);
    run_for(60000);
    order(4, ORR_ORDER_RUN);
    run_for(2000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_int_equal(cost->stops, 2); /* and a minute of waiting is none of its cost */
    assert_true(cost->fewer_us < 2000000);
}

static void failed_stops_tell_nothing_of_the_cost(void **state)
{
    (void)state;
    start_running();
    give(2, two);
    nodes[1].fail_at = ORR_CUT_RELEASE;
    resize(1, 2, false);
    run_for(2000);
    assert_int_equal(region.n_failed, 1);
    assert_int_equal(region.cost.stops, 0);
}

/* ---- who is a replica of whom is seen at the cut ---- */

static int setup_unsaid(void **state)
{
    shards = 0;
    int rc = setup(state);
    shards = 1;
    comms = COMMS_WORLD;
    return rc;
}
#define UNSAID(f) cmocka_unit_test_setup_teardown(f, setup_unsaid, teardown)

static void one_communicator_of_all_lets_all_share(void **state)
{
    (void)state;
    start_running();
    give(2, two);
    resize(1, 2, false);
    run_for(1000);
    assert_int_equal(region.n_failed, 0);
    assert_int_equal(cluster.n_want, 1);
    assert_int_equal(nodes[0].n_steps[ORR_CUT_OPEN], 0);
    expect_run(1, 1, 0, 0);
    assert_int_equal(region.shards, 1);
    assert_non_null(strstr(region.why_shards, "all 4 ranks are replicas"));
}

static void other_stops_look_too(void **state)
{
    (void)state;
    comms = COMMS_FAR;
    start_running();
    order(1, ORR_ORDER_SUSPEND);
    run_for(1000);
    assert_int_equal(region.shards, 2);
    assert_non_null(strstr(region.why_shards, "{0,2},{1,3}"));
}

static void devices_that_do_not_suit_the_shards_are_asked_for_again(void **state)
{
    (void)state;
    comms = COMMS_FAR;
    start_running();
    give(2, two); /* one for 0 and 1, which hold different shards */
    resize(1, 2, false);
    run_for(2000);
    assert_int_equal(cluster.n_want, 2);
    assert_int_equal(cluster.needs[0].least, 2); /* by what was seen */
    assert_int_equal(cluster.needs[1].least, 2);
    assert_int_equal(region.n_failed, 1);
    assert_int_equal(region.failed_code, ORR_ENODEV);
    assert_non_null(strstr(region.failed, "leave their nodes"));
    assert_int_equal(nodes[0].n_steps[ORR_CUT_QUIESCE], 0);
    assert_int_equal(nodes[0].n_steps[ORR_CUT_BEGIN], 1);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    expect(cluster.kept, 0, 1, 0, 1);
    assert_int_equal(region.shards, 2);
}

static void shards_on_other_nodes_are_brought_together_by_a_move(void **state)
{
    (void)state;
    comms = COMMS_FAR;
    start_running();
    give(2, two);
    resize(1, 2, true);
    run_for(3000);
    assert_int_equal(cluster.n_want, 1); /* seen at the cut, it is another map */
    assert_true(nodes[0].joined && nodes[1].joined); /* one each way */
    assert_int_equal(region.node[0], region.node[2]);
    assert_int_equal(region.node[1], region.node[3]);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_int_equal(region.n_devices, 2);
    assert_int_equal(region.n_commits, 0);
}

static void no_replicas_no_fewer_devices(void **state)
{
    (void)state;
    comms = COMMS_NEAR; /* who knows what neighbours are to each other? */
    start_running();
    give(2, two);
    for (uint32_t i = 1; i <= 2; i++) { /* each time it is looked again */
        resize(i, 2, true);
        run_for(2000);
        assert_int_equal(region.n_failed, i);
        assert_int_equal(region.failed_code, ORR_EINVAL);
        assert_non_null(strstr(region.failed, "2 devices are too few for 4 shards"));
        assert_non_null(strstr(region.failed, "`shards:` in the job's spec"));
        assert_int_equal(nodes[0].n_steps[ORR_CUT_QUIESCE], 0);
        assert_int_equal(cluster.n_want, i);
        assert_int_equal(region.phase, ORR_JOB_RUNNING);
        assert_int_equal(region.shards, 4);
    }
    comms = COMMS_WORLD; /* (the same job, in a test: it has got others since) */
    resize(3, 2, false);
    run_for(2000);
    assert_int_equal(region.n_failed, 2);
    expect_run(1, 1, 0, 0);
}

/* Placed by what the generation before it saw. */
static void restored_job_starts_with_its_replicas_together(void **state)
{
    (void)state;
    struct orr_rec_part parts[WORLD];
    uint8_t body[4096];
    size_t len = 0;
    for (uint32_t i = 0; i < WORLD; i++)
        parts[i] = (struct orr_rec_part){.rank = i, .hash = ORR_LIT("p")};
    const struct orr_msg_manifest manifest = {
        .row = {.cut = 5, .level = ORR_LEVEL_IMAGE},
        .world = WORLD,
        .master_addr = ORR_LIT("10.0.0.1"),
        .master_port = 1,
        .parts = {parts, WORLD},
        .shards_stride = 2,
        .shards_size = 2};
    assert_int_equal(
        orr_msg_encode(orr_msg_desc_manifest(), &manifest, body, sizeof(body), &len),
        ORR_OK);
    devices_a_node = 1;
    region.is_silent = true; /* where it is to be is all that is asked here */
    start(&(struct orr_msg_job_start){.manifest = {body, (uint32_t)len}});
    devices_a_node = 2;
    assert_int_equal(region.node[0], region.node[2]);
    assert_int_equal(region.node[1], region.node[3]);
    assert_int_not_equal(region.node[0], region.node[1]);
}

static void saved_job_says_what_it_has_seen(void **state)
{
    (void)state;
    comms = COMMS_FAR;
    start_running();
    order(1, ORR_ORDER_CHECKPOINT);
    run_for(2000);
    assert_int_equal(region.n_commits, 1);
    assert_int_equal(region.shards_stride, 2);
    assert_int_equal(region.shards_size, 2);
}

static void spec_is_believed_whatever_the_communicators_show(void **state)
{
    (void)state;
    comms = COMMS_NEAR;
    start_running();
    give(2, two);
    resize(1, 2, false);
    run_for(2000);
    comms = COMMS_WORLD;
    assert_int_equal(region.n_failed, 0);
    expect_run(1, 1, 0, 0);
    assert_int_equal(region.shards, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STOP(shrunk_job_runs_on_and_gives_the_rest_back),
        STOP(devices_that_are_not_there_cost_no_stop),
        STOP(where_the_nodes_do_not_have_them_it_moves),
        STOP(failure_up_to_the_release_goes_back_to_the_old_map),
        STOP(nobody_resumes_before_the_region_knows_where),
        STOP(resume_on_the_new_map_is_tried_again),
        STOP(suspend_in_between_wins),
        STOP(suspend_while_the_region_is_away_takes_the_new_map_along),
        STOP(cluster_that_does_not_answer_fails_the_order),
        STOP(recovered_job_runs_on_where_the_region_says),
        STOP(cost_of_the_next_one_is_told_by_the_last),
        STOP(failed_stops_tell_nothing_of_the_cost),
        UNSAID(one_communicator_of_all_lets_all_share),
        UNSAID(other_stops_look_too),
        UNSAID(devices_that_do_not_suit_the_shards_are_asked_for_again),
        UNSAID(shards_on_other_nodes_are_brought_together_by_a_move),
        UNSAID(no_replicas_no_fewer_devices),
        UNSAID(restored_job_starts_with_its_replicas_together),
        UNSAID(saved_job_says_what_it_has_seen),
        STOP(spec_is_believed_whatever_the_communicators_show),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
