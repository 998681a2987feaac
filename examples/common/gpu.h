/* SPDX-License-Identifier: Apache-2.0
 * gpu.h - the CUDA driver and NCCL declarations, and their errors.
 *
 * The programs need no toolkit to build: gpu_abi.h declares what they call, in the words
 * of the official headers. With -DEXAMPLE_TOOLKIT_HEADERS they are built against those.
 */
#ifndef EXAMPLE_GPU_H
#define EXAMPLE_GPU_H

#ifdef EXAMPLE_TOOLKIT_HEADERS
#include <cuda.h>
#include <nccl.h>
#else
#include "orrery/gpu_abi.h"
#endif
#include <stdint.h>

/* CU(cuMemAlloc, &p, n): calls it; on an error the program ends as with die(). */
#define CU(fn, ...)   cu_check(#fn, fn(__VA_ARGS__))
#define NCCL(fn, ...) nccl_check(#fn, fn(__VA_ARGS__))

void cu_check(const char *call, CUresult res);
void nccl_check(const char *call, ncclResult_t res);

/* Ends the program as with die(): `what` failed with `res`, and NCCL's own words for
 * it. */
__attribute__((noreturn)) void
nccl_die(const char *what, ncclResult_t res, ncclComm_t comm);

/* Ends the program if `comm` reports an error. */
void nccl_settle(const char *what, ncclComm_t comm);

/* What NCCL takes for memory at `p`. */
static inline void *gpu_pointer(CUdeviceptr p)
{
    return (void *)(uintptr_t)p;
}

#endif
