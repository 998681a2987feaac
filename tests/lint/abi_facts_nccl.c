/* SPDX-License-Identifier: Apache-2.0
 * abi_facts_nccl.c - facts about the NCCL API, checked by the compiler. Built twice:
 * against include/orrery/gpu_abi.h, and, where it is installed, against nccl.h
 * (ABI_FACTS_TOOLKIT). What holds in both is what both promise.
 */
#ifdef ABI_FACTS_TOOLKIT
#include <nccl.h>
#else
#include "orrery/gpu_abi.h"
#endif
#include <stddef.h>

#define FACT(cond)         _Static_assert(cond, #cond)
#define VALUE(name, value) FACT((long long)(name) == (value))
#define FIELD(type, field, offset, size)                                               \
    FACT(offsetof(type, field) == (offset) && sizeof(((type *)0)->field) == (size))
#define CALL(name, ...)                                                                \
    FACT(__builtin_types_compatible_p(__typeof__(&name), ncclResult_t (*)(__VA_ARGS__)))

VALUE(NCCL_MAJOR, 2);
VALUE(NCCL_MINOR, 28);
VALUE(NCCL_PATCH, 9);
VALUE(NCCL_VERSION_CODE, 22809);
VALUE(NCCL_VERSION(2, 28, 9), 22809);
VALUE(NCCL_VERSION(2, 8, 3), 2803);
VALUE(NCCL_UNIQUE_ID_BYTES, 128);
VALUE(NCCL_SPLIT_NOCOLOR, -1);
VALUE(NCCL_CONFIG_UNDEF_INT, (-2147483647 - 1));
VALUE(NCCL_WIN_DEFAULT, 0);
VALUE(NCCL_WIN_COLL_SYMMETRIC, 1);
VALUE(NCCL_WIN_REQUIRED_ALIGNMENT, 4096);
VALUE(NCCL_CTA_POLICY_DEFAULT, 0);
VALUE(NCCL_CTA_POLICY_EFFICIENCY, 1);
VALUE(NCCL_CTA_POLICY_ZERO, 2);
VALUE(NCCL_SHRINK_DEFAULT, 0);
VALUE(NCCL_SHRINK_ABORT, 1);
VALUE(NCCL_REVOKE_DEFAULT, 0);
VALUE(ncclSuccess, 0);
VALUE(ncclUnhandledCudaError, 1);
VALUE(ncclSystemError, 2);
VALUE(ncclInternalError, 3);
VALUE(ncclInvalidArgument, 4);
VALUE(ncclInvalidUsage, 5);
VALUE(ncclRemoteError, 6);
VALUE(ncclInProgress, 7);
VALUE(ncclNumResults, 8);
VALUE(ncclInt8, 0);
VALUE(ncclChar, 0);
VALUE(ncclUint8, 1);
VALUE(ncclInt32, 2);
VALUE(ncclInt, 2);
VALUE(ncclUint32, 3);
VALUE(ncclInt64, 4);
VALUE(ncclUint64, 5);
VALUE(ncclFloat16, 6);
VALUE(ncclHalf, 6);
VALUE(ncclFloat32, 7);
VALUE(ncclFloat, 7);
VALUE(ncclFloat64, 8);
VALUE(ncclDouble, 8);
VALUE(ncclBfloat16, 9);
VALUE(ncclFloat8e4m3, 10);
VALUE(ncclFloat8e5m2, 11);
VALUE(ncclNumTypes, 12);
VALUE(ncclSum, 0);
VALUE(ncclProd, 1);
VALUE(ncclMax, 2);
VALUE(ncclMin, 3);
VALUE(ncclAvg, 4);
VALUE(ncclNumOps, 5);
VALUE(ncclMaxRedOp, 0x7fffffff);
VALUE(ncclScalarDevice, 0);
VALUE(ncclScalarHostImmediate, 1);

FACT(sizeof(ncclResult_t) == 4);
FACT(sizeof(ncclDataType_t) == 4);
FACT(sizeof(ncclRedOp_t) == 4);
FACT(sizeof(ncclScalarResidence_t) == 4);
FACT(sizeof(ncclUniqueId) == 128);
FACT(sizeof(cudaStream_t) == 8);
FACT(__builtin_types_compatible_p(cudaStream_t, struct CUstream_st *));
FIELD(ncclConfig_t, size, 0, 8);
FIELD(ncclConfig_t, magic, 8, 4);
FIELD(ncclConfig_t, version, 12, 4);
FIELD(ncclConfig_t, blocking, 16, 4);
FIELD(ncclConfig_t, cgaClusterSize, 20, 4);
FIELD(ncclConfig_t, minCTAs, 24, 4);
FIELD(ncclConfig_t, maxCTAs, 28, 4);
FIELD(ncclConfig_t, netName, 32, 8);
FIELD(ncclConfig_t, splitShare, 40, 4);
FIELD(ncclConfig_t, trafficClass, 44, 4);
FIELD(ncclConfig_t, commName, 48, 8);
FIELD(ncclConfig_t, collnetEnable, 56, 4);
FIELD(ncclConfig_t, CTAPolicy, 60, 4);
FIELD(ncclConfig_t, shrinkShare, 64, 4);
FIELD(ncclConfig_t, nvlsCTAs, 68, 4);
FIELD(ncclConfig_t, nChannelsPerNetPeer, 72, 4);
FIELD(ncclConfig_t, nvlinkCentricSched, 76, 4);
FACT(sizeof(ncclConfig_t) == 80);
FIELD(ncclSimInfo_t, size, 0, 8);
FIELD(ncclSimInfo_t, magic, 8, 4);
FIELD(ncclSimInfo_t, version, 12, 4);
FIELD(ncclSimInfo_t, estimatedTime, 16, 4);
FACT(sizeof(ncclSimInfo_t) == 24);

CALL(ncclGetVersion, int *);
CALL(ncclGetUniqueId, ncclUniqueId *);
CALL(ncclCommInitRank, ncclComm_t *, int, ncclUniqueId, int);
CALL(ncclCommInitRankConfig, ncclComm_t *, int, ncclUniqueId, int, ncclConfig_t *);
CALL(ncclCommInitRankScalable,
     ncclComm_t *,
     int,
     int,
     int,
     ncclUniqueId *,
     ncclConfig_t *);
CALL(ncclCommInitAll, ncclComm_t *, int, const int *);
CALL(ncclCommSplit, ncclComm_t, int, int, ncclComm_t *, ncclConfig_t *);
CALL(ncclCommShrink, ncclComm_t, int *, int, ncclComm_t *, ncclConfig_t *, int);
CALL(ncclCommFinalize, ncclComm_t);
CALL(ncclCommDestroy, ncclComm_t);
CALL(ncclCommAbort, ncclComm_t);
CALL(ncclCommRevoke, ncclComm_t, int);
CALL(ncclCommGetAsyncError, ncclComm_t, ncclResult_t *);
CALL(ncclCommCount, ncclComm_t, int *);
CALL(ncclCommCuDevice, ncclComm_t, int *);
CALL(ncclCommUserRank, ncclComm_t, int *);
CALL(ncclMemAlloc, void **, size_t);
CALL(ncclMemFree, void *);
CALL(ncclCommRegister, ncclComm_t, void *, size_t, void **);
CALL(ncclCommDeregister, ncclComm_t, void *);
CALL(ncclCommWindowRegister, ncclComm_t, void *, size_t, ncclWindow_t *, int);
CALL(ncclCommWindowDeregister, ncclComm_t, ncclWindow_t);
CALL(ncclRedOpCreatePreMulSum,
     ncclRedOp_t *,
     void *,
     ncclDataType_t,
     ncclScalarResidence_t,
     ncclComm_t);
CALL(ncclRedOpDestroy, ncclRedOp_t, ncclComm_t);
CALL(ncclGroupStart, void);
CALL(ncclGroupEnd, void);
CALL(ncclGroupSimulateEnd, ncclSimInfo_t *);
CALL(ncclAllReduce,
     const void *,
     void *,
     size_t,
     ncclDataType_t,
     ncclRedOp_t,
     ncclComm_t,
     cudaStream_t);
CALL(ncclReduce,
     const void *,
     void *,
     size_t,
     ncclDataType_t,
     ncclRedOp_t,
     int,
     ncclComm_t,
     cudaStream_t);
CALL(ncclBroadcast,
     const void *,
     void *,
     size_t,
     ncclDataType_t,
     int,
     ncclComm_t,
     cudaStream_t);
CALL(ncclBcast, void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t);
CALL(ncclReduceScatter,
     const void *,
     void *,
     size_t,
     ncclDataType_t,
     ncclRedOp_t,
     ncclComm_t,
     cudaStream_t);
CALL(ncclAllGather,
     const void *,
     void *,
     size_t,
     ncclDataType_t,
     ncclComm_t,
     cudaStream_t);
CALL(ncclAlltoAll,
     const void *,
     void *,
     size_t,
     ncclDataType_t,
     ncclComm_t,
     cudaStream_t);
CALL(ncclGather,
     const void *,
     void *,
     size_t,
     ncclDataType_t,
     int,
     ncclComm_t,
     cudaStream_t);
CALL(ncclScatter,
     const void *,
     void *,
     size_t,
     ncclDataType_t,
     int,
     ncclComm_t,
     cudaStream_t);
CALL(ncclSend, const void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t);
CALL(ncclRecv, void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t);
FACT(__builtin_types_compatible_p(__typeof__(ncclGetErrorString(ncclSuccess)),
                                  const char *));
FACT(__builtin_types_compatible_p(__typeof__(ncclGetLastError(NCCL_COMM_NULL)),
                                  const char *));

/* The initializers, field by field. */
extern const ncclConfig_t abi_facts_config;
extern const ncclSimInfo_t abi_facts_sim_info;
const ncclConfig_t abi_facts_config = NCCL_CONFIG_INITIALIZER;
const ncclSimInfo_t abi_facts_sim_info = NCCL_SIM_INFO_INITIALIZER;
