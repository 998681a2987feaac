/* SPDX-License-Identifier: Apache-2.0
 * reduce.c - reductions: what each device combines by itself, what the leaders send each other, and the rest of the tree (map.h).
 *
 * Between devices a piece is cut into shares, one for each device: every leader sends its parts' values of a share to that share's
 * device, which combines them, and all gather the results.  That moves as much as recursive halving and doubling, in two steps, on
 * any number of devices, and leaves the order to the program of the parts.
 */
#include "splice.h"

#include <stdlib.h>

static CUstream stream_of(const struct orri_step *st)
{
    return st->op->stream;
}

ncclResult_t orri_reduce_of(struct orri_reduce *ret,
                            const struct orri_op *op,
                            const struct orri_redop *redop,
                            int n)
{
    static const enum orri_verb verbs[] = {[ncclSum] = ORRI_SUM,
                                           [ncclProd] = ORRI_PROD,
                                           [ncclMax] = ORRI_MAX,
                                           [ncclMin] = ORRI_MIN,
                                           [ncclAvg] = ORRI_SUM};

    *ret = (struct orri_reduce){.verb = ORRI_SUM};
    if (redop) {
        ret->scales = true;
        ret->scalar = redop->value;
        ret->scalar_at = (CUdeviceptr)(uintptr_t)redop->scalar;
    } else if ((unsigned)op->op >= ncclNumOps) {
        return orri_nccl_fail(
            ncclInvalidArgument, "%d is not a reduction operator", (int)op->op);
    } else {
        ret->verb = verbs[op->op];
        ret->scales = op->op == ncclAvg && !orri_type_is_whole(op->type);
        if (ret->scales)
            ret->scalar = orri_type_reciprocal(op->type, n);
        else if (op->op == ncclAvg)
            ret->divisor = n;
    }
    return ncclSuccess;
}

static int lowest_of_part(const struct orri_subtree *p)
{
    return p->ranks[0];
}

/* Runs a program over values; the last result goes to `out`, if that is not 0. */
static ncclResult_t run(const struct orri_step *st,
                        const struct orri_program *p,
                        const CUdeviceptr *values,
                        CUdeviceptr out,
                        size_t count)
{
    ncclResult_t result = ncclSuccess;

    for (int i = 0; i < p->n && result == ncclSuccess; i++) {
        const struct orri_combine *c = &p->at[i];
        CUdeviceptr in[ORRI_FAN];
        for (int k = 0; k < c->m; k++)
            in[k] = values[c->in[k]];
        result = orri_kernel_combine(&st->s->kernels,
                                     st->reduce->verb,
                                     st->op->type,
                                     out && i == p->n - 1 ? out : in[0],
                                     in,
                                     c->m,
                                     count,
                                     stream_of(st));
    }
    if (p->n == 0 && out && out != values[0] && result == ncclSuccess && count)
        result = CU(MemcpyDtoDAsync, out, values[0], count * st->size, stream_of(st));
    return result;
}

/* Combines what this device can by itself.  out: 0, each into the slot of its lowest rank; else there is one part. */
static ncclResult_t run_parts(const struct orri_step *st, size_t count, CUdeviceptr out)
{
    const struct orri_map *map = &st->s->map;
    CUdeviceptr *values = calloc((size_t)map->n, sizeof *values);
    ncclResult_t result =
        values ? ncclSuccess : orri_nccl_fail(ncclSystemError, "out of memory");

    for (int i = 0; i < map->nparts && result == ncclSuccess; i++) {
        const struct orri_subtree *p = &map->parts[i];
        if (p->device != map->device)
            continue;
        for (int k = 0; k < p->n; k++)
            values[k] = p->ranks[k] == map->me && st->is_direct
                            ? (CUdeviceptr)(uintptr_t)st->op->send + st->at * st->size
                            : orri_slot(st, p->ranks[k]);
        result = run(st, &p->program, values, out, count);
    }
    free(values);
    return result;
}

/* Integers: the average's division, on one device's part of a result. */
static ncclResult_t divide(const struct orri_step *st, CUdeviceptr at, size_t count)
{
    if (!st->reduce->divisor)
        return ncclSuccess;
    return orri_kernel_each(&st->s->kernels,
                            ORRI_DIV,
                            st->op->type,
                            at,
                            at,
                            count,
                            (uint64_t)st->reduce->divisor,
                            0,
                            stream_of(st));
}

/* ---- between devices ------------------------------------------------------------------------ */

/* A range of the parts' values that is to be combined on `device`. */
struct share {
    int device;
    size_t at, count; /* elements */
    CUdeviceptr inbox, out;
};

static ncclResult_t
send_share(const struct orri_step *st, const struct share *sh, int part)
{
    const struct orri_subtree *p = &st->s->map.parts[part];
    CUdeviceptr from = orri_slot(st, lowest_of_part(p)) + sh->at * st->size;

    return REAL(Send,
                (const void *)(uintptr_t)from,
                sh->count * st->size,
                ncclInt8,
                sh->device,
                *st->s->real,
                stream_of(st));
}

static CUdeviceptr
value_in(const struct orri_step *st, const struct share *sh, int part)
{
    return sh->inbox + (size_t)part * sh->count * st->size;
}

static ncclResult_t
receive_share(const struct orri_step *st, const struct share *sh, int part)
{
    return REAL(Recv,
                (void *)(uintptr_t)value_in(st, sh, part),
                sh->count * st->size,
                ncclInt8,
                st->s->map.parts[part].device,
                *st->s->real,
                stream_of(st));
}

/* All of them in one group: on every pair of leaders in the order of shares, then parts. */
static ncclResult_t
exchange(const struct orri_step *st, const struct share *shares, int nshares)
{
    const struct orri_map *map = &st->s->map;
    ncclResult_t result = REAL0(GroupStart), end;

    for (int i = 0; i < nshares; i++)
        for (int p = 0; p < map->nparts && result == ncclSuccess; p++) {
            bool is_mine = map->parts[p].device == map->device;
            bool is_for_me = shares[i].device == map->device;
            if (shares[i].count == 0 || is_mine == is_for_me)
                continue;
            result = is_mine ? send_share(st, &shares[i], p)
                             : receive_share(st, &shares[i], p);
        }
    end = REAL0(GroupEnd);
    return result == ncclSuccess ? end : result;
}

/* The rest of the tree, for a share that is combined here. */
static ncclResult_t finish(const struct orri_step *st, const struct share *sh)
{
    const struct orri_map *map = &st->s->map;
    CUdeviceptr *values = calloc((size_t)map->nparts, sizeof *values);
    ncclResult_t result =
        values ? ncclSuccess : orri_nccl_fail(ncclSystemError, "out of memory");

    for (int p = 0; p < map->nparts && values; p++)
        values[p] =
            map->parts[p].device == map->device
                ? orri_slot(st, lowest_of_part(&map->parts[p])) + sh->at * st->size
                : value_in(st, sh, p);
    if (result == ncclSuccess)
        result = run(st, &map->top, values, sh->out, sh->count);
    if (result == ncclSuccess)
        result = divide(st, sh->out, sh->count);
    free(values);
    return result;
}

static ncclResult_t
exchange_and_finish(const struct orri_step *st, const struct share *shares, int n)
{
    ncclResult_t result = exchange(st, shares, n);

    for (int i = 0; i < n && result == ncclSuccess; i++)
        if (shares[i].device == st->s->map.device && shares[i].count > 0)
            result = finish(st, &shares[i]);
    return result;
}

/* Whole multiples of 64 elements, so that shares stay aligned; the last may be short, or empty. */
static size_t share_of(const struct orri_step *st)
{
    size_t n = (size_t)st->s->map.ndevices;

    return ((st->here + n - 1) / n + 63) / 64 * 64;
}

/* What it sends nobody but the leader writes: so the vote can be given with it. */
static ncclResult_t
gather_shares(const struct orri_step *st, CUdeviceptr mine, size_t bytes)
{
    ncclResult_t result = REAL0(GroupStart), end;

    if (result == ncclSuccess)
        result = REAL(AllGather,
                      (const void *)(uintptr_t)mine,
                      (void *)(uintptr_t)orri_result(st),
                      bytes,
                      ncclInt8,
                      *st->s->real,
                      stream_of(st));
    if (result == ncclSuccess)
        result = orri_vote(st);
    end = REAL0(GroupEnd);
    return result == ncclSuccess ? end : result;
}

static ncclResult_t all_reduce_ordered(const struct orri_step *st)
{
    const struct orri_map *map = &st->s->map;
    size_t each = share_of(st);
    struct share *shares = calloc((size_t)map->ndevices, sizeof *shares);
    ncclResult_t result;

    if (!shares)
        return orri_nccl_fail(ncclSystemError, "out of memory");
    for (int d = 0; d < map->ndevices; d++) {
        size_t at = (size_t)d * each;
        at = at < st->here ? at : st->here;
        shares[d] = (struct share){.device = d,
                                   .at = at,
                                   .count = st->here - at < each ? st->here - at : each,
                                   .inbox = orri_inbox(st),
                                   .out = orri_result(st) +
                                          (size_t)map->device * each * st->size};
    }
    result = exchange_and_finish(st, shares, map->ndevices);
    if (result == ncclSuccess)
        result = gather_shares(st, shares[map->device].out, each * st->size);
    free(shares);
    return result;
}

/* NCCL combines what the devices have, in its own order. */
static ncclResult_t all_reduce_fast(const struct orri_step *st)
{
    static const ncclRedOp_t ops[] = {[ORRI_SUM] = ncclSum,
                                      [ORRI_PROD] = ncclProd,
                                      [ORRI_MAX] = ncclMax,
                                      [ORRI_MIN] = ncclMin};
    ncclResult_t result = REAL0(GroupStart), end;

    if (result == ncclSuccess)
        result = REAL(AllReduce,
                      (const void *)(uintptr_t)orri_slot(st, st->s->map.me),
                      (void *)(uintptr_t)orri_result(st),
                      st->here,
                      st->op->type,
                      ops[st->reduce->verb],
                      *st->s->real,
                      stream_of(st));
    if (result == ncclSuccess)
        result = orri_vote(st);
    end = REAL0(GroupEnd);
    result = result == ncclSuccess ? end : result;
    return result == ncclSuccess ? divide(st, orri_result(st), st->here) : result;
}

static ncclResult_t reduce_to_root(const struct orri_step *st)
{
    struct share whole = {.device = st->s->map.device_of[st->op->root],
                          .count = st->here,
                          .inbox = orri_inbox(st),
                          .out = orri_result(st)};

    return exchange_and_finish(st, &whole, 1);
}

/* Each rank's block goes to its device. */
static ncclResult_t reduce_scatter(const struct orri_step *st)
{
    const struct orri_map *map = &st->s->map;
    struct share *shares = calloc((size_t)map->n, sizeof *shares);
    size_t block = st->here * st->size;
    ncclResult_t result;

    if (!shares)
        return orri_nccl_fail(ncclSystemError, "out of memory");
    for (int r = 0; r < map->n; r++) {
        size_t local = (size_t)map->local_of[r];
        shares[r] = (struct share){.device = map->device_of[r],
                                   .at = (size_t)r * st->here,
                                   .count = st->here,
                                   .inbox = orri_inbox(st) +
                                            local * (size_t)map->nparts * block,
                                   .out = orri_result(st) + local * block};
    }
    result = exchange_and_finish(st, shares, map->n);
    free(shares);
    return result;
}

ncclResult_t orri_reduce_lead(const struct orri_step *st)
{
    const struct orri_map *map = &st->s->map;
    bool scatters = st->op->kind == ORR_CLOCK_OP_REDUCE_SCATTER;
    size_t count = st->here * (scatters ? (size_t)map->n : 1);
    bool is_alone = map->ndevices == 1;
    ncclResult_t result = run_parts(st, count, is_alone ? orri_result(st) : 0);

    if (result != ncclSuccess)
        return result;
    if (is_alone)
        return divide(st, orri_result(st), count);
    if (st->op->kind == ORR_CLOCK_OP_ALL_REDUCE)
        return map->is_ordered ? all_reduce_ordered(st) : all_reduce_fast(st);
    result = scatters ? reduce_scatter(st) : reduce_to_root(st);
    return result == ncclSuccess ? orri_vote(st) : result;
}
