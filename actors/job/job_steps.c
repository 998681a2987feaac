/* SPDX-License-Identifier: Apache-2.0
 * job_steps.c - the next step of the plan, towards each node and the region.
 *
 * Nothing here remembers where in a sequence the job is.  After every message the state
 * says what each peer still has to do (next_of); it is asked, one ask at a time per
 * peer, and repeated until it answers.  So a lost, repeated or late message and a
 * peer's restart need no cases of their own.
 *
 *   permit   job_update(launching, placement) to the region, until acknowledged
 *   launch   rank_launch to the node of rank 0, which names the meeting point; then to
 * all others at once watch    rank_update comes in; ranks_get where something is in
 * doubt stop     rank_stop (which also fences launches that are still on their way),
 * ranks_get until nothing lives end      job_released to the cluster, job_ended to the
 * region, ranks_forget to the nodes, stop
 */
#include "job_cost.h"
#include "job_partial.h"
#include "job_resize.h"
#include "job_state.h"

enum {
    ASK_MS = 2000,
    LAUNCH_MS = 8000,
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 2000,
    POLL_MS = 2000,
    GRACE_MS = 10000,
};

static uint64_t tag_of(uint32_t seq, uint32_t index)
{
    return (uint64_t)seq << 32 | index;
}

static struct job_talk *talk_of(struct job *self, uint32_t index)
{
    if (index == JOB_TALK_REGION)
        return &self->talk;
    if (index == JOB_TALK_CLUSTER)
        return &self->cluster_talk;
    return index < self->n_nodes ? &job_node_at(self, index)->talk : NULL;
}

struct job_node *job_answered(struct job *self, uint64_t tag, enum job_ask *ret_ask)
{
    uint32_t index = (uint32_t)tag;
    struct job_talk *talk = talk_of(self, index);
    *ret_ask = JOB_ASK_NONE;
    if (!talk || talk->asked == JOB_ASK_NONE || talk->seq != (uint32_t)(tag >> 32))
        return NULL;
    *ret_ask = talk->asked;
    talk->asked = JOB_ASK_NONE;
    return index < self->n_nodes ? job_node_at(self, index) : NULL;
}

void job_back_off(struct orr_ctx *ctx, struct job_talk *talk)
{
    talk->backoff_ms = talk->backoff_ms ? talk->backoff_ms * 2 : BACKOFF_MIN_MS;
    if (talk->backoff_ms > BACKOFF_MAX_MS)
        talk->backoff_ms = BACKOFF_MAX_MS;
    talk->retry_ms =
        orr_now_ms(ctx) + talk->backoff_ms / 2 + orr_random(ctx) % talk->backoff_ms;
}

static enum job_ask next_of(const struct job *self, const struct job_node *node)
{
    if (node->state == ORR_NODE_LOST || orr_addr_is_none(node->addr))
        return JOB_ASK_NONE;
    if (self->is_reported)
        return node->launch != JOB_LAUNCH_NONE && !node->is_forgotten ? JOB_ASK_FORGET
                                                                      : JOB_ASK_NONE;
    if (self->is_ended || !self->has_permit)
        return JOB_ASK_NONE;
    bool has_left = !node->n_next && !self->plan.is_unrecorded;
    if (job_node_is_guest(node) && (self->is_stopping || has_left))
        return node->is_stop_acked ? JOB_ASK_FORGET : JOB_ASK_STOP;
    if (self->is_stopping) {
        if (job_node_is_gone(node))
            return JOB_ASK_NONE;
        return node->is_stop_acked ? JOB_ASK_GET : JOB_ASK_STOP;
    }
    if (node->wants_get && node->n_open > 0 && node->launch != JOB_LAUNCH_NONE)
        return JOB_ASK_GET;
    if (self->plan.step == ORR_CUT_JOIN && node->n_next && !self->is_checking)
        return node->join == JOB_LAUNCH_DONE ? JOB_ASK_NONE : JOB_ASK_JOIN;
    if (node->launch == JOB_LAUNCH_DONE && !self->is_checking &&
        job_plan_wants(self, node))
        return JOB_ASK_CUT;
    if (node->launch == JOB_LAUNCH_DONE || self->is_checking || !node->n_ranks)
        return JOB_ASK_NONE;
    bool is_master =
        job_rank_at(self, 0)->node == (uint32_t)(node - job_node_at(self, 0));
    return is_master || self->master_addr[0] ? JOB_ASK_LAUNCH : JOB_ASK_NONE;
}

/* Of the checkpoint that it goes on from: those of this node's ranks. */
static struct orr_list_part restored_parts(struct job *self, uint32_t node)
{
    const struct orr_msg_manifest *manifest = self->manifest.at;
    struct orr_rec_part *list = self->restored.at;
    uint32_t n = 0;
    for (uint32_t i = 0; manifest && i < manifest->parts.n; i++)
        if (job_rank_at(self, i)->node == node) {
            list[n] = manifest->parts.at[i];
            list[n++].rank = i;
        }
    return (struct orr_list_part){list, n};
}

struct orr_list_text job_machines(const struct job *self,
                                  uint32_t but,
                                  struct orr_rec_text machines[JOB_MACHINES_MAX])
{
    struct orr_str own = orr_str(job_node_at(self, but)->machine);
    uint32_t n = 0;
    for (uint32_t i = 0; i < self->n_nodes && n < JOB_MACHINES_MAX; i++) {
        struct orr_str machine = orr_str(job_node_at(self, i)->machine);
        bool is_known = !machine.len || orr_str_eq(machine, own);
        for (uint32_t k = 0; k < n && !is_known; k++)
            is_known = orr_str_eq(machines[k].value, machine);
        if (!is_known)
            machines[n++].value = machine;
    }
    return (struct orr_list_text){machines, n};
}

static void
ask_launch(struct orr_ctx *ctx, struct job *self, struct job_node *node, uint64_t tag)
{
    uint32_t index = (uint32_t)(node - job_node_at(self, 0));
    bool is_master = job_rank_at(self, 0)->node == index;
    struct orr_list_part parts = restored_parts(self, index);
    struct orr_rec_text machines[JOB_MACHINES_MAX];
    bool is_image = parts.n && self->restored_level != ORR_LEVEL_COOPERATIVE;
    node->launch = JOB_LAUNCH_SENT;
    orr_ask(ctx,
            node->addr,
            LAUNCH_MS,
            tag,
            rank_launch,
            .job = orr_str(self->args.job),
            .generation = self->args.generation,
            .spec = {self->spec.at, self->spec_len},
            .master_addr = orr_str(is_master && !is_image ? "" : self->master_addr),
            .master_port = self->master_port,
            .ranks = job_places(self, index),
            .node_rank = index,
            .link = self->link,
            .overlay = self->overlay,
            .parts = parts,
            .cut = self->plan.cut,
            .machines = job_machines(self, index, machines),
            .level = self->restored_level);
}

static void
ask_node(struct orr_ctx *ctx, struct job *self, struct job_node *node, enum job_ask ask)
{
    struct orr_str job = orr_str(self->args.job);
    uint64_t generation = self->args.generation;
    node->talk.asked = ask;
    node->talk.seq = ++self->next_seq;
    uint64_t tag = tag_of(node->talk.seq, (uint32_t)(node - job_node_at(self, 0)));
    if (ask == JOB_ASK_LAUNCH)
        ask_launch(ctx, self, node, tag);
    else if (ask == JOB_ASK_JOIN)
        job_partial_ask(ctx, self, node, tag);
    else if (ask == JOB_ASK_CUT)
        job_plan_ask(ctx, self, node, tag);
    else if (ask == JOB_ASK_GET)
        orr_ask(ctx,
                node->addr,
                ASK_MS,
                tag,
                ranks_get,
                .job = job,
                .generation = generation);
    else if (ask == JOB_ASK_STOP)
        orr_ask(ctx,
                node->addr,
                ASK_MS,
                tag,
                rank_stop,
                .job = job,
                .generation = generation,
                .grace_ms = self->outcome == ORR_OUTCOME_MOVED ? 1 : GRACE_MS,
                .cut = job_partial_fence(self));
    else
        orr_ask(ctx,
                node->addr,
                ASK_MS,
                tag,
                ranks_forget,
                .job = job,
                .generation = generation,
                .cut = job_partial_fence(self));
    if (ask == JOB_ASK_GET && self->is_stopping)
        node->talk.retry_ms = orr_now_ms(ctx) + POLL_MS;
}

/* ---- the region ---- */

static void ask_update(struct orr_ctx *ctx, struct job *self, uint64_t tag)
{
    bool is_permit = !self->has_permit;
    bool is_move =
        self->plan.is_given && !self->plan.is_placed; /* permit to use devices */
    struct orr_rec_stop_step stop[JOB_STOP_STEPS_MAX];
    self->is_update_due = false;
    self->plan.is_placing = is_move;
    if (!self->step)
        self->step = orr_now_ms(ctx)
                     << 12; /* above every step of an earlier life on this host */
    orr_ask(ctx,
            self->region,
            ASK_MS,
            tag,
            job_update,
            .job = orr_str(self->args.job),
            .generation = self->args.generation,
            .phase = is_permit ? (uint32_t)ORR_JOB_LAUNCHING : self->phase,
            .step = ++self->step,
            .reason = orr_str(self->reason),
            .ranks = is_permit || is_move ? job_places(self, ORR_NONE)
                                          : (struct orr_list_rank_place){0},
            .level = self->level,
            .why_level = orr_str(self->why_level),
            .cut = self->plan.n_steps ? self->plan.cut : 0,
            .stop = job_stopwatch_list(&self->plan, stop),
            .is_hung = self->is_hung,
            .devices = is_permit || is_move ? job_device_count(self) : 0,
            .shards = self->plan.shards.n,
            .why_shards = orr_str(self->plan.shards.why),
            .resize_cost = job_cost_tell(self));
}

static void ask_ended(struct orr_ctx *ctx, struct job *self, uint64_t tag)
{
    const struct job_culprit *culprit = &self->culprit;
    bool is_failed = self->outcome == ORR_OUTCOME_FAILED && culprit->rank >= 0;
    orr_ask(ctx,
            self->region,
            ASK_MS,
            tag,
            job_ended,
            .job = orr_str(self->args.job),
            .generation = self->args.generation,
            .outcome = self->outcome,
            .exit_code = is_failed ? culprit->exit_code : 0,
            .signal = is_failed ? culprit->signal : 0,
            .culprit = is_failed ? culprit->rank : -1,
            .culprit_node =
                orr_str(is_failed ? job_node_at(self, culprit->node)->name : ""),
            .reason = orr_str(self->reason),
            .stderr_tail = orr_str(is_failed ? culprit->tail : ""),
            .is_restore_failed = self->is_restore_failed);
}

static enum job_ask next_of_region(const struct job *self)
{
    if (self->is_reported)
        return JOB_ASK_NONE;
    if (self->is_ended)
        return JOB_ASK_ENDED;
    if (!self->has_permit || self->is_update_due)
        return JOB_ASK_UPDATE;
    if (self->plan.is_failure_due)
        return JOB_ASK_REFUSE;
    if (self->plan.is_commit_due && !self->is_stopping)
        return JOB_ASK_COMMIT;
    return JOB_ASK_NONE;
}

static void
ask_region(struct orr_ctx *ctx, struct job *self, enum job_ask ask, uint64_t tag)
{
    if (ask == JOB_ASK_UPDATE)
        ask_update(ctx, self, tag);
    else if (ask == JOB_ASK_COMMIT)
        job_commit_ask(ctx, self, tag);
    else if (ask == JOB_ASK_REFUSE)
        job_refuse_ask(ctx, self, tag);
    else
        ask_ended(ctx, self, tag);
}

/* ---- all of them ---- */

static void ask_due(struct orr_ctx *ctx, struct job *self)
{
    uint64_t now = orr_now_ms(ctx);
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < self->n_nodes; i++) {
        struct job_node *node = job_node_at(self, i);
        enum job_ask ask = node->talk.asked ? JOB_ASK_NONE : next_of(self, node);
        if (ask && node->talk.retry_ms <= now)
            ask_node(ctx, self, node, ask);
        else if (ask && node->talk.retry_ms < next)
            next = node->talk.retry_ms;
    }
    enum job_ask ask = self->talk.asked ? JOB_ASK_NONE : next_of_region(self);
    if (ask && self->talk.retry_ms <= now) {
        self->talk.asked = ask;
        self->talk.seq = ++self->next_seq;
        ask_region(ctx, self, ask, tag_of(self->talk.seq, JOB_TALK_REGION));
    } else if (ask && self->talk.retry_ms < next) {
        next = self->talk.retry_ms;
    }
    struct job_talk *talk = &self->cluster_talk;
    ask = talk->asked ? JOB_ASK_NONE : job_cluster_next(self);
    if (ask && talk->retry_ms <= now) {
        talk->asked = ask;
        talk->seq = ++self->next_seq;
        job_cluster_ask(ctx, self, ask, tag_of(talk->seq, JOB_TALK_CLUSTER));
    } else if (ask && talk->retry_ms < next) {
        next = talk->retry_ms;
    }
    uint64_t due = job_plan_due_ms(self, now);
    next = due < next ? (due > now ? due : now + 1) : next;
    if (next != UINT64_MAX)
        orr_timer_set(ctx, JOB_T_RETRY, next - now, 0);
}

static void release_all(struct orr_ctx *ctx, struct job *self)
{
    for (uint32_t i = 0; i < self->n_nodes; i++)
        orr_send(ctx,
                 self->cluster,
                 job_released,
                 .job = orr_str(self->args.job),
                 .generation = self->args.generation,
                 .node = orr_str(job_node_at(self, i)->name));
    if (self->is_disowned)
        self->is_reported = true;
}

enum orr_err job_step(struct orr_ctx *ctx, struct job *self)
{
    bool was_ended = self->is_ended;
    enum orr_err err = job_judge(ctx, self);
    if (err != ORR_OK)
        return err;
    job_plan_step(ctx, self);
    err = job_judge(ctx, self); /* the plan has changed the phase, or ended the job */
    if (err != ORR_OK)
        return err;
    if (self->is_ended && !was_ended)
        release_all(ctx, self);
    ask_due(ctx, self);
    job_report(ctx, self);
    if (!self->is_reported)
        return ORR_OK;
    for (uint32_t i = 0; i < self->n_nodes; i++) {
        const struct job_node *node = job_node_at(self, i);
        if (node->launch != JOB_LAUNCH_NONE && node->state != ORR_NODE_LOST &&
            !node->is_forgotten)
            return ORR_OK;
    }
    orr_stop(ctx, ctx->self);
    return ORR_OK;
}
