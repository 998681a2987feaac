/* SPDX-License-Identifier: Apache-2.0
 * abi.h - declarations of CUDA 13.0 that only the interposer needs, beside orrery/gpu_abi.h.
 * tests/lint/abi_facts_rank_cuda.c holds them against the toolkit's header where there is one.
 */
#ifndef ORR_RANK_CUDA_ABI_H
#define ORR_RANK_CUDA_ABI_H

#include "orrery/gpu_abi.h"

typedef struct CUmemPoolHandle_st *CUmemoryPool;
typedef struct CUgreenCtx_st *CUgreenCtx;

typedef enum CUstreamCaptureStatus_enum {
    CU_STREAM_CAPTURE_STATUS_NONE = 0,
} CUstreamCaptureStatus;

/* CUmemPoolProps: its first members; the rest is passed on unread. */
struct orri_pool_props {
    CUmemAllocationType alloc_type;
    CUmemAllocationHandleType handle_types;
    CUmemLocation location;
};

/* CUgraphNodeParams: its first member says which kind of node. */
struct orri_node_params {
    int type;
};
enum { ORRI_GRAPH_NODE_MEM_ALLOC = 10 };

typedef struct CUipcMemHandle_st {
    char reserved[64];
} CUipcMemHandle;
typedef struct CUipcEventHandle_st {
    char reserved[64];
} CUipcEventHandle;

CUresult cuMemAllocPitch_v2(CUdeviceptr *dptr,
                            size_t *pitch,
                            size_t width,
                            size_t height,
                            unsigned element_bytes);
CUresult cuMemAllocAsync(CUdeviceptr *dptr, size_t bytes, CUstream stream);
CUresult cuMemAllocAsync_ptsz(CUdeviceptr *dptr, size_t bytes, CUstream stream);
CUresult cuMemAllocFromPoolAsync(CUdeviceptr *dptr,
                                 size_t bytes,
                                 CUmemoryPool pool,
                                 CUstream stream);
CUresult cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *dptr,
                                      size_t bytes,
                                      CUmemoryPool pool,
                                      CUstream stream);
CUresult cuMemFreeAsync(CUdeviceptr dptr, CUstream stream);
CUresult cuMemFreeAsync_ptsz(CUdeviceptr dptr, CUstream stream);
CUresult cuMemPoolCreate(CUmemoryPool *pool, const struct orri_pool_props *props);
CUresult cuMemPoolDestroy(CUmemoryPool pool);
CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status);

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *addr);
CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop,
                                                CUmemGenericAllocationHandle handle);
CUresult cuMulticastBindMem(CUmemGenericAllocationHandle multicast,
                            size_t multicast_offset,
                            CUmemGenericAllocationHandle memory,
                            size_t offset,
                            size_t bytes,
                            unsigned long long flags);

#undef cuDevicePrimaryCtxRelease
#undef cuDevicePrimaryCtxReset
#undef cuCtxCreate
#undef cuCtxDestroy
#undef cuGetProcAddress
CUresult cuDevicePrimaryCtxRelease(CUdevice device);
CUresult cuDevicePrimaryCtxReset(CUdevice device);
CUresult cuCtxDestroy(CUcontext ctx);
CUresult cuCtxCreate_v2(CUcontext *ctx, unsigned flags, CUdevice device);
CUresult cuCtxCreate_v3(
    CUcontext *ctx, void *params, int n_params, unsigned flags, CUdevice device);
CUresult cuCtxFromGreenCtx(CUcontext *ctx, CUgreenCtx green);
CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned flags);
CUresult
cuGetProcAddress(const char *symbol, void **pfn, int version, cuuint64_t flags);

CUresult cuLaunchHostFunc_ptsz(CUstream stream, CUhostFn fn, void *arg);
CUresult cuStreamAddCallback_ptsz(CUstream stream,
                                  CUstreamCallback callback,
                                  void *arg,
                                  unsigned flags);

CUresult cuIpcOpenMemHandle(CUdeviceptr *dptr, CUipcMemHandle handle, unsigned flags);
CUresult
cuIpcOpenMemHandle_v2(CUdeviceptr *dptr, CUipcMemHandle handle, unsigned flags);
CUresult cuIpcOpenEventHandle(CUevent *event, CUipcEventHandle handle);
CUresult cuGraphAddNode(void *node,
                        void *graph,
                        const void *dependencies,
                        size_t n,
                        const struct orri_node_params *params);
CUresult cuGraphAddNode_v2(void *node,
                           void *graph,
                           const void *dependencies,
                           const void *edges,
                           size_t n,
                           const struct orri_node_params *params);

#endif
