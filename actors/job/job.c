/* SPDX-License-Identifier: Apache-2.0
 * job.c - the job actor: what it accepts.  Each handler records what it heard and lets
 * job_step find what follows.
 */
#include "job_partial.h"
#include "job_resize.h"
#include "job_shards.h"
#include "job_state.h"

enum { AFTER_STOP_MS = 1000 };

ORR_HANDLER(job, job_start)
ORR_HANDLER(job, job_stop)
ORR_HANDLER(job, node_changed)
ORR_HANDLER(job, region_moved)
ORR_HANDLER(job, job_order)
ORR_HANDLER(job, cut_report)
ORR_HANDLER(job, devices_given)
ORR_HANDLER(job, rank_idle)
ORR_HANDLER(job, job_posts)
ORR_HANDLER(job, rank_update)
ORR_HANDLER(job, rank_launched)
ORR_HANDLER(job, ranks)
ORR_HANDLER(job, ack)
ORR_HANDLER(job, failed)
ORR_HANDLER(job, timer)

static void job_fini(void *state)
{
    struct job *self = state;
    job_plan_fini(self);
    job_hang_fini(self);
    job_posts_fini(self);
    job_resize_fini(self);
    job_shards_fini(self);
    orr_block_fini(&self->manifest);
    orr_block_fini(&self->restored);
    orr_block_fini(&self->spec);
    orr_block_fini(&self->nodes);
    orr_block_fini(&self->ranks);
    orr_block_fini(&self->places);
}

static enum orr_err job_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct job *self = state;
    self->args = *(const struct orr_job_args *)args;
    self->phase = ORR_JOB_PLACING;
    self->culprit.rank = -1;
    enum orr_err err = orr_block_init(&self->spec, self->args.spec_bytes);
    if (err == ORR_OK)
        err =
            orr_block_init(&self->nodes, self->args.n_nodes * sizeof(struct job_node));
    if (err == ORR_OK)
        err = orr_block_init(&self->ranks, self->args.world * sizeof(struct job_rank));
    if (err == ORR_OK)
        err = orr_block_init(&self->places,
                             self->args.world * sizeof(struct orr_rec_rank_place));
    if (err != ORR_OK) {
        job_fini(self);
        return err;
    }
    char path[2 * ORR_NAME_MAX + 3];
    self->region = self->args.leader;
    snprintf(path, sizeof(path), "/%s/%s", self->args.region, self->args.cluster);
    self->cluster =
        (struct orr_addr){.host = ctx->self.host, .slot = orr_hash(orr_str(path))};
    return ORR_OK;
}

static unsigned job_state_of(const void *state)
{
    return ((const struct job *)state)->phase;
}

static const char *job_state_name(unsigned state)
{
    return orr_job_phase_name(state);
}

/* From the permit on, or from the recovery: an earlier life's time is not known here.
 */
static void arm_limit(struct orr_ctx *ctx, const struct job *self)
{
    uint64_t limit = self->args.limit_ms;
    uint64_t deadline = self->args.deadline_unix_ms;
    if (deadline) {
        uint64_t left = deadline > ctx->wall_ms ? deadline - ctx->wall_ms : 1;
        limit = limit && limit < left ? limit : left;
    }
    if (limit)
        orr_timer_set(ctx, JOB_T_LIMIT, limit, 0);
}

static enum orr_err job_on_job_start(struct orr_ctx *ctx,
                                     struct job *self,
                                     const struct orr_msg_job_start *msg)
{
    if (self->n_nodes)
        return ORR_OK;
    if (job_ranks_start(self, msg) != ORR_OK) {
        orr_log(ctx, ORR_LOG_ERROR, "bug: the placement does not fit the arguments");
        return ORR_ECRASH;
    }
    if (job_plan_start(self, msg) != ORR_OK) {
        self->is_restore_failed = true;
        job_decide(ctx,
                   self,
                   ORR_OUTCOME_LOST,
                   ORR_LIT("its checkpoint's manifest cannot be read"));
    }
    if (!msg->is_recovery)
        job_resize_first(ctx, self);
    self->is_suspended = msg->is_suspended;
    char unique[ORR_JOB_ID_MAX + 80];
    snprintf(unique,
             sizeof(unique),
             "%s/%llu/%llu/%llu",
             self->args.job,
             (unsigned long long)self->args.generation,
             (unsigned long long)ctx->wall_ms,
             (unsigned long long)orr_now_ms(ctx));
    self->overlay = orr_hash(orr_str(unique)) | 1; /* who recovers launches nothing */
    self->is_overlay_known = !msg->is_recovery;
    job_periodic_arm(ctx, self);
    self->is_recovery = msg->is_recovery;
    self->has_permit = msg->is_recovery; /* given to an earlier life */
    if (self->has_permit)
        arm_limit(ctx, self);
    return job_step(ctx, self);
}

static enum orr_err job_on_job_stop(struct orr_ctx *ctx,
                                    struct job *self,
                                    const struct orr_msg_job_stop *msg)
{
    job_decide(ctx, self, ORR_OUTCOME_CANCELLED, msg->why);
    return job_step(ctx, self);
}

static enum orr_err job_on_node_changed(struct orr_ctx *ctx,
                                        struct job *self,
                                        const struct orr_msg_node_changed *msg)
{
    job_partial_found(ctx, self, msg);
    for (uint32_t i = 0; i < self->n_nodes; i++) {
        struct job_node *node = job_node_at(self, i);
        if (!orr_str_eq(orr_str(node->name), msg->node) || node->state == ORR_NODE_LOST)
            continue;
        if (!orr_addr_eq(node->addr,
                         msg->addr)) /* what an earlier life was about to kill */
            node->is_stop_acked = false;
        node->state = msg->state;
        node->addr = msg->addr;
        if (msg->state != ORR_NODE_UP)
            continue;
        node->wants_get = true; /* it may have lost ranks while away */
        self->reported = 0;
        node->talk.retry_ms = 0;
    }
    return job_step(ctx, self);
}

/* What was asked of the old leader is asked again of the new one: either has it, or the
 * answer was lost on the way; the region takes it once. */
static enum orr_err job_on_region_moved(struct orr_ctx *ctx,
                                        struct job *self,
                                        const struct orr_msg_region_moved *msg)
{
    self->region = msg->region;
    self->is_update_due = self->is_update_due || self->talk.asked == JOB_ASK_UPDATE;
    self->talk = (struct job_talk){.asked = JOB_ASK_NONE};
    return self->n_nodes ? job_step(ctx, self) : ORR_OK;
}

static enum orr_err job_on_rank_update(struct orr_ctx *ctx,
                                       struct job *self,
                                       const struct orr_msg_rank_update *msg)
{
    if (msg->rank.generation != self->args.generation)
        return orr_refuse(ctx,
                          ORR_ESTALE,
                          "job %s is at generation %llu",
                          self->args.job,
                          (unsigned long long)self->args.generation);
    if (msg->rank.rank >= self->args.world)
        return orr_refuse(
            ctx, ORR_EINVAL, "job %s has no rank %u", self->args.job, msg->rank.rank);
    if (!job_partial_heard(ctx, self, msg)) {
        job_rank_apply(self, msg->rank.rank, &msg->rank);
        job_level_note(self, msg->rank.rank, msg->rank.level, msg->rank.why_level);
    }
    return job_step(ctx, self);
}

static enum orr_err job_on_job_order(struct orr_ctx *ctx,
                                     struct job *self,
                                     const struct orr_msg_job_order *msg)
{
    return job_order_take(ctx, self, msg);
}

/* An answer, or word of a change. */
static enum orr_err job_on_cut_report(struct orr_ctx *ctx,
                                      struct job *self,
                                      const struct orr_msg_cut_report *msg)
{
    enum job_ask ask;
    struct job_node *node = job_answered(self, ctx->tag, &ask);
    if (ctx->tag && !node)
        return ORR_OK;
    for (uint32_t i = 0; !node && i < self->n_nodes; i++)
        if (orr_str_eq(orr_str(job_node_at(self, i)->name), msg->node))
            node = job_node_at(self, i);
    if (!node || msg->generation != self->args.generation)
        return ORR_OK;
    node->talk.backoff_ms = 0;
    job_plan_heard(ctx, self, node, msg);
    return job_step(ctx, self);
}

static enum orr_err job_on_job_posts(struct orr_ctx *ctx,
                                     struct job *self,
                                     const struct orr_msg_job_posts *msg)
{
    job_posts_heard(ctx, self, msg);
    return ORR_OK;
}

static enum orr_err job_on_rank_idle(struct orr_ctx *ctx,
                                     struct job *self,
                                     const struct orr_msg_rank_idle *msg)
{
    job_hang_heard(ctx, self, msg);
    return job_step(ctx, self);
}

static enum orr_err job_on_devices_given(struct orr_ctx *ctx,
                                         struct job *self,
                                         const struct orr_msg_devices_given *msg)
{
    return job_devices_given(ctx, self, msg);
}

static enum orr_err job_on_rank_launched(struct orr_ctx *ctx,
                                         struct job *self,
                                         const struct orr_msg_rank_launched *msg)
{
    enum job_ask ask;
    struct job_node *node = job_answered(self, ctx->tag, &ask);
    if (!node)
        return ORR_OK;
    if (ask == JOB_ASK_JOIN)
        node->join = JOB_LAUNCH_DONE;
    node->launch = JOB_LAUNCH_DONE;
    job_level_note_node(self, node, msg->level, msg->why_level);
    node->talk.backoff_ms = 0;
    if (msg->master_addr.len > 0) {
        orr_str_copy(self->master_addr, sizeof(self->master_addr), msg->master_addr);
        self->master_port = msg->master_port;
    } else if (!self->master_addr[0] && self->n_nodes > 1) {
        job_decide(ctx,
                   self,
                   ORR_OUTCOME_LOST,
                   ORR_LIT("the node of rank 0 restarted during the launch"));
    }
    return job_step(ctx, self);
}

static enum orr_err
job_on_ranks(struct orr_ctx *ctx, struct job *self, const struct orr_msg_ranks *msg)
{
    enum job_ask ask;
    struct job_node *node = job_answered(self, ctx->tag, &ask);
    if (!node)
        return ORR_OK;
    node->talk.backoff_ms = 0;
    node->found_cut = msg->cut;
    node->found_step = msg->step;
    for (uint32_t i = 0; i < msg->ranks.n; i++)
        job_level_note(self,
                       msg->ranks.at[i].rank,
                       msg->ranks.at[i].level,
                       msg->ranks.at[i].why_level);
    job_ranks_heard(self, node, msg);
    return job_step(ctx, self);
}

/* These refusals will not pass. */
static bool is_definite(uint32_t code)
{
    return code == ORR_EINVAL || code == ORR_ENODEV || code == ORR_ENOSPC ||
           code == ORR_ESTALE || code == ORR_EPROTO || code == ORR_EIO ||
           code == ORR_EPERM || code == ORR_ENOENT || code == ORR_ENOSYS;
}

/* The region's answer to checkpoint_commit or order_failed. */
static void
order_answered(struct orr_ctx *ctx, struct job *self, enum job_ask ask, uint32_t code)
{
    struct job_plan *plan = &self->plan;
    if (code != ORR_OK && !is_definite(code)) {
        job_back_off(ctx, &self->talk);
        return;
    }
    self->talk.backoff_ms = 0;
    if (ask == JOB_ASK_REFUSE) {
        if (plan->told_number == plan->failed_number) /* not that of a later order */
            plan->is_failure_due = false;
        return;
    }
    plan->is_commit_due = false;
    plan->is_committed = code == ORR_OK;
    if (code == ORR_OK)
        return;
    const char *text = "save: the region has refused the checkpoint";
    if (plan->step == ORR_CUT_SAVE)
        job_plan_fail(ctx, self, code, text);
    else
        job_plan_save_fail(ctx, self, code, text);
}

/* The region's answer to job_update or job_ended; code ORR_OK: acknowledged. */
static void
region_answered(struct orr_ctx *ctx, struct job *self, enum job_ask ask, uint32_t code)
{
    bool is_fenced = code == ORR_ESTALE || code == ORR_ENOENT;
    if (ask == JOB_ASK_COMMIT || ask == JOB_ASK_REFUSE) {
        order_answered(ctx, self, ask, code);
        return;
    }
    if (code != ORR_OK && !is_fenced) {
        job_back_off(ctx, &self->talk);
        self->is_update_due = self->is_update_due || ask == JOB_ASK_UPDATE;
        return;
    }
    self->talk.backoff_ms = 0;
    if (ask == JOB_ASK_ENDED) {
        self->is_reported = true;
    } else if (is_fenced) { /* the job is not ours any more: leave nothing behind */
        self->is_disowned = true;
        job_decide(ctx,
                   self,
                   ORR_OUTCOME_CANCELLED,
                   ORR_LIT("the region gave it to somebody else"));
    } else if (!self->has_permit) {
        self->has_permit = true;
        arm_limit(ctx, self);
    } else if (self->plan.is_placing) {
        self->plan.is_placed = true;
        self->plan.is_unrecorded = false;
    }
}

static void outer_answered(struct orr_ctx *ctx,
                           struct job *self,
                           enum job_ask ask,
                           uint32_t code,
                           struct orr_str text)
{
    struct job_plan *plan = &self->plan;
    bool is_clusters =
        ask == JOB_ASK_FREED || ask == JOB_ASK_WANT || ask == JOB_ASK_KEEP;
    if (!is_clusters) {
        region_answered(ctx, self, ask, code);
    } else if (ask == JOB_ASK_FREED && code == ORR_OK) {
        self->cluster_talk.backoff_ms = 0;
        plan->is_freed = true;
        plan->is_given = plan->is_placed = plan->is_keep_due = false;
        plan->remap = JOB_REMAP_NONE;
    } else if (ask == JOB_ASK_KEEP && code == ORR_OK) {
        self->cluster_talk.backoff_ms = 0;
        plan->is_keep_due = false;
    } else if (ask == JOB_ASK_WANT && !plan->is_held) {
        job_resize_refused(ctx, self, code, text);
    } else if (ask == JOB_ASK_WANT && (code == ORR_ENODEV || code == ORR_EINVAL)) {
        job_plan_fail(ctx,
                      self,
                      ORR_ENODEV,
                      "resume: no free devices on its nodes; it is asked again when "
                      "there are, or stop what holds them");
    } else {
        job_back_off(ctx, &self->cluster_talk);
    }
}

static enum orr_err
job_on_ack(struct orr_ctx *ctx, struct job *self, const struct orr_msg_ack *msg)
{
    (void)msg;
    enum job_ask ask;
    struct job_node *node = job_answered(self, ctx->tag, &ask);
    if (ask == JOB_ASK_NONE)
        return ORR_OK;
    if (!node) {
        outer_answered(ctx, self, ask, ORR_OK, ORR_LIT(""));
        return job_step(ctx, self);
    }
    node->talk.backoff_ms = 0;
    if (ask == JOB_ASK_FORGET)
        job_partial_cleared(self, node);
    if (ask == JOB_ASK_STOP) {
        node->is_stop_acked =
            true; /* ranks need a moment to end; one that never started does not */
        node->talk.retry_ms =
            orr_now_ms(ctx) + (node->launch == JOB_LAUNCH_DONE ? AFTER_STOP_MS : 0);
    }
    return job_step(ctx, self);
}

static enum orr_err
job_on_failed(struct orr_ctx *ctx, struct job *self, const struct orr_msg_failed *msg)
{
    enum job_ask ask;
    struct job_node *node = job_answered(self, ctx->tag, &ask);
    if (ask == JOB_ASK_NONE)
        return ORR_OK;
    if (!node) {
        outer_answered(ctx, self, ask, msg->code, msg->text);
        return job_step(ctx, self);
    }
    job_back_off(ctx, &node->talk);
    if (ask == JOB_ASK_LAUNCH && is_definite(msg->code)) {
        char reason[sizeof(self->reason)];
        snprintf(reason,
                 sizeof(reason),
                 "%s refused the launch: %.*s",
                 node->name,
                 ORR_STR_ARGS(msg->text));
        self->is_restore_failed = msg->code == ORR_ENOENT && self->plan.is_restoring;
        job_decide(ctx, self, ORR_OUTCOME_LOST, orr_str(reason));
    }
    if (ask == JOB_ASK_JOIN && is_definite(msg->code))
        job_partial_refused(ctx, self, node, msg->text);
    return job_step(ctx, self);
}

static enum orr_err
job_on_timer(struct orr_ctx *ctx, struct job *self, const struct orr_msg_timer *msg)
{
    if (msg->id == JOB_T_LIMIT && !self->is_stopping) {
        job_decide(ctx,
                   self,
                   ORR_OUTCOME_FAILED,
                   ORR_LIT("time limit reached; raise time.limit or time.deadline"));
        self->culprit.rank = -1;
    }
    if (msg->id == JOB_T_PERIODIC)
        job_periodic_due(ctx, self);
    if (msg->id == JOB_T_HANG)
        job_hang_due(ctx, self);
    return job_step(ctx, self);
}

#define STARTED (ORR_ANY_STATE & ~ORR_IN(ORR_JOB_PLACING))
static const struct orr_handler handlers[] = {
    /*     actor message      accepted in              role            on overflow */
    ORR_ON(job, job_start, ORR_IN(ORR_JOB_PLACING), ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(job, job_stop, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(job, node_changed, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(job, region_moved, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_COALESCE),
    ORR_ON(job, job_order, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(job, cut_report, STARTED, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(job, devices_given, STARTED, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(job, job_posts, STARTED, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(job, rank_idle, STARTED, ORR_ROLE_FLEET, ORR_COALESCE),
    ORR_ON(job, rank_update, STARTED, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(job, rank_launched, STARTED, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(job, ranks, STARTED, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(job, ack, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(job, failed, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(job, timer, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};

const struct orr_actor_type orr_job_type = {
    .name = "job",
    .state_size = sizeof(struct job),
    .args_size = sizeof(struct orr_job_args),
    .init = job_init,
    .fini = job_fini,
    .state_of = job_state_of,
    .state_name = job_state_name,
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
};
