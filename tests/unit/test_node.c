/* SPDX-License-Identifier: Apache-2.0
 * test_node.c - the node actor alone: launches once, refuses what is fenced, forgets only what has ended.
 */
#include "node/node.h"
#include "system.h"
#include "world.h"

#include "orr_test.h"

static struct world world;
static struct machine the_machine;
static struct orr_system *sys;
static struct orr_addr asker, node;

/* ---- one actor that asks what the test says and notes the answer ---- */

static void (*next_ask)(struct orr_ctx *ctx);
static uint16_t answer_id;
static uint32_t answer_code;
static struct orr_rec_rank_row answer_row;
static uint32_t answer_rows;

struct asker {
    char unused;
};
ORR_HANDLER(asker, ping)
ORR_HANDLER(asker, rank_launched)
ORR_HANDLER(asker, ranks)
ORR_HANDLER(asker, ack)
ORR_HANDLER(asker, failed)

static enum orr_err
asker_on_ping(struct orr_ctx *ctx, struct asker *self, const struct orr_msg_ping *msg)
{
    (void)self;
    (void)msg;
    next_ask(ctx);
    return ORR_OK;
}
static enum orr_err asker_on_rank_launched(struct orr_ctx *ctx,
                                           struct asker *self,
                                           const struct orr_msg_rank_launched *msg)
{
    (void)ctx;
    (void)self;
    answer_id = msg->master_port ? ORR_MSG_rank_launched : 0;
    return ORR_OK;
}
static enum orr_err
asker_on_ranks(struct orr_ctx *ctx, struct asker *self, const struct orr_msg_ranks *msg)
{
    (void)ctx;
    (void)self;
    answer_id = ORR_MSG_ranks;
    answer_rows = msg->ranks.n;
    if (msg->ranks.n)
        answer_row = msg->ranks.at[0];
    return ORR_OK;
}
static enum orr_err
asker_on_ack(struct orr_ctx *ctx, struct asker *self, const struct orr_msg_ack *msg)
{
    (void)ctx;
    (void)self;
    (void)msg;
    answer_id = ORR_MSG_ack;
    return ORR_OK;
}
static enum orr_err asker_on_failed(struct orr_ctx *ctx,
                                    struct asker *self,
                                    const struct orr_msg_failed *msg)
{
    (void)ctx;
    (void)self;
    answer_id = ORR_MSG_failed;
    answer_code = msg->code;
    return ORR_OK;
}
static const struct orr_handler handlers[] = {
    ORR_ON(asker, ping, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(asker, rank_launched, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(asker, ranks, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(asker, ack, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(asker, failed, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
};
static const struct orr_actor_type asker_type = {
    .name = "asker",
    .state_size = sizeof(struct asker),
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
};

/* ---- and a cluster that answers, is silent, or has given the node up ---- */

enum { MEMBERS = 7 };
static enum {
    CLUSTER_NONE,
    CLUSTER_ANSWERS,
    CLUSTER_IS_SILENT,
    CLUSTER_HAS_GIVEN_UP
} cluster;
static uint32_t n_beats;
static uint64_t confirmed;

struct fake_cluster {
    char unused;
};
ORR_HANDLER(fake_cluster, node_register)
ORR_HANDLER(fake_cluster, node_heartbeat)

static void reply_members(struct orr_ctx *ctx)
{
    const struct orr_rec_job_node list[] = {{.node = ORR_LIT("n1")},
                                            {.node = ORR_LIT("n2")}};
    orr_reply(ctx,
              node_registered,
              .heartbeat_ms = 500,
              .lease_ms = 30000,
              .members = MEMBERS,
              .peers = {list, 2});
}

static enum orr_err
fake_cluster_on_node_register(struct orr_ctx *ctx,
                              struct fake_cluster *self,
                              const struct orr_msg_node_register *msg)
{
    (void)self;
    (void)msg;
    if (cluster != CLUSTER_ANSWERS)
        return orr_refuse(ctx, ORR_EBUSY, "not now");
    reply_members(ctx);
    return ORR_OK;
}
static enum orr_err
fake_cluster_on_node_heartbeat(struct orr_ctx *ctx,
                               struct fake_cluster *self,
                               const struct orr_msg_node_heartbeat *msg)
{
    (void)self;
    n_beats++;
    confirmed = msg->members;
    if (cluster == CLUSTER_IS_SILENT)
        (void)orr_defer(ctx);
    else if (cluster == CLUSTER_ANSWERS && msg->members != MEMBERS)
        reply_members(ctx);
    return cluster == CLUSTER_HAS_GIVEN_UP ? orr_refuse(ctx, ORR_ESTALE, "who?")
                                           : ORR_OK;
}
static const struct orr_handler cluster_handlers[] = {
    ORR_ON(fake_cluster, node_register, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(fake_cluster, node_heartbeat, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
};
static const struct orr_actor_type fake_cluster_type = {
    .name = "fake_cluster",
    .state_size = sizeof(struct fake_cluster),
    .handlers = cluster_handlers,
    .n_handlers = ORR_ARRAY_SIZE(cluster_handlers),
};

static uint64_t now_ms(void *arg)
{
    return ((struct world *)arg)->now_ms;
}
static const struct orr_clock the_clock = {now_ms, now_ms, &world};

static void run_to(uint64_t until_ms)
{
    while (world.now_ms < until_ms) {
        while (orr_system_step(sys))
            ;
        uint64_t due = orr_system_next_due_ms(sys);
        world.now_ms = due > world.now_ms && due < until_ms ? due : until_ms;
    }
}

static uint16_t ask(void (*what)(struct orr_ctx *ctx))
{
    next_ask = what;
    answer_id = 0;
    answer_code = 0;
    const struct orr_msg_ping ping = {0};
    assert_int_equal(orr_system_post(sys, asker, asker, orr_msg_desc_ping(), &ping),
                     ORR_OK);
    run_to(world.now_ms + 50);
    return answer_id;
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

static bool is_node_late, has_bad_disk;

static int setup(void **state)
{
    (void)state;
    memset(&world, 0, sizeof(world));
    assert_int_equal(invariants_init(&world.invariants), ORR_OK);
    world.now_ms = 1;
    world.n_machines = 1;
    world.machines = &the_machine;
    struct machine *machine = &the_machine;
    *machine = (struct machine){.name = "n1",
                                .node_path = "/eu1/c1/n1",
                                .gpus = 2,
                                .has_bad_disk = has_bad_disk,
                                .world = &world};
    const struct edge_args edge = {machine, &world};
    const struct orr_node_args args = {.region = "eu1",
                                       .cluster = "c1",
                                       .node = "n1",
                                       .cluster_host = "h",
                                       .ranks_max = 4};
    const struct orr_system_config config = {
        .host = "h", .incarnation = 1, .clock = &the_clock};
    assert_int_equal(orr_system_new(&config, &sys, NULL), ORR_OK);
    if (!is_node_late)
        node = spawn(&orr_node_type, &args, "/eu1/c1/n1");
    asker = spawn(&asker_type, NULL, "/asker");
    if (cluster)
        spawn(&fake_cluster_type, NULL, "/eu1/c1");
    spawn(&sim_process_type, &edge, "/edge/process");
    spawn(&sim_device_type, &edge, "/edge/device");
    assert_int_equal(orr_system_start(sys, NULL), ORR_OK);
    run_to(10);
    if (is_node_late)
        node = spawn(&orr_node_type, &args, "/eu1/c1/n1");
    run_to(20);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    orr_system_stop(sys);
    orr_system_free(sys);
    invariants_fini(&world.invariants);
    return 0;
}

static void
launch_of(struct orr_ctx *ctx, uint64_t generation, uint32_t n_ranks, uint32_t device)
{
    static const struct orr_rec_text command[] = {
        {{"sim", 3}}, {{"1000", 4}}, {{"-1", 2}}, {{"0", 1}}, {{"0", 1}}};
    const struct orr_msg_job_spec spec = {
        .command = {command, 5}, .workdir = ORR_LIT("/"), .world = n_ranks};
    struct orr_rec_rank_place places[8];
    for (uint32_t i = 0; i < n_ranks; i++)
        places[i] = (struct orr_rec_rank_place){
            .rank = i, .node = ORR_LIT("n1"), .device = device, .local_rank = i};
    uint8_t body[256];
    size_t len = 0;
    assert_int_equal(
        orr_msg_encode(orr_msg_desc_job_spec(), &spec, body, sizeof(body), &len),
        ORR_OK);
    orr_ask(ctx,
            node,
            5000,
            1,
            rank_launch,
            .job = ORR_LIT("eu1-1"),
            .generation = generation,
            .spec = {body, (uint32_t)len},
            .ranks = {places, n_ranks});
}
static void launch(struct orr_ctx *ctx)
{
    launch_of(ctx, 1, 2, 0);
}
static void launch_next(struct orr_ctx *ctx)
{
    launch_of(ctx, 2, 1, 1);
}
static void launch_too_many(struct orr_ctx *ctx)
{
    launch_of(ctx, 1, 5, 0);
}
static void launch_nowhere(struct orr_ctx *ctx)
{
    launch_of(ctx, 1, 1, 7);
}
static void stop(struct orr_ctx *ctx)
{
    orr_ask(ctx,
            node,
            5000,
            1,
            rank_stop,
            .job = ORR_LIT("eu1-1"),
            .generation = 1,
            .grace_ms = 100);
}
static void get(struct orr_ctx *ctx)
{
    orr_ask(ctx, node, 5000, 1, ranks_get, .job = ORR_LIT("eu1-1"), .generation = 1);
}
static void forget(struct orr_ctx *ctx)
{
    orr_ask(ctx, node, 5000, 1, ranks_forget, .job = ORR_LIT("eu1-1"), .generation = 1);
}

static void launch_repeated_starts_once(void **state)
{
    (void)state;
    assert_int_equal(ask(launch), ORR_MSG_rank_launched);
    assert_int_equal(ask(launch), ORR_MSG_rank_launched);
    assert_int_equal(world.n_launched, 2);
    assert_int_equal(ask(get), ORR_MSG_ranks);
    assert_int_equal(answer_rows, 2);
    assert_int_equal(answer_row.state, ORR_RANK_RUNNING);
}

static void launch_that_cannot_be_is_refused_whole(void **state)
{
    (void)state;
    assert_int_equal(ask(launch_too_many), ORR_MSG_failed);
    assert_int_equal(answer_code, ORR_ENOSPC);
    assert_int_equal(ask(launch_nowhere), ORR_MSG_failed);
    assert_int_equal(answer_code, ORR_ENODEV);
    assert_int_equal(world.n_launched, 0);
    ask(get);
    assert_int_equal(answer_rows, 0);
}

static void launch_after_its_stop_is_stale(void **state)
{
    (void)state;
    assert_int_equal(ask(stop), ORR_MSG_ack); /* overtook the launch */
    assert_int_equal(ask(launch), ORR_MSG_failed);
    assert_int_equal(answer_code, ORR_ESTALE);
    assert_int_equal(ask(launch_next), ORR_MSG_rank_launched);
    assert_int_equal(world.n_launched, 1);
}

static void launch_of_an_older_generation_is_stale(void **state)
{
    (void)state;
    assert_int_equal(ask(launch_next), ORR_MSG_rank_launched);
    assert_int_equal(ask(launch), ORR_MSG_failed);
    assert_int_equal(answer_code, ORR_ESTALE);
}

static void forget_waits_for_the_end(void **state)
{
    (void)state;
    ask(launch);
    assert_int_equal(ask(forget), ORR_MSG_failed);
    assert_int_equal(answer_code, ORR_ESTATE);
    run_to(2000);
    ask(get);
    assert_int_equal(answer_row.state, ORR_RANK_EXITED);
    assert_int_equal(ask(forget), ORR_MSG_ack);
    ask(get);
    assert_int_equal(answer_rows, 0);
    assert_int_equal(ask(launch), ORR_MSG_failed); /* a late repetition */
    assert_int_equal(world.n_launched, 2);
}

static void stop_kills_what_ignores_it(void **state)
{
    (void)state;
    ask(launch);
    for (uint32_t i = 0; i < WORLD_PROCS; i++)
        world.machines[0].procs[i].ignores_term = true;
    assert_int_equal(ask(stop), ORR_MSG_ack);
    run_to(world.now_ms + 400);
    ask(get);
    assert_int_equal(answer_row.state, ORR_RANK_EXITED);
    assert_int_equal(answer_row.signal, 9);
}

static void machine_that_cannot_start_a_rank_has_lost_it(void **state)
{
    (void)state;
    the_machine.has_bad_disk = true;
    ask(launch);
    run_to(world.now_ms + 100);
    ask(get);
    the_machine.has_bad_disk = false;
    assert_int_equal(answer_row.state, ORR_RANK_LOST);
}

static void stop_next(struct orr_ctx *ctx)
{
    orr_ask(ctx, node, 5000, 1, rank_stop, .job = ORR_LIT("eu1-1"), .generation = 2);
}

/* Whatever is late of generation 1 changes nothing of generation 2. */
static void messages_of_an_older_generation_change_nothing(void **state)
{
    (void)state;
    const struct proc *proc = &world.machines[0].procs[0];
    assert_int_equal(ask(launch_next), ORR_MSG_rank_launched);
    assert_int_equal(ask(stop), ORR_MSG_ack);
    assert_int_equal(ask(forget), ORR_MSG_ack);
    assert_int_equal(ask(get), ORR_MSG_ranks);
    assert_int_equal(answer_rows, 0);
    assert_int_equal(ask(launch), ORR_MSG_failed);
    run_to(world.now_ms + 300);
    assert_true(proc->is_used && proc_is_live(proc, world.now_ms));
    assert_int_equal(world.n_launched, 1);
    assert_int_equal(ask(stop_next), ORR_MSG_ack); /* its own does */
    run_to(world.now_ms + 12000);
    assert_false(proc_is_live(proc, world.now_ms));
}

/* As when the actor alone is started again: the edges introduced themselves before it was there. */
static void node_that_starts_after_its_edges_greets_them(void **state)
{
    (void)state;
    teardown(NULL);
    is_node_late = true;
    setup(NULL);
    is_node_late = false;
    assert_int_equal(ask(launch), ORR_MSG_rank_launched);
}

/* ---- the lease ---- */

static int setup_cluster(void **state)
{
    cluster = CLUSTER_ANSWERS;
    n_beats = 0;
    confirmed = 0;
    return setup(state);
}

static int teardown_cluster(void **state)
{
    cluster = CLUSTER_NONE;
    return teardown(state);
}

/* A rank that runs long. */
static struct proc *launch_long(void)
{
    struct proc *proc = &the_machine.procs[0];
    assert_int_equal(ask(launch), ORR_MSG_rank_launched);
    for (uint32_t i = 0; i < the_machine.n_procs; i++)
        the_machine.procs[i].ends_ms += 1000000;
    return proc;
}

/* Not thawed even for a moment. */
static void run_frozen(const struct proc *proc, uint32_t for_ms)
{
    for (uint64_t until_ms = world.now_ms + for_ms; world.now_ms < until_ms;) {
        while (orr_system_step(sys))
            assert_true(proc->is_frozen);
        world.now_ms = orr_system_next_due_ms(sys);
    }
}

/* The cluster answered; then the host stood still beyond the lease, and it finds the answer. */
static void answer_that_waited_beyond_the_lease_thaws_nothing(void **state)
{
    (void)state;
    struct proc *proc = launch_long();
    uint32_t before = n_beats;
    while (n_beats == before)
        if (!orr_system_step(sys))
            world.now_ms = orr_system_next_due_ms(sys);
    cluster = CLUSTER_HAS_GIVEN_UP;
    world.now_ms += 40000;
    world_now(&world);
    assert_true(proc->is_frozen);
    run_frozen(proc, 3000);
}

/* So may the question of a job actor. */
static void question_that_waited_beyond_the_lease_thaws_nothing(void **state)
{
    (void)state;
    struct proc *proc = launch_long();
    cluster = CLUSTER_HAS_GIVEN_UP;
    world.now_ms += 40000;
    run_to(world.now_ms + 3000);
    const struct orr_msg_ping ping = {0};
    next_ask = get;
    assert_int_equal(orr_system_post(sys, asker, asker, orr_msg_desc_ping(), &ping),
                     ORR_OK);
    run_frozen(proc, 3000);
    assert_int_equal(answer_id, ORR_MSG_ranks);
}

/* What the keepers did a moment before they heard of a later end is undone, although this actor saw no end. */
static void end_that_keepers_saw_first_is_undone(void **state)
{
    (void)state;
    struct proc *proc = launch_long();
    cluster = CLUSTER_IS_SILENT;
    run_to(world.now_ms + 2000);
    run_to(the_machine.freeze_at_ms - 600);
    cluster = CLUSTER_ANSWERS;
    uint64_t end_ms = the_machine.freeze_at_ms;
    while (the_machine.freeze_at_ms == end_ms && world.now_ms < end_ms)
        if (!orr_system_step(sys))
            world.now_ms = orr_system_next_due_ms(sys);
    machine_signal(&the_machine, proc, 19);
    assert_true(proc->is_frozen);
    run_to(world.now_ms + 1000);
    assert_false(proc->is_frozen);
}

/* Else a restarted host could have an older one than the cluster believes, and count its majority in that. */
static void list_is_confirmed_when_it_is_on_disk(void **state)
{
    (void)state;
    run_to(2000);
    assert_int_equal(confirmed, MEMBERS);
}

static void list_that_cannot_be_written_is_not_confirmed(void **state)
{
    (void)state;
    teardown(NULL);
    has_bad_disk = true;
    setup_cluster(NULL);
    has_bad_disk = false;
    run_to(2000);
    assert_true(n_beats > 1);
    assert_int_equal(confirmed, 0);
    the_machine.has_bad_disk = false;
    run_to(4000);
    assert_int_equal(confirmed, MEMBERS);
}

#define ON_A_NODE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define WITH_CLUSTER(f)                                                                \
    cmocka_unit_test_setup_teardown(f, setup_cluster, teardown_cluster)
int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_A_NODE(launch_repeated_starts_once),
        ON_A_NODE(launch_that_cannot_be_is_refused_whole),
        ON_A_NODE(launch_after_its_stop_is_stale),
        ON_A_NODE(launch_of_an_older_generation_is_stale),
        ON_A_NODE(messages_of_an_older_generation_change_nothing),
        ON_A_NODE(node_that_starts_after_its_edges_greets_them),
        ON_A_NODE(forget_waits_for_the_end),
        ON_A_NODE(stop_kills_what_ignores_it),
        ON_A_NODE(machine_that_cannot_start_a_rank_has_lost_it),
        WITH_CLUSTER(answer_that_waited_beyond_the_lease_thaws_nothing),
        WITH_CLUSTER(question_that_waited_beyond_the_lease_thaws_nothing),
        WITH_CLUSTER(end_that_keepers_saw_first_is_undone),
        WITH_CLUSTER(list_is_confirmed_when_it_is_on_disk),
        WITH_CLUSTER(list_that_cannot_be_written_is_not_confirmed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
