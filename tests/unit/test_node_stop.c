/* SPDX-License-Identifier: Apache-2.0
 * test_node_stop.c - the node actor's share of a stop: in which order its edges are asked, what is told when one refuses, and
 * what a restore needs.
 */
#include "node_stop_bed.h"

static void stop_asks_its_edges_in_order_and_back(void **state)
{
    (void)state;
    start_running();
    cut_and_quiesce();
    assert_string_equal(did, "lib-quiesce-0 suspend55 freeze0 ");
    assert_int_equal(last.state, ORR_STEP_DONE);
    assert_int_equal(last.device_bytes, 3000);
    step(9, ORR_CUT_RELEASE);
    assert_int_equal(last.state, ORR_STEP_DONE);
    step(9, ORR_CUT_RESUME);
    assert_string_equal(did, "thaw0 resume-GPU-b-55 lib-resume-GPU-b0 free9 ");
    assert_int_equal(last.state, ORR_STEP_DONE);
    assert_int_equal(last.round, 1);
    step(9, ORR_CUT_RESUME); /* repeated: told, not done again */
    assert_string_equal(did, "");
    assert_int_equal(last.state, ORR_STEP_DONE);
    step(8, ORR_CUT_QUIESCE); /* an older cut changes nothing */
    assert_string_equal(did, "");
    assert_int_equal(last.cut, 9);
}

static void device_that_is_not_free_is_not_offered(void **state)
{
    (void)state;
    start_running();
    cut_and_quiesce();
    used_bytes = 2 << 20;
    step(9, ORR_CUT_RELEASE);
    assert_int_equal(last.state, ORR_STEP_WORKING);
    run_for(1000);
    assert_true(n_usage > 5);
    used_bytes = 0;
    run_for(500);
    assert_int_equal(last.state, ORR_STEP_DONE);
    step(10, ORR_CUT_BEGIN);
    used_bytes = 2 << 20;
    step(10, ORR_CUT_RELEASE);
    run_for(6000);
    assert_int_equal(last.state, ORR_STEP_FAILED);
    assert_non_null(strstr(last_text, "still has 2 MiB"));
}

static void saved_rank_is_a_part_in_the_store(void **state)
{
    (void)state;
    start_running();
    cut_and_quiesce();
    step(9, ORR_CUT_SAVE);
    assert_string_equal(did, "image0 put+arena-5*1 drop0 ");
    assert_int_equal(last.state, ORR_STEP_DONE);
    assert_string_equal(part_hash, "abc");
}

static void arena_is_free_when_the_rank_runs_and_its_part_is_kept(void **state)
{
    (void)state;
    start_running();
    cut_and_quiesce();
    is_store_slow = goes_on = true;
    step(9, ORR_CUT_SAVE);
    assert_string_equal(did, "image0 put+arena-5*1 ");
    assert_int_equal(last.state, ORR_STEP_DONE); /* the image is there */
    step(9, ORR_CUT_RESUME);
    assert_int_equal(last.state, ORR_STEP_DONE);
    assert_null(strstr(did, "free"));
    run_for(2000);
    assert_string_equal(part_hash, "slow");
    assert_non_null(strstr(did, "drop0 free9 "));
}

/* What the store still reads of the last stop takes room as well as what the next one will copy. */
static void next_stop_waits_for_the_part_of_the_last(void **state)
{
    (void)state;
    start_running();
    cut_and_quiesce();
    is_store_slow = goes_on = true;
    step(9, ORR_CUT_SAVE);
    step(9, ORR_CUT_RESUME);
    used_bytes = HOST_MEMORY; /* all of it: the last arena is in the way */
    step(10, ORR_CUT_QUIESCE);
    assert_int_equal(last.state, ORR_STEP_FAILED);
    assert_non_null(strstr(last_text, "do not fit"));
    used_bytes = 1000;
    next_step.round = 2;
    step(10, ORR_CUT_RESUME);
    step(11, ORR_CUT_QUIESCE);
    assert_int_equal(last.state, ORR_STEP_DONE);
    is_store_slow = false;
    step(11, ORR_CUT_SAVE);
    assert_string_equal(did, "image0 "); /* one at a time */
    run_for(2000);
    assert_non_null(strstr(did, "drop0 put+arena-5*1 drop0 "));
    assert_string_equal(part_hash, "abc");
    step(11, ORR_CUT_RESUME);
    assert_non_null(strstr(did, "free11 "));
    used_bytes = HOST_MEMORY;
    step(12, ORR_CUT_QUIESCE);
    assert_int_equal(last.state, ORR_STEP_DONE);
}

static void refusal_of_any_edge_is_told_with_its_rank(void **state)
{
    static const struct {
        uint16_t id;
        enum orr_cut_step step;
    } cases[] = {
        {ORR_MSG_cut_step, ORR_CUT_QUIESCE},
        {ORR_MSG_device_suspend, ORR_CUT_QUIESCE},
        {ORR_MSG_process_freeze, ORR_CUT_QUIESCE},
        {ORR_MSG_process_image, ORR_CUT_SAVE},
        {ORR_MSG_store_put, ORR_CUT_SAVE},
        {ORR_MSG_device_resume, ORR_CUT_RESUME},
    };
    for (size_t i = 0; i < ORR_ARRAY_SIZE(cases); i++) {
        setup(state);
        start_running();
        step(9, ORR_CUT_BEGIN);
        if (cases[i].step != ORR_CUT_QUIESCE)
            step(9, ORR_CUT_QUIESCE);
        refuses = cases[i].id;
        step(9, cases[i].step);
        assert_int_equal(last.state, ORR_STEP_FAILED);
        assert_int_equal(last.culprit, 0);
        assert_non_null(strstr(last_text, "said no"));
        refuses = 0;
        next_step.round = 2;
        step(9, ORR_CUT_RESUME); /* undone from wherever it is */
        next_step.round = 2;
        ask();
        assert_int_equal(last.state, ORR_STEP_DONE);
        teardown(state);
    }
}

static void stop_that_host_memory_cannot_hold_is_refused_before_it_begins(void **state)
{
    (void)state;
    start_running();
    step(9, ORR_CUT_BEGIN);
    used_bytes = 2 * HOST_MEMORY;
    step(9, ORR_CUT_QUIESCE);
    assert_string_equal(did, "");
    assert_int_equal(last.state, ORR_STEP_FAILED);
    assert_non_null(strstr(last_text, "do not fit"));
}

static void restored_rank_is_fetched_before_it_is_launched(void **state)
{
    (void)state;
    const struct orr_rec_part part = {.rank = 0,
                                      .hash = ORR_LIT("abc"),
                                      .store = ORR_LIT("other"),
                                      .endpoint = ORR_LIT("tcp://1.2.3.4:5"),
                                      .arena_bytes = 4096,
                                      .arenas = ORR_LIT("5:4096")};
    launch(&part);
    assert_true(is_launched);
    assert_string_equal(did, "expect5 lib-save-0 get+arena-5*1 launch0 drop0 ");
    assert_int_equal(n_peers, 1);
    assert_memory_equal(restore_dir, "/tmp/i/j-2-5-0", 14);
    step(9, ORR_CUT_RESUME);
    assert_int_equal(last.state, ORR_STEP_DONE);
}

/* Its part says so, and whoever restores it waits for nobody. */
static void rank_without_a_library_is_saved_and_restored_as_one(void **state)
{
    (void)state;
    start_running();
    has_none = true;
    cut_and_quiesce();
    step(9, ORR_CUT_SAVE);
    assert_true(part_is_silent);
    has_none = false; /* it begins to use it */
    step(9, ORR_CUT_RESUME);
    step(10, ORR_CUT_BEGIN);
    step(10, ORR_CUT_QUIESCE);
    step(10, ORR_CUT_SAVE);
    assert_false(part_is_silent);
    teardown(state);
    setup(state);
    struct orr_rec_part part = {.rank = 0, .hash = ORR_LIT("abc"), .is_silent = true};
    has_none = true;
    launch(&part);
    assert_true(is_launched && expects_nobody);
    teardown(state);
    setup(state);
    part.is_silent = false; /* of a time when parts did not say */
    has_none = true;
    launch(&part);
    assert_true(is_launched && !expects_nobody);
}

static void come_back(uint32_t process, uint32_t pid)
{
    const struct orr_msg_rank_ability back = {.job = ORR_LIT("j"),
                                              .generation = GENERATION,
                                              .pid = pid,
                                              .process = process,
                                              .is_stopped = true};
    assert_int_equal(
        orr_system_post(sys, edge_rank, node, orr_msg_desc_rank_ability(), &back),
        ORR_OK);
    run_for(50);
}

/* Each has an arena and a name for the driver of its own. */
static void rank_of_two_processes_is_stopped_saved_and_restored_whole(void **state)
{
    (void)state;
    start_running();
    has_two = true;
    cut_and_quiesce();
    assert_string_equal(did, "lib-quiesce-0 suspend55 suspend56 freeze0 ");
    step(9, ORR_CUT_SAVE);
    assert_string_equal(did, "image0 put+arena-5+arena-6*2 drop0 ");
    assert_string_equal(part_arenas, "5:4096 6:8192");
    assert_int_equal(part_arena_bytes, 12288);
    step(9, ORR_CUT_RESUME);
    assert_string_equal(
        did, "thaw0 resume-GPU-b-55 resume-GPU-b-56 lib-resume-GPU-b0 free9 ");
    assert_int_equal(last.state, ORR_STEP_DONE);
    teardown(state);
    setup(state);
    has_two = true;
    const struct orr_rec_part part = {.rank = 0,
                                      .hash = ORR_LIT("abc"),
                                      .arena_bytes = 12288,
                                      .arenas = ORR_LIT("5:4096 6:8192")};
    launch(&part);
    assert_true(is_launched);
    assert_string_equal(
        did, "expect5 expect6 lib-save-0 get+arena-5+arena-6*2 launch0 drop0 ");
    come_back(6, 66); /* before the resume begins: it is of that */
    assert_null(strstr(did, "resume"));
    step(9, ORR_CUT_RESUME);
    assert_non_null(strstr(did, "thaw0 resume-GPU-b-66 lib-resume-"));
    did[0] = '\0';
    come_back(5, 55);
    assert_string_equal(did, "resume--55 ");
}

static void part_of_an_earlier_version_has_one_arena(void **state)
{
    (void)state;
    const struct orr_rec_part part = {
        .rank = 0, .hash = ORR_LIT("abc"), .arena_bytes = 4096, .process = 5};
    launch(&part);
    assert_true(is_launched);
    assert_string_equal(did, "expect5 lib-save-0 get+arena*1 launch0 drop0 ");
}

static void damaged_list_of_arenas_fails_the_launch(void **state)
{
    static const char *const lists[] = {
        "5", "5:", ":1", "5:1 5:1", "x", "5:4096 6:1", "5:99999999999999999999"};
    for (size_t i = 0; i < ORR_ARRAY_SIZE(lists); i++) {
        setup(state);
        const struct orr_rec_part part = {.rank = 0,
                                          .hash = ORR_LIT("abc"),
                                          .arena_bytes = 4096,
                                          .arenas = orr_str(lists[i])};
        launch(&part);
        assert_false(is_launched);
        assert_non_null(strstr(last_text, "damaged"));
        teardown(state);
    }
}

/* From an image, or to a restarted host: the driver has it suspended, too. */
static void process_that_comes_back_in_a_resume_is_resumed_by_the_driver(void **state)
{
    (void)state;
    start_running();
    cut_and_quiesce();
    step(9, ORR_CUT_RESUME);
    did[0] = '\0';
    for (int i = 0; i < 2; i++) {
        come_back(6, 77);
        assert_string_equal(did, "resume--77 "); /* once */
    }
    const struct orr_msg_rank_ability fresh = {
        .job = ORR_LIT("j"),
        .generation = GENERATION,
        .pid = 78,
        .process = 7}; /* its program has just started it */
    assert_int_equal(
        orr_system_post(sys, edge_rank, node, orr_msg_desc_rank_ability(), &fresh),
        ORR_OK);
    run_for(50);
    assert_string_equal(did, "resume--77 ");
}

static void restore_without_its_part_fails_the_launch(void **state)
{
    (void)state;
    const struct orr_rec_part part = {.rank = 0, .hash = ORR_LIT("abc")};
    refuses = ORR_MSG_store_get;
    launch(&part);
    assert_false(is_launched);
    assert_non_null(strstr(last_text, "said no"));
}

static void stopped_ranks_die_at_once_when_their_job_ends(void **state)
{
    (void)state;
    start_running();
    cut_and_quiesce();
    const struct orr_msg_rank_stop stop = {
        .job = ORR_LIT("j"), .generation = GENERATION, .grace_ms = 60000};
    did[0] = '\0';
    assert_int_equal(orr_system_post(sys, job, node, orr_msg_desc_rank_stop(), &stop),
                     ORR_OK);
    run_for(300);
    assert_true(killed > 0);
    assert_non_null(strstr(did, "thaw0"));
}

/* What a later life of the host must know is on disk before it is begun. */
static void each_stop_is_noted_before_it_begins(void **state)
{
    (void)state;
    start_running();
    step(9, ORR_CUT_BEGIN);
    assert_int_equal(noted.cut, 9);
    assert_int_equal(noted.step, ORR_CUT_BEGIN);
    refuses = ORR_MSG_rank_note;
    step(9, ORR_CUT_QUIESCE);
    assert_string_equal(did, "");
    assert_int_equal(last.state, ORR_STEP_FAILED);
    assert_int_equal(noted.step, ORR_CUT_QUIESCE);
    refuses = 0;
    step(9, ORR_CUT_OPEN);
    assert_int_equal(noted.step, ORR_CUT_NONE);
    step(10, ORR_CUT_BEGIN);
    step(10, ORR_CUT_QUIESCE);
    assert_int_equal(noted.step, ORR_CUT_QUIESCE);
    step(10, ORR_CUT_RELEASE);
    step(10, ORR_CUT_RESUME);
    assert_int_equal(noted.cut, 10);
    assert_int_equal(noted.step, ORR_CUT_NONE);
    assert_int_equal(noted.device, 1); /* where it went */
}

static int setup_found(void **state)
{
    left_behind = (struct orr_rec_rank_row){.job = ORR_LIT("j"),
                                            .generation = GENERATION,
                                            .state = ORR_RANK_RUNNING,
                                            .pid = 100};
    int rc = setup(state);
    left_behind = (struct orr_rec_rank_row){0};
    return rc;
}

/* Its lease may have ended while the host was down, and the job actor's question may have come too early. */
static void step_of_its_job_actor_thaws_a_rank_that_was_found(void **state)
{
    (void)state;
    continued = 0;
    step(9, ORR_CUT_BEGIN);
    assert_true(continued > 0);
    assert_int_equal(last.state, ORR_STEP_DONE);
}

static int setup_restarted(void **state)
{
    left_behind = (struct orr_rec_rank_row){.job = ORR_LIT("j"),
                                            .generation = GENERATION,
                                            .state = ORR_RANK_RUNNING,
                                            .pid = 100,
                                            .device = 1,
                                            .is_frozen = true,
                                            .cut = 9,
                                            .cut_step = ORR_CUT_QUIESCE};
    int rc = setup(state);
    left_behind = (struct orr_rec_rank_row){0};
    return rc;
}

static void restarted_host_knows_its_stopped_ranks(void **state)
{
    (void)state;
    asks_ranks = true;
    ask();
    asks_ranks = false;
    assert_int_equal(found.cut, 9);
    assert_int_equal(found.step, ORR_CUT_QUIESCE);
    continued = 0;
    run_for(3000);
    assert_int_equal(continued, 0); /* it stays frozen until its resume */
    step(9, ORR_CUT_QUIESCE);       /* it may have been in the middle of it */
    assert_string_equal(did, "thaw0 lib-quiesce-0 freeze0 ");
    assert_int_equal(last.state, ORR_STEP_DONE);
    step(9, ORR_CUT_RESUME);
    assert_string_equal(did, "thaw0 lib-resume-0 free9 ");
    assert_int_equal(last.state, ORR_STEP_DONE);
    assert_int_equal(noted.step, ORR_CUT_NONE);
}

/* On a network of theirs, or on the machines'. */
static void ranks_meet_where_rank_0_is(void **state)
{
    (void)state;
    const struct orr_rec_rank_place place = {.rank = 0, .node = ORR_LIT("n1")};
    launch(NULL);
    next_launch.ranks = (struct orr_list_rank_place){&place, 1};
    next_launch.job = ORR_LIT("k");
    next_launch.master_addr = ORR_LIT("192.0.2.5");
    did[0] = '\0';
    ask();
    assert_non_null(strstr(did, "launch0"));
    assert_false(wants_image);
    next_launch.job = ORR_LIT("l");
    next_launch.master_addr = ORR_LIT("10.77.0.1");
    ask();
    assert_true(wants_image);
    const struct orr_msg_image_ability unable = {.text = ORR_LIT("no criu")};
    assert_int_equal(
        orr_system_post(sys, job, node, orr_msg_desc_image_ability(), &unable), ORR_OK);
    run_for(50);
    next_launch.job = ORR_LIT("m");
    did[0] = last_text[0] = '\0';
    ask();
    assert_null(strstr(did, "launch0"));
    assert_non_null(strstr(last_text, "no criu"));
    next_launch.job.len = 0;
}

#define STOP(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        STOP(stop_asks_its_edges_in_order_and_back),
        STOP(each_stop_is_noted_before_it_begins),
        STOP(ranks_meet_where_rank_0_is),
        cmocka_unit_test_setup_teardown(
            step_of_its_job_actor_thaws_a_rank_that_was_found, setup_found, teardown),
        cmocka_unit_test_setup_teardown(
            restarted_host_knows_its_stopped_ranks, setup_restarted, teardown),
        STOP(device_that_is_not_free_is_not_offered),
        STOP(saved_rank_is_a_part_in_the_store),
        STOP(arena_is_free_when_the_rank_runs_and_its_part_is_kept),
        STOP(next_stop_waits_for_the_part_of_the_last),
        STOP(stop_that_host_memory_cannot_hold_is_refused_before_it_begins),
        STOP(restored_rank_is_fetched_before_it_is_launched),
        STOP(rank_without_a_library_is_saved_and_restored_as_one),
        STOP(rank_of_two_processes_is_stopped_saved_and_restored_whole),
        STOP(part_of_an_earlier_version_has_one_arena),
        cmocka_unit_test(damaged_list_of_arenas_fails_the_launch),
        STOP(process_that_comes_back_in_a_resume_is_resumed_by_the_driver),
        STOP(restore_without_its_part_fails_the_launch),
        STOP(stopped_ranks_die_at_once_when_their_job_ends),
        cmocka_unit_test(refusal_of_any_edge_is_told_with_its_rank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
