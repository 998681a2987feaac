/* SPDX-License-Identifier: Apache-2.0
 * collective.c - collectives as supersteps on the data lane (segment.h, op.h).
 *
 * Buffers of any size go through the halves in chunks. A reduction takes two steps a
 * chunk: all put their input there; then each rank reduces its own part of the chunk,
 * in place, since nobody else looks at that part, and puts the result into the next
 * half. Everything else takes one step. Input is always put before output is written,
 * chunk by chunk, which is what makes in-place calls right.
 */
#include "op.h"

#include <stdio.h>
#include <string.h>

struct run {
    struct ncclComm *comm;
    const struct orri_op *op;
    struct orri_why *why;
    size_t size;     /* of an element */
    bool is_checked; /* intents have been compared */
};

static const char *const kind_names[OP_MAX_] = {
    [OP_ALL_REDUCE] = "AllReduce",
    [OP_REDUCE] = "Reduce",
    [OP_BROADCAST] = "Broadcast",
    [OP_ALL_GATHER] = "AllGather",
    [OP_REDUCE_SCATTER] = "ReduceScatter",
    [OP_ALL_TO_ALL] = "AlltoAll",
    [OP_GATHER] = "Gather",
    [OP_SCATTER] = "Scatter",
    [OP_SEND] = "Send",
    [OP_RECV] = "Recv",
};

const char *orri_kind_name(enum orri_kind kind)
{
    return (unsigned)kind < OP_MAX_ ? kind_names[kind] : "unknown";
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static char *half(struct run *r, int rank)
{
    return orri_lane_half(&r->comm->seg, LANE_DATA, rank);
}

static void describe(const struct orri_intent *i, char *text, size_t size)
{
    static const char *const ops[] = {"sum", "prod", "max", "min", "avg"};
    bool reduces = i->kind == OP_ALL_REDUCE || i->kind == OP_REDUCE ||
                   i->kind == OP_REDUCE_SCATTER;

    snprintf(text,
             size,
             "%s(count=%llu, %s%s%s, root=%d)",
             orri_kind_name((enum orri_kind)i->kind),
             (unsigned long long)i->count,
             orri_type_name((ncclDataType_t)i->type),
             reduces ? ", " : "",
             reduces && i->op < 5 ? ops[i->op] : "",
             (int)i->root);
}

static void declare_intent(struct run *r)
{
    struct orri_intent *mine =
        orri_lane_intent(&r->comm->seg, LANE_DATA, r->comm->rank);

    *mine = (struct orri_intent){.kind = r->op->kind,
                                 .type = r->op->type,
                                 .op = r->op->reduction.op,
                                 .root = r->op->root,
                                 .count = r->op->count};
}

/* All ranks compare all intents with those of rank 0, and so agree on the outcome. */
static ncclResult_t compare_intents(struct run *r)
{
    struct orri_segment *seg = &r->comm->seg;
    const struct orri_intent *first = orri_lane_intent(seg, LANE_DATA, 0);
    char a[96], b[96];

    for (int rank = 1; rank < seg->nranks; rank++) {
        const struct orri_intent *other = orri_lane_intent(seg, LANE_DATA, rank);
        if (memcmp(first, other, sizeof *first) == 0)
            continue;
        describe(first, a, sizeof a);
        describe(other, b, sizeof b);
        return orri_why_set(r->why,
                            ncclInvalidUsage,
                            "ranks disagree: rank 0 calls %s, rank %d calls %s",
                            a,
                            rank,
                            b);
    }
    return ncclSuccess;
}

static ncclResult_t meet(struct run *r)
{
    struct orri_segment *seg = &r->comm->seg;

    if (!r->is_checked)
        declare_intent(r);
    if (orri_lane_meet(seg, LANE_DATA, 0) != WAIT_OK)
        return orri_comm_remote_error(r->comm, -1, r->why);
    if (r->is_checked)
        return ncclSuccess;
    r->is_checked = true;
    return compare_intents(r);
}

static void next_step(struct run *r)
{
    orri_lane_next(&r->comm->seg, LANE_DATA);
}

/* Puts input, times the scalar where the reduction has one, at `offset` of the own
 * half. */
static void put(struct run *r, size_t offset, const void *from, size_t count)
{
    const struct orri_reduction *by = &r->op->reduction;
    char *to = half(r, r->comm->rank) + offset;
    union orri_scalar scalar = by->scalar;

    if (count == 0)
        return;
    if (!by->scales) {
        memcpy(to, from, count * r->size);
        return;
    }
    if (by->scalar_on_device)
        memcpy(scalar.bytes, by->scalar_on_device, r->size);
    orri_scale(to, from, count, r->op->type, scalar);
}

static void take(struct run *r, void *to, const char *from, size_t count)
{
    if (count > 0)
        memcpy(to, from, count * r->size);
}

/* The promised order. Uses the inputs as scratch. */
static void
reduce_tree(struct run *r, char *const *in, size_t offset, void *result, size_t count)
{
    int n = r->comm->nranks;
    ncclRedOp_t op = r->op->reduction.op;

    if (count == 0)
        return;
    if (n == 1)
        memcpy(result, in[0] + offset, count * r->size);
    for (int d = 1; d < n; d *= 2) {
        for (int i = 0; i + d < n; i += 2 * d) {
            char *a = in[i] + offset, *b = in[i + d] + offset;
            orri_combine(2 * d >= n ? result : a,
                         a,
                         b,
                         count,
                         r->op->type,
                         op == ncclAvg ? ncclSum : op);
        }
    }
    if (op == ncclAvg && !orri_type_is_float(r->op->type))
        orri_divide(result, count, r->op->type, (unsigned)n);
}

static void list_halves(struct run *r, char **in)
{
    for (int rank = 0; rank < r->comm->nranks; rank++)
        in[rank] = half(r, rank);
}

/* Where rank's part of a chunk begins, in elements; a cache line apart. */
static size_t part_at(const struct run *r, int rank, size_t count)
{
    size_t line = 64 / r->size, n = (size_t)r->comm->nranks;
    size_t part = ((count + n - 1) / n + line - 1) / line * line;

    return least(part * (size_t)rank, count);
}

/* AllReduce, and Reduce, in which only the root takes the result. */
static ncclResult_t run_reduce(struct run *r)
{
    const struct orri_op *op = r->op;
    int me = r->comm->rank, n = r->comm->nranks;
    size_t chunk = ORRI_HALF_BYTES / r->size, at = 0;
    char *in[ORRI_RANKS_MAX], *out = op->recv;
    ncclResult_t result;

    do {
        size_t count = least(chunk, op->count - at);
        size_t from = part_at(r, me, count), to = part_at(r, me + 1, count);
        put(r, 0, (const char *)op->send + at * r->size, count);
        if ((result = meet(r)) != ncclSuccess)
            return result;
        list_halves(r, in);
        next_step(r);
        reduce_tree(r, in, from * r->size, half(r, me) + from * r->size, to - from);
        if ((result = meet(r)) != ncclSuccess)
            return result;
        for (int i = 0; i < n && (op->kind == OP_ALL_REDUCE || me == op->root); i++) {
            from = part_at(r, i, count);
            to = part_at(r, i + 1, count);
            take(
                r, out + (at + from) * r->size, half(r, i) + from * r->size, to - from);
        }
        next_step(r);
        at += count;
    } while (at < op->count);
    return ncclSuccess;
}

/* Elements of one block in a chunk that holds a block for each rank. */
static size_t block_of_chunk(const struct run *r)
{
    return (ORRI_HALF_BYTES / (size_t)r->comm->nranks & ~(size_t)63) / r->size;
}

/* Puts elements [at, at + count) of every block of the input. */
static void put_blocks(struct run *r, size_t block, size_t at, size_t count)
{
    for (size_t i = 0; i < (size_t)r->comm->nranks; i++)
        put(r,
            i * block * r->size,
            (const char *)r->op->send + (i * r->op->count + at) * r->size,
            count);
}

/* ReduceScatter, AlltoAll, Scatter: a block for each rank from all ranks or the root.
 */
static ncclResult_t run_blocks(struct run *r)
{
    const struct orri_op *op = r->op;
    size_t block = block_of_chunk(r), at = 0, mine;
    char *in[ORRI_RANKS_MAX], *out = op->recv;
    ncclResult_t result;

    mine = (size_t)r->comm->rank * block * r->size;
    do {
        size_t count = least(block, op->count - at);
        if (op->kind != OP_SCATTER || r->comm->rank == op->root)
            put_blocks(r, block, at, count);
        if ((result = meet(r)) != ncclSuccess)
            return result;
        list_halves(r, in);
        if (op->kind == OP_REDUCE_SCATTER)
            reduce_tree(r, in, mine, out + at * r->size, count);
        else if (op->kind == OP_SCATTER)
            take(r, out + at * r->size, in[op->root] + mine, count);
        else
            for (size_t i = 0; i < (size_t)r->comm->nranks; i++)
                take(r, out + (i * op->count + at) * r->size, in[i] + mine, count);
        next_step(r);
        at += count;
    } while (at < op->count);
    return ncclSuccess;
}

/* AllGather, Gather, Broadcast: what one or all put goes to all or the root. */
static ncclResult_t run_whole(struct run *r)
{
    const struct orri_op *op = r->op;
    int me = r->comm->rank, n = r->comm->nranks;
    size_t chunk = ORRI_HALF_BYTES / r->size, at = 0;
    char *out = op->recv;
    ncclResult_t result;

    do {
        size_t count = least(chunk, op->count - at);
        if (op->kind != OP_BROADCAST || me == op->root)
            put(r, 0, (const char *)op->send + at * r->size, count);
        if ((result = meet(r)) != ncclSuccess)
            return result;
        if (op->kind == OP_BROADCAST)
            take(r, out + at * r->size, half(r, op->root), count);
        else if (op->kind == OP_ALL_GATHER || me == op->root)
            for (int i = 0; i < n; i++)
                take(
                    r, out + ((size_t)i * op->count + at) * r->size, half(r, i), count);
        next_step(r);
        at += count;
    } while (at < op->count);
    return ncclSuccess;
}

ncclResult_t orri_collective_run(struct ncclComm *comm,
                                 const struct orri_op *op,
                                 struct orri_why *why)
{
    struct run r = {
        .comm = comm, .op = op, .why = why, .size = orri_type_size(op->type)};

    switch (op->kind) {
    case OP_ALL_REDUCE:
    case OP_REDUCE:
        return run_reduce(&r);
    case OP_REDUCE_SCATTER:
    case OP_ALL_TO_ALL:
    case OP_SCATTER:
        return run_blocks(&r);
    case OP_BROADCAST:
    case OP_ALL_GATHER:
    case OP_GATHER:
        return run_whole(&r);
    case OP_SEND:
    case OP_RECV:
    case OP_MAX_:
        break;
    }
    return orri_why_set(why, ncclInternalError, "not a collective");
}
