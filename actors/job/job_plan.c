/* SPDX-License-Identifier: Apache-2.0
 * job_plan.c - a stop, step by step, and what is to come of it (docs/barrier.md).
 *
 *   suspend      begin targets quiesce release | held, until an order
 *   checkpoint   begin targets quiesce save resume; what was saved goes to the store while the ranks run
 *   vacate       begin targets quiesce save commit | killed: the next generation restores
 *   run          (held) devices, their places in the region's record, resume
 *
 * As in job_steps.c nothing waits in a sequence: `step` says what every node is to have done, each is asked until it
 * says so, and when all have, the goal says what follows.  So an order that comes in the middle only changes the goal.
 * FAILURES    before the release everything is undone: `open` before quiesce, `resume` after it; order_failed says why,
 * and the ranks run on.  A resume is tried until its time is over, then the generation is lost.  What becomes of dead
 * ranks and lost nodes is judged first (job_ranks.c).  A node repeats what it did: cut numbers grow, older ones change
 * nothing.
 */
#include "job_state.h"

enum {
    REASK_MS = 200,
    BEGIN_MS = 10000,
    TARGETS_MS = 60000,
    QUIESCE_MS = 120000,
    SAVE_MS = 60000,
    SAVE_BYTES_PER_MS = 50000, /* the slowest store that is waited for */
    RELEASE_MS = 30000,
    RESUME_MS = 60000,
    RESUME_AGAIN_MS = 500,
    RESUME_BYTES_PER_MS = 500000,
    MANIFEST_BYTES = 16384,
    CLOCKS_A_RANK = 256,
    CLOCKS_MIN = 4096,
    CLOCKS_MAX = 1 << 20,
    TARGETS_MAX = 65536, /* in one message */
};

void job_plan_fini(struct job *self)
{
    struct job_plan *plan = &self->plan;
    job_barrier_fini(&plan->barrier);
    orr_block_fini(&plan->targets);
    orr_block_fini(&plan->ids);
    orr_block_fini(&plan->id_list);
    orr_block_fini(&plan->parts);
    orr_block_fini(&plan->part_list);
    orr_block_fini(&plan->body);
}

/* A job that is never stopped needs none of it. */
static enum orr_err take_tables(struct job *self)
{
    struct job_plan *plan = &self->plan;
    uint32_t clocks = self->args.world > CLOCKS_MAX / CLOCKS_A_RANK
                          ? CLOCKS_MAX
                          : self->args.world * CLOCKS_A_RANK + CLOCKS_MIN;
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
    self->plan.is_restoring = true;
    self->level = manifest->row.level;
    orr_str_copy(self->master_addr, sizeof(self->master_addr), manifest->master_addr);
    self->master_port = manifest->master_port;
    return ORR_OK;
}

/* ---- steps ---- */

static bool is_before_quiesce(enum orr_cut_step step)
{
    return step == ORR_CUT_BEGIN || step == ORR_CUT_TARGETS;
}

static uint64_t device_bytes(const struct job *self)
{
    uint64_t most = 0; /* nodes work side by side */
    for (uint32_t i = 0; i < self->n_nodes; i++)
        if (job_node_at(self, i)->device_bytes > most)
            most = job_node_at(self, i)->device_bytes;
    return most;
}

static uint64_t save_ms(const struct job *self)
{
    return SAVE_MS + device_bytes(self) / SAVE_BYTES_PER_MS;
}

/* How long a step may take; 0: as long as it needs. */
static uint64_t step_ms(const struct job *self, enum orr_cut_step step)
{
    switch (step) {
    case ORR_CUT_BEGIN:
        return BEGIN_MS;
    case ORR_CUT_TARGETS:
        return TARGETS_MS;
    case ORR_CUT_QUIESCE:
        return QUIESCE_MS;
    case ORR_CUT_SAVE:
        return save_ms(self);
    case ORR_CUT_RELEASE:
        return RELEASE_MS;
    case ORR_CUT_RESUME:
        return RESUME_MS + device_bytes(self) / RESUME_BYTES_PER_MS;
    case ORR_CUT_NONE:
    case ORR_CUT_OPEN:
    case ORR_CUT_STEP_MAX_:
    default:
        return 0;
    }
}

void job_plan_begin(struct orr_ctx *ctx, struct job *self, enum orr_cut_step step)
{
    struct job_plan *plan = &self->plan;
    uint64_t ms = step_ms(self, step);
    orr_log(ctx,
            ORR_LOG_DEBUG,
            "cut %llu: %s",
            (unsigned long long)plan->cut,
            orr_cut_step_name(step));
    plan->step = step;
    plan->since_ms = orr_now_ms(ctx);
    plan->until_ms = ms ? plan->since_ms + ms : 0;
    if (step == ORR_CUT_RESUME) {
        plan->attempt++;
        plan->n_ids = 0;
    }
    for (uint32_t i = 0; i < self->n_nodes; i++)
        job_node_at(self, i)->talk.retry_ms = 0;
}

/* Numbers of a new life are above those of an earlier one on this host, and above what nodes know. */
static void new_cut(struct orr_ctx *ctx, struct job_plan *plan)
{
    uint64_t least = orr_now_ms(ctx) << 12;
    plan->cut = (plan->cut > least ? plan->cut : least) + 1;
    plan->attempt = 0;
    plan->stopped_ms = orr_now_ms(ctx);
    plan->is_freed = plan->is_given = plan->is_placed = plan->is_held = false;
}

static bool is_done(const struct job *self, const struct job_node *node)
{
    const struct job_plan *plan = &self->plan;
    uint32_t index = (uint32_t)(node - job_node_at(self, 0));
    const struct job_barrier_peer *peer =
        plan->has_tables
            ? (const struct job_barrier_peer *)plan->barrier.peers.at + index
            : NULL;
    if (node->cut != plan->cut)
        return false;
    if (plan->step == ORR_CUT_BEGIN)
        return peer->has_begun;
    if (plan->step == ORR_CUT_TARGETS)
        return peer->is_at_cut && peer->round == plan->barrier.round;
    return node->cut_step == plan->step && node->cut_state == ORR_STEP_DONE &&
           (plan->step != ORR_CUT_RESUME || node->cut_round == plan->attempt);
}

static bool all_done(const struct job *self)
{
    for (uint32_t i = 0; i < self->n_nodes; i++)
        if (!is_done(self, job_node_at(self, i)))
            return false;
    return self->plan.step != ORR_CUT_TARGETS ||
           job_barrier_is_cut(&self->plan.barrier);
}

bool job_plan_wants(const struct job *self, const struct job_node *node)
{
    const struct job_plan *plan = &self->plan;
    if (plan->step == ORR_CUT_NONE)
        return plan->is_saving && node->cut == plan->cut;
    return !plan->is_held && !is_done(self, node);
}

/* ---- failures ---- */

static void forget_goal(struct job_plan *plan)
{
    plan->goal = ORR_ORDER_NONE;
    plan->number = 0;
}

static void tell_failure(struct job *self, uint64_t number, enum orr_err code, const char *text)
{
    struct job_plan *plan = &self->plan;
    if (number) {
        plan->is_failure_due = true;
        plan->failed_number = number;
        plan->failed_code = code;
        snprintf(plan->failed, sizeof(plan->failed), "%s", text);
        return;
    }
    snprintf(self->reason, sizeof(self->reason), "periodic checkpoint failed: %.150s", text);
    self->is_update_due = true;
}

/* The goal cannot be reached; what was done for it is undone. */
void job_plan_fail(struct orr_ctx *ctx,
                   struct job *self,
                   enum orr_err code,
                   const char *text)
{
    struct job_plan *plan = &self->plan;
    orr_log(ctx, ORR_LOG_WARN, "order %u failed: %s", plan->goal, text);
    if (plan->number || plan->goal == ORR_ORDER_CHECKPOINT)
        tell_failure(self, plan->number, code, text);
    forget_goal(plan);
    plan->is_commit_due = false;
    if (is_before_quiesce(plan->step))
        job_plan_begin(ctx, self, ORR_CUT_OPEN);
    else if (plan->is_freed) /* it was suspended, and stays so */
        plan->is_held = true;
    else if (plan->step >= ORR_CUT_QUIESCE && plan->step <= ORR_CUT_RELEASE)
        job_plan_begin(ctx, self, ORR_CUT_RESUME);
}

/* Behind a job that runs on: nothing is to be undone, and another order may be under way. */
void job_plan_save_fail(struct orr_ctx *ctx,
                        struct job *self,
                        enum orr_err code,
                        const char *text)
{
    orr_log(ctx, ORR_LOG_WARN, "checkpoint failed: %s", text);
    tell_failure(self, self->plan.commit_number, code, text);
    self->plan.is_saving = self->plan.is_commit_due = false;
}

static const struct job_node *first_not_done(const struct job *self)
{
    for (uint32_t i = 0; i < self->n_nodes; i++)
        if (!is_done(self, job_node_at(self, i)))
            return job_node_at(self, i);
    return job_node_at(self, 0);
}

static void fail_late(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    char who[280] = "", text[400];
    int64_t rank = -1;
    uint32_t peer = (uint32_t)(first_not_done(self) - job_node_at(self, 0));
    if (is_before_quiesce(plan->step))
        rank = job_barrier_culprit(&plan->barrier, &peer, who, sizeof(who));
    if (rank >= 0)
        peer = job_rank_at(self, (uint32_t)rank)->node;
    if (rank < 0 && peer != ORR_NONE && plan->step == ORR_CUT_BEGIN)
        snprintf(who, sizeof(who), "not all of its ranks have answered");
    snprintf(text,
             sizeof(text),
             "%s: no end after %llu ms: %s%s%.260s; it runs on as before",
             orr_cut_step_name(plan->step),
             (unsigned long long)(orr_now_ms(ctx) - plan->since_ms),
             peer == ORR_NONE ? "" : job_node_at(self, peer)->name,
             peer == ORR_NONE || !who[0] ? "" : ": ",
             who);
    job_plan_fail(ctx, self, ORR_ETIMEOUT, text);
}

static void resume_failed(struct orr_ctx *ctx, struct job *self)
{
    char reason[sizeof(self->reason)];
    snprintf(reason,
             sizeof(reason),
             "could not be resumed: %s: %.100s",
             first_not_done(self)->name,
             self->plan.trouble[0] ? self->plan.trouble : "no answer");
    self->is_restore_failed = self->plan.is_restoring;
    job_decide(ctx, self, ORR_OUTCOME_LOST, orr_str(reason));
}

/* What a node that is out of reach did is not known: its loss, or its return, decides. */
static bool is_anybody_away(const struct job *self)
{
    for (uint32_t i = 0; i < self->n_nodes; i++)
        if (job_node_at(self, i)->state != ORR_NODE_UP &&
            !is_done(self, job_node_at(self, i)))
            return true;
    return false;
}

static void check_time(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    uint64_t now = orr_now_ms(ctx);
    if (plan->step != ORR_CUT_NONE && !plan->is_held && plan->until_ms &&
        now >= plan->until_ms) {
        if (plan->step != ORR_CUT_RESUME)
            fail_late(ctx, self);
        else if (is_anybody_away(self))
            plan->until_ms = now + RESUME_MS;
        else
            resume_failed(ctx, self);
    }
    if (plan->is_saving && now >= plan->save_until_ms)
        job_plan_save_fail(ctx,
                           self,
                           ORR_ETIMEOUT,
                           "save: the store has not finished in time; see `orrery doctor` "
                      "on its nodes");
}

/* ---- what follows ---- */

static void go_on(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    bool is_save = plan->goal == ORR_ORDER_CHECKPOINT || plan->goal == ORR_ORDER_VACATE;
    if (is_save) {
        memset(plan->parts.at, 0, self->args.world * sizeof(struct job_part));
        plan->is_committed = plan->is_commit_due = false;
        plan->commit_number = plan->number;
        plan->commit_checkpoint = plan->checkpoint;
    }
    plan->is_held = false;
    job_plan_begin(ctx,
                   self,
                   is_save                           ? ORR_CUT_SAVE
                   : plan->goal == ORR_ORDER_SUSPEND ? ORR_CUT_RELEASE
                                                     : ORR_CUT_RESUME);
}

static void saved(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    bool is_stored = job_parts_are_stored(self);
    if (plan->goal == ORR_ORDER_SUSPEND || plan->goal == ORR_ORDER_RUN ||
        plan->goal == ORR_ORDER_NONE) { /* another order came */
        if (plan->is_freed)
            plan->is_held =
                true; /* its devices may be others' by now: to ask for first */
        else
            go_on(ctx, self);
        return;
    }
    bool goes_on = plan->goal == ORR_ORDER_CHECKPOINT && !plan->is_freed;
    if (goes_on) {
        plan->is_saving = true;
        plan->save_until_ms = orr_now_ms(ctx) + save_ms(self);
        forget_goal(plan);
        job_plan_begin(ctx, self, ORR_CUT_RESUME);
        return;
    }
    if (is_stored && !plan->is_committed)
        plan->is_commit_due = true;
    if (!plan->is_committed)
        return;
    if (plan->goal == ORR_ORDER_VACATE) {
        job_decide(
            ctx, self, ORR_OUTCOME_MOVED, ORR_LIT("goes on from its checkpoint"));
        return;
    }
    plan->is_held = true; /* a checkpoint of a suspended job */
    forget_goal(plan);
}

static void resumed(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    plan->step = ORR_CUT_NONE;
    plan->paused_ms = orr_now_ms(ctx) - plan->stopped_ms;
    plan->is_freed = plan->is_given = plan->is_placed = plan->is_held = false;
    plan->is_restoring = false;
    if (plan->goal == ORR_ORDER_RUN)
        forget_goal(plan);
}

/* Released, and perhaps offered to others: a step back needs devices first. */
static void held(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    if (!plan->is_freed)
        return;
    if (plan->goal == ORR_ORDER_SUSPEND)
        forget_goal(plan);
    if (plan->goal == ORR_ORDER_CHECKPOINT || plan->goal == ORR_ORDER_VACATE)
        go_on(ctx, self);
    else if (plan->goal == ORR_ORDER_RUN && plan->is_given && plan->is_placed)
        go_on(ctx, self);
}

static void advance(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    switch (plan->step) {
    case ORR_CUT_BEGIN:
        job_plan_begin(ctx, self, ORR_CUT_TARGETS);
        break;
    case ORR_CUT_TARGETS:
        job_plan_begin(ctx, self, ORR_CUT_QUIESCE);
        break;
    case ORR_CUT_QUIESCE:
        go_on(ctx, self);
        break;
    case ORR_CUT_SAVE:
        saved(ctx, self);
        break;
    case ORR_CUT_RELEASE:
        plan->is_held = true;
        break;
    case ORR_CUT_RESUME:
    case ORR_CUT_OPEN:
        resumed(ctx, self);
        break;
    case ORR_CUT_NONE:
    case ORR_CUT_STEP_MAX_:
    default:
        break;
    }
}

static void start_cut(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    if (plan->goal == ORR_ORDER_RUN) {
        forget_goal(plan);
        self->is_update_due = true; /* it says the phase */
        return;
    }
    if (take_tables(self) != ORR_OK) {
        job_plan_fail(ctx,
                      self,
                      ORR_ENOMEM,
                      "the cluster's host has no memory for the barrier's tables");
        return;
    }
    new_cut(ctx, plan);
    job_barrier_reset(&plan->barrier);
    job_plan_begin(ctx, self, ORR_CUT_BEGIN);
}

static void start_restore(struct orr_ctx *ctx, struct job *self)
{
    if (take_tables(self) != ORR_OK) {
        job_decide(ctx,
                   self,
                   ORR_OUTCOME_LOST,
                   ORR_LIT("the cluster's host has no memory to restore it"));
        return;
    }
    new_cut(ctx, &self->plan);
    job_plan_begin(ctx, self, ORR_CUT_RESUME);
}

static bool is_whole(const struct job *self)
{
    return self->n_state[ORR_RANK_RUNNING] == self->args.world;
}

void job_plan_step(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    if (self->is_stopping || !self->has_permit || self->is_recovery ||
        self->is_checking)
        return;
    check_time(ctx, self);
    if (!self->is_stopping && plan->step == ORR_CUT_NONE && is_whole(self)) {
        if (plan->is_restoring)
            start_restore(ctx, self);
        else if (plan->goal != ORR_ORDER_NONE && !plan->is_saving &&
                 !plan->is_commit_due)
            start_cut(ctx, self);
    }
    if (is_before_quiesce(plan->step) && !is_whole(self))
        job_plan_fail(ctx,
                      self,
                      ORR_ESTATE,
                      "a rank has ended already; it can only run to its end");
    bool wants_to_run = plan->goal == ORR_ORDER_RUN || plan->goal == ORR_ORDER_NONE;
    if (is_before_quiesce(plan->step) && wants_to_run) /* another order came */
        job_plan_begin(ctx, self, ORR_CUT_OPEN);
    uint64_t round;
    if (is_before_quiesce(plan->step) &&
        job_barrier_round(&plan->barrier, &round) != ORR_OK)
        job_plan_fail(ctx, self, ORR_ENOSPC, "its ranks have too many clocks together");
    for (enum orr_cut_step was = ORR_CUT_STEP_MAX_;
         !self->is_stopping && plan->step != was && plan->step != ORR_CUT_NONE &&
         !plan->is_held && all_done(self);) {
        was = plan->step;
        advance(ctx, self);
    }
    if (plan->is_held)
        held(ctx, self);
    if (plan->is_saving && !plan->is_commit_due && job_parts_are_stored(self) &&
        plan->step == ORR_CUT_NONE) {
        plan->is_saving = false;
        plan->is_commit_due = true;
    }
}

uint64_t job_plan_due_ms(const struct job *self)
{
    const struct job_plan *plan = &self->plan;
    uint64_t due = UINT64_MAX;
    if (self->is_stopping)
        return due;
    if (plan->step != ORR_CUT_NONE && !plan->is_held && plan->until_ms)
        due = plan->until_ms;
    if (plan->is_saving && plan->save_until_ms < due)
        due = plan->save_until_ms;
    return due;
}

uint32_t job_plan_phase(const struct job *self)
{
    const struct job_plan *plan = &self->plan;
    if (plan->is_restoring || (plan->is_held && plan->is_given) ||
        (plan->step == ORR_CUT_RESUME && plan->is_freed))
        return ORR_JOB_RESTORING;
    if (plan->is_freed && plan->goal != ORR_ORDER_VACATE)
        return ORR_JOB_SUSPENDED;
    bool is_to_stop = plan->goal == ORR_ORDER_SUSPEND || plan->goal == ORR_ORDER_VACATE;
    return plan->step != ORR_CUT_NONE && (is_to_stop || plan->is_held)
               ? ORR_JOB_STOPPING
               : ORR_JOB_RUNNING;
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
        .timeout_ms = plan->until_ms > now ? plan->until_ms - now : REASK_MS,
        .is_detached = self->level == ORR_LEVEL_IMAGE,
        .keeps_running = plan->goal == ORR_ORDER_CHECKPOINT && !plan->is_freed};
    if (step == ORR_CUT_TARGETS) {
        uint32_t n = job_barrier_targets(
            &plan->barrier, index, plan->targets.at, plan->targets_max);
        msg.round = plan->barrier.round;
        msg.targets = (struct orr_list_clock){
            plan->targets.at, n < plan->targets_max ? n : plan->targets_max};
    }
    if (step == ORR_CUT_RESUME) {
        msg.round = plan->attempt;
        msg.ids = list_ids(plan);
        msg.ranks = job_places(self, index);
    }
    ctx->ops->ask(ctx, node->addr, REASK_MS * 10, tag, orr_msg_desc_cut_step(), &msg);
}

static void note_ids(struct job *self, struct orr_list_comm_id ids)
{
    struct job_plan *plan = &self->plan;
    struct job_comm_id *kept = plan->ids.at;
    for (uint32_t i = 0; i < ids.n; i++) {
        uint32_t at = 0;
        while (at < plan->n_ids && kept[at].comm != ids.at[i].comm)
            at++;
        if (at < plan->n_ids || at == JOB_IDS_MAX ||
            ids.at[i].id.len > sizeof(kept[at].id))
            continue;
        kept[at].comm = ids.at[i].comm;
        kept[at].len = ids.at[i].id.len;
        memcpy(kept[at].id, ids.at[i].id.ptr, ids.at[i].id.len);
        plan->n_ids++;
        for (uint32_t n = 0; n < self->n_nodes; n++)
            job_node_at(self, n)->talk.retry_ms = 0; /* all are told */
    }
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
            uint64_t until_ms = plan->until_ms;
            job_plan_begin(
                ctx, self, ORR_CUT_RESUME); /* all of them: with new communicators */
            plan->until_ms = until_ms;
            for (uint32_t i = 0; i < self->n_nodes; i++)
                job_node_at(self, i)->talk.retry_ms = orr_now_ms(ctx) + RESUME_AGAIN_MS;
        }
        return;
    }
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

static bool note_parts(struct job *self,
                       struct job_node *node,
                       const struct orr_msg_cut_report *msg)
{
    bool is_ok = true;
    for (uint32_t i = 0; i < msg->parts.n && self->plan.has_tables; i++) {
        is_ok = is_ok && msg->parts.at[i].hash.len > 0;
        job_part_note(self, node, &msg->parts.at[i]);
    }
    return is_ok;
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
    bool is_stored = note_parts(self, node, msg);
    if (!is_stored && plan->is_saving) {
        char text[400];
        snprintf(text, sizeof(text), "save: %s: %.*s", node->name, ORR_STR_ARGS(msg->text));
        job_plan_save_fail(ctx, self, ORR_EIO, text);
    }
    if (msg->step != plan->step &&
        !(msg->step == ORR_CUT_BEGIN && plan->step == ORR_CUT_TARGETS))
        return;
    if (msg->state == ORR_STEP_FAILED) {
        node_failed(ctx, self, node, msg);
        return;
    }
    if (is_before_quiesce(plan->step) &&
        job_barrier_hear(
            &plan->barrier, (uint32_t)(node - job_node_at(self, 0)), msg, &err) !=
            ORR_OK)
        job_plan_fail(ctx, self, err.code, err.text);
    if (plan->step == ORR_CUT_TARGETS && msg->round < plan->barrier.round)
        node->talk.retry_ms = 0;
    if (plan->step == ORR_CUT_RESUME && msg->round == plan->attempt)
        note_ids(self, msg->ids);
}

/* An earlier life of this actor was in the middle of something. */
void job_plan_recover(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    uint32_t n_stopped = 0, n_closed = 0, n_resumed = 0;
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
        n_resumed += step == ORR_CUT_RESUME;
        n_closed += step == ORR_CUT_BEGIN || step == ORR_CUT_TARGETS;
    }
    if (plan->is_restoring || (!self->is_suspended && !n_stopped && !n_closed))
        return;
    if (!plan->cut)
        new_cut(ctx, plan); /* nodes that have forgotten theirs */
    if (take_tables(self) != ORR_OK) {
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
    } else {
        job_plan_begin(ctx, self, n_stopped ? ORR_CUT_RESUME : ORR_CUT_OPEN);
    }
}
