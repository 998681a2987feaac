/* SPDX-License-Identifier: Apache-2.0
 * test_sim_regions.c - jobs that are sent back and forth between two regions while everything goes wrong: a job runs in one of
 * them at most, goes on from its newest checkpoint, and is never lost.
 *
 * Each region is two hosts with the real region actor over a hand_ledger; its one cluster is a puppet that plays the job actors,
 * too, and repeats whatever is not answered.  Seeds decide about losses, repeats, reordering, partitions between the regions,
 * crashes of region hosts, changes of leaders, ledgers that commit nothing for a while, and hosts that refuse jobs.  Then the
 * faults stop and every job must run.  REGION_SEEDS=200 REGION_SEED=1 say how many seeds, and from which.
 */
#include "hand_ledger.h"
#include "region/region.h"
#include "sim.h"
#include "world.h"

#include "orr_test.h"

enum {
    REGIONS = 2,
    HOSTS = 2, /* of each region */
    JOBS = 3,
    WORLD = 2,
    ASK_MS = 400,
    TICK_MS = 150,
    FAULTS_MS = 40000,
    END_MS = 60000,
};

static const char hash[] =
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
static const char *const host_names[REGIONS * HOSTS] = {"r1a", "r1b", "r2a", "r2b"};
static const char *const region_names[REGIONS] = {"r1", "r2"};

static struct orr_sim *sim;
static struct hand_ledger ledgers[REGIONS];
static struct world worlds[REGIONS * HOSTS];
static unsigned leads[REGIONS]; /* host of the region */
static bool
    has_peers; /* in the configuration of a host that starts now; one without refuses */

/* ---- what is true of the jobs ---- */

enum slot_state { SLOT_NONE, SLOT_LAUNCH, SLOT_RUN, SLOT_SAVE, SLOT_END };

static struct truth {
    char id[ORR_JOB_ID_MAX];
    uint64_t
        committed; /* number of the newest checkpoint that a region has acknowledged */
    uint64_t saving; /* the one under way: it counts, or it does not */
    unsigned starts;
} truths[JOBS];
static unsigned n_jobs;
static char broken[512];

static struct slot { /* a generation of a job at a cluster */
    uint64_t generation;
    enum slot_state state;
    bool runs; /* it has the permit, and ranks */
    uint64_t base;
    uint64_t order, checkpoint;
    uint64_t step;
} slots[REGIONS][JOBS];
static uint64_t moves_asked, moves_done;

static void breaks(const char *what, unsigned job)
{
    if (!broken[0])
        snprintf(broken, sizeof(broken), "job %s: %s", truths[job].id, what);
}

static bool check(void *arg, struct orr_sim *s, char *text, size_t cap)
{
    (void)arg;
    (void)s;
    for (unsigned j = 0; j < n_jobs; j++)
        if (slots[0][j].runs && slots[1][j].runs)
            breaks("runs in both regions", j);
    snprintf(text, cap, "%s", broken);
    return !broken[0];
}

/* ---- a cluster and its job actors ---- */

struct puppet {
    unsigned region;
    bool is_registered;
    uint32_t seq;
};

#define SAYS(X)                                                                        \
    X(job_assign)                                                                      \
    X(job_order)                                                                       \
    X(job_stop)                                                                        \
    X(cluster_registered)                                                              \
    X(stores_collect)                                                                  \
    X(job_submitted)                                                                   \
    X(ack)                                                                             \
    X(failed)                                                                          \
    X(timer)
#define X(name) ORR_HANDLER(puppet, name)
SAYS(X)
#undef X

static unsigned job_index(struct orr_str id)
{
    unsigned j = 0;
    while (j < n_jobs && !orr_str_eq(orr_str(truths[j].id), id))
        j++;
    return j;
}

static struct orr_addr leader_of(unsigned region)
{
    char path[ORR_NAME_MAX + 1];
    snprintf(path, sizeof(path), "/%s", region_names[region]);
    return orr_addr_named(orr_str(host_names[region * HOSTS + leads[region]]),
                          orr_str(path));
}

/* What an answer belongs to. */
static uint64_t tag_of(unsigned region, unsigned job)
{
    const struct slot *slot = &slots[region][job];
    return slot->generation << 32 | slot->order << 16 | (uint64_t)slot->state << 8 |
           job;
}

#define ASK(ctx, self, job, name, ...)                                                 \
    orr_ask(ctx,                                                                       \
            leader_of((self)->region),                                                 \
            ASK_MS,                                                                    \
            tag_of((self)->region, job),                                               \
            name,                                                                      \
            __VA_ARGS__)

static void
say_phase(struct orr_ctx *ctx, const struct puppet *self, unsigned j, uint32_t phase)
{
    struct slot *slot = &slots[self->region][j];
    const struct orr_rec_rank_place ranks[] = {
        {.rank = 0, .node = ORR_LIT("n1"), .device = 0},
        {.rank = 1, .node = ORR_LIT("n1"), .device = 1, .local_rank = 1}};
    ASK(ctx,
        self,
        j,
        job_update,
        .job = orr_str(truths[j].id),
        .generation = slot->generation,
        .phase = phase,
        .step = ++slot->step,
        .ranks = {ranks, phase == ORR_JOB_LAUNCHING ? WORLD : 0},
        .level = ORR_LEVEL_IMAGE);
}

static void say_saved(struct orr_ctx *ctx, const struct puppet *self, unsigned j)
{
    static uint8_t wire[1024];
    const struct slot *slot = &slots[self->region][j];
    const struct orr_rec_part parts[] = {{.rank = 0, .hash = orr_str(hash)},
                                         {.rank = 1, .hash = orr_str(hash)}};
    const struct orr_msg_manifest manifest = {.world = WORLD, .parts = {parts, WORLD}};
    size_t len;
    assert_int_equal(
        orr_msg_encode(orr_msg_desc_manifest(), &manifest, wire, sizeof(wire), &len),
        ORR_OK);
    truths[j].saving = slot->checkpoint;
    ASK(ctx,
        self,
        j,
        checkpoint_commit,
        .order = slot->order,
        .row = {.job = orr_str(truths[j].id),
                .number = slot->checkpoint,
                .generation = slot->generation,
                .cut = slot->order,
                .level = ORR_LEVEL_IMAGE,
                .cause = ORR_LIT("asked")},
        .manifest = {wire, (uint32_t)len});
}

/* Whatever the slot still has to say. */
static void say(struct orr_ctx *ctx, const struct puppet *self, unsigned j)
{
    const struct slot *slot = &slots[self->region][j];
    switch (slot->state) {
    case SLOT_LAUNCH:
        say_phase(ctx, self, j, ORR_JOB_LAUNCHING);
        break;
    case SLOT_RUN:
        if (slot->step < 1000) /* until it is acknowledged */
            say_phase(ctx, self, j, ORR_JOB_RUNNING);
        break;
    case SLOT_SAVE:
        say_saved(ctx, self, j);
        break;
    case SLOT_END:
        ASK(ctx,
            self,
            j,
            job_ended,
            .job = orr_str(truths[j].id),
            .generation = slot->generation,
            .outcome = ORR_OUTCOME_MOVED,
            .culprit = -1);
        break;
    case SLOT_NONE:
        break;
    }
}

static void start(unsigned region, unsigned j)
{
    struct slot *slot = &slots[region][j];
    struct truth *truth = &truths[j];
    slot->state = SLOT_RUN;
    slot->runs = true;
    truth->starts++;
    if (slot->base <
        truth->committed) /* one whose acknowledgement was lost may be newer */
        breaks("does not go on from its newest checkpoint", j);
    truth->committed = slot->base;
}

static enum orr_err
puppet_on_ack(struct orr_ctx *ctx, struct puppet *self, const struct orr_msg_ack *msg)
{
    (void)msg;
    unsigned j = ctx->tag & 0xff;
    struct slot *slot = &slots[self->region][j < JOBS ? j : 0];
    bool is_it = j < n_jobs && ctx->tag == tag_of(self->region, j);
    if (!is_it)
        return ORR_OK;
    if (slot->state == SLOT_LAUNCH) {
        start(self->region, j);
        say(ctx, self, j);
    } else if (slot->state == SLOT_RUN) {
        slot->step = 1000;
    } else if (slot->state == SLOT_SAVE) {
        truths[j].committed = truths[j].saving;
        slot->runs = false; /* the point of no return: its ranks are killed */
        slot->state = SLOT_END;
        say(ctx, self, j);
    } else if (slot->state == SLOT_END) {
        slot->state = SLOT_NONE;
    }
    return ORR_OK;
}

static enum orr_err puppet_on_failed(struct orr_ctx *ctx,
                                     struct puppet *self,
                                     const struct orr_msg_failed *msg)
{
    unsigned j = ctx->tag & 0xff;
    bool is_over = msg->code == ORR_ESTALE || msg->code == ORR_ENOENT;
    if (ctx->tag == UINT64_MAX) {
        self->is_registered =
            self->is_registered && !is_over && msg->code != ORR_ENOTLEADER;
        return ORR_OK;
    }
    struct slot *slot = &slots[self->region][j < JOBS ? j : 0];
    if (j >= n_jobs || slot->generation != ctx->tag >> 32 || !is_over)
        return ORR_OK;
    slot->runs = false;
    slot->state = SLOT_NONE;
    return ORR_OK;
}

static enum orr_err puppet_on_job_assign(struct orr_ctx *ctx,
                                         struct puppet *self,
                                         const struct orr_msg_job_assign *msg)
{
    unsigned j = job_index(msg->job);
    struct slot *slot = &slots[self->region][j < JOBS ? j : 0];
    uint64_t buf[512];
    if (j == n_jobs || msg->generation < slot->generation)
        return orr_refuse(ctx, ORR_ESTALE, "an older generation");
    if (msg->generation == slot->generation)
        return ORR_OK;
    if (slot->runs)
        breaks("is to start while its former generation runs", j);
    *slot = (struct slot){.generation = msg->generation, .state = SLOT_LAUNCH};
    if (msg->manifest.len) {
        assert_int_equal(orr_msg_decode(orr_msg_desc_manifest(),
                                        msg->manifest.ptr,
                                        msg->manifest.len,
                                        buf,
                                        sizeof(buf)),
                         ORR_OK);
        slot->base = ((const struct orr_msg_manifest *)(const void *)buf)->row.number;
    }
    return ORR_OK;
}

static enum orr_err puppet_on_job_order(struct orr_ctx *ctx,
                                        struct puppet *self,
                                        const struct orr_msg_job_order *msg)
{
    unsigned j = job_index(msg->job);
    struct slot *slot = &slots[self->region][j < JOBS ? j : 0];
    if (j == n_jobs || slot->generation != msg->generation || slot->state == SLOT_NONE)
        return orr_refuse(ctx, ORR_ESTALE, "not here");
    bool is_new = msg->order == ORR_ORDER_VACATE && msg->number > slot->order &&
                  (slot->state == SLOT_RUN || slot->state == SLOT_SAVE);
    if (!is_new)
        return ORR_OK;
    slot->order = msg->number;
    slot->checkpoint = msg->checkpoint;
    slot->state = SLOT_SAVE;
    return ORR_OK;
}

static enum orr_err puppet_on_job_stop(struct orr_ctx *ctx,
                                       struct puppet *self,
                                       const struct orr_msg_job_stop *msg)
{
    (void)ctx;
    (void)self;
    (void)msg;
    return ORR_OK;
}

static enum orr_err puppet_on_stores_collect(struct orr_ctx *ctx,
                                             struct puppet *self,
                                             const struct orr_msg_stores_collect *msg)
{
    (void)ctx;
    (void)self;
    (void)msg;
    return ORR_OK;
}

static enum orr_err puppet_on_job_submitted(struct orr_ctx *ctx,
                                            struct puppet *self,
                                            const struct orr_msg_job_submitted *msg)
{
    (void)ctx;
    (void)self;
    if (job_index(msg->job) == n_jobs && n_jobs < JOBS)
        orr_str_copy(truths[n_jobs++].id, ORR_JOB_ID_MAX, msg->job);
    return ORR_OK;
}

/* What the region does not list, is stopped. */
static enum orr_err
puppet_on_cluster_registered(struct orr_ctx *ctx,
                             struct puppet *self,
                             const struct orr_msg_cluster_registered *msg)
{
    (void)ctx;
    self->is_registered = true;
    for (unsigned j = 0; j < n_jobs; j++) {
        struct slot *slot = &slots[self->region][j];
        bool is_listed = false;
        for (uint32_t i = 0; i < msg->jobs.n; i++)
            is_listed =
                is_listed || (msg->jobs.at[i].generation == slot->generation &&
                              orr_str_eq(msg->jobs.at[i].job, orr_str(truths[j].id)));
        if (is_listed || slot->state == SLOT_NONE)
            continue;
        slot->runs = false;
        slot->state = SLOT_NONE;
    }
    return ORR_OK;
}

static void greet(struct orr_ctx *ctx, const struct puppet *self)
{
    struct orr_rec_job_claim claims[JOBS];
    uint32_t n = 0;
    const struct orr_rec_node_row node = {.node = ORR_LIT("n1"),
                                          .gpus = 16,
                                          .gpus_free = 16,
                                          .slots = 4,
                                          .level = ORR_LEVEL_IMAGE,
                                          .host = ORR_LIT("n1"),
                                          .endpoint = ORR_LIT("ipc:///n1")};
    const char *name = self->region ? "c2" : "c1";
    for (unsigned j = 0; j < n_jobs; j++)
        if (slots[self->region][j].state != SLOT_NONE)
            claims[n++] = (struct orr_rec_job_claim){
                orr_str(truths[j].id), slots[self->region][j].generation, 0};
    if (!self->is_registered)
        orr_ask(ctx,
                leader_of(self->region),
                ASK_MS,
                UINT64_MAX,
                cluster_register,
                .cluster = orr_str(name),
                .jobs = {claims, n});
    else
        orr_ask(ctx,
                leader_of(self->region),
                ASK_MS,
                UINT64_MAX,
                cluster_summary,
                .cluster = orr_str(name),
                .nodes = {&node, 1});
}

static void submit(struct orr_ctx *ctx, const struct puppet *self)
{
    uint8_t spec[512];
    char key[8];
    size_t len;
    const struct orr_rec_text command = {ORR_LIT("/bin/true")};
    const struct orr_msg_job_spec job = {.name = ORR_LIT("t"),
                                         .project = ORR_LIT("p"),
                                         .command = {&command, 1},
                                         .workdir = ORR_LIT("/"),
                                         .world = WORLD,
                                         .gpus_min = WORLD,
                                         .gpus_max = WORLD,
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
    snprintf(key, sizeof(key), "k%u", n_jobs);
    orr_ask(ctx,
            leader_of(self->region),
            ASK_MS,
            UINT64_MAX - 1,
            job_submit,
            .key = orr_str(key),
            .spec = {spec, (uint32_t)len});
}

static enum orr_err puppet_on_timer(struct orr_ctx *ctx,
                                    struct puppet *self,
                                    const struct orr_msg_timer *msg)
{
    (void)msg;
    orr_timer_set(ctx, 1, TICK_MS, 0);
    greet(ctx, self);
    if (self->region == 0 && n_jobs < JOBS)
        submit(ctx, self);
    for (unsigned j = 0; j < n_jobs; j++)
        say(ctx, self, j);
    return ORR_OK;
}

static enum orr_err puppet_init(struct orr_ctx *ctx, void *state, const void *args)
{
    ((struct puppet *)state)->region = *(const unsigned *)args;
    orr_timer_set(ctx, 1, TICK_MS, 0);
    return ORR_OK;
}

static const struct orr_handler puppet_handlers[] = {
#define X(name) ORR_ON(puppet, name, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    SAYS(X)
#undef X
};
static const struct orr_actor_type puppet_type = {
    .name = "puppet",
    .state_size = sizeof(struct puppet),
    .args_size = sizeof(unsigned),
    .init = puppet_init,
    .handlers = puppet_handlers,
    .n_handlers = ORR_ARRAY_SIZE(puppet_handlers),
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
    if (host >= REGIONS * HOSTS) {
        unsigned region = host - REGIONS * HOSTS;
        spawn(host, &puppet_type, &region, region ? "/r2/c2" : "/r1/c1");
        return;
    }
    unsigned region = host / HOSTS, other = 1 - region;
    static struct orr_region_args args;
    invariants_fini(&worlds[host].invariants);
    worlds[host] = (struct world){0};
    assert_int_equal(invariants_init(&worlds[host].invariants), ORR_OK);
    args = (struct orr_region_args){
        .jobs_max = 16, .n_peers = has_peers ? HOSTS : 0, .suspect_ms = 3000};
    snprintf(args.region, sizeof(args.region), "%s", region_names[region]);
    snprintf(args.host, sizeof(args.host), "%s", host_names[host]);
    for (unsigned i = 0; i < args.n_peers; i++) {
        snprintf(args.peers[i].region, ORR_NAME_MAX, "%s", region_names[other]);
        snprintf(args.peers[i].host, ORR_NAME_MAX, "%s", host_names[other * HOSTS + i]);
    }
    struct hand_ledger_args ledger = {.ledger = &ledgers[region]};
    snprintf(
        ledger.region_path, sizeof(ledger.region_path), "/%s", region_names[region]);
    const struct edge_args edge = {NULL, &worlds[host]};
    spawn(host, &sim_events_type, &edge, "/edge/events");
    spawn(host, &hand_ledger_type, &ledger, "/edge/ledger");
    spawn(host, &orr_region_type, &args, ledger.region_path);
}

static void lead(unsigned region, unsigned host)
{
    leads[region] = host;
    hand_ledger_lead(&ledgers[region], host_names[region * HOSTS + host]);
}

/* ---- what goes wrong ---- */

static unsigned dice(unsigned sides)
{
    return (unsigned)(orr_sim_random(sim) % sides);
}

static void ask_to_move(void)
{
    unsigned region = dice(REGIONS), j = dice(JOBS);
    if (j >= n_jobs)
        return;
    const struct orr_msg_job_migrate msg = {
        .job = orr_str(truths[j].id), .region = orr_str(region_names[1 - region])};
    moves_asked++;
    orr_sim_post(sim,
                 region * HOSTS + leads[region],
                 (struct orr_addr){0},
                 leader_of(region),
                 orr_msg_desc_job_migrate(),
                 &msg);
}

static void one_fault(void)
{
    unsigned region = dice(REGIONS);
    uint32_t host = region * HOSTS + leads[region];
    switch (dice(6)) {
    case 0:
        lead(region, 1 - leads[region]);
        break;
    case 1: /* its host dies; the other one goes on */
        orr_sim_crash(sim, host);
        lead(region, 1 - leads[region]);
        break;
    case 2:
        ledgers[region].is_committing = !ledgers[region].is_committing;
        break;
    case 3:
        for (uint32_t h = 0; h < HOSTS; h++)
            orr_sim_side_set(sim, HOSTS + h, dice(2));
        orr_sim_side_set(sim, REGIONS * HOSTS + 1, 0);
        break;
    default:
        break;
    }
    if (ledgers[region].is_committing)
        hand_ledger_commit(&ledgers[region]);
    for (uint32_t h = 0; h < REGIONS * HOSTS; h++) {
        has_peers = dice(3) > 0;
        if (!orr_sim_system(sim, h) && dice(2))
            assert_int_equal(orr_sim_restart(sim, h), ORR_OK);
    }
}

static void calm(void)
{
    static const struct orr_sim_faults none = {.delay_min_ms = 1, .delay_max_ms = 5};
    assert_int_equal(orr_sim_faults_set(sim, ORR_SIM_ALL, ORR_SIM_ALL, &none), ORR_OK);
    has_peers = true;
    for (uint32_t h = 0; h < REGIONS * HOSTS; h++) {
        orr_sim_side_set(sim, h, 0);
        if (orr_sim_system(sim, h))
            orr_sim_crash(sim, h);
        assert_int_equal(orr_sim_restart(sim, h), ORR_OK);
    }
    for (unsigned r = 0; r < REGIONS; r++) {
        ledgers[r].is_committing = true;
        hand_ledger_commit(&ledgers[r]);
        lead(r, leads[r]);
    }
}

static void run_for(uint64_t ms, uint64_t seed)
{
    struct orr_error err = {0};
    enum orr_err code =
        orr_sim_run_until(sim, orr_sim_now_ms(sim) + ms, NULL, NULL, &err);
    if (code != ORR_OK && code != ORR_ETIMEOUT)
        fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
}

static bool all_run(void *arg, struct orr_sim *s)
{
    (void)arg;
    (void)s;
    unsigned n = 0;
    for (unsigned j = 0; j < n_jobs; j++)
        n += (slots[0][j].runs && slots[0][j].state == SLOT_RUN) !=
             (slots[1][j].runs && slots[1][j].state == SLOT_RUN);
    return n_jobs == JOBS && n == JOBS;
}

static void one_seed(uint64_t seed)
{
    static const struct orr_sim_faults some = {.delay_min_ms = 1,
                                               .delay_max_ms = 60,
                                               .loss_ppm = 20000,
                                               .duplicate_ppm = 100000,
                                               .reorder_ppm = 100000};
    static const struct orr_sim_faults many = {.delay_min_ms = 1,
                                               .delay_max_ms = 900,
                                               .loss_ppm = 60000,
                                               .duplicate_ppm = 300000,
                                               .reorder_ppm = 300000};
    bool is_rough = seed % 3 == 0;
    unsigned pause = is_rough ? 3 : 8;
    struct orr_error err = {0};
    uint32_t host;
    const struct orr_sim_config config = {.seed = seed,
                                          .boot = boot,
                                          .check = check,
                                          .faults = is_rough ? many : some,
                                          .detect_ms = 300};
    memset(ledgers, 0, sizeof(ledgers));
    memset(truths, 0, sizeof(truths));
    memset(slots, 0, sizeof(slots));
    n_jobs = 0;
    broken[0] = '\0';
    has_peers = true;
    assert_int_equal(orr_sim_new(&config, &sim), ORR_OK);
    for (unsigned h = 0; h < REGIONS * HOSTS; h++)
        assert_int_equal(orr_sim_host_add(sim, host_names[h], &host), ORR_OK);
    assert_int_equal(orr_sim_host_add(sim, "c1", &host), ORR_OK);
    assert_int_equal(orr_sim_host_add(sim, "c2", &host), ORR_OK);
    for (unsigned r = 0; r < REGIONS; r++) {
        ledgers[r].is_committing = true;
        lead(r, 0);
    }
    while (orr_sim_now_ms(sim) < FAULTS_MS) {
        run_for(50 + dice(400), seed);
        ask_to_move();
        if (dice(pause) == 0)
            one_fault();
    }
    calm();
    enum orr_err code =
        orr_sim_run_until(sim, orr_sim_now_ms(sim) + END_MS, all_run, NULL, &err);
    for (unsigned j = 0; code != ORR_OK && j < n_jobs; j++)
        printf("%s: r1 %u/%d, r2 %u/%d\n",
               truths[j].id,
               (unsigned)slots[0][j].generation,
               (int)slots[0][j].state,
               (unsigned)slots[1][j].generation,
               (int)slots[1][j].state);
    if (code != ORR_OK)
        fail_msg("seed %llu: not all jobs run in the end: %s",
                 (unsigned long long)seed,
                 err.text);
    for (unsigned j = 0; j < n_jobs; j++)
        moves_done += truths[j].starts - 1;
    orr_sim_free(sim);
    for (unsigned r = 0; r < REGIONS; r++)
        hand_ledger_free(&ledgers[r]);
    for (unsigned h = 0; h < REGIONS * HOSTS; h++)
        invariants_fini(&worlds[h].invariants);
}

static void jobs_between_regions_are_never_doubled_and_never_lost(void **state)
{
    (void)state;
    const char *text = getenv("REGION_SEEDS"), *first = getenv("REGION_SEED");
    unsigned long n = text ? strtoul(text, NULL, 10) : 20;
    unsigned long from = first ? strtoul(first, NULL, 10) : 1;
    for (unsigned long seed = from; seed < from + n; seed++)
        one_seed(seed);
    printf("%lu seeds, %llu migrations asked for, %llu restarts after the first\n",
           n,
           (unsigned long long)moves_asked,
           (unsigned long long)moves_done);
    assert_true(moves_done > n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_between_regions_are_never_doubled_and_never_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
