/* SPDX-License-Identifier: Apache-2.0
 * suite.c - what a rank of a case can do (suite.h), and how it is started.
 */
#include "../../../gateways/rank/core/gate.h"
#include "coverage.h"
#include "suite_devices.h"
#include "suite_run.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int own_rank;

/* ---- Checks and coverage ------------------------------------------------------------- */

static void give_up(void)
{
    fflush(stderr);
    _exit(1);
}

void suite_assert(
    bool ok, const char *cond, const char *file, int line, const char *format, ...)
{
    va_list args;

    if (ok)
        return;
    fprintf(stderr, "rank %d: %s:%d: %s: ", own_rank, file, line, cond);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    give_up();
}

void suite_covered(const char *call, bool is_error_case)
{
    if (!coverage_note(call, is_error_case))
        suite_assert(false, "coverage_note", __FILE__, __LINE__, "%s", strerror(errno));
}

void suite_check(
    const char *call, ncclResult_t want, ncclResult_t got, const char *file, int line)
{
    suite_covered(call, want != ncclSuccess);
    if (got == want)
        return;
    fprintf(stderr,
            "rank %d: %s:%d: %s returned %d, not %d: %s\n",
            own_rank,
            file,
            line,
            call,
            (int)got,
            (int)want,
            ncclGetLastError(NULL));
    give_up();
}

void suite_check_cuda(const char *call, CUresult got, const char *file, int line)
{
    suite_assert(got == CUDA_SUCCESS, call, file, line, "returned %d", (int)got);
}

void *suite_symbol(const char *name)
{
    const char *real = getenv("ORRERY_REAL_LIBNCCL");
    void *at = dlsym(RTLD_DEFAULT, name);
    void *library = !at && real ? dlopen(real, RTLD_NOW | RTLD_LOCAL) : NULL;

    return library ? dlsym(library, name) : at;
}

bool suite_is_emulated(void)
{
    return suite_symbol("orrEmuNcclUnsupported") != NULL;
}

ncclResult_t suite_await_async(ncclComm_t comm, ncclResult_t unlike, int ms)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    ncclResult_t state;

    do {
        OK(ncclCommGetAsyncError, comm, &state);
        if (state != unlike)
            break;
        nanosleep(&pause, NULL); /* NCCL offers nothing to wait on */
    } while (--ms > 0);
    return state;
}

/* ---- The board ------------------------------------------------------------------------ */

struct board {
    pthread_barrier_t barrier;
    ncclUniqueId id[SUITE_IDS];
    _Atomic int is_made[SUITE_IDS]; /* suite_id_of */
    _Atomic int may_die[SUITE_RANKS];
    _Atomic int pid[SUITE_RANKS];
};

int board_new(int world, struct board **ret_board)
{
    pthread_barrierattr_t attr;
    int fd = memfd_create("nccl-conformance", 0);
    struct board *b;

    if (fd < 0 || ftruncate(fd, sizeof *b) < 0)
        return -1;
    b = mmap(NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (b == MAP_FAILED)
        return -1;
    pthread_barrierattr_init(&attr);
    pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&b->barrier, &attr, (unsigned)world);
    *ret_board = b;
    return fd;
}

void board_free(struct board *b, int fd)
{
    munmap(b, sizeof *b);
    close(fd);
}

bool board_may_die(const struct board *b, int rank)
{
    return atomic_load(&b->may_die[rank]) != 0;
}

void suite_meet(struct rank *r)
{
    pthread_barrier_wait(&r->board->barrier);
}

ncclUniqueId suite_id(struct rank *r, int k)
{
    if (r->rank == 0)
        OK(ncclGetUniqueId, &r->board->id[k]);
    suite_meet(r);
    return r->board->id[k];
}

ncclUniqueId suite_id_of(struct rank *r, int k, int maker)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    int ms = 20000;

    if (r->rank == maker) {
        OK(ncclGetUniqueId, &r->board->id[k]);
        atomic_store(&r->board->is_made[k], 1); /* pairs with the load below */
    }
    while (!atomic_load(&r->board->is_made[k]) && ms-- > 0)
        nanosleep(&pause, NULL);
    CHECK(ms > 0, "rank %d has made no id", maker);
    return r->board->id[k];
}

ncclComm_t suite_comm(struct rank *r, int k)
{
    ncclUniqueId id = suite_id(r, k);
    ncclComm_t comm;

    OK(ncclCommInitRank, &comm, r->world, id, r->rank);
    return comm;
}

void suite_sync(struct rank *r)
{
    CU(cuStreamSynchronize, r->stream);
}

void suite_will_die(struct rank *r)
{
    atomic_store(&r->board->may_die[r->rank], 1);
}

void suite_die(struct rank *r)
{
    suite_will_die(r);
    raise(SIGKILL);
}

int suite_pid(struct rank *r, int rank)
{
    return atomic_load(&r->board->pid[rank]);
}

/* ---- A rank's process ------------------------------------------------------------------ */

/* Not in the middle of a stop: the interposer of CUDA would hold these calls then. */
static void leave_device(struct rank *r, CUdevice device)
{
    void (*enter)(struct orri_clock *const *, uint32_t, enum orr_clock_op) = NULL;
    void (*leave)(void) = NULL, *at = dlsym(RTLD_DEFAULT, "orri_gate_enter");

    memcpy(&enter, &at, sizeof at);
    at = dlsym(RTLD_DEFAULT, "orri_gate_leave");
    memcpy(&leave, &at, sizeof at);
    if (enter && leave)
        enter(NULL, 0, ORR_CLOCK_OP_NONE);
    CU(cuStreamDestroy, r->stream);
    CU(cuDevicePrimaryCtxRelease, device);
    if (enter && leave)
        leave();
}

int suite_rank_main(const struct conf_case *c, int rank, int world, int board_fd)
{
    struct rank r = {.rank = own_rank = rank, .world = world};
    int ndevices;
    CUdevice device;

    r.board =
        mmap(NULL, sizeof *r.board, PROT_READ | PROT_WRITE, MAP_SHARED, board_fd, 0);
    CHECK(r.board != MAP_FAILED, "board");
    close(board_fd);
    atomic_store(&r.board->pid[rank], getpid());
    suite_devices_enter(rank);
    CU(cuInit, 0);
    CU(cuDeviceGetCount, &ndevices);
    CU(cuDeviceGet, &device, rank % ndevices);
    CU(cuDevicePrimaryCtxRetain, &r.ctx, device);
    CU(cuCtxSetCurrent, r.ctx);
    CU(cuStreamCreate, &r.stream, CU_STREAM_NON_BLOCKING);
    suite_meet(&r);
    c->run(&r);
    leave_device(&r, device);
    munmap(r.board, sizeof *r.board);
    return 0;
}
