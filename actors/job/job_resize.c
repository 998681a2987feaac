/* SPDX-License-Identifier: Apache-2.0
 * job_resize.c - a job that goes on on another number of devices, in place: its ranks stay on their nodes.
 *
 * START       The cluster is asked for the devices before anything stops, so an order that cannot be followed costs nothing.
 *             What it gives is held beside what the job has (devices_want with a number), and ranks are mapped to it
 * OPERATION   begin targets: the communicators show which ranks are replicas, where the spec does not say it, and the map is made
 *             again by that (job_shards.c); where the devices do not suit it, they are asked for once more.  quiesce release: the old devices are verified free, and each node sees whether the new map fits into
 *             its memory.  Then the map is taken: first into the region's record of places (job_update), then resume
 * STOP        devices_keep: what it does not run on any more is for others
 * FAILURES    Up to the release the ranks go back to where they were.  From then on the new map is the only one: a resume that
 *             fails is tried again, as any.  Whoever recovers the job goes by the region's record of its places
 * A job that starts on fewer devices than it has ranks is mapped by the same rules (job_resize_first).
 *
 * Where its nodes do not have the devices, and the region has said that others do: ranks that change node for it are moved alone
 * where that can be (job_partial.c); else the job is saved as for a move, and the next generation starts with that number.
 */
#include "job_resize.h"
#include "job_partial.h"

#include "job_shards.h"

enum { ASK_MS = 2000, WANT_MS = 10000, NODE_DEVICES = 64 };

/* ---- what there is ---- */

uint32_t job_device_count(struct job *self)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < self->n_nodes; i++)
        job_node_at(self, i)->devices = 0;
    for (uint32_t r = 0; r < self->args.world; r++)
        if (job_rank_at(self, r)->device < NODE_DEVICES)
            job_node_at(self, job_rank_at(self, r)->node)->devices |=
                UINT64_C(1) << job_rank_at(self, r)->device;
    for (uint32_t i = 0; i < self->n_nodes; i++)
        n += (uint32_t)__builtin_popcountll(job_node_at(self, i)->devices);
    return n;
}

void job_resize_fini(struct job *self)
{
    struct job_resize *resize = &self->plan.resize;
    rank_map_fini(&resize->map);
    orr_block_fini(&resize->needs);
    orr_block_fini(&resize->slots);
    orr_block_fini(&resize->slot_of);
    orr_block_fini(&resize->old);
    orr_block_fini(&resize->next);
    *resize = (struct job_resize){0};
}

/* Only a job that is resized needs them. */
static enum orr_err make_tables(struct job *self, struct orr_error *ret_err)
{
    struct job_resize *resize = &self->plan.resize;
    uint32_t world = self->args.world, nodes = self->n_nodes, slots = 2 * world;
    if (resize->has_tables)
        return ORR_OK;
    enum orr_err err = rank_map_init(&resize->map, world, slots, nodes);
    if (err == ORR_OK)
        err =
            orr_block_init(&resize->needs, nodes * sizeof(struct orr_rec_device_need));
    if (err == ORR_OK)
        err = orr_block_init(&resize->slots, slots * sizeof(struct rank_map_slot));
    if (err == ORR_OK)
        err = orr_block_init(&resize->slot_of,
                             (size_t)nodes * NODE_DEVICES * sizeof(uint32_t));
    if (err == ORR_OK)
        err = orr_block_init(&resize->old, world * sizeof(uint32_t));
    if (err == ORR_OK)
        err = orr_block_init(&resize->next, slots * sizeof(uint32_t));
    if (err != ORR_OK)
        (void)orr_fail(
            ret_err, err, "the cluster's host has no memory to map its ranks");
    else
        err = job_shards_tables(self, ret_err);
    if (err != ORR_OK)
        job_resize_fini(self);
    resize->has_tables = err == ORR_OK;
    return err;
}

enum orr_err job_resize_grow(struct job *self, struct orr_error *ret_err)
{
    bool is_asked_again = self->plan.resize.is_asked_again;
    job_resize_fini(self);
    enum orr_err err = make_tables(self, ret_err);
    self->plan.resize.is_asked_again = is_asked_again;
    return err;
}

static uint32_t *slot_of(struct job *self, uint32_t node, uint32_t device)
{
    return (uint32_t *)self->plan.resize.slot_of.at + (size_t)node * NODE_DEVICES +
           device;
}

/* ---- the order ---- */

enum orr_err job_resize_check(struct orr_ctx *ctx,
                              struct job *self,
                              const struct orr_msg_job_order *msg)
{
    const struct orr_job_args *args = &self->args;
    if (args->gpus_max == 0)
        return orr_refuse(
            ctx, ORR_EINVAL, "gpus: job %s runs without devices", args->job);
    if (msg->devices < args->gpus_min || msg->devices > args->gpus_max)
        return orr_refuse(ctx,
                          ORR_EINVAL,
                          "gpus: %u is out of range; give %u..%u",
                          msg->devices,
                          args->gpus_min,
                          args->gpus_max);
    if (msg->devices < args->shards)
        return orr_refuse(ctx,
                          ORR_EINVAL,
                          "shards: %u of them do not fit on %u devices",
                          args->shards,
                          msg->devices);
    bool is_parked = self->is_recovery && self->is_suspended;
    if (self->plan.is_held || self->plan.is_freed || is_parked)
        return orr_refuse(
            ctx, ORR_ESTATE, "job %s is suspended; resume it first", args->job);
    return ORR_OK;
}

static struct orr_list_device_need list_needs(struct job *self)
{
    struct orr_rec_device_need *needs = self->plan.resize.needs.at;
    uint32_t n = 0;
    for (uint32_t i = 0; i < self->n_nodes; i++) {
        if (!job_node_at(self, i)->n_ranks)
            continue;
        needs[n] =
            (struct orr_rec_device_need){.node = orr_str(job_node_at(self, i)->name),
                                         .ranks = job_node_at(self, i)->n_ranks,
                                         .least = job_shards_least(self, i)};
        n++;
    }
    return (struct orr_list_device_need){needs, n};
}

static bool is_there(struct job *self)
{
    return job_device_count(self) == self->plan.devices;
}

bool job_resize_is_ready(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    struct orr_error err;
    if (plan->remap == JOB_REMAP_HELD || plan->is_moving)
        return true;
    if (is_there(self)) { /* as an earlier life of this actor has seen to */
        plan->goal = ORR_ORDER_NONE;
        plan->number = 0;
        self->is_update_due = true;
    } else if (make_tables(self, &err) != ORR_OK) {
        job_plan_fail(ctx, self, err.code, err.text);
    } else if (!plan->want_until_ms && job_partial_is_clearing(ctx, self)) {
        return false; /* what they still have of it would keep its ranks from them */
    } else if (!plan->want_until_ms) {
        job_shards_doubt(self, plan->devices);
        plan->want_until_ms = orr_now_ms(ctx) + WANT_MS;
    } else if (orr_now_ms(ctx) >= plan->want_until_ms) {
        job_plan_fail(ctx,
                      self,
                      ORR_EBUSY,
                      "resize: a node of it is out of reach, or its cluster does not "
                      "answer; it runs on as before");
    }
    return false;
}

void job_resize_ask(struct orr_ctx *ctx,
                    struct job *self,
                    enum job_ask ask,
                    uint64_t tag)
{
    struct orr_str job = orr_str(self->args.job);
    if (ask == JOB_ASK_KEEP)
        orr_ask(ctx,
                self->cluster,
                ASK_MS,
                tag,
                devices_keep,
                .job = job,
                .generation = self->args.generation,
                .ranks = job_places(self, ORR_NONE));
    else
        orr_ask(ctx,
                self->cluster,
                ASK_MS,
                tag,
                devices_want,
                .job = job,
                .generation = self->args.generation,
                .ranks = job_places(self, ORR_NONE),
                .devices = self->plan.devices,
                .needs = list_needs(self),
                .may_spread = job_partial_can(self),
                .spec = {self->spec.at, self->spec_len});
}

/* ---- the map ---- */

static uint32_t
put_slot(struct job *self, uint32_t n, uint32_t node, uint32_t device, bool is_given)
{
    struct rank_map_slot *slots = self->plan.resize.slots.at;
    uint32_t *at = slot_of(self, node, device);
    if (*at == ORR_NONE) {
        *at = n;
        slots[n++] = (struct rank_map_slot){.node = node};
        ((uint32_t *)self->plan.resize.next.at)[n - 1] = device;
    }
    slots[*at].is_given = slots[*at].is_given || is_given;
    return n;
}

static struct job_node *node_named(struct job *self, struct orr_str name)
{
    for (uint32_t i = 0; i < self->n_nodes; i++)
        if (orr_str_eq(orr_str(job_node_at(self, i)->name), name))
            return job_node_at(self, i);
    return NULL;
}

static void clear_slots(struct job *self)
{
    uint32_t cells = self->n_nodes * NODE_DEVICES;
    for (uint32_t i = 0; i < cells; i++)
        ((uint32_t *)self->plan.resize.slot_of.at)[i] = ORR_NONE;
}

static void note_old(struct job *self)
{
    uint32_t *old = self->plan.resize.old.at;
    for (uint32_t r = 0; r < self->args.world; r++)
        old[r] =
            *slot_of(self, job_rank_at(self, r)->node, job_rank_at(self, r)->device);
}

/* The devices that it has and those that it was given, each once. */
static enum orr_err list_slots(struct job *self, struct orr_list_device_slot given)
{
    uint32_t n = 0;
    clear_slots(self);
    if (given.n > self->args.world)
        return ORR_EINVAL;
    for (uint32_t i = 0; i < given.n; i++) {
        struct job_node *node = node_named(self, given.at[i].node);
        if (!node || given.at[i].device >= NODE_DEVICES)
            return ORR_EINVAL;
        n = put_slot(
            self, n, (uint32_t)(node - job_node_at(self, 0)), given.at[i].device, true);
    }
    for (uint32_t r = 0; r < self->args.world; r++) {
        const struct job_rank *rank = job_rank_at(self, r);
        if (rank->device >= NODE_DEVICES)
            return ORR_EINVAL;
        n = put_slot(self, n, rank->node, rank->device, false);
    }
    self->plan.resize.n_slots = n;
    return ORR_OK;
}

static enum orr_err make_map(struct job *self,
                             uint32_t n_slots,
                             struct rank_map_cost *ret_cost,
                             struct orr_error *err)
{
    struct job_resize *resize = &self->plan.resize;
    const struct rank_map_ask ask = {.shards = &self->plan.shards.now,
                                     .slots = resize->slots.at,
                                     .n_slots = n_slots,
                                     .old = resize->old.at,
                                     .is_ordered =
                                         self->args.reduce == ORR_REDUCE_ORDERED};
    return rank_map_make(&resize->map, &ask, resize->old.at, ret_cost, err);
}

/* To the devices that are listed, by the shards that are known now. */
static enum orr_err map_ranks(struct job *self, struct orr_error *err)
{
    struct job_resize *resize = &self->plan.resize;
    struct rank_map_cost cost;
    const uint32_t *map = resize->old.at;
    job_partial_undo(self); /* it may have been mapped before */
    note_old(self);
    enum orr_err code = make_map(self, resize->n_slots, &cost, err);
    if (code != ORR_OK)
        return code;
    for (uint32_t r = 0; r < self->args.world; r++) {
        const struct rank_map_slot *slots = resize->slots.at;
        job_rank_at(self, r)->next_device = ((const uint32_t *)resize->next.at)[map[r]];
        job_rank_at(self, r)->next_node = slots[map[r]].node;
    }
    return cost.n_left_node ? job_partial_plan(self, cost.n_left_node, err) : ORR_OK;
}

/* Each rank onto the device of its slot, on whichever node that is. */
static void put_ranks(struct job *self)
{
    const struct job_resize *resize = &self->plan.resize;
    const uint32_t *map = resize->old.at, *device = resize->next.at;
    for (uint32_t i = 0; i < self->n_nodes; i++)
        job_node_at(self, i)->n_ranks = job_node_at(self, i)->n_open = 0;
    for (uint32_t r = 0; r < self->args.world; r++) {
        struct job_rank *rank = job_rank_at(self, r);
        rank->node = ((const struct rank_map_slot *)resize->slots.at)[map[r]].node;
        rank->device = device[map[r]];
        rank->local_rank = job_node_at(self, rank->node)->n_ranks++;
        job_node_at(self, rank->node)->n_open++;
    }
}

void job_resize_first(struct orr_ctx *ctx, struct job *self)
{
    struct rank_map_cost cost;
    struct orr_error err = {0};
    uint32_t n = 0;
    if (!self->args.gpus_max || job_device_count(self) == self->args.world ||
        make_tables(self, &err) != ORR_OK)
        return;
    clear_slots(self);
    for (uint32_t r = 0; r < self->args.world; r++) {
        const struct job_rank *rank = job_rank_at(self, r);
        if (rank->device >= NODE_DEVICES)
            return;
        n = put_slot(self, n, rank->node, rank->device, true);
        ((uint32_t *)self->plan.resize.old.at)[r] = ORR_NO_DEVICE;
    }
    if (make_map(self, n, &cost, &err) == ORR_OK)
        put_ranks(self);
    else /* more shards than devices: neighbours share, as they always did */
        orr_log(ctx, ORR_LOG_WARN, "its ranks stay as they were placed: %s", err.text);
}

/* Its nodes do not have them, or not so that its ranks could stay. */
static void go_elsewhere(struct orr_ctx *ctx, struct job *self, const char *why)
{
    struct job_plan *plan = &self->plan;
    char text[400];
    plan->is_moving = plan->may_move && job_level_is_saved(self->level);
    plan->is_keep_due = plan->is_moving;
    if (plan->is_moving) {
        orr_log(ctx, ORR_LOG_INFO, "it is saved as a whole: %s", why);
        return;
    }
    snprintf(text, sizeof(text), "resize: %.300s; it runs on as before", why);
    job_plan_fail(ctx, self, ORR_ENODEV, text);
}

void job_resize_given(struct orr_ctx *ctx,
                      struct job *self,
                      const struct orr_msg_devices_given *msg)
{
    struct job_plan *plan = &self->plan;
    struct orr_error err;
    self->cluster_talk.backoff_ms = 0;
    if (plan->goal != ORR_ORDER_RESIZE || plan->step != ORR_CUT_NONE)
        return;
    enum orr_err code = job_partial_add(self, msg->nodes, &err);
    if (code == ORR_OK && (code = list_slots(self, msg->slots)) != ORR_OK)
        (void)orr_fail(&err, code, "bug: devices were given that are not its nodes'");
    if (code == ORR_OK)
        code = map_ranks(self, &err);
    if (code == ORR_OK) {
        plan->remap = JOB_REMAP_HELD;
    } else if (code == ORR_ENODEV) {
        go_elsewhere(ctx, self, err.text);
    } else {
        job_plan_fail(ctx, self, code, err.text);
    }
}

void job_resize_refused(struct orr_ctx *ctx,
                        struct job *self,
                        uint32_t code,
                        struct orr_str text)
{
    char why[200];
    bool is_definite = code == ORR_ENODEV || code == ORR_EINVAL;
    orr_str_copy(why, sizeof(why), text);
    if (!is_definite)
        job_back_off(ctx, &self->cluster_talk);
    else if (self->plan.goal == ORR_ORDER_RESIZE && self->plan.step == ORR_CUT_NONE)
        go_elsewhere(ctx, self, why);
}

/* ---- the stop ---- */

bool job_resize_at_cut(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    struct job_resize *resize = &plan->resize;
    struct orr_error err;
    char text[400];
    bool is_resize = plan->goal == ORR_ORDER_RESIZE && plan->remap == JOB_REMAP_HELD;
    if (is_resize || !plan->shards.is_seen)
        job_shards_look(self);
    if (!is_resize || job_shards_are_said(self))
        return true;
    enum orr_err code = map_ranks(self, &err);
    if (code == ORR_OK)
        return true;
    if (code == ORR_ENODEV && !resize->is_asked_again) { /* now by what is known */
        resize->is_asked_again = true;
        job_plan_begin(ctx, self, ORR_CUT_OPEN);
        return false;
    }
    if (code == ORR_ENODEV) {
        plan->remap = JOB_REMAP_NONE;
        go_elsewhere(ctx, self, err.text);
        return plan->is_moving;
    }
    snprintf(text,
             sizeof(text),
             "resize: %u devices are too few for %u shards: %s; it runs on as before",
             plan->devices,
             plan->shards.n,
             plan->shards.why);
    job_plan_fail(ctx, self, code, text);
    return false;
}

struct orr_list_rank_place job_resize_places(struct job *self, uint32_t node)
{
    struct orr_rec_rank_place *places = self->places.at;
    uint32_t n = 0;
    for (uint32_t r = 0; r < self->args.world; r++) {
        const struct job_rank *rank = job_rank_at(self, r);
        if (rank->next_node != node)
            continue;
        places[n++] = (struct orr_rec_rank_place){
            .rank = r,
            .node = orr_str(job_node_at(self, node)->name),
            .device = rank->next_device,
            .local_rank = rank->local_rank,
        };
    }
    return (struct orr_list_rank_place){places, n};
}

void job_resize_take(struct job *self)
{
    struct job_plan *plan = &self->plan;
    job_partial_take(self);
    for (uint32_t r = 0; r < self->args.world; r++)
        job_rank_at(self, r)->device = job_rank_at(self, r)->next_device;
    plan->remap = JOB_REMAP_TAKEN;
    plan->is_given = true; /* as of devices for a suspended job: the record is next */
    plan->is_placed = false;
    self->is_update_due = true;
}

void job_resize_over(struct job *self)
{
    struct job_plan *plan = &self->plan;
    plan->is_keep_due = plan->is_keep_due || plan->want_until_ms != 0;
    plan->remap = JOB_REMAP_NONE;
    plan->want_until_ms = 0;
    plan->is_moving = false;
    job_partial_undo(self);
}
