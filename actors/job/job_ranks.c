/* SPDX-License-Identifier: Apache-2.0
 * job_ranks.c - what the job knows of its ranks, and the judgement over it.
 *
 * When a rank fails, its peers fail a moment later because of it; or it failed because
 * a peer's machine died.  So the first failure decides nothing: every node with
 * unfinished ranks is asked (ranks_get), and only when all have answered is the
 * earliest failure the culprit.  A node that does not answer becomes UNKNOWN (the job
 * holds) and then either answers or is LOST, which is the machine's fault and not the
 * program's.
 */
#include "job_state.h"

enum {
    SIGNAL_ABRT = 6,
    SIGNAL_TERM = 15,
    /* Deaths closer than this: a violent one is the cause, an exit its effect. */
    TIE_MS = 2000,
};

static bool is_open(uint32_t state)
{
    return state == ORR_RANK_STARTING || state == ORR_RANK_RUNNING;
}

enum orr_err job_ranks_start(struct job *self, const struct orr_msg_job_start *msg)
{
    if (msg->ranks.n != self->args.world || msg->nodes.n > self->args.n_nodes ||
        msg->spec.len > self->spec.size)
        return ORR_EINVAL;
    self->n_nodes = msg->nodes.n;
    for (uint32_t i = 0; i < msg->nodes.n; i++) {
        struct job_node *node = job_node_at(self, i);
        orr_str_copy(node->name, sizeof(node->name), msg->nodes.at[i].node);
        node->addr = msg->nodes.at[i].addr;
        node->state = msg->nodes.at[i].state;
        orr_str_copy(node->machine, sizeof(node->machine), msg->nodes.at[i].machine);
        node->launch = msg->is_recovery ? JOB_LAUNCH_DONE : JOB_LAUNCH_NONE;
        node->wants_get = msg->is_recovery;
    }
    uint32_t at = 0; /* ranks of a node stand together: start where the last one was */
    for (uint32_t i = 0; i < msg->ranks.n; i++) {
        const struct orr_rec_rank_place *place = &msg->ranks.at[i];
        uint32_t tries = 0;
        while (tries < self->n_nodes &&
               !orr_str_eq(orr_str(job_node_at(self, at)->name), place->node)) {
            at = (at + 1) % self->n_nodes;
            tries++;
        }
        if (tries == self->n_nodes || place->rank != i)
            return ORR_EINVAL;
        *job_rank_at(self, i) = (struct job_rank){.node = at,
                                                  .device = place->device,
                                                  .local_rank = place->local_rank,
                                                  .state = ORR_RANK_STARTING};
        job_node_at(self, at)->n_ranks++;
        job_node_at(self, at)->n_open++;
    }
    self->n_state[ORR_RANK_STARTING] = self->args.world;
    self->spec_len = msg->spec.len;
    if (msg->spec.len)
        memcpy(self->spec.at, msg->spec.ptr, msg->spec.len);
    return ORR_OK;
}

struct orr_list_rank_place job_places(struct job *self, uint32_t node)
{
    struct orr_rec_rank_place *places = self->places.at;
    uint32_t n = 0;
    for (uint32_t i = 0; i < self->args.world; i++) {
        const struct job_rank *rank = job_rank_at(self, i);
        if (node != ORR_NONE && rank->node != node)
            continue;
        places[n++] = (struct orr_rec_rank_place){
            .rank = i,
            .node = orr_str(job_node_at(self, rank->node)->name),
            .device = rank->device,
            .local_rank = rank->local_rank,
        };
    }
    return (struct orr_list_rank_place){places, n};
}

/* Is a failure at `when` more likely the cause than the culprit so far? */
static bool is_earlier(const struct job_culprit *sofar, uint64_t when, bool is_hard)
{
    if (sofar->rank < 0)
        return true;
    uint64_t apart = when > sofar->changed_unix_ms ? when - sofar->changed_unix_ms
                                                   : sofar->changed_unix_ms - when;
    if (apart <= TIE_MS && is_hard != sofar->is_hard)
        return is_hard;
    return when < sofar->changed_unix_ms;
}

/* What becomes of a rank because of another's end is an exit, an abort, or our own TERM. */
static bool is_violent(const struct orr_rec_rank_row *now)
{
    return now->state == ORR_RANK_FAILED ||
           (now->signal && now->signal != SIGNAL_ABRT && now->signal != SIGNAL_TERM);
}

static void tell_culprit(struct job *self)
{
    const struct job_culprit *culprit = &self->culprit;
    snprintf(self->reason,
             sizeof(self->reason),
             "rank %lld on %.63s: %.96s",
             (long long)culprit->rank,
             job_node_at(self, culprit->node)->name,
             culprit->reason);
}

/* A killed process closes its sockets before it can be reaped, so its peers may be heard of first, even after it was
 * decided to stop the job: until the end is reported a violent death still takes the blame. */
static void blame(struct job *self, uint32_t rank, const struct orr_rec_rank_row *now)
{
    bool is_hard = is_violent(now);
    struct job_culprit *culprit = &self->culprit;
    if (self->is_stopping && !(is_hard && self->outcome == ORR_OUTCOME_FAILED))
        return;
    if (!is_earlier(culprit, now->changed_unix_ms, is_hard) ||
        (self->is_stopping && culprit->rank < 0))
        return;
    culprit->rank = rank;
    culprit->changed_unix_ms = now->changed_unix_ms;
    culprit->exit_code = now->exit_code;
    culprit->signal = now->signal;
    culprit->node = job_rank_at(self, rank)->node;
    culprit->is_hard = is_hard;
    orr_str_copy(culprit->reason, sizeof(culprit->reason), now->reason);
    orr_str_copy(culprit->tail, sizeof(culprit->tail), now->stderr_tail);
    if (self->is_stopping)
        tell_culprit(self);
}

/* The same for a rank that the machine has ended: its peers' exits may have been judged before its own end was recorded.  One that
 * is only absent has no time. */
static void acquit(struct job *self, const struct orr_rec_rank_row *now)
{
    uint64_t blamed = self->culprit.changed_unix_ms;
    if (!self->is_stopping || self->is_ended || self->outcome != ORR_OUTCOME_FAILED ||
        self->culprit.is_hard || now->changed_unix_ms > blamed + TIE_MS ||
        !now->changed_unix_ms)
        return;
    self->outcome = ORR_OUTCOME_LOST;
    orr_str_copy(self->reason, sizeof(self->reason), orr_str(self->lost));
}

static void
note_lost(struct job *self, uint32_t index, const char *how, struct orr_str why)
{
    if (self->lost[0])
        return;
    snprintf(self->lost,
             sizeof(self->lost),
             "rank %u %s %.63s%s%.*s",
             index,
             how,
             job_node_at(self, job_rank_at(self, index)->node)->name,
             why.len ? ": " : "",
             ORR_STR_ARGS(why));
}

static void earliest(uint32_t n, uint64_t *from_ms, uint64_t ms)
{
    if (n == 1 || ms < *from_ms)
        *from_ms = ms;
}

/* One that was told to end says nothing of the program, however it ended then: not even that it is done. */
static void
count_end(struct job *self, uint32_t index, const struct orr_rec_rank_row *now)
{
    if (now->state == ORR_RANK_LOST)
        note_lost(self, index, "is gone from", now->reason);
    if (now->is_told) {
        earliest(++self->n_told, &self->told_from_ms, now->changed_unix_ms);
        if (!self->is_stopping)
            note_lost(self,
                      index,
                      "was told to end on",
                      ORR_LIT("its cluster's host went down then"));
    } else if (now->state == ORR_RANK_LOST) {
        acquit(self, now);
    } else if (now->state == ORR_RANK_EXITED && !now->exit_code && !now->signal) {
        self->n_ok++;
    } else {
        earliest(++self->n_bad, &self->bad_from_ms, now->changed_unix_ms);
        blame(self, index, now);
    }
}

void job_rank_apply(struct job *self,
                    uint32_t index,
                    const struct orr_rec_rank_row *now)
{
    struct job_rank *rank = job_rank_at(self, index);
    if (!is_open(rank->state) || now->state <= rank->state ||
        now->state >= ORR_RANK_STATE_MAX_)
        return;
    self->n_state[rank->state]--;
    self->n_state[now->state]++;
    rank->state = now->state;
    rank->exit_code = now->exit_code;
    rank->signal = now->signal;
    rank->changed_unix_ms = now->changed_unix_ms;
    if (is_open(now->state))
        return;
    job_node_at(self, rank->node)->n_open--;
    count_end(self, index, now);
}

/* A node's full answer.  What it does not list is not there; unless a launch may still
 * be on its way. */
void job_ranks_heard(struct job *self,
                     struct job_node *node,
                     const struct orr_msg_ranks *msg)
{
    uint32_t index = (uint32_t)(node - job_node_at(self, 0));
    struct orr_rec_rank_place *seen =
        self->places.at; /* scratch: which ranks were listed */
    for (uint32_t i = 0; i < self->args.world; i++)
        seen[i].rank = ORR_NONE;
    for (uint32_t i = 0; i < msg->ranks.n; i++) {
        uint32_t rank = msg->ranks.at[i].rank;
        if (rank >= self->args.world || job_rank_at(self, rank)->node != index)
            continue;
        seen[rank].rank = rank;
        job_rank_apply(self, rank, &msg->ranks.at[i]);
    }
    node->wants_get = false;
    node->is_checked = true;
    if (node->launch != JOB_LAUNCH_DONE && !node->is_stop_acked)
        return;
    for (uint32_t i = 0; i < self->args.world; i++) {
        if (job_rank_at(self, i)->node != index || seen[i].rank != ORR_NONE)
            continue;
        node->has_absent = true;
        job_rank_apply(self, i, &(struct orr_rec_rank_row){.state = ORR_RANK_LOST});
    }
}

/* ---- judgement ---- */

void job_decide(struct orr_ctx *ctx,
                struct job *self,
                enum orr_job_outcome outcome,
                struct orr_str reason)
{
    if (self->is_stopping)
        return;
    self->is_stopping = true;
    self->outcome = outcome;
    orr_str_copy(self->reason, sizeof(self->reason), reason);
    orr_log(ctx, ORR_LOG_DEBUG, "decided: outcome %d: %s", (int)outcome, self->reason);
}

/* One on which ranks may run. */
static const struct job_node *find_unknown(const struct job *self)
{
    for (uint32_t i = 0; i < self->n_nodes; i++) {
        const struct job_node *node = job_node_at(self, i);
        if (node->state == ORR_NODE_UNKNOWN && node->n_open > 0 &&
            node->launch != JOB_LAUNCH_NONE)
            return node;
    }
    return NULL;
}

/* Others wait for the meeting point that the node of rank 0 names. */
static bool is_waited_for(const struct job *self, uint32_t node)
{
    return self->n_nodes > 1 && !self->master_addr[0] &&
           job_rank_at(self, 0)->node == node &&
           job_node_at(self, node)->launch != JOB_LAUNCH_DONE;
}

/* One without which this generation cannot be whole: ranks are there, or were still to be, or wait for its word. */
static const struct job_node *find_lost(const struct job *self)
{
    for (uint32_t i = 0; i < self->n_nodes; i++) {
        const struct job_node *node = job_node_at(self, i);
        if (node->state == ORR_NODE_LOST &&
            (node->n_open > 0 || is_waited_for(self, i)))
            return node;
    }
    return NULL;
}

static bool all_checked(struct job *self)
{
    if (!self->is_checking) {
        self->is_checking = true;
        for (uint32_t i = 0; i < self->n_nodes; i++) {
            struct job_node *node = job_node_at(self, i);
            node->is_checked = job_node_is_gone(node);
            node->wants_get = !node->is_checked;
        }
    }
    for (uint32_t i = 0; i < self->n_nodes; i++)
        if (!job_node_at(self, i)->is_checked &&
            !job_node_is_gone(job_node_at(self, i)))
            return false;
    return true;
}

/* An earlier life of this actor had decided its end, and did not live to say so.  If it was for a rank that had failed, that one
 * ended before any was told. */
static bool was_being_ended(const struct job *self)
{
    return self->n_told > 0 &&
           (!self->n_bad || self->told_from_ms <= self->bad_from_ms);
}

static void consider(struct orr_ctx *ctx, struct job *self)
{
    char reason[sizeof(self->reason)];
    const struct job_node *lost = find_lost(self);
    if (self->n_ok == self->args.world) {
        job_decide(ctx, self, ORR_OUTCOME_DONE, ORR_LIT(""));
    } else if (lost) {
        snprintf(reason, sizeof(reason), "node %s is lost", lost->name);
        job_decide(ctx, self, ORR_OUTCOME_LOST, orr_str(reason));
    } else if (self->n_state[ORR_RANK_LOST] > 0) {
        job_decide(ctx, self, ORR_OUTCOME_LOST, orr_str(self->lost));
    } else if (self->n_bad + self->n_told > 0 && all_checked(self)) {
        if (was_being_ended(self)) {
            job_decide(ctx, self, ORR_OUTCOME_LOST, orr_str(self->lost));
        } else {
            job_decide(ctx, self, ORR_OUTCOME_FAILED, ORR_LIT(""));
            tell_culprit(self);
        }
    }
}

static uint32_t phase_now(struct orr_ctx *ctx, struct job *self)
{
    const struct job_node *unknown = find_unknown(self);
    if (self->is_ended) {
        static const uint32_t ends[ORR_OUTCOME_MAX_] = {
            [ORR_OUTCOME_DONE] = ORR_JOB_DONE,
            [ORR_OUTCOME_FAILED] = ORR_JOB_FAILED,
            [ORR_OUTCOME_LOST] = ORR_JOB_QUEUED,
            [ORR_OUTCOME_CANCELLED] = ORR_JOB_CANCELLED,
            [ORR_OUTCOME_MOVED] = ORR_JOB_QUEUED,
        };
        return ends[self->outcome];
    }
    if (self->is_stopping)
        return ORR_JOB_STOPPING;
    if (!self->has_permit)
        return ORR_JOB_PLACING;
    if (unknown) {
        snprintf(self->reason,
                 sizeof(self->reason),
                 "node %s is out of reach; its ranks may run on",
                 unknown->name);
        return ORR_JOB_UNKNOWN;
    }
    for (uint32_t i = 0; self->is_recovery && i < self->n_nodes; i++)
        if (!job_node_at(self, i)->is_checked && job_node_at(self, i)->n_open > 0)
            return ORR_JOB_UNKNOWN;
    if (self->is_recovery) {
        self->is_recovery = false;
        job_plan_recover(ctx, self);
    }
    if (self->is_stopping)
        return ORR_JOB_STOPPING;
    return self->n_state[ORR_RANK_STARTING] == 0 ? job_plan_phase(self)
                                                 : ORR_JOB_LAUNCHING;
}

enum orr_err job_judge(struct orr_ctx *ctx, struct job *self)
{
    if (self->is_ended)
        return ORR_OK;
    if (!self->is_stopping && self->has_permit)
        consider(ctx, self);
    if (self->is_stopping) {
        uint32_t i = 0;
        while (i < self->n_nodes && job_node_is_gone(job_node_at(self, i)) &&
               !job_node_is_guest(job_node_at(self, i)))
            i++;
        self->is_ended = i == self->n_nodes;
    }
    uint32_t phase = phase_now(ctx, self);
    if (phase == self->phase)
        return ORR_OK;
    if (self->phase == ORR_JOB_UNKNOWN && !self->is_stopping)
        self->reason[0] = '\0';
    self->is_update_due = true;
    self->runs_from_ms = orr_now_ms(ctx); /* if it is to run: hitherto it did not */
    return orr_sm_move(ctx, &orr_job_sm, &self->phase, phase);
}
