/* SPDX-License-Identifier: Apache-2.0
 * driver.c - see driver.h.
 */
#include "driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

struct orri_driver orri_cu;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static const char *missing;

#define TEXT_(name) #name
#define TEXT(name)  TEXT_(name)

/* The library that stands before the driver tells where the driver's own calls are; without it nothing stands there. */
static void *find(const char *name)
{
    void *(*real)(const char *) = NULL;
    void *at = dlsym(RTLD_DEFAULT, "orri_cuda_real_call"), *library;

    memcpy(&real, &at, sizeof at);
    if (real)
        return real(name);
    at = dlsym(RTLD_DEFAULT, name);
    library = at ? NULL : dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    return library ? dlsym(library, name) : at;
}

static void load(void)
{
    void *at;

#define CALL(name)                                                                     \
    at = find(TEXT(cu##name));                                                         \
    if (!at)                                                                           \
        missing = TEXT(cu##name);                                                      \
    memcpy(&orri_cu.name, &at, sizeof at);
#include "driver.def"
#undef CALL
}

ncclResult_t orri_driver_ready(void)
{
    pthread_once(&once, load);
    return missing ? orri_nccl_fail(ncclUnhandledCudaError,
                                    "the driver has no %s: ranks cannot share a device",
                                    missing)
                   : ncclSuccess;
}

ncclResult_t orri_driver_check(const char *what, CUresult result)
{
    const char *name = NULL;

    if (result == CUDA_SUCCESS)
        return ncclSuccess;
    orri_cu.GetErrorName(result, &name);
    return orri_nccl_fail(ncclUnhandledCudaError,
                          "%s for ranks that share a device: %s (%d)",
                          what,
                          name ? name : "an unknown error",
                          (int)result);
}
