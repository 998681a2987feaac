/* SPDX-License-Identifier: Apache-2.0
 * job_hang.c - a hang names its rank, with communicator, count and call, in the job's reason.
 *
 * Nodes tell, again and again, of ranks that have issued nothing for a while (rank_idle), and once when there are none any more.
 * job_suspect.c finds who holds the others up.  It is named when they have waited for HANG_MS, or half of time.hang where that is
 * shorter.  A rank may compute for long, so this alone ends nothing; but when all have stood so for time.hang, the job has
 * failed, and the rank that was named is the culprit.  Time in which the job was stopped, or its actor was not there to see, does
 * not count.  What a node has not said again is forgotten.
 */
#include "job_state.h"
#include "job_suspect.h"

enum { HANG_MS = 30000, STALE_MS = 25000, CLOCKS_A_RANK = 64, CLOCKS_MIN = 1024 };

void job_hang_fini(struct job *self)
{
    job_barrier_fini(&self->watch);
    orr_block_fini(&self->pauses);
}

void job_hang_reset(struct job *self)
{
    job_hang_fini(self);
    self->has_watch = false;
}

static struct job_pause *pause_at(const struct job *self, uint32_t rank)
{
    return (struct job_pause *)self->pauses.at + rank;
}

static bool take_watch(struct job *self)
{
    uint32_t world = self->args.world < 4096 ? self->args.world : 4096;
    if (!self->has_watch &&
        orr_block_init(&self->pauses, self->args.world * sizeof(struct job_pause)) ==
            ORR_OK) {
        self->has_watch =
            job_barrier_init(&self->watch,
                             self->n_nodes,
                             world * CLOCKS_A_RANK + CLOCKS_MIN) == ORR_OK;
        if (!self->has_watch)
            orr_block_fini(&self->pauses);
    }
    return self->has_watch;
}

/* Told when it is somebody else, not at each look: the times in the text change always. */
static void say(struct job *self, int64_t rank, const char *text)
{
    bool is_hung = rank != JOB_SUSPECT_NONE;
    if (!is_hung && !self->is_hung)
        return;
    self->is_update_due =
        self->is_update_due || is_hung != self->is_hung || rank != self->hung_rank;
    self->is_hung = is_hung;
    self->hung_rank = rank;
    orr_str_copy(self->reason, sizeof(self->reason), orr_str(text));
}

/* The program's fault, not the machines'. */
static void
give_up(struct orr_ctx *ctx, struct job *self, uint32_t rank, const char *text)
{
    char reason[sizeof(self->reason)];
    snprintf(reason, sizeof(reason), "hung (time.hang): %.180s", text);
    job_decide(ctx, self, ORR_OUTCOME_FAILED, orr_str(reason));
    self->culprit = (struct job_culprit){
        .rank = rank,
        .node = job_rank_at(self, rank)->node,
        .is_hard = true,
        .changed_unix_ms = 0, /* before all ends: those of its ranks follow from it */
    };
    orr_str_copy(
        self->culprit.reason, sizeof(self->culprit.reason), orr_str(self->reason));
}

/* Who has held the others up for that long, the job having run for so long without a break. */
static int64_t suspect(const struct orr_ctx *ctx,
                       const struct job *self,
                       uint64_t idle_ms,
                       char *text,
                       size_t cap)
{
    const struct job_suspects suspects = {.clocks = &self->watch,
                                          .pauses = pause_at(self, 0),
                                          .world = self->args.world,
                                          .call = self->hang_call};
    return orr_now_ms(ctx) - self->runs_from_ms >= idle_ms
               ? job_suspect_find(&suspects, idle_ms, text, cap)
               : JOB_SUSPECT_NONE;
}

static void forget(struct job *self, uint32_t node)
{
    job_barrier_forget(&self->watch, node);
    for (uint32_t r = 0; r < self->args.world; r++)
        if (job_rank_at(self, r)->node == node)
            pause_at(self, r)->pause = ORR_PAUSE_NONE;
}

static void take(struct orr_ctx *ctx,
                 struct job *self,
                 uint32_t index,
                 const struct orr_msg_rank_idle *msg)
{
    struct orr_error err;
    job_node_at(self, index)->idle_heard_ms = orr_now_ms(ctx);
    if (job_barrier_note(&self->watch, index, msg->clocks, &err) != ORR_OK)
        orr_log(ctx, ORR_LOG_WARN, "hang watch: %s", err.text);
    for (uint32_t i = 0; i < msg->pauses.n; i++) {
        const struct orr_rec_rank_pause *rec = &msg->pauses.at[i];
        if (rec->rank >= self->args.world ||
            job_rank_at(self, rec->rank)->node != index)
            continue;
        *pause_at(self, rec->rank) =
            (struct job_pause){.pause = rec->pause, .silent_ms = rec->silent_ms};
        if (rec->pause == ORR_PAUSE_CALL)
            orr_str_copy(self->hang_call, sizeof(self->hang_call), rec->call);
    }
}

static bool is_running(const struct job *self)
{
    return self->phase == ORR_JOB_RUNNING && self->plan.step == ORR_CUT_NONE;
}

static void judge(struct orr_ctx *ctx, struct job *self)
{
    uint64_t end_ms = self->args.hang_ms;
    uint64_t limit = end_ms && end_ms / 2 < HANG_MS ? end_ms / 2 : HANG_MS;
    char text[300], reason[sizeof(self->reason)] = "";
    if (job_barrier_aim(&self->watch) != ORR_OK)
        return;
    int64_t rank = suspect(ctx, self, limit, text, sizeof(text));
    if (rank != JOB_SUSPECT_NONE)
        snprintf(reason, sizeof(reason), "hangs: %.190s", text);
    say(self, rank, reason);
    if (rank == JOB_SUSPECT_NONE || !end_ms)
        return;
    rank = suspect(ctx, self, end_ms, text, sizeof(text));
    if (rank >= 0) /* where nobody is named, all may compute apart from each other */
        give_up(ctx, self, (uint32_t)rank, text);
}

void job_hang_heard(struct orr_ctx *ctx,
                    struct job *self,
                    const struct orr_msg_rank_idle *msg)
{
    if (!is_running(self) || msg->generation != self->args.generation ||
        !take_watch(self))
        return;
    for (uint32_t i = 0; i < self->n_nodes; i++)
        if (orr_str_eq(orr_str(job_node_at(self, i)->name), msg->node)) {
            forget(self, i);
            take(ctx, self, i, msg);
        }
    job_hang_due(ctx, self);
}

void job_hang_due(struct orr_ctx *ctx, struct job *self)
{
    if (!is_running(self) || !self->has_watch)
        return;
    for (uint32_t i = 0; i < self->n_nodes; i++)
        if (orr_now_ms(ctx) - job_node_at(self, i)->idle_heard_ms > STALE_MS)
            forget(self, i);
    judge(ctx, self);
    if (self->is_hung)
        orr_timer_set(ctx, JOB_T_HANG, STALE_MS + 1, 0);
}
