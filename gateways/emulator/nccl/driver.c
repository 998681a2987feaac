/* SPDX-License-Identifier: Apache-2.0
 * driver.c - see driver.h.
 */
#include "driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

static struct orri_driver driver;
static struct orri_why broken; /* empty: the driver can be used */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool find(void *library, const char *name, void *ret_fn)
{
    void *fn = dlsym(RTLD_DEFAULT, name);

    if (!fn && library)
        fn = dlsym(library, name);
    if (!fn)
        orri_why_set(&broken,
                     ncclUnhandledCudaError,
                     "libcuda.so.1 has no %s: put <build>/lib/emulator on the library "
                     "path, or install a driver",
                     name);
    memcpy(ret_fn, &fn, sizeof fn);
    return fn != NULL;
}

static void load(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    CUresult result;

    if (!find(library, "cuInit", &driver.init) ||
        !find(library, "cuDeviceGetCount", &driver.device_count) ||
        !find(library, "cuDevicePrimaryCtxRetain", &driver.primary_retain) ||
        !find(library, "cuDevicePrimaryCtxRelease_v2", &driver.primary_release) ||
        !find(library, "cuCtxGetCurrent", &driver.ctx_get) ||
        !find(library, "cuCtxSetCurrent", &driver.ctx_set) ||
        !find(library, "cuCtxGetDevice", &driver.ctx_device) ||
        !find(library, "cuLaunchHostFunc", &driver.launch_host) ||
        !find(library, "cuMemAlloc_v2", &driver.mem_alloc) ||
        !find(library, "cuMemFree_v2", &driver.mem_free) ||
        !find(library, "cuGetErrorName", &driver.error_name) ||
        !find(library, "cuGetProcAddress_v2", &driver.address))
        return;
    result = driver.init(0);
    if (result != CUDA_SUCCESS)
        orri_driver_fail(&broken, "cuInit", result);
}

const struct orri_driver *orri_driver_get(struct orri_why *why)
{
    pthread_once(&once, load);
    if (broken.text[0] == '\0')
        return &driver;
    *why = broken;
    return NULL;
}

ncclResult_t orri_driver_fail(struct orri_why *why, const char *call, CUresult result)
{
    const char *name = NULL;

    driver.error_name(result, &name);
    return orri_why_set(why,
                        ncclUnhandledCudaError,
                        "%s returned %s (%d)",
                        call,
                        name ? name : "an unknown error",
                        (int)result);
}

ncclResult_t
orri_place_device(int device, struct orri_place *ret_place, struct orri_why *why)
{
    const struct orri_driver *d = orri_driver_get(why);
    CUcontext ctx;
    CUresult result;

    if (!d)
        return ncclUnhandledCudaError;
    result = d->primary_retain(&ctx, device);
    if (result != CUDA_SUCCESS)
        return orri_driver_fail(why, "cuDevicePrimaryCtxRetain", result);
    *ret_place = (struct orri_place){.ctx = ctx, .device = device, .is_retained = true};
    return ncclSuccess;
}

ncclResult_t orri_place_current(struct orri_place *ret_place, struct orri_why *why)
{
    const struct orri_driver *d = orri_driver_get(why);
    CUcontext ctx = NULL;
    CUdevice device;
    CUresult result;

    if (!d)
        return ncclUnhandledCudaError;
    result = d->ctx_get(&ctx);
    if (result != CUDA_SUCCESS)
        return orri_driver_fail(why, "cuCtxGetCurrent", result);
    if (!ctx)
        return orri_place_device(0, ret_place, why);
    result = d->ctx_device(&device);
    if (result != CUDA_SUCCESS)
        return orri_driver_fail(why, "cuCtxGetDevice", result);
    *ret_place = (struct orri_place){.ctx = ctx, .device = device};
    return ncclSuccess;
}

void orri_place_fini(struct orri_place *place)
{
    if (place->is_retained)
        driver.primary_release(place->device);
    *place = (struct orri_place){.ctx = NULL};
}

void orri_place_uuid(const struct orri_place *place, uint8_t uuid[16])
{
    int (*uuid_of)(int device, uint8_t uuid[16]) = NULL;
    void *at = NULL;

    memset(uuid, 0, 16);
    if (driver.address("orrEmuDeviceUuid", &at, 13000, 0, NULL) == CUDA_SUCCESS)
        memcpy(&uuid_of, &at, sizeof at);
    if (uuid_of)
        uuid_of(place->device, uuid);
}

ncclResult_t orri_place_launch(const struct orri_place *place,
                               CUstream stream,
                               CUhostFn fn,
                               void *arg,
                               struct orri_why *why)
{
    CUcontext before = NULL;
    CUresult result = driver.ctx_get(&before);

    if (result == CUDA_SUCCESS && before != place->ctx)
        result = driver.ctx_set(place->ctx);
    if (result != CUDA_SUCCESS)
        return orri_driver_fail(why, "cuCtxSetCurrent", result);
    result = driver.launch_host(stream, fn, arg);
    if (before != place->ctx)
        driver.ctx_set(before);
    return result == CUDA_SUCCESS ? ncclSuccess
                                  : orri_driver_fail(why, "cuLaunchHostFunc", result);
}
