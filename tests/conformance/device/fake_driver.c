/* SPDX-License-Identifier: Apache-2.0
 * fake_driver.c - a libcuda that answers, refuses, hangs or crashes, as the variable FAKE_DRIVER says.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "orrery/gpu_abi.h"

#define EXPORT __attribute__((visibility("default")))

static int is_mode(const char *mode)
{
    const char *is = getenv("FAKE_DRIVER");
    return is && strcmp(is, mode) == 0;
}

EXPORT CUresult cuInit(unsigned int flags)
{
    (void)flags;
    if (is_mode("hang"))
        pause();
    if (is_mode("crash"))
        raise(SIGABRT);
    return is_mode("refuse") ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetCount(int *count)
{
    *count = is_mode("one") ? 1 : is_mode("none") ? 0 : 2;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    *device = ordinal;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetName(char *name, int len, CUdevice device)
{
    snprintf(name,
             (size_t)len,
             "%s",
             device ? "NVIDIA GeForce RTX 9090" : "NVIDIA H100 80GB HBM3");
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device)
{
    memset(uuid, 0xa0 + device, sizeof *uuid);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceTotalMem(size_t *bytes, CUdevice device)
{
    *bytes = (size_t)(device + 1) << 30;
    return is_mode("midway") && device == 1 ? CUDA_ERROR_ECC_UNCORRECTABLE
                                            : CUDA_SUCCESS;
}

EXPORT CUresult cuGetErrorString(CUresult error, const char **text)
{
    (void)error;
    *text = "a reason";
    return CUDA_SUCCESS;
}
