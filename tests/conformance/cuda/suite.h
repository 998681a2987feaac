/* SPDX-License-Identifier: Apache-2.0
 * suite.h - the conformance suite of the CUDA driver API: what Orrery relies on, written
 * against the API alone. It runs on the emulated driver and, built against the real
 * library, on a GPU; it creates no devices.
 *
 * Every call goes through OK() or ERR(), which also keep the account: at the end each call
 * of exports.def must have succeeded at least once and failed at least once.
 */
#ifndef CONFORMANCE_CUDA_SUITE_H
#define CONFORMANCE_CUDA_SUITE_H

#include <stdbool.h>
#include <sys/types.h>

#include "orr_test.h"
#include "orrery/gpu_abi.h"

/* OK(cuMemAlloc, &p, 64): must succeed. ERR(CUDA_ERROR_..., cuMemFree, 1): must fail so. */
#define OK(call, ...)                                                                  \
    suite_check(#call, call(__VA_ARGS__), CUDA_SUCCESS, __FILE__, __LINE__)
#define ERR(code, call, ...)                                                           \
    suite_check(#call, call(__VA_ARGS__), code, __FILE__, __LINE__)

void suite_check(
    const char *call, CUresult got, CUresult want, const char *file, int line);

/* The first device, its primary context current; and the end of it. */
int suite_set_up(void **state);
int suite_tear_down(void **state);
extern CUdevice suite_device;
extern CUcontext suite_context;

/* The module of kernels.ptx and a kernel of it. */
CUmodule suite_module(void);
CUfunction suite_kernel(const char *name);
const char *suite_ptx(void);
const char *suite_ptx_path(void);
/* Device memory with n bytes from host, or zero when host is NULL. */
CUdeviceptr suite_upload(const void *host, size_t bytes);

/* Run this program again with one argument, which names a fault (faults.c). */
int suite_run_fault(const char *name);
int fault_main(const char *name);
/* The same, with its id; the caller waits for it. */
pid_t suite_spawn(const char *name);
/* The process that value.c talks to through memory of the device. */
#define SUITE_ANSWERER "answerer"
int answerer_main(void);
/* This program, run with SUITE_VICTIM: the process that checkpoint.c suspends. */
#define SUITE_VICTIM "suspended"
int victim_main(void);

extern const struct CMUnitTest device_tests[], context_tests[], memory_tests[],
    stream_tests[], value_tests[], module_tests[], kernel_tests[], vmm_tests[],
    checkpoint_tests[];
extern const unsigned n_device_tests, n_context_tests, n_memory_tests, n_stream_tests,
    n_value_tests, n_module_tests, n_kernel_tests, n_vmm_tests, n_checkpoint_tests;

#endif
