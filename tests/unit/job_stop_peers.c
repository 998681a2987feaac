/* SPDX-License-Identifier: Apache-2.0
 * job_stop_peers.c - see job_stop_peers.h.
 */
#include "job_stop_peers.h"

#include "orr_test.h"

struct peer_script nodes[NODES + 1];
struct cluster_script cluster;
enum comms comms;
uint32_t devices_a_node = 2;
struct region_heard region;
uint64_t now;
struct orr_system *sys;
struct orr_addr job, peers[NODES + 3];

static uint64_t now_ms(void *arg)
{
    (void)arg;
    return now;
}
const struct orr_clock the_clock = {now_ms, now_ms, NULL};

struct peer {
    struct peer_args args;
};
ORR_HANDLER(peer, job_posts)
ORR_HANDLER(peer, rank_launch)
ORR_HANDLER(peer, rank_stop)
ORR_HANDLER(peer, ranks_get)
ORR_HANDLER(peer, ranks_forget)
ORR_HANDLER(peer, cut_step)
ORR_HANDLER(peer, devices_freed)
ORR_HANDLER(peer, devices_want)
ORR_HANDLER(peer, devices_keep)
ORR_HANDLER(peer, job_update)
ORR_HANDLER(peer, job_ended)
ORR_HANDLER(peer, checkpoint_commit)
ORR_HANDLER(peer, order_failed)
ORR_HANDLER(peer, job_released)
ORR_HANDLER(peer, ack)
ORR_HANDLER(peer, failed)

static enum orr_err peer_init(struct orr_ctx *ctx, void *state, const void *args)
{
    (void)ctx;
    ((struct peer *)state)->args = *(const struct peer_args *)args;
    return ORR_OK;
}

struct orr_rec_rank_row row_of(uint32_t rank)
{
    const struct peer_script *node = &nodes[rank / 2];
    return (struct orr_rec_rank_row){
        .job = ORR_LIT("eu1-1"),
        .generation = GENERATION,
        .rank = rank,
        .state = node->state[rank],
        .signal = node->signal[rank],
        .is_told = node->is_told[rank],
        .pid = 100 + rank,
        .level = ORR_LEVEL_IMAGE,
        .changed_unix_ms = node->changed_ms[rank] ? node->changed_ms[rank] : now};
}

const char *node_name(uint32_t index)
{
    return index == 0 ? "n0" : index == 1 ? "n1" : "n2";
}

static uint32_t node_of(const struct peer *self)
{
    return self->args.index < NODES ? self->args.index : SPARE;
}

static void
tell_ranks(struct orr_ctx *ctx, uint32_t node, uint32_t state, uint32_t signal)
{
    for (uint32_t rank = node * 2; rank < node * 2 + 2; rank++) {
        nodes[node].state[rank] = state;
        struct orr_rec_rank_row row = row_of(rank);
        row.signal = signal;
        orr_send(ctx, job, rank_update, .node = orr_str(node_name(node)), .rank = row);
    }
}

/* Ranks that change node. */
static enum orr_err
join(struct orr_ctx *ctx, struct peer *self, const struct orr_msg_rank_launch *msg)
{
    struct peer_script *node = &nodes[node_of(self)];
    node->n_joins++;
    node->cut = msg->cut;
    if (node->refuses_join)
        return orr_refuse(ctx, node->refuses_join, "it said no");
    assert_int_equal(msg->ranks.n, msg->parts.n);
    orr_reply(ctx, rank_launched, .level = ORR_LEVEL_IMAGE);
    for (uint32_t i = 0; i < msg->ranks.n; i++) {
        uint32_t rank = msg->ranks.at[i].rank;
        assert_int_equal(msg->parts.at[i].rank, rank);
        node->joined |= 1u << rank;
        orr_str_copy(
            node->parts[rank], sizeof(node->parts[rank]), msg->parts.at[i].hash);
        struct orr_rec_rank_row row = row_of(rank);
        row.state = ORR_RANK_RUNNING;
        if (!node->joins_late)
            orr_send(ctx,
                     job,
                     rank_update,
                     .node = orr_str(node_name(node_of(self))),
                     .rank = row);
    }
    return ORR_OK;
}

static enum orr_err peer_on_rank_launch(struct orr_ctx *ctx,
                                        struct peer *self,
                                        const struct orr_msg_rank_launch *msg)
{
    if (msg->is_joining)
        return join(ctx, self, msg);
    orr_reply(ctx,
              rank_launched,
              .master_addr = ORR_LIT("10.0.0.1"),
              .master_port = 29500,
              .level = ORR_LEVEL_IMAGE);
    tell_ranks(ctx, self->args.index, ORR_RANK_RUNNING, 0);
    return ORR_OK;
}

static enum orr_err peer_on_rank_stop(struct orr_ctx *ctx,
                                      struct peer *self,
                                      const struct orr_msg_rank_stop *msg)
{
    struct peer_script *node = &nodes[node_of(self)];
    node->n_stops++;
    node->stop_cut = msg->cut;
    if (self->args.index < NODES)
        tell_ranks(ctx, self->args.index, ORR_RANK_EXITED, 9);
    return ORR_OK;
}

static enum orr_err peer_on_ranks_get(struct orr_ctx *ctx,
                                      struct peer *self,
                                      const struct orr_msg_ranks_get *msg)
{
    (void)msg;
    struct orr_rec_rank_row rows[2] = {row_of(self->args.index * 2),
                                       row_of(self->args.index * 2 + 1)};
    const struct peer_script *node = &nodes[self->args.index];
    orr_reply(ctx,
              ranks,
              .node = orr_str(node_name(self->args.index)),
              .ranks = {rows, 2},
              .cut = node->found_cut,
              .step = node->found_step);
    return ORR_OK;
}

static enum orr_err peer_on_ranks_forget(struct orr_ctx *ctx,
                                         struct peer *self,
                                         const struct orr_msg_ranks_forget *msg)
{
    (void)msg;
    if (nodes[node_of(self)].keeps) {
        nodes[node_of(self)].keeps--;
        return orr_refuse(ctx, ORR_ESTATE, "it still has some");
    }
    nodes[node_of(self)].n_forgets++;
    return ORR_OK;
}

struct posts_heard posts_heard[NODES];
static enum orr_err peer_on_job_posts(struct orr_ctx *ctx,
                                      struct peer *self,
                                      const struct orr_msg_job_posts *msg)
{
    struct posts_heard *heard = &posts_heard[self->args.index];
    (void)ctx;
    assert_true(msg->is_answer && msg->posts.n <= 8);
    heard->n_answers++;
    heard->n = msg->posts.n;
    for (uint32_t i = 0; i < msg->posts.n; i++) {
        assert_int_equal(msg->posts.at[i].id.len, 128);
        heard->name[i] = msg->posts.at[i].comm;
        heard->first[i] = msg->posts.at[i].id.ptr[0];
    }
    return ORR_OK;
}

/* What a rank has issued in the communicator of all, and in the other. */
static void clocks_of(uint32_t rank, uint64_t issued, struct orr_rec_clock ret[2])
{
    bool is_far = comms == COMMS_FAR;
    ret[0] = (struct orr_rec_clock){.rank = rank,
                                    .comm = 77,
                                    .me = rank,
                                    .n = WORLD,
                                    .issued = issued,
                                    .op = ORR_CLOCK_OP_ALL_REDUCE};
    ret[1] = (struct orr_rec_clock){.rank = rank,
                                    .comm = 80 + (is_far ? rank % 2 : rank / 2),
                                    .me = is_far ? rank / 2 : rank % 2,
                                    .n = 2,
                                    .issued = 3,
                                    .op = ORR_CLOCK_OP_ALL_REDUCE};
}

static enum orr_err peer_on_cut_step(struct orr_ctx *ctx,
                                     struct peer *self,
                                     const struct orr_msg_cut_step *msg)
{
    struct peer_script *node = &nodes[node_of(self)];
    assert_true(msg->step < ORR_CUT_JOIN);
    node->n_steps[msg->step]++;
    node->cut = msg->cut;
    node->round = msg->round;
    for (uint32_t i = 0; i < msg->ranks.n; i++) {
        uint32_t rank = msg->ranks.at[i].rank;
        assert_true(rank / 2 == self->args.index || (node->joined >> rank & 1));
        (msg->step == ORR_CUT_RELEASE ? node->next_device : node->device)[rank] =
            msg->ranks.at[i].device;
    }
    if (msg->step == ORR_CUT_RELEASE && msg->machines.n) {
        assert_true(msg->overlay && msg->machines.n == 1);
        orr_str_copy(
            node->told_machine, sizeof(node->told_machine), msg->machines.at[0].value);
    }
    if (msg->step == ORR_CUT_SAVE)
        node->n_saved = msg->is_some ? msg->ranks.n : WORLD;
    if (msg->step == ORR_CUT_RESUME) {
        assert_true(msg->is_whole);
        node->n_here = msg->ranks.n;
    }
    if (node->silent_at == msg->step || node->is_dead) {
        (void)orr_defer(ctx);
        return ORR_OK;
    }
    bool is_late = node->late_at == msg->step;
    struct orr_rec_clock clocks[4];
    uint32_t n_clocks = comms == COMMS_WORLD ? 2 : 4;
    struct orr_rec_part parts[2];
    char hashes[2][8];
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t rank = (node_of(self) * 2 + i) % WORLD;
        struct orr_rec_clock of[2];
        clocks_of(rank, msg->step == ORR_CUT_BEGIN ? 5 + rank : 8, of);
        clocks[i] = of[0];
        clocks[2 + i] = of[1];
        snprintf(hashes[i], sizeof(hashes[i]), "p%u", rank);
        parts[i] = (struct orr_rec_part){
            .rank = rank, .hash = orr_str(hashes[i]), .bytes = 10, .new_bytes = 5};
    }
    bool has_clocks = msg->step == ORR_CUT_BEGIN || msg->step == ORR_CUT_TARGETS;
    bool has_parts = node->n_steps[ORR_CUT_SAVE] > 0 && !node->has_no_parts &&
                     msg->step != ORR_CUT_BEGIN;
    orr_reply(ctx,
              cut_report,
              .job = msg->job,
              .generation = msg->generation,
              .cut = is_late ? msg->cut - 1 : msg->cut,
              .node = orr_str(node_name(node_of(self))),
              .step = msg->step,
              .state = node->fail_at == msg->step    ? ORR_STEP_FAILED
                       : node->works_at == msg->step ? ORR_STEP_WORKING
                                                     : ORR_STEP_DONE,
              .round = msg->round,
              .clocks = {clocks, has_clocks ? n_clocks : 0},
              .parts = {parts, has_parts ? 2 : 0},
              .device_bytes = 1000,
              .copy_us = node->copy_us,
              .culprit =
                  node->fail_at == msg->step ? (int64_t)self->args.index * 2 : -1,
              .text = orr_str(node->fail_at == msg->step ? "the driver said no" : ""));
    if (is_late && node->n_steps[msg->step] > 2)
        node->late_at = 0;
    return ORR_OK;
}

static enum orr_err peer_on_devices_freed(struct orr_ctx *ctx,
                                          struct peer *self,
                                          const struct orr_msg_devices_freed *msg)
{
    (void)ctx;
    (void)self;
    (void)msg;
    cluster.n_freed++;
    return ORR_OK;
}

static struct orr_rec_rank_place places[WORLD];
struct orr_list_rank_place all_places(uint32_t device)
{
    for (uint32_t i = 0; i < WORLD; i++)
        places[i] = (struct orr_rec_rank_place){.rank = i,
                                                .node = orr_str(node_name(i / 2)),
                                                .device = device + i % devices_a_node,
                                                .local_rank = i % 2};
    return (struct orr_list_rank_place){places, WORLD};
}

static enum orr_err peer_on_devices_want(struct orr_ctx *ctx,
                                         struct peer *self,
                                         const struct orr_msg_devices_want *msg)
{
    (void)self;
    cluster.n_want++;
    assert_int_equal(msg->ranks.n, WORLD);
    cluster.devices = msg->devices;
    if (msg->devices && cluster.silent_for) {
        cluster.silent_for--;
        (void)orr_defer(ctx);
        return ORR_OK;
    }
    if (cluster.has_no_devices)
        return orr_refuse(ctx, ORR_ENODEV, "none");
    if (msg->devices) {
        struct orr_rec_device_slot slots[WORLD];
        struct orr_rec_job_node spare = {
            .node = ORR_LIT("n2"), .state = ORR_NODE_UP, .addr = peers[NODES + 2]};
        uint32_t n_spare = 0;
        if (cluster.is_spare_far)
            spare.machine = ORR_LIT("192.0.2.9:4789");
        cluster.n_needs = msg->needs.n;
        cluster.may_spread = msg->may_spread;
        for (uint32_t i = 0; i < msg->needs.n && msg->needs.n == NODES; i++) {
            assert_true(orr_str_eq(msg->needs.at[i].node, orr_str(node_name(i))));
            cluster.needs[i].ranks = msg->needs.at[i].ranks;
            cluster.needs[i].least = msg->needs.at[i].least;
        }
        for (uint32_t i = 0; i < cluster.n_slots; i++) {
            n_spare |= cluster.slots[i].node == SPARE;
            slots[i] = (struct orr_rec_device_slot){
                orr_str(node_name(cluster.slots[i].node)), cluster.slots[i].device};
        }
        orr_reply(ctx,
                  devices_given,
                  .slots = {slots, cluster.n_slots},
                  .nodes = {&spare, n_spare});
        return ORR_OK;
    }
    orr_reply(ctx, devices_given, .ranks = all_places(4));
    return ORR_OK;
}

static enum orr_err peer_on_devices_keep(struct orr_ctx *ctx,
                                         struct peer *self,
                                         const struct orr_msg_devices_keep *msg)
{
    (void)ctx;
    (void)self;
    cluster.n_keep++;
    assert_int_equal(msg->ranks.n, WORLD);
    for (uint32_t i = 0; i < WORLD; i++)
        cluster.kept[i] = msg->ranks.at[i].device;
    return ORR_OK;
}

static enum orr_err peer_on_job_update(struct orr_ctx *ctx,
                                       struct peer *self,
                                       const struct orr_msg_job_update *msg)
{
    (void)self;
    for (uint32_t i = 0; i < msg->ranks.n; i++)
        region.node[i] = msg->ranks.at[i].node.ptr[msg->ranks.at[i].node.len - 1];
    if (region.is_silent) {
        (void)orr_defer(ctx);
        return ORR_OK;
    }
    region.phase = msg->phase;
    region.n_devices = msg->ranks.n ? msg->devices : region.n_devices;
    for (uint32_t i = 0; i < msg->ranks.n; i++)
        region.device[i] = msg->ranks.at[i].device;
    region.is_placed_late |= msg->ranks.n && (nodes[0].n_steps[ORR_CUT_RESUME] ||
                                              nodes[1].n_steps[ORR_CUT_RESUME]);
    region.level = msg->level;
    region.cut = msg->cut;
    region.shards = msg->shards;
    region.cost = msg->resize_cost;
    orr_str_copy(region.why_shards, sizeof(region.why_shards), msg->why_shards);
    region.n_stop = msg->stop.n;
    assert_true(msg->stop.n <= ORR_ARRAY_SIZE(region.stop));
    for (uint32_t i = 0; i < msg->stop.n; i++)
        region.stop[i] = msg->stop.at[i];
    orr_str_copy(region.reason, sizeof(region.reason), msg->reason);
    if (region.n_phases < 64)
        region.phases[region.n_phases++] = msg->phase;
    if (msg->phase == ORR_JOB_RESTORING && msg->ranks.n == WORLD)
        region.has_restored_places = msg->ranks.at[0].device == 4;
    return ORR_OK;
}

static enum orr_err peer_on_job_ended(struct orr_ctx *ctx,
                                      struct peer *self,
                                      const struct orr_msg_job_ended *msg)
{
    (void)ctx;
    (void)self;
    region.n_ended++;
    region.outcome = msg->outcome;
    region.culprit = msg->culprit;
    orr_str_copy(region.reason, sizeof(region.reason), msg->reason);
    return ORR_OK;
}

static enum orr_err peer_on_checkpoint_commit(
    struct orr_ctx *ctx, struct peer *self, const struct orr_msg_checkpoint_commit *msg)
{
    (void)self;
    static _Alignas(8) uint8_t mem[16384];
    if (cluster.refuses_commit)
        return orr_refuse(ctx, ORR_EINVAL, "no");
    assert_int_equal(orr_msg_decode(orr_msg_desc_manifest(),
                                    msg->manifest.ptr,
                                    msg->manifest.len,
                                    mem,
                                    sizeof(mem)),
                     ORR_OK);
    const struct orr_msg_manifest *manifest = (const void *)mem;
    region.n_commits++;
    region.commit_parts = manifest->parts.n;
    region.shards_stride = manifest->shards_stride;
    region.shards_size = manifest->shards_size;
    region.commit_order = msg->order;
    region.commit_paused_ms = msg->row.paused_ms;
    assert_int_equal(manifest->row.bytes, 40);
    return ORR_OK;
}

static enum orr_err peer_on_order_failed(struct orr_ctx *ctx,
                                         struct peer *self,
                                         const struct orr_msg_order_failed *msg)
{
    (void)ctx;
    (void)self;
    region.n_failed++;
    region.failed_code = msg->code;
    region.failed_number = msg->number;
    orr_str_copy(region.failed, sizeof(region.failed), msg->text);
    return ORR_OK;
}

#define IGNORES(message)                                                               \
    static enum orr_err peer_on_##message(                                             \
        struct orr_ctx *ctx, struct peer *self, const struct orr_msg_##message *msg)   \
    {                                                                                  \
        (void)ctx;                                                                     \
        (void)self;                                                                    \
        (void)msg;                                                                     \
        return ORR_OK;                                                                 \
    }
IGNORES(job_released)
IGNORES(ack)
IGNORES(failed)

static const struct orr_handler handlers[] = {
    ORR_ON(peer, job_posts, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(peer, rank_launch, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(peer, rank_stop, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(peer, ranks_get, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(peer, ranks_forget, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(peer, cut_step, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(peer, devices_freed, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(peer, devices_want, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(peer, devices_keep, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(peer, job_update, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(peer, job_ended, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(peer, checkpoint_commit, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(peer, order_failed, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(peer, job_released, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(peer, ack, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(peer, failed, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
};
const struct orr_actor_type peer_type = {
    .name = "peer",
    .state_size = sizeof(struct peer),
    .args_size = sizeof(struct peer_args),
    .init = peer_init,
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
};
