/* SPDX-License-Identifier: Apache-2.0
 * cases_splice.c - a rank dies, or aborts, while all are in the middle of operations: what ended before a rank's own abort is right,
 * all are told, and who is left makes a new communicator.  With ranks that share devices each rank is once the one that goes.
 *
 * All put the same operations into their streams, but one rank is late with most of them: so the others, and the one that goes, have
 * many that wait, and the late one comes when somebody has run ahead.  Each operation has buffers of its own and other values: what runs ahead after an abort would spoil the others'.
 */
#include "suite.h"

#include <signal.h>
#include <stdlib.h>
#include <time.h>

enum {
    OPS = 12,
    EARLY = 5,
    COUNT = 60000,
    TOLD_MS = 8000,
    STUCK_MS = 8000,
    LATE_MS = 8
};

struct work {
    ncclComm_t comm;
    struct array in[OPS], out[OPS];
    CUevent done[OPS];
    unsigned issued; /* bits: an event that was never recorded counts as over */
    double *values;
};

static void pause_ms(int ms)
{
    const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&t, NULL); /* between two looks at what offers nothing to wait on */
}

/* Of block b of operation k's input at rank r; block: of what is for each rank. */
static double value(int k, int r, int b)
{
    return (k + 1) * 8 + r * 2 + b % 2;
}

static size_t block_of(struct rank *r)
{
    return (size_t)COUNT / (size_t)r->world;
}

static void work_new(struct rank *r, struct work *w)
{
    w->values = doubles(COUNT);
    for (int k = 0; k < OPS; k++) {
        w->in[k] = array_new(COUNT, ncclFloat32);
        w->out[k] = array_new(COUNT, ncclFloat32);
        for (size_t i = 0; i < COUNT; i++)
            w->values[i] = value(k, r->rank, (int)(i / block_of(r)));
        array_write(&w->in[k], w->values);
        CU(cuEventCreate, &w->done[k], CU_EVENT_DISABLE_TIMING);
    }
}

static void work_free(struct work *w)
{
    for (int k = 0; k < OPS; k++) {
        array_free(&w->in[k]);
        array_free(&w->out[k]);
        CU(cuEventDestroy, w->done[k]);
    }
    free(w->values);
}

/* All-reduce, all-gather, all-to-all, and from each to the next. */
static ncclResult_t issue(struct rank *r, struct work *w, int k)
{
    const void *in = w->in[k].at;
    void *out = w->out[k].at;
    size_t block = block_of(r);
    int n = r->world;
    ncclResult_t result;

    if (k % 4 == 0)
        return ncclAllReduce(in, out, COUNT, ncclFloat32, ncclSum, w->comm, r->stream);
    if (k % 4 == 1)
        return ncclAllGather(in, out, block, ncclFloat32, w->comm, r->stream);
    if (k % 4 == 2)
        return ncclAlltoAll(in, out, block, ncclFloat32, w->comm, r->stream);
    OK0(ncclGroupStart);
    result = ncclSend(in, block, ncclFloat32, (r->rank + 1) % n, w->comm, r->stream);
    if (result == ncclSuccess)
        result = ncclRecv(
            out, block, ncclFloat32, (r->rank + n - 1) % n, w->comm, r->stream);
    n = (int)ncclGroupEnd();
    return result == ncclSuccess ? (ncclResult_t)n : result;
}

static double wanted(struct rank *r, int k, int b)
{
    double sum = 0;

    if (k % 4 == 1)
        return value(k, b, 0);
    if (k % 4 == 2)
        return value(k, b, r->rank);
    if (k % 4 == 3)
        return b > 0 ? 0 : value(k, (r->rank + r->world - 1) % r->world, 0);
    for (int from = 0; from < r->world; from++)
        sum += value(k, from, b);
    return sum;
}

static void expect_right(struct rank *r, struct work *w, int k)
{
    size_t block = block_of(r);
    size_t n = k % 4 == 3 ? block : block * (size_t)r->world;

    array_read(&w->out[k], w->values);
    for (size_t i = 0; i < n; i++)
        CHECK(w->values[i] == wanted(r, k, (int)(i / block)),
              "operation %d has ended with %g at %zu, not %g",
              k,
              w->values[i],
              i,
              wanted(r, k, (int)(i / block)));
}

/* What has ended so far; the bits of *seen were looked at before. */
static void look_at_ended(struct rank *r, struct work *w, unsigned *seen)
{
    for (int k = 0; k < OPS; k++)
        if ((w->issued & ~*seen & 1u << k) &&
            cuEventQuery(w->done[k]) == CUDA_SUCCESS) {
            expect_right(r, w, k);
            *seen |= 1u << k;
        }
}

/* A call may fail once it is known that another is gone. */
static void issue_some(struct rank *r, struct work *w, int from, int to)
{
    for (int k = from; k < to; k++) {
        ncclResult_t result = issue(r, w, k);
        CHECK(result == ncclSuccess || result == ncclRemoteError, "%d", (int)result);
        if (result != ncclSuccess)
            return;
        CU(cuEventRecord, w->done[k], r->stream);
        w->issued |= 1u << k;
    }
}

static void await_event(CUevent event)
{
    int ms = STUCK_MS;

    while (cuEventQuery(event) == CUDA_ERROR_NOT_READY && ms-- > 0)
        pause_ms(1);
    CHECK(ms > 0, "the first operations do not end");
}

static void abort_and_sync(struct rank *r, struct work *w)
{
    int ms = STUCK_MS;

    OK(ncclCommAbort, w->comm);
    while (cuStreamQuery(r->stream) == CUDA_ERROR_NOT_READY && ms-- > 0)
        pause_ms(1);
    CHECK(ms > 0, "the stream is stuck after the own abort");
}

/* Survivors; a later one may still be waiting for the first to be told when that one aborts. */
static void be_told(struct rank *r, struct work *w, unsigned *seen)
{
    ncclResult_t state = ncclSuccess;
    int ms = TOLD_MS;

    while (state == ncclSuccess && ms-- > 0) {
        OK(ncclCommGetAsyncError, w->comm, &state);
        look_at_ended(r, w, seen);
        pause_ms(1);
    }
    CHECK(state == ncclRemoteError, "state %d: %s", (int)state, ncclGetLastError(NULL));
    CHECK((*seen & ((1u << EARLY) - 1)) == (1u << EARLY) - 1, "%x ended", *seen);
    for (int i = 0; i < 20 * (r->rank + 1); i++) { /* they abort one after another */
        look_at_ended(r, w, seen);
        pause_ms(1);
    }
    if (issue(r, w, 0) == ncclSuccess)
        CHECK(cuStreamQuery(r->stream) == CUDA_ERROR_NOT_READY, "the stream went on");
    look_at_ended(r, w, seen);
}

static void make_anew(struct rank *r, int n, int me, int maker, int k)
{
    ncclUniqueId id = suite_id_of(r, k, maker);
    struct array a = array_new(1000, ncclFloat32);
    double *values = doubles(1000), *want = doubles(1000);
    ncclComm_t comm;

    for (int i = 0; i < 1000; i++) {
        values[i] = me + 1;
        want[i] = n * (n + 1) / 2;
    }
    OK(ncclCommInitRank, &comm, n, id, me);
    array_write(&a, values);
    OK(ncclAllReduce, a.at, a.at, 1000, a.type, ncclSum, comm, r->stream);
    suite_sync(r);
    array_expect(&a, want, 0, "the new communicator's sum");
    OK(ncclCommDestroy, comm);
    array_free(&a);
    free(values);
    free(want);
}

static void one_goes(struct rank *r, int gone, int late, bool dies, int k)
{
    int maker = gone == 0 ? 1 : 0;
    struct work w;
    unsigned seen = 0;

    w.comm = suite_comm(r, 2 * k);
    work_new(r, &w);
    suite_meet(r);
    w.issued = 0;
    issue_some(r, &w, 0, r->rank == late ? EARLY : OPS);
    await_event(w.done[EARLY - 1]);
    suite_meet(r);
    if (r->rank == gone && dies) {
        suite_die(r);
    } else if (r->rank == gone) {
        abort_and_sync(r, &w);
    } else {
        if (r->rank == late) { /* now: somebody has run ahead, and few know */
            pause_ms(LATE_MS);
            issue_some(r, &w, EARLY, OPS);
        }
        be_told(r, &w, &seen);
        abort_and_sync(r, &w);
    }
    work_free(&w);
    if (dies)
        make_anew(r, r->world - 1, r->rank - (r->rank > gone), maker, 2 * k + 1);
    else
        make_anew(r, r->world, r->rank, 0, 2 * k + 1);
}

static void dies(struct rank *r, int gone)
{
    one_goes(r, gone, (gone + 1) % r->world, true, 0);
}

/* With another that is late, in turn. */
static void aborts(struct rank *r, int gone)
{
    for (int k = 0; k < 3; k++)
        one_goes(r, gone, (gone + 1 + k) % r->world, false, k);
}

static void dies_0(struct rank *r)
{
    dies(r, 0);
}
static void dies_1(struct rank *r)
{
    dies(r, 1);
}
static void dies_2(struct rank *r)
{
    dies(r, 2);
}
static void dies_3(struct rank *r)
{
    dies(r, 3);
}
static void aborts_0(struct rank *r)
{
    aborts(r, 0);
}
static void aborts_1(struct rank *r)
{
    aborts(r, 1);
}
static void aborts_2(struct rank *r)
{
    aborts(r, 2);
}
static void aborts_3(struct rank *r)
{
    aborts(r, 3);
}

const struct conf_case splice_cases[] = {
    {"rank_0_dies", dies_0, {4, 6}, true},
    {"rank_1_dies", dies_1, {4}, true},
    {"rank_2_dies", dies_2, {4, 8}, true},
    {"rank_3_dies", dies_3, {4}, true},
    {"rank_0_aborts", aborts_0, {4, 6}, true},
    {"rank_1_aborts", aborts_1, {4}, true},
    {"rank_2_aborts", aborts_2, {4, 8}, true},
    {"rank_3_aborts", aborts_3, {4}, true},
    {NULL, NULL, {0}, false},
};
