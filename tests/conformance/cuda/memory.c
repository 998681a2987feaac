/* SPDX-License-Identifier: Apache-2.0
 * memory.c - allocating, pinning, copying, filling, and asking about pointers.
 */
#include <stdlib.h>
#include <string.h>

#include "suite.h"

static void allocate_and_free(void **state)
{
    CUdeviceptr p = 0, q = 0, base = 0;
    size_t before, during, total, size = 0;
    (void)state;
    OK(cuMemGetInfo, &before, &total);
    OK(cuMemAlloc, &p, 10 << 20);
    OK(cuMemAlloc, &q, 1000);
    assert_int_equal(p % 256, 0);
    assert_int_equal(q % 256, 0);
    OK(cuMemGetInfo, &during, &total);
    assert_true(during + (10 << 20) <= before);
    OK(cuMemGetAddressRange, &base, &size, q + 500);
    assert_int_equal(base, q);
    assert_int_equal(size, 1000);
    ERR(CUDA_ERROR_NOT_FOUND, cuMemGetAddressRange, &base, &size, 64);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemAlloc, &p, 0);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemFree, q + 256);
    OK(cuMemFree, q);
    OK(cuMemFree, p);
    OK(cuMemFree, 0);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemFree, 64);
}

static void out_of_memory_leaves_room_for_less(void **state)
{
    CUdeviceptr p = 0;
    size_t free_bytes, total;
    (void)state;
    OK(cuMemGetInfo, &free_bytes, &total);
    ERR(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc, &p, total + 1);
    ERR(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc, &p, (size_t)1 << 60);
    OK(cuMemAlloc, &p, 1 << 20);
    OK(cuMemFree, p);
    OK(cuCtxSetCurrent, NULL);
    ERR(CUDA_ERROR_INVALID_CONTEXT, cuMemGetInfo, &free_bytes, &total);
    OK(cuCtxSetCurrent, suite_context);
}

static void copies_carry_bytes(void **state)
{
    unsigned char out[1000], in[1000];
    (void)state;
    for (unsigned i = 0; i < sizeof out; i++)
        out[i] = (unsigned char)(i * 7);
    CUdeviceptr a = suite_upload(out, sizeof out), b = suite_upload(NULL, sizeof out);
    OK(cuMemcpyDtoD, b + 10, a, 500);
    OK(cuMemcpyDtoH, in, b, sizeof in);
    assert_int_equal(in[9], 0);
    assert_memory_equal(in + 10, out, 500);
    assert_int_equal(in[510], 0);
    OK(cuMemcpy, b, a, sizeof out);
    OK(cuMemcpy, (CUdeviceptr)(uintptr_t)in, b, sizeof in);
    assert_memory_equal(in, out, sizeof in);
    OK(cuMemcpyPeer, b, suite_context, a, suite_context, 100);
    OK(cuMemcpyHtoD, a, out, 0);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD, 64, out, 10);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH, in, 64, 10);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoD, 64, a, 10);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemcpy, 0, a, 10);
    ERR(CUDA_ERROR_INVALID_CONTEXT, cuMemcpyPeer, b, NULL, a, suite_context, 10);
    OK(cuMemFree, a);
    OK(cuMemFree, b);
}

static void async_copies_keep_their_order(void **state)
{
    enum { N = 100000 };
    unsigned *pinned = NULL, *pageable = malloc(N * 4);
    CUstream s;
    (void)state;
    OK(cuStreamCreate, &s, CU_STREAM_NON_BLOCKING);
    OK(cuMemHostAlloc, (void **)&pinned, N * 4, CU_MEMHOSTALLOC_PORTABLE);
    CUdeviceptr a = suite_upload(NULL, N * 4), b = suite_upload(NULL, N * 4);
    for (unsigned i = 0; i < N; i++)
        pageable[i] = i;
    OK(cuMemcpyHtoDAsync, a, pageable, N * 4, s);
    memset(
        pageable, 0, N * 4); /* pageable memory is free again when the call returns */
    OK(cuMemcpyDtoDAsync, b, a, N * 4, s);
    OK(cuMemcpyPeerAsync, a, suite_context, b, suite_context, N * 4, s);
    OK(cuMemcpyAsync, b, a, N * 4, s);
    OK(cuMemcpyDtoHAsync, pinned, b, N * 4, s);
    OK(cuStreamSynchronize, s);
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(pinned[i], i);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoDAsync, 64, pageable, 10, s);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoHAsync, pageable, 64, 10, s);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoDAsync, a, 64, 10, s);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemcpyAsync, 0, a, 10, s);
    ERR(CUDA_ERROR_INVALID_CONTEXT,
        cuMemcpyPeerAsync,
        a,
        NULL,
        b,
        suite_context,
        10,
        s);
    OK(cuMemFreeHost, pinned);
    OK(cuStreamDestroy, s);
    OK(cuMemFree, a);
    OK(cuMemFree, b);
    free(pageable);
}

static void fills_write_exactly_their_range(void **state)
{
    unsigned char out[64];
    CUdeviceptr p = suite_upload(NULL, 64);
    (void)state;
    OK(cuMemsetD8, p + 1, 0xab, 3);
    OK(cuMemsetD16, p + 8, 0x1234, 2);
    OK(cuMemsetD32, p + 16, 0xdeadbeef, 2);
    OK(cuMemsetD8Async, p + 32, 0xcd, 1, NULL);
    OK(cuMemsetD16Async, p + 34, 0x5678, 1, NULL);
    OK(cuMemsetD32Async, p + 36, 0x01020304, 1, NULL);
    OK(cuMemcpyDtoH, out, p, 64);
    const unsigned char
        want[64] = {0,    0xab, 0xab, 0xab, 0,    0,           0,
                    0,    0x34, 0x12, 0x34, 0x12, [16] = 0xef, 0xbe,
                    0xad, 0xde, 0xef, 0xbe, 0xad, 0xde,        [32] = 0xcd,
                    0,    0x78, 0x56, 4,    3,    2,           1};
    assert_memory_equal(out, want, 64);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemsetD8, 64, 0, 8);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemsetD16, p + 1, 0, 2);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemsetD32, p + 2, 0, 2);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemsetD8Async, 64, 0, 8, NULL);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemsetD16Async, p + 1, 0, 2, NULL);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemsetD32Async, p + 2, 0, 2, NULL);
    OK(cuMemFree, p);
}

static void host_memory_is_pinned_and_mapped(void **state)
{
    int *p = NULL, *q = NULL, value = 0;
    unsigned flags = 0;
    CUdeviceptr d = 0;
    (void)state;
    OK(cuMemAllocHost, (void **)&p, 4096);
    OK(cuMemHostAlloc, (void **)&q, 4096, CU_MEMHOSTALLOC_DEVICEMAP);
    q[3] = 77;
    OK(cuMemHostGetDevicePointer, &d, q, 0);
    OK(cuMemcpyDtoH, &value, d + 12, 4);
    assert_int_equal(value, 77);
    OK(cuMemHostGetFlags, &flags, q);
    assert_true(flags & CU_MEMHOSTALLOC_DEVICEMAP);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemHostGetFlags, &flags, &value);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemHostGetDevicePointer, &d, &value, 0);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemHostAlloc, (void **)&q, 4096, 0xff00);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemAllocHost, NULL, 4096);
    OK(cuMemFreeHost, p);
    OK(cuMemFreeHost, q);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemFreeHost, &value);
}

static void registered_memory_reaches_kernels(void **state)
{
    enum { BYTES = 8192 };
    int n = 16;
    float a = 2.0f, *p = aligned_alloc(4096, BYTES);
    CUdeviceptr d = 0;
    (void)state;
    for (int i = 0; i < 16; i++)
        p[i] = 1.0f;
    OK(cuMemHostRegister, p, BYTES, CU_MEMHOSTREGISTER_DEVICEMAP);
    ERR(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, cuMemHostRegister, p, BYTES, 0);
    OK(cuMemHostGetDevicePointer, &d, p, 0);
    void *params[] = {&n, &a, &d, &d};
    OK(cuLaunchKernel, suite_kernel("saxpy"), 1, 1, 1, 32, 1, 1, 0, NULL, params, NULL);
    OK(cuCtxSynchronize, );
    assert_true(p[15] > 2.9f && p[16] < 2.9f);
    OK(cuMemHostUnregister, p);
    ERR(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, cuMemHostUnregister, p);
    free(p);
}

static void pointers_are_known(void **state)
{
    CUdeviceptr p = suite_upload(NULL, 1000), start = 0;
    CUmemorytype type = 0, types[2] = {0, 0};
    int ordinal = -1;
    size_t size = 0;
    CUcontext ctx = NULL;
    int on_stack;
    (void)state;
    OK(cuPointerGetAttribute, &type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p + 5);
    assert_int_equal(type, CU_MEMORYTYPE_DEVICE);
    OK(cuPointerGetAttribute, &ctx, CU_POINTER_ATTRIBUTE_CONTEXT, p);
    assert_ptr_equal(ctx, suite_context);
    OK(cuPointerGetAttribute, &size, CU_POINTER_ATTRIBUTE_RANGE_SIZE, p);
    assert_int_equal(size, 1000);
    CUpointer_attribute which[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                   CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
                                   CU_POINTER_ATTRIBUTE_RANGE_START_ADDR};
    void *data[] = {&types[0], &ordinal, &start};
    OK(cuPointerGetAttributes, 3, which, data, p + 100);
    assert_int_equal(types[0], CU_MEMORYTYPE_DEVICE);
    assert_int_equal(ordinal, suite_device);
    assert_int_equal(start, p);
    OK(cuPointerGetAttributes, 1, which, data, (CUdeviceptr)(uintptr_t)&on_stack);
    assert_int_equal(types[0], 0);
    ERR(CUDA_ERROR_INVALID_VALUE,
        cuPointerGetAttribute,
        &type,
        CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
        (CUdeviceptr)(uintptr_t)&on_stack);
    ERR(CUDA_ERROR_INVALID_VALUE, cuPointerGetAttributes, 0, which, data, p);
    OK(cuMemFree, p);
}

#define WITH_CONTEXT(f)                                                                \
    cmocka_unit_test_setup_teardown(f, suite_set_up, suite_tear_down)
const struct CMUnitTest memory_tests[] = {
    WITH_CONTEXT(allocate_and_free),
    WITH_CONTEXT(out_of_memory_leaves_room_for_less),
    WITH_CONTEXT(copies_carry_bytes),
    WITH_CONTEXT(async_copies_keep_their_order),
    WITH_CONTEXT(fills_write_exactly_their_range),
    WITH_CONTEXT(host_memory_is_pinned_and_mapped),
    WITH_CONTEXT(registered_memory_reaches_kernels),
    WITH_CONTEXT(pointers_are_known),
};
const unsigned n_memory_tests = sizeof memory_tests / sizeof memory_tests[0];
