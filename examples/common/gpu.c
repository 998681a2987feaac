/* SPDX-License-Identifier: Apache-2.0
 * gpu.c - failing by name.
 */
#include "gpu.h"

#include "fail.h"

#include <stddef.h>

void cu_check(const char *call, CUresult res)
{
    if (res == CUDA_SUCCESS)
        return;
    const char *name = NULL, *text = NULL;
    if (cuGetErrorName(res, &name) != CUDA_SUCCESS ||
        cuGetErrorString(res, &text) != CUDA_SUCCESS)
        die("%s: CUDA error %d", call, (int)res);
    die("%s: %s: %s", call, name, text);
}

void nccl_die(const char *what, ncclResult_t res, ncclComm_t comm)
{
    const char *last = ncclGetLastError(comm);
    const char *more = last ? last : "";
    die("%s: %s%s%s", what, ncclGetErrorString(res), more[0] ? ": " : "", more);
}

void nccl_check(const char *call, ncclResult_t res)
{
    if (res != ncclSuccess)
        nccl_die(call, res, NULL);
}

void nccl_settle(const char *what, ncclComm_t comm)
{
    ncclResult_t res;
    NCCL(ncclCommGetAsyncError, comm, &res);
    if (res != ncclSuccess)
        nccl_die(what, res, comm);
}
