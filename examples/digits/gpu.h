/* SPDX-License-Identifier: Apache-2.0
 * gpu.h - the CUDA driver and NCCL declarations, and one way to fail.
 *
 * The program needs no toolkit to build: gpu_abi.h declares what it calls, in the words
 * of the official headers. With -DDIGITS_TOOLKIT_HEADERS it is built against those.
 */
#ifndef DIGITS_GPU_H
#define DIGITS_GPU_H

#ifdef DIGITS_TOOLKIT_HEADERS
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

/* The rank that die() names; set once, before any thread is started. */
void die_as_rank(uint32_t rank);

/* Prints `digits: rank N: ...` on stderr and exits 1 at once, without the destructors
 * of libraries whose threads may hang in what failed. From any thread; the first one
 * wins. */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *fmt, ...);

#endif
