/* SPDX-License-Identifier: Apache-2.0
 * cuda.c - the few driver calls of the interposer, found in whatever libcuda the program uses (comm.h).
 */
#include "comm.h"

#include <dlfcn.h>
#include <string.h>

static struct {
    CUresult (*ctx_get)(CUcontext *ctx);
    CUresult (*ctx_set)(CUcontext ctx);
    CUresult (*retain)(CUcontext *ctx, CUdevice device);
    CUresult (*release)(CUdevice device);
    CUresult (*is_capturing)(CUstream stream, int *status);
} driver;
char orri_device_told[ORR_NAME_MAX];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void find(void *library, const char *name, void *ret_fn)
{
    void *fn = dlsym(RTLD_DEFAULT, name);

    if (!fn && library)
        fn = dlsym(library, name);
    memcpy(ret_fn, &fn, sizeof fn);
}

static void load(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);

    find(library, "cuCtxGetCurrent", &driver.ctx_get);
    find(library, "cuCtxSetCurrent", &driver.ctx_set);
    find(library, "cuDevicePrimaryCtxRetain", &driver.retain);
    find(library, "cuDevicePrimaryCtxRelease_v2", &driver.release);
    find(library, "cuStreamIsCapturing", &driver.is_capturing);
}

bool orri_ctx_get(void **ret_ctx)
{
    CUcontext ctx = NULL;

    pthread_once(&once, load);
    if (!driver.ctx_get || driver.ctx_get(&ctx) != CUDA_SUCCESS)
        return false;
    *ret_ctx = ctx;
    return true;
}

bool orri_ctx_set(void *ctx)
{
    pthread_once(&once, load);
    return driver.ctx_set && driver.ctx_set(ctx) == CUDA_SUCCESS;
}

bool orri_ctx_primary(int device, void **ret_ctx)
{
    CUcontext ctx;

    pthread_once(&once, load);
    if (!driver.retain || driver.retain(&ctx, device) != CUDA_SUCCESS)
        return false;
    *ret_ctx = ctx;
    return true;
}

void orri_ctx_release(int device)
{
    if (driver.release)
        driver.release(device);
}

bool orri_stream_is_capturing(CUstream stream)
{
    static atomic_bool is_unsupported;
    CUresult result;
    int status = 0;

    if (atomic_load_explicit(&is_unsupported, memory_order_relaxed))
        return false;
    pthread_once(&once, load);
    result = driver.is_capturing ? driver.is_capturing(stream, &status)
                                 : CUDA_ERROR_NOT_SUPPORTED;
    if (result == CUDA_ERROR_NOT_SUPPORTED) /* then nothing can be captured */
        atomic_store(&is_unsupported, true);
    return result == CUDA_SUCCESS && status != 0;
}
