/* SPDX-License-Identifier: Apache-2.0
 * driver.h - the few driver calls that the emulated NCCL makes, found in the libcuda
 * that the program uses: what is loaded already wins over the library search path.
 */
#ifndef ORRI_DRIVER_H
#define ORRI_DRIVER_H

#include "orrery/gpu_abi.h"
#include "why.h"

#include <stdbool.h>

struct orri_driver {
    CUresult (*init)(unsigned flags);
    CUresult (*device_count)(int *count);
    CUresult (*primary_retain)(CUcontext *ctx, CUdevice device);
    CUresult (*primary_release)(CUdevice device);
    CUresult (*ctx_get)(CUcontext *ctx);
    CUresult (*ctx_set)(CUcontext ctx);
    CUresult (*ctx_device)(CUdevice *device);
    CUresult (*launch_host)(CUstream stream, CUhostFn fn, void *arg);
    CUresult (*mem_alloc)(CUdeviceptr *ptr, size_t bytes);
    CUresult (*mem_free)(CUdeviceptr ptr);
    CUresult (*error_name)(CUresult result, const char **name);
    CUresult (*address)(const char *symbol,
                        void **pfn,
                        int version,
                        cuuint64_t flags,
                        CUdriverProcAddressQueryResult *status);
};

/* The driver, initialised once. Errors: NULL and `why`. */
const struct orri_driver *orri_driver_get(struct orri_why *why);
/* ncclUnhandledCudaError, naming the call and its result. */
ncclResult_t orri_driver_fail(struct orri_why *why, const char *call, CUresult result);

/* Where a communicator launches. */
struct orri_place {
    CUcontext ctx;
    CUdevice device;
    bool is_retained; /* ours to release */
};

/* The current context, or device 0's primary one. */
ncclResult_t orri_place_current(struct orri_place *ret_place, struct orri_why *why);
/* The primary context of `device`. */
ncclResult_t
orri_place_device(int device, struct orri_place *ret_place, struct orri_why *why);
void orri_place_fini(struct orri_place *place);
/* The uuid of the device that it has now; zeros when the driver is none of the emulator's. */
void orri_place_uuid(const struct orri_place *place, uint8_t uuid[16]);
/* Enqueues fn in the place's context. */
ncclResult_t orri_place_launch(const struct orri_place *place,
                               CUstream stream,
                               CUhostFn fn,
                               void *arg,
                               struct orri_why *why);

#endif
