/* SPDX-License-Identifier: Apache-2.0
 * cases_fault.c - ranks that die, abort, leave, disagree, never come; strangers at the
 * door. A wait here is at most the 2 s in which the others must know.
 */
#include "suite.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    NOTICE_MS = 10000
}; /* long before any timeout; milliseconds on a machine that has time */

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void expect_state(ncclComm_t comm, ncclResult_t want, const char *word)
{
    int64_t deadline = now_ms() + NOTICE_MS;
    ncclResult_t got;

    do /* what another has found may be heard first */
        got = suite_await_async(comm, ncclSuccess, NOTICE_MS);
    while (got != want && now_ms() < deadline);
    CHECK(got == want, "state %d, not %d", (int)got, (int)want);
    if (suite_is_emulated())
        CHECK(strstr(ncclGetLastError(comm), word), "%s", ncclGetLastError(comm));
}

static void all_reduce(struct rank *r, ncclComm_t comm, struct array *a)
{
    OK(ncclAllReduce, a->at, a->at, a->count, a->type, ncclSum, comm, r->stream);
}

/* Where another rank is gone, or will be: the call may know it already. */
static void try_all_reduce(struct rank *r, ncclComm_t comm, struct array *a)
{
    ncclResult_t result =
        ncclAllReduce(a->at, a->at, a->count, a->type, ncclSum, comm, r->stream);

    CHECK(result == ncclSuccess || result == ncclRemoteError, "%d", (int)result);
}

/* One rank is killed while the others are within a collective with it. */
static void killed_in_collective(struct rank *r)
{
    ncclComm_t comm = suite_comm(r, 0);
    struct array a = array_new(1000, ncclFloat32);
    double *zeros = doubles(1000);
    int64_t begin;

    array_write(&a, zeros);
    all_reduce(r, comm, &a);
    suite_sync(r);
    suite_meet(r);
    if (r->rank == r->world - 1)
        suite_die(r);
    begin = now_ms();
    try_all_reduce(r, comm, &a);
    expect_state(comm, ncclRemoteError, "has died");
    if (suite_is_emulated()) {
        CHECK(now_ms() - begin < NOTICE_MS, "%d ms", (int)(now_ms() - begin));
        FAILS(ncclRemoteError,
              ncclAllReduce,
              a.at,
              a.at,
              1,
              a.type,
              ncclSum,
              comm,
              r->stream);
    }
    OK(ncclCommAbort, comm);
    if (suite_is_emulated()) {
        suite_sync(r); /* now the stream goes on, and CUDA is well */
        array_write(&a, zeros);
        array_read(&a, zeros);
    }
    array_free(&a);
    free(zeros);
}

static void killed_in_exchange(struct rank *r)
{
    ncclComm_t comm = suite_comm(r, 0);
    struct array a = array_new(500000, ncclFloat32);

    if (r->rank > 0) {
        OK0(ncclGroupStart);
        OK(ncclSend, a.at, a.count, a.type, 0, comm, r->stream);
        OK(ncclRecv, a.at, a.count, a.type, 0, comm, r->stream);
        OK0(ncclGroupEnd);
    }
    suite_meet(r);
    if (r->rank == 0)
        suite_die(r);
    expect_state(comm, ncclRemoteError, "");
    OK(ncclCommAbort, comm);
    suite_sync(r);
    array_free(&a);
}

static void killed_in_init(struct rank *r)
{
    ncclUniqueId id = suite_id(r, 0);
    ncclComm_t comm = NULL;

    if (r->rank == 1)
        suite_will_die(r);
    suite_meet(r);
    if (r->rank == 2) { /* the last to come, but never does */
        const struct timespec soon = {.tv_nsec = 50000000};
        nanosleep(&soon, NULL); /* rank 1 shall be waiting, but need not */
        kill(suite_pid(r, 1), SIGKILL);
        return;
    }
    FAILS(ncclRemoteError, ncclCommInitRank, &comm, 3, id, r->rank);
    CHECK(comm == NULL, "a communicator in spite of the error");
}

struct abort_later {
    ncclComm_t comm;
    pthread_t thread;
};

static void *abort_soon(void *arg)
{
    const struct timespec soon = {.tv_nsec = 50000000};
    struct abort_later *a = arg;

    nanosleep(&soon, NULL); /* to catch the other thread in its wait */
    OK(ncclCommAbort, a->comm);
    return NULL;
}

/* Rank 0 never calls; the others are stuck, and free themselves. */
static void abort_unblocks(struct rank *r)
{
    struct abort_later later = {.comm = suite_comm(r, 0)};
    struct array a = array_new(1000, ncclFloat32);
    int64_t begin;

    if (r->rank > 0) {
        all_reduce(r, later.comm, &a);
        all_reduce(r, later.comm, &a);
    }
    suite_meet(r);
    if (r->rank > 0) {
        begin = now_ms();
        pthread_create(&later.thread, NULL, abort_soon, &later);
        suite_sync(r);
        pthread_join(later.thread, NULL);
        CHECK(now_ms() - begin < NOTICE_MS, "%d ms", (int)(now_ms() - begin));
    } else {
        if (suite_is_emulated())
            expect_state(later.comm, ncclRemoteError, "has aborted");
        suite_meet(r);
        OK(ncclCommAbort, later.comm);
    }
    if (r->rank > 0)
        suite_meet(r);
    array_free(&a);
}

static void abort_in_init(struct rank *r)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId id = suite_id(r, 0);
    ncclComm_t comm;
    ncclResult_t state;

    config.blocking = 0;
    CHECK(ncclCommInitRankConfig(&comm, 2, id, 0, &config) == ncclInProgress,
          "blocking");
    OK(ncclCommGetAsyncError, comm, &state);
    CHECK(state == ncclInProgress, "state %d without the other rank", (int)state);
    FAILS(ncclInvalidArgument, ncclCommCount, comm, &(int){0});
    OK(ncclCommAbort, comm);
}

/* Rank 0 leaves; the others may exchange, but not meet. */
static void one_leaves(struct rank *r)
{
    ncclComm_t comm = suite_comm(r, 0);
    struct array a = array_new(200000, ncclFloat32);

    if (r->rank == 0)
        OK(ncclCommDestroy, comm);
    suite_meet(r);
    if (r->rank == 1)
        OK(ncclSend, a.at, a.count, a.type, 2, comm, r->stream);
    if (r->rank == 2)
        OK(ncclRecv, a.at, a.count, a.type, 1, comm, r->stream);
    suite_sync(r);
    suite_meet(r);
    if (r->rank > 0) {
        ncclResult_t state;
        OK(ncclCommGetAsyncError, comm, &state);
        CHECK(state == ncclSuccess, "leaving broke it: %d", (int)state);
        suite_meet(r);
        try_all_reduce(r, comm, &a);
        expect_state(comm, ncclRemoteError, "");
        OK(ncclCommAbort, comm);
        suite_sync(r);
    } else {
        suite_meet(r);
    }
    array_free(&a);
}

static void ranks_disagree(struct rank *r)
{
    for (int k = 0; k < 4; k++) {
        ncclComm_t comm = suite_comm(r, k);
        struct array a = array_new(1000, ncclFloat32);
        bool odd = r->rank == 1;
        if (k == 0)
            OK(ncclAllReduce,
               a.at,
               a.at,
               odd ? 999 : 1000,
               a.type,
               ncclSum,
               comm,
               r->stream);
        if (k == 1)
            OK(ncclBroadcast, a.at, a.at, 8, a.type, odd ? 1 : 0, comm, r->stream);
        if (k == 2 && odd)
            OK(ncclAllGather, a.at, a.at, 8, a.type, comm, r->stream);
        if (k == 2 && !odd)
            OK(ncclAllReduce, a.at, a.at, 8, a.type, ncclSum, comm, r->stream);
        if (k == 3)
            OK(ncclAllReduce,
               a.at,
               a.at,
               8,
               a.type,
               odd ? ncclMax : ncclSum,
               comm,
               r->stream);
        expect_state(comm, ncclInvalidUsage, "rank 1 calls");
        FAILS(ncclInvalidUsage, ncclBcast, a.at, 1, a.type, 0, comm, r->stream);
        CHECK(cuStreamQuery(r->stream) == CUDA_ERROR_NOT_READY, "it went on");
        OK(ncclCommAbort, comm);
        suite_sync(r);
        array_free(&a);
    }
}

static void lengths_disagree(struct rank *r)
{
    ncclComm_t comm = suite_comm(r, 0);
    struct array a = array_new(1000, ncclFloat32);

    if (r->rank == 0)
        OK(ncclSend, a.at, 100, a.type, 1, comm, r->stream);
    else
        OK(ncclRecv, a.at, 200, a.type, 0, comm, r->stream);
    expect_state(comm,
                 r->rank ? ncclInvalidUsage : ncclRemoteError,
                 r->rank ? "sends 400 bytes of float32" : "has failed");
    OK(ncclCommAbort, comm);
    suite_sync(r);
    array_free(&a);
}

static void some_never_come(struct rank *r)
{
    ncclComm_t comm;
    ncclUniqueId id;

    setenv("ORRERY_EMULATOR_NCCL_TIMEOUT_MS", "300", 1);
    OK(ncclGetUniqueId, &id);
    FAILS(ncclSystemError, ncclCommInitRank, &comm, 5, id, r->rank);
    CHECK(strstr(ncclGetLastError(NULL), ": 1-4"), "%s", ncclGetLastError(NULL));
    FAILS(ncclInvalidUsage, ncclCommInitRank, &comm, 5, id, r->rank);
}

static void used_twice(struct rank *r)
{
    ncclUniqueId id = suite_id(r, 0);
    ncclComm_t comm, again;

    OK(ncclCommInitRank, &comm, r->world, id, r->rank);
    FAILS(ncclInvalidUsage, ncclCommInitRank, &again, r->world, id, r->rank);
    OK(ncclCommDestroy, comm);
    suite_meet(r);
}

/* Whoever comes second is told; the first waits in vain. */
static void worlds_disagree(struct rank *r)
{
    ncclUniqueId id;
    ncclComm_t comm;
    ncclResult_t result;

    setenv("ORRERY_EMULATOR_NCCL_TIMEOUT_MS", "500", 1);
    id = suite_id(r, 0);
    result = ncclCommInitRank(&comm, 2 + r->rank, id, r->rank);
    CHECK(
        result == ncclInvalidArgument || result == ncclSystemError, "%d", (int)result);
    CHECK(strstr(ncclGetLastError(NULL),
                 result == ncclSystemError ? "have not called" : "others say"),
          "%s",
          ncclGetLastError(NULL));
    suite_meet(r);
}

static void interface_is_chosen(struct rank *r)
{
    ncclUniqueId id;
    ncclComm_t comm;

    setenv("NCCL_SOCKET_IFNAME", "nosuch", 1);
    FAILS(ncclSystemError, ncclGetUniqueId, &id);
    CHECK(strstr(ncclGetLastError(NULL), "nosuch"), "%s", ncclGetLastError(NULL));
    setenv("NCCL_SOCKET_IFNAME", "=lo", 1);
    OK(ncclGetUniqueId, &id);
    OK(ncclCommInitRank, &comm, 1, id, r->rank);
    OK(ncclCommDestroy, comm);
}

static int knock(const ncclUniqueId *id, const void *what, size_t bytes)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    memcpy(un.sun_path, id->internal + 24, 104);
    CHECK(connect(fd, (struct sockaddr *)&un, sizeof un) == 0, "%s", strerror(errno));
    CHECK(send(fd, what, bytes, MSG_NOSIGNAL) == (ssize_t)bytes, "%s", strerror(errno));
    return fd;
}

/* What a rank says first, as the emulator's protocol has it. */
struct hello {
    char magic[4];
    uint32_t version;
    char cookie[16];
    int32_t world, rank;
};

/* Garbage at the door: HTTP, noise, half a hello, silence, and one who knows the cookie
 * but claims to be rank a million; then the ranks, as ever. */
static void strangers(struct rank *r)
{
    enum { KNOCKS = 40 };
    ncclUniqueId id = suite_id(r, 0);
    struct hello hello = {.magic = "CNRO", .version = 2, .world = 2, .rank = 1000000};
    struct array a = array_new(10, ncclFloat32);
    char noise[200];
    int fds[KNOCKS];
    ncclComm_t comm;

    memcpy(hello.cookie, id.internal + 8, sizeof hello.cookie);
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char)(i * 37 + (size_t)r->rank);
    for (int i = 0; i < KNOCKS; i++) {
        const void *text[] = {"GET / HTTP/1.1\r\nHost: me, and only me\r\n\r\n",
                              noise,
                              &hello,
                              "",
                              &hello};
        size_t bytes[] = {41, sizeof noise, 20, 0, sizeof hello};
        fds[i] = knock(&id, text[i % 5], bytes[i % 5]);
    }
    OK(ncclCommInitRank, &comm, r->world, id, r->rank);
    all_reduce(r, comm, &a);
    suite_sync(r);
    expect_state(comm, ncclSuccess, "");
    OK(ncclCommDestroy, comm);
    for (int i = 0; i < KNOCKS; i++)
        close(fds[i]);
    array_free(&a);
}

const struct conf_case fault_cases[] = {
    {"killed_in_collective", killed_in_collective, {2, 3, 8}, false},
    {"killed_in_exchange", killed_in_exchange, {2, 4}, false},
    {"killed_in_init", killed_in_init, {3}, true},
    {"abort_unblocks", abort_unblocks, {2, 3}, false},
    {"abort_in_init", abort_in_init, {1}, true},
    {"one_leaves", one_leaves, {3}, true},
    {"ranks_disagree", ranks_disagree, {2, 3}, true},
    {"lengths_disagree", lengths_disagree, {2}, true},
    {"some_never_come", some_never_come, {1}, true},
    {"used_twice", used_twice, {2}, true},
    {"worlds_disagree", worlds_disagree, {2}, true},
    {"interface_is_chosen", interface_is_chosen, {1}, true},
    {"strangers", strangers, {2}, true},
    {NULL, NULL, {0}, false},
};
