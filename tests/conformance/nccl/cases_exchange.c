/* SPDX-License-Identifier: Apache-2.0
 * cases_exchange.c - sends and receives.
 */
#include "suite.h"

#include <stdlib.h>

static ncclComm_t const no_comm = NULL;

/* Message k from one rank to another. */
static double word(int from, int to, int k, size_t i)
{
    return (double)(((from * 31 + to) * 31 + k) * 1000) + (double)(i % 997);
}

static struct array message(int from, int to, int k, size_t count)
{
    struct array a = array_new(count, ncclInt32);
    double *v = doubles(count);

    for (size_t i = 0; i < count; i++)
        v[i] = word(from, to, k, i);
    array_write(&a, v);
    free(v);
    return a;
}

static void expect_message(struct array *a, int from, int to, int k)
{
    double *v = doubles(a->count);

    for (size_t i = 0; i < a->count; i++)
        v[i] = word(from, to, k, i);
    array_expect(a, v, 0, "a message");
    free(v);
}

static void ring(struct rank *r)
{
    static const size_t counts[] = {0, 1, 4096, 4097, 500000};
    ncclComm_t comm = suite_comm(r, 0);
    int next = (r->rank + 1) % r->world, last = (r->rank + r->world - 1) % r->world;

    for (int k = 0; k < 5; k++) {
        struct array out = message(r->rank, next, k, counts[k]);
        struct array in = array_new(counts[k], out.type);
        OK0(ncclGroupStart);
        OK(ncclSend, out.at, out.count, out.type, next, comm, r->stream);
        OK(ncclRecv, in.at, in.count, in.type, last, comm, r->stream);
        OK0(ncclGroupEnd);
        suite_sync(r);
        expect_message(&in, last, r->rank, k);
        array_free(&out);
        array_free(&in);
    }
    OK(ncclCommDestroy, comm);
}

/* Everyone sends two messages to everyone, itself too; even ranks list sends first, and
 * forwards, odd ranks receives first, and backwards. */
static void everyone_to_everyone(struct rank *r)
{
    enum { N = 30011, EACH = 2 };
    ncclComm_t comm = suite_comm(r, 0);
    struct array out[SUITE_RANKS][EACH], in[SUITE_RANKS][EACH];
    bool odd = r->rank % 2;

    for (int p = 0; p < r->world; p++) {
        for (int k = 0; k < EACH; k++) {
            out[p][k] = message(r->rank, p, k, N);
            in[p][k] = array_new(N, ncclInt32);
        }
    }
    OK0(ncclGroupStart);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < r->world; i++) {
            int p = odd ? r->world - 1 - i : i;
            for (int k = 0; k < EACH; k++) {
                if ((round == 0) != odd)
                    OK(ncclSend, out[p][k].at, N, ncclInt32, p, comm, r->stream);
                else
                    OK(ncclRecv, in[p][k].at, N, ncclInt32, p, comm, r->stream);
            }
        }
    }
    OK0(ncclGroupEnd);
    suite_sync(r);
    for (int p = 0; p < r->world; p++) {
        for (int k = 0; k < EACH; k++) {
            expect_message(&in[p][k], p, r->rank, k);
            array_free(&in[p][k]);
            array_free(&out[p][k]);
        }
    }
    OK(ncclCommDestroy, comm);
}

/* Rank 0 to the last one, through all, without groups. */
static void pipeline(struct rank *r)
{
    enum { N = 100000, ROUNDS = 5 };
    ncclComm_t comm = suite_comm(r, 0);

    for (int k = 0; k < ROUNDS; k++) {
        struct array a = r->rank ? array_new(N, ncclInt32) : message(0, 0, k, N);
        if (r->rank > 0)
            OK(ncclRecv, a.at, N, a.type, r->rank - 1, comm, r->stream);
        if (r->rank + 1 < r->world)
            OK(ncclSend, a.at, N, a.type, r->rank + 1, comm, r->stream);
        suite_sync(r);
        expect_message(&a, 0, 0, k);
        array_free(&a);
    }
    OK(ncclCommDestroy, comm);
}

static void with_collective(struct rank *r)
{
    ncclComm_t comm = suite_comm(r, 0);
    int next = (r->rank + 1) % r->world, last = (r->rank + r->world - 1) % r->world;
    struct array out = message(r->rank, next, 0, 9000), in = array_new(9000, out.type);
    struct array sum = array_new(1, ncclInt32);
    double one = 1, want = r->world;

    array_write(&sum, &one);
    OK0(ncclGroupStart);
    OK(ncclSend, out.at, out.count, out.type, next, comm, r->stream);
    OK(ncclAllReduce, sum.at, sum.at, 1, sum.type, ncclSum, comm, r->stream);
    OK(ncclRecv, in.at, in.count, in.type, last, comm, r->stream);
    OK0(ncclGroupEnd);
    suite_sync(r);
    expect_message(&in, last, r->rank, 0);
    array_expect(&sum, &want, 0, "AllReduce among messages");
    array_free(&out);
    array_free(&in);
    array_free(&sum);
    OK(ncclCommDestroy, comm);
}

static void refused(struct rank *r)
{
    const ncclResult_t bad = ncclInvalidArgument;
    ncclComm_t c = suite_comm(r, 0);
    struct array a = array_new(8, ncclInt32);
    CUstream s = r->stream;

    FAILS(bad, ncclSend, a.at, 8, a.type, 0, no_comm, s);
    FAILS(bad, ncclSend, a.at, 8, a.type, r->world, c, s);
    FAILS(bad, ncclSend, NULL, 8, a.type, 0, c, s);
    FAILS(bad, ncclRecv, a.at, 8, a.type, -1, c, s);
    FAILS(bad, ncclRecv, a.at, 8, (ncclDataType_t)-1, 0, c, s);
    FAILS(bad, ncclRecv, NULL, 8, a.type, 0, c, s);
    FAILS(ncclInvalidUsage, ncclSend, a.at, 8, a.type, r->rank, c, s);
    array_free(&a);
    OK(ncclCommDestroy, c);
}

const struct conf_case exchange_cases[] = {
    {"ring", ring, {1, 2, 8}, false},
    {"everyone_to_everyone", everyone_to_everyone, {1, 3, 8}, false},
    {"pipeline", pipeline, {2, 4}, false},
    {"with_collective", with_collective, {1, 3}, false},
    {"messages_refused", refused, {1}, false},
    {NULL, NULL, {0}, false},
};
