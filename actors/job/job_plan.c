/* SPDX-License-Identifier: Apache-2.0
 * job_plan.c - a stop, step by step, and what is to come of it (docs/barrier.md).
 *
 *   suspend      begin targets quiesce release | held, until an order
 *   checkpoint   begin targets quiesce save resume; what was saved goes to the store while the ranks run
 *   vacate       begin targets quiesce save commit | killed: the next generation restores
 *   resize       devices, begin targets quiesce release, their places in the region's record, resume (job_resize.c)
 *                where ranks change node: quiesce save join release; those alone are saved, and restored there (job_partial.c)
 *   run          (held) devices, their places in the region's record, resume
 *
 * As in job_steps.c nothing waits in a sequence: `step` says what every node is to have done, each is asked until it
 * says so, and when all have, the goal says what follows.  So an order that comes in the middle only changes the goal.
 * FAILURES    before the release everything is undone: `open` before quiesce, `resume` after it; order_failed says why,
 * and the ranks run on.  A resume is tried until its time is over, then the generation is lost; one whose attempts did not
 * fail but took that long gets more (a slow machine must not cost the steps since the last checkpoint).  What becomes of dead
 * ranks and lost nodes is judged first (job_ranks.c).  A node repeats what it did: cut numbers grow, older ones change
 * nothing.
 */
#include "job_cost.h"
#include "job_partial.h"
#include "job_resize.h"
#include "job_state.h"

enum {
    BEGIN_MS = 10000,
    TARGETS_MS = 60000,
    QUIESCE_MS = 120000,
    SAVE_MS = 60000,
    SAVE_BYTES_PER_MS = 50000, /* the slowest store that is waited for */
    RELEASE_MS = 30000,
    RESUME_MS = 60000,
    RESUME_BYTES_PER_MS = 500000,
    RESUME_EXTENDED_MAX = 2, /* twice as long each time */
    LOAD_MS = 600000, /* a program begins anew, and comes to where it loads its state */
};

/* ---- steps ---- */

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

static bool is_loading(const struct job *self)
{
    return self->plan.is_restoring && self->restored_level == ORR_LEVEL_COOPERATIVE;
}

/* How long a step may take; 0: as long as it needs. */
static uint64_t step_ms(const struct job *self, enum orr_cut_step step)
{
    switch (step) {
    case ORR_CUT_BEGIN:
        return BEGIN_MS;
    case ORR_CUT_TARGETS: /* a rank that is silent for longer counts as hung */
        return self->args.hang_ms && self->args.hang_ms < TARGETS_MS
                   ? self->args.hang_ms
                   : TARGETS_MS;
    case ORR_CUT_QUIESCE:
        return QUIESCE_MS;
    case ORR_CUT_SAVE:
        return save_ms(self);
    case ORR_CUT_JOIN:
        return RESUME_MS + save_ms(self);
    case ORR_CUT_RELEASE:
        return RELEASE_MS;
    case ORR_CUT_RESUME:
        return (is_loading(self) ? LOAD_MS : RESUME_MS) +
               device_bytes(self) / RESUME_BYTES_PER_MS;
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
    job_stopwatch_begin(ctx, plan);
    plan->since_ms = orr_now_ms(ctx);
    plan->until_ms = ms ? plan->since_ms + ms + JOB_MARGIN_MS : 0;
    if (step == ORR_CUT_RESUME) {
        plan->attempt++;
        plan->n_ids = 0;
        plan->n_extended = 0;
    }
    for (uint32_t i = 0; i < self->n_nodes; i++) {
        job_node_at(self, i)->talk.retry_ms = 0;
        job_node_at(self, i)->ids_attempt = 0;
        job_node_at(self, i)->cut_step = ORR_CUT_NONE; /* a cut may be saved twice */
    }
}

/* Numbers of a new life are above those of an earlier one on this host, and above what nodes know. */
void job_plan_new_cut(struct orr_ctx *ctx, struct job_plan *plan)
{
    uint64_t least = orr_now_ms(ctx) << 12;
    plan->cut = (plan->cut > least ? plan->cut : least) + 1;
    plan->attempt = 0;
    plan->stopped_ms = orr_now_ms(ctx);
    plan->n_steps = 0;
    plan->step_us = 0;
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
    if (plan->step == ORR_CUT_JOIN)
        return job_partial_has_come(self, node);
    bool is_asked = node->n_ranks || (plan->step == ORR_CUT_RELEASE && node->n_next);
    if (!is_asked)
        return true;
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

static void
tell_failure(struct job *self, uint64_t number, enum orr_err code, const char *text)
{
    struct job_plan *plan = &self->plan;
    if (number) {
        plan->is_failure_due = true;
        plan->failed_number = number;
        plan->failed_code = code;
        snprintf(plan->failed, sizeof(plan->failed), "%s", text);
        return;
    }
    snprintf(
        self->reason, sizeof(self->reason), "periodic checkpoint failed: %.150s", text);
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
    plan->cost.devices = 0; /* what it takes now says nothing of the next one */
    if (plan->step == ORR_CUT_NONE)
        job_resize_over(self);
    if (plan->remap == JOB_REMAP_TAKEN) /* there is no way back, and none is needed */
        return;
    job_partial_undo(self);
    if (job_is_before_quiesce(plan->step))
        job_plan_begin(ctx, self, ORR_CUT_OPEN);
    else if (plan->is_freed) /* it was suspended, and stays so */
        plan->is_held = true;
    else if (plan->step == ORR_CUT_JOIN ||
             (plan->step >= ORR_CUT_QUIESCE && plan->step <= ORR_CUT_RELEASE))
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
    if (job_plan_leave_save(ctx, self))
        return;
    uint32_t peer = (uint32_t)(first_not_done(self) - job_node_at(self, 0));
    if (job_is_before_quiesce(plan->step))
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

/* No attempt has failed: the newest took the time, or most of it. */
static bool give_more_time(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    uint64_t now = orr_now_ms(ctx), ms = step_ms(self, ORR_CUT_RESUME);
    bool is_over = now + 2 * (uint64_t)JOB_MARGIN_MS >= plan->until_ms;
    bool is_slow = now - plan->since_ms >= ms / 2;
    if (!is_over || !is_slow || plan->n_extended == RESUME_EXTENDED_MAX)
        return false;
    plan->n_extended++;
    plan->until_ms = now + (ms << plan->n_extended) + JOB_MARGIN_MS;
    return true;
}

static void try_again(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    uint64_t until_ms = plan->until_ms;
    uint32_t n_extended = plan->n_extended;
    job_plan_begin(ctx, self, ORR_CUT_RESUME);
    plan->until_ms = until_ms;
    plan->n_extended = n_extended;
}

void job_plan_resume_again(struct orr_ctx *ctx, struct job *self)
{
    (void)give_more_time(ctx, self);
    try_again(ctx, self);
}

/* The checkpoint, if it is of one, may be whole all the same: the region tries it a few times. */
static void resume_failed(struct orr_ctx *ctx, struct job *self)
{
    char reason[sizeof(self->reason)];
    snprintf(reason,
             sizeof(reason),
             "could not be resumed: %s: %.100s",
             first_not_done(self)->name,
             self->plan.trouble[0] ? self->plan.trouble : "no answer");
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
        else if (give_more_time(ctx, self))
            try_again(ctx, self);
        else
            resume_failed(ctx, self);
    }
    if (plan->is_saving && now >= plan->save_until_ms)
        job_plan_save_fail(
            ctx,
            self,
            ORR_ETIMEOUT,
            "save: the store has not finished in time; see `orrery doctor` "
            "on its nodes");
}

/* ---- what follows ---- */

void job_plan_go_on(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    bool is_save = plan->goal == ORR_ORDER_CHECKPOINT || job_plan_is_leaving(plan) ||
                   job_plan_is_partial(plan);
    bool is_release = plan->goal == ORR_ORDER_SUSPEND ||
                      (plan->goal == ORR_ORDER_RESIZE && plan->remap == JOB_REMAP_HELD);
    if (is_save) {
        memset(plan->parts.at, 0, self->args.world * sizeof(struct job_part));
        plan->part_text_used = 0;
        plan->is_committed = plan->is_commit_due = false;
        plan->commit_number = plan->number;
        plan->commit_checkpoint = plan->checkpoint;
    }
    plan->is_held = false;
    job_plan_begin(ctx,
                   self,
                   is_save      ? ORR_CUT_SAVE
                   : is_release ? ORR_CUT_RELEASE
                                : ORR_CUT_RESUME);
}

bool job_plan_leave_save(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    if (plan->step != ORR_CUT_SAVE || plan->goal == ORR_ORDER_CHECKPOINT ||
        job_plan_is_leaving(plan) || job_plan_is_partial(plan))
        return false;
    if (plan->is_freed) { /* its devices may be others' by now: to ask for first */
        job_stopwatch_end(ctx, plan);
        plan->is_held = true;
    } else {
        job_plan_go_on(ctx, self);
    }
    return true;
}

static void saved(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    if (job_plan_leave_save(ctx, self))
        return;
    if (job_plan_is_partial(plan)) {
        job_partial_saved(ctx, self);
        return;
    }
    bool is_stored = job_parts_are_stored(self);
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
    if (job_plan_is_leaving(plan)) {
        job_decide(
            ctx, self, ORR_OUTCOME_MOVED, ORR_LIT("goes on from its checkpoint"));
        return;
    }
    job_stopwatch_end(ctx, plan);
    plan->is_held = true; /* a checkpoint of a suspended job */
    forget_goal(plan);
}

static void resumed(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    plan->step = ORR_CUT_NONE;
    job_stopwatch_end(ctx, plan);
    self->is_update_due = true; /* with what it took */
    plan->paused_ms = orr_now_ms(ctx) - plan->stopped_ms;
    job_cost_note(self);
    self->runs_from_ms = orr_now_ms(ctx);
    plan->is_freed = plan->is_given = plan->is_placed = plan->is_held = false;
    plan->is_restoring = false;
    bool is_resized = plan->goal == ORR_ORDER_RESIZE && plan->remap == JOB_REMAP_TAKEN;
    if (plan->goal == ORR_ORDER_RUN || is_resized)
        forget_goal(plan);
    job_resize_over(self);
}

/* Released, and perhaps offered to others: a step back needs devices first. */
static void held(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    if (!plan->is_freed && plan->remap == JOB_REMAP_TAKEN && plan->is_placed &&
        plan->goal != ORR_ORDER_SUSPEND)
        job_plan_go_on(ctx, self);
    if (!plan->is_freed)
        return;
    if (plan->goal == ORR_ORDER_SUSPEND)
        forget_goal(plan);
    if (plan->goal == ORR_ORDER_CHECKPOINT || plan->goal == ORR_ORDER_VACATE)
        job_plan_go_on(ctx, self);
    else if (plan->goal == ORR_ORDER_RUN && plan->is_given && plan->is_placed)
        job_plan_go_on(ctx, self);
}

static void advance(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    switch (plan->step) {
    case ORR_CUT_BEGIN:
        job_plan_begin(ctx, self, ORR_CUT_TARGETS);
        break;
    case ORR_CUT_TARGETS:
        if (job_resize_at_cut(ctx, self))
            job_plan_begin(ctx, self, ORR_CUT_QUIESCE);
        break;
    case ORR_CUT_QUIESCE:
        job_plan_go_on(ctx, self);
        break;
    case ORR_CUT_SAVE:
        saved(ctx, self);
        break;
    case ORR_CUT_JOIN:
        job_plan_begin(ctx, self, ORR_CUT_RELEASE);
        break;
    case ORR_CUT_RELEASE:
        job_stopwatch_end(ctx, plan);
        plan->is_held = true;
        if (plan->goal == ORR_ORDER_RESIZE)
            job_resize_take(self);
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
    if (plan->goal == ORR_ORDER_RESIZE && !job_resize_is_ready(ctx, self))
        return;
    if (job_plan_tables(self) != ORR_OK) {
        job_plan_fail(ctx,
                      self,
                      ORR_ENOMEM,
                      "the cluster's host has no memory for the barrier's tables");
        return;
    }
    job_plan_new_cut(ctx, plan);
    plan->cost.devices = job_device_count(self);
    job_barrier_reset(&plan->barrier);
    job_plan_leave_out(self);
    job_plan_begin(ctx, self, ORR_CUT_BEGIN);
}

/* Again after a recovery: some may have gone on, and ended, before that. */
static void start_restore(struct orr_ctx *ctx, struct job *self)
{
    if (job_plan_tables(self) != ORR_OK) {
        job_decide(ctx,
                   self,
                   ORR_OUTCOME_LOST,
                   ORR_LIT("the cluster's host has no memory to restore it"));
        return;
    }
    job_plan_new_cut(ctx, &self->plan);
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
    bool is_idle = !self->is_stopping && plan->step == ORR_CUT_NONE;
    bool can_stop = is_whole(self) && !plan->is_saving && !plan->is_commit_due;
    if (is_idle && plan->is_restoring) {
        if (self->n_state[ORR_RANK_STARTING] == 0)
            start_restore(ctx, self);
    } else if (is_idle && plan->goal != ORR_ORDER_NONE && can_stop) {
        start_cut(ctx, self);
    }
    job_partial_watch(ctx, self);
    if (job_is_before_quiesce(plan->step) && !is_whole(self))
        job_plan_fail(ctx,
                      self,
                      ORR_ESTATE,
                      "a rank has ended already; it can only run to its end");
    bool wants_to_run = plan->goal == ORR_ORDER_RUN || plan->goal == ORR_ORDER_NONE;
    if (job_is_before_quiesce(plan->step) && wants_to_run) /* another order came */
        job_plan_begin(ctx, self, ORR_CUT_OPEN);
    if (job_is_before_quiesce(plan->step))
        job_plan_aim(ctx, self);
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

uint64_t job_plan_due_ms(const struct job *self, uint64_t now)
{
    const struct job_plan *plan = &self->plan;
    uint64_t due = UINT64_MAX;
    if (self->is_stopping)
        return due;
    if (plan->step != ORR_CUT_NONE && !plan->is_held && plan->until_ms)
        due = plan->until_ms;
    if (plan->is_saving && plan->save_until_ms < due)
        due = plan->save_until_ms;
    if (plan->step == ORR_CUT_NONE && plan->want_until_ms > now &&
        plan->want_until_ms < due)
        due = plan->want_until_ms;
    if (plan->step == ORR_CUT_NONE && plan->clear_until_ms > now &&
        plan->clear_until_ms < due)
        due = plan->clear_until_ms;
    return due;
}

uint32_t job_plan_phase(const struct job *self)
{
    const struct job_plan *plan = &self->plan;
    if (plan->is_restoring || (plan->is_held && plan->is_given) ||
        (plan->step == ORR_CUT_RESUME &&
         (plan->is_freed || plan->remap == JOB_REMAP_TAKEN)))
        return ORR_JOB_RESTORING;
    if (plan->is_freed && plan->goal != ORR_ORDER_VACATE)
        return ORR_JOB_SUSPENDED;
    /* A run that is still to come is no run yet: the region would take the order for done. */
    bool is_to_stop = plan->goal == ORR_ORDER_SUSPEND ||
                      plan->goal == ORR_ORDER_VACATE || plan->goal == ORR_ORDER_RUN ||
                      plan->goal == ORR_ORDER_RESIZE;
    return plan->step != ORR_CUT_NONE && (is_to_stop || plan->is_held)
               ? ORR_JOB_STOPPING
               : ORR_JOB_RUNNING;
}
