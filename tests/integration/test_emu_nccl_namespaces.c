/* SPDX-License-Identifier: Apache-2.0
 * test_emu_nccl_namespaces.c - the emulated NCCL among ranks that share a machine and nothing else: each in PID, network, IPC and
 * UTS namespaces of its own, as Orrery runs them.  And what a process keeps of a communicator that was destroyed: nothing.
 */
#include "../conformance/nccl/suite_devices.h"
#include "orr_test.h"
#include "orrery/gpu_abi.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RANKS_MAX = 8, COMMS = 10, DEADLINE_MS = 30000 };

struct board {
    pthread_barrier_t barrier;
    ncclUniqueId id[COMMS];
    double ms[RANKS_MAX];
};

static struct board *board;

#define MUST(ok)                                                                       \
    do {                                                                               \
        if (!(ok)) {                                                                   \
            fprintf(stderr,                                                            \
                    "%s:%d: %s: %s, %s\n",                                             \
                    __FILE__,                                                          \
                    __LINE__,                                                          \
                    #ok,                                                               \
                    ncclGetLastError(NULL),                                            \
                    strerror(errno));                                                  \
            _exit(1);                                                                  \
        }                                                                              \
    } while (0)

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void meet(void)
{
    pthread_barrier_wait(&board->barrier);
}

static CUstream use_device(int rank)
{
    CUstream stream;
    CUcontext ctx;
    CUdevice device;

    MUST(cuInit(0) == CUDA_SUCCESS && cuDeviceGet(&device, rank % 2) == CUDA_SUCCESS);
    MUST(cuDevicePrimaryCtxRetain(&ctx, device) == CUDA_SUCCESS);
    MUST(cuCtxSetCurrent(ctx) == CUDA_SUCCESS);
    MUST(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS);
    return stream;
}

static ncclComm_t make(int k, int rank, int world)
{
    ncclComm_t comm;

    if (rank == 0)
        MUST(ncclGetUniqueId(&board->id[k]) == ncclSuccess);
    meet();
    MUST(ncclCommInitRank(&comm, world, board->id[k], rank) == ncclSuccess);
    return comm;
}

static void expect_sum(ncclComm_t comm, CUstream stream, int world)
{
    CUdeviceptr at;
    int value = 1;

    MUST(cuMemAlloc(&at, 4) == CUDA_SUCCESS);
    MUST(cuMemcpyHtoD(at, &value, 4) == CUDA_SUCCESS);
    MUST(ncclAllReduce((void *)(uintptr_t)at,
                       (void *)(uintptr_t)at,
                       1,
                       ncclInt32,
                       ncclSum,
                       comm,
                       stream) == ncclSuccess);
    MUST(cuStreamSynchronize(stream) == CUDA_SUCCESS);
    MUST(cuMemcpyDtoH(&value, at, 4) == CUDA_SUCCESS);
    MUST(value == world);
    MUST(cuMemFree(at) == CUDA_SUCCESS);
}

/* ---- Ranks -------------------------------------------------------------------------------- */

typedef void rank_f(int rank, int world);

/* Rank 1 is killed; the other is told, and soon. */
static void sum_and_die(int rank, int world)
{
    CUstream stream = use_device(rank);
    ncclComm_t comm = make(0, rank, world);
    double deadline = now_ms() + 2000;
    ncclResult_t state = ncclSuccess;

    expect_sum(comm, stream, world);
    meet();
    if (rank == 1)
        _exit(9); /* no destructor runs: the kernel alone tells */
    while (state == ncclSuccess && now_ms() < deadline) {
        const struct timespec pause = {.tv_nsec = 1000000};
        MUST(ncclCommGetAsyncError(comm, &state) == ncclSuccess);
        nanosleep(&pause, NULL); /* NCCL offers nothing to wait on */
    }
    MUST(state == ncclRemoteError);
    MUST(ncclCommAbort(comm) == ncclSuccess);
}

/* What the process holds that has to do with communicators. */
static int count_open(void)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *e;
    char path[300], target[300];
    int found = 0;

    MUST(dir);
    while ((e = readdir(dir))) {
        ssize_t n;
        snprintf(path, sizeof path, "/proc/self/fd/%s", e->d_name);
        n = readlink(path, target, sizeof target - 1);
        if (n <= 0)
            continue;
        target[n] = '\0';
        found += strstr(target, "orrery-nccl") || strncmp(target, "socket:", 7) == 0 ||
                 strstr(target, "eventpoll") || strstr(target, "eventfd");
    }
    closedir(dir);
    return found;
}

static int count_mapped(void)
{
    FILE *f = fopen("/proc/self/maps", "r");
    char line[512];
    int found = 0;

    MUST(f);
    while (fgets(line, sizeof line, f))
        found += strstr(line, "orrery-nccl") != NULL;
    fclose(f);
    return found;
}

/* Makes and destroys ten communicators, twice; then nothing of them is left. */
static void leave_nothing(int rank, int world)
{
    CUstream stream = use_device(rank);
    ncclComm_t comm[COMMS];
    int open_before = count_open();
    double begin, deadline;

    for (int round = 0; round < 3; round++) {
        if (rank == 0)
            for (int k = 0; k < COMMS; k++)
                MUST(ncclGetUniqueId(&board->id[k]) == ncclSuccess);
        meet();
        begin = now_ms();
        MUST(ncclGroupStart() == ncclSuccess);
        for (int k = 0; k < COMMS; k++)
            MUST(ncclCommInitRank(&comm[k], world, board->id[k], rank) == ncclSuccess);
        MUST(ncclGroupEnd() == ncclSuccess);
        board->ms[rank] = now_ms() - begin;
        for (int k = 0; k < COMMS; k++)
            expect_sum(comm[k], stream, world);
        begin = now_ms();
        for (int k = 0; k < COMMS; k++)
            MUST(ncclCommDestroy(comm[k]) == ncclSuccess);
        board->ms[rank] += now_ms() - begin;
    }
    deadline = now_ms() + 5000;
    while ((count_open() > open_before || count_mapped() > 0) && now_ms() < deadline)
        sched_yield(); /* a thread may be on its way out */
    if (count_open() > open_before || count_mapped() > 0)
        fprintf(stderr,
                "rank %d: %d descriptors (%d before), %d mappings are left\n",
                rank,
                count_open(),
                open_before,
                count_mapped());
    MUST(count_open() <= open_before && count_mapped() == 0);
}

static void invite_and_die(int rank, int world)
{
    (void)rank, (void)world;
    MUST(ncclGetUniqueId(&board->id[0]) == ncclSuccess);
    _exit(9);
}

static void invite_and_end(int rank, int world)
{
    (void)rank, (void)world;
    MUST(ncclGetUniqueId(&board->id[1]) == ncclSuccess);
}

/* ---- Running them --------------------------------------------------------------------------- */

static pid_t start(rank_f *run, int rank, int world, bool apart)
{
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    if (apart) {
        MUST(unshare(CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) == 0);
        pid = fork(); /* the first of the new PID namespace */
        if (pid != 0) {
            int status;
            MUST(waitpid(pid, &status, 0) == pid);
            _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128);
        }
    }
    alarm(DEADLINE_MS / 1000);
    run(rank, world);
    exit(0);
}

static void run_all(rank_f *run, int world, bool apart, int dies)
{
    pthread_barrierattr_t attr;
    pid_t pid[RANKS_MAX];
    int status;

    pthread_barrierattr_init(&attr);
    pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&board->barrier, &attr, (unsigned)world);
    for (int r = 0; r < world; r++)
        pid[r] = start(run, r, world, apart);
    for (int r = 0; r < world; r++) {
        assert_int_equal(waitpid(pid[r], &status, 0), pid[r]);
        if (r != dies)
            assert_int_equal(status, 0);
    }
}

static void ranks_in_namespaces_find_each_other(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        print_message("skipped: namespaces need root\n");
        skip();
    }
    run_all(sum_and_die, 2, true, 1);
}

static void destroyed_communicators_leave_nothing(void **state)
{
    double most = 0;

    (void)state;
    run_all(leave_nothing, 8, geteuid() == 0, -1);
    for (int r = 0; r < 8; r++)
        most = board->ms[r] > most ? board->ms[r] : most;
    print_message(
        "%d communicators of 8 ranks made and destroyed: %.1f ms\n", (int)COMMS, most);
}

static void killed_roots_are_swept(void **state)
{
    char path[2][105] = {{0}};
    const struct timespec long_ago[2] = {{0}, {0}};

    (void)state;
    run_all(invite_and_die, 1, false, 0);
    memcpy(path[0], board->id[0].internal + 24, 104);
    assert_int_equal(access(path[0], F_OK), 0);
    /* one that is new may be about to listen */
    assert_int_equal(utimensat(AT_FDCWD, path[0], long_ago, AT_SYMLINK_NOFOLLOW), 0);
    run_all(invite_and_end, 1, false, -1);
    memcpy(path[1], board->id[1].internal + 24, 104);
    assert_int_not_equal(access(path[0], F_OK), 0);
    assert_int_not_equal(access(path[1], F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_in_namespaces_find_each_other),
        cmocka_unit_test(destroyed_communicators_leave_nothing),
        cmocka_unit_test(killed_roots_are_swept),
    };
    int failed;

    board = mmap(
        NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED || suite_devices_make(2) <= 0)
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    suite_devices_remove();
    return failed;
}
