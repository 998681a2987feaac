/* SPDX-License-Identifier: Apache-2.0
 * bench_splice.c - what ranks that share a device cost (docs/splicing.md), on the emulator, as JSON lines:
 *
 *   splice_2, _4, _8          a step of that many ranks on one device: six matrix products of 128 x 128 x 128 each, as a layer of 128 x 128
 *                             makes them forward and backward for a batch of 256, then the sum of 64 KiB of gradients over all ranks.  The peer
 *                             is that many times the step of one rank alone on the device
 *   splice_sum_2, _4, _8      the sums of that step alone, without products: what is added to them, as a share of a step, is what a device that
 *                             computes at its own pace would see
 *   splice_ordered_2, _4      a sum of 4 MiB over 8 ranks on that many devices with `reduce: ordered`; the peer is `fast`
 *
 * The first are in processor time of all threads of all ranks, all on one processor: it stands for the device, which they share, too, and other
 * programs on the machine do not count.  One and many take turns.  The second are in the same time, on all processors.  Medians.  To be run with the interposer of NCCL preloaded, and with
 * what stands in for the node (bench/run).
 *
 * usage: bench_splice KERNELS.PTX [rounds]
 */
#include "cut_board.h"
#include "orrery/gpu_abi.h"
#include "suite_devices.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    RANKS = 8,
    SIDE = 128,
    PRODUCTS = 6,
    LARGE = 4 << 20,
    SAMPLES = 5,
    TURNS = 5,
    SUMS = 20, /* rounds for one of a step */
    TEXT_MAX = 1 << 20
};

enum work { STEP, SUM, LARGE_SUM };

struct plan {
    enum work work;
    int ranks, devices;
    const char *reduce;
};

struct board {
    pthread_barrier_t barrier;
    ncclUniqueId id;
    double us[RANKS][SAMPLES]; /* a round's */
    double result;
};

struct rank {
    struct board *board; /* borrowed: of its plan */
    const struct plan *plan;
    int rank, rounds;
    ncclComm_t comm;
    CUstream stream;
    CUfunction product;
    CUdeviceptr a, b, c;
};

#define MUST(ok)                                                                       \
    do {                                                                               \
        if (!(ok)) {                                                                   \
            fprintf(stderr, "bench_splice: %s: %s\n", #ok, ncclGetLastError(NULL));    \
            _exit(1);                                                                  \
        }                                                                              \
    } while (0)

static char text[TEXT_MAX];

static double cpu_us(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* ---- a rank ----------------------------------------------------------------------------- */

static void join(struct rank *r)
{
    CUmodule module;
    CUdevice device;
    CUcontext ctx;
    int n;

    MUST(cuInit(0) == CUDA_SUCCESS && cuDeviceGetCount(&n) == CUDA_SUCCESS);
    MUST(cuDeviceGet(&device, r->rank * n / r->plan->ranks) == CUDA_SUCCESS);
    MUST(cuDevicePrimaryCtxRetain(&ctx, device) == CUDA_SUCCESS);
    MUST(cuCtxSetCurrent(ctx) == CUDA_SUCCESS);
    MUST(cuStreamCreate(&r->stream, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS);
    MUST(cuModuleLoadData(&module, text) == CUDA_SUCCESS);
    MUST(cuModuleGetFunction(&r->product, module, "gemm_tiled") == CUDA_SUCCESS);
    MUST(cuMemAlloc(&r->a, LARGE) == CUDA_SUCCESS);
    MUST(cuMemAlloc(&r->b, LARGE) == CUDA_SUCCESS);
    MUST(cuMemAlloc(&r->c, LARGE) == CUDA_SUCCESS);
    MUST(cuMemsetD8(r->a, 0, LARGE) == CUDA_SUCCESS);
    MUST(cuMemsetD8(r->b, 0, LARGE) == CUDA_SUCCESS);
    MUST(cuMemsetD8(r->c, 0, LARGE) == CUDA_SUCCESS);
    if (r->rank == 0)
        MUST(ncclGetUniqueId(&r->board->id) == ncclSuccess);
    pthread_barrier_wait(&r->board->barrier);
    MUST(ncclCommInitRank(&r->comm, r->plan->ranks, r->board->id, r->rank) ==
         ncclSuccess);
}

static void multiply(struct rank *r)
{
    int side = SIDE;
    void *params[] = {&side, &side, &side, &r->a, &r->b, &r->c};

    MUST(cuLaunchKernel(r->product,
                        SIDE / 16,
                        SIDE / 16,
                        1,
                        16,
                        16,
                        1,
                        0,
                        r->stream,
                        params,
                        NULL) == CUDA_SUCCESS);
}

static void one_round(struct rank *r)
{
    size_t count = r->plan->work == LARGE_SUM ? LARGE / 4 : (size_t)SIDE * SIDE;
    void *at = (void *)(uintptr_t)r->c;

    for (int i = 0; r->plan->work == STEP && i < PRODUCTS; i++)
        multiply(r);
    MUST(ncclAllReduce(at, at, count, ncclFloat32, ncclSum, r->comm, r->stream) ==
         ncclSuccess);
    MUST(cuStreamSynchronize(r->stream) == CUDA_SUCCESS);
}

static void run_rank(struct rank *r)
{
    join(r);
    one_round(r);
    for (int s = 0; s < SAMPLES; s++) {
        double begin;
        pthread_barrier_wait(&r->board->barrier);
        begin = cpu_us();
        for (int i = 0; i < r->rounds; i++)
            one_round(r);
        r->board->us[r->rank][s] = (cpu_us() - begin) / r->rounds;
    }
    pthread_barrier_wait(&r->board->barrier);
    MUST(ncclCommDestroy(r->comm) == ncclSuccess);
}

/* ---- a plan ----------------------------------------------------------------------------- */

static struct board *board_new(int ranks)
{
    struct board *b = mmap(
        NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_barrierattr_t attr;

    MUST(b != MAP_FAILED);
    pthread_barrierattr_init(&attr);
    pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&b->barrier, &attr, (unsigned)ranks);
    return b;
}

/* The median of what all take together. */
static double result_of(const struct board *b, const struct plan *plan)
{
    double us[SAMPLES] = {0};

    for (int s = 0; s < SAMPLES; s++)
        for (int r = 0; r < plan->ranks; r++)
            us[s] += b->us[r][s];
    qsort(us, SAMPLES, sizeof us[0], by_value);
    return us[SAMPLES / 2];
}

static void stay_on_one_processor(void)
{
    cpu_set_t all, one;
    size_t cpu = 0;

    MUST(sched_getaffinity(0, sizeof all, &all) == 0);
    while (!CPU_ISSET(cpu, &all))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    MUST(sched_setaffinity(0, sizeof one, &one) == 0);
}

static int run_ranks(struct rank r)
{
    struct cut_drive *posts =
        cut_drive_new(CUT_NEVER); /* what the ranks tell each other */
    uint64_t ignored[3] = {0};
    int failed = posts == NULL || suite_devices_make(r.plan->devices) <= 0, status;
    pid_t pid[RANKS];

    if (r.plan->work != LARGE_SUM)
        stay_on_one_processor();
    if (posts)
        setenv("NCCL_CUT_BOARD", cut_drive_path(posts), 1);
    setenv("ORRERY_REDUCE", r.plan->reduce, 1);
    for (r.rank = 0; r.rank < r.plan->ranks && !failed; r.rank++) {
        pid[r.rank] = fork();
        if (pid[r.rank] == 0) {
            run_rank(&r);
            exit(0);
        }
    }
    for (int i = 0; i < r.rank; i++)
        failed |= waitpid(pid[i], &status, 0) != pid[i] || status != 0;
    suite_devices_remove();
    if (posts)
        cut_drive_free(posts, &ignored[0], &ignored[1], &ignored[2]);
    return failed;
}

/* In a process of its own: with devices of its own. */
static double run(struct plan plan, int rounds)
{
    struct rank r = {.board = board_new(plan.ranks),
                     .plan = &plan,
                     .rounds = rounds * (plan.work == SUM ? SUMS : 1)};
    int status = 0;
    pid_t pid = fork();
    double result;

    if (pid == 0)
        _exit(run_ranks(r));
    MUST(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
    result = result_of(r.board, &plan);
    munmap(r.board, sizeof *r.board);
    return result;
}

static void print(const char *bench,
                  int n,
                  double value,
                  const char *unit,
                  const char *peer,
                  double peer_value)
{
    printf("{\"bench\":\"%s_%d\",\"value\":%.5g,\"unit\":\"%s\",\"peer\":\"%s\","
           "\"peer_value\":%.5g,\"ratio\":%.4f}\n",
           bench,
           n,
           value,
           unit,
           peer,
           peer_value,
           value / peer_value);
    fflush(stdout);
}

static void compare_with_alone(enum work work, const char *name, int n, int rounds)
{
    double alone[TURNS], all[TURNS];

    for (int i = 0; i < TURNS; i++) {
        alone[i] = run((struct plan){work, 1, 1, "ordered"}, rounds);
        all[i] = run((struct plan){work, n, 1, "ordered"}, rounds);
    }
    qsort(alone, TURNS, sizeof alone[0], by_value);
    qsort(all, TURNS, sizeof all[0], by_value);
    print(name,
          n,
          all[TURNS / 2] / 1e3,
          "ms of processor time",
          "that many times one rank alone",
          n * alone[TURNS / 2] / 1e3);
}

static void compare_with_fast(int devices, int rounds)
{
    double fast[TURNS], ordered[TURNS];

    for (int i = 0; i < TURNS; i++) {
        fast[i] = run((struct plan){LARGE_SUM, RANKS, devices, "fast"}, rounds);
        ordered[i] = run((struct plan){LARGE_SUM, RANKS, devices, "ordered"}, rounds);
    }
    qsort(fast, TURNS, sizeof fast[0], by_value);
    qsort(ordered, TURNS, sizeof ordered[0], by_value);
    print("splice_ordered",
          devices,
          ordered[TURNS / 2] / 1e3,
          "ms of processor time a sum of 4 MiB, 8 ranks",
          "reduce: fast",
          fast[TURNS / 2] / 1e3);
}

int main(int argc, char **argv)
{
    int rounds = argc > 2 ? atoi(argv[2]) : 8;
    FILE *f = argc > 1 ? fopen(argv[1], "r") : NULL;

    if (!f || rounds < 1 || fread(text, 1, sizeof text - 1, f) == 0) {
        fprintf(stderr, "usage: bench_splice KERNELS.PTX [rounds]\n");
        return 2;
    }
    fclose(f);
    for (int n = 2; n <= RANKS; n *= 2)
        compare_with_alone(STEP, "splice", n, rounds);
    for (int n = 2; n <= RANKS; n *= 2)
        compare_with_alone(SUM, "splice_sum", n, rounds);
    for (int n = 2; n <= 4; n *= 2)
        compare_with_fast(n, rounds);
    return 0;
}
