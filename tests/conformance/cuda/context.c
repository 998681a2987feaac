/* SPDX-License-Identifier: Apache-2.0
 * context.c - primary contexts, contexts of the program's own, and the thread's stack.
 */
#include <pthread.h>

#include "suite.h"

static void primary_lives_from_retain_to_release(void **state)
{
    CUcontext a = NULL, b = NULL;
    unsigned flags = 99;
    int active = -1;
    (void)state;
    OK(cuDevicePrimaryCtxGetState, 0, &flags, &active);
    assert_int_equal(active, 0);
    OK(cuDevicePrimaryCtxSetFlags, 0, CU_CTX_SCHED_BLOCKING_SYNC);
    OK(cuDevicePrimaryCtxRetain, &a, 0);
    OK(cuDevicePrimaryCtxRetain, &b, 0);
    assert_ptr_equal(a, b);
    OK(cuDevicePrimaryCtxGetState, 0, &flags, &active);
    assert_int_equal(active, 1);
    assert_int_equal(flags, CU_CTX_SCHED_BLOCKING_SYNC);
    OK(cuDevicePrimaryCtxRelease, 0);
    OK(cuDevicePrimaryCtxRelease, 0);
    OK(cuDevicePrimaryCtxGetState, 0, &flags, &active);
    assert_int_equal(active, 0);
    ERR(CUDA_ERROR_INVALID_CONTEXT, cuDevicePrimaryCtxRelease, 0);
    OK(cuDevicePrimaryCtxSetFlags, 0, 0);
    ERR(CUDA_ERROR_INVALID_VALUE, cuDevicePrimaryCtxSetFlags, 0, 0xffff);
    ERR(CUDA_ERROR_INVALID_DEVICE, cuDevicePrimaryCtxRetain, &a, 1000);
    ERR(CUDA_ERROR_INVALID_DEVICE, cuDevicePrimaryCtxGetState, 1000, &flags, &active);
}

static void reset_frees_memory(void **state)
{
    CUcontext c;
    CUdeviceptr p;
    size_t before, after, total;
    (void)state;
    OK(cuDevicePrimaryCtxRetain, &c, 0);
    OK(cuCtxSetCurrent, c);
    OK(cuMemGetInfo, &before, &total);
    OK(cuMemAlloc, &p, 8 << 20);
    OK(cuCtxSetCurrent, NULL);
    OK(cuDevicePrimaryCtxReset, 0);
    ERR(CUDA_ERROR_INVALID_DEVICE, cuDevicePrimaryCtxReset, 1000);
    OK(cuDevicePrimaryCtxRetain, &c, 0);
    OK(cuCtxSetCurrent, c);
    OK(cuMemGetInfo, &after, &total);
    assert_true(after + (4 << 20) > before);
    OK(cuCtxSetCurrent, NULL);
    OK(cuDevicePrimaryCtxRelease, 0);
}

static void stack_pushes_and_pops(void **state)
{
    CUcontext a, b, c;
    CUdevice d = -1;
    unsigned version = 0, flags = 0;
    (void)state;
    OK(cuCtxGetCurrent, &c);
    assert_null(c);
    ERR(CUDA_ERROR_INVALID_VALUE, cuCtxGetCurrent, NULL);
    ERR(CUDA_ERROR_INVALID_CONTEXT, cuCtxPopCurrent, &c);
    ERR(CUDA_ERROR_INVALID_CONTEXT, cuCtxGetDevice, &d);
    OK(cuCtxCreate, &a, NULL, CU_CTX_SCHED_YIELD, 0);
    OK(cuCtxCreate, &b, NULL, 0, 0);
    assert_ptr_not_equal(a, b);
    OK(cuCtxGetCurrent, &c);
    assert_ptr_equal(c, b);
    OK(cuCtxPopCurrent, &c);
    assert_ptr_equal(c, b);
    OK(cuCtxGetCurrent, &c);
    assert_ptr_equal(c, a);
    OK(cuCtxGetFlags, &flags);
    assert_int_equal(flags & CU_CTX_SCHED_MASK, CU_CTX_SCHED_YIELD);
    OK(cuCtxPushCurrent, b);
    OK(cuCtxGetDevice, &d);
    assert_int_equal(d, 0);
    OK(cuCtxGetApiVersion, b, &version);
    assert_true(version >= 3010);
    OK(cuCtxDestroy, b);
    OK(cuCtxGetCurrent, &c);
    assert_ptr_equal(c, a);
    OK(cuCtxDestroy, a);
    OK(cuCtxGetCurrent, &c);
    assert_null(c);
    ERR(CUDA_ERROR_INVALID_DEVICE, cuCtxCreate, &a, NULL, 0, 1000);
    ERR(CUDA_ERROR_INVALID_CONTEXT, cuCtxDestroy, NULL);
    ERR(CUDA_ERROR_INVALID_CONTEXT, cuCtxPushCurrent, NULL);
    ERR(CUDA_ERROR_INVALID_CONTEXT, cuCtxGetFlags, &flags);
    ERR(CUDA_ERROR_INVALID_CONTEXT, cuCtxGetApiVersion, NULL, &version);
}

static void destroy_takes_everything(void **state)
{
    CUcontext a;
    CUstream s;
    CUevent e;
    CUdeviceptr p;
    size_t before, after, total;
    CUcontext keep;
    (void)state;
    OK(cuDevicePrimaryCtxRetain, &keep, 0);
    OK(cuCtxSetCurrent, keep);
    OK(cuMemGetInfo, &before, &total);
    OK(cuCtxCreate, &a, NULL, 0, 0);
    OK(cuMemAlloc, &p, 8 << 20);
    OK(cuStreamCreate, &s, 0);
    OK(cuEventCreate, &e, 0);
    OK(cuMemsetD8Async, p, 1, 8 << 20, s);
    OK(cuEventRecord, e, s);
    OK(cuCtxDestroy, a);
    OK(cuMemGetInfo, &after, &total);
    assert_true(after + (4 << 20) > before);
    OK(cuCtxSetCurrent, NULL);
    OK(cuDevicePrimaryCtxRelease, 0);
}

static void *other_thread(void *arg)
{
    CUcontext c = arg;
    if (cuCtxGetCurrent(&c) != CUDA_SUCCESS || c != NULL)
        return NULL;
    return cuCtxSetCurrent(arg) == CUDA_SUCCESS && cuCtxSynchronize() == CUDA_SUCCESS
               ? arg
               : NULL;
}

static void current_context_is_per_thread(void **state)
{
    pthread_t t;
    void *result = NULL;
    (void)state;
    assert_int_equal(pthread_create(&t, NULL, other_thread, suite_context), 0);
    assert_int_equal(pthread_join(t, &result), 0);
    assert_ptr_equal(result, suite_context);
}

static void no_context_is_an_error(void **state)
{
    int a, b;
    size_t v;
    (void)state;
    ERR(CUDA_ERROR_INVALID_CONTEXT, cuCtxSynchronize, );
    ERR(CUDA_ERROR_INVALID_CONTEXT, cuCtxGetStreamPriorityRange, &a, &b);
    ERR(CUDA_ERROR_INVALID_CONTEXT, cuCtxGetLimit, &v, CU_LIMIT_STACK_SIZE);
}

static void *bad_context(void)
{
    static char not_a_context[256];
    return not_a_context;
}

static void limits_and_priorities(void **state)
{
    int least = -1, greatest = 1;
    size_t v = 0;
    (void)state;
    OK(cuCtxSynchronize, );
    OK(cuCtxGetStreamPriorityRange, &least, &greatest);
    assert_true(least >= greatest);
    OK(cuCtxSetLimit, CU_LIMIT_STACK_SIZE, 4096);
    OK(cuCtxGetLimit, &v, CU_LIMIT_STACK_SIZE);
    assert_true(v >= 4096);
    ERR(CUDA_ERROR_UNSUPPORTED_LIMIT, cuCtxSetLimit, (CUlimit)0x77, 1);
    ERR(CUDA_ERROR_UNSUPPORTED_LIMIT, cuCtxGetLimit, &v, (CUlimit)0x77);
    ERR(CUDA_ERROR_INVALID_CONTEXT, cuCtxSetCurrent, bad_context());
}

#define WITH_CONTEXT(f)                                                                \
    cmocka_unit_test_setup_teardown(f, suite_set_up, suite_tear_down)
const struct CMUnitTest context_tests[] = {
    cmocka_unit_test(primary_lives_from_retain_to_release),
    cmocka_unit_test(reset_frees_memory),
    cmocka_unit_test(stack_pushes_and_pops),
    cmocka_unit_test(destroy_takes_everything),
    cmocka_unit_test(no_context_is_an_error),
    WITH_CONTEXT(current_context_is_per_thread),
    WITH_CONTEXT(limits_and_priorities),
};
const unsigned n_context_tests = sizeof context_tests / sizeof context_tests[0];
