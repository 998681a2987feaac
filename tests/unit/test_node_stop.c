/* SPDX-License-Identifier: Apache-2.0
 * test_node_stop.c - the node actor's share of a stop: in which order its edges are asked, what is told when one refuses, and
 * what a restore needs.
 */
#include "node/node.h"
#include "orrery/pool.h"
#include "system.h"

#include "orr_test.h"

enum { GENERATION = 2, HOST_MEMORY = 1 << 20 };

static uint64_t now;
static struct orr_system *sys;
static struct orr_addr node, edge_process, edge_device, edge_rank, job;
static char did[2048]; /* what the edges were asked, in order */
static uint16_t refuses;
static uint64_t used_bytes;
static uint32_t n_usage;
static struct orr_msg_cut_report last;
static uint32_t n_reports;
static char last_text[300], part_hash[80], env_link[160], restore_dir[300];
static bool is_launched;
static uint32_t launched_level, row_level, killed, continued;
static struct orr_msg_rank_note noted;
static struct orr_msg_ranks found;
static struct orr_rec_rank_row left_behind; /* by an earlier life of the host */

static uint64_t now_ms(void *arg)
{
    (void)arg;
    return now;
}
static const struct orr_clock the_clock = {now_ms, now_ms, NULL};

static void note(const char *what, uint32_t rank)
{
    size_t len = strlen(did);
    snprintf(did + len, sizeof(did) - len, "%s%u ", what, rank);
}

struct edge {
    char unused;
};
#define EDGE(message)                                                                  \
    ORR_HANDLER(edge, message)                                                         \
    static enum orr_err edge_on_##message(                                             \
        struct orr_ctx *ctx, struct edge *self, const struct orr_msg_##message *msg)

static enum orr_err answer(struct orr_ctx *ctx, uint16_t id)
{
    return refuses == id ? orr_refuse(ctx, ORR_EIO, "the edge said no") : ORR_OK;
}

EDGE(edge_greet)
{
    (void)self;
    (void)msg;
    const struct orr_rec_device_row devices[] = {
        {.index = 0, .uuid = ORR_LIT("GPU-a"), .is_healthy = true},
        {.index = 1, .uuid = ORR_LIT("GPU-b"), .is_healthy = true}};
    const struct orr_rec_env_var vars[] = {
        {ORR_LIT("LD_PRELOAD"), ORR_LIT("/o/libcuda.so.1")}};
    if (ctx->self.slot == edge_process.slot) {
        orr_send(ctx,
                 node,
                 processes_found,
                 .ranks = {&left_behind, left_behind.job.len > 0});
        orr_send(ctx, node, image_ability, .is_able = true);
    } else if (ctx->self.slot == edge_device.slot) {
        orr_send(
            ctx, node, devices_found, .devices = {devices, 2}, .rank_env = {vars, 1});
    }
    return ORR_OK;
}
EDGE(port_reserve)
{
    (void)self;
    (void)msg;
    orr_reply(ctx, port_reserved, .addr = ORR_LIT("127.0.0.1"), .port = 1234);
    return ORR_OK;
}
EDGE(process_launch)
{
    (void)self;
    note("launch", msg->rank);
    for (uint32_t i = 0; i < msg->env.n; i++)
        if (orr_str_eq(msg->env.at[i].name, ORR_LIT("ORRERY_RANK_LINK")))
            orr_str_copy(env_link, sizeof(env_link), msg->env.at[i].value);
    orr_str_copy(restore_dir, sizeof(restore_dir), msg->restore_dir);
    const struct orr_rec_rank_row row = {.job = msg->job,
                                         .generation = msg->generation,
                                         .rank = msg->rank,
                                         .state = ORR_RANK_RUNNING,
                                         .pid = 100,
                                         .level = ORR_LEVEL_IMAGE};
    orr_send(ctx, node, process_event, .rank = row);
    return ORR_OK;
}
EDGE(process_signal)
{
    (void)ctx;
    (void)self;
    killed += msg->signal == 9;
    continued += msg->signal == 18;
    return ORR_OK;
}
EDGE(process_freeze)
{
    (void)self;
    note(msg->is_frozen ? "freeze" : "thaw", msg->rank);
    return answer(ctx, ORR_MSG_process_freeze);
}
EDGE(rank_note)
{
    (void)self;
    noted = *msg;
    return answer(ctx, ORR_MSG_rank_note);
}
EDGE(ranks)
{
    (void)ctx;
    (void)self;
    found = *msg;
    return ORR_OK;
}
EDGE(process_image)
{
    (void)self;
    note("image", msg->rank);
    if (refuses == ORR_MSG_process_image)
        return answer(ctx, refuses);
    orr_reply(ctx, process_imaged, .bytes = 7);
    return ORR_OK;
}
EDGE(image_drop)
{
    (void)ctx;
    (void)self;
    (void)msg;
    note("drop", 0);
    return ORR_OK;
}
EDGE(device_usage)
{
    (void)self;
    n_usage++;
    orr_reply(ctx,
              device_used,
              .index = msg->index,
              .bytes = used_bytes,
              .processes = used_bytes > 0);
    return ORR_OK;
}
EDGE(device_suspend)
{
    (void)self;
    note("suspend", msg->pid);
    return answer(ctx, ORR_MSG_device_suspend);
}
EDGE(device_resume)
{
    (void)self;
    char text[64];
    snprintf(text, sizeof(text), "resume-%.*s-", ORR_STR_ARGS(msg->to));
    note(text, msg->pid);
    return answer(ctx, ORR_MSG_device_resume);
}
static bool is_store_slow, goes_on;
static struct orr_request slow_put;
EDGE(store_put)
{
    (void)self;
    note(msg->files.n ? "put-arena" : "put", 0);
    if (refuses == ORR_MSG_store_put)
        return answer(ctx, refuses);
    if (is_store_slow) {
        slow_put = orr_defer(ctx);
        orr_timer_set(ctx, 1, 1000, 0);
        return ORR_OK;
    }
    orr_reply(ctx, store_kept, .part = ORR_LIT("abc"), .bytes = 100, .new_bytes = 40);
    return ORR_OK;
}
EDGE(timer)
{
    (void)self;
    (void)msg;
    orr_reply_to(ctx, &slow_put, store_kept, .part = ORR_LIT("slow"));
    return ORR_OK;
}
EDGE(store_get)
{
    (void)self;
    note("get", msg->peers.n);
    if (refuses == ORR_MSG_store_get)
        return answer(ctx, refuses);
    orr_reply(ctx, store_got, .bytes = 1);
    return ORR_OK;
}
EDGE(rank_expect)
{
    (void)ctx;
    (void)self;
    note("expect", msg->rank);
    return ORR_OK;
}
EDGE(cut_step)
{
    (void)self;
    const struct orr_rec_rank_arena arena[] = {
        {.rank = 0, .process = 5, .path = ORR_LIT("/proc/self/fd/9"), .bytes = 4096}};
    char text[64];
    snprintf(text,
             sizeof(text),
             "lib-%s-%.*s",
             orr_cut_step_name(msg->step),
             msg->ranks.n ? (int)msg->ranks.at[0].node.len : 0,
             msg->ranks.n ? msg->ranks.at[0].node.ptr : "");
    note(text, 0);
    bool has_arena = msg->step == ORR_CUT_QUIESCE || msg->step == ORR_CUT_SAVE;
    bool is_refused = refuses == ORR_MSG_cut_step;
    orr_reply(ctx,
              cut_report,
              .job = msg->job,
              .generation = msg->generation,
              .cut = msg->cut,
              .step = msg->step,
              .round = msg->round,
              .state = is_refused ? ORR_STEP_FAILED : ORR_STEP_DONE,
              .culprit = 0,
              .text = orr_str(is_refused ? "the library said no" : ""),
              .device_bytes = msg->step == ORR_CUT_QUIESCE ? 3000 : 0,
              .arenas = {arena, has_arena});
    return ORR_OK;
}
#define IGNORES(message)                                                               \
    EDGE(message)                                                                      \
    {                                                                                  \
        (void)ctx;                                                                     \
        (void)self;                                                                    \
        (void)msg;                                                                     \
        return ORR_OK;                                                                 \
    }
EDGE(rank_arena_drop)
{
    (void)ctx;
    (void)self;
    if (msg->job.len)
        note("free", (uint32_t)msg->cut);
    return ORR_OK;
}
IGNORES(rank_forgotten)
IGNORES(process_lease)
IGNORES(process_forget)
IGNORES(node_note)
IGNORES(node_register)
IGNORES(node_heartbeat)
/* the job actor */
EDGE(cut_report)
{
    (void)ctx;
    (void)self;
    n_reports++;
    last = *msg;
    orr_str_copy(last_text, sizeof(last_text), msg->text);
    if (msg->parts.n)
        orr_str_copy(part_hash, sizeof(part_hash), msg->parts.at[0].hash);
    return ORR_OK;
}
EDGE(rank_launched)
{
    (void)ctx;
    (void)self;
    is_launched = true;
    launched_level = msg->level;
    return ORR_OK;
}
EDGE(rank_update)
{
    (void)ctx;
    (void)self;
    row_level = msg->rank.level;
    return ORR_OK;
}
EDGE(failed)
{
    (void)ctx;
    (void)self;
    orr_str_copy(last_text, sizeof(last_text), msg->text);
    return ORR_OK;
}
IGNORES(ack)
static struct orr_msg_cut_step next_step;
static struct orr_msg_rank_launch next_launch;
static bool asks_ranks;
EDGE(ping)
{
    (void)self;
    (void)msg;
    if (asks_ranks)
        orr_ask(ctx,
                node,
                2000,
                1,
                ranks_get,
                .job = ORR_LIT("j"),
                .generation = GENERATION);
    else if (next_launch.job.len)
        ctx->ops->ask(ctx, node, 9000, 1, orr_msg_desc_rank_launch(), &next_launch);
    else
        ctx->ops->ask(ctx, node, 2000, 1, orr_msg_desc_cut_step(), &next_step);
    return ORR_OK;
}

#define ROW(message) ORR_ON(edge, message, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE)
static const struct orr_handler handlers[] = {
    ROW(edge_greet),     ROW(port_reserve),    ROW(process_launch),
    ROW(process_signal), ROW(process_freeze),  ROW(process_image),
    ROW(image_drop),     ROW(device_usage),    ROW(device_suspend),
    ROW(device_resume),  ROW(store_put),       ROW(store_get),
    ROW(timer),          ROW(rank_expect),     ROW(cut_step),
    ROW(rank_forgotten), ROW(rank_arena_drop), ROW(process_lease),
    ROW(process_forget), ROW(node_note),       ROW(node_register),
    ROW(node_heartbeat), ROW(cut_report),      ROW(rank_launched),
    ROW(rank_update),    ROW(failed),          ROW(ack),
    ROW(rank_note),      ROW(ranks),           ROW(ping),
};
static const struct orr_actor_type edge_type = {
    .name = "edge",
    .state_size = sizeof(struct edge),
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
};

static void run_for(uint64_t ms)
{
    for (uint64_t until = now + ms; now < until;) {
        while (orr_system_step(sys))
            ;
        uint64_t due = orr_system_next_due_ms(sys);
        now = due > now && due < until ? due : until;
    }
}

static struct orr_addr
spawn(const struct orr_actor_type *type, const void *args, const char *path)
{
    struct orr_addr addr;
    assert_int_equal(
        orr_system_spawn(
            sys, &(struct orr_spawn){type, args, path, ORR_PERMANENT}, &addr),
        ORR_OK);
    return addr;
}

static void ask(void)
{
    const struct orr_msg_ping ping = {0};
    assert_int_equal(orr_system_post(sys, job, job, orr_msg_desc_ping(), &ping),
                     ORR_OK);
    run_for(60);
}

static uint8_t spec[2048];
static size_t spec_len;

static void launch(const struct orr_rec_part *parts)
{
    const struct orr_rec_rank_place places[] = {
        {.rank = 0, .node = ORR_LIT("n1"), .device = 0}};
    const struct orr_rec_text command = {ORR_LIT("true")};
    const struct orr_msg_job_spec msg = {
        .world = 1, .gpus_max = 1, .command = {&command, 1}};
    assert_int_equal(
        orr_msg_encode(orr_msg_desc_job_spec(), &msg, spec, sizeof(spec), &spec_len),
        ORR_OK);
    next_launch =
        (struct orr_msg_rank_launch){.job = ORR_LIT("j"),
                                     .generation = GENERATION,
                                     .spec = {spec, (uint32_t)spec_len},
                                     .master_addr = orr_str(parts ? "10.77.0.1" : ""),
                                     .ranks = {places, 1},
                                     .link = 42,
                                     .overlay = 43,
                                     .parts = {parts, parts ? 1 : 0},
                                     .cut = parts ? 5 : 0};
    ask();
    next_launch.job.len = 0;
}

static int setup(void **state)
{
    (void)state;
    struct orr_error err;
    now = 1000;
    refuses = 0;
    used_bytes = n_usage = n_reports = killed = row_level = 0;
    is_launched = is_store_slow = goes_on = false;
    did[0] = last_text[0] = part_hash[0] = env_link[0] = restore_dir[0] = '\0';
    const struct orr_system_config config = {
        .host = "h",
        .incarnation = 1,
        .clock = &the_clock,
        .seed = 7,
    };
    assert_int_equal(orr_system_new(&config, &sys, &err), ORR_OK);
    spawn(&edge_type, NULL, "/eu1/c1");
    job = spawn(&edge_type, NULL, "/eu1/c1/job/j/2");
    edge_process = spawn(&edge_type, NULL, "/edge/process");
    edge_device = spawn(&edge_type, NULL, "/edge/device");
    edge_rank = spawn(&edge_type, NULL, "/edge/rank");
    spawn(&edge_type, NULL, "/edge/store");
    node = orr_addr_named(ORR_LIT("h"), ORR_LIT("/eu1/c1/n1"));
    node = spawn(&orr_node_type,
                 &(struct orr_node_args){.region = "eu1",
                                         .cluster = "c1",
                                         .node = "n1",
                                         .cluster_host = "h",
                                         .host = "h",
                                         .has_stops = true,
                                         .run_dir = "/run/o",
                                         .images_dir = "/tmp/i",
                                         .stop_bytes_max = HOST_MEMORY},
                 "/eu1/c1/n1");
    assert_int_equal(orr_system_start(sys, &err), ORR_OK);
    run_for(50);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    orr_system_stop(sys);
    orr_system_free(sys);
    return 0;
}

static void step(uint64_t cut, enum orr_cut_step what)
{
    static const struct orr_rec_rank_place other[] = {{.rank = 0, .device = 1}};
    did[0] = '\0';
    next_step = (struct orr_msg_cut_step){.job = ORR_LIT("j"),
                                          .generation = GENERATION,
                                          .cut = cut,
                                          .step = what,
                                          .timeout_ms = 5000,
                                          .round = 1,
                                          .is_detached = true,
                                          .keeps_running = goes_on,
                                          .ranks = {other, what == ORR_CUT_RESUME}};
    ask();
}

static void start_running(void)
{
    launch(NULL);
    assert_string_equal(last_text, "");
    assert_true(is_launched);
    assert_int_equal(launched_level, ORR_LEVEL_IMAGE);
    assert_string_equal(did, "expect0 launch0 ");
    assert_memory_equal(env_link, "/run/o/", 7);
    const struct orr_msg_rank_ability can = {
        .job = ORR_LIT("j"), .generation = GENERATION, .pid = 55};
    assert_int_equal(
        orr_system_post(sys, edge_rank, node, orr_msg_desc_rank_ability(), &can),
        ORR_OK);
    run_for(50);
    assert_int_equal(row_level, ORR_LEVEL_IMAGE);
}

static void cut_and_quiesce(void)
{
    step(9, ORR_CUT_BEGIN);
    assert_int_equal(last.state, ORR_STEP_DONE);
    step(9, ORR_CUT_TARGETS);
    step(9, ORR_CUT_QUIESCE);
}

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
    assert_string_equal(did, "lib-quiesce-0 freeze0 ");
    assert_int_equal(last.state, ORR_STEP_DONE);
    step(9, ORR_CUT_RESUME);
    assert_string_equal(did, "thaw0 lib-resume-0 free9 ");
    assert_int_equal(last.state, ORR_STEP_DONE);
    assert_int_equal(noted.step, ORR_CUT_NONE);
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
    assert_string_equal(did, "image0 put-arena0 drop0 ");
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
    assert_string_equal(did, "image0 put-arena0 ");
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
    assert_non_null(strstr(did, "drop0 put-arena0 drop0 "));
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
                                      .process = 5};
    launch(&part);
    assert_true(is_launched);
    assert_string_equal(did, "expect0 lib-save-0 get1 launch0 ");
    assert_memory_equal(restore_dir, "/tmp/i/j-2-5-0", 14);
    step(9, ORR_CUT_RESUME);
    assert_int_equal(last.state, ORR_STEP_DONE);
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

#define STOP(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        STOP(stop_asks_its_edges_in_order_and_back),
        STOP(each_stop_is_noted_before_it_begins),
        cmocka_unit_test_setup_teardown(
            restarted_host_knows_its_stopped_ranks, setup_restarted, teardown),
        STOP(device_that_is_not_free_is_not_offered),
        STOP(saved_rank_is_a_part_in_the_store),
        STOP(arena_is_free_when_the_rank_runs_and_its_part_is_kept),
        STOP(next_stop_waits_for_the_part_of_the_last),
        STOP(stop_that_host_memory_cannot_hold_is_refused_before_it_begins),
        STOP(restored_rank_is_fetched_before_it_is_launched),
        STOP(restore_without_its_part_fails_the_launch),
        STOP(stopped_ranks_die_at_once_when_their_job_ends),
        cmocka_unit_test(refusal_of_any_edge_is_told_with_its_rank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
