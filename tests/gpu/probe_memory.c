/* SPDX-License-Identifier: Apache-2.0
 * probe_memory.c - what moving a process' device memory costs when its pages are our own.
 *
 *   probe_memory MIB
 *
 * The way out: copy through pinned memory, unmap, release. The way back: create, map at the
 * same address, copy. One JSON line for each; it ends with 1 when what came back differs.
 * These are the rates that a suspend by the driver (probe_checkpoint) is compared with.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "orrery/gpu_abi.h"

enum { CHUNK = 64 << 20, DEADLINE_S = 100, SAMPLES = 64 };

struct range {
    CUdeviceptr at;
    size_t bytes;
    CUmemGenericAllocationHandle handle;
    CUmemAllocationProp prop;
};

#define CU(call, ...) must(#call, call(__VA_ARGS__))
static void must(const char *call, CUresult rc)
{
    const char *name = "?";
    if (rc == CUDA_SUCCESS)
        return;
    cuGetErrorName(rc, &name);
    printf("{\"probe\":\"memory\",\"ok\":false,\"call\":\"%s\",\"result\":\"%s\"}\n",
           call,
           name);
    exit(1);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void tell(const char *what, size_t bytes, double seconds)
{
    printf("{\"probe\":\"%s\",\"ok\":true,\"mib\":%zu,\"ms\":%.3f,\"gib_s\":%.2f}\n",
           what,
           bytes >> 20,
           seconds * 1e3,
           (double)bytes / (double)(1 << 30) / (seconds > 1e-9 ? seconds : 1e-9));
}

static void map(struct range *r)
{
    const CUmemAccessDesc access = {r->prop.location,
                                    CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CU(cuMemCreate, &r->handle, r->bytes, &r->prop, 0);
    CU(cuMemMap, r->at, r->bytes, 0, r->handle, 0);
    CU(cuMemSetAccess, r->at, r->bytes, &access, 1);
}

static void unmap(struct range *r)
{
    CU(cuMemUnmap, r->at, r->bytes);
    CU(cuMemRelease, r->handle);
}

static void reserve(struct range *r, CUdevice device, size_t mib)
{
    size_t unit = 0;
    memset(r, 0, sizeof *r);
    r->prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    r->prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    r->prop.location.id = device;
    CU(cuMemGetAllocationGranularity,
       &unit,
       &r->prop,
       CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    r->bytes = ((mib << 20) + unit - 1) / unit * unit;
    CU(cuMemAddressReserve, &r->at, r->bytes, 0, 0, 0);
}

static double copy(const struct range *r, char *host, CUstream stream, int is_out)
{
    double began = now_s();
    for (size_t at = 0; at < r->bytes; at += CHUNK) {
        size_t n = r->bytes - at < CHUNK ? r->bytes - at : CHUNK;
        if (is_out)
            CU(cuMemcpyDtoHAsync, host + at, r->at + at, n, stream);
        else
            CU(cuMemcpyHtoDAsync, r->at + at, host + at, n, stream);
    }
    CU(cuStreamSynchronize, stream);
    return now_s() - began;
}

/* Sampled, each word with a value of its own. */
static void paint(char *host, size_t bytes)
{
    for (size_t i = 0; i < bytes / 4; i++)
        ((uint32_t *)(void *)host)[i] = (uint32_t)i * 2654435761u;
}

static int is_painted(const struct range *r)
{
    for (size_t i = 0; i < SAMPLES; i++) {
        size_t at = (r->bytes / 4 - 1) / (SAMPLES - 1) * i;
        uint32_t word = 0;
        CU(cuMemcpyDtoH, &word, r->at + at * 4, sizeof word);
        if (word != (uint32_t)at * 2654435761u)
            return 0;
    }
    return 1;
}

static int out_and_back(struct range *r, CUstream stream)
{
    char *host = NULL;
    double began = now_s();
    CU(cuMemHostAlloc, (void **)&host, r->bytes, 0);
    tell("pin host memory", r->bytes, now_s() - began);
    paint(host, r->bytes);
    began = now_s();
    map(r);
    tell("create and map", r->bytes, now_s() - began);
    copy(r, host, stream, 0);
    memset(host, 0, r->bytes);
    for (int cycle = 0; cycle < 2; cycle++) {
        tell("copy out", r->bytes, copy(r, host, stream, 1));
        began = now_s();
        unmap(r);
        tell("unmap and release", r->bytes, now_s() - began);
        began = now_s();
        map(r);
        tell("create and map again", r->bytes, now_s() - began);
        tell("copy in", r->bytes, copy(r, host, stream, 0));
    }
    int is_right = is_painted(r);
    printf("{\"probe\":\"the same at the same address\",\"ok\":%s}\n",
           is_right ? "true" : "false");
    unmap(r);
    CU(cuMemFreeHost, host);
    return is_right;
}

int main(int argc, char **argv)
{
    struct range range;
    CUdevice device;
    CUcontext context;
    CUstream stream;
    size_t mib = argc == 2 ? strtoull(argv[1], NULL, 10) : 0;
    if (mib == 0) {
        fprintf(stderr, "usage: %s MIB\n", argv[0]);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    alarm(DEADLINE_S); /* a driver call can hang: then SIGALRM ends it */
    CU(cuInit, 0);
    CU(cuDeviceGet, &device, 0);
    CU(cuDevicePrimaryCtxRetain, &context, device);
    CU(cuCtxSetCurrent, context);
    CU(cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
    reserve(&range, device, mib);
    int is_right = out_and_back(&range, stream);
    CU(cuMemAddressFree, range.at, range.bytes);
    CU(cuStreamDestroy, stream);
    CU(cuDevicePrimaryCtxRelease, device);
    return is_right ? 0 : 1;
}
