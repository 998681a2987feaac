/* SPDX-License-Identifier: Apache-2.0
 * hold.c - ranks that hold memory, for bench_checkpoint.py: an ordinary CUDA and NCCL program.
 *
 * Each rank has --mib MiB on its device and --host-mib in host memory, neither of which compresses; --own-mib of the device's are
 * its own, the rest is the same on all ranks, as the weights of data parallel ranks are. In each step they add a number over
 * all ranks, in --step-ms. At the end all memory is looked at: what is wrong ends the program with 1.
 */
#include "fail.h"
#include "grid.h"
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MIB = 1 << 20, WORDS = MIB / 8 };

struct hold {
    uint32_t mib, host_mib, own_mib, step_ms, steps, log_every;
    uint32_t rank, world;
    CUstream stream;
    CUdeviceptr memory, sum;
    uint64_t *host;  /* owned */
    uint64_t *chunk; /* owned: one MiB */
};

/* One MiB of noise that its number tells, by splitmix64. */
static void fill(uint64_t *at, uint64_t number)
{
    uint64_t state = number * UINT64_C(0x9e3779b97f4a7c15);
    for (int i = 0; i < WORDS; i++) {
        uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        at[i] = z ^ (z >> 31);
    }
}

/* What is a rank's own comes last. */
static uint64_t number_of(const struct hold *h, uint32_t i)
{
    return i + h->own_mib < h->mib ? i + 1 : (uint64_t)(h->rank + 1) << 32 | i;
}

static uint64_t host_number(const struct hold *h, uint32_t i)
{
    return (uint64_t)(h->rank + 1) << 48 | i;
}

static void take_memory(struct hold *h)
{
    CUdevice device;
    CUcontext context;
    int n = 0;
    const char *local = getenv("LOCAL_RANK");
    h->chunk = malloc(MIB);
    h->host = malloc((size_t)h->host_mib * MIB + 1);
    if (!h->chunk || !h->host)
        die("out of memory");
    for (uint32_t i = 0; i < h->host_mib; i++)
        fill(h->host + (size_t)i * WORDS, host_number(h, i));
    CU(cuInit, 0);
    CU(cuDeviceGetCount, &n);
    CU(cuDeviceGet, &device, (local ? atoi(local) : 0) % n);
    CU(cuDevicePrimaryCtxRetain, &context, device);
    CU(cuCtxSetCurrent, context);
    CU(cuStreamCreate, &h->stream, CU_STREAM_NON_BLOCKING);
    CU(cuMemAlloc, &h->sum, sizeof(float));
    if (h->mib)
        CU(cuMemAlloc, &h->memory, (size_t)h->mib * MIB);
    for (uint32_t i = 0; i < h->mib; i++) {
        fill(h->chunk, number_of(h, i));
        CU(cuMemcpyHtoD, h->memory + (CUdeviceptr)i * MIB, h->chunk, MIB);
    }
}

static void look_at_memory(struct hold *h)
{
    uint64_t *want = malloc(MIB);
    if (!want)
        die("out of memory");
    for (uint32_t i = 0; i < h->mib; i++) {
        CU(cuMemcpyDtoH, h->chunk, h->memory + (CUdeviceptr)i * MIB, MIB);
        fill(want, number_of(h, i));
        if (memcmp(want, h->chunk, MIB) != 0)
            die("MiB %u of the device memory has changed", i);
    }
    for (uint32_t i = 0; i < h->host_mib; i++) {
        fill(want, host_number(h, i));
        if (memcmp(want, h->host + (size_t)i * WORDS, MIB) != 0)
            die("MiB %u of the host memory has changed", i);
    }
    free(want);
}

static void step(struct hold *h, ncclComm_t comm)
{
    float one = 1, sum = 0;
    void *at = gpu_pointer(h->sum);
    const struct timespec pause = {.tv_sec = h->step_ms / 1000,
                                   .tv_nsec = (long)(h->step_ms % 1000) * 1000000};
    CU(cuMemcpyHtoDAsync, h->sum, &one, sizeof one, h->stream);
    NCCL(ncclAllReduce, at, at, 1, ncclFloat, ncclSum, comm, h->stream);
    CU(cuMemcpyDtoHAsync, &sum, h->sum, sizeof sum, h->stream);
    CU(cuStreamSynchronize, h->stream);
    if (sum != (float)h->world)
        die("%u ranks add to %g", h->world, (double)sum);
    nanosleep(&pause, NULL); /* the work of a step */
}

static void parse(struct hold *h, int argc, char **argv)
{
    const struct option_spec specs[] = {
        {"mib", OPTION_NUMBER, &h->mib, 0, 1 << 20, "N  MiB on the device"},
        {"host-mib", OPTION_NUMBER, &h->host_mib, 0, 1 << 20, "N  MiB of host memory"},
        {"own-mib",
         OPTION_NUMBER,
         &h->own_mib,
         0,
         1 << 20,
         "N  of them no other rank's"},
        {"step-ms", OPTION_NUMBER, &h->step_ms, 0, 60000, "T  a step takes at least"},
        {"steps", OPTION_NUMBER, &h->steps, 1, STEPS_MAX, "N"},
        {"log-every", OPTION_NUMBER, &h->log_every, 1, STEPS_MAX, "K  print the step"},
    };
    options_parse(specs, sizeof specs / sizeof *specs, argc, argv);
}

int main(int argc, char **argv)
{
    char err[MEET_ERR_MAX];
    struct hold h = {.mib = 16, .step_ms = 5, .steps = STEPS_MAX, .log_every = 1};
    struct meet meet;
    struct watch watch;
    setvbuf(stdout, NULL, _IOLBF, 0);
    parse(&h, argc, argv);
    if (!meet_from_env(&meet, err))
        usage_error("%s", err);
    die_as_rank(meet.rank);
    h.rank = meet.rank;
    h.world = meet.world;
    watch_init(&watch);
    watch_enter(&watch, "start", WATCH_INIT_S);
    take_memory(&h);
    ncclComm_t comm = grid_join(&meet, &watch);
    for (uint32_t n = 1; n <= h.steps; n++) {
        watch_enter(&watch, "a step", WATCH_STEP_S);
        step(&h, comm);
        if (h.rank == 0 && n % h.log_every == 0)
            printf("step=%u\n", n);
    }
    look_at_memory(&h);
    watch_comms(&watch, NULL, 0);
    NCCL(ncclCommDestroy, comm);
    watch_fini(&watch);
    free(h.host);
    free(h.chunk);
    if (h.rank == 0)
        puts("memory is right");
    return 0;
}
