/* SPDX-License-Identifier: Apache-2.0
 * job_orders.c - orders to stop, save, move and run; what is said to the region and the cluster about them.
 *
 * An order is taken once, by its number; a later one replaces an earlier one.  Those that cannot be followed are refused
 * at once where that is known, else by order_failed.  Checkpoints without an order (spec.checkpoint) are number 0.
 */
#include "job_partial.h"
#include "job_resize.h"
#include "job_shards.h"
#include "job_state.h"

enum { PERIODIC_MIN_MS = 1000 };

static bool is_known(uint32_t order)
{
    return order == ORR_ORDER_RUN || order == ORR_ORDER_SUSPEND ||
           order == ORR_ORDER_CHECKPOINT || order == ORR_ORDER_VACATE ||
           order == ORR_ORDER_RESIZE;
}

/* Why can it not be done, as far as is known now? */
static const char *obstacle(const struct job *self, uint32_t order)
{
    bool is_save = order == ORR_ORDER_CHECKPOINT || order == ORR_ORDER_VACATE;
    if (order == ORR_ORDER_RUN)
        return NULL;
    if (self->level == ORR_LEVEL_NONE)
        return "cannot be stopped";
    if (is_save && self->level == ORR_LEVEL_INPLACE)
        return "can be suspended where it is, but not saved or moved";
    return NULL;
}

enum orr_err job_order_take(struct orr_ctx *ctx,
                            struct job *self,
                            const struct orr_msg_job_order *msg)
{
    struct job_plan *plan = &self->plan;
    if (msg->generation != self->args.generation)
        return orr_refuse(ctx,
                          ORR_ESTALE,
                          "job %s is at generation %llu",
                          self->args.job,
                          (unsigned long long)self->args.generation);
    if (!is_known(msg->order))
        return orr_refuse(
            ctx, ORR_EINVAL, "job %s: no such order: %u", self->args.job, msg->order);
    if (msg->number <= plan->taken)
        return ORR_OK;
    const char *why_not = obstacle(self, msg->order);
    if (why_not)
        return orr_refuse(ctx,
                          ORR_ENOSYS,
                          "job %s %s: %s",
                          self->args.job,
                          why_not,
                          self->why_level[0] ? self->why_level
                                             : "see `orrery doctor` on its nodes");
    if (self->is_stopping)
        return orr_refuse(ctx, ORR_ESTATE, "job %s is at its end", self->args.job);
    if (msg->order == ORR_ORDER_RESIZE) {
        enum orr_err err = job_resize_check(ctx, self, msg);
        if (err != ORR_OK)
            return err;
    }
    plan->taken = plan->number = msg->number;
    plan->goal = msg->order;
    plan->checkpoint = msg->checkpoint;
    plan->devices = msg->devices;
    plan->may_move = msg->may_move;
    plan->is_moving = false;
    plan->want_until_ms = plan->clear_until_ms = 0;
    plan->resize.is_asked_again = false;
    plan->is_failure_due = false;
    job_partial_replaced(ctx, self);
    bool is_there = (msg->order == ORR_ORDER_SUSPEND && plan->is_freed) ||
                    (msg->order == ORR_ORDER_RUN && plan->step == ORR_CUT_NONE &&
                     !self->is_recovery);
    if (is_there) {
        plan->goal = ORR_ORDER_NONE;
        plan->number = 0;
        self->is_update_due = true;
    }
    return job_step(ctx, self);
}

/* ---- periodic checkpoints ---- */

void job_periodic_arm(struct orr_ctx *ctx, const struct job *self)
{
    uint64_t every = self->args.checkpoint_every_ms;
    bool is_wanted = self->args.checkpoint_mode != ORR_CHECKPOINT_NONE &&
                     self->args.checkpoint_mode != ORR_CHECKPOINT_INPLACE;
    if (every && is_wanted)
        orr_timer_set(
            ctx, JOB_T_PERIODIC, every > PERIODIC_MIN_MS ? every : PERIODIC_MIN_MS, 0);
}

/* Not while something else is going on: the next one will do. */
void job_periodic_due(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    bool is_able = job_level_is_saved(self->level);
    if (!is_able && self->phase == ORR_JOB_RUNNING && !plan->is_unable_told) {
        plan->is_unable_told = true;
        snprintf(self->reason,
                 sizeof(self->reason),
                 "no periodic checkpoints: %.150s",
                 self->why_level[0] ? self->why_level : orr_level_name(self->level));
        orr_log(ctx, ORR_LOG_WARN, "%s", self->reason);
        self->is_update_due = true;
    }
    if (self->phase == ORR_JOB_RUNNING && is_able && plan->goal == ORR_ORDER_NONE &&
        plan->step == ORR_CUT_NONE && !plan->is_saving && !plan->is_commit_due) {
        plan->goal = ORR_ORDER_CHECKPOINT;
        plan->number = plan->checkpoint = 0;
    }
    job_periodic_arm(ctx, self);
}

/* ---- what was saved ---- */

/* Reports are repeated: a text that is there is not kept again. */
static bool keep_text(struct job_plan *plan, struct job_part *part, struct orr_str text)
{
    if (part->arenas && orr_str_eq(orr_str(part->arenas), text))
        return true;
    if (text.len >= plan->part_text.size - plan->part_text_used)
        return false;
    char *at = (char *)plan->part_text.at + plan->part_text_used;
    orr_str_copy(at, text.len + 1, text);
    plan->part_text_used += text.len + 1;
    part->arenas = at;
    return true;
}

bool job_part_note(struct job *self,
                   struct job_node *node,
                   const struct orr_rec_part *rec)
{
    if (rec->rank >= self->args.world || !rec->hash.len)
        return true;
    struct job_part *part = (struct job_part *)self->plan.parts.at + rec->rank;
    if (job_rank_at(self, rec->rank)->node != (uint32_t)(node - job_node_at(self, 0)))
        return true;
    if (!keep_text(&self->plan, part, rec->arenas))
        return false;
    orr_str_copy(part->hash, sizeof(part->hash), rec->hash);
    part->bytes = rec->bytes;
    part->new_bytes = rec->new_bytes;
    part->arena_bytes = rec->arena_bytes;
    part->is_silent = rec->is_silent;
    orr_str_copy(node->store, sizeof(node->store), rec->store);
    orr_str_copy(node->endpoint, sizeof(node->endpoint), rec->endpoint);
    return true;
}

bool job_parts_are_stored(const struct job *self)
{
    const struct job_part *parts = self->plan.parts.at;
    for (uint32_t i = 0; i < self->args.world; i++)
        if (!parts[i].hash[0])
            return false;
    return true;
}

static struct orr_list_part list_parts(struct job *self,
                                       struct orr_rec_checkpoint_row *row)
{
    struct orr_rec_part *list = self->plan.part_list.at;
    const struct job_part *parts = self->plan.parts.at;
    for (uint32_t i = 0; i < self->args.world; i++) {
        const struct job_node *node = job_node_at(self, job_rank_at(self, i)->node);
        list[i] = (struct orr_rec_part){.rank = i,
                                        .hash = orr_str(parts[i].hash),
                                        .bytes = parts[i].bytes,
                                        .new_bytes = parts[i].new_bytes,
                                        .store = orr_str(node->store),
                                        .endpoint = orr_str(node->endpoint),
                                        .arena_bytes = parts[i].arena_bytes,
                                        .arenas = orr_str(parts[i].arenas),
                                        .is_silent = parts[i].is_silent};
        row->bytes += parts[i].bytes;
        row->new_bytes += parts[i].new_bytes;
    }
    return (struct orr_list_part){list, self->args.world};
}

void job_commit_ask(struct orr_ctx *ctx, struct job *self, uint64_t tag)
{
    struct job_plan *plan = &self->plan;
    bool is_leaving = job_plan_is_leaving(plan);
    const char *why = plan->goal == ORR_ORDER_RESIZE ? "resize" : "migrate";
    struct orr_msg_manifest manifest = {
        .row = {.job = orr_str(self->args.job),
                .number = plan->commit_checkpoint,
                .generation = self->args.generation,
                .cut = plan->cut,
                .level = self->level,
                .created_unix_ms = ctx->wall_ms,
                .paused_ms = plan->is_freed || is_leaving ? 0 : plan->paused_ms,
                .cause = orr_str(is_leaving            ? why
                                 : plan->commit_number ? "asked"
                                                       : "periodic")},
        .link = self->link,
        .world = self->args.world,
        .master_addr = orr_str(self->master_addr),
        .master_port = self->master_port};
    job_shards_tell(self, &manifest);
    manifest.parts = list_parts(self, &manifest.row);
    size_t len = 0;
    if (orr_msg_encode(
            orr_msg_desc_manifest(), &manifest, plan->body.at, plan->body.size, &len) !=
        ORR_OK) {
        self->talk.asked = JOB_ASK_NONE;
        job_plan_fail(
            ctx, self, ORR_ENOSPC, "the list of its parts is too long for a manifest");
        return;
    }
    orr_ask(ctx,
            self->region,
            2000,
            tag,
            checkpoint_commit,
            .order = plan->commit_number,
            .row = manifest.row,
            .manifest = {plan->body.at, (uint32_t)len});
}

void job_refuse_ask(struct orr_ctx *ctx, struct job *self, uint64_t tag)
{
    self->plan.told_number = self->plan.failed_number;
    orr_ask(ctx,
            self->region,
            2000,
            tag,
            order_failed,
            .job = orr_str(self->args.job),
            .generation = self->args.generation,
            .number = self->plan.failed_number,
            .code = self->plan.failed_code,
            .text = orr_str(self->plan.failed));
}

/* ---- how it can be stopped ---- */

static uint32_t strength_of(uint32_t level)
{
    static const uint32_t strengths[ORR_LEVEL_MAX_] = {[ORR_LEVEL_NONE] = 1,
                                                       [ORR_LEVEL_INPLACE] = 2,
                                                       [ORR_LEVEL_COOPERATIVE] = 3,
                                                       [ORR_LEVEL_IMAGE] = 4};
    return level < ORR_LEVEL_MAX_ ? strengths[level] : 0;
}

/* The least of all its ranks; what nobody has said yet does not count.  why: of one that has this level. */
static void level_judge(struct job *self, uint32_t level, struct orr_str why)
{
    uint32_t least = ORR_LEVEL_UNKNOWN;
    for (uint32_t r = 0; r < self->args.world; r++) {
        uint32_t one = job_rank_at(self, r)->level;
        if (strength_of(one) &&
            (!strength_of(least) || strength_of(one) < strength_of(least)))
            least = one;
    }
    if (!strength_of(least) || least == self->level)
        return;
    self->level = least;
    orr_str_copy(self->why_level,
                 sizeof(self->why_level),
                 level == least ? why : ORR_LIT("another rank says so"));
    self->is_update_due = self->has_permit;
}

void job_level_note(struct job *self, uint32_t rank, uint32_t level, struct orr_str why)
{
    if (rank >= self->args.world || !strength_of(level))
        return;
    job_rank_at(self, rank)->level = level;
    level_judge(self, level, why);
}

void job_level_note_node(struct job *self,
                         const struct job_node *node,
                         uint32_t level,
                         struct orr_str why)
{
    for (uint32_t r = 0; r < self->args.world && strength_of(level); r++) {
        struct job_rank *rank = job_rank_at(self, r);
        if (job_node_at(self, rank->node) == node && !strength_of(rank->level))
            rank->level = level;
    }
    level_judge(self, level, why);
}

/* ---- the cluster ---- */

enum job_ask job_cluster_next(const struct job *self)
{
    const struct job_plan *plan = &self->plan;
    if (self->is_stopping)
        return JOB_ASK_NONE;
    if (!plan->is_held)
        return plan->is_keep_due ? JOB_ASK_KEEP
               : plan->want_until_ms && plan->goal == ORR_ORDER_RESIZE &&
                       plan->remap == JOB_REMAP_NONE && !plan->is_moving
                   ? JOB_ASK_WANT
                   : JOB_ASK_NONE;
    if (!plan->is_freed) /* the new map is taken, and the job goes on: it keeps them */
        return (plan->remap == JOB_REMAP_TAKEN && plan->goal != ORR_ORDER_SUSPEND) ||
                       plan->is_unrecorded
                   ? JOB_ASK_NONE
                   : JOB_ASK_FREED;
    return plan->goal == ORR_ORDER_RUN && !plan->is_given ? JOB_ASK_WANT : JOB_ASK_NONE;
}

void job_cluster_ask(struct orr_ctx *ctx,
                     struct job *self,
                     enum job_ask ask,
                     uint64_t tag)
{
    struct orr_str job = orr_str(self->args.job);
    uint64_t generation = self->args.generation;
    if (ask == JOB_ASK_KEEP || !self->plan.is_held) {
        job_resize_ask(ctx, self, ask, tag);
        return;
    }
    if (ask == JOB_ASK_FREED)
        orr_ask(ctx,
                self->cluster,
                2000,
                tag,
                devices_freed,
                .job = job,
                .generation = generation);
    else
        orr_ask(ctx,
                self->cluster,
                2000,
                tag,
                devices_want,
                .job = job,
                .generation = generation,
                .ranks = job_places(self, ORR_NONE));
}

enum orr_err job_devices_given(struct orr_ctx *ctx,
                               struct job *self,
                               const struct orr_msg_devices_given *msg)
{
    enum job_ask ask;
    (void)job_answered(self, ctx->tag, &ask);
    if (ask != JOB_ASK_WANT)
        return ORR_OK;
    if (!self->plan.is_held) {
        job_resize_given(ctx, self, msg);
        return job_step(ctx, self);
    }
    for (uint32_t i = 0; i < msg->ranks.n; i++) {
        const struct orr_rec_rank_place *place = &msg->ranks.at[i];
        struct job_rank *rank =
            place->rank < self->args.world ? job_rank_at(self, place->rank) : NULL;
        if (!rank ||
            !orr_str_eq(orr_str(job_node_at(self, rank->node)->name), place->node)) {
            orr_log(ctx,
                    ORR_LOG_ERROR,
                    "bug: devices were given for a rank that is elsewhere");
            return ORR_ECRASH;
        }
        rank->device = place->device;
    }
    self->cluster_talk.backoff_ms = 0;
    self->plan.is_given = true;
    self->is_update_due = true;
    return job_step(ctx, self);
}
