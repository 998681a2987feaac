/* SPDX-License-Identifier: Apache-2.0
 * cases_comm.c - communicators: making, asking, splitting, ending.
 */
#include "suite.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

static ncclComm_t const no_comm = NULL;

static void expect_sum(struct rank *r, ncclComm_t comm, int world)
{
    double one = 1, want = world;
    struct array a = array_new(1, ncclInt32);

    array_write(&a, &one);
    OK(ncclAllReduce, a.at, a.at, 1, ncclInt32, ncclSum, comm, r->stream);
    suite_sync(r);
    array_expect(&a, &want, 0, "a sum over all ranks");
    array_free(&a);
}

static void library(struct rank *r)
{
    ncclUniqueId a, b;
    int version = 0;
    void (*reset)(void);
    void *symbol = dlsym(RTLD_DEFAULT, "ncclResetDebugInit");

    (void)r;
    OK(ncclGetVersion, &version);
    CHECK(version >= NCCL_VERSION_CODE, "version %d", version);
    FAILS(ncclInvalidArgument, ncclGetVersion, NULL);
    OK(ncclGetUniqueId, &a);
    OK(ncclGetUniqueId, &b);
    CHECK(memcmp(&a, &b, sizeof a) != 0, "two unique ids are equal");
    FAILS(ncclInvalidArgument, ncclGetUniqueId, NULL);
    for (int code = ncclSuccess; code < ncclNumResults; code++) {
        const char *text = ncclGetErrorString((ncclResult_t)code);
        CHECK(text && text[0], "no text for %d", code);
    }
    suite_covered("ncclGetErrorString", false);
    CHECK(ncclGetErrorString((ncclResult_t)99) != NULL, "no text for 99");
    suite_covered("ncclGetErrorString", true);
    memcpy(&reset, &symbol, sizeof reset); /* its declaration is deprecated */
    CHECK(reset, "ncclResetDebugInit");
    reset();
    suite_covered("ncclResetDebugInit", false);
    FAILS0(ncclInvalidUsage, ncclGroupEnd);
    CHECK(ncclGetLastError(NULL)[0], "no text for the last error");
    suite_covered("ncclGetLastError", false);
    suite_covered("ncclGetLastError", true);
}

static void init_and_ask(struct rank *r)
{
    ncclComm_t comm = suite_comm(r, 0);
    int count = -1, rank = -1, device = -1, ndevices;
    ncclResult_t state = ncclInternalError;

    CU(cuDeviceGetCount, &ndevices);
    OK(ncclCommCount, comm, &count);
    OK(ncclCommUserRank, comm, &rank);
    OK(ncclCommCuDevice, comm, &device);
    OK(ncclCommGetAsyncError, comm, &state);
    CHECK(count == r->world && rank == r->rank, "%d of %d", rank, count);
    CHECK(device == r->rank % ndevices, "device %d", device);
    CHECK(state == ncclSuccess, "state %d", (int)state);
    FAILS(ncclInvalidArgument, ncclCommCount, no_comm, &count);
    FAILS(ncclInvalidArgument, ncclCommUserRank, comm, NULL);
    FAILS(ncclInvalidArgument, ncclCommCuDevice, comm, NULL);
    FAILS(ncclInvalidArgument, ncclCommGetAsyncError, no_comm, &state);
    expect_sum(r, comm, r->world);
    OK(ncclCommDestroy, comm);
    if (suite_is_emulated()) {
        FAILS(ncclInvalidArgument, ncclCommDestroy, comm);
        FAILS(ncclInvalidArgument, ncclCommAbort, comm);
        FAILS(ncclInvalidArgument, ncclCommFinalize, comm);
        FAILS(ncclInvalidArgument, ncclCommCount, comm, &count);
    }
}

static void init_refuses(struct rank *r)
{
    ncclUniqueId id = suite_id(r, 0), no_id = {.internal = {0}};
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclComm_t comm;

    FAILS(ncclInvalidArgument, ncclCommInitRank, NULL, 1, id, 0);
    FAILS(ncclInvalidArgument, ncclCommInitRank, &comm, 0, id, 0);
    FAILS(ncclInvalidArgument, ncclCommInitRank, &comm, 2, id, 2);
    FAILS(ncclInvalidArgument, ncclCommInitRank, &comm, 2, id, -1);
    config.magic = 0;
    FAILS(ncclInvalidArgument, ncclCommInitRankConfig, &comm, 1, id, 0, &config);
    config.magic = NCCL_CONFIG_MAGIC;
    config.blocking = 7;
    FAILS(ncclInvalidArgument, ncclCommInitRankConfig, &comm, 1, id, 0, &config);
    FAILS(ncclInvalidArgument, ncclCommInitRankScalable, &comm, 1, 0, 0, &id, NULL);
    FAILS(ncclInvalidArgument, ncclCommInitAll, NULL, 1, NULL);
    FAILS(ncclInvalidArgument, ncclCommInitAll, &comm, 0, NULL);
    FAILS(ncclInvalidArgument, ncclCommInitAll, &comm, 1000, NULL);
    if (suite_is_emulated())
        FAILS(ncclInvalidArgument, ncclCommInitRank, &comm, 1, no_id, 0);
}

static void configs(struct rank *r)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId id = suite_id(r, 0);
    ncclComm_t comm;

    config.blocking = 1;
    config.commName = "conformance";
    config.size = offsetof(ncclConfig_t, splitShare); /* an older program's */
    config.collnetEnable = 12345;                     /* beyond it: not read */
    OK(ncclCommInitRankConfig, &comm, r->world, id, r->rank, &config);
    expect_sum(r, comm, r->world);
    OK(ncclCommDestroy, comm);
    id = suite_id(r, 1);
    OK(ncclCommInitRankScalable, &comm, r->world, r->rank, 1, &id, NULL);
    expect_sum(r, comm, r->world);
    OK(ncclCommDestroy, comm);
}

static void not_blocking(struct rank *r)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId id = suite_id(r, 0);
    ncclComm_t comm;
    ncclResult_t result;

    config.blocking = 0;
    result = ncclCommInitRankConfig(&comm, r->world, id, r->rank, &config);
    CHECK(result == ncclSuccess || result == ncclInProgress, "%d", (int)result);
    result = suite_await_async(comm, ncclInProgress, 20000);
    CHECK(result == ncclSuccess, "%d", (int)result);
    expect_sum(r, comm, r->world);
    result = ncclCommFinalize(comm);
    CHECK(result == ncclSuccess || result == ncclInProgress, "%d", (int)result);
    result = suite_await_async(comm, ncclInProgress, 20000);
    CHECK(result == ncclSuccess, "%d", (int)result);
    OK(ncclCommDestroy, comm);
}

static void finalized(struct rank *r)
{
    ncclComm_t comm = suite_comm(r, 0);

    expect_sum(r, comm, r->world);
    OK(ncclCommFinalize, comm);
    FAILS(ncclInvalidArgument, ncclCommFinalize, comm);
    if (suite_is_emulated())
        FAILS(ncclInvalidUsage,
              ncclAllReduce,
              r,
              r,
              1,
              ncclInt8,
              ncclSum,
              comm,
              r->stream);
    OK(ncclCommDestroy, comm);
    OK(ncclCommDestroy, no_comm);
    OK(ncclCommAbort, no_comm);
}

static void one_process(struct rank *r)
{
    ncclComm_t comms[4];
    CUstream streams[4];
    CUcontext ctx[4];
    struct array a[4];
    double one = 1, want;
    int n, devices[4] = {3, 2, 1, 0}, twice[2] = {0, 0};

    CU(cuDeviceGetCount, &n);
    n = n > 4 ? 4 : n;
    want = n;
    OK(ncclCommInitAll, comms, n, n == 4 ? devices : NULL);
    if (n > 1)
        FAILS(ncclInvalidUsage, ncclCommInitAll, comms, 2, twice);
    for (int i = 0; i < n; i++) {
        int device;
        OK(ncclCommCuDevice, comms[i], &device);
        CU(cuDevicePrimaryCtxRetain, &ctx[i], device);
        CU(cuCtxSetCurrent, ctx[i]);
        CU(cuStreamCreate, &streams[i], CU_STREAM_NON_BLOCKING);
        a[i] = array_new(1, ncclFloat32);
        array_write(&a[i], &one);
    }
    OK0(ncclGroupStart);
    for (int i = 0; i < n; i++)
        OK(ncclAllReduce,
           a[i].at,
           a[i].at,
           1,
           ncclFloat32,
           ncclSum,
           comms[i],
           streams[i]);
    OK0(ncclGroupEnd);
    for (int i = 0; i < n; i++) {
        int device;
        CU(cuCtxSetCurrent, ctx[i]);
        CU(cuStreamSynchronize, streams[i]);
        array_expect(&a[i], &want, 0, "a sum within a process");
        array_free(&a[i]);
        OK(ncclCommCuDevice, comms[i], &device);
        OK(ncclCommDestroy, comms[i]);
        CU(cuStreamDestroy, streams[i]);
        CU(cuDevicePrimaryCtxRelease, device);
    }
    CU(cuCtxSetCurrent, r->ctx);
}

static void split(struct rank *r)
{
    ncclComm_t comm = suite_comm(r, 0), half = NULL, none = comm, whole;
    int rank, count, color = r->rank % 2, mine = (r->world + 1 - color) / 2;

    OK(ncclCommSplit, comm, color, -r->rank, &half, NULL);
    OK(ncclCommUserRank, half, &rank);
    OK(ncclCommCount, half, &count);
    CHECK(count == mine, "%d ranks, not %d", count, mine);
    CHECK(rank == mine - 1 - r->rank / 2, "key -%d became rank %d", r->rank, rank);
    expect_sum(r, half, mine);
    OK(ncclCommSplit, comm, r->rank == 0 ? 5 : NCCL_SPLIT_NOCOLOR, 0, &none, NULL);
    CHECK((none != NULL) == (r->rank == 0), "no color, but a communicator");
    OK(ncclCommDestroy, none);
    OK0(ncclGroupStart);
    OK(ncclCommSplit, comm, 0, 0, &whole, NULL);
    OK0(ncclGroupEnd);
    OK(ncclCommUserRank, whole, &rank);
    CHECK(rank == r->rank, "equal keys keep the order: %d", rank);
    OK(ncclCommDestroy, comm);
    expect_sum(r, whole, r->world);
    FAILS(ncclInvalidArgument, ncclCommSplit, whole, -7, 0, &none, NULL);
    FAILS(ncclInvalidArgument, ncclCommSplit, no_comm, 0, 0, &none, NULL);
    OK(ncclCommDestroy, half);
    OK(ncclCommDestroy, whole);
}

/* All ranks on the first device.  Where the interposer splices, that is no error. */
static void device_shared(struct rank *r)
{
    ncclUniqueId id = suite_id(r, 0);
    CUcontext ctx;
    ncclComm_t comm;

    CU(cuDevicePrimaryCtxRetain, &ctx, 0);
    CU(cuCtxSetCurrent, ctx);
    unsetenv("ORRERY_EMULATOR_NCCL_SHARED_DEVICES");
    if (getenv("ORRERY_REDUCE")) {
        OK(ncclCommInitRank, &comm, r->world, id, r->rank);
        OK(ncclCommDestroy, comm);
    } else {
        FAILS(ncclInvalidUsage, ncclCommInitRank, &comm, r->world, id, r->rank);
        CHECK(strstr(ncclGetLastError(NULL), "Duplicate GPU"),
              "it says %s",
              ncclGetLastError(NULL));
    }
    CU(cuCtxSetCurrent, r->ctx);
    CU(cuDevicePrimaryCtxRelease, 0);
}

static void memory(struct rank *r)
{
    ncclComm_t comm = suite_comm(r, 0);
    void *at = NULL, *handle = NULL;

    OK(ncclMemAlloc, &at, 1 << 20);
    FAILS(ncclInvalidArgument, ncclMemAlloc, NULL, 1);
    OK(ncclCommRegister, comm, at, 1 << 20, &handle);
    FAILS(ncclInvalidArgument, ncclCommRegister, no_comm, at, 1 << 20, &handle);
    OK(ncclCommDeregister, comm, handle);
    FAILS(ncclInvalidArgument, ncclCommDeregister, no_comm, handle);
    OK(ncclMemFree, at);
    OK(ncclMemFree, NULL);
    if (suite_is_emulated()) {
        FAILS(ncclInvalidArgument, ncclCommDeregister, comm, handle);
        FAILS(ncclUnhandledCudaError, ncclMemFree, (void *)8);
    }
    OK(ncclCommDestroy, comm);
}

static void not_emulated(struct rank *r)
{
    const char *(*counted)(unsigned, uint64_t *);
    void *symbol = suite_symbol("orrEmuNcclUnsupported");
    ncclSimInfo_t info = NCCL_SIM_INFO_INITIALIZER;
    ncclComm_t comm;
    ncclWindow_t window;
    uint64_t count;

    (void)r;
    FAILS(ncclInvalidUsage, ncclCommShrink, no_comm, NULL, 0, &comm, NULL, 0);
    FAILS(ncclInvalidUsage, ncclCommRevoke, no_comm, NCCL_REVOKE_DEFAULT);
    FAILS(ncclInvalidUsage, ncclCommWindowRegister, no_comm, NULL, 0, &window, 0);
    FAILS(ncclInvalidUsage, ncclCommWindowDeregister, no_comm, NULL);
    FAILS(ncclInvalidUsage, ncclGroupSimulateEnd, &info);
    CHECK(strstr(ncclGetLastError(NULL), "ncclGroupSimulateEnd"),
          "the call is not named");
    memcpy(&counted, &symbol, sizeof counted);
    for (unsigned i = 0; counted(i, &count); i++)
        CHECK(count == 1, "%s was counted %d times", counted(i, &count), (int)count);
}

const struct conf_case comm_cases[] = {
    {"library", library, {1}, false},
    {"init_and_ask", init_and_ask, {1, 2, 8}, false},
    {"init_refuses", init_refuses, {1}, false},
    {"configs", configs, {2}, false},
    {"not_blocking", not_blocking, {1, 3}, false},
    {"finalized", finalized, {1, 2}, false},
    {"one_process", one_process, {1}, false},
    {"split", split, {1, 4, 8}, false},
    {"memory", memory, {1}, false},
    {"device_shared", device_shared, {2, 3}, false},
    {"not_emulated", not_emulated, {1}, true},
    {NULL, NULL, {0}, false},
};
