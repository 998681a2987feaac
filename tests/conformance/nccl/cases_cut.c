/* SPDX-License-Identifier: Apache-2.0
 * cases_cut.c - what must outlast stops of the job: many communicators at once, and some that not all of their ranks have any more.
 *
 * They run without stops, too; with the stops of cut_core.c each waits for enough of them.
 */
#include "suite.h"

#include <dirent.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { REBUILDS = 50, TURNS = 10, SOME_CUTS = 3, CUTS_MS = 30000 };

/* Cuts so far; 0 without. */
static uint64_t cuts(void)
{
    uint64_t (*count)(void) = NULL;
    void *symbol = dlsym(RTLD_DEFAULT, "nccl_cut_count");

    memcpy(&count, &symbol, sizeof count);
    return count ? count() : 0;
}

/* Is the job stopped just now? */
static bool is_stopped(void)
{
    bool (*is_on)(void) = NULL;
    void *symbol = dlsym(RTLD_DEFAULT, "nccl_cut_is_on");

    memcpy(&is_on, &symbol, sizeof is_on);
    return is_on && is_on();
}

static bool has_cuts(void)
{
    const char *seed = getenv("NCCL_CONFORMANCE_CUTS");

    return getenv("NCCL_CUT_BOARD") && seed && atoi(seed) != 999999; /* CUT_NEVER */
}

/* While no rank calls anything: one that had gone on already would have to be caught up with before there is a cut. */
static void await_cuts(struct rank *r, uint64_t n)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    uint64_t since;

    suite_meet(r);
    since = cuts();
    for (int ms = 0; has_cuts() && cuts() < since + n; ms++) {
        CHECK(ms < CUTS_MS, "no cut");
        nanosleep(&pause, NULL); /* they are a shared count */
    }
    suite_meet(r);
}

static double sum_over(struct rank *r, ncclComm_t comm, double mine)
{
    struct array a = array_new(1, ncclFloat64);
    double got;

    array_write(&a, &mine);
    OK(ncclAllReduce, a.at, a.at, 1, ncclFloat64, ncclSum, comm, r->stream);
    suite_sync(r);
    array_read(&a, &got);
    array_free(&a);
    return got;
}

static ncclComm_t split(ncclComm_t comm, int color, int key)
{
    ncclComm_t part = NULL;

    OK(ncclCommSplit, comm, color, key, &part, NULL);
    return part;
}

/* Data, pipeline and tensor parallel: each rank is in lines and planes of a cube, and in pairs split from the planes. */
static void grid(struct rank *r)
{
    ncclComm_t world = suite_comm(r, 0), comm[9];
    int size[9], n = 0;
    double more = 1;

    for (int axis = 0; axis < 3; axis++) {
        comm[n] = split(world, r->rank & ~(1 << axis), r->rank);
        size[n++] = 2;
        comm[n] = split(world, r->rank >> axis & 1, -r->rank);
        size[n++] = 4;
        comm[n] = split(comm[n - 1], r->rank >> (axis + 1) % 3 & 1, r->rank);
        size[n++] = 2;
    }
    for (int turn = 0; more > 0; turn++) {
        for (int i = 0; i < n; i++)
            CHECK(sum_over(r, comm[i], 1) == size[i], "communicator %d", i);
        more = sum_over(
            r, world, r->rank == 0 && (has_cuts() ? cuts() < REBUILDS : turn < TURNS));
    }
    for (int i = n; i-- > 0;)
        OK(ncclCommDestroy, comm[i]);
    OK(ncclCommDestroy, world);
}

static void pass(struct rank *r, ncclComm_t comm, int from, int to, double value)
{
    struct array a = array_new(1, ncclFloat64);

    array_write(&a, &value);
    if (r->rank == from)
        OK(ncclSend, a.at, 1, ncclFloat64, to, comm, r->stream);
    else
        OK(ncclRecv, a.at, 1, ncclFloat64, from, comm, r->stream);
    suite_sync(r);
    if (r->rank == to)
        array_expect(&a, &value, 0, "what was sent");
    array_free(&a);
}

static void expect_answers(struct rank *r, ncclComm_t comm)
{
    int count = -1, rank = -1, device = -1;

    OK(ncclCommCount, comm, &count);
    OK(ncclCommUserRank, comm, &rank);
    OK(ncclCommCuDevice, comm, &device);
    CHECK(count == r->world && rank == r->rank, "%d of %d", rank, count);
    CHECK(device >= 0, "device %d", device);
}

/* The first stage of a pipeline ends before the others, and goes on with something else. */
static void destroyed_early(struct rank *r)
{
    ncclComm_t pipeline = suite_comm(r, 0), other = suite_comm(r, 1);
    ncclResult_t state = ncclInternalError;

    if (r->rank == 0) {
        pass(r, pipeline, 0, 1, 7);
        OK(ncclCommDestroy, pipeline);
    } else if (r->rank == 1) {
        pass(r, pipeline, 0, 1, 7);
    }
    for (int turn = 0; turn < TURNS; turn++) {
        CHECK(sum_over(r, other, 1) == r->world, "turn %d", turn);
        await_cuts(r, 1);
        if (r->rank == 0)
            continue;
        expect_answers(r, pipeline);
        OK(ncclCommGetAsyncError, pipeline, &state);
        CHECK(state == ncclSuccess, "state %d", (int)state);
        if (r->rank <= 2)
            pass(r, pipeline, 1, 2, turn);
    }
    if (r->rank != 0)
        OK(ncclCommDestroy, pipeline);
    OK(ncclCommDestroy, other);
}

/* One rank gives up a communicator: that bars no stop, and the others live without it. */
static void aborted_by_one(struct rank *r)
{
    ncclComm_t broken = suite_comm(r, 0), other = suite_comm(r, 1);
    struct array a = array_new(1, ncclInt32);

    CHECK(sum_over(r, broken, 1) == r->world, "before");
    suite_meet(r);
    if (r->rank == 0)
        OK(ncclCommAbort, broken);
    suite_meet(r);
    for (int turn = 0; turn < TURNS; turn++) {
        await_cuts(r, SOME_CUTS);
        CHECK(sum_over(r, other, 1) == r->world, "turn %d", turn);
    }
    if (r->rank != 0) {
        if (has_cuts())
            FAILS(ncclRemoteError,
                  ncclAllReduce,
                  a.at,
                  a.at,
                  1,
                  ncclInt32,
                  ncclSum,
                  broken,
                  r->stream);
        OK(ncclCommAbort, broken);
    }
    OK(ncclCommDestroy, other);
    array_free(&a);
}

/* One rank goes on from a stop with an abort, while the others may still be making the communicator anew: theirs is broken then,
 * as without a stop, and all others are whole. */
static void aborted_right_after_a_stop(struct rank *r)
{
    const struct timespec pause = {.tv_nsec = 100000};
    ncclComm_t broken, other = suite_comm(r, 0);
    double half = 0.5;
    ncclRedOp_t op; /* made anew with its communicator */

    for (int turn = 0; turn < TURNS; turn++) {
        broken = suite_comm(r, 1 + turn % 2);
        OK(ncclRedOpCreatePreMulSum,
           &op,
           &half,
           ncclFloat64,
           ncclScalarHostImmediate,
           broken);
        CHECK(sum_over(r, broken, 1) == r->world, "before, turn %d", turn);
        suite_meet(r);
        for (int i = 0; r->rank == 0 && has_cuts() && !is_stopped(); i++) {
            CHECK(i < 10 * CUTS_MS, "no cut");
            nanosleep(&pause, NULL); /* it is a state in shared memory */
        }
        if (r->rank == 0)
            OK(ncclCommAbort, broken); /* returns when the job goes on */
        suite_meet(r);
        CHECK(sum_over(r, other, 1) == r->world, "turn %d", turn);
        if (r->rank != 0)
            OK(ncclCommAbort, broken);
    }
    OK(ncclCommDestroy, other);
}

/* Entries of a directory of this process. */
static int count_in(const char *path)
{
    DIR *d = opendir(path);
    int n = 0;

    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

/* A job is stopped thousands of times: no stop leaves a descriptor or a thread.  What it has just then depends on the moment: so the
 * most of the first turns is compared with the least of the last. */
static void stops_leave_nothing(struct rank *r)
{
    static const char *const what[] = {"/proc/self/fd", "/proc/self/task"};
    enum { FIRST = 3, LAST = TURNS - 3 };
    ncclComm_t world = suite_comm(r, 0), half = split(world, r->rank % 2, r->rank);
    int most[2] = {0, 0}, least[2] = {INT_MAX, INT_MAX};

    for (int turn = 0; turn < TURNS; turn++) {
        await_cuts(r, SOME_CUTS);
        CHECK(sum_over(r, half, 1) == r->world / 2, "turn %d", turn);
        CHECK(sum_over(r, world, 1) == r->world, "turn %d", turn);
        for (int i = 0; i < 2; i++) {
            int n = count_in(what[i]);
            if (turn < FIRST && n > most[i])
                most[i] = n;
            if (turn >= LAST && n < least[i])
                least[i] = n;
        }
    }
    for (int i = 0; i < 2; i++)
        CHECK(least[i] <= most[i], "%s: %d, were %d", what[i], least[i], most[i]);
    OK(ncclCommDestroy, half);
    OK(ncclCommDestroy, world);
}

const struct conf_case cut_cases[] = {
    {"grid", grid, {8, 0}, false},
    {"destroyed_early", destroyed_early, {3, 4, 0}, true},
    {"aborted_by_one", aborted_by_one, {3, 0}, true},
    {"aborted_right_after_a_stop", aborted_right_after_a_stop, {8, 0}, true},
    {"stops_leave_nothing", stops_leave_nothing, {4, 0}, false},
    {NULL, NULL, {0}, false},
};
