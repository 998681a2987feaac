/* SPDX-License-Identifier: Apache-2.0
 * region_puppet.c - see region_puppet.h.
 */
#include "region_puppet.h"

#include "region/region.h"
#include "sim.h"
#include "sim/hand_ledger.h"
#include "world.h"

#include "orr_test.h"

enum { A, B, PUPPET, ASK_MS = 5000 };

static const char *const names[] = {"ra", "rb"};
static struct orr_sim *sim;
static struct hand_ledger ledger;
static struct world worlds[2];
static unsigned leader;
uint32_t gpus_free;
uint32_t least_gpus = PUPPET_WORLD, job_level;
uint32_t node_state;

/* ---- the puppet ---- */

struct puppet_answer answer;
struct puppet_seen seen;

struct puppet {
    char unused;
};

#define FORWARD(name)                                                                  \
    ORR_HANDLER(puppet, name)                                                          \
    static enum orr_err puppet_on_##name(                                              \
        struct orr_ctx *ctx, struct puppet *self, const struct orr_msg_##name *msg)    \
    {                                                                                  \
        (void)self;                                                                    \
        ctx->ops->ask(ctx,                                                             \
                      orr_addr_named(orr_str(names[leader]), ORR_LIT("/eu1")),         \
                      ASK_MS,                                                          \
                      1,                                                               \
                      orr_msg_desc_##name(),                                           \
                      msg);                                                            \
        return ORR_OK;                                                                 \
    }
#define FORWARDS(X)                                                                    \
    X(job_submit)                                                                      \
    X(job_show)                                                                        \
    X(job_cancel)                                                                      \
    X(job_suspend)                                                                     \
    X(job_resume)                                                                      \
    X(job_checkpoint)                                                                  \
    X(job_migrate)                                                                     \
    X(checkpoint_list)                                                                 \
    X(checkpoint_remove)                                                               \
    X(job_resize)                                                                      \
    X(cluster_register)                                                                \
    X(cluster_summary)                                                                 \
    X(jobs_resize)                                                                     \
    X(job_update)                                                                      \
    X(job_ended)                                                                       \
    X(checkpoint_commit)                                                               \
    X(order_failed)                                                                    \
    X(job_offer)                                                                       \
    X(job_transfer)                                                                    \
    X(region_check_get)
FORWARDS(FORWARD)

ORR_HANDLER(puppet, ack)
ORR_HANDLER(puppet, failed)
ORR_HANDLER(puppet, job_detail)
ORR_HANDLER(puppet, checkpoint_made)
ORR_HANDLER(puppet, checkpoint_rows)
ORR_HANDLER(puppet, region_check)
ORR_HANDLER(puppet, job_offered)
ORR_HANDLER(puppet, job_assign)
ORR_HANDLER(puppet, job_order)
ORR_HANDLER(puppet, job_stop)
ORR_HANDLER(puppet, node_drain)
ORR_HANDLER(puppet, stores_collect)
ORR_HANDLER(puppet, jobs_waiting)

static enum orr_err
puppet_on_ack(struct orr_ctx *ctx, struct puppet *self, const struct orr_msg_ack *msg)
{
    (void)ctx;
    (void)self;
    (void)msg;
    answer.msg = ORR_MSG_ack;
    return ORR_OK;
}

static enum orr_err puppet_on_failed(struct orr_ctx *ctx,
                                     struct puppet *self,
                                     const struct orr_msg_failed *msg)
{
    (void)ctx;
    (void)self;
    answer.msg = ORR_MSG_failed;
    answer.code = msg->code;
    orr_str_copy(answer.text, sizeof(answer.text), msg->text);
    return ORR_OK;
}

static enum orr_err puppet_on_job_detail(struct orr_ctx *ctx,
                                         struct puppet *self,
                                         const struct orr_msg_job_detail *msg)
{
    (void)ctx;
    (void)self;
    const struct orr_msg_desc *desc = orr_msg_desc_job_detail();
    free(answer.detail);
    answer.msg = ORR_MSG_job_detail;
    answer.detail = malloc(orr_msg_size(desc, msg));
    assert_non_null(answer.detail);
    orr_msg_copy(desc, msg, answer.detail);
    return ORR_OK;
}

static enum orr_err puppet_on_checkpoint_made(struct orr_ctx *ctx,
                                              struct puppet *self,
                                              const struct orr_msg_checkpoint_made *msg)
{
    (void)ctx;
    (void)self;
    answer.msg = ORR_MSG_checkpoint_made;
    answer.number = msg->row.number;
    return ORR_OK;
}

static enum orr_err puppet_on_checkpoint_rows(struct orr_ctx *ctx,
                                              struct puppet *self,
                                              const struct orr_msg_checkpoint_rows *msg)
{
    (void)ctx;
    (void)self;
    answer.msg = ORR_MSG_checkpoint_rows;
    answer.n_rows = msg->rows.n;
    answer.number = msg->rows.n ? msg->rows.at[0].number : 0;
    return ORR_OK;
}

static enum orr_err puppet_on_region_check(struct orr_ctx *ctx,
                                           struct puppet *self,
                                           const struct orr_msg_region_check *msg)
{
    (void)ctx;
    (void)self;
    answer.msg = ORR_MSG_region_check;
    answer.check = *msg;
    return ORR_OK;
}

static enum orr_err puppet_on_job_offered(struct orr_ctx *ctx,
                                          struct puppet *self,
                                          const struct orr_msg_job_offered *msg)
{
    (void)ctx;
    (void)self;
    answer.msg = ORR_MSG_job_offered;
    answer.offered = *msg;
    answer.code = msg->code;
    orr_str_copy(answer.text, sizeof(answer.text), msg->text);
    return ORR_OK;
}

static uint64_t number_in(struct orr_bytes manifest)
{
    uint64_t buf[512];
    if (manifest.len == 0)
        return 0;
    assert_int_equal(
        orr_msg_decode(
            orr_msg_desc_manifest(), manifest.ptr, manifest.len, buf, sizeof(buf)),
        ORR_OK);
    const struct orr_msg_manifest *msg = (const void *)buf;
    assert_int_equal(msg->parts.n, PUPPET_WORLD);
    return msg->row.number;
}

static enum orr_err puppet_on_job_assign(struct orr_ctx *ctx,
                                         struct puppet *self,
                                         const struct orr_msg_job_assign *msg)
{
    (void)ctx;
    (void)self;
    seen.n_assigns++;
    seen.generation = msg->generation;
    seen.manifest = number_in(msg->manifest);
    seen.is_recovery = msg->is_recovery;
    seen.is_suspended = msg->is_suspended;
    seen.devices = msg->devices;
    orr_str_copy(seen.want_node, sizeof(seen.want_node), msg->want_node);
    return ORR_OK;
}

static enum orr_err puppet_on_job_order(struct orr_ctx *ctx,
                                        struct puppet *self,
                                        const struct orr_msg_job_order *msg)
{
    (void)self;
    seen.n_orders++;
    seen.order = *msg; /* numbers only */
    return seen.refuse_order
               ? orr_refuse(ctx, (enum orr_err)seen.refuse_order, "not this one")
               : ORR_OK;
}

static enum orr_err puppet_on_job_stop(struct orr_ctx *ctx,
                                       struct puppet *self,
                                       const struct orr_msg_job_stop *msg)
{
    (void)ctx;
    (void)self;
    (void)msg;
    seen.n_stops++;
    return ORR_OK;
}

static enum orr_err puppet_on_node_drain(struct orr_ctx *ctx,
                                         struct puppet *self,
                                         const struct orr_msg_node_drain *msg)
{
    (void)ctx;
    (void)self;
    seen.n_drains++;
    seen.is_draining = msg->is_draining;
    return ORR_OK;
}

static enum orr_err puppet_on_stores_collect(struct orr_ctx *ctx,
                                             struct puppet *self,
                                             const struct orr_msg_stores_collect *msg)
{
    (void)ctx;
    (void)self;
    seen.n_collects++;
    seen.n_roots = msg->roots.len / 32;
    seen.term = msg->term;
    seen.round = msg->round;
    return ORR_OK;
}

static enum orr_err puppet_on_jobs_waiting(struct orr_ctx *ctx,
                                           struct puppet *self,
                                           const struct orr_msg_jobs_waiting *msg)
{
    (void)ctx;
    (void)self;
    seen.n_waiting = msg->jobs.n;
    return ORR_OK;
}

static const struct orr_handler puppet_handlers[] = {
#define X(name) ORR_ON(puppet, name, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    FORWARDS(X) X(ack) X(failed) X(job_detail) X(checkpoint_made) X(checkpoint_rows)
        X(region_check) X(job_offered) X(job_assign) X(job_order) X(job_stop)
            X(node_drain) X(stores_collect) X(jobs_waiting)
#undef X
};
static const struct orr_actor_type puppet_type = {
    .name = "puppet",
    .state_size = sizeof(struct puppet),
    .handlers = puppet_handlers,
    .n_handlers = ORR_ARRAY_SIZE(puppet_handlers),
};

/* ---- the other region ---- */

struct puppet_peer peer;

struct peer {
    char unused;
};

ORR_HANDLER(peer, job_offer)
ORR_HANDLER(peer, job_transfer)

static enum orr_err peer_on_job_offer(struct orr_ctx *ctx,
                                      struct peer *self,
                                      const struct orr_msg_job_offer *msg)
{
    (void)self;
    peer.n_offers++;
    size_t len = 0;
    for (uint32_t i = 0; i < msg->hosts.n && len < sizeof(peer.hosts); i++)
        len += (size_t)snprintf(peer.hosts + len,
                                sizeof(peer.hosts) - len,
                                "%s%.*s",
                                i ? " " : "",
                                ORR_STR_ARGS(msg->hosts.at[i].value));
    if (peer.is_silent) {
        (void)orr_defer(ctx);
        return ORR_OK;
    }
    if (peer.is_stalling)
        return orr_refuse(ctx, ORR_ENOTLEADER, "nobody leads");
    bool has_it = peer.has_taken && peer.generation >= msg->generation;
    peer.is_known = peer.is_known || (has_it && msg->is_known);
    if (!has_it && peer.refuses && !msg->is_known)
        orr_reply(ctx,
                  job_offered,
                  .is_refused = true,
                  .code = ORR_EINVAL,
                  .text = ORR_LIT("not this one"));
    else
        orr_reply(ctx,
                  job_offered,
                  .is_taken = has_it,
                  .is_settled = has_it && peer.is_settled,
                  .token = msg->is_final ? ++peer.token : 0);
    return ORR_OK;
}

static enum orr_err peer_on_job_transfer(struct orr_ctx *ctx,
                                         struct peer *self,
                                         const struct orr_msg_job_transfer *msg)
{
    (void)self;
    peer.n_transfers++;
    if (msg->token != peer.token)
        return ORR_ESTALE;
    peer.has_taken = true;
    peer.generation = msg->generation;
    peer.manifest = number_in(msg->manifest);
    if (peer.is_mute)
        (void)orr_defer(ctx);
    return ORR_OK;
}

static const struct orr_handler peer_handlers[] = {
    ORR_ON(peer, job_offer, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(peer, job_transfer, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
};
static const struct orr_actor_type peer_type = {
    .name = "peer",
    .state_size = sizeof(struct peer),
    .handlers = peer_handlers,
    .n_handlers = ORR_ARRAY_SIZE(peer_handlers),
};

/* ---- hosts ---- */

static void spawn(uint32_t host,
                  const struct orr_actor_type *type,
                  const void *args,
                  const char *path)
{
    struct orr_addr addr;
    assert_int_equal(
        orr_system_spawn(orr_sim_system(sim, host),
                         &(struct orr_spawn){type, args, path, ORR_PERMANENT},
                         &addr),
        ORR_OK);
}

static void boot(void *arg, struct orr_sim *s, uint32_t host)
{
    (void)arg;
    sim = s;
    if (host == PUPPET) {
        spawn(host, &puppet_type, NULL, "/eu1/c1");
        spawn(host, &peer_type, NULL, "/us2");
        return;
    }
    invariants_fini(&worlds[host].invariants);
    worlds[host] = (struct world){0};
    assert_int_equal(invariants_init(&worlds[host].invariants), ORR_OK);
    struct orr_region_args region = {
        .region = "eu1",
        .jobs_max = 64,
        .collect_every_ms = 4000,
        .peers = {{.region = "us2", .host = "puppet", .endpoint = "ipc:///us2"}},
        .n_peers = 1};
    snprintf(region.host, sizeof(region.host), "%s", names[host]);
    const struct edge_args edge = {NULL, &worlds[host]};
    const struct hand_ledger_args args = {&ledger, "/eu1"};
    spawn(host, &sim_events_type, &edge, "/edge/events");
    spawn(host, &hand_ledger_type, &args, "/edge/ledger");
    spawn(host, &orr_region_type, &region, "/eu1");
}

void run_for(uint64_t ms)
{
    struct orr_error err;
    assert_int_equal(orr_sim_run_until(sim, orr_sim_now_ms(sim) + ms, NULL, NULL, &err),
                     ORR_OK);
}

uint16_t post(const struct orr_msg_desc *desc, const void *msg)
{
    answer.msg = 0;
    orr_sim_post(sim,
                 PUPPET,
                 (struct orr_addr){0},
                 orr_addr_named(ORR_LIT("puppet"), ORR_LIT("/eu1/c1")),
                 desc,
                 msg);
    run_for(100);
    return answer.msg;
}

const struct orr_msg_job_detail *show(void)
{
    assert_int_equal(POST(job_show, .job = ORR_LIT("eu1-1")), ORR_MSG_job_detail);
    return answer.detail;
}

/* Not forwarded: the region tells its cluster with the same message. */
void drain(const char *node, bool is_draining)
{
    const struct orr_msg_node_drain msg = {.node = orr_str(node),
                                           .is_draining = is_draining};
    orr_sim_post(sim,
                 leader,
                 (struct orr_addr){0},
                 orr_addr_named(orr_str(names[leader]), ORR_LIT("/eu1")),
                 orr_msg_desc_node_drain(),
                 &msg);
    run_for(100);
}

void summary(void)
{
    const struct orr_rec_node_row nodes[] = {
        {.node = ORR_LIT("n1"),
         .state = node_state,
         .gpus = 4,
         .gpus_free = gpus_free,
         .slots = 4,
         .level = ORR_LEVEL_IMAGE,
         .host = ORR_LIT("n1"),
         .endpoint = ORR_LIT("ipc:///n1")},
        {.node = ORR_LIT("n2"), .gpus = 4, .gpus_free = gpus_free, .slots = 4}};
    POST(cluster_summary, .cluster = ORR_LIT("c1"), .nodes = {nodes, 2});
}

/* The cluster holds generation g of the job, or nothing. */
static void register_with(uint64_t g)
{
    const struct orr_rec_job_claim claim = {.job = ORR_LIT("eu1-1"), .generation = g};
    POST(cluster_register, .cluster = ORR_LIT("c1"), .jobs = {&claim, g ? 1 : 0});
    summary();
    run_for(300);
}

void tables_match(void)
{
    unsigned led = leader;
    run_for(300);
    for (leader = A; leader <= B; leader++) {
        uint64_t keys;
        assert_int_equal(POST(region_check_get, .end_ = 0), ORR_MSG_region_check);
        assert_int_equal(answer.check.digest, hand_ledger_digest(&ledger, &keys));
        assert_int_equal(answer.check.keys, keys);
    }
    leader = led;
}

void puppet_commits(bool is_committing)
{
    ledger.is_committing = is_committing;
}

/* Another host leads from now on, and the cluster registers there with what it has. */
void fail_over(uint64_t generation)
{
    leader = leader == A ? B : A;
    hand_ledger_lead(&ledger, names[leader]);
    run_for(500);
    register_with(generation);
    tables_match();
}

static void tell(uint32_t phase, uint32_t devices)
{
    static uint64_t step;
    const struct orr_rec_rank_place ranks[] = {
        {.rank = 0, .node = ORR_LIT("n1"), .device = 0},
        {.rank = 1,
         .node = ORR_LIT("n1"),
         .device = devices > 1 ? 1 : 0,
         .local_rank = 1}};
    assert_int_equal(POST(job_update,
                          .job = ORR_LIT("eu1-1"),
                          .generation = seen.generation,
                          .phase = phase,
                          .step = ++step,
                          .ranks = {ranks, devices ? PUPPET_WORLD : 0},
                          .level = job_level,
                          .devices = devices),
                     ORR_MSG_ack);
}

void update(uint32_t phase)
{
    tell(phase, phase == ORR_JOB_LAUNCHING ? PUPPET_WORLD : 0);
}

void update_on(uint32_t phase, uint32_t devices)
{
    tell(phase, devices);
}

uint16_t commit(uint64_t order, uint64_t number, uint64_t cut, const char *hash_of_1)
{
    return POST(checkpoint_commit,
                .order = order,
                .row = {.job = ORR_LIT("eu1-1"),
                        .number = number,
                        .generation = seen.generation,
                        .cut = cut,
                        .level = ORR_LEVEL_IMAGE,
                        .cause = ORR_LIT("asked")},
                .manifest = puppet_manifest(0, hash_of_1));
}

struct orr_bytes puppet_manifest(uint64_t number, const char *hash_of_1)
{
    static uint8_t wire[1024];
    const struct orr_rec_part parts[] = {
        {.rank = 0, .hash = ORR_LIT(PUPPET_HASH), .store = ORR_LIT("s1")},
        {.rank = 1, .hash = orr_str(hash_of_1), .store = ORR_LIT("s1")}};
    const struct orr_msg_manifest manifest = {.row = {.number = number},
                                              .world = PUPPET_WORLD,
                                              .parts = {parts, PUPPET_WORLD}};
    size_t len;
    assert_int_equal(
        orr_msg_encode(orr_msg_desc_manifest(), &manifest, wire, sizeof(wire), &len),
        ORR_OK);
    return (struct orr_bytes){wire, (uint32_t)len};
}

/* With the cluster's heartbeats. */
void wait_for(uint64_t ms)
{
    for (; ms >= 500; ms -= 500) {
        summary();
        run_for(400);
    }
}

void end(uint32_t outcome, bool is_restore_failed)
{
    assert_int_equal(POST(job_ended,
                          .job = ORR_LIT("eu1-1"),
                          .generation = seen.generation,
                          .outcome = outcome,
                          .culprit = -1,
                          .reason = ORR_LIT("a test"),
                          .is_restore_failed = is_restore_failed),
                     ORR_MSG_ack);
    wait_for(3000);
}

struct orr_bytes puppet_spec(void)
{
    static uint8_t spec[512];
    size_t len;
    const struct orr_rec_text command = {ORR_LIT("/bin/true")};
    const struct orr_msg_job_spec job = {.name = ORR_LIT("t"),
                                         .project = ORR_LIT("p"),
                                         .command = {&command, 1},
                                         .workdir = ORR_LIT("/"),
                                         .world = PUPPET_WORLD,
                                         .gpus_min = least_gpus,
                                         .gpus_max = PUPPET_WORLD,
                                         .shards = 1,
                                         .checkpoint_every_ms = 900000,
                                         .checkpoint_keep = 2,
                                         .hang_ms = 300000,
                                         .retries_infra = -1,
                                         .backoff_min_ms = 100,
                                         .backoff_max_ms = 100};
    assert_int_equal(
        orr_msg_encode(orr_msg_desc_job_spec(), &job, spec, sizeof(spec), &len),
        ORR_OK);
    return (struct orr_bytes){spec, (uint32_t)len};
}

static void submit(void)
{
    POST(job_submit, .key = ORR_LIT("k"), .spec = puppet_spec());
    run_for(200);
}

int puppet_setup(void **state)
{
    (void)state;
    uint32_t host;
    memset(&ledger, 0, sizeof(ledger));
    memset(&answer, 0, sizeof(answer));
    memset(&seen, 0, sizeof(seen));
    memset(&peer, 0, sizeof(peer));
    leader = A;
    gpus_free = 4;
    job_level = ORR_LEVEL_IMAGE;
    node_state = ORR_NODE_UP;
    ledger.is_committing = true;
    const struct orr_sim_config config = {.seed = 5, .boot = boot};
    assert_int_equal(orr_sim_new(&config, &sim), ORR_OK);
    assert_int_equal(orr_sim_host_add(sim, names[A], &host), ORR_OK);
    assert_int_equal(orr_sim_host_add(sim, names[B], &host), ORR_OK);
    assert_int_equal(orr_sim_host_add(sim, "puppet", &host), ORR_OK);
    hand_ledger_lead(&ledger, names[A]);
    run_for(200);
    register_with(0);
    submit();
    return 0;
}

int puppet_teardown(void **state)
{
    (void)state;
    free(answer.detail);
    orr_sim_free(sim);
    hand_ledger_free(&ledger);
    for (unsigned i = 0; i < ORR_ARRAY_SIZE(worlds); i++)
        invariants_fini(&worlds[i].invariants);
    return 0;
}
