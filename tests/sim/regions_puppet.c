/* SPDX-License-Identifier: Apache-2.0
 * regions_puppet.c - see regions_puppet.h.
 */
#include "regions_puppet.h"

#include "orr_test.h"

enum { WORLD = 2, ASK_MS = 400, TICK_MS = 150 };

static const char hash[] =
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const char *const host_names[REGIONS * HOSTS] = {"r1a", "r1b", "r2a", "r2b"};
const char *const region_names[REGIONS] = {"r1", "r2"};
unsigned leads[REGIONS];
struct truth truths[JOBS];
unsigned n_jobs;
char broken[512];
struct slot slots[REGIONS][JOBS];

void breaks(const char *what, unsigned job)
{
    if (!broken[0])
        snprintf(broken, sizeof(broken), "job %s: %s", truths[job].id, what);
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

struct orr_addr leader_of(unsigned region)
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
    const char *host = self->region ? "n2" : "n1";
    const struct orr_rec_node_row node = {.node = ORR_LIT("n1"),
                                          .gpus = 16,
                                          .gpus_free = 16,
                                          .slots = 4,
                                          .level = ORR_LEVEL_IMAGE,
                                          .host = orr_str(host),
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
const struct orr_actor_type regions_puppet_type = {
    .name = "puppet",
    .state_size = sizeof(struct puppet),
    .args_size = sizeof(unsigned),
    .init = puppet_init,
    .handlers = puppet_handlers,
    .n_handlers = ORR_ARRAY_SIZE(puppet_handlers),
};
