/* SPDX-License-Identifier: Apache-2.0
 * test_leader_search.c - a cluster, one node and a job, under a region of three hosts of which one leads, another or none.
 *
 * The region's hosts are stand-ins: who leads is the test's word, and what a leader acknowledged is in `truth`, as it would
 * be in a ledger.  Cluster, job and node are the real ones.
 */
#include "cluster/cluster.h"
#include "job/job.h"
#include "node/node.h"
#include "sim.h"
#include "world.h"

#include "orr_test.h"

enum { REPLICAS = 3, CLUSTER = REPLICAS, NODE, HOSTS, NOBODY = HOSTS, RANKS = 2 };

static struct world world;
static struct machine machine;
static struct orr_sim *sim;
static uint32_t leader; /* index of the host that leads, or NOBODY */

static struct {
    uint32_t registers[REPLICAS];  /* asked of each host */
    uint32_t registered[REPLICAS]; /* taken */
    uint64_t registered_ms;        /* the last */
    bool has_job;                  /* a job is to run */
    uint32_t run_ms;
    bool leaves_after_assign; /* a leader that assigned the job leads no more */
    bool is_assigned;
    uint32_t updates[REPLICAS];
    uint32_t phase;
    uint32_t n_ended;
    uint32_t ended_at; /* which host took it */
    uint64_t ended_ms;
    uint32_t outcome;
} truth;

/* ---- a host of the region ---- */

struct replica {
    uint32_t index;
};

ORR_HANDLER(replica, cluster_register)
ORR_HANDLER(replica, cluster_summary)
ORR_HANDLER(replica, job_update)
ORR_HANDLER(replica, job_ended)
ORR_HANDLER(replica, claim_check)

static enum orr_err replica_init(struct orr_ctx *ctx, void *state, const void *args)
{
    (void)ctx;
    *(struct replica *)state = *(const struct replica *)args;
    return ORR_OK;
}

static enum orr_err refuse(struct orr_ctx *ctx, const struct replica *self)
{
    return self->index == leader
               ? ORR_OK
               : orr_refuse(ctx, ORR_ENOTLEADER, "r%u does not lead", self->index + 1);
}

static void assign(struct orr_ctx *ctx)
{
    char run_ms[16];
    uint8_t body[512];
    size_t len;
    snprintf(run_ms, sizeof(run_ms), "%u", truth.run_ms);
    const struct orr_rec_text command[] = {{ORR_LIT("sim")},
                                           {orr_str(run_ms)},
                                           {ORR_LIT("-1")},
                                           {ORR_LIT("0")},
                                           {ORR_LIT("0")}};
    const struct orr_msg_job_spec spec = {.name = ORR_LIT("sim"),
                                          .command = {command, 5},
                                          .workdir = ORR_LIT("/"),
                                          .world = RANKS,
                                          .shards = 1};
    ORR_ASSERT(orr_msg_encode(
                   orr_msg_desc_job_spec(), &spec, body, sizeof(body), &len) == ORR_OK);
    orr_send(ctx,
             ctx->from,
             job_assign,
             .job = ORR_LIT("eu1-1"),
             .generation = 1,
             .spec = {body, (uint32_t)len});
}

static enum orr_err
replica_on_cluster_register(struct orr_ctx *ctx,
                            struct replica *self,
                            const struct orr_msg_cluster_register *msg)
{
    (void)msg;
    truth.registers[self->index]++;
    if (refuse(ctx, self) != ORR_OK)
        return ORR_ENOTLEADER;
    truth.registered[self->index]++;
    truth.registered_ms = orr_now_ms(ctx);
    const struct orr_rec_job_claim claim = {
        .job = ORR_LIT("eu1-1"), .generation = 1, .phase = truth.phase};
    orr_reply(ctx,
              cluster_registered,
              .heartbeat_ms = 500,
              .jobs = {&claim, truth.is_assigned && !truth.n_ended});
    return ORR_OK;
}

static enum orr_err
replica_on_cluster_summary(struct orr_ctx *ctx,
                           struct replica *self,
                           const struct orr_msg_cluster_summary *msg)
{
    if (refuse(ctx, self) != ORR_OK)
        return ORR_ENOTLEADER;
    if (truth.has_job && !truth.is_assigned && msg->nodes.n &&
        msg->nodes.at[0].slots_free >= RANKS) {
        assign(ctx);
        truth.is_assigned = true;
        truth.phase = ORR_JOB_PLACING;
        leader = truth.leaves_after_assign ? NOBODY : leader;
    }
    return ORR_OK;
}

static enum orr_err replica_on_job_update(struct orr_ctx *ctx,
                                          struct replica *self,
                                          const struct orr_msg_job_update *msg)
{
    if (refuse(ctx, self) != ORR_OK)
        return ORR_ENOTLEADER;
    truth.updates[self->index]++;
    truth.phase = msg->phase;
    return ORR_OK;
}

static enum orr_err replica_on_job_ended(struct orr_ctx *ctx,
                                         struct replica *self,
                                         const struct orr_msg_job_ended *msg)
{
    if (refuse(ctx, self) != ORR_OK)
        return ORR_ENOTLEADER;
    truth.n_ended++;
    truth.ended_at = self->index;
    truth.ended_ms = orr_now_ms(ctx);
    truth.outcome = msg->outcome;
    return ORR_OK;
}

static enum orr_err replica_on_claim_check(struct orr_ctx *ctx,
                                           struct replica *self,
                                           const struct orr_msg_claim_check *msg)
{
    (void)msg;
    return refuse(ctx, self);
}

static const struct orr_handler replica_handlers[] = {
    ORR_ON(replica, cluster_register, ORR_ANY_STATE, ORR_ROLE_HOST, ORR_REFUSE),
    ORR_ON(replica, cluster_summary, ORR_ANY_STATE, ORR_ROLE_HOST, ORR_REFUSE),
    ORR_ON(replica, job_update, ORR_ANY_STATE, ORR_ROLE_HOST, ORR_REFUSE),
    ORR_ON(replica, job_ended, ORR_ANY_STATE, ORR_ROLE_HOST, ORR_REFUSE),
    ORR_ON(replica, claim_check, ORR_ANY_STATE, ORR_ROLE_HOST, ORR_REFUSE),
};

static const struct orr_actor_type replica_type = {
    .name = "replica",
    .state_size = sizeof(struct replica),
    .args_size = sizeof(struct replica),
    .init = replica_init,
    .handlers = replica_handlers,
    .n_handlers = ORR_ARRAY_SIZE(replica_handlers),
};

/* ---- hosts ---- */

static void spawn(uint32_t host,
                  const struct orr_actor_type *type,
                  const void *args,
                  const char *path)
{
    struct orr_addr addr;
    const struct orr_spawn how = {type, args, path, ORR_PERMANENT};
    assert_int_equal(orr_system_spawn(orr_sim_system(sim, host), &how, &addr), ORR_OK);
}

static void boot(void *arg, struct orr_sim *the_sim, uint32_t host)
{
    const struct edge_args edge = {&machine, &world};
    (void)arg;
    sim = the_sim;
    if (host < REPLICAS) {
        spawn(host, &replica_type, &(struct replica){host}, "/eu1");
    } else if (host == CLUSTER) {
        spawn(host,
              &orr_cluster_type,
              &(struct orr_cluster_args){.region = "eu1",
                                         .cluster = "c1",
                                         .region_hosts = {"r1", "r2", "r3"},
                                         .job_type = &orr_job_type,
                                         .nodes_max = 4,
                                         .jobs_max = 16},
              "/eu1/c1");
    } else {
        spawn(host,
              &orr_node_type,
              &(struct orr_node_args){.region = "eu1",
                                      .cluster = "c1",
                                      .node = "n1",
                                      .cluster_host = "c1",
                                      .ranks_max = 16,
                                      .slots = 4},
              "/eu1/c1/n1");
        spawn(host, &sim_process_type, &edge, "/edge/process");
        spawn(host, &sim_device_type, &edge, "/edge/device");
    }
}

static bool holds(void *arg, struct orr_sim *the_sim, char *text, size_t cap)
{
    (void)arg;
    world.now_ms = orr_sim_now_ms(the_sim);
    snprintf(text, cap, "%s", world.invariants.text);
    return !world.invariants.broken;
}

static void show_log(void *arg,
                     enum orr_log_level level,
                     uint64_t wall,
                     const char *who,
                     const char *text)
{
    (void)arg;
    (void)wall;
    if (getenv("ORR_SIM_LOG"))
        fprintf(
            stderr, "%8u %d %s: %s\n", (unsigned)world.now_ms, (int)level, who, text);
}

static int set_up(void **state)
{
    static const char *const names[HOSTS] = {"r1", "r2", "r3", "c1", "n1"};
    (void)state;
    memset(&world, 0, sizeof(world));
    memset(&truth, 0, sizeof(truth));
    leader = 0;
    assert_int_equal(invariants_init(&world.invariants), ORR_OK);
    world.n_machines = 1;
    world.machines = &machine;
    machine =
        (struct machine){.name = "n1", .node_path = "/eu1/c1/n1", .world = &world};
    const struct orr_sim_config config = {
        .seed = 1,
        .boot = boot,
        .check = holds,
        .faults = {.delay_min_ms = 1, .delay_max_ms = 3},
        .log = show_log,
        .log_level = ORR_LOG_DEBUG};
    assert_int_equal(orr_sim_new(&config, &sim), ORR_OK);
    for (uint32_t i = 0; i < HOSTS; i++) {
        uint32_t host;
        assert_int_equal(orr_sim_host_add(sim, names[i], &host), ORR_OK);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    orr_sim_free(sim);
    invariants_fini(&world.invariants);
    return 0;
}

static void run_until(uint64_t time_ms)
{
    struct orr_error err;
    if (orr_sim_run_until(sim, time_ms, NULL, NULL, &err) == ORR_ESTATE)
        fail_msg("%s", err.text);
}

/* ---- tests ---- */

static void cluster_tries_the_next_host_at_once(void **state)
{
    (void)state;
    leader = 2;
    run_until(400);
    assert_int_equal(truth.registers[0], 1);
    assert_int_equal(truth.registers[1], 1);
    assert_int_equal(truth.registered[2], 1);
    assert_true(truth.registered_ms < 100);
}

static void cluster_pauses_after_a_round_without_leader(void **state)
{
    (void)state;
    leader = NOBODY;
    run_until(10000);
    for (uint32_t i = 0; i < REPLICAS; i++) /* 20 heartbeats, give or take the jitter */
        assert_in_range(truth.registers[i], 14, 28);
    leader = 1;
    run_until(11000);
    assert_int_equal(truth.registered[1], 1);
}

static void cluster_follows_a_leader_that_says_no(void **state)
{
    (void)state;
    run_until(3000);
    assert_int_equal(truth.registered[0], 1);
    leader = 1;
    run_until(3600); /* the next summary tells */
    assert_int_equal(truth.registered[1], 1);
    leader = 0;
    run_until(4200); /* round the end of the list */
    assert_int_equal(truth.registered[0], 2);
    assert_int_equal(truth.registers[2], 1);
}

static void cluster_leaves_a_leader_that_is_silent(void **state)
{
    (void)state;
    run_until(3000);
    leader = 2;
    orr_sim_side_set(sim, 0, 1); /* cut off, it still believes to lead */
    run_until(6500);
    assert_int_equal(truth.registered[2], 1);
    orr_sim_side_set(sim, 0, 0);
    run_until(12000);
    assert_int_equal(truth.registered[0], 1);
    assert_int_equal(truth.registered[2], 1);
}

static void expect_done_once(uint32_t at)
{
    assert_int_equal(truth.n_ended, 1);
    assert_int_equal(truth.outcome, ORR_OUTCOME_DONE);
    assert_int_equal(truth.ended_at, at);
    assert_int_equal(world.n_launched, RANKS);
}

static void job_ends_with_the_leader_of_that_time(void **state)
{
    (void)state;
    truth.has_job = true;
    truth.run_ms = 5000;
    run_until(3000);
    assert_int_equal(world.n_launched, RANKS);
    leader = 2;
    run_until(8000);
    expect_done_once(2);
    assert_true(truth.ended_ms < 7000);
}

static void end_without_leader_is_told_as_soon_as_there_is_one(void **state)
{
    (void)state;
    truth.has_job = true;
    truth.run_ms = 3000;
    run_until(1500);
    assert_int_equal(truth.n_ended, 0);
    leader = NOBODY;
    orr_sim_crash(sim, 0);
    run_until(20000); /* its pause between attempts has grown */
    leader = 1;
    run_until(20100); /* and now does not matter */
    for (uint64_t at = 20200; truth.registered[1] == 0 && at < 24000; at += 100)
        run_until(at);
    run_until(truth.registered_ms + 200);
    expect_done_once(1);
}

static void job_gets_its_permit_from_the_next_leader(void **state)
{
    (void)state;
    truth.has_job = true;
    truth.run_ms = 1000;
    truth.leaves_after_assign = true;
    run_until(4000);
    assert_true(truth.is_assigned);
    assert_int_equal(world.n_launched, 0); /* nobody permitted it */
    leader = 2;
    run_until(8000);
    assert_int_equal(truth.updates[0], 0);
    assert_true(truth.updates[2] > 0);
    expect_done_once(2);
}

#define IN_A_FLEET(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_FLEET(cluster_tries_the_next_host_at_once),
        IN_A_FLEET(cluster_pauses_after_a_round_without_leader),
        IN_A_FLEET(cluster_follows_a_leader_that_says_no),
        IN_A_FLEET(cluster_leaves_a_leader_that_is_silent),
        IN_A_FLEET(job_ends_with_the_leader_of_that_time),
        IN_A_FLEET(end_without_leader_is_told_as_soon_as_there_is_one),
        IN_A_FLEET(job_gets_its_permit_from_the_next_leader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
