/* SPDX-License-Identifier: Apache-2.0
 * bench_nccl.c - AllReduce among 8 processes on the emulator, as JSON lines:
 *
 *   nccl_allreduce_64k      time of one 64 KiB float sum, enqueued and waited for; the
 *                           peer is two rounds of a pthread barrier among the same
 *                           processes, which is the least that the algorithm can take
 *   nccl_allreduce_64k_cpu  processor time of all ranks together for one of them
 *   nccl_allreduce_16m      bytes of each rank's buffer per second; the peer is memcpy
 *                           in one process
 *
 * usage: bench_nccl [rounds]
 */
#include "orrery/gpu_abi.h"
#include "suite_devices.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RANKS = 8, SMALL = 64 << 10, LARGE = 16 << 20, SAMPLES = 5 };

struct board {
    pthread_barrier_t barrier;
    ncclUniqueId id;
    double cpu_us[RANKS];
};

struct rank {
    struct board *board;
    int rank;
    ncclComm_t comm;
    CUstream stream;
    CUdeviceptr buffer;
};

#define MUST(ok)                                                                       \
    do {                                                                               \
        if (!(ok)) {                                                                   \
            fprintf(stderr, "bench_nccl: %s: %s\n", #ok, ncclGetLastError(NULL));      \
            _exit(1);                                                                  \
        }                                                                              \
    } while (0)

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

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

typedef void round_f(struct rank *r, size_t bytes);

static void all_reduce(struct rank *r, size_t bytes)
{
    void *at = (void *)(uintptr_t)r->buffer;

    MUST(ncclAllReduce(at, at, bytes / 4, ncclFloat32, ncclSum, r->comm, r->stream) ==
         ncclSuccess);
    MUST(cuStreamSynchronize(r->stream) == CUDA_SUCCESS);
}

static void two_barriers(struct rank *r, size_t bytes)
{
    (void)bytes;
    pthread_barrier_wait(&r->board->barrier);
    pthread_barrier_wait(&r->board->barrier);
}

static void copy(struct rank *r, size_t bytes)
{
    static char *from, *to;

    if (r->rank != 0)
        return;
    if (!from) {
        MUST((from = malloc(bytes)) && (to = malloc(bytes)));
        memset(from, 1, bytes);
        memset(to, 1, bytes);
    }
    memcpy(to, from, bytes);
    __asm__ volatile("" ::"r"(to) : "memory");
}

/* The median of several runs, in microseconds a round. */
static double measure(struct rank *r, round_f *round, size_t bytes, int rounds)
{
    double us[SAMPLES];

    for (int s = 0; s < SAMPLES; s++) {
        double begin;
        round(r, bytes);
        pthread_barrier_wait(&r->board->barrier);
        begin = now_us();
        for (int i = 0; i < rounds; i++)
            round(r, bytes);
        us[s] = (now_us() - begin) / rounds;
        pthread_barrier_wait(&r->board->barrier);
    }
    qsort(us, SAMPLES, sizeof us[0], by_value);
    return us[SAMPLES / 2];
}

static void print(const char *bench,
                  double value,
                  const char *unit,
                  const char *peer,
                  double peer_value)
{
    printf("{\"bench\":\"%s\",\"value\":%.4g,\"unit\":\"%s\",\"peer\":\"%s\","
           "\"peer_value\":%.4g,\"ratio\":%.3g}\n",
           bench,
           value,
           unit,
           peer,
           peer_value,
           value / peer_value);
}

static void join(struct rank *r)
{
    CUdevice device;
    CUcontext ctx;
    int n;

    MUST(cuInit(0) == CUDA_SUCCESS && cuDeviceGetCount(&n) == CUDA_SUCCESS);
    MUST(cuDeviceGet(&device, r->rank % n) == CUDA_SUCCESS);
    MUST(cuDevicePrimaryCtxRetain(&ctx, device) == CUDA_SUCCESS);
    MUST(cuCtxSetCurrent(ctx) == CUDA_SUCCESS);
    MUST(cuStreamCreate(&r->stream, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS);
    MUST(cuMemAlloc(&r->buffer, LARGE) == CUDA_SUCCESS);
    MUST(cuMemsetD8(r->buffer, 0, LARGE) == CUDA_SUCCESS);
    if (r->rank == 0)
        MUST(ncclGetUniqueId(&r->board->id) == ncclSuccess);
    pthread_barrier_wait(&r->board->barrier);
    MUST(ncclCommInitRank(&r->comm, RANKS, r->board->id, r->rank) == ncclSuccess);
}

static void run_rank(struct rank *r, int rounds)
{
    double cpu, small, floor, large, plain, all = 0;

    join(r);
    cpu = cpu_us();
    small = measure(r, all_reduce, SMALL, rounds);
    r->board->cpu_us[r->rank] = (cpu_us() - cpu) / (SAMPLES * (rounds + 1));
    floor = measure(r, two_barriers, 0, rounds);
    large = measure(r, all_reduce, LARGE, 1 + rounds / 100);
    plain = measure(r, copy, LARGE, 1 + rounds / 100);
    for (int i = 0; i < RANKS; i++)
        all += r->board->cpu_us[i];
    if (r->rank == 0) {
        print("nccl_allreduce_64k", small, "us", "two pthread barriers", floor);
        print("nccl_allreduce_64k_cpu", all, "us of all ranks", "its time", small);
        print("nccl_allreduce_16m",
              LARGE / large / 1e3,
              "GB/s",
              "memcpy",
              LARGE / plain / 1e3);
    }
    MUST(ncclCommDestroy(r->comm) == ncclSuccess);
}

static struct board *board_new(void)
{
    struct board *b = mmap(
        NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_barrierattr_t attr;

    MUST(b != MAP_FAILED);
    pthread_barrierattr_init(&attr);
    pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&b->barrier, &attr, RANKS);
    return b;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 500, failed = 0, status;
    struct rank r = {.board = board_new()};
    pid_t pid[RANKS];

    if (rounds < 1 || suite_devices_make(4) <= 0) {
        fprintf(stderr, "usage: bench_nccl [rounds]; needs space in /dev/shm\n");
        return 1;
    }
    for (r.rank = 0; r.rank < RANKS; r.rank++) {
        pid[r.rank] = fork();
        if (pid[r.rank] == 0) {
            run_rank(&r, rounds);
            return 0;
        }
    }
    for (int i = 0; i < RANKS; i++)
        failed |= waitpid(pid[i], &status, 0) != pid[i] || status != 0;
    suite_devices_remove();
    return failed;
}
