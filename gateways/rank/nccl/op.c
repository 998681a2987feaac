/* SPDX-License-Identifier: Apache-2.0
 * op.c - one collective, send or receive (op.h).
 */
#include "op.h"
#include "places.h"

#include <stdint.h>

static bool reduces(const struct orri_op *op)
{
    return op->kind == ORR_CLOCK_OP_ALL_REDUCE || op->kind == ORR_CLOCK_OP_REDUCE ||
           op->kind == ORR_CLOCK_OP_REDUCE_SCATTER;
}

static bool is_exchange(const struct orri_op *op)
{
    return op->kind == ORR_CLOCK_OP_SEND || op->kind == ORR_CLOCK_OP_RECV;
}

ncclResult_t orri_op_call(const struct orri_op *o, ncclComm_t comm, ncclRedOp_t redop)
{
    CUstream stream = o->stream;

    switch ((int)o->kind) {
    case ORR_CLOCK_OP_ALL_REDUCE:
        return REAL(
            AllReduce, o->send, o->recv, o->count, o->type, redop, comm, stream);
    case ORR_CLOCK_OP_REDUCE:
        return REAL(
            Reduce, o->send, o->recv, o->count, o->type, redop, o->root, comm, stream);
    case ORR_CLOCK_OP_BROADCAST:
        return REAL(
            Broadcast, o->send, o->recv, o->count, o->type, o->root, comm, stream);
    case ORR_CLOCK_OP_ALL_GATHER:
        return REAL(AllGather, o->send, o->recv, o->count, o->type, comm, stream);
    case ORR_CLOCK_OP_REDUCE_SCATTER:
        return REAL(
            ReduceScatter, o->send, o->recv, o->count, o->type, redop, comm, stream);
    case ORR_CLOCK_OP_ALL_TO_ALL:
        return REAL(AlltoAll, o->send, o->recv, o->count, o->type, comm, stream);
    case ORR_CLOCK_OP_GATHER:
        return REAL(Gather, o->send, o->recv, o->count, o->type, o->root, comm, stream);
    case ORR_CLOCK_OP_SCATTER:
        return REAL(
            Scatter, o->send, o->recv, o->count, o->type, o->root, comm, stream);
    case ORR_CLOCK_OP_SEND:
        return REAL(Send, o->send, o->count, o->type, o->root, comm, stream);
    case ORR_CLOCK_OP_RECV:
        return REAL(Recv, o->recv, o->count, o->type, o->root, comm, stream);
    default:
        return orri_nccl_fail(ncclInternalError, "an unknown operation");
    }
}

struct orri_clock *orri_op_clock(struct orri_comm *c, const struct orri_op *op)
{
    if (op->kind == ORR_CLOCK_OP_SEND)
        return orri_comm_pair(c, ORR_CLOCK_SEND, op->root);
    if (op->kind == ORR_CLOCK_OP_RECV)
        return orri_comm_pair(c, ORR_CLOCK_RECV, op->root);
    return c->clock;
}

/* Whether any NCCL refuses this.  Types that only a newer one knows may pass. */
static bool is_sound(const struct orri_comm *c, const struct orri_op *op)
{
    static const uint8_t bytes[ncclNumTypes] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
    int n = atomic_load(&c->n);
    bool has_root = op->root >= 0, is_root = op->root == c->me;
    bool reads = op->kind == ORR_CLOCK_OP_BROADCAST || op->kind == ORR_CLOCK_OP_SCATTER
                     ? is_root
                     : op->kind != ORR_CLOCK_OP_RECV;
    bool writes = op->kind == ORR_CLOCK_OP_REDUCE || op->kind == ORR_CLOCK_OP_GATHER
                      ? is_root
                      : op->kind != ORR_CLOCK_OP_SEND;
    size_t size, bytes_all;
    int version;

    if ((unsigned)op->type < (unsigned)ncclNumTypes)
        size = bytes[op->type];
    else if ((int)op->type > 0 && REAL(GetVersion, &version) == ncclSuccess &&
             version / 100 > NCCL_VERSION_CODE / 100)
        size = 1;
    else
        return false;
    if (op->count == 0)
        return !has_root || op->root < n;
    return (!has_root || op->root < n) &&
           !__builtin_mul_overflow(op->count, size * (size_t)n, &bytes_all) &&
           (!reads || op->send) && (!writes || op->recv);
}

static bool needs_root(const struct orri_op *op)
{
    return is_exchange(op) || op->kind == ORR_CLOCK_OP_REDUCE ||
           op->kind == ORR_CLOCK_OP_BROADCAST || op->kind == ORR_CLOCK_OP_GATHER ||
           op->kind == ORR_CLOCK_OP_SCATTER;
}

/* What is unsound is put to the real library, uncounted, so that the program hears what it would without us. */
static ncclResult_t
refuse(struct orri_comm *c, const struct orri_op *op, ncclRedOp_t redop)
{
    ncclResult_t result = ncclInvalidArgument;

    orri_use_begin();
    if (atomic_load(&c->splice))
        orri_nccl_fail(ncclInvalidArgument,
                       "a bad type, count, root or pointer: rank %d of %d",
                       c->me,
                       atomic_load(&c->n));
    else if (atomic_load(&c->real))
        result = orri_op_call(op, atomic_load(&c->real), redop);
    orri_use_end();
    return result == ncclSuccess || result == ncclInProgress ? ncclInvalidArgument
                                                             : result;
}

static ncclResult_t check(struct orri_comm *c,
                          const struct orri_op *op,
                          struct orri_redop **take_ref,
                          ncclRedOp_t *ret_real)
{
    ncclResult_t result = orri_comm_check(c);

    *ret_real = op->op;
    if (result == ncclSuccess && (!is_sound(c, op) || (needs_root(op) && op->root < 0)))
        return refuse(c, op, op->op);
    if (result == ncclSuccess && reduces(op) && (unsigned)op->op >= ncclNumOps)
        result = orri_redop_find(c, op->op, op->type, take_ref, ret_real);
    return result;
}

ncclResult_t orri_op_splice(struct orri_comm *c,
                            const struct orri_op *op,
                            const struct orri_redop *redop)
{
    struct orri_splice *s = atomic_load(&c->splice);
    struct orri_reduce reduce = {.verb = ORRI_SUM};
    ncclResult_t result = ncclSuccess;

    if (orri_stream_is_capturing(op->stream))
        return orri_nccl_fail(
            ncclInvalidUsage,
            "ranks that share a device cannot be captured in a graph");
    if (reduces(op))
        result = orri_reduce_of(&reduce, op, redop, atomic_load(&c->n));
    return result == ncclSuccess ? orri_splice_collective(s, op, &reduce) : result;
}

static void note_capture(CUstream stream)
{
    static atomic_bool is_noted;

    if (!atomic_load_explicit(&is_noted, memory_order_relaxed) &&
        orri_stream_is_capturing(stream)) {
        atomic_store(&is_noted, true);
        orri_rank_limit("has a CUDA graph with collectives in it",
                        "has a CUDA graph with collectives in it");
    }
}

ncclResult_t orri_op_issue(const struct orri_op *op)
{
    struct orri_comm *c;
    struct orri_redop *redop = NULL;
    struct orri_clock *clock;
    ncclComm_t comm;
    ncclRedOp_t real;
    ncclResult_t result;

    if (orri_comm_is_foreign(op->comm))
        return orri_group_is_open() ? orri_group_note(orri_group_add_op(NULL, op, NULL))
                                    : orri_op_call(op, op->comm, op->op);
    c = orri_comm_get(op->comm);
    if (!c)
        return orri_group_note(ncclInvalidArgument);
    result = check(c, op, &redop, &real);
    if (result != ncclSuccess)
        return orri_group_note(result);
    note_capture(op->stream);
    if (orri_group_is_open())
        return orri_group_note(orri_group_add_op(c, op, redop));
    clock = orri_op_clock(c, op);
    orri_gate_enter(&clock, clock ? 1 : 0, op->kind);
    if (redop)
        real = redop->real; /* it may have been made anew while we were parked */
    result = orri_comm_real(c, &comm);
    if (result == ncclSuccess && atomic_load(&c->splice))
        result = is_exchange(op) ? orri_splice_exchange(atomic_load(&c->splice),
                                                        (const struct orri_op *[]){op},
                                                        1)
                                 : orri_op_splice(c, op, redop);
    else if (result == ncclSuccess)
        result = orri_op_call(op, comm, real);
    orri_gate_leave();
    if (redop)
        orri_redop_put(c, redop);
    return result;
}
