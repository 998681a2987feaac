/* SPDX-License-Identifier: Apache-2.0
 * cases_collective.c - every collective, type and operator against sums done here.
 */
#include "suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static ncclComm_t const no_comm = NULL;

/* Small enough that every type holds every partial result exactly. */
static double input(ncclRedOp_t op, int rank, size_t i)
{
    unsigned x = ((unsigned)rank * 2654435761u ^ (unsigned)i * 40503u) >> 9;

    if (op == ncclProd)
        return 1 + (x & 1);
    if (op == ncclMax || op == ncclMin)
        return x % 9;
    return x & 1;
}

static double expected(ncclRedOp_t op, int world, size_t i)
{
    double v = input(op, 0, i);

    for (int r = 1; r < world; r++) {
        double x = input(op, r, i);
        if (op == ncclProd)
            v *= x;
        else if (op == ncclMax)
            v = x > v ? x : v;
        else if (op == ncclMin)
            v = x < v ? x : v;
        else
            v += x;
    }
    return v;
}

static double after(ncclRedOp_t op, ncclDataType_t type, int world, double v)
{
    if (op != ncclAvg)
        return v;
    return type_is_float(type) ? v / world : trunc(v / world);
}

static void fill(const struct array *a, ncclRedOp_t op, int rank)
{
    double *v = doubles(a->count);

    for (size_t i = 0; i < a->count; i++)
        v[i] = input(op, rank, i);
    array_write(a, v);
    free(v);
}

static void
expect(const struct array *a, ncclRedOp_t op, int world, size_t from, const char *what)
{
    double *v = doubles(a->count);

    for (size_t i = 0; i < a->count; i++)
        v[i] = after(op, a->type, world, expected(op, world, from + i));
    /* An average rounds 1/n and each sum: a few steps of the type at most. */
    array_expect(a, v, op == ncclAvg ? 4 : 0, what);
    free(v);
}

static const char *const op_names[] = {"AllReduce sum",
                                       "AllReduce prod",
                                       "AllReduce max",
                                       "AllReduce min",
                                       "AllReduce avg"};

static void types_and_operators(struct rank *r)
{
    ncclComm_t comm = suite_comm(r, 0);
    size_t count = 777;

    for (int t = 0; t < ncclNumTypes; t++) {
        struct array in = array_new(count, (ncclDataType_t)t), out = in;
        out = array_new(count, in.type);
        for (int o = 0; o < ncclNumOps; o++) {
            ncclRedOp_t op = (ncclRedOp_t)o;
            fill(&in, op, r->rank);
            OK(ncclAllReduce, in.at, out.at, count, in.type, op, comm, r->stream);
            suite_sync(r);
            expect(&out, op, r->world, 0, op_names[o]);
        }
        array_free(&in);
        array_free(&out);
    }
    OK(ncclCommDestroy, comm);
}

static void sizes(struct rank *r)
{
    static const size_t counts[] = {0, 1, 2, 63, 65, 1000, 65536, 65537, 200003};
    ncclComm_t comm = suite_comm(r, 0);

    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct array a = array_new(counts[i], ncclFloat32);
        fill(&a, ncclSum, r->rank);
        OK(ncclAllReduce, a.at, a.at, a.count, a.type, ncclSum, comm, r->stream);
        suite_sync(r);
        expect(&a, ncclSum, r->world, 0, "AllReduce in place");
        fill(&a, ncclSum, r->rank);
        OK(ncclReduce,
           a.at,
           a.at,
           a.count,
           a.type,
           ncclSum,
           r->world - 1,
           comm,
           r->stream);
        suite_sync(r);
        if (r->rank == r->world - 1)
            expect(&a, ncclSum, r->world, 0, "Reduce in place");
        array_free(&a);
    }
    OK(ncclCommDestroy, comm);
}

static void reduce_scatter(struct rank *r)
{
    ncclComm_t comm = suite_comm(r, 0);
    size_t counts[] = {1, 100, 40001};

    for (size_t i = 0; i < 3; i++) {
        size_t n = counts[i], mine = n * (size_t)r->rank;
        struct array in = array_new(n * (size_t)r->world, ncclInt32);
        struct array out = array_new(n, ncclInt32), part = out;
        fill(&in, ncclMax, r->rank);
        OK(ncclReduceScatter, in.at, out.at, n, in.type, ncclMax, comm, r->stream);
        suite_sync(r);
        expect(&out, ncclMax, r->world, mine, "ReduceScatter");
        part.at = (char *)in.at + mine * 4;
        OK(ncclReduceScatter, in.at, part.at, n, in.type, ncclMax, comm, r->stream);
        suite_sync(r);
        expect(&part, ncclMax, r->world, mine, "ReduceScatter in place");
        array_free(&in);
        array_free(&out);
    }
    OK(ncclCommDestroy, comm);
}

/* What rank `from` has at i; it fits a byte, and neither ranks nor places look alike. */
static double mark(int from, size_t i)
{
    return (double)(((size_t)from * 29 + i * 7 + i / 1000) % 251);
}

static struct array marked(int from, size_t count, ncclDataType_t type)
{
    struct array a = array_new(count, type);
    double *v = doubles(count);

    for (size_t i = 0; i < count; i++)
        v[i] = mark(from, i);
    array_write(&a, v);
    free(v);
    return a;
}

/* Block b of the array holds what rank from[b] had from element at[b] on. */
static void expect_blocks(const struct array *a,
                          int blocks,
                          const int *from,
                          const size_t *at,
                          const char *what)
{
    double *v = doubles(a->count);
    size_t n = a->count / (size_t)blocks;

    for (size_t i = 0; i < n * (size_t)blocks; i++)
        v[i] = mark(from[i / n], at[i / n] + i % n);
    array_expect(a, v, 0, what);
    free(v);
}

static void broadcast(struct rank *r)
{
    ncclComm_t comm = suite_comm(r, 0);
    size_t counts[] = {3, 300000}, zero = 0;

    for (int root = 0; root < r->world; root++) {
        for (size_t c = 0; c < 2; c++) {
            struct array in = marked(r->rank, counts[c], ncclUint8);
            struct array out = array_new(counts[c], ncclUint8);
            OK(ncclBroadcast,
               r->rank == root ? in.at : NULL,
               out.at,
               in.count,
               in.type,
               root,
               comm,
               r->stream);
            OK(ncclBcast, in.at, in.count, in.type, root, comm, r->stream);
            suite_sync(r);
            expect_blocks(&out, 1, &root, &zero, "Broadcast");
            expect_blocks(&in, 1, &root, &zero, "Bcast");
            array_free(&in);
            array_free(&out);
        }
    }
    OK(ncclCommDestroy, comm);
}

static void gather(struct rank *r)
{
    ncclComm_t comm = suite_comm(r, 0);
    int w = r->world, everyone[SUITE_RANKS], root = w / 2;
    size_t zeros[SUITE_RANKS] = {0}, counts[] = {5, 70001};

    for (int i = 0; i < w; i++)
        everyone[i] = i;
    for (size_t c = 0; c < 2; c++) {
        size_t n = counts[c];
        struct array in = marked(r->rank, n, ncclInt32);
        struct array out = array_new(n * (size_t)w, ncclInt32);
        char *own = (char *)out.at + n * 4 * (size_t)r->rank;
        OK(ncclAllGather, in.at, out.at, n, in.type, comm, r->stream);
        suite_sync(r);
        expect_blocks(&out, w, everyone, zeros, "AllGather");
        OK(ncclAllGather, own, out.at, n, in.type, comm, r->stream);
        suite_sync(r);
        expect_blocks(&out, w, everyone, zeros, "AllGather in place");
        OK(ncclGather, in.at, out.at, n, in.type, root, comm, r->stream);
        suite_sync(r);
        if (r->rank == root)
            expect_blocks(&out, w, everyone, zeros, "Gather");
        array_free(&in);
        array_free(&out);
    }
    OK(ncclCommDestroy, comm);
}

static void scatter(struct rank *r)
{
    ncclComm_t comm = suite_comm(r, 0);
    int w = r->world, everyone[SUITE_RANKS], root = w - 1;
    size_t counts[] = {5, 70001}, at[SUITE_RANKS];

    for (size_t c = 0; c < 2; c++) {
        size_t n = counts[c];
        struct array in = marked(r->rank, n * (size_t)w, ncclInt32);
        struct array out = array_new(n * (size_t)w, ncclInt32),
                     one = array_new(n, in.type);
        for (int i = 0; i < w; i++) {
            everyone[i] = i;
            at[i] = n * (size_t)r->rank;
        }
        OK(ncclAlltoAll, in.at, out.at, n, in.type, comm, r->stream);
        OK(ncclScatter, in.at, one.at, n, in.type, root, comm, r->stream);
        suite_sync(r);
        expect_blocks(&out, w, everyone, at, "AlltoAll");
        expect_blocks(&one, 1, &root, at, "Scatter");
        array_free(&in);
        array_free(&out);
        array_free(&one);
    }
    OK(ncclCommDestroy, comm);
}

static void premultiplied_sum(struct rank *r)
{
    ncclComm_t comm = suite_comm(r, 0);
    ncclRedOp_t host, device;
    const ncclDataType_t type = ncclFloat16;
    struct array in = array_new(100, type), out = array_new(100, type);
    struct array factor = array_new(1, type);
    double two = 2, *want = doubles(100);
    uint16_t bits = 0x4000; /* 2.0 */

    array_write(&factor, &two);
    OK(ncclRedOpCreatePreMulSum, &host, &bits, type, ncclScalarHostImmediate, comm);
    bits = 0;
    OK(ncclRedOpCreatePreMulSum, &device, factor.at, type, ncclScalarDevice, comm);
    fill(&in, ncclSum, r->rank);
    for (size_t i = 0; i < 100; i++)
        want[i] = 2 * expected(ncclSum, r->world, i);
    OK(ncclAllReduce, in.at, out.at, 100, type, host, comm, r->stream);
    suite_sync(r);
    array_expect(&out, want, 0, "PreMulSum with a host scalar");
    fill(&out, ncclSum, 0);
    OK(ncclAllReduce, in.at, out.at, 100, type, device, comm, r->stream);
    suite_sync(r);
    array_expect(&out, want, 0, "PreMulSum with a device scalar");
    OK(ncclRedOpDestroy, host, comm);
    OK(ncclRedOpDestroy, device, comm);
    array_free(&in);
    array_free(&out);
    array_free(&factor);
    free(want);
    OK(ncclCommDestroy, comm);
}

static void operators_refused(struct rank *r)
{
    ncclComm_t c = suite_comm(r, 0), other = suite_comm(r, 1);
    const ncclResult_t bad = ncclInvalidArgument;
    const ncclDataType_t type = ncclFloat16;
    const ncclScalarResidence_t host = ncclScalarHostImmediate;
    struct array a = array_new(1, type);
    CUstream s = r->stream;
    ncclRedOp_t op, made;
    uint16_t bits = 0x4000;

    OK(ncclRedOpCreatePreMulSum, &op, &bits, type, host, c);
    FAILS(bad, ncclRedOpCreatePreMulSum, &made, &bits, type, host, no_comm);
    if (suite_is_emulated()) {
        FAILS(bad, ncclRedOpCreatePreMulSum, NULL, &bits, type, host, c);
        FAILS(bad, ncclAllReduce, a.at, a.at, 1, type, op, other, s);
        FAILS(bad, ncclAllReduce, a.at, a.at, 1, ncclInt8, op, c, s);
    }
    OK(ncclRedOpDestroy, op, c);
    FAILS(bad, ncclRedOpDestroy, op, c);
    FAILS(bad, ncclRedOpDestroy, ncclSum, c);
    FAILS(bad, ncclAllReduce, a.at, a.at, 1, type, op, c, s);
    array_free(&a);
    OK(ncclCommDestroy, other);
    OK(ncclCommDestroy, c);
}

static void refused(struct rank *r)
{
    ncclComm_t c = suite_comm(r, 0);
    struct array a = array_new(8, ncclFloat32);
    const ncclDataType_t f = ncclFloat32, no_type = (ncclDataType_t)ncclNumTypes;
    const ncclResult_t bad = ncclInvalidArgument;
    void *p = a.at;
    CUstream s = r->stream;

    FAILS(bad, ncclAllReduce, p, p, 8, f, ncclSum, no_comm, s);
    FAILS(bad, ncclAllReduce, p, p, 8, no_type, ncclSum, c, s);
    FAILS(bad, ncclAllReduce, p, p, 8, f, (ncclRedOp_t)ncclNumOps, c, s);
    FAILS(bad, ncclAllReduce, NULL, p, 8, f, ncclSum, c, s);
    FAILS(bad, ncclReduce, p, p, 8, f, ncclSum, 1, c, s);
    FAILS(bad, ncclReduce, p, p, 8, f, ncclSum, -1, c, s);
    FAILS(bad, ncclBroadcast, p, p, 8, f, 1, c, s);
    FAILS(bad, ncclBroadcast, p, NULL, 8, f, 0, c, s);
    FAILS(bad, ncclBcast, p, 8, f, 1, c, s);
    FAILS(bad, ncclReduceScatter, p, p, 8, no_type, ncclSum, c, s);
    FAILS(bad, ncclAllGather, p, p, 8, no_type, c, s);
    FAILS(bad, ncclAlltoAll, p, NULL, 8, f, c, s);
    FAILS(bad, ncclGather, p, p, 8, f, 1, c, s);
    FAILS(bad, ncclScatter, p, p, 8, f, 1, c, s);
    if (suite_is_emulated()) {
        FAILS(bad, ncclAllReduce, p, p, SIZE_MAX / 2, f, ncclSum, c, s);
        FAILS(bad, ncclBcast, NULL, 8, f, 0, c, s);
    }
    OK(ncclAllReduce, p, p, 8, f, ncclSum, c, s); /* none of that did any harm */
    suite_sync(r);
    array_free(&a);
    OK(ncclCommDestroy, c);
}

static void grouped(struct rank *r)
{
    ncclComm_t comm = suite_comm(r, 0), other = suite_comm(r, 1);
    struct array a = array_new(1000, ncclFloat32), b = array_new(1000, ncclFloat32);
    CUstream second;

    CU(cuStreamCreate, &second, CU_STREAM_NON_BLOCKING);
    for (int round = 0; round < 20; round++) {
        fill(&a, ncclSum, r->rank);
        fill(&b, ncclMax, r->rank);
        OK0(ncclGroupStart);
        OK0(ncclGroupStart);
        OK(ncclAllReduce, a.at, a.at, 1000, a.type, ncclSum, comm, r->stream);
        OK0(ncclGroupEnd);
        OK(ncclAllReduce, b.at, b.at, 1000, b.type, ncclMax, comm, second);
        OK0(ncclGroupEnd);
        CU(cuStreamSynchronize, second);
        expect(&b, ncclMax, r->world, 0, "a group on two streams");
        expect(
            &a, ncclSum, r->world, 0, "a group on two streams"); /* has waited, too */
        suite_sync(r);
    }
    OK0(ncclGroupStart);
    FAILS(ncclInvalidArgument, ncclBcast, a.at, 1, a.type, -1, comm, r->stream);
    FAILS0(ncclInvalidArgument, ncclGroupEnd);
    fill(&a, ncclSum, r->rank);
    fill(&b, ncclMin, r->rank);
    OK(ncclAllReduce, a.at, a.at, 1000, a.type, ncclSum, comm, r->stream);
    OK(ncclAllReduce, b.at, b.at, 1000, b.type, ncclMin, other, second);
    suite_sync(r);
    CU(cuStreamSynchronize, second);
    expect(&a, ncclSum, r->world, 0, "two communicators");
    expect(&b, ncclMin, r->world, 0, "two communicators");
    array_free(&a);
    array_free(&b);
    CU(cuStreamDestroy, second);
    OK(ncclCommDestroy, other);
    OK(ncclCommDestroy, comm);
}

/* One communicator on two streams, without a group: the order of the calls holds. */
static void streams_take_turns(struct rank *r)
{
    ncclComm_t comm = suite_comm(r, 0);
    struct array a = array_new(60000, ncclFloat32), b = array_new(100, ncclFloat32);
    CUstream second;

    CU(cuStreamCreate, &second, CU_STREAM_NON_BLOCKING);
    for (int round = 0; round < 30; round++) {
        fill(&a, ncclSum, r->rank);
        fill(&b, ncclMax, r->rank);
        OK(ncclAllReduce, a.at, a.at, a.count, a.type, ncclSum, comm, r->stream);
        OK(ncclAllReduce, b.at, b.at, b.count, b.type, ncclMax, comm, second);
        CU(cuStreamSynchronize, second);
        suite_sync(r);
        expect(&a, ncclSum, r->world, 0, "the first stream");
        expect(&b, ncclMax, r->world, 0, "the second stream");
    }
    array_free(&a);
    array_free(&b);
    CU(cuStreamDestroy, second);
    OK(ncclCommDestroy, comm);
}

static float noise(int rank, size_t i)
{
    uint32_t x = (uint32_t)i * 2654435761u + (uint32_t)rank * 40503u + 12345u;

    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= x >> 16;
    return ((float)x / 4294967296.0f - 0.5f) * (float)(1 << (x % 20));
}

/* The emulator's promise: the bits of one fixed tree over the ranks' numbers. */
static void same_bits(struct rank *r)
{
    enum { N = 70000 };
    ncclComm_t comm = suite_comm(r, 0);
    struct array a = array_new(N, ncclFloat32);
    float *mine = malloc(N * sizeof *mine), x[SUITE_RANKS];
    const char *reduce = getenv("ORRERY_REDUCE");

    if (reduce && strcmp(reduce, "fast") == 0)
        return; /* which promises no order */
    for (size_t i = 0; i < N; i++)
        mine[i] = noise(r->rank, i);
    CU(cuMemcpyHtoD, (CUdeviceptr)(uintptr_t)a.at, mine, N * sizeof *mine);
    OK(ncclAllReduce, a.at, a.at, N, a.type, ncclSum, comm, r->stream);
    suite_sync(r);
    CU(cuMemcpyDtoH, mine, (CUdeviceptr)(uintptr_t)a.at, N * sizeof *mine);
    for (size_t i = 0; i < N; i++) {
        for (int k = 0; k < r->world; k++)
            x[k] = noise(k, i);
        for (int d = 1; d < r->world; d *= 2)
            for (int k = 0; k + d < r->world; k += 2 * d)
                x[k] = x[k] + x[k + d];
        CHECK(memcmp(&x[0], &mine[i], sizeof x[0]) == 0,
              "element %zu: %a, not %a",
              i,
              (double)mine[i],
              (double)x[0]);
    }
    free(mine);
    array_free(&a);
    OK(ncclCommDestroy, comm);
}

const struct conf_case collective_cases[] = {
    {"types_and_operators", types_and_operators, {1, 2, 3, 4, 8}, false},
    {"sizes", sizes, {1, 2, 3, 4, 8}, false},
    {"reduce_scatter", reduce_scatter, {1, 3, 8}, false},
    {"broadcast", broadcast, {1, 2, 3}, false},
    {"gather", gather, {1, 3, 8}, false},
    {"scatter", scatter, {1, 2, 8}, false},
    {"premultiplied_sum", premultiplied_sum, {1, 4}, false},
    {"operators_refused", operators_refused, {1}, false},
    {"collectives_refused", refused, {1}, false},
    {"grouped", grouped, {1, 3}, false},
    {"streams_take_turns", streams_take_turns, {2, 4}, false},
    {"same_bits", same_bits, {6, 8}, true},
    {NULL, NULL, {0}, false},
};
