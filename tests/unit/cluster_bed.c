/* SPDX-License-Identifier: Apache-2.0
 * cluster_bed.c - see cluster_bed.h.
 */
#include "cluster_bed.h"

#include "cluster/cluster.h"
#include "orrery/job_args.h"
#include "sim.h"

#include "orr_test.h"

enum { ASK_MS = 2000, BEAT_MS = 200 };

static struct orr_sim *sim;

struct cluster_got got;

static void note(uint16_t msg, struct orr_list_rank_place ranks)
{
    got.msg = msg;
    got.n = ranks.n;
    assert_true(ranks.n <= PLACES_MAX);
    for (uint32_t i = 0; i < ranks.n; i++) {
        got.device[i] = ranks.at[i].device;
        orr_str_copy(got.node[i], sizeof(got.node[i]), ranks.at[i].node);
    }
}

static struct orr_addr cluster_addr(const struct orr_ctx *ctx)
{
    return (struct orr_addr){.host = ctx->self.host,
                             .slot = orr_hash(ORR_LIT("/eu1/c1"))};
}

/* ---- job actors: what is posted to one it asks of the cluster ---- */

struct job {
    char unused;
};
ORR_HANDLER(job, job_start)
ORR_HANDLER(job, devices_freed)
ORR_HANDLER(job, devices_want)
ORR_HANDLER(job, devices_keep)
ORR_HANDLER(job, devices_given)
ORR_HANDLER(job, job_released)
ORR_HANDLER(job, job_order)
ORR_HANDLER(job, region_moved)
ORR_HANDLER(job, node_changed)
ORR_HANDLER(job, ack)
ORR_HANDLER(job, failed)

static enum orr_err job_on_job_start(struct orr_ctx *ctx,
                                     struct job *self,
                                     const struct orr_msg_job_start *msg)
{
    (void)ctx;
    (void)self;
    note(ORR_MSG_job_start, msg->ranks);
    got.code = msg->is_suspended;
    orr_str_copy(got.machine, sizeof(got.machine), msg->nodes.at[0].machine);
    return ORR_OK;
}
static enum orr_err job_on_devices_freed(struct orr_ctx *ctx,
                                         struct job *self,
                                         const struct orr_msg_devices_freed *msg)
{
    (void)self;
    ctx->ops->ask(ctx, cluster_addr(ctx), ASK_MS, 1, orr_msg_desc_devices_freed(), msg);
    return ORR_OK;
}
static enum orr_err job_on_devices_want(struct orr_ctx *ctx,
                                        struct job *self,
                                        const struct orr_msg_devices_want *msg)
{
    (void)self;
    ctx->ops->ask(ctx, cluster_addr(ctx), ASK_MS, 1, orr_msg_desc_devices_want(), msg);
    return ORR_OK;
}
static enum orr_err job_on_devices_keep(struct orr_ctx *ctx,
                                        struct job *self,
                                        const struct orr_msg_devices_keep *msg)
{
    (void)self;
    ctx->ops->ask(ctx, cluster_addr(ctx), ASK_MS, 1, orr_msg_desc_devices_keep(), msg);
    return ORR_OK;
}
static enum orr_err job_on_devices_given(struct orr_ctx *ctx,
                                         struct job *self,
                                         const struct orr_msg_devices_given *msg)
{
    (void)ctx;
    (void)self;
    note(ORR_MSG_devices_given, msg->ranks);
    got.n_slots = msg->slots.n;
    got.n_others = msg->nodes.n;
    assert_true(msg->slots.n <= PLACES_MAX);
    for (uint32_t i = 0; i < msg->slots.n; i++) {
        got.slot[i] = msg->slots.at[i].device;
        orr_str_copy(got.slot_node[i], ORR_NAME_MAX, msg->slots.at[i].node);
    }
    return ORR_OK;
}
static enum orr_err job_on_job_released(struct orr_ctx *ctx,
                                        struct job *self,
                                        const struct orr_msg_job_released *msg)
{
    (void)self;
    ctx->ops->send(ctx, cluster_addr(ctx), orr_msg_desc_job_released(), msg);
    return ORR_OK;
}
static enum orr_err job_on_job_order(struct orr_ctx *ctx,
                                     struct job *self,
                                     const struct orr_msg_job_order *msg)
{
    (void)ctx;
    (void)self;
    got.msg = ORR_MSG_job_order;
    got.n = (uint32_t)msg->number;
    return ORR_OK;
}
static enum orr_err job_on_region_moved(struct orr_ctx *ctx,
                                        struct job *self,
                                        const struct orr_msg_region_moved *msg)
{
    (void)ctx;
    (void)self;
    (void)msg;
    return ORR_OK;
}
static enum orr_err job_on_node_changed(struct orr_ctx *ctx,
                                        struct job *self,
                                        const struct orr_msg_node_changed *msg)
{
    (void)ctx;
    (void)self;
    (void)msg;
    return ORR_OK;
}
static enum orr_err
job_on_ack(struct orr_ctx *ctx, struct job *self, const struct orr_msg_ack *msg)
{
    (void)ctx;
    (void)self;
    (void)msg;
    got.msg = ORR_MSG_ack;
    return ORR_OK;
}
static enum orr_err
job_on_failed(struct orr_ctx *ctx, struct job *self, const struct orr_msg_failed *msg)
{
    (void)ctx;
    (void)self;
    got.msg = ORR_MSG_failed;
    got.code = msg->code;
    return ORR_OK;
}
static const struct orr_handler job_handlers[] = {
    ORR_ON(job, job_start, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(job, devices_freed, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(job, devices_want, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(job, devices_keep, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(job, devices_given, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(job, job_released, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(job, job_order, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(job, region_moved, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(job, node_changed, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(job, ack, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(job, failed, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
};
static const struct orr_actor_type job_type = {
    .name = "job",
    .state_size = sizeof(struct job),
    .args_size = sizeof(struct orr_job_args),
    .handlers = job_handlers,
    .n_handlers = ORR_ARRAY_SIZE(job_handlers),
};

/* ---- the region: what is posted to it it asks of the cluster ---- */

struct region {
    char unused;
};
ORR_HANDLER(region, cluster_register)
ORR_HANDLER(region, cluster_summary)
ORR_HANDLER(region, job_assign)
ORR_HANDLER(region, job_order)
ORR_HANDLER(region, node_drain)
ORR_HANDLER(region, ack)
ORR_HANDLER(region, failed)
uint32_t n1_state, n1_free;

static enum orr_err
region_on_cluster_register(struct orr_ctx *ctx,
                           struct region *self,
                           const struct orr_msg_cluster_register *msg)
{
    (void)self;
    (void)msg;
    orr_reply(ctx, cluster_registered, .heartbeat_ms = BEAT_MS);
    return ORR_OK;
}
static enum orr_err region_on_cluster_summary(struct orr_ctx *ctx,
                                              struct region *self,
                                              const struct orr_msg_cluster_summary *msg)
{
    (void)ctx;
    (void)self;
    for (uint32_t i = 0; i < msg->nodes.n; i++)
        if (orr_str_eq(msg->nodes.at[i].node, ORR_LIT("n1"))) {
            n1_state = msg->nodes.at[i].state;
            n1_free = msg->nodes.at[i].gpus_free;
        }
    return ORR_OK;
}
static enum orr_err region_on_job_assign(struct orr_ctx *ctx,
                                         struct region *self,
                                         const struct orr_msg_job_assign *msg)
{
    (void)self;
    ctx->ops->ask(ctx, cluster_addr(ctx), ASK_MS, 1, orr_msg_desc_job_assign(), msg);
    return ORR_OK;
}
static enum orr_err region_on_job_order(struct orr_ctx *ctx,
                                        struct region *self,
                                        const struct orr_msg_job_order *msg)
{
    (void)self;
    ctx->ops->ask(ctx, cluster_addr(ctx), ASK_MS, 2, orr_msg_desc_job_order(), msg);
    return ORR_OK;
}
static enum orr_err region_on_node_drain(struct orr_ctx *ctx,
                                         struct region *self,
                                         const struct orr_msg_node_drain *msg)
{
    (void)self;
    ctx->ops->send(ctx, cluster_addr(ctx), orr_msg_desc_node_drain(), msg);
    return ORR_OK;
}
static enum orr_err
region_on_ack(struct orr_ctx *ctx, struct region *self, const struct orr_msg_ack *msg)
{
    (void)ctx;
    (void)self;
    (void)msg;
    return ORR_OK;
}
static enum orr_err region_on_failed(struct orr_ctx *ctx,
                                     struct region *self,
                                     const struct orr_msg_failed *msg)
{
    (void)self;
    (void)ctx;
    got.msg = ORR_MSG_failed;
    got.code = msg->code;
    return ORR_OK;
}
static const struct orr_handler region_handlers[] = {
    ORR_ON(region, cluster_register, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, cluster_summary, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, job_assign, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, job_order, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, node_drain, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, ack, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, failed, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
};
static const struct orr_actor_type region_type = {
    .name = "region",
    .state_size = sizeof(struct region),
    .handlers = region_handlers,
    .n_handlers = ORR_ARRAY_SIZE(region_handlers),
};

/* ---- nodes: register, and confirm the list of nodes with each heartbeat ---- */

struct node {
    char name[ORR_NAME_MAX];
    uint64_t seq;
    uint64_t members;
};
ORR_HANDLER(node, node_registered)
ORR_HANDLER(node, ack)
ORR_HANDLER(node, failed)
ORR_HANDLER(node, timer)

static enum orr_err node_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct node *self = state;
    struct orr_rec_device_row rows[DEVICES];
    memcpy(self->name, args, sizeof(self->name));
    for (uint32_t i = 0; i < DEVICES; i++)
        rows[i] = (struct orr_rec_device_row){.index = i,
                                              .type = i < 3 ? ORR_LIT("H100")
                                                            : ORR_LIT("H200"),
                                              .memory_bytes = 1 << 30,
                                              .is_healthy = true};
    orr_ask(ctx,
            cluster_addr(ctx),
            ASK_MS,
            1,
            node_register,
            .node = orr_str(self->name),
            .slots = 8,
            .devices = {rows, DEVICES},
            .seq = ++self->seq,
            .machine = ORR_LIT("192.0.2.7:4789"),
            .level = ORR_LEVEL_IMAGE);
    orr_timer_set(ctx, 1, BEAT_MS, 0);
    return ORR_OK;
}
static enum orr_err node_on_node_registered(struct orr_ctx *ctx,
                                            struct node *self,
                                            const struct orr_msg_node_registered *msg)
{
    (void)ctx;
    self->members = msg->members;
    return ORR_OK;
}
static enum orr_err
node_on_ack(struct orr_ctx *ctx, struct node *self, const struct orr_msg_ack *msg)
{
    (void)ctx;
    (void)self;
    (void)msg;
    return ORR_OK;
}
static enum orr_err
node_on_failed(struct orr_ctx *ctx, struct node *self, const struct orr_msg_failed *msg)
{
    (void)ctx;
    (void)self;
    (void)msg;
    return ORR_OK;
}
static enum orr_err
node_on_timer(struct orr_ctx *ctx, struct node *self, const struct orr_msg_timer *msg)
{
    (void)msg;
    orr_ask(ctx,
            cluster_addr(ctx),
            ASK_MS,
            2,
            node_heartbeat,
            .node = orr_str(self->name),
            .seq = ++self->seq,
            .members = self->members);
    orr_timer_set(ctx, 1, BEAT_MS, 0);
    return ORR_OK;
}
static const struct orr_handler node_handlers[] = {
    ORR_ON(node, node_registered, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(node, ack, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(node, failed, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(node, timer, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
};
static const struct orr_actor_type node_type = {
    .name = "node",
    .state_size = sizeof(struct node),
    .args_size = ORR_NAME_MAX,
    .init = node_init,
    .handlers = node_handlers,
    .n_handlers = ORR_ARRAY_SIZE(node_handlers),
};

/* ---- one host ---- */

static void spawn(const struct orr_actor_type *type, const void *args, const char *path)
{
    struct orr_addr addr;
    assert_int_equal(
        orr_system_spawn(orr_sim_system(sim, 0),
                         &(struct orr_spawn){type, args, path, ORR_PERMANENT},
                         &addr),
        ORR_OK);
}

static void boot(void *arg, struct orr_sim *s, uint32_t host)
{
    (void)arg;
    (void)host;
    sim = s;
    const struct orr_cluster_args args = {.region = "eu1",
                                          .cluster = "c1",
                                          .region_hosts = {"h"},
                                          .job_type = &job_type,
                                          .nodes_max = 8,
                                          .jobs_max = 16};
    char n1[ORR_NAME_MAX] = "n1", n2[ORR_NAME_MAX] = "n2";
    spawn(&region_type, NULL, "/eu1");
    spawn(&orr_cluster_type, &args, "/eu1/c1");
    spawn(&node_type, n1, "/n1");
    spawn(&node_type, n2, "/n2");
}

void run_for(uint64_t ms)
{
    struct orr_error err;
    assert_int_equal(orr_sim_run_until(sim, orr_sim_now_ms(sim) + ms, NULL, NULL, &err),
                     ORR_OK);
}

void post(const char *path, const struct orr_msg_desc *desc, const void *msg)
{
    memset(&got, 0, sizeof(got));
    orr_sim_post(sim,
                 0,
                 (struct orr_addr){0},
                 orr_addr_named(ORR_LIT("h"), orr_str(path)),
                 desc,
                 msg);
    run_for(100);
}

int setup(void **state)
{
    (void)state;
    uint32_t host;
    const struct orr_sim_config config = {.seed = 3, .boot = boot};
    assert_int_equal(orr_sim_new(&config, &sim), ORR_OK);
    assert_int_equal(orr_sim_host_add(sim, "h", &host), ORR_OK);
    run_for(2000);
    return 0;
}

int teardown(void **state)
{
    (void)state;
    orr_sim_free(sim);
    return 0;
}

void assign(
    const char *job, uint32_t world, uint32_t gpus, const char *node, bool is_parked)
{
    uint8_t wire[512];
    size_t len;
    const struct orr_rec_text command = {ORR_LIT("/bin/true")};
    const struct orr_rec_rank_place was[] = {
        {.rank = 0, .node = ORR_LIT("n1"), .device = 0},
        {.rank = 1, .node = ORR_LIT("n1"), .device = 1, .local_rank = 1}};
    const struct orr_msg_job_spec spec = {.name = ORR_LIT("t"),
                                          .command = {&command, 1},
                                          .world = world,
                                          .gpus_min = gpus,
                                          .gpus_max = gpus,
                                          .shards = 1};
    assert_int_equal(
        orr_msg_encode(orr_msg_desc_job_spec(), &spec, wire, sizeof(wire), &len),
        ORR_OK);
    POST("/eu1",
         job_assign,
         .job = orr_str(job),
         .generation = 1,
         .spec = {wire, (uint32_t)len},
         .want_node = orr_str(node),
         .is_recovery = is_parked,
         .is_suspended = is_parked,
         .ranks = {was, is_parked ? 2 : 0});
}

void want(const char *path, const char *job, uint32_t world, const uint32_t *device)
{
    struct orr_rec_rank_place was[PLACES_MAX];
    for (uint32_t i = 0; i < world; i++)
        was[i] = (struct orr_rec_rank_place){
            .rank = i, .node = ORR_LIT("n1"), .device = device[i], .local_rank = i};
    POST(path,
         devices_want,
         .job = orr_str(job),
         .generation = 1,
         .ranks = {was, world});
}
