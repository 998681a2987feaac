/* SPDX-License-Identifier: Apache-2.0
 * node_stop_bed.c - see node_stop_bed.h.
 */
#include "node_stop_bed.h"

#include "orrery/pool.h"

static uint64_t now;
struct orr_system *sys;
struct orr_addr node, edge_process, edge_device, edge_rank, job;
char did[2048]; /* what the edges were asked, in order */
uint16_t refuses;
uint64_t used_bytes;
uint32_t n_usage;
struct orr_msg_cut_report last;
static uint32_t n_reports;
char last_text[300], part_hash[80], part_arenas[80], env_link[160], restore_dir[300];
bool is_launched, stays_frozen, wants_image, dies;
uint32_t launched_level, row_level, killed, continued;
bool asks_ranks;
struct orr_msg_rank_note noted;
struct orr_msg_ranks found;
struct orr_rec_rank_row left_behind;
static bool is_anew; /* the host; its libraries have not come back */

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
    stays_frozen = msg->stays_frozen;
    wants_image = msg->wants_image;
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
    (void)self;
    killed += msg->signal == 9;
    continued += msg->signal == 18;
    const struct orr_rec_rank_row row = {.job = msg->job,
                                         .generation = msg->generation,
                                         .rank = msg->rank,
                                         .state = ORR_RANK_EXITED,
                                         .signal = 9};
    if (msg->signal == 9 && dies) {
        note("kill", msg->rank);
        orr_send(ctx, node, process_event, .rank = row);
    }
    return ORR_OK;
}
EDGE(process_freeze)
{
    (void)self;
    note(msg->is_frozen ? "freeze" : "thaw", msg->rank);
    return answer(ctx, ORR_MSG_process_freeze);
}
EDGE(process_widen)
{
    (void)self;
    note("widen", msg->rank);
    assert_int_equal(msg->overlay, 43);
    assert_true(orr_str_eq(msg->underlay, ORR_LIT("192.0.2.1:4789")));
    assert_true(msg->peers.n == 1 &&
                orr_str_eq(msg->peers.at[0].value, ORR_LIT("192.0.2.9:4789")));
    return answer(ctx, ORR_MSG_process_widen);
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
bool is_store_slow, goes_on, has_two, has_none, part_is_silent, expects_nobody;
uint32_t n_peers;
uint64_t part_arena_bytes;
static struct orr_request slow_put;
static void note_files(const char *what, struct orr_list_store_file files)
{
    char text[200];
    size_t used = (size_t)snprintf(text, sizeof(text), "%s", what);
    for (uint32_t i = 0; i < files.n; i++)
        used += (size_t)snprintf(
            text + used, sizeof(text) - used, "+%.*s", ORR_STR_ARGS(files.at[i].name));
    snprintf(text + used, sizeof(text) - used, "*");
    note(text, files.n);
}
EDGE(store_put)
{
    (void)self;
    note_files("put", msg->files);
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
    note_files("get", msg->files);
    n_peers = msg->peers.n;
    if (refuses == ORR_MSG_store_get)
        return answer(ctx, refuses);
    orr_reply(ctx, store_got, .bytes = 1);
    return ORR_OK;
}
EDGE(rank_expect)
{
    (void)ctx;
    (void)self;
    expects_nobody = msg->is_silent;
    if (msg->process)
        note("expect", msg->process);
    else
        note("start", msg->rank);
    return ORR_OK;
}
EDGE(cut_step)
{
    (void)self;
    bool is_away = is_anew || msg->step == ORR_CUT_SAVE;
    const struct orr_rec_rank_arena arena[] = {{.rank = 0,
                                                .process = 5,
                                                .path = ORR_LIT("/proc/self/fd/9"),
                                                .bytes = 4096,
                                                .pid = is_away ? 0 : 55},
                                               {.rank = 0,
                                                .process = 6,
                                                .path = ORR_LIT("/proc/self/fd/10"),
                                                .bytes = 8192,
                                                .pid = is_away ? 0 : 56}};
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
              .arenas = {arena, has_arena && !has_none ? (has_two ? 2 : 1) : 0});
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
EDGE(rank_forgotten)
{
    (void)ctx;
    (void)self;
    if (msg->is_one)
        note("left", msg->rank);
    return ORR_OK;
}
EDGE(process_forget)
{
    (void)ctx;
    (void)self;
    if (dies)
        note("forget", msg->rank);
    return ORR_OK;
}
IGNORES(process_lease)
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
    if (msg->parts.n) {
        orr_str_copy(part_hash, sizeof(part_hash), msg->parts.at[0].hash);
        orr_str_copy(part_arenas, sizeof(part_arenas), msg->parts.at[0].arenas);
        part_arena_bytes = msg->parts.at[0].arena_bytes;
        part_is_silent = msg->parts.at[0].is_silent;
    }
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
struct orr_msg_cut_step next_step;
struct orr_msg_rank_launch next_launch;
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
    ROW(process_widen),
};
static const struct orr_actor_type edge_type = {
    .name = "edge",
    .state_size = sizeof(struct edge),
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
};

void run_for(uint64_t ms)
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

void ask(void)
{
    const struct orr_msg_ping ping = {0};
    assert_int_equal(orr_system_post(sys, job, job, orr_msg_desc_ping(), &ping),
                     ORR_OK);
    run_for(60);
}

static uint8_t spec[2048];
static size_t spec_len;

void launch(const struct orr_rec_part *parts)
{
    const struct orr_rec_rank_place places[] = {
        {.rank = 0, .node = ORR_LIT("n1"), .device = 0}};
    static char word[1600]; /* so that not many have room */
    memset(word, 'x', sizeof(word) - 1);
    const struct orr_rec_text command[] = {{ORR_LIT("true")}, {orr_str(word)}};
    const struct orr_msg_job_spec msg = {
        .world = 1, .gpus_max = 1, .command = {command, 2}};
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

void join(uint64_t cut)
{
    const struct orr_rec_rank_place place = {
        .rank = 1, .node = ORR_LIT("n1"), .device = 1, .local_rank = 1};
    const struct orr_rec_part part = {.rank = 1,
                                      .hash = ORR_LIT("def"),
                                      .store = ORR_LIT("other"),
                                      .is_silent = true};
    did[0] = last_text[0] = '\0';
    is_launched = false;
    next_launch = (struct orr_msg_rank_launch){.job = ORR_LIT("j"),
                                               .generation = GENERATION,
                                               .spec = {spec, (uint32_t)spec_len},
                                               .master_addr = ORR_LIT("10.77.0.1"),
                                               .ranks = {&place, 1},
                                               .link = 42,
                                               .overlay = 43,
                                               .parts = {&part, 1},
                                               .cut = cut,
                                               .level = ORR_LEVEL_IMAGE,
                                               .is_joining = true};
    ask();
    next_launch.job.len = 0;
}

int setup(void **state)
{
    (void)state;
    struct orr_error err;
    now = 1000;
    refuses = 0;
    used_bytes = n_usage = n_reports = killed = row_level = 0;
    is_launched = is_store_slow = goes_on = has_two = has_none = false;
    part_is_silent = expects_nobody = stays_frozen = wants_image = dies = false;
    is_anew = left_behind.pid != 0;
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
                                         .machine = "192.0.2.1:4789",
                                         .has_stops = true,
                                         .run_dir = "/run/o",
                                         .images_dir = "/tmp/i",
                                         .stop_bytes_max = HOST_MEMORY},
                 "/eu1/c1/n1");
    assert_int_equal(orr_system_start(sys, &err), ORR_OK);
    run_for(50);
    return 0;
}

int teardown(void **state)
{
    (void)state;
    orr_system_stop(sys);
    orr_system_free(sys);
    return 0;
}

void step(uint64_t cut, enum orr_cut_step what)
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

void start_running(void)
{
    launch(NULL);
    assert_string_equal(last_text, "");
    assert_true(is_launched);
    assert_int_equal(launched_level, ORR_LEVEL_IMAGE);
    assert_string_equal(did, "start0 launch0 ");
    assert_memory_equal(env_link, "/run/o/", 7);
    const struct orr_msg_rank_ability can = {
        .job = ORR_LIT("j"), .generation = GENERATION, .pid = 55, .process = 5};
    assert_int_equal(
        orr_system_post(sys, edge_rank, node, orr_msg_desc_rank_ability(), &can),
        ORR_OK);
    run_for(50);
    assert_int_equal(row_level, ORR_LEVEL_IMAGE);
}

void cut_and_quiesce(void)
{
    step(9, ORR_CUT_BEGIN);
    assert_int_equal(last.state, ORR_STEP_DONE);
    step(9, ORR_CUT_TARGETS);
    step(9, ORR_CUT_QUIESCE);
}
