/* SPDX-License-Identifier: Apache-2.0
 * test_rank_nccl_handles.c - the handles that the interposer of NCCL gives out: a wrong one is an error in every call and never
 * followed; and calls that it does not know get the real one.  The NCCL behind it is tests/conformance/nccl/newer_nccl.c.
 */
#include "orr_test.h"
#include "orrery/gpu_abi.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef ncclResult_t
newer_f(int, ncclComm_t, double, int, long, int, ncclComm_t, long, float);

static ncclComm_t make(void)
{
    ncclUniqueId id = {.internal = "handles"};
    ncclComm_t comm = NULL;

    assert_int_equal(ncclCommInitRank(&comm, 1, id, 0), ncclSuccess);
    assert_non_null(comm);
    return comm;
}

/* Every call that takes a communicator. */
static void expect_refused(ncclComm_t c)
{
    ncclResult_t (*const three[])(ncclComm_t, int *) = {
        ncclCommCount, ncclCommCuDevice, ncclCommUserRank};
    int n = 0, excluded = 1;
    ncclResult_t state;
    ncclComm_t child = NULL;
    ncclRedOp_t op;
    void *handle;
    float f = 1;
    void *p = &f;

    for (int i = 0; i < 3; i++)
        assert_int_equal(three[i](c, &n), ncclInvalidArgument);
    assert_int_equal(ncclCommGetAsyncError(c, &state), ncclInvalidArgument);
    assert_int_equal(ncclCommFinalize(c), ncclInvalidArgument);
    assert_int_equal(ncclCommDestroy(c), ncclInvalidArgument);
    assert_int_equal(ncclCommAbort(c), ncclInvalidArgument);
    assert_int_equal(ncclCommSplit(c, 0, 0, &child, NULL), ncclInvalidArgument);
    assert_int_not_equal(ncclCommShrink(c, &excluded, 1, &child, NULL, 0), ncclSuccess);
    assert_int_not_equal(ncclCommRevoke(c, 0), ncclSuccess);
    assert_int_equal(ncclCommRegister(c, p, 4, &handle), ncclInvalidArgument);
    assert_int_equal(ncclCommDeregister(c, p), ncclInvalidArgument);
    assert_int_equal(
        ncclRedOpCreatePreMulSum(&op, p, ncclFloat32, ncclScalarHostImmediate, c),
        ncclInvalidArgument);
    assert_int_equal(ncclRedOpDestroy((ncclRedOp_t)0x40000000, c), ncclInvalidArgument);
    assert_int_equal(ncclAllReduce(p, p, 1, ncclFloat32, ncclSum, c, NULL),
                     ncclInvalidArgument);
    assert_int_equal(ncclReduce(p, p, 1, ncclFloat32, ncclSum, 0, c, NULL),
                     ncclInvalidArgument);
    assert_int_equal(ncclBroadcast(p, p, 1, ncclFloat32, 0, c, NULL),
                     ncclInvalidArgument);
    assert_int_equal(ncclBcast(p, 1, ncclFloat32, 0, c, NULL), ncclInvalidArgument);
    assert_int_equal(ncclReduceScatter(p, p, 1, ncclFloat32, ncclSum, c, NULL),
                     ncclInvalidArgument);
    assert_int_equal(ncclAllGather(p, p, 1, ncclFloat32, c, NULL), ncclInvalidArgument);
    assert_int_equal(ncclAlltoAll(p, p, 1, ncclFloat32, c, NULL), ncclInvalidArgument);
    assert_int_equal(ncclGather(p, p, 1, ncclFloat32, 0, c, NULL), ncclInvalidArgument);
    assert_int_equal(ncclScatter(p, p, 1, ncclFloat32, 0, c, NULL),
                     ncclInvalidArgument);
    assert_int_equal(ncclSend(p, 1, ncclFloat32, 0, c, NULL), ncclInvalidArgument);
    assert_int_equal(ncclRecv(p, 1, ncclFloat32, 0, c, NULL), ncclInvalidArgument);
    assert_string_not_equal(ncclGetLastError(c), "");
    assert_int_equal(ncclGroupStart(), ncclSuccess);
    assert_int_equal(ncclSend(p, 1, ncclFloat32, 0, c, NULL), ncclInvalidArgument);
    assert_int_equal(ncclGroupEnd(), ncclInvalidArgument);
}

static void stale_handles_are_refused(void **state)
{
    ncclComm_t first, second;

    (void)state;
    first = make();
    assert_int_equal(ncclCommDestroy(first), ncclSuccess);
    expect_refused(first);
    second = make(); /* in the same slot */
    assert_ptr_not_equal(first, second);
    expect_refused(first);
    assert_int_equal(ncclCommDestroy(second), ncclSuccess);
}

/* Handles that look like ours: any slot, any generation, any bits. */
static void made_up_handles_are_refused(void **state)
{
    ncclComm_t live = make();
    unsigned seed = 1;

    (void)state;
    for (int i = 0; i < 3000; i++) {
        uint64_t bits = (uint64_t)rand_r(&seed) << 31 ^ (uint64_t)rand_r(&seed);
        uint64_t h = (uint64_t)(uintptr_t)live;
        h = i % 3 == 0   ? (h & ~UINT64_C(0xffffffffffff)) | (bits & 0xffffffffffff)
            : i % 3 == 1 ? h ^ UINT64_C(1) << (bits % 48)
                         : h + (bits % 7 + 1);
        expect_refused((ncclComm_t)(uintptr_t)h);
    }
    assert_int_equal(ncclCommDestroy(live), ncclSuccess);
}

static void unknown_calls_get_the_real_communicator(void **state)
{
    void *symbol = dlsym(RTLD_DEFAULT, "ncclPutSignal"), *absent;
    ncclComm_t comm = make();
    ncclResult_t (*grow)(ncclComm_t);
    newer_f *call;

    (void)state;
    assert_non_null(symbol);
    memcpy(&call, &symbol, sizeof call);
    assert_int_equal(call(1, comm, 2.5, 3, 4, 5, comm, 7, 8.5f), ncclSuccess);
    assert_int_equal(ncclCommDestroy(comm), ncclSuccess);
    assert_int_equal(call(1, comm, 2.5, 3, 4, 5, comm, 7, 8.5f), ncclInvalidArgument);
    absent = dlsym(RTLD_DEFAULT, "ncclCommGrow");
    assert_non_null(absent);
    memcpy(&grow, &absent, sizeof grow);
    assert_int_equal(grow(NULL), ncclInvalidUsage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stale_handles_are_refused),
        cmocka_unit_test(made_up_handles_are_refused),
        cmocka_unit_test(unknown_calls_get_the_real_communicator),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
