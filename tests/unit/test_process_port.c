/* SPDX-License-Identifier: Apache-2.0
 * test_process_port.c - the process port in a stepped kernel, between a node actor and an op table that both write down what
 * they were told.
 */
#include "orr_test.h"

#include "process_port.h"
#include "system.h"

/* ---- the op table ------------------------------------------------------------------------- */

static struct {
    struct orr_process base;
    struct orr_process_sink sink;
    bool has_sink;
    enum orr_err answer;
    char called[64];
    char job[32], first_arg[32], first_env[64];
    uint64_t generation, offset;
    uint32_t rank, device, signal, stream;
    size_t cap;
    uint64_t left_ms, silent_ms;
    uint8_t note[16];
    size_t note_len;
    bool is_frozen, wants_image;
    struct orr_process_stop stop;
    uint64_t tag;
} edge;

static enum orr_err
called(const char *name, const struct orr_process_id *id, struct orr_error *err)
{
    orr_str_copy(edge.called, sizeof edge.called, orr_str(name));
    orr_str_copy(edge.job, sizeof edge.job, id->job);
    edge.generation = id->generation;
    edge.rank = id->rank;
    return edge.answer == ORR_OK ? ORR_OK
                                 : orr_fail(err, edge.answer, "the edge refuses");
}

static void fake_attach(struct orr_process *process,
                        const struct orr_process_sink *sink)
{
    (void)process;
    edge.has_sink = sink != NULL;
    if (sink)
        edge.sink = *sink;
}

static enum orr_err fake_launch(struct orr_process *process,
                                const struct orr_process_launch *l,
                                struct orr_error *err)
{
    (void)process;
    edge.device = l->device;
    edge.wants_image = l->wants_image && l->overlay == 77 && l->peers.n == 1;
    orr_str_copy(edge.first_arg, sizeof edge.first_arg, l->command.at[0].value);
    orr_str_copy(edge.first_env, sizeof edge.first_env, l->env.at[0].name);
    return called("launch", &l->id, err);
}

static enum orr_err fake_signal(struct orr_process *process,
                                const struct orr_process_id *id,
                                uint32_t signal,
                                struct orr_error *err)
{
    (void)process;
    edge.signal = signal;
    return called("signal", id, err);
}

static enum orr_err fake_forget(struct orr_process *process,
                                const struct orr_process_id *id,
                                struct orr_error *err)
{
    (void)process;
    return called("forget", id, err);
}

static enum orr_err fake_log_read(struct orr_process *process,
                                  const struct orr_process_id *id,
                                  uint32_t stream,
                                  uint64_t offset,
                                  uint8_t *buf,
                                  size_t cap,
                                  struct orr_process_log *ret_log,
                                  struct orr_error *err)
{
    (void)process;
    edge.stream = stream;
    edge.offset = offset;
    edge.cap = cap;
    memcpy(buf, "text", 4);
    *ret_log = (struct orr_process_log){
        .generation = 7, .offset = offset, .len = 4, .is_final = true};
    return called("log_read", id, err);
}

static enum orr_err fake_port_reserve(struct orr_process *process,
                                      const char **ret_addr,
                                      uint32_t *ret_port,
                                      struct orr_error *err)
{
    (void)process;
    *ret_addr = "10.0.0.1";
    *ret_port = 20001;
    return called("port_reserve", &(struct orr_process_id){ORR_LIT(""), 0, 0}, err);
}

static void
fake_lease_set(struct orr_process *process, uint64_t left_ms, uint64_t silent_ms)
{
    (void)process;
    edge.left_ms = left_ms;
    edge.silent_ms = silent_ms;
}

static bool fake_lease_get(struct orr_process *process, uint64_t *ret_silent_ms)
{
    (void)process;
    *ret_silent_ms = 70;
    return true;
}

static enum orr_err
fake_note_put(struct orr_process *process, struct orr_bytes note, struct orr_error *err)
{
    (void)process;
    (void)err;
    edge.note_len = note.len < sizeof edge.note ? note.len : sizeof edge.note;
    memcpy(edge.note, note.ptr, edge.note_len);
    return ORR_OK;
}

static size_t fake_note_get(struct orr_process *process, void *buf, size_t cap)
{
    (void)process;
    assert_true(cap >= edge.note_len);
    memcpy(buf, edge.note, edge.note_len);
    return edge.note_len;
}

static enum orr_err fake_stop_note(struct orr_process *process,
                                   const struct orr_process_id *id,
                                   const struct orr_process_stop *stop,
                                   struct orr_error *err)
{
    (void)process;
    edge.stop = *stop;
    return called("stop_note", id, err);
}

static enum orr_err fake_freeze(struct orr_process *process,
                                const struct orr_process_id *id,
                                bool is_frozen,
                                uint64_t tag,
                                struct orr_error *err)
{
    (void)process;
    edge.is_frozen = is_frozen;
    edge.tag = tag;
    return called("freeze", id, err);
}

static enum orr_err fake_widen(struct orr_process *process,
                               const struct orr_process_id *id,
                               const struct orr_process_network *network,
                               struct orr_error *err)
{
    (void)process;
    orr_str_copy(edge.first_arg, sizeof edge.first_arg, network->underlay);
    orr_str_copy(edge.first_env, sizeof edge.first_env, network->peers.at[0].value);
    edge.tag = network->overlay;
    return called("widen", id, err);
}

static enum orr_err fake_image(struct orr_process *process,
                               const struct orr_process_id *id,
                               const struct orr_process_image *image,
                               uint64_t tag,
                               struct orr_error *err)
{
    (void)process;
    orr_str_copy(edge.first_arg, sizeof edge.first_arg, image->dir);
    edge.tag = tag;
    return called("image", id, err);
}

static const struct orr_process_ops fake_ops = {
    .freeze = fake_freeze,
    .image = fake_image,
    .widen = fake_widen,
    .stop_note = fake_stop_note,
    .lease_set = fake_lease_set,
    .lease_get = fake_lease_get,
    .note_put = fake_note_put,
    .note_get = fake_note_get,
    .attach = fake_attach,
    .launch = fake_launch,
    .signal = fake_signal,
    .forget = fake_forget,
    .log_read = fake_log_read,
    .port_reserve = fake_port_reserve,
};

/* ---- the node: passes on what the test posts to it, and writes down what comes back ----------- */

struct node {
    char unused;
};

static struct {
    uint32_t acks, failures, code, found, events, port, state;
    char text[64], addr[32], data[16], reason[32], note[16];
    uint64_t silent_ms, bytes;
    bool is_final, is_able;
} told;

static struct orr_addr port_addr;

#define NODE_PASSES_ON(message)                                                        \
    ORR_HANDLER(node, message)                                                         \
    static enum orr_err node_on_##message(                                             \
        struct orr_ctx *ctx, struct node *self, const struct orr_msg_##message *msg)   \
    {                                                                                  \
        (void)self;                                                                    \
        ctx->ops->ask(ctx, port_addr, 5000, 1, orr_msg_desc_##message(), msg);         \
        return ORR_OK;                                                                 \
    }
NODE_PASSES_ON(process_launch)
NODE_PASSES_ON(process_signal)
NODE_PASSES_ON(process_forget)
NODE_PASSES_ON(port_reserve)
NODE_PASSES_ON(log_read)
NODE_PASSES_ON(process_lease)
NODE_PASSES_ON(node_note)
NODE_PASSES_ON(edge_greet)
NODE_PASSES_ON(process_freeze)
NODE_PASSES_ON(rank_note)
NODE_PASSES_ON(process_image)
NODE_PASSES_ON(process_widen)

#define NODE_TAKES(message, action)                                                    \
    ORR_HANDLER(node, message)                                                         \
    static enum orr_err node_on_##message(                                             \
        struct orr_ctx *ctx, struct node *self, const struct orr_msg_##message *msg)   \
    {                                                                                  \
        (void)ctx, (void)self, (void)msg;                                              \
        action;                                                                        \
        return ORR_OK;                                                                 \
    }
NODE_TAKES(ack, told.acks++)
NODE_TAKES(failed, told.failures++; told.code = msg->code;
           orr_str_copy(told.text, sizeof told.text, msg->text))
NODE_TAKES(process_imaged, told.bytes = msg->bytes)
NODE_TAKES(image_ability, told.is_able = msg->is_able;
           orr_str_copy(told.text, sizeof told.text, msg->text))
NODE_TAKES(port_reserved, told.port = msg->port;
           orr_str_copy(told.addr, sizeof told.addr, msg->addr))
NODE_TAKES(log_chunk, told.is_final = msg->is_final;
           orr_str_copy(told.data,
                        sizeof told.data,
                        (struct orr_str){(const char *)msg->data.ptr, msg->data.len}))
NODE_TAKES(processes_found, told.found = msg->ranks.n; told.silent_ms = msg->silent_ms;
           orr_str_copy(told.note,
                        sizeof told.note,
                        (struct orr_str){(const char *)msg->note.ptr, msg->note.len}))
NODE_TAKES(process_event, told.events++; told.state = msg->rank.state;
           orr_str_copy(told.reason, sizeof told.reason, msg->rank.reason))

#define NODE_ON(message) ORR_ON(node, message, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE)
static const struct orr_handler node_handlers[] = {
    NODE_ON(process_launch),  NODE_ON(process_signal),
    NODE_ON(process_forget),  NODE_ON(port_reserve),
    NODE_ON(log_read),        NODE_ON(process_lease),
    NODE_ON(node_note),       NODE_ON(edge_greet),
    NODE_ON(process_freeze),  NODE_ON(rank_note),
    NODE_ON(process_image),   NODE_ON(process_imaged),
    NODE_ON(image_ability),   NODE_ON(ack),
    NODE_ON(failed),          NODE_ON(port_reserved),
    NODE_ON(log_chunk),       NODE_ON(process_event),
    NODE_ON(processes_found), NODE_ON(process_widen),
};
static const struct orr_actor_type node_type = {
    .name = "node",
    .state_size = sizeof(struct node),
    .handlers = node_handlers,
    .n_handlers = ORR_ARRAY_SIZE(node_handlers),
};

/* ---- fixture ------------------------------------------------------------------------------ */

static struct orr_system *kernel;
static struct orr_addr node_addr;

static void run(void)
{
    while (orr_system_step(kernel))
        ;
}

static int setup(void **state)
{
    (void)state;
    struct orr_error err;
    memset(&edge, 0, sizeof edge);
    memset(&told, 0, sizeof told);
    edge.base.ops = &fake_ops;
    assert_int_equal(
        orr_system_new(
            &(struct orr_system_config){.host = "n1", .incarnation = 1}, &kernel, &err),
        ORR_OK);
    struct orr_process_port_args args = {
        .process = &edge.base,
        .system = kernel,
        .post = orr_system_post,
        .node = orr_addr_named(ORR_LIT("n1"), ORR_LIT("/node")),
    };
    struct orr_spawn node = {.type = &node_type, .path = "/node"};
    struct orr_spawn port = {
        .type = &orr_process_port_type, .args = &args, .path = "/edge/process"};
    assert_int_equal(orr_system_spawn(kernel, &node, &node_addr), ORR_OK);
    assert_int_equal(orr_system_spawn(kernel, &port, &port_addr), ORR_OK);
    assert_int_equal(orr_system_start(kernel, &err), ORR_OK);
    run();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    orr_system_stop(kernel);
    orr_system_free(kernel);
    assert_false(edge.has_sink); /* a port that has stopped is called no more */
    return 0;
}

#define POST(name, ...)                                                                \
    do {                                                                               \
        const struct orr_msg_##name msg_ = {__VA_ARGS__};                              \
        assert_int_equal(orr_system_post(kernel,                                       \
                                         (struct orr_addr){0},                         \
                                         node_addr,                                    \
                                         orr_msg_desc_##name(),                        \
                                         &msg_),                                       \
                         ORR_OK);                                                      \
        run();                                                                         \
    } while (0)

/* ---- tests -------------------------------------------------------------------------------- */

static void launch_reaches_the_edge_and_is_acknowledged(void **state)
{
    (void)state;
    const struct orr_rec_text command[] = {{ORR_LIT("python")}, {ORR_LIT("train.py")}};
    const struct orr_rec_env_var env[] = {{ORR_LIT("RANK"), ORR_LIT("3")}};
    POST(process_launch,
         .job = ORR_LIT("r1-a"),
         .generation = 2,
         .rank = 3,
         .device = 4,
         .command = {command, 2},
         .env = {env, 1});
    assert_string_equal(edge.called, "launch");
    assert_string_equal(edge.job, "r1-a");
    assert_true(edge.generation == 2 && edge.rank == 3 && edge.device == 4);
    assert_string_equal(edge.first_arg, "python");
    assert_string_equal(edge.first_env, "RANK");
    assert_true(told.acks == 1 && told.failures == 0);
}

static void launch_passes_on_what_an_image_needs(void **state)
{
    (void)state;
    const struct orr_rec_text command[] = {{ORR_LIT("a")}},
                              peers[] = {{ORR_LIT("10.0.0.2")}};
    const struct orr_rec_env_var env[] = {{ORR_LIT("A"), ORR_LIT("")}};
    POST(process_launch,
         .job = ORR_LIT("r1-a"),
         .command = {command, 1},
         .env = {env, 1},
         .wants_image = true,
         .overlay = 77,
         .peers = {peers, 1});
    assert_true(edge.wants_image);
}

static void widening_is_passed_on(void **state)
{
    (void)state;
    const struct orr_rec_text peers[] = {{ORR_LIT("10.0.0.2:4789")}};
    POST(process_widen,
         .job = ORR_LIT("r1-a"),
         .generation = 2,
         .rank = 3,
         .overlay = 77,
         .underlay = ORR_LIT("10.0.0.1:4789"),
         .peers = {peers, 1});
    assert_string_equal(edge.called, "widen");
    assert_string_equal(edge.first_arg, "10.0.0.1:4789");
    assert_string_equal(edge.first_env, "10.0.0.2:4789");
    assert_true(edge.tag == 77 && told.acks == 1 && told.failures == 0);
    edge.answer = ORR_EIO;
    POST(process_widen, .job = ORR_LIT("r1-a"), .peers = {peers, 1});
    assert_int_equal(told.failures, 1);
}

static void done(enum orr_err code, uint64_t tag)
{
    const struct orr_process_done d = {
        .tag = tag, .code = code, .text = ORR_LIT("the disk is full"), .bytes = 4096};
    assert_int_equal(edge.sink.done(edge.sink.arg, &d), ORR_OK);
    run();
}

static void freeze_is_answered_when_it_is_done(void **state)
{
    (void)state;
    POST(process_freeze,
         .job = ORR_LIT("r1-a"),
         .generation = 2,
         .rank = 3,
         .is_frozen = true);
    assert_string_equal(edge.called, "freeze");
    assert_true(edge.is_frozen && told.acks == 0);
    done(ORR_OK, edge.tag + 1000); /* of another life */
    assert_int_equal(told.acks, 0);
    done(ORR_OK, edge.tag);
    assert_int_equal(told.acks, 1);
    done(ORR_OK, edge.tag);
    assert_int_equal(told.acks, 1);
}

static void image_is_answered_with_its_size_or_why_not(void **state)
{
    (void)state;
    POST(process_image, .job = ORR_LIT("r1-a"), .dir = ORR_LIT("/images/1"));
    uint64_t first = edge.tag;
    assert_string_equal(edge.first_arg, "/images/1");
    POST(process_image, .job = ORR_LIT("r1-a"), .dir = ORR_LIT("/images/2"));
    assert_true(edge.tag != first);
    done(ORR_EIO, edge.tag);
    assert_int_equal(told.code, ORR_EIO);
    assert_string_equal(told.text, "the disk is full");
    done(ORR_OK, first);
    assert_true(told.bytes == 4096 && told.failures == 1);
    edge.answer = ORR_ENOSYS;
    POST(process_image, .job = ORR_LIT("r1-a"), .dir = ORR_LIT("/images/3"));
    assert_int_equal(told.code, ORR_ENOSYS);
}

static void more_than_can_be_kept_is_refused(void **state)
{
    (void)state;
    for (int i = 0; i < 512; i++)
        POST(process_freeze, .job = ORR_LIT("r1-a"), .is_frozen = true);
    assert_int_equal(told.failures, 0);
    POST(process_freeze, .job = ORR_LIT("r1-a"), .is_frozen = true);
    assert_int_equal(told.code, ORR_EBUSY);
    done(ORR_OK, edge.tag);
    POST(process_freeze, .job = ORR_LIT("r1-a"), .is_frozen = true);
    assert_int_equal(told.failures, 1);
}

static void ability_reaches_the_node(void **state)
{
    (void)state;
    const struct orr_process_ability ability = {
        true, ORR_LIT("one was made"), ORR_LIT("4.2")};
    assert_int_equal(edge.sink.ability(edge.sink.arg, &ability), ORR_OK);
    run();
    assert_true(told.is_able);
    assert_string_equal(told.text, "one was made");
}

static void signal_and_forget_reach_the_edge(void **state)
{
    (void)state;
    POST(process_signal,
         .job = ORR_LIT("r1-a"),
         .generation = 2,
         .rank = 3,
         .signal = 15);
    assert_string_equal(edge.called, "signal");
    assert_true(edge.signal == 15 && told.acks == 1);
    POST(process_forget, .job = ORR_LIT("r1-a"), .generation = 2, .rank = 3);
    assert_string_equal(edge.called, "forget");
    assert_int_equal(told.acks, 2);
}

static void refusal_of_the_edge_is_the_answer(void **state)
{
    (void)state;
    edge.answer = ORR_EBUSY;
    POST(process_signal, .job = ORR_LIT("r1-a"), .signal = 15);
    assert_int_equal(told.code, ORR_EBUSY);
    assert_string_equal(told.text, "the edge refuses");
    POST(port_reserve, .job = ORR_LIT("r1-a"));
    POST(log_read, .job = ORR_LIT("r1-a"), .stream = 1);
    assert_true(told.failures == 3 && told.port == 0);
}

static void port_and_log_are_answered_with_their_own_messages(void **state)
{
    (void)state;
    POST(port_reserve, .job = ORR_LIT("r1-a"));
    assert_int_equal(told.port, 20001);
    assert_string_equal(told.addr, "10.0.0.1");
    POST(log_read,
         .job = ORR_LIT("r1-a"),
         .rank = 1,
         .stream = 2,
         .offset = 5,
         .max_bytes = 100);
    assert_true(edge.stream == 2 && edge.offset == 5 && edge.cap == 100 &&
                told.is_final);
    assert_string_equal(told.data, "text");
    POST(log_read, .job = ORR_LIT("r1-a"), .stream = 2, .max_bytes = 1 << 30);
    assert_true(edge.cap <= 1 << 20); /* a chunk is bounded, whatever is asked for */
}

static void changes_reach_the_node(void **state)
{
    (void)state;
    const struct orr_rec_rank_row rows[2] = {{.job = ORR_LIT("r1-a")},
                                             {.job = ORR_LIT("r1-b")}};
    const struct orr_rec_rank_row end = {.job = ORR_LIT("r1-a"),
                                         .state = ORR_RANK_EXITED,
                                         .reason = ORR_LIT("exit code 1")};
    assert_true(edge.has_sink);
    assert_int_equal(
        edge.sink.found(edge.sink.arg, (struct orr_list_rank_row){rows, 2}), ORR_OK);
    assert_int_equal(edge.sink.event(edge.sink.arg, &end), ORR_OK);
    run();
    assert_int_equal(told.found, 2);
    assert_true(told.events == 1 && told.state == ORR_RANK_EXITED);
    assert_string_equal(told.reason, "exit code 1");
}

static void node_that_greets_is_told_all_again_with_what_it_left(void **state)
{
    (void)state;
    POST(node_note, .note = {(const uint8_t *)"members", 7});
    edge.has_sink = false;
    POST(edge_greet, 0);
    assert_true(edge.has_sink); /* attached anew: `found` comes first */
    assert_int_equal(
        edge.sink.found(edge.sink.arg, (struct orr_list_rank_row){NULL, 0}), ORR_OK);
    run();
    assert_true(told.silent_ms == 70);
    assert_string_equal(told.note, "members");
}

static void lease_reaches_the_edge_as_the_time_that_is_left(void **state)
{
    (void)state;
    POST(process_lease, .until_ms = UINT64_MAX / 2, .heard_ms = UINT64_MAX / 2);
    assert_true(edge.left_ms > UINT64_MAX / 4 && edge.left_ms < UINT64_MAX / 2);
    assert_int_equal(edge.silent_ms, 0);
    POST(process_lease, .until_ms = 1, .heard_ms = 0); /* over */
    assert_int_equal(edge.left_ms, 0);
    assert_true(edge.silent_ms > 0);
    POST(process_lease, .until_ms = 0);
    assert_true(edge.left_ms == UINT64_MAX);
}

#define PORT_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PORT_TEST(launch_reaches_the_edge_and_is_acknowledged),
        PORT_TEST(launch_passes_on_what_an_image_needs),
        PORT_TEST(widening_is_passed_on),
        PORT_TEST(freeze_is_answered_when_it_is_done),
        PORT_TEST(image_is_answered_with_its_size_or_why_not),
        PORT_TEST(more_than_can_be_kept_is_refused),
        PORT_TEST(ability_reaches_the_node),
        PORT_TEST(signal_and_forget_reach_the_edge),
        PORT_TEST(refusal_of_the_edge_is_the_answer),
        PORT_TEST(port_and_log_are_answered_with_their_own_messages),
        PORT_TEST(changes_reach_the_node),
        PORT_TEST(node_that_greets_is_told_all_again_with_what_it_left),
        PORT_TEST(lease_reaches_the_edge_as_the_time_that_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
