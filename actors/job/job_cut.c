/* SPDX-License-Identifier: Apache-2.0
 * job_cut.c - the plan's words with the nodes: what each is asked for a step, and what its reports say.
 */
#include "job_partial.h"
#include "job_resize.h"
#include "job_shards.h"
#include "job_state.h"

enum {
    REASK_MS = 200,
    MANIFEST_BYTES = 16384,
    PART_TEXT_BYTES = 64, /* of a rank's list of arenas, on average */
    CLOCKS_A_RANK = 256,
    CLOCKS_MIN = 4096,
    CLOCKS_MAX = 1 << 20,
    TARGETS_MAX = 65536, /* in one message */
    RESUME_AGAIN_MS = 500,
};

void job_plan_fini(struct job *self)
{
    struct job_plan *plan = &self->plan;
    job_barrier_fini(&plan->barrier);
    orr_block_fini(&plan->targets);
    orr_block_fini(&plan->ids);
    orr_block_fini(&plan->id_list);
    orr_block_fini(&plan->parts);
    orr_block_fini(&plan->part_text);
    orr_block_fini(&plan->part_list);
    orr_block_fini(&plan->body);
}

static uint32_t clocks_max(const struct job *self)
{
    return self->args.world > CLOCKS_MAX / CLOCKS_A_RANK
               ? CLOCKS_MAX
               : self->args.world * CLOCKS_A_RANK + CLOCKS_MIN;
}

void job_plan_leave_out(struct job *self)
{
    for (uint32_t i = 0; i < self->n_nodes; i++)
        if (!job_node_at(self, i)->n_ranks)
            job_barrier_leave_out(&self->plan.barrier, i);
}

enum orr_err job_plan_grow(struct job *self)
{
    struct job_plan *plan = &self->plan;
    if (!plan->has_tables)
        return ORR_OK;
    job_barrier_fini(&plan->barrier);
    enum orr_err err =
        job_barrier_init(&plan->barrier, self->n_nodes, clocks_max(self));
    if (err != ORR_OK)
        job_plan_fini(self);
    plan->has_tables = err == ORR_OK;
    if (err == ORR_OK)
        job_plan_leave_out(self);
    return err;
}

/* A job that is never stopped needs none of it. */
enum orr_err job_plan_tables(struct job *self)
{
    struct job_plan *plan = &self->plan;
    uint32_t clocks = clocks_max(self);
    if (plan->has_tables)
        return ORR_OK;
    plan->targets_max = clocks < TARGETS_MAX ? clocks : TARGETS_MAX;
    enum orr_err err = job_barrier_init(&plan->barrier, self->n_nodes, clocks);
    if (err == ORR_OK)
        err = orr_block_init(&plan->targets,
                             plan->targets_max * sizeof(struct orr_rec_clock));
    if (err == ORR_OK)
        err = orr_block_init(&plan->ids, JOB_IDS_MAX * sizeof(struct job_comm_id));
    if (err == ORR_OK)
        err = orr_block_init(&plan->id_list,
                             JOB_IDS_MAX * sizeof(struct orr_rec_comm_id));
    if (err == ORR_OK)
        err = orr_block_init(&plan->parts, self->args.world * sizeof(struct job_part));
    if (err == ORR_OK)
        err = orr_block_init(&plan->part_text,
                             ORR_PART_ARENAS_MAX +
                                 (size_t)self->args.world * PART_TEXT_BYTES);
    if (err == ORR_OK)
        err = orr_block_init(&plan->part_list,
                             self->args.world * sizeof(struct orr_rec_part));
    if (err == ORR_OK)
        err = orr_block_init(&plan->body, ORR_BYTES_MAX);
    if (err != ORR_OK)
        job_plan_fini(self);
    plan->has_tables = err == ORR_OK;
    return err;
}

enum orr_err job_plan_start(struct job *self, const struct orr_msg_job_start *msg)
{
    char name[ORR_JOB_ID_MAX + 8];
    snprintf(name, sizeof(name), "link/%s", self->args.job);
    self->link = orr_hash(orr_str(name));
    if (!msg->manifest.len)
        return ORR_OK;
    enum orr_err err =
        orr_block_init(&self->manifest, (size_t)8 * msg->manifest.len + MANIFEST_BYTES);
    if (err == ORR_OK)
        err = orr_msg_decode(orr_msg_desc_manifest(),
                             msg->manifest.ptr,
                             msg->manifest.len,
                             self->manifest.at,
                             self->manifest.size);
    if (err != ORR_OK)
        return err;
    const struct orr_msg_manifest *manifest = self->manifest.at;
    if (manifest->parts.n != self->args.world)
        return ORR_EINVAL;
    err = orr_block_init(&self->restored,
                         manifest->parts.n * sizeof(struct orr_rec_part));
    if (err != ORR_OK)
        return err;
    self->plan.cut = manifest->row.cut;
    job_shards_recall(self, manifest);
    self->plan.is_restoring = true;
    self->level = self->restored_level = manifest->row.level;
    if (self->restored_level == ORR_LEVEL_COOPERATIVE)
        return ORR_OK; /* its ranks begin anew, and meet where they are */
    orr_str_copy(self->master_addr, sizeof(self->master_addr), manifest->master_addr);
    self->master_port = manifest->master_port;
    return ORR_OK;
}

/* ---- nodes ---- */

static struct orr_list_comm_id list_ids(struct job_plan *plan)
{
    struct orr_rec_comm_id *list = plan->id_list.at;
    const struct job_comm_id *ids = plan->ids.at;
    for (uint32_t i = 0; i < plan->n_ids; i++)
        list[i] = (struct orr_rec_comm_id){ids[i].comm, {ids[i].id, ids[i].len}};
    return (struct orr_list_comm_id){list, plan->n_ids};
}

static bool has_all_ids(const struct job *self)
{
    for (uint32_t i = 0; i < self->n_nodes; i++)
        if (job_node_at(self, i)->n_ranks &&
            job_node_at(self, i)->ids_attempt != self->plan.attempt)
            return false;
    return true;
}

void job_plan_ask(struct orr_ctx *ctx,
                  struct job *self,
                  struct job_node *node,
                  uint64_t tag)
{
    struct job_plan *plan = &self->plan;
    uint32_t index = (uint32_t)(node - job_node_at(self, 0));
    enum orr_cut_step step = plan->step ? plan->step : ORR_CUT_RESUME;
    uint64_t now = orr_now_ms(ctx);
    struct orr_msg_cut_step msg = {
        .job = orr_str(self->args.job),
        .generation = self->args.generation,
        .cut = plan->cut,
        .step = step,
        .timeout_ms = plan->until_ms > now + JOB_MARGIN_MS
                          ? plan->until_ms - JOB_MARGIN_MS - now
                          : REASK_MS,
        .is_detached = job_level_is_saved(self->level),
        .keeps_running = plan->goal == ORR_ORDER_CHECKPOINT && !plan->is_freed};
    if (step == ORR_CUT_TARGETS) {
        uint32_t n = job_barrier_targets(
            &plan->barrier, index, plan->targets.at, plan->targets_max);
        msg.round = plan->barrier.round;
        msg.targets = (struct orr_list_clock){
            plan->targets.at, n < plan->targets_max ? n : plan->targets_max};
    }
    if (step == ORR_CUT_SAVE)
        msg.round = plan->number;
    if (step == ORR_CUT_SAVE && job_plan_is_partial(plan)) {
        msg.is_some = true;
        msg.ranks = job_partial_leaving(self, index);
    }
    if (step == ORR_CUT_RELEASE && plan->goal == ORR_ORDER_RESIZE)
        msg.ranks = job_resize_places(self, index);
    struct orr_rec_text machines[JOB_MACHINES_MAX];
    if (step == ORR_CUT_RELEASE && job_plan_is_partial(plan)) {
        msg.overlay = self->overlay;
        msg.machines = job_machines(self, index, machines);
    }
    if (step == ORR_CUT_RESUME) {
        msg.round = plan->attempt;
        msg.ids = list_ids(plan);
        msg.has_all_ids = has_all_ids(self);
        msg.ranks = job_places(self, index);
        msg.is_whole = true;
    }
    ctx->ops->ask(ctx, node->addr, REASK_MS * 10, tag, orr_msg_desc_cut_step(), &msg);
}

/* The later of: somebody needs one, an id, zeros (there can be none). */
static uint32_t strength_of(const uint8_t *id, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (id[i])
            return 1;
    return len ? 2 : 0;
}

/* False: known already, or no room. */
static bool note_id(struct job_plan *plan, const struct orr_rec_comm_id *id)
{
    struct job_comm_id *kept = plan->ids.at;
    uint32_t at = 0;
    while (at < plan->n_ids && kept[at].comm != id->comm)
        at++;
    if (at == JOB_IDS_MAX || id->id.len > sizeof(kept[at].id))
        return false;
    if (at < plan->n_ids &&
        strength_of(kept[at].id, kept[at].len) >= strength_of(id->id.ptr, id->id.len))
        return false;
    kept[at].comm = id->comm;
    kept[at].len = (uint32_t)id->id.len;
    if (id->id.len)
        memcpy(kept[at].id, id->id.ptr, id->id.len);
    plan->n_ids += at == plan->n_ids;
    return true;
}

/* Of communicators that are made anew.  All are told of what is new. */
static void
note_ids(struct job *self, struct job_node *node, const struct orr_msg_cut_report *msg)
{
    struct job_plan *plan = &self->plan;
    bool is_new = false;
    for (uint32_t i = 0; i < msg->ids.n; i++)
        is_new |= note_id(plan, &msg->ids.at[i]);
    if (msg->has_all_ids && node->ids_attempt != plan->attempt) {
        node->ids_attempt = plan->attempt;
        is_new |= has_all_ids(self);
    }
    for (uint32_t n = 0; n < self->n_nodes && is_new; n++)
        job_node_at(self, n)->talk.retry_ms = 0;
}

/* A part that could not be stored, or a step that could not be taken. */
static void node_failed(struct orr_ctx *ctx,
                        struct job *self,
                        struct job_node *node,
                        const struct orr_msg_cut_report *msg)
{
    struct job_plan *plan = &self->plan;
    char rank[32] = "", text[400];
    if (msg->culprit >= 0)
        snprintf(rank, sizeof(rank), "rank %lld: ", (long long)msg->culprit);
    if (plan->step == ORR_CUT_RESUME && msg->step == ORR_CUT_RESUME) {
        snprintf(plan->trouble,
                 sizeof(plan->trouble),
                 "%s%.*s",
                 rank,
                 ORR_STR_ARGS(msg->text));
        if (msg->round == plan->attempt) {
            orr_log(ctx,
                    ORR_LOG_WARN,
                    "resume on %s is tried again: %s",
                    node->name,
                    plan->trouble);
            job_plan_resume_again(ctx, self);
            for (uint32_t i = 0; i < self->n_nodes; i++)
                job_node_at(self, i)->talk.retry_ms = orr_now_ms(ctx) + RESUME_AGAIN_MS;
        }
        return;
    }
    if (job_plan_leave_save(ctx, self))
        return;
    snprintf(text,
             sizeof(text),
             "%s: %s%s on %s: %.*s",
             orr_cut_step_name(plan->step),
             rank,
             "failed",
             node->name,
             ORR_STR_ARGS(msg->text));
    job_plan_fail(ctx, self, ORR_EIO, text);
}

/* NULL: all that it lists are stored. */
static const char *note_parts(struct job *self,
                              struct job_node *node,
                              const struct orr_msg_cut_report *msg,
                              char *text,
                              size_t cap)
{
    const char *why = NULL;
    orr_str_copy(text, cap, msg->text);
    for (uint32_t i = 0; i < msg->parts.n && self->plan.has_tables; i++) {
        if (!msg->parts.at[i].hash.len)
            why = text;
        else if (!job_part_note(self, node, &msg->parts.at[i]))
            why = "the ranks have too many processes with device memory for one list";
    }
    return why;
}

void job_plan_heard(struct orr_ctx *ctx,
                    struct job *self,
                    struct job_node *node,
                    const struct orr_msg_cut_report *msg)
{
    struct job_plan *plan = &self->plan;
    struct orr_error err;
    node->talk.retry_ms = orr_now_ms(ctx) + REASK_MS;
    if (msg->cut != plan->cut || self->is_stopping)
        return;
    node->cut = msg->cut;
    node->cut_step = msg->step;
    node->cut_state = msg->state;
    node->cut_round = msg->round;
    if (msg->device_bytes)
        node->device_bytes = msg->device_bytes;
    if (msg->state == ORR_STEP_DONE && msg->step == ORR_CUT_QUIESCE)
        node->copy_us[0] = msg->copy_us;
    if (msg->state == ORR_STEP_DONE && msg->step == ORR_CUT_RESUME)
        node->copy_us[1] = msg->copy_us;
    char said[300], text[400];
    const char *why = note_parts(self, node, msg, said, sizeof(said));
    if (why && plan->is_saving) {
        snprintf(text, sizeof(text), "save: %s: %s", node->name, why);
        job_plan_save_fail(ctx, self, ORR_EIO, text);
    }
    if (msg->step != plan->step &&
        !(msg->step == ORR_CUT_BEGIN && plan->step == ORR_CUT_TARGETS))
        return;
    bool is_of_earlier = plan->step == ORR_CUT_SAVE && msg->round < plan->number;
    if (msg->state == ORR_STEP_FAILED && is_of_earlier)
        return; /* an earlier order's; it is asked again */
    if (msg->state == ORR_STEP_FAILED) {
        node_failed(ctx, self, node, msg);
        return;
    }
    if (job_is_before_quiesce(plan->step) &&
        job_barrier_hear(
            &plan->barrier, (uint32_t)(node - job_node_at(self, 0)), msg, &err) !=
            ORR_OK)
        job_plan_fail(ctx, self, err.code, err.text);
    if (plan->step == ORR_CUT_TARGETS && msg->round < plan->barrier.round)
        node->talk.retry_ms = 0;
    if (plan->step == ORR_CUT_RESUME && msg->round == plan->attempt)
        note_ids(self, node, msg);
}

/* All are told of new targets at once: who waits at older ones holds up the rest. */
void job_plan_aim(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    uint64_t before = plan->barrier.round, round;
    if (job_barrier_round(&plan->barrier, &round) != ORR_OK) {
        job_plan_fail(ctx, self, ORR_ENOSPC, "its ranks have too many clocks together");
        return;
    }
    job_stopwatch_round(plan, round);
    for (uint32_t i = 0; i < self->n_nodes && round != before; i++)
        job_node_at(self, i)->talk.retry_ms = 0;
}

/* ---- after a restart ---- */

/* An earlier life of this actor was in the middle of something. */
void job_plan_recover(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    uint32_t n_stopped = 0, n_closed = 0, n_resumed = 0, n_beyond = 0;
    for (uint32_t i = 0; i < self->n_nodes; i++) {
        const struct job_node *node = job_node_at(self, i);
        if (node->found_cut > plan->cut)
            plan->cut = node->found_cut;
    }
    for (uint32_t i = 0; i < self->n_nodes; i++) {
        uint32_t step = job_node_at(self, i)->found_step;
        if (job_node_at(self, i)->found_cut < plan->cut)
            step = ORR_CUT_NONE;
        n_stopped += step >= ORR_CUT_QUIESCE && step <= ORR_CUT_RESUME;
        n_beyond += step > ORR_CUT_QUIESCE && step <= ORR_CUT_RESUME;
        n_resumed += step == ORR_CUT_RESUME;
        n_closed += step == ORR_CUT_BEGIN || step == ORR_CUT_TARGETS;
    }
    if (plan->is_restoring || (!self->is_suspended && !n_stopped && !n_closed))
        return;
    if (!plan->cut)
        job_plan_new_cut(ctx, plan); /* nodes that have forgotten theirs */
    if (job_plan_tables(self) != ORR_OK) {
        job_decide(ctx,
                   self,
                   ORR_OUTCOME_LOST,
                   ORR_LIT("the cluster's host has no memory to resume it"));
        return;
    }
    plan->attempt = orr_now_ms(ctx) << 12;
    plan->stopped_ms = orr_now_ms(ctx);
    if (self->is_suspended && !n_resumed) {
        plan->goal = plan->goal ? plan->goal : (uint32_t)ORR_ORDER_SUSPEND;
        job_plan_begin(ctx, self, ORR_CUT_RELEASE);
    } else if (n_stopped && !n_beyond) {
        /* some may have let go of what others still have: first all do, as the cut allows */
        job_plan_begin(ctx, self, ORR_CUT_QUIESCE);
    } else {
        job_plan_begin(ctx, self, n_stopped ? ORR_CUT_RESUME : ORR_CUT_OPEN);
    }
}
