/* SPDX-License-Identifier: Apache-2.0
 * move.c - collectives that move blocks and combine nothing.
 *
 * A rank puts one block into its slot, or one for each rank.  Ranks of its device take them from there.  What is for other devices
 * the leaders send, into the inbox there: a block that all want once for each device, by real broadcasts; else by sends, in the order of
 * source, then destination.
 */
#include "splice.h"

static bool has_root(const struct orri_op *op)
{
    return op->kind == ORR_CLOCK_OP_BROADCAST || op->kind == ORR_CLOCK_OP_SCATTER ||
           op->kind == ORR_CLOCK_OP_GATHER;
}

static bool is_from_root(const struct orri_op *op)
{
    return op->kind == ORR_CLOCK_OP_BROADCAST || op->kind == ORR_CLOCK_OP_SCATTER;
}

/* Whether a block goes from one rank to another. */
static bool goes(const struct orri_op *op, int from, int to)
{
    if (is_from_root(op))
        return from == op->root;
    return !has_root(op) || to == op->root;
}

int orri_blocks_given(const struct orri_splice *s, const struct orri_op *op)
{
    return op->kind == ORR_CLOCK_OP_SCATTER || op->kind == ORR_CLOCK_OP_ALL_TO_ALL ||
                   op->kind == ORR_CLOCK_OP_REDUCE_SCATTER
               ? s->map.n
               : 1;
}

bool orri_is_reduction(const struct orri_op *op)
{
    return op->kind == ORR_CLOCK_OP_ALL_REDUCE || op->kind == ORR_CLOCK_OP_REDUCE ||
           op->kind == ORR_CLOCK_OP_REDUCE_SCATTER;
}

bool orri_move_gives(const struct orri_splice *s, const struct orri_op *op, int rank)
{
    for (int r = 0; r < s->map.n; r++)
        if (r != rank && goes(op, rank, r))
            return true;
    return false;
}

bool orri_move_takes(const struct orri_splice *s, const struct orri_op *op, int rank)
{
    for (int r = 0; r < s->map.n; r++)
        if (r != rank && goes(op, r, rank))
            return true;
    return false;
}

/* Inbox blocks of a device, at most. */
static size_t blocks_received(const struct orri_splice *s, const struct orri_op *op)
{
    size_t n = (size_t)s->map.n, most = (size_t)s->map.most;

    switch ((int)op->kind) {
    case ORR_CLOCK_OP_REDUCE:
        return (size_t)s->map.nparts;
    case ORR_CLOCK_OP_REDUCE_SCATTER:
        return (size_t)s->map.nparts * most;
    case ORR_CLOCK_OP_ALL_GATHER:
    case ORR_CLOCK_OP_GATHER:
        return n;
    case ORR_CLOCK_OP_SCATTER:
        return most;
    case ORR_CLOCK_OP_ALL_TO_ALL:
        return n * most;
    default: /* of an all-reduce the layout sees to it */
        return op->kind == ORR_CLOCK_OP_ALL_REDUCE ? 0 : 1;
    }
}

size_t orri_step_room(const struct orri_splice *s, const struct orri_op *op)
{
    size_t size = orri_type_bytes(op->type), received = blocks_received(s, op);
    size_t room = s->layout.slot / (size_t)orri_blocks_given(s, op) / size;

    if (s->map.ndevices > 1 && received > 0 && s->layout.inbox / received / size < room)
        room = s->layout.inbox / received / size;
    return room > 64 ? room / 64 * 64 : room; /* blocks stay aligned */
}

/* ---- what the leaders send each other --------------------------------------------------------- */

static CUdeviceptr given_by(const struct orri_step *st, int from, int to)
{
    size_t block = orri_blocks_given(st->s, st->op) > 1 ? (size_t)to : 0;

    return orri_slot(st, from) + block * st->here * st->size;
}

static CUdeviceptr received_from(const struct orri_step *st, int from, int to)
{
    const struct orri_map *map = &st->s->map;
    size_t number = 0;

    if (st->op->kind == ORR_CLOCK_OP_SCATTER)
        number = (size_t)map->local_of[to];
    else if (st->op->kind == ORR_CLOCK_OP_ALL_TO_ALL)
        number = (size_t)map->local_of[to] * (size_t)map->n + (size_t)from;
    else if (st->op->kind != ORR_CLOCK_OP_BROADCAST)
        number = (size_t)from;
    return orri_inbox(st) + number * st->here * st->size;
}

static ncclResult_t broadcast_one(const struct orri_step *st, int from)
{
    bool is_here = orri_is_here(st->s, from);
    CUdeviceptr at = is_here ? given_by(st, from, 0) : received_from(st, from, 0);

    return REAL(Broadcast,
                (const void *)(uintptr_t)at,
                (void *)(uintptr_t)at,
                st->here * st->size,
                ncclInt8,
                st->s->map.device_of[from],
                *st->s->real,
                st->op->stream);
}

static ncclResult_t send_one(const struct orri_step *st, int from, int to)
{
    const struct orri_map *map = &st->s->map;
    size_t bytes = st->here * st->size;

    if (map->device_of[from] == map->device_of[to])
        return ncclSuccess;
    if (orri_is_here(st->s, from))
        return REAL(Send,
                    (const void *)(uintptr_t)given_by(st, from, to),
                    bytes,
                    ncclInt8,
                    map->device_of[to],
                    *st->s->real,
                    st->op->stream);
    if (orri_is_here(st->s, to))
        return REAL(Recv,
                    (void *)(uintptr_t)received_from(st, from, to),
                    bytes,
                    ncclInt8,
                    map->device_of[from],
                    *st->s->real,
                    st->op->stream);
    return ncclSuccess;
}

static ncclResult_t send_from(const struct orri_step *st, int from, bool is_same_to_all)
{
    ncclResult_t result = ncclSuccess;

    if (is_same_to_all)
        return broadcast_one(st, from);
    for (int to = 0; to < st->s->map.n && result == ncclSuccess; to++)
        if (goes(st->op, from, to))
            result = send_one(st, from, to);
    return result;
}

ncclResult_t orri_move_lead(const struct orri_step *st)
{
    bool is_same_to_all = st->op->kind == ORR_CLOCK_OP_BROADCAST ||
                          st->op->kind == ORR_CLOCK_OP_ALL_GATHER;
    ncclResult_t result = REAL0(GroupStart), end;

    for (int from = 0; from < st->s->map.n && result == ncclSuccess; from++)
        if (orri_move_gives(st->s, st->op, from))
            result = send_from(st, from, is_same_to_all);
    end = REAL0(GroupEnd);
    result = result == ncclSuccess ? end : result;
    return result == ncclSuccess ? orri_vote(st) : result;
}

/* ---- what a rank takes ----------------------------------------------------------------------- */

ncclResult_t
orri_copy(struct orri_copier *c, CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    ncclResult_t result = ncclSuccess;

    if (c->bytes > 0 && c->to + c->bytes == to && c->from + c->bytes == from) {
        c->bytes += bytes;
        return ncclSuccess;
    }
    result = orri_copy_flush(c);
    c->to = to;
    c->from = from;
    c->bytes = to == from ? 0 : bytes;
    return result;
}

ncclResult_t orri_copy_flush(struct orri_copier *c)
{
    size_t bytes = c->bytes;

    c->bytes = 0;
    return bytes == 0 ? ncclSuccess
                      : CU(MemcpyDtoDAsync, c->to, c->from, bytes, c->stream);
}

/* Where what comes from a rank goes, in the program's buffer. */
static CUdeviceptr output(const struct orri_op *op, int from, size_t at, size_t size)
{
    size_t block = is_from_root(op) ? 0 : (size_t)from;

    return (CUdeviceptr)(uintptr_t)op->recv + (block * op->count + at) * size;
}

ncclResult_t orri_move_take(const struct orri_step *st)
{
    int me = st->s->map.me;
    struct orri_copier c = {.stream = st->op->stream};
    ncclResult_t result = ncclSuccess, end;

    for (int from = 0; from < st->s->map.n && result == ncclSuccess; from++) {
        if (from == me || !goes(st->op, from, me))
            continue;
        result = orri_copy(&c,
                           output(st->op, from, st->at, st->size),
                           orri_is_here(st->s, from) ? given_by(st, from, me)
                                                     : received_from(st, from, me),
                           st->here * st->size);
    }
    end = orri_copy_flush(&c);
    return result == ncclSuccess ? end : result;
}

ncclResult_t orri_move_own(struct orri_splice *s, const struct orri_op *op)
{
    size_t size = orri_type_bytes(op->type), me = (size_t)s->map.me;
    bool gives_many = orri_blocks_given(s, op) > 1;
    CUdeviceptr from =
        (CUdeviceptr)(uintptr_t)op->send + (gives_many ? me * op->count * size : 0);
    CUdeviceptr to = output(op, s->map.me, 0, size);

    if (!goes(op, s->map.me, s->map.me) || from == to)
        return ncclSuccess;
    return CU(MemcpyDtoDAsync, to, from, op->count * size, op->stream);
}
