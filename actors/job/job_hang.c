/* SPDX-License-Identifier: Apache-2.0
 * job_hang.c - a hang names its rank: clocks of ranks that stand still, compared over the members of each communicator.
 *
 * Nodes tell, again and again, of ranks that have issued nothing for a while (rank_idle).  When members of a communicator
 * have waited for HANG_MS, or time.hang where that is shorter, for one that is behind them and stands still, too, it is
 * named with its communicator, count and newest call in the job's reason.  A rank may compute for long, so this alone ends
 * nothing; but when all have stood so for time.hang, the job has failed, and the rank that was named is the culprit.  Time in
 * which the job was stopped, or its actor was not there to see, does not count.  What a node has not said again is forgotten.
 */
#include "job_state.h"

enum { HANG_MS = 30000, STALE_MS = 25000, CLOCKS_A_RANK = 64, CLOCKS_MIN = 1024 };

void job_hang_fini(struct job *self)
{
    job_barrier_fini(&self->watch);
}

static bool take_watch(struct job *self)
{
    uint32_t world = self->args.world < 4096 ? self->args.world : 4096;
    if (!self->has_watch)
        self->has_watch =
            job_barrier_init(&self->watch,
                             self->n_nodes,
                             world * CLOCKS_A_RANK + CLOCKS_MIN) == ORR_OK;
    return self->has_watch;
}

static void say(struct job *self, const char *text)
{
    bool is_hung = text[0] != '\0';
    if (!is_hung && !self->is_hung)
        return;
    self->is_update_due = self->is_update_due || is_hung != self->is_hung;
    self->is_hung = is_hung;
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

/* Has it run for so long without a break that silence of that length means something? */
static bool
has_run_for(const struct orr_ctx *ctx, const struct job *self, uint64_t idle_ms)
{
    return orr_now_ms(ctx) - self->runs_from_ms >= idle_ms;
}

void job_hang_heard(struct orr_ctx *ctx,
                    struct job *self,
                    const struct orr_msg_rank_idle *msg)
{
    uint64_t now = orr_now_ms(ctx);
    uint64_t limit = self->args.hang_ms && self->args.hang_ms < HANG_MS
                         ? self->args.hang_ms
                         : HANG_MS;
    struct orr_error err;
    char text[300], reason[sizeof(self->reason)] = "";
    if (self->phase != ORR_JOB_RUNNING || self->plan.step != ORR_CUT_NONE ||
        msg->generation != self->args.generation || !take_watch(self))
        return;
    for (uint32_t i = 0; i < self->n_nodes; i++) {
        struct job_node *node = job_node_at(self, i);
        bool is_it = orr_str_eq(orr_str(node->name), msg->node);
        if (is_it || now - node->idle_heard_ms > STALE_MS)
            job_barrier_forget(&self->watch, i);
        if (!is_it)
            continue;
        node->idle_heard_ms = now;
        if (job_barrier_note(&self->watch, i, msg->clocks, &err) != ORR_OK)
            orr_log(ctx, ORR_LOG_WARN, "hang watch: %s", err.text);
    }
    if (job_barrier_aim(&self->watch) != ORR_OK)
        return;
    int64_t rank = has_run_for(ctx, self, limit)
                       ? job_barrier_laggard(&self->watch, limit, text, sizeof(text))
                       : -1;
    if (rank >= 0)
        snprintf(reason, sizeof(reason), "hangs: %.190s", text);
    say(self, reason);
    uint64_t end_ms = self->args.hang_ms;
    if (rank < 0 || !end_ms || !has_run_for(ctx, self, end_ms))
        return;
    rank = job_barrier_laggard(&self->watch, end_ms, text, sizeof(text));
    if (rank >= 0)
        give_up(ctx, self, (uint32_t)rank, text);
}
