/* SPDX-License-Identifier: Apache-2.0
 * test_job_stop.c - the job actor's stop plan against two nodes, a cluster and a region that do what the test says:
 * each phase, and in each a node that is silent, refuses, dies, repeats itself or answers late.
 */
#include "job_stop_peers.h"

#include "orr_test.h"

/* ---- a job of four ranks on two nodes ---- */

static void show_log(void *arg,
                     enum orr_log_level level,
                     uint64_t wall,
                     const char *who,
                     const char *text)
{
    (void)arg;
    (void)wall;
    if (getenv("ORR_SIM_LOG"))
        fprintf(stderr, "%8u %d %s: %s\n", (unsigned)now, (int)level, who, text);
}

static void run_for(uint64_t ms)
{
    for (uint64_t until = now + ms; now < until;) {
        while (orr_system_step(sys))
            ;
        uint64_t due = orr_system_next_due_ms(sys);
        now = due > now && due < until ? due : until;
    }
}

static void post(const struct orr_msg_desc *desc, const void *msg)
{
    assert_int_equal(orr_system_post(sys, peers[NODES], job, desc, msg), ORR_OK);
}

static void start(const struct orr_msg_job_start *how)
{
    struct orr_rec_job_node list[NODES];
    for (uint32_t i = 0; i < NODES; i++)
        list[i] = (struct orr_rec_job_node){
            .node = orr_str(node_name(i)), .state = ORR_NODE_UP, .addr = peers[i]};
    struct orr_msg_job_start msg = *how;
    msg.ranks = all_places(0);
    msg.nodes = (struct orr_list_job_node){list, NODES};
    post(orr_msg_desc_job_start(), &msg);
    run_for(300);
}

static uint64_t hang_ms;

static int setup(void **state)
{
    (void)state;
    static const char *const paths[NODES + 2] = {
        "/eu1/c1/n0", "/eu1/c1/n1", "/eu1/c1", "/eu1"};
    struct orr_error err;
    memset(nodes, 0, sizeof(nodes));
    memset(&region, 0, sizeof(region));
    memset(&cluster, 0, sizeof(cluster));
    now = 1000;
    const struct orr_system_config config = {.host = "h",
                                             .incarnation = 1,
                                             .clock = &the_clock,
                                             .seed = 7,
                                             .log = show_log,
                                             .log_level = ORR_LOG_DEBUG};
    assert_int_equal(orr_system_new(&config, &sys, &err), ORR_OK);
    for (uint32_t i = 0; i < NODES + 2; i++) {
        const struct peer_args args = {i};
        assert_int_equal(
            orr_system_spawn(
                sys,
                &(struct orr_spawn){&peer_type, &args, paths[i], ORR_PERMANENT},
                &peers[i]),
            ORR_OK);
    }
    struct orr_job_args args = {.region = "eu1",
                                .cluster = "c1",
                                .leader = peers[NODES + 1],
                                .job = "eu1-1",
                                .generation = GENERATION,
                                .world = WORLD,
                                .n_nodes = NODES,
                                .hang_ms = hang_ms,
                                .spec_bytes = 8};
    assert_int_equal(orr_system_spawn(sys,
                                      &(struct orr_spawn){&orr_job_type,
                                                          &args,
                                                          "/eu1/c1/job/eu1-1/3",
                                                          ORR_TEMPORARY},
                                      &job),
                     ORR_OK);
    assert_int_equal(orr_system_start(sys, &err), ORR_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    orr_system_stop(sys);
    orr_system_free(sys);
    return 0;
}

static void start_running(void)
{
    start(&(struct orr_msg_job_start){0});
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_int_equal(region.level, ORR_LEVEL_IMAGE);
}

static void order(uint64_t number, enum orr_order what)
{
    const struct orr_msg_job_order msg = {.job = ORR_LIT("eu1-1"),
                                          .generation = GENERATION,
                                          .number = number,
                                          .order = what,
                                          .checkpoint = 9};
    post(orr_msg_desc_job_order(), &msg);
}

static bool was_in(uint32_t phase)
{
    for (uint32_t i = 0; i < region.n_phases; i++)
        if (region.phases[i] == phase)
            return true;
    return false;
}

static uint32_t steps(enum orr_cut_step step)
{
    return nodes[0].n_steps[step] && nodes[1].n_steps[step];
}

/* ---- */

static void suspended_job_frees_its_devices_and_goes_on_with_others(void **state)
{
    (void)state;
    start_running();
    order(1, ORR_ORDER_SUSPEND);
    run_for(1000);
    assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
    assert_int_equal(cluster.n_freed, 1);
    assert_true(steps(ORR_CUT_RELEASE));
    assert_false(steps(ORR_CUT_SAVE));
    order(1, ORR_ORDER_SUSPEND); /* repeated: nothing */
    run_for(60000);
    assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
    order(2, ORR_ORDER_RUN);
    run_for(1000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_true(region.has_restored_places);
    assert_int_equal(cluster.n_want, 1);
    assert_int_equal(region.n_failed, 0);
    order(3, ORR_ORDER_SUSPEND); /* again, with a later cut */
    run_for(1000);
    assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
}

static void resume_without_devices_stays_suspended_and_says_so(void **state)
{
    (void)state;
    start_running();
    order(1, ORR_ORDER_SUSPEND);
    run_for(1000);
    cluster.has_no_devices = true;
    order(2, ORR_ORDER_RUN);
    run_for(1000);
    assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
    assert_int_equal(region.failed_code, ORR_ENODEV);
    assert_int_equal(region.failed_number, 2);
    cluster.has_no_devices = false;
    order(3, ORR_ORDER_RUN);
    run_for(1000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
}

static void checkpoint_is_committed_while_the_job_runs(void **state)
{
    (void)state;
    start_running();
    nodes[1].has_no_parts = true;
    order(1, ORR_ORDER_CHECKPOINT);
    run_for(2000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_true(steps(ORR_CUT_RESUME));
    assert_int_equal(region.n_commits, 0);
    nodes[1].has_no_parts = false;
    run_for(3000);
    assert_int_equal(region.n_commits, 1);
    assert_int_equal(region.commit_order, 1);
    assert_int_equal(region.commit_parts, WORLD);
    assert_false(was_in(ORR_JOB_STOPPING));
}

static void store_that_never_ends_fails_the_order_and_not_the_job(void **state)
{
    (void)state;
    start_running();
    nodes[0].has_no_parts = true;
    order(1, ORR_ORDER_CHECKPOINT);
    run_for(100000);
    assert_int_equal(region.n_commits, 0);
    assert_int_equal(region.n_failed, 1);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
}

static void vacated_job_ends_moved_after_its_commit(void **state)
{
    (void)state;
    start_running();
    order(1, ORR_ORDER_VACATE);
    run_for(3000);
    assert_int_equal(region.n_commits, 1);
    assert_int_equal(region.n_ended, 1);
    assert_int_equal(region.outcome, ORR_OUTCOME_MOVED);
    assert_int_equal(nodes[0].n_steps[ORR_CUT_RESUME], 0);
}

static void refused_commit_undoes_the_move(void **state)
{
    (void)state;
    start_running();
    cluster.refuses_commit = true;
    order(1, ORR_ORDER_VACATE);
    run_for(3000);
    assert_int_equal(region.n_ended, 0);
    assert_int_equal(region.n_failed, 1);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
}

static void suspended_job_can_be_vacated(void **state)
{
    (void)state;
    start_running();
    order(1, ORR_ORDER_SUSPEND);
    run_for(1000);
    order(2, ORR_ORDER_VACATE);
    run_for(3000);
    assert_int_equal(region.outcome, ORR_OUTCOME_MOVED);
    assert_int_equal(region.n_commits, 1);
    assert_int_equal(cluster.n_want, 0);
}

static void suspended_job_can_be_saved_and_stays_suspended(void **state)
{
    (void)state;
    start_running();
    order(1, ORR_ORDER_SUSPEND);
    run_for(1000);
    order(2, ORR_ORDER_CHECKPOINT);
    run_for(3000);
    assert_int_equal(region.n_commits, 1);
    assert_int_equal(region.commit_paused_ms, 0);
    assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
    order(3, ORR_ORDER_RUN);
    run_for(1000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
}

/* Each step of a way, and what happens to one node in it. */
static const enum orr_cut_step way[] = {
    ORR_CUT_BEGIN, ORR_CUT_TARGETS, ORR_CUT_QUIESCE, ORR_CUT_SAVE, ORR_CUT_RELEASE};

static enum orr_order order_with(enum orr_cut_step step)
{
    return step == ORR_CUT_SAVE ? ORR_ORDER_VACATE : ORR_ORDER_SUSPEND;
}

static void begin_with(enum orr_cut_step step,
                       void (*fault)(struct peer_script *, uint32_t))
{
    void *state = NULL;
    setup(&state);
    start_running();
    fault(&nodes[1], step);
    order(1, order_with(step));
}

static void is_undone(enum orr_cut_step step)
{
    bool is_early = step <= ORR_CUT_TARGETS;
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_int_equal(region.n_failed, 1);
    assert_int_equal(region.failed_number, 1);
    assert_non_null(strstr(region.failed, orr_cut_step_name(step)));
    assert_non_null(strstr(region.failed, "n1"));
    assert_true(steps(is_early ? ORR_CUT_OPEN : ORR_CUT_RESUME));
    assert_int_equal(cluster.n_freed, 0);
}

static void set_silent(struct peer_script *node, uint32_t step)
{
    node->silent_at = step;
}
static void silent_node_undoes_the_stop_in_each_phase(void **state)
{
    for (size_t i = 0; i < ORR_ARRAY_SIZE(way); i++) {
        begin_with(way[i], set_silent);
        run_for(200000);
        nodes[1].silent_at = 0;
        run_for(5000);
        is_undone(way[i]);
        nodes[1].n_steps[ORR_CUT_BEGIN] = 0; /* and it works at the next time */
        order(2, ORR_ORDER_SUSPEND);
        run_for(5000);
        assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
        teardown(state);
    }
}

static void set_failing(struct peer_script *node, uint32_t step)
{
    node->fail_at = step;
}
static void refusing_node_undoes_the_stop_in_each_phase(void **state)
{
    for (size_t i = 0; i < ORR_ARRAY_SIZE(way); i++) {
        begin_with(way[i], set_failing);
        run_for(5000);
        is_undone(way[i]);
        assert_non_null(strstr(region.failed, "rank 2"));
        assert_non_null(strstr(region.failed, "the driver said no"));
        teardown(state);
    }
}

static void set_late(struct peer_script *node, uint32_t step)
{
    node->late_at = step;
}
static void answers_of_an_older_cut_change_nothing(void **state)
{
    for (size_t i = 0; i < ORR_ARRAY_SIZE(way); i++) {
        begin_with(way[i], set_late);
        run_for(5000);
        assert_int_equal(region.n_failed, 0);
        assert_true(nodes[1].n_steps[way[i]] > 1);
        if (way[i] == ORR_CUT_SAVE)
            assert_int_equal(region.outcome, ORR_OUTCOME_MOVED);
        else
            assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
        teardown(state);
    }
}

static void node_lost_in_the_middle_is_judged_first(void **state)
{
    for (size_t i = 0; i < ORR_ARRAY_SIZE(way); i++) {
        begin_with(way[i], set_silent);
        run_for(1000);
        nodes[1].is_dead = true;
        post(orr_msg_desc_node_changed(),
             &(const struct orr_msg_node_changed){.node = ORR_LIT("n1"),
                                                  .state = ORR_NODE_LOST});
        run_for(5000);
        assert_int_equal(region.n_ended, 1);
        assert_int_equal(region.outcome, ORR_OUTCOME_LOST);
        assert_int_equal(region.n_commits, 0);
        teardown(state);
    }
}

static void rank_that_dies_in_the_middle_is_judged_first(void **state)
{
    for (size_t i = 0; i < ORR_ARRAY_SIZE(way); i++) {
        begin_with(way[i], set_silent);
        run_for(1000);
        nodes[0].state[1] = ORR_RANK_EXITED;
        struct orr_msg_rank_update msg = {.node = ORR_LIT("n0"), .rank = row_of(1)};
        msg.rank.signal = 9;
        post(orr_msg_desc_rank_update(), &msg);
        run_for(5000);
        assert_int_equal(region.n_ended, 1);
        assert_int_equal(region.outcome, ORR_OUTCOME_FAILED);
        teardown(state);
    }
}

static void later_order_replaces_an_earlier_one(void **state)
{
    for (size_t i = 0; i < ORR_ARRAY_SIZE(way); i++) {
        begin_with(way[i], set_silent);
        run_for(1000);
        order(2, ORR_ORDER_RUN);
        run_for(500);
        nodes[1].silent_at = 0;
        run_for(5000);
        assert_int_equal(region.phase, ORR_JOB_RUNNING);
        assert_int_equal(region.n_failed, 0);
        assert_int_equal(region.n_ended, 0);
        teardown(state);
    }
}

static void resume_that_fails_is_tried_again_until_its_time_is_over(void **state)
{
    (void)state;
    start_running();
    order(1, ORR_ORDER_SUSPEND);
    run_for(1000);
    nodes[0].fail_at = ORR_CUT_RESUME;
    order(2, ORR_ORDER_RUN);
    run_for(10000);
    assert_int_equal(region.phase, ORR_JOB_RESTORING);
    assert_true(nodes[0].n_steps[ORR_CUT_RESUME] > 3);
    assert_true(nodes[0].n_steps[ORR_CUT_RESUME] < 100);
    nodes[0].fail_at = 0;
    run_for(5000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    order(3, ORR_ORDER_SUSPEND);
    run_for(1000);
    nodes[0].fail_at = ORR_CUT_RESUME;
    order(4, ORR_ORDER_RUN);
    run_for(200000);
    assert_int_equal(region.outcome, ORR_OUTCOME_LOST);
    assert_non_null(strstr(region.reason, "the driver said no"));
}

/* The move that it was saved for is replaced; that its store is full then is no reason not to run. */
static void save_that_fails_for_an_older_order_does_not_fail_the_resume(void **state)
{
    (void)state;
    start_running();
    order(1, ORR_ORDER_SUSPEND);
    run_for(1000);
    nodes[0].silent_at = ORR_CUT_SAVE;
    order(2, ORR_ORDER_VACATE);
    run_for(500);
    order(3, ORR_ORDER_RUN);
    nodes[0].silent_at = ORR_CUT_NONE;
    nodes[0].fail_at = ORR_CUT_SAVE;
    run_for(5000);
    assert_int_equal(region.n_failed, 0);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
}

/* It was slow, which is no reason to lose its steps since the checkpoint; and hangs do end. */
static void resume_that_takes_long_is_given_more_time(void **state)
{
    (void)state;
    start_running();
    order(1, ORR_ORDER_SUSPEND);
    run_for(1000);
    nodes[0].silent_at = ORR_CUT_RESUME;
    order(2, ORR_ORDER_RUN);
    run_for(100000);
    assert_int_equal(region.phase, ORR_JOB_RESTORING);
    nodes[0].silent_at = ORR_CUT_NONE;
    run_for(2000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    order(3, ORR_ORDER_SUSPEND);
    run_for(1000);
    nodes[0].silent_at = ORR_CUT_RESUME;
    order(4, ORR_ORDER_RUN);
    run_for(450000);
    assert_int_equal(region.outcome, ORR_OUTCOME_LOST);
}

static void recovered_job_resumes_what_was_half_done(void **state)
{
    for (size_t i = 0; i < ORR_ARRAY_SIZE(way); i++) {
        setup(state);
        for (uint32_t n = 0; n < NODES; n++) {
            for (uint32_t r = 0; r < WORLD; r++)
                nodes[n].state[r] = ORR_RANK_RUNNING;
            nodes[n].found_cut = n == 0 ? 77 : 76;
            nodes[n].found_step = n == 0 ? way[i] : ORR_CUT_NONE;
        }
        start(&(struct orr_msg_job_start){.is_recovery = true});
        run_for(2000);
        assert_int_equal(region.phase, ORR_JOB_RUNNING);
        assert_true(steps(way[i] <= ORR_CUT_TARGETS ? ORR_CUT_OPEN : ORR_CUT_RESUME));
        teardown(state);
    }
}

static void recovered_suspended_job_stays_suspended(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < NODES; n++) {
        for (uint32_t r = 0; r < WORLD; r++)
            nodes[n].state[r] = ORR_RANK_RUNNING;
        nodes[n].found_cut = n == 0 ? 77 : 0; /* one has forgotten */
        nodes[n].found_step = n == 0 ? ORR_CUT_RELEASE : ORR_CUT_NONE;
    }
    start(&(struct orr_msg_job_start){.is_recovery = true, .is_suspended = true});
    run_for(2000);
    assert_int_equal(region.phase, ORR_JOB_SUSPENDED);
    assert_int_equal(cluster.n_freed, 1);
    assert_int_equal(nodes[0].n_steps[ORR_CUT_RESUME], 0);
    order(5, ORR_ORDER_RUN);
    run_for(2000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
}

static void restored_job_resumes_with_a_later_cut(void **state)
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
        .parts = {parts, WORLD}};
    assert_int_equal(
        orr_msg_encode(orr_msg_desc_manifest(), &manifest, body, sizeof(body), &len),
        ORR_OK);
    nodes[0].silent_at = ORR_CUT_RESUME;
    start(&(struct orr_msg_job_start){.manifest = {body, (uint32_t)len}});
    assert_int_equal(region.phase, ORR_JOB_RESTORING);
    nodes[0].silent_at = 0;
    run_for(5000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_int_equal(nodes[0].n_steps[ORR_CUT_BEGIN], 0);
}

static void job_that_cannot_be_stopped_refuses(void **state)
{
    (void)state;
    start_running();
    struct orr_msg_rank_update msg = {.node = ORR_LIT("n0"), .rank = row_of(0)};
    msg.rank.level = ORR_LEVEL_NONE;
    msg.rank.why_level = ORR_LIT("uses cuMemAllocManaged");
    post(orr_msg_desc_rank_update(), &msg);
    run_for(500);
    assert_int_equal(region.level, ORR_LEVEL_NONE);
    order(1, ORR_ORDER_SUSPEND);
    run_for(1000);
    assert_int_equal(nodes[0].n_steps[ORR_CUT_BEGIN], 0);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
}

static void tell_idle(uint32_t node, uint64_t issued, uint64_t idle_ms)
{
    const struct orr_rec_clock clocks[2] = {
        {.rank = node * 2,
         .comm = 77,
         .me = node * 2,
         .n = WORLD,
         .issued = issued,
         .op = node ? ORR_CLOCK_OP_BROADCAST : ORR_CLOCK_OP_ALL_REDUCE,
         .idle_ms = idle_ms},
        {.rank = node * 2 + 1,
         .comm = 77,
         .me = node * 2 + 1,
         .n = WORLD,
         .issued = 42,
         .op = ORR_CLOCK_OP_ALL_REDUCE,
         .idle_ms = idle_ms}};
    const struct orr_msg_rank_idle msg = {.job = ORR_LIT("eu1-1"),
                                          .generation = GENERATION,
                                          .node = orr_str(node_name(node)),
                                          .clocks = {clocks, 2}};
    post(orr_msg_desc_rank_idle(), &msg);
    run_for(100);
}

static void hang_names_rank_communicator_count_and_call(void **state)
{
    (void)state;
    start_running();
    tell_idle(0, 42, 20000);
    tell_idle(1, 41, 20000);
    assert_string_equal(region.reason, "");
    run_for(31000);
    tell_idle(0, 42, 31000);
    tell_idle(1, 41, 31000);
    assert_non_null(
        strstr(region.reason, "hangs: rank 2 has issued 41 of 42 collectives"));
    assert_non_null(strstr(region.reason,
                           "000000000000004d (4 ranks): peers wait in ncclAllReduce"));
    assert_non_null(strstr(region.reason, "ncclBroadcast"));
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    tell_idle(1, 42, 31000); /* it came */
    assert_string_equal(region.reason, "");
}

static void ranks_that_all_compute_do_not_hang(void **state)
{
    (void)state;
    start_running();
    run_for(31000);
    tell_idle(0, 42, 300000);
    tell_idle(1, 42, 300000);
    assert_string_equal(region.reason, "");
    run_for(30000); /* what node 0 said is old by then */
    tell_idle(1, 41, 300000);
    assert_non_null(strstr(region.reason, "rank 2")); /* rank 3 waits for it */
    tell_idle(0, 43, 5000); /* but now somebody has just come: no hang yet */
    assert_string_equal(region.reason, "");
}

/* The program's fault; what becomes of its ranks when they are stopped does not take the blame. */
static void hang_of_that_length_fails_the_job(void **state)
{
    (void)state;
    start_running();
    run_for(45000);
    tell_idle(0, 42, 45000);
    tell_idle(1, 41, 45000);
    assert_non_null(strstr(region.reason, "hangs: rank 2"));
    assert_int_equal(region.n_ended, 0);
    run_for(16000);
    tell_idle(0, 42, 61000);
    tell_idle(1, 41, 61000);
    run_for(30000);
    assert_int_equal(region.n_ended, 1);
    assert_int_equal(region.outcome, ORR_OUTCOME_FAILED);
    assert_int_equal(region.culprit, 2);
    assert_non_null(strstr(region.reason, "hung (time.hang): rank 2 has issued 41"));
}

static void time_in_which_a_job_was_suspended_is_no_hang(void **state)
{
    (void)state;
    start_running();
    order(1, ORR_ORDER_SUSPEND);
    run_for(100000);
    order(2, ORR_ORDER_RUN);
    run_for(2000);
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    tell_idle(0, 42, 102000);
    tell_idle(1, 41, 102000);
    assert_string_equal(region.reason, "");
    assert_int_equal(region.n_ended, 0);
    run_for(61000);
    tell_idle(0, 42, 163000);
    tell_idle(1, 41, 163000);
    run_for(30000);
    assert_int_equal(region.n_ended, 1);
}

static int setup_hang(void **state)
{
    hang_ms = 60000;
    int rc = setup(state);
    hang_ms = 0;
    return rc;
}

#define HANG(f) cmocka_unit_test_setup_teardown(f, setup_hang, teardown)
#define STOP(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        STOP(suspended_job_frees_its_devices_and_goes_on_with_others),
        STOP(resume_without_devices_stays_suspended_and_says_so),
        STOP(checkpoint_is_committed_while_the_job_runs),
        STOP(store_that_never_ends_fails_the_order_and_not_the_job),
        STOP(vacated_job_ends_moved_after_its_commit),
        STOP(refused_commit_undoes_the_move),
        STOP(suspended_job_can_be_vacated),
        STOP(suspended_job_can_be_saved_and_stays_suspended),
        STOP(resume_that_fails_is_tried_again_until_its_time_is_over),
        STOP(resume_that_takes_long_is_given_more_time),
        STOP(save_that_fails_for_an_older_order_does_not_fail_the_resume),
        STOP(recovered_suspended_job_stays_suspended),
        STOP(restored_job_resumes_with_a_later_cut),
        STOP(job_that_cannot_be_stopped_refuses),
        STOP(hang_names_rank_communicator_count_and_call),
        STOP(ranks_that_all_compute_do_not_hang),
        HANG(hang_of_that_length_fails_the_job),
        HANG(time_in_which_a_job_was_suspended_is_no_hang),
        cmocka_unit_test(silent_node_undoes_the_stop_in_each_phase),
        cmocka_unit_test(refusing_node_undoes_the_stop_in_each_phase),
        cmocka_unit_test(answers_of_an_older_cut_change_nothing),
        cmocka_unit_test(node_lost_in_the_middle_is_judged_first),
        cmocka_unit_test(rank_that_dies_in_the_middle_is_judged_first),
        cmocka_unit_test(later_order_replaces_an_earlier_one),
        cmocka_unit_test(recovered_job_resumes_what_was_half_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
