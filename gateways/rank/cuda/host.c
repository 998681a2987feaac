/* SPDX-License-Identifier: Apache-2.0
 * host.c - host functions, calls whose arguments are structures by value, graph nodes that hold
 * memory.
 *
 * A host function that calls CUDA gets an error from the driver; at a closed gate it would wait
 * instead, and its stream with it, so it passes. For that its stream calls a function of ours.
 */
#include <stdlib.h>

#include "abi.h"
#include "gate.h"
#include "real.h"
#include "reason.h"

struct host_call {
    CUhostFn fn;
    CUstreamCallback callback;
    void *arg;
};

static void run_host(void *call)
{
    struct host_call c = *(struct host_call *)call;
    free(call);
    orri_cuda_exempt_begin();
    c.fn(c.arg);
    orri_cuda_exempt_end();
}

static void run_callback(CUstream stream, CUresult status, void *call)
{
    struct host_call c = *(struct host_call *)call;
    free(call);
    orri_cuda_exempt_begin();
    c.callback(stream, status, c.arg);
    orri_cuda_exempt_end();
}

/* In a stream that is being captured the function becomes a node, which runs any number of times. */
static int runs_once(CUstream stream)
{
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    return REAL(cuStreamIsCapturing)(stream, &status) != CUDA_SUCCESS ||
           status == CU_STREAM_CAPTURE_STATUS_NONE;
}

static CUresult launch(CUstream stream,
                       CUhostFn fn,
                       void *arg,
                       CUresult (*real)(CUstream, CUhostFn, void *))
{
    if (!fn || !runs_once(stream))
        return real(stream, fn, arg);
    struct host_call *call = malloc(sizeof *call);
    if (!call)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *call = (struct host_call){.fn = fn, .arg = arg};
    CUresult rc = real(stream, run_host, call);
    if (rc)
        free(call);
    return rc;
}

static CUresult add(CUstream stream,
                    CUstreamCallback callback,
                    void *arg,
                    unsigned flags,
                    CUresult (*real)(CUstream, CUstreamCallback, void *, unsigned))
{
    if (!callback || !runs_once(stream))
        return real(stream, callback, arg, flags);
    struct host_call *call = malloc(sizeof *call);
    if (!call)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *call = (struct host_call){.callback = callback, .arg = arg};
    CUresult rc = real(stream, run_callback, call, flags);
    if (rc)
        free(call);
    return rc;
}

ORRI_EXPORT CUresult cuLaunchHostFunc(CUstream stream, CUhostFn fn, void *arg)
{
    orri_cuda_enter(CALL_cuLaunchHostFunc);
    CUresult rc = launch(stream, fn, arg, REAL(cuLaunchHostFunc));
    orri_cuda_leave();
    return rc;
}

ORRI_EXPORT CUresult cuLaunchHostFunc_ptsz(CUstream stream, CUhostFn fn, void *arg)
{
    orri_cuda_enter(CALL_cuLaunchHostFunc_ptsz);
    CUresult rc = launch(stream, fn, arg, REAL(cuLaunchHostFunc_ptsz));
    orri_cuda_leave();
    return rc;
}

ORRI_EXPORT CUresult cuStreamAddCallback(CUstream stream,
                                         CUstreamCallback callback,
                                         void *arg,
                                         unsigned flags)
{
    orri_cuda_enter(CALL_cuStreamAddCallback);
    CUresult rc = add(stream, callback, arg, flags, REAL(cuStreamAddCallback));
    orri_cuda_leave();
    return rc;
}

ORRI_EXPORT CUresult cuStreamAddCallback_ptsz(CUstream stream,
                                              CUstreamCallback callback,
                                              void *arg,
                                              unsigned flags)
{
    orri_cuda_enter(CALL_cuStreamAddCallback_ptsz);
    CUresult rc = add(stream, callback, arg, flags, REAL(cuStreamAddCallback_ptsz));
    orri_cuda_leave();
    return rc;
}

/* ---- noted, with arguments of their own kind ------------------------------------------------ */

static CUresult noted(CUresult rc, const char *why)
{
    if (!rc)
        orri_cuda_note(why);
    orri_cuda_leave();
    return rc;
}

ORRI_EXPORT CUresult cuIpcOpenMemHandle(CUdeviceptr *dptr,
                                        CUipcMemHandle handle,
                                        unsigned flags)
{
    orri_cuda_enter(CALL_cuIpcOpenMemHandle);
    return noted(REAL(cuIpcOpenMemHandle)(dptr, handle, flags),
                 "uses cuIpcOpenMemHandle");
}

ORRI_EXPORT CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *dptr,
                                           CUipcMemHandle handle,
                                           unsigned flags)
{
    orri_cuda_enter(CALL_cuIpcOpenMemHandle_v2);
    return noted(REAL(cuIpcOpenMemHandle_v2)(dptr, handle, flags),
                 "uses cuIpcOpenMemHandle");
}

ORRI_EXPORT CUresult cuIpcOpenEventHandle(CUevent *event, CUipcEventHandle handle)
{
    orri_cuda_enter(CALL_cuIpcOpenEventHandle);
    return noted(REAL(cuIpcOpenEventHandle)(event, handle),
                 "uses cuIpcOpenEventHandle");
}

static CUresult node_added(CUresult rc, const struct orri_node_params *params)
{
    if (!rc && params->type == ORRI_GRAPH_NODE_MEM_ALLOC)
        orri_cuda_note("uses a graph that allocates memory");
    orri_cuda_leave();
    return rc;
}

ORRI_EXPORT CUresult cuGraphAddNode(void *node,
                                    void *graph,
                                    const void *dependencies,
                                    size_t n,
                                    const struct orri_node_params *params)
{
    orri_cuda_enter(CALL_cuGraphAddNode);
    return node_added(REAL(cuGraphAddNode)(node, graph, dependencies, n, params),
                      params);
}

ORRI_EXPORT CUresult cuGraphAddNode_v2(void *node,
                                       void *graph,
                                       const void *dependencies,
                                       const void *edges,
                                       size_t n,
                                       const struct orri_node_params *params)
{
    orri_cuda_enter(CALL_cuGraphAddNode_v2);
    return node_added(
        REAL(cuGraphAddNode_v2)(node, graph, dependencies, edges, n, params), params);
}
