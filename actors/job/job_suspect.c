/* SPDX-License-Identifier: Apache-2.0
 * job_suspect.c - see job_suspect.h.
 */
#include "job_suspect.h"

#include <stdio.h>

static const struct job_clock *next_clock(const struct job_suspects *self,
                                          const struct job_clock *clock)
{
    const struct job_clock *next = clock;
    do
        next = orr_pool_next(&self->clocks->clocks, next);
    while (next && (next->me == ORR_NONE || next->rank >= self->world));
    return next;
}

static uint32_t pause_of(const struct job_suspects *self, const struct job_clock *clock)
{
    return self->pauses[clock->rank].pause;
}

static bool is_same_order(const struct job_clock *a, const struct job_clock *b)
{
    return a->comm == b->comm && a->kind == b->kind;
}

static bool is_below(const struct job_clock *clock)
{
    return clock->issued < clock->target;
}

/* The newest thing that the rank has done; of several ranks, ORR_NONE, the newest of all. */
static const struct job_clock *newest_of(const struct job_suspects *self, uint32_t rank)
{
    const struct job_clock *newest = NULL;
    for (const struct job_clock *c = NULL; (c = next_clock(self, c)) != NULL;)
        if ((rank == ORR_NONE || c->rank == rank) && c->issued &&
            (!newest || c->idle_ms < newest->idle_ms))
            newest = c;
    return newest;
}

/* ---- 1: a rank that does not run ---------------------------------------------------------- */

/* Somebody else has stood still for as long, too; whether it is for this one is not to be known, and likely. */
static bool
has_others_idle(const struct job_suspects *self, uint32_t rank, uint64_t idle_ms)
{
    for (const struct job_clock *c = NULL; (c = next_clock(self, c)) != NULL;)
        if (c->rank != rank && pause_of(self, c) != ORR_PAUSE_SILENT &&
            c->idle_ms >= idle_ms && newest_of(self, c->rank)->idle_ms >= idle_ms)
            return true;
    return false;
}

static int64_t
find_silent(const struct job_suspects *self, uint64_t idle_ms, char *text, size_t cap)
{
    const struct job_clock *worst = NULL;
    for (uint32_t r = 0; r < self->world; r++) {
        const struct job_clock *c =
            self->pauses[r].pause == ORR_PAUSE_SILENT ? newest_of(self, r) : NULL;
        if (c && c->idle_ms >= idle_ms && (!worst || c->idle_ms > worst->idle_ms))
            worst = c;
    }
    if (!worst || !has_others_idle(self, worst->rank, idle_ms))
        return JOB_SUSPECT_NONE;
    int n = job_barrier_tell(worst, text, cap);
    if (n > 0 && (size_t)n < cap)
        snprintf(text + n,
                 cap - (size_t)n,
                 ": it does not run (stopped?), its newest was %s, %llu ms ago",
                 orr_clock_op_name(worst->op),
                 (unsigned long long)worst->idle_ms);
    return worst->rank;
}

/* ---- 2: a member that has not come -------------------------------------------------------- */

/* Have all who are ahead of it waited for idle_ms?  Counts those who are behind as it is. */
static bool is_waited_for(const struct job_suspects *self,
                          const struct job_clock *late,
                          uint64_t idle_ms,
                          uint32_t *ret_late)
{
    const struct job_clock *other = job_barrier_other(self->clocks, late);
    *ret_late = 1;
    if (late->kind != ORR_CLOCK_COLLECTIVE)
        return other && other->idle_ms >= idle_ms;
    *ret_late = 0;
    for (const struct job_clock *c = NULL; (c = next_clock(self, c)) != NULL;) {
        if (!is_same_order(c, late))
            continue;
        *ret_late += is_below(c);
        if (c->issued > late->issued && c->idle_ms < idle_ms)
            return false;
    }
    return true;
}

/* Is the clock's member ahead of another one there? */
static bool is_ahead(const struct job_suspects *self, const struct job_clock *clock)
{
    const struct job_clock *other = job_barrier_other(self->clocks, clock);
    if (clock->kind != ORR_CLOCK_COLLECTIVE)
        return other && other->issued < clock->issued;
    for (const struct job_clock *c = NULL; (c = next_clock(self, c)) != NULL;)
        if (is_same_order(c, clock) && c->issued < clock->issued)
            return true;
    return false;
}

static bool waits_for_others(const struct job_suspects *self, uint32_t rank)
{
    for (const struct job_clock *c = NULL; (c = next_clock(self, c)) != NULL;)
        if (c->rank == rank && is_ahead(self, c))
            return true;
    return false;
}

struct late {
    const struct job_clock *clock;
    bool is_waiting, is_in_call;
    uint32_t n_late;
};

static bool is_likelier(const struct late *a, const struct late *b)
{
    if (!b->clock || a->is_waiting != b->is_waiting)
        return !b->clock || b->is_waiting;
    if (a->is_in_call != b->is_in_call)
        return b->is_in_call;
    if (a->n_late != b->n_late)
        return a->n_late < b->n_late;
    return a->clock->idle_ms > b->clock->idle_ms;
}

static int64_t
find_late(const struct job_suspects *self, uint64_t idle_ms, char *text, size_t cap)
{
    struct late best = {.clock = NULL};
    for (const struct job_clock *c = NULL; (c = next_clock(self, c)) != NULL;) {
        struct late late = {.clock = c};
        if (!is_below(c) || c->idle_ms < idle_ms ||
            !is_waited_for(self, c, idle_ms, &late.n_late))
            continue;
        late.is_waiting = waits_for_others(self, c->rank);
        late.is_in_call = pause_of(self, c) == ORR_PAUSE_CALL;
        if (is_likelier(&late, &best))
            best = late;
    }
    if (!best.clock)
        return JOB_SUSPECT_NONE;
    job_barrier_tell_late(self->clocks, best.clock, text, cap);
    return best.clock->rank;
}

/* ---- 3: a communicator that is not made --------------------------------------------------- */

/* All of its members are in a call, and this was their newest. */
static bool is_awaited(const struct job_suspects *self,
                       const struct job_clock *comm,
                       uint64_t idle_ms)
{
    for (const struct job_clock *c = NULL; (c = next_clock(self, c)) != NULL;)
        if (is_same_order(c, comm) &&
            (c->issued != 1 || c->idle_ms < idle_ms ||
             pause_of(self, c) != ORR_PAUSE_CALL || newest_of(self, c->rank) != c))
            return false;
    return true;
}

static bool is_member(const struct job_suspects *self, uint64_t comm, uint32_t rank)
{
    for (const struct job_clock *c = NULL; (c = next_clock(self, c)) != NULL;)
        if (c->comm == comm && c->rank == rank)
            return true;
    return false;
}

static int64_t
find_absent(const struct job_suspects *self, uint64_t idle_ms, char *text, size_t cap)
{
    for (const struct job_clock *comm = NULL;
         (comm = orr_pool_next(&self->clocks->clocks, comm)) != NULL;) {
        if (comm->me != ORR_NONE || !comm->n_members || comm->n_members >= comm->n ||
            comm->n != self->world || !is_awaited(self, comm, idle_ms))
            continue;
        uint32_t rank = 0;
        while (rank < self->world && is_member(self, comm->comm, rank))
            rank++;
        if (rank == self->world)
            continue;
        snprintf(text,
                 cap,
                 "rank %u has issued 0 of 1 collectives in communicator %016llx (%u "
                 "ranks): %u of them wait in %s",
                 rank,
                 (unsigned long long)comm->comm,
                 comm->n,
                 comm->n_members,
                 orr_clock_op_name(ORR_CLOCK_OP_CREATE));
        return rank;
    }
    return JOB_SUSPECT_NONE;
}

/* ---- 4: an operation that may not end ---------------------------------------------------- */

static int64_t
find_stuck(const struct job_suspects *self, uint64_t idle_ms, char *text, size_t cap)
{
    const struct job_clock *newest = newest_of(self, ORR_NONE);
    bool is_all = newest && newest->idle_ms >= idle_ms;
    for (uint32_t r = 0; is_all && r < self->world; r++)
        is_all = self->pauses[r].pause == ORR_PAUSE_CALL;
    if (!is_all)
        return JOB_SUSPECT_NONE;
    int n = job_barrier_tell(newest, text, cap);
    if (n > 0 && (size_t)n < cap)
        snprintf(text + n,
                 cap - (size_t)n,
                 ", as its peers: nothing has followed %s %llu ms ago; all wait in %s",
                 orr_clock_op_name(newest->op),
                 (unsigned long long)newest->idle_ms,
                 self->call);
    return JOB_SUSPECT_ALL;
}

int64_t job_suspect_find(const struct job_suspects *self,
                         uint64_t idle_ms,
                         char *text,
                         size_t cap)
{
    int64_t rank = find_silent(self, idle_ms, text, cap);
    if (rank == JOB_SUSPECT_NONE)
        rank = find_late(self, idle_ms, text, cap);
    if (rank == JOB_SUSPECT_NONE)
        rank = find_absent(self, idle_ms, text, cap);
    return rank == JOB_SUSPECT_NONE ? find_stuck(self, idle_ms, text, cap) : rank;
}
