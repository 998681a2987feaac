/* SPDX-License-Identifier: Apache-2.0
 * value.c - streams that wait for words of memory, and write them; between processes, too.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "suite.h"

static void a_stream_waits_until_another_writes(void **state)
{
    CUdeviceptr p = suite_upload(NULL, 64);
    CUstream a, b;
    unsigned seen[2] = {9, 9};
    (void)state;
    OK(cuStreamCreate, &a, CU_STREAM_NON_BLOCKING);
    OK(cuStreamCreate, &b, CU_STREAM_NON_BLOCKING);
    OK(cuStreamWaitValue32, a, p, 7, CU_STREAM_WAIT_VALUE_GEQ);
    OK(cuStreamWriteValue32, a, p + 4, 1, CU_STREAM_WRITE_VALUE_DEFAULT);
    ERR(CUDA_ERROR_NOT_READY, cuStreamQuery, a);
    OK(cuStreamWriteValue32, b, p, 6, CU_STREAM_WRITE_VALUE_DEFAULT);
    OK(cuStreamSynchronize, b);
    ERR(CUDA_ERROR_NOT_READY, cuStreamQuery, a); /* 6 is not enough */
    OK(cuStreamWriteValue32, b, p, 8, CU_STREAM_WRITE_VALUE_DEFAULT);
    OK(cuStreamSynchronize, a);
    OK(cuMemcpyDtoH, seen, p, 8);
    assert_int_equal(seen[0], 8);
    assert_int_equal(seen[1], 1);
    OK(cuStreamDestroy, a);
    OK(cuStreamDestroy, b);
    OK(cuMemFree, p);
}

/* Waits on one stream for what another has not written yet; then for what it has. */
static void
expect_wait(CUdeviceptr p, unsigned flags, uint64_t value, uint64_t unmet, uint64_t met)
{
    CUstream s, t;
    OK(cuStreamCreate, &s, CU_STREAM_NON_BLOCKING);
    OK(cuStreamCreate, &t, CU_STREAM_NON_BLOCKING);
    for (int wide = 0; wide < 2; wide++) {
        OK(cuStreamWriteValue64, t, p, wide ? unmet : (uint32_t)unmet, 0);
        OK(cuStreamSynchronize, t);
        if (wide)
            OK(cuStreamWaitValue64, s, p, value, flags);
        else
            OK(cuStreamWaitValue32, s, p, (uint32_t)value, flags);
        ERR(CUDA_ERROR_NOT_READY, cuStreamQuery, s);
        OK(cuStreamWriteValue64, t, p, wide ? met : (uint32_t)met, 0);
        OK(cuStreamSynchronize, s);
    }
    OK(cuStreamDestroy, s);
    OK(cuStreamDestroy, t);
}

static void each_condition_means_what_it_says(void **state)
{
    CUdeviceptr p = suite_upload(NULL, 64);
    int has_nor = 0;
    (void)state;
    expect_wait(p, CU_STREAM_WAIT_VALUE_EQ, 5, 6, 5);
    expect_wait(p, CU_STREAM_WAIT_VALUE_AND, 6, 9, 4);
    expect_wait(p, CU_STREAM_WAIT_VALUE_GEQ, 0, UINT64_MAX, 0); /* -1 is less than 0 */
    expect_wait(p, CU_STREAM_WAIT_VALUE_GEQ, 10, 9, 10);
    OK(cuDeviceGetAttribute,
       &has_nor,
       CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR,
       suite_device);
    if (has_nor)
        expect_wait(p, CU_STREAM_WAIT_VALUE_NOR, 3, UINT64_MAX - 3, 4);
    OK(cuMemFree, p);
}

static CUstreamBatchMemOpParams wait_for(CUdeviceptr p, unsigned value)
{
    CUstreamBatchMemOpParams op;
    memset(&op, 0, sizeof op);
    op.waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
    op.waitValue.address = p;
    op.waitValue.value = value;
    op.waitValue.flags = CU_STREAM_WAIT_VALUE_GEQ;
    return op;
}

static CUstreamBatchMemOpParams write_of(CUdeviceptr p, unsigned value)
{
    CUstreamBatchMemOpParams op;
    memset(&op, 0, sizeof op);
    op.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    op.writeValue.address = p;
    op.writeValue.value = value;
    return op;
}

static void a_batch_is_done_in_order(void **state)
{
    CUdeviceptr p = suite_upload(NULL, 64);
    CUstreamBatchMemOpParams ops[4] = {
        wait_for(p, 1), wait_for(p + 4, 1), write_of(p + 8, 3), write_of(p + 12, 4)};
    CUstream s, t;
    unsigned seen[4];
    (void)state;
    OK(cuStreamCreate, &s, CU_STREAM_NON_BLOCKING);
    OK(cuStreamCreate, &t, CU_STREAM_NON_BLOCKING);
    OK(cuStreamBatchMemOp, s, 4, ops, 0);
    OK(cuStreamWriteValue32, t, p + 4, 1, 0);
    OK(cuStreamSynchronize, t);
    ERR(CUDA_ERROR_NOT_READY, cuStreamQuery, s);
    OK(cuStreamWriteValue32, t, p, 1, 0);
    OK(cuStreamSynchronize, s);
    OK(cuMemcpyDtoH, seen, p, sizeof seen);
    assert_int_equal(seen[2], 3);
    assert_int_equal(seen[3], 4);
    ERR(CUDA_ERROR_INVALID_VALUE, cuStreamBatchMemOp, s, 4, NULL, 0);
    OK(cuStreamDestroy, s);
    OK(cuStreamDestroy, t);
    OK(cuMemFree, p);
}

static void what_is_no_word_is_refused(void **state)
{
    CUdeviceptr p = suite_upload(NULL, 64);
    CUstream s;
    (void)state;
    OK(cuStreamCreate, &s, CU_STREAM_NON_BLOCKING);
    ERR(CUDA_ERROR_INVALID_VALUE, cuStreamWaitValue32, s, p + 2, 0, 0);
    ERR(CUDA_ERROR_INVALID_VALUE, cuStreamWaitValue64, s, p + 4, 0, 0);
    ERR(CUDA_ERROR_INVALID_VALUE, cuStreamWriteValue32, s, p + 1, 0, 0);
    ERR(CUDA_ERROR_INVALID_VALUE, cuStreamWriteValue64, s, p + 4, 0, 0);
    ERR(CUDA_ERROR_INVALID_VALUE, cuStreamWaitValue32, s, 0, 0, 0);
    ERR(CUDA_ERROR_INVALID_VALUE, cuStreamWriteValue32, s, 0, 0, 0);
    OK(cuStreamSynchronize, s);
    OK(cuStreamDestroy, s);
    OK(cuMemFree, p);
}

/* ---- between processes --------------------------------------------------------------- */

static CUdeviceptr map(CUmemGenericAllocationHandle h, size_t bytes)
{
    CUmemAccessDesc access = {{CU_MEM_LOCATION_TYPE_DEVICE, suite_device},
                              CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUdeviceptr va = 0;
    OK(cuMemAddressReserve, &va, bytes, 0, 0, 0);
    OK(cuMemMap, va, bytes, 0, h, 0);
    OK(cuMemSetAccess, va, bytes, &access, 1);
    return va;
}

/* The other process, run with the descriptor in its environment: answers each number with the next one. */
enum { ROUNDS = 100 };
int answerer_main(void)
{
    CUmemGenericAllocationHandle h;
    CUstream s;
    int fd = atoi(getenv("SUITE_VALUE_FD"));
    suite_set_up(NULL);
    OK(cuMemImportFromShareableHandle,
       &h,
       (void *)(uintptr_t)fd,
       CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    CUdeviceptr p = map(h, (size_t)atol(getenv("SUITE_VALUE_BYTES")));
    OK(cuStreamCreate, &s, CU_STREAM_NON_BLOCKING);
    for (unsigned i = 0; i < ROUNDS; i++) {
        OK(cuStreamWaitValue32, s, p, 2 * i + 1, CU_STREAM_WAIT_VALUE_GEQ);
        OK(cuMemcpyDtoDAsync, p + 64, p + 128, 4, s);
        OK(cuStreamWriteValue32, s, p, 2 * i + 2, 0);
    }
    OK(cuStreamSynchronize, s);
    return 0;
}

static void streams_of_two_processes_wait_for_each_other(void **state)
{
    CUmemAllocationProp prop;
    CUmemGenericAllocationHandle h = 0;
    size_t g = 0;
    int fd = -1, status = -1;
    unsigned seen = 0;
    char text[32];
    CUstream s;
    (void)state;
    memset(&prop, 0, sizeof prop);
    prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    prop.location.id = suite_device;
    prop.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    OK(cuMemGetAllocationGranularity, &g, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    OK(cuMemCreate, &h, g, &prop, 0);
    CUdeviceptr p = map(h, g);
    OK(cuMemsetD8, p, 0, 256);
    OK(cuMemExportToShareableHandle,
       &fd,
       h,
       CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
       0);
    int inherited = dup(fd); /* without close-on-exec */
    snprintf(text, sizeof text, "%d", inherited);
    setenv("SUITE_VALUE_FD", text, 1);
    snprintf(text, sizeof text, "%zu", g);
    setenv("SUITE_VALUE_BYTES", text, 1);
    pid_t pid = suite_spawn(SUITE_ANSWERER);
    OK(cuStreamCreate, &s, CU_STREAM_NON_BLOCKING);
    for (unsigned i = 0; i < ROUNDS; i++) {
        OK(cuMemsetD32Async, p + 128, i, 1, s);
        OK(cuStreamWriteValue32, s, p, 2 * i + 1, 0);
        OK(cuStreamWaitValue32, s, p, 2 * i + 2, CU_STREAM_WAIT_VALUE_GEQ);
    }
    OK(cuStreamSynchronize, s);
    OK(cuMemcpyDtoH, &seen, p + 64, 4);
    assert_int_equal(seen, ROUNDS - 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close(fd);
    close(inherited);
    OK(cuStreamDestroy, s);
    OK(cuMemUnmap, p, g);
    OK(cuMemAddressFree, p, g);
    OK(cuMemRelease, h);
}

const struct CMUnitTest value_tests[] = {
    cmocka_unit_test_setup_teardown(
        a_stream_waits_until_another_writes, suite_set_up, suite_tear_down),
    cmocka_unit_test_setup_teardown(
        each_condition_means_what_it_says, suite_set_up, suite_tear_down),
    cmocka_unit_test_setup_teardown(
        a_batch_is_done_in_order, suite_set_up, suite_tear_down),
    cmocka_unit_test_setup_teardown(
        what_is_no_word_is_refused, suite_set_up, suite_tear_down),
    cmocka_unit_test_setup_teardown(
        streams_of_two_processes_wait_for_each_other, suite_set_up, suite_tear_down),
};
const unsigned n_value_tests = sizeof value_tests / sizeof value_tests[0];
