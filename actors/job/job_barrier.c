/* SPDX-License-Identifier: Apache-2.0
 * job_barrier.c - targets from clocks (docs/barrier.md).
 *
 * Invariants: an issued count and a target never shrink within a cut; a round's targets are at least everything that was
 * heard before it; the two sides of a pair have the same target.
 * A communicator is a clock, too, with me == ORR_NONE: it counts its members and keeps their common target.
 */
#include "job_barrier.h"

#include <stdio.h>
#include <string.h>

enum { KEY_BYTES = 24 };

static struct orr_str key_of(const void *item)
{
    return (struct orr_str){item, KEY_BYTES};
}

_Static_assert(offsetof(struct job_clock, rank) == KEY_BYTES, "the key has no hole");

enum orr_err
job_barrier_init(struct job_barrier *self, uint32_t n_peers, uint32_t clocks_max)
{
    *self = (struct job_barrier){.n_peers = n_peers};
    enum orr_err err =
        orr_pool_init(&self->clocks, sizeof(struct job_clock), clocks_max);
    if (err == ORR_OK)
        err = orr_map_init(&self->by_key, &self->clocks, key_of);
    if (err == ORR_OK)
        err = orr_block_init(&self->peers, n_peers * sizeof(struct job_barrier_peer));
    if (err != ORR_OK)
        job_barrier_fini(self);
    return err;
}

void job_barrier_fini(struct job_barrier *self)
{
    orr_map_fini(&self->by_key);
    orr_pool_fini(&self->clocks);
    orr_block_fini(&self->peers);
    *self = (struct job_barrier){0};
}

void job_barrier_reset(struct job_barrier *self)
{
    for (struct job_clock *clock = NULL;
         (clock = orr_pool_next(&self->clocks, clock)) != NULL;) {
        orr_map_remove(&self->by_key, clock);
        orr_pool_give(&self->clocks, clock);
    }
    memset(self->peers.at, 0, self->n_peers * sizeof(struct job_barrier_peer));
    self->round = 0;
    self->is_stale = true;
}

static struct job_barrier_peer *peer_at(const struct job_barrier *self, uint32_t index)
{
    return (struct job_barrier_peer *)self->peers.at + index;
}

void job_barrier_leave_out(struct job_barrier *self, uint32_t peer)
{
    peer_at(self, peer)->is_left_out = peer_at(self, peer)->has_begun = true;
}

static bool is_at_cut(const struct job_barrier *self, uint32_t index)
{
    const struct job_barrier_peer *peer = peer_at(self, index);
    return peer->is_left_out || (peer->is_at_cut && peer->round == self->round);
}

static struct job_clock *find(const struct job_barrier *self,
                              uint64_t comm,
                              uint32_t kind,
                              uint32_t me,
                              uint32_t peer)
{
    const struct job_clock key = {.comm = comm, .kind = kind, .me = me, .peer = peer};
    return orr_map_find(&self->by_key, key_of(&key));
}

static struct job_clock *add(struct job_barrier *self, const struct job_clock *clock)
{
    struct job_clock *added = orr_pool_take(&self->clocks);
    if (!added)
        return NULL;
    *added = *clock;
    orr_map_add(&self->by_key, added);
    return added;
}

static struct job_clock *find_comm(const struct job_barrier *self, uint64_t comm)
{
    return find(self, comm, ORR_CLOCK_COLLECTIVE, ORR_NONE, 0);
}

static struct job_clock *other_side(const struct job_barrier *self,
                                    const struct job_clock *clock)
{
    if (clock->kind == ORR_CLOCK_COLLECTIVE)
        return NULL;
    uint32_t kind = clock->kind == ORR_CLOCK_SEND ? ORR_CLOCK_RECV : ORR_CLOCK_SEND;
    return find(self, clock->comm, kind, clock->peer, clock->me);
}

const struct job_clock *
job_barrier_member(const struct job_barrier *self, uint64_t comm, uint32_t me)
{
    return find(self, comm, ORR_CLOCK_COLLECTIVE, me, 0);
}

const struct job_clock *job_barrier_other(const struct job_barrier *self,
                                          const struct job_clock *clock)
{
    return other_side(self, clock);
}

/* ---- what was heard ---- */

static enum orr_err full(const struct job_barrier *self, struct orr_error *err)
{
    return orr_fail(err,
                    ORR_ENOSPC,
                    "its ranks have more than %u clocks together (communicators, and "
                    "pairs that send); the job cannot "
                    "be brought to a cut",
                    self->clocks.cap);
}

/* A new member: of a communicator that is known, or of a new one. */
static enum orr_err
join(struct job_barrier *self, const struct orr_rec_clock *rec, struct orr_error *err)
{
    struct job_clock *comm = find_comm(self, rec->comm);
    if (!comm)
        comm = add(self,
                   &(struct job_clock){.comm = rec->comm,
                                       .kind = ORR_CLOCK_COLLECTIVE,
                                       .me = ORR_NONE,
                                       .rank = ORR_NONE,
                                       .from = ORR_NONE,
                                       .n = rec->n});
    if (!comm)
        return full(self, err);
    if (comm->n != rec->n || rec->me >= rec->n)
        return orr_fail(err,
                        ORR_EINVAL,
                        "rank %u is member %u of %u of communicator %016llx, which has "
                        "%u for others",
                        rec->rank,
                        rec->me,
                        rec->n,
                        (unsigned long long)rec->comm,
                        comm->n);
    comm->n_members++;
    return ORR_OK;
}

static enum orr_err note(struct job_barrier *self,
                         uint32_t peer,
                         const struct orr_rec_clock *rec,
                         struct orr_error *err)
{
    bool is_pair = rec->kind != ORR_CLOCK_COLLECTIVE;
    struct job_clock *clock =
        find(self, rec->comm, rec->kind, rec->me, is_pair ? rec->peer : 0);
    if (rec->kind >= ORR_CLOCK_KIND_MAX_ || rec->me == ORR_NONE)
        return orr_fail(
            err, ORR_EINVAL, "rank %u reports a clock that is none", rec->rank);
    if (clock && clock->rank != rec->rank)
        return orr_fail(err,
                        ORR_EINVAL,
                        "ranks %u and %u both are member %u of communicator %016llx",
                        clock->rank,
                        rec->rank,
                        rec->me,
                        (unsigned long long)rec->comm);
    if (!clock) {
        if (self->clocks.n_used + 2 > self->clocks.cap)
            return full(self, err);
        enum orr_err code = is_pair ? ORR_OK : join(self, rec, err);
        if (code != ORR_OK)
            return code;
        clock = add(self,
                    &(struct job_clock){.comm = rec->comm,
                                        .kind = rec->kind,
                                        .me = rec->me,
                                        .peer = is_pair ? rec->peer : 0,
                                        .rank = rec->rank,
                                        .n = rec->n});
        self->is_stale = true;
    }
    clock->from = peer;
    clock->op = rec->op;
    clock->idle_ms = rec->idle_ms;
    if (rec->issued > clock->issued)
        clock->issued = rec->issued;
    if (clock->issued > clock->target)
        self->is_stale = true;
    return ORR_OK;
}

enum orr_err job_barrier_note(struct job_barrier *self,
                              uint32_t peer,
                              struct orr_list_clock clocks,
                              struct orr_error *err)
{
    for (uint32_t i = 0; i < clocks.n; i++) {
        enum orr_err code = note(self, peer, &clocks.at[i], err);
        if (code != ORR_OK)
            return code;
    }
    return ORR_OK;
}

enum orr_err job_barrier_hear(struct job_barrier *self,
                              uint32_t index,
                              const struct orr_msg_cut_report *report,
                              struct orr_error *err)
{
    struct job_barrier_peer *peer = peer_at(self, index);
    enum orr_err code = job_barrier_note(self, index, report->clocks, err);
    if (code != ORR_OK)
        return code;
    bool is_done = report->state == ORR_STEP_DONE;
    if (is_done && report->step >= ORR_CUT_BEGIN && report->step <= ORR_CUT_TARGETS)
        peer->has_begun = true;
    peer->is_at_cut = is_done && report->step == ORR_CUT_TARGETS;
    peer->round = report->round;
    return ORR_OK;
}

/* ---- what follows ---- */

/* The clocks of one operation between two, also of the one that has not come to it yet. */
static enum orr_err aim_pair(struct job_barrier *self, struct job_clock *clock)
{
    struct job_clock *other = other_side(self, clock);
    const struct job_clock *member =
        find(self, clock->comm, ORR_CLOCK_COLLECTIVE, clock->peer, 0);
    uint64_t target = clock->issued;
    if (!other && member) {
        other = add(self,
                    &(struct job_clock){.comm = clock->comm,
                                        .kind = clock->kind == ORR_CLOCK_SEND
                                                    ? ORR_CLOCK_RECV
                                                    : ORR_CLOCK_SEND,
                                        .me = clock->peer,
                                        .peer = clock->me,
                                        .rank = member->rank,
                                        .from = member->from,
                                        .n = clock->n});
        if (!other)
            return ORR_ENOSPC;
    }
    if (other && other->issued > target)
        target = other->issued;
    if (other)
        other->target = target;
    clock->target = target;
    return ORR_OK;
}

enum orr_err job_barrier_aim(struct job_barrier *self)
{
    for (struct job_clock *clock = NULL;
         (clock = orr_pool_next(&self->clocks, clock)) != NULL;) {
        enum orr_err err = ORR_OK;
        if (clock->kind != ORR_CLOCK_COLLECTIVE)
            err = aim_pair(self, clock);
        if (err != ORR_OK)
            return err;
        struct job_clock *comm =
            clock->kind == ORR_CLOCK_COLLECTIVE ? find_comm(self, clock->comm) : NULL;
        if (comm && clock->issued > comm->target)
            comm->target = clock->issued;
    }
    for (struct job_clock *clock = NULL;
         (clock = orr_pool_next(&self->clocks, clock)) != NULL;)
        if (clock->kind == ORR_CLOCK_COLLECTIVE)
            clock->target = find_comm(self, clock->comm)->target;
    return ORR_OK;
}

static bool has_begun(const struct job_barrier *self)
{
    for (uint32_t i = 0; i < self->n_peers; i++)
        if (!peer_at(self, i)->has_begun)
            return false;
    return true;
}

enum orr_err job_barrier_round(struct job_barrier *self, uint64_t *ret_round)
{
    if (self->is_stale && has_begun(self)) {
        enum orr_err err = job_barrier_aim(self);
        if (err != ORR_OK)
            return err;
        self->round++;
        self->is_stale = false;
    }
    *ret_round = self->round;
    return ORR_OK;
}

static bool is_incomplete(const struct job_clock *clock)
{
    return clock->me == ORR_NONE && clock->n_members < clock->n;
}

static bool is_below(const struct job_clock *clock)
{
    return clock->me != ORR_NONE && clock->issued < clock->target;
}

uint32_t job_barrier_targets(const struct job_barrier *self,
                             uint32_t peer,
                             struct orr_rec_clock *recs,
                             uint32_t cap)
{
    uint32_t n = 0;
    for (const struct job_clock *clock = NULL;
         (clock = orr_pool_next(&self->clocks, clock)) != NULL;) {
        bool is_for = is_incomplete(clock) || (is_below(clock) && clock->from == peer);
        if (is_for && n < cap)
            recs[n] = (struct orr_rec_clock){.rank = clock->rank,
                                             .comm = clock->comm,
                                             .kind = clock->kind,
                                             .me = clock->me,
                                             .peer = clock->peer,
                                             .n = clock->n,
                                             .issued = clock->target};
        n += is_for;
    }
    return n;
}

bool job_barrier_is_cut(const struct job_barrier *self)
{
    if (self->is_stale || !self->round)
        return false;
    for (uint32_t i = 0; i < self->n_peers; i++)
        if (!is_at_cut(self, i))
            return false;
    return true;
}

static void drop(struct job_barrier *self, struct job_clock *clock)
{
    orr_map_remove(&self->by_key, clock);
    orr_pool_give(&self->clocks, clock);
}

void job_barrier_forget(struct job_barrier *self, uint32_t peer)
{
    for (struct job_clock *clock = NULL;
         (clock = orr_pool_next(&self->clocks, clock)) != NULL;) {
        clock->target = 0;
        if (clock->me == ORR_NONE || clock->from != peer)
            continue;
        struct job_clock *comm =
            clock->kind == ORR_CLOCK_COLLECTIVE ? find_comm(self, clock->comm) : NULL;
        drop(self, clock);
        if (comm && --comm->n_members == 0)
            drop(self, comm);
    }
}

/* ---- in words ---- */

/* What those who are ahead wait in. */
static uint32_t awaited_op(const struct job_barrier *self, const struct job_clock *late)
{
    const struct job_clock *other = other_side(self, late);
    if (other)
        return other->op;
    for (const struct job_clock *clock = NULL;
         (clock = orr_pool_next(&self->clocks, clock)) != NULL;)
        if (clock->comm == late->comm && clock->kind == late->kind &&
            clock->me != ORR_NONE && clock->issued == late->target)
            return clock->op;
    return ORR_CLOCK_OP_NONE;
}

int job_barrier_tell(const struct job_clock *clock, char *text, size_t cap)
{
    static const char *const kinds[ORR_CLOCK_KIND_MAX_] = {
        "collectives", "sends", "receives"};
    char pair[32] = "";
    if (clock->kind != ORR_CLOCK_COLLECTIVE)
        snprintf(pair,
                 sizeof(pair),
                 " %s %u",
                 clock->kind == ORR_CLOCK_SEND ? "to" : "from",
                 clock->peer);
    return snprintf(
        text,
        cap,
        "rank %u has issued %llu of %llu %s%s in communicator %016llx (%u ranks)",
        clock->rank,
        (unsigned long long)clock->issued,
        (unsigned long long)clock->target,
        kinds[clock->kind],
        pair,
        (unsigned long long)clock->comm,
        clock->n);
}

void job_barrier_tell_late(const struct job_barrier *self,
                           const struct job_clock *clock,
                           char *text,
                           size_t cap)
{
    int n = job_barrier_tell(clock, text, cap);
    if (n > 0 && (size_t)n < cap)
        snprintf(text + n,
                 cap - (size_t)n,
                 ": peers wait in %s, its own newest was %s, %llu ms ago",
                 orr_clock_op_name(awaited_op(self, clock)),
                 orr_clock_op_name(clock->op),
                 (unsigned long long)clock->idle_ms);
}

int64_t job_barrier_culprit(const struct job_barrier *self,
                            uint32_t *ret_peer,
                            char *text,
                            size_t cap)
{
    const struct job_clock *worst = NULL, *incomplete = NULL;
    *ret_peer = ORR_NONE;
    for (const struct job_clock *clock = NULL;
         (clock = orr_pool_next(&self->clocks, clock)) != NULL;) {
        if (is_below(clock) && (!worst || clock->idle_ms > worst->idle_ms))
            worst = clock;
        if (is_incomplete(clock))
            incomplete = clock;
    }
    for (uint32_t i = 0; i < self->n_peers && *ret_peer == ORR_NONE; i++)
        if (!peer_at(self, i)->has_begun)
            *ret_peer = i;
    text[0] = '\0';
    if (*ret_peer != ORR_NONE) {
        snprintf(text, cap, "has not reported the clocks of all its ranks");
        return -1;
    }
    if (worst) {
        job_barrier_tell_late(self, worst, text, cap);
        return worst->rank;
    }
    if (incomplete) {
        snprintf(text,
                 cap,
                 "communicator %016llx: %u of its %u ranks have come to %s",
                 (unsigned long long)incomplete->comm,
                 incomplete->n_members,
                 incomplete->n,
                 orr_clock_op_name(ORR_CLOCK_OP_CREATE));
        return -1;
    }
    for (uint32_t i = 0; i < self->n_peers && *ret_peer == ORR_NONE; i++)
        if (!is_at_cut(self, i))
            *ret_peer = i;
    if (*ret_peer != ORR_NONE)
        snprintf(
            text,
            cap,
            "a rank there is still inside of a call that all of its peers have issued");
    return -1;
}
