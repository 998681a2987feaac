/* SPDX-License-Identifier: Apache-2.0
 * probe_calls.c - what Orrery's two libraries add to a call.
 *
 *   probe_calls REAL_CUDA OUR_CUDA REAL_NCCL OUR_NCCL
 *
 * Both libraries of a kind are open in this process, and batches of calls go through the one and the other in turn, so that
 * what else the machine does hits both alike. Prints a JSON line for cuStreamQuery and one for ncclAllReduce, in a communicator
 * of one rank and in place, which is as little as NCCL does: the medians in ns, and their difference.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "orrery/gpu_abi.h"

enum { BATCHES = 201, CALLS = 500, WARM_UP = 5, DEADLINE_S = 90, FLOATS = 16 };

static void *open_library(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "probe_calls: %s\n", dlerror());
        exit(1);
    }
    return library;
}

static void find(void *library, const char *name, void *ret_function)
{
    void *symbol = dlsym(library, name);
    if (!symbol) {
        fprintf(stderr, "probe_calls: no %s\n", name);
        exit(1);
    }
    memcpy(ret_function, &symbol, sizeof symbol);
}

static void must(const char *call, int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "probe_calls: %s: %d\n", call, rc);
    exit(1);
}

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, BATCHES, sizeof *values, by_value);
    return values[BATCHES / 2];
}

static CUstream stream;
static CUresult (*wait_for_stream)(CUstream);

/* One way to make a call: which is 0 for the real library, 1 for ours. */
typedef void (*call_f)(int which);

static void compare(const char *name, call_f call)
{
    static double ns[2][BATCHES];
    for (int batch = -WARM_UP; batch < BATCHES; batch++)
        for (int which = 0; which < 2; which++) {
            double began = now_ns();
            for (int i = 0; i < CALLS; i++)
                call(which);
            if (batch >= 0)
                ns[which][batch] = (now_ns() - began) / CALLS;
            must("cuStreamSynchronize", (int)wait_for_stream(stream));
        }
    double real = median(ns[0]), ours = median(ns[1]);
    printf("{\"probe\":\"a "
           "call\",\"call\":\"%s\",\"direct_ns\":%.1f,\"interposed_ns\":%.1f,\"added_"
           "ns\":%.1f}\n",
           name,
           real,
           ours,
           ours - real);
}

/* ---- CUDA -------------------------------------------------------------------------------- */

static CUresult (*stream_query[2])(CUstream);

static void query(int which)
{
    (void)stream_query[which](stream);
}

static CUdeviceptr set_up(void *library)
{
    CUresult (*init)(unsigned), (*get)(CUdevice *, int);
    CUresult (*retain)(CUcontext *, CUdevice), (*set)(CUcontext);
    CUresult (*make)(CUstream *, unsigned), (*alloc)(CUdeviceptr *, size_t);
    CUdevice device;
    CUcontext context;
    CUdeviceptr at = 0;
    find(library, "cuInit", &init);
    find(library, "cuDeviceGet", &get);
    find(library, "cuDevicePrimaryCtxRetain", &retain);
    find(library, "cuCtxSetCurrent", &set);
    find(library, "cuStreamCreate", &make);
    find(library, "cuMemAlloc_v2", &alloc);
    find(library, "cuStreamSynchronize", &wait_for_stream);
    must("cuInit", (int)init(0));
    must("cuDeviceGet", (int)get(&device, 0));
    must("cuDevicePrimaryCtxRetain", (int)retain(&context, device));
    must("cuCtxSetCurrent", (int)set(context));
    must("cuStreamCreate", (int)make(&stream, CU_STREAM_NON_BLOCKING));
    must("cuMemAlloc", (int)alloc(&at, FLOATS * sizeof(float)));
    return at;
}

/* ---- NCCL -------------------------------------------------------------------------------- */

static ncclComm_t comms[2];
static CUdeviceptr buffer;
static __typeof__(&ncclAllReduce) all_reduce[2];

static void sum(int which)
{
    void *at = (void *)(uintptr_t)buffer;
    must("ncclAllReduce",
         (int)all_reduce[which](
             at, at, FLOATS, ncclFloat, ncclSum, comms[which], stream));
}

static void join(void *library, int which)
{
    __typeof__(&ncclGetUniqueId) get_id;
    __typeof__(&ncclCommInitRank) init_rank;
    ncclUniqueId id;
    find(library, "ncclGetUniqueId", &get_id);
    find(library, "ncclCommInitRank", &init_rank);
    find(library, "ncclAllReduce", &all_reduce[which]);
    must("ncclGetUniqueId", (int)get_id(&id));
    must("ncclCommInitRank", (int)init_rank(&comms[which], 1, id, 0));
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: %s REAL_CUDA OUR_CUDA REAL_NCCL OUR_NCCL\n", argv[0]);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    alarm(DEADLINE_S);
    setenv("ORRERY_REAL_LIBCUDA", argv[1], 1);
    setenv("ORRERY_REAL_LIBNCCL", argv[3], 1);
    void *cuda = open_library(argv[1]);
    buffer = set_up(cuda);
    void *nccl = open_library(
        argv[3]); /* finds the real driver, which is open: so nothing but NCCL differs */
    join(nccl, 0);
    join(open_library(argv[4]), 1);
    compare("ncclAllReduce", sum);
    find(cuda, "cuStreamQuery", &stream_query[0]);
    find(open_library(argv[2]), "cuStreamQuery", &stream_query[1]);
    compare("cuStreamQuery", query);
    return 0;
}
