/* SPDX-License-Identifier: Apache-2.0
 * engine.c - collectives of ranks that share a device, piece by piece (splice.h, docs/splicing.md).
 *
 * STEP       A piece is a step.  Steps of a communicator have numbers, the same in all ranks, and use the two halves of the scratch in
 *            turn:
 *              give   a rank's input goes into its slot; the word `ready` of the rank becomes the step's number
 *              lead   the leader waits for all inputs, does what is between devices, or combines; `done` becomes the number
 *              take   a rank waits for `done`, or for the `ready` of those whose slots it reads, and takes its output; its `taken`
 *                     becomes the number
 * REUSE      Before a rank writes into a half it waits until the leader and all who took something of it are through with that half's
 *            newest step before this one.  Every rank knows from the operation alone who takes part in what.
 * PIPELINE   A rank gives step k + 1 before it takes step k, so that the leader has work while others copy.
 * ORDER      Operations of a communicator follow one another whatever streams they are in: each begins after the end of the one before.
 * BROKEN     Before a rank tells anything, and before the program's work goes on, its stream looks whether what it was given is still
 *            right (watch.c): if not, it stays there.
 */
#include "splice.h"

#include <stdlib.h>
#include <string.h>

static bool is_before(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}

/* ---- words ----------------------------------------------------------------------------------- */

ncclResult_t orri_words_flush(struct orri_words *w)
{
    unsigned n = w->n;

    w->n = 0;
    return n == 0 ? ncclSuccess : CU(StreamBatchMemOp, w->stream, n, w->op, 0);
}

static ncclResult_t
await(struct orri_words *w, size_t flag, uint32_t value, CUstreamWaitValue_flags how)
{
    CUstreamBatchMemOpParams *p = &w->op[w->n++];

    memset(p, 0, sizeof *p);
    p->waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
    p->waitValue.address = w->s->base + flag;
    p->waitValue.value = value;
    p->waitValue.flags = how;
    return w->n == ORRI_WORDS_MAX ? orri_words_flush(w) : ncclSuccess;
}

ncclResult_t orri_words_await(struct orri_words *w, size_t flag, uint32_t value)
{
    return await(w, flag, value, CU_STREAM_WAIT_VALUE_GEQ);
}

ncclResult_t orri_words_check(struct orri_words *w)
{
    const struct orri_splice *s = w->s;

    return await(w,
                 orri_flag_broken(&s->layout, s->map.local_of[s->map.me]),
                 0,
                 CU_STREAM_WAIT_VALUE_EQ);
}

ncclResult_t orri_words_write(struct orri_words *w, size_t flag, uint32_t value)
{
    CUstreamBatchMemOpParams *p = &w->op[w->n++];

    memset(p, 0, sizeof *p);
    p->writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    p->writeValue.address = w->s->base + flag;
    p->writeValue.value = value;
    p->writeValue.flags = CU_STREAM_WRITE_VALUE_DEFAULT;
    return w->n == ORRI_WORDS_MAX ? orri_words_flush(w) : ncclSuccess;
}

/* ---- who does what --------------------------------------------------------------------------- */

static bool gives(const struct orri_step *st, int rank)
{
    if (orri_is_reduction(st->op))
        return !(st->is_direct && rank == st->s->map.leader[st->s->map.device]);
    return orri_move_gives(st->s, st->op, rank);
}

static bool takes(const struct orri_step *st, int rank)
{
    if (st->op->kind == ORR_CLOCK_OP_REDUCE)
        return rank == st->op->root;
    return orri_is_reduction(st->op) || orri_move_takes(st->s, st->op, rank);
}

static bool has_lead(const struct orri_step *st)
{
    return orri_is_reduction(st->op) || st->s->map.ndevices > 1;
}

/* ---- telling --------------------------------------------------------------------------------- */

enum told { READY, TAKEN, DONE };

static size_t flag_of(const struct orri_splice *s, enum told what, int waiter)
{
    int mine = s->map.local_of[s->map.me];

    if (what == READY)
        return orri_flag_ready(&s->layout, waiter, mine);
    return what == TAKEN ? orri_flag_taken(&s->layout, waiter, mine)
                         : orri_flag_done(&s->layout, waiter);
}

/* In the rows of all who may wait for it. */
static ncclResult_t
tell(const struct orri_step *st, struct orri_words *w, enum told what)
{
    const struct orri_splice *s = st->s;
    int mine = s->map.local_of[s->map.me];
    int n = what == READY && has_lead(st) ? 1 : s->map.count[s->map.device];
    ncclResult_t result = orri_words_check(w);

    for (int i = 0; i < n && result == ncclSuccess; i++)
        if (i != mine)
            result = orri_words_write(w, flag_of(s, what, i), st->number);
    return result;
}

/* ---- the phases ------------------------------------------------------------------------------ */

/* The half is free: of the leader, too, unless it is the leader itself who asks. */
static ncclResult_t await_half(const struct orri_step *st, struct orri_words *w)
{
    struct orri_splice *s = st->s;
    const struct orri_half *half = &s->half[st->half];
    int mine = s->map.local_of[s->map.me];
    ncclResult_t result = ncclSuccess;

    if (mine != 0 && is_before(s->seen_done, half->lead)) {
        result = orri_words_await(w, orri_flag_done(&s->layout, mine), half->lead);
        s->seen_done = half->lead;
    }
    for (int i = 0; i < s->map.count[s->map.device] && result == ncclSuccess; i++) {
        if (i == mine || !is_before(s->seen_taken[i], half->took[i]))
            continue;
        result =
            orri_words_await(w, orri_flag_taken(&s->layout, mine, i), half->took[i]);
        s->seen_taken[i] = half->took[i];
    }
    return result;
}

static ncclResult_t
give_block(const struct orri_step *st, CUdeviceptr to, CUdeviceptr from, size_t count)
{
    if (!st->reduce || !st->reduce->scales)
        return CU(MemcpyDtoDAsync, to, from, count * st->size, st->op->stream);
    return orri_kernel_each(&st->s->kernels,
                            ORRI_MUL,
                            st->op->type,
                            to,
                            from,
                            count,
                            st->reduce->scalar,
                            st->reduce->scalar_at,
                            st->op->stream);
}

static ncclResult_t give(const struct orri_step *st, struct orri_words *w)
{
    struct orri_splice *s = st->s;
    int blocks = orri_blocks_given(s, st->op);
    CUdeviceptr from = (CUdeviceptr)(uintptr_t)st->op->send, to;
    ncclResult_t result;

    if (!gives(st, s->map.me))
        return ncclSuccess;
    result = await_half(st, w);
    if (result == ncclSuccess)
        result = orri_words_flush(w);
    to = orri_slot(st, s->map.me);
    if (result == ncclSuccess && st->here == st->op->count)
        result = give_block(st, to, from, (size_t)blocks * st->here);
    else
        for (int b = 0; b < blocks && result == ncclSuccess; b++)
            result = give_block(st,
                                to + (size_t)b * st->here * st->size,
                                from + ((size_t)b * st->op->count + st->at) * st->size,
                                st->here);
    if (result == ncclSuccess)
        result = tell(st, w, READY);
    return result;
}

static ncclResult_t await_ready(const struct orri_step *st, struct orri_words *w)
{
    const struct orri_map *map = &st->s->map;
    int mine = map->local_of[map->me];
    ncclResult_t result = ncclSuccess;

    for (int i = 0; i < map->count[map->device] && result == ncclSuccess; i++)
        if (i != mine && gives(st, map->members[i]))
            result = orri_words_await(
                w, orri_flag_ready(&st->s->layout, mine, i), st->number);
    return result;
}

/* What the leaders say at the end of an operation: that all was well until then, with what each has sent the others. */
static ncclResult_t await_votes(const struct orri_splice *s, struct orri_words *w)
{
    ncclResult_t result = ncclSuccess;

    for (int d = 0; d < s->map.ndevices && result == ncclSuccess; d++) {
        size_t at = orri_flag_vote(&s->layout, d);
        if (d == s->map.device) /* it has a check of its own */
            continue;
        result = await(w, at, 0, CU_STREAM_WAIT_VALUE_EQ);
        if (result == ncclSuccess)
            result = await(w, at + sizeof(uint32_t), 0, CU_STREAM_WAIT_VALUE_EQ);
    }
    return result;
}

ncclResult_t orri_vote(const struct orri_step *st)
{
    const struct orri_splice *s = st->s;

    if (!st->is_last)
        return ncclSuccess;
    return REAL(AllGather,
                (const void *)(uintptr_t)(s->base + orri_flag_broken(&s->layout, 0)),
                (void *)(uintptr_t)(s->base + orri_flag_vote(&s->layout, 0)),
                2 * sizeof(uint32_t),
                ncclInt8,
                *s->real,
                st->op->stream);
}

static ncclResult_t lead(const struct orri_step *st, struct orri_words *w)
{
    struct orri_splice *s = st->s;
    ncclResult_t result;

    if (!orri_splice_is_leader(s) || !has_lead(st))
        return ncclSuccess;
    result = await_half(st, w);
    if (result == ncclSuccess)
        result = await_ready(st, w);
    if (result == ncclSuccess)
        result = orri_words_check(w);
    if (result == ncclSuccess)
        result = orri_words_flush(w);
    if (result == ncclSuccess)
        result = orri_is_reduction(st->op) ? orri_reduce_lead(st) : orri_move_lead(st);
    if (result == ncclSuccess && st->is_last && s->map.ndevices > 1)
        result = await_votes(s, w);
    if (result == ncclSuccess)
        result = tell(st, w, DONE);
    return result == ncclSuccess ? orri_words_flush(w) : result;
}

static ncclResult_t take_reduced(const struct orri_step *st)
{
    const struct orri_map *map = &st->s->map;
    size_t block = 0;

    if (st->op->kind == ORR_CLOCK_OP_REDUCE_SCATTER)
        block = (size_t)(map->ndevices == 1 ? map->me : map->local_of[map->me]);
    return CU(MemcpyDtoDAsync,
              (CUdeviceptr)(uintptr_t)st->op->recv + st->at * st->size,
              orri_result(st) + block * st->here * st->size,
              st->here * st->size,
              st->op->stream);
}

static ncclResult_t take(const struct orri_step *st, struct orri_words *w)
{
    struct orri_splice *s = st->s;
    ncclResult_t result = ncclSuccess;

    if (takes(st, s->map.me)) {
        if (!has_lead(st))
            result = await_ready(st, w);
        else if (!orri_splice_is_leader(s))
            result = orri_words_await(
                w, orri_flag_done(&s->layout, s->map.local_of[s->map.me]), st->number);
        if (has_lead(st))
            s->seen_done = st->number;
        if (result == ncclSuccess)
            result = orri_words_flush(w);
        if (result == ncclSuccess)
            result = orri_is_reduction(st->op) ? take_reduced(st) : orri_move_take(st);
        if (result == ncclSuccess)
            result = tell(st, w, TAKEN);
    }
    return result;
}

/* What the step leaves for the next one that uses its half; every rank of the device keeps the same account. */
static void note(const struct orri_step *st)
{
    const struct orri_map *map = &st->s->map;
    struct orri_half *half = &st->s->half[st->half];

    if (has_lead(st))
        half->lead = st->number;
    for (int i = 0; i < map->count[map->device]; i++)
        if (takes(st, map->members[i]))
            half->took[i] = st->number;
}

/* ---- operations ------------------------------------------------------------------------------ */

ncclResult_t orri_splice_begin(struct orri_splice *s, CUstream stream)
{
    ncclResult_t result;

    pthread_mutex_lock(&s->lock);
    orri_cu.CtxGetCurrent(&s->before);
    result = s->before == s->ctx ? ncclSuccess : CU(CtxSetCurrent, s->ctx);
    if (result == ncclSuccess)
        result = orri_watch_state(s);
    if (result == ncclSuccess && s->is_used)
        result = CU(StreamWaitEvent, stream, s->order, 0);
    s->has_begun = result == ncclSuccess;
    return result;
}

ncclResult_t
orri_splice_end(struct orri_splice *s, CUstream stream, ncclResult_t result)
{
    if (result == ncclSuccess)
        result = CU(EventRecord, s->order, stream);
    s->is_used = s->is_used || result == ncclSuccess;
    if (s->before != s->ctx)
        orri_cu.CtxSetCurrent(s->before);
    if (result != ncclSuccess && result != ncclInvalidUsage && s->has_begun)
        /* half done: nobody can go on from here */
        orri_watch_tell(s, ORRI_LOST_FAILED, s->map.local_of[s->map.me]);
    pthread_mutex_unlock(&s->lock);
    return result;
}

static struct orri_step step_of(struct orri_splice *s,
                                const struct orri_op *op,
                                const struct orri_reduce *reduce,
                                size_t room,
                                size_t index)
{
    struct orri_step st = {.s = s, .op = op, .reduce = reduce};

    st.size = orri_type_bytes(op->type);
    st.at = index * room;
    st.here = op->count - st.at < room ? op->count - st.at : room;
    st.number = s->step + (uint32_t)index + 1;
    st.half = (int)(st.number % 2);
    st.is_last = st.at + st.here == op->count;
    st.is_direct = reduce && !reduce->scales && s->map.ndevices == 1 &&
                   s->map.n <= ORRI_FAN &&
                   (orri_blocks_given(s, op) == 1 || op->count <= room);
    return st;
}

static ncclResult_t run_steps(struct orri_splice *s,
                              const struct orri_op *op,
                              const struct orri_reduce *reduce,
                              size_t room)
{
    size_t n = (op->count + room - 1) / room;
    struct orri_words w = {.s = s, .stream = op->stream};
    ncclResult_t result = ncclSuccess;

    for (size_t i = 0; i <= n && result == ncclSuccess; i++) {
        if (i < n) {
            struct orri_step st = step_of(s, op, reduce, room, i);
            result = give(&st, &w);
            if (result == ncclSuccess)
                result = lead(&st, &w);
        }
        if (result == ncclSuccess && i > 0) {
            struct orri_step st = step_of(s, op, reduce, room, i - 1);
            result = take(&st, &w);
            note(&st);
        }
    }
    s->step += (uint32_t)n;
    if (result == ncclSuccess)
        result = orri_words_flush(&w);
    return result;
}

ncclResult_t orri_splice_collective(struct orri_splice *s,
                                    const struct orri_op *op,
                                    const struct orri_reduce *reduce)
{
    size_t room = orri_step_room(s, op);
    ncclResult_t result;

    if (op->count == 0)
        return ncclSuccess;
    if (room == 0)
        return orri_nccl_fail(ncclInvalidUsage,
                              "%d ranks on one device need more scratch: set "
                              "ORRERY_SPLICE_BYTES",
                              s->map.most);
    result = orri_splice_begin(s, op->stream);
    if (result == ncclSuccess && !orri_is_reduction(op))
        result = orri_move_own(s, op);
    if (result == ncclSuccess)
        result = run_steps(s, op, orri_is_reduction(op) ? reduce : NULL, room);
    return orri_splice_end(s, op->stream, result);
}
