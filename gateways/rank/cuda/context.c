/* SPDX-License-Identifier: Apache-2.0
 * context.c - see context.h. Virtual memory belongs to the process, not to a context, so what
 * the driver would free together with a context, we do.
 */
#include "context.h"

#include <pthread.h>

#include "abi.h"
#include "gate.h"
#include "reason.h"
#include "segment.h"
#include "share/share.h"

static struct orri_context contexts[ORRI_CONTEXTS_MAX]; /* guarded by orri_cuda_lock */
static size_t n_contexts;

CUresult orri_context_current(CUcontext *ret_ctx, CUdevice *ret_device)
{
    CUresult rc = REAL(cuCtxGetDevice)(ret_device);
    return rc ? rc : REAL(cuCtxGetCurrent)(ret_ctx);
}

CUresult orri_context_wait(CUcontext ctx)
{
    CUcontext current = NULL;
    CUresult rc = REAL(cuCtxGetCurrent)(&current);
    if (rc || current == ctx)
        return rc ? rc : REAL(cuCtxSynchronize)();
    rc = REAL(cuCtxPushCurrent)(ctx);
    if (rc)
        return rc;
    rc = REAL(cuCtxSynchronize)();
    REAL(cuCtxPopCurrent)(&current);
    return rc;
}

size_t orri_contexts_get(struct orri_context *ret)
{
    for (size_t i = 0; i < n_contexts; i++)
        ret[i] = contexts[i];
    return n_contexts;
}

static void add(CUcontext ctx, CUdevice device, int is_primary)
{
    pthread_mutex_lock(&orri_cuda_lock);
    bool is_there = false;
    for (size_t i = 0; i < n_contexts; i++)
        is_there |= contexts[i].ctx == ctx;
    bool is_full = !is_there && n_contexts == ORRI_CONTEXTS_MAX;
    if (!is_there && !is_full)
        contexts[n_contexts++] = (struct orri_context){ctx, device, is_primary};
    pthread_mutex_unlock(&orri_cuda_lock);
    if (is_full)
        orri_cuda_note("uses more than 64 contexts");
}

static void remove_ctx(CUcontext ctx)
{
    pthread_mutex_lock(&orri_cuda_lock);
    for (size_t i = 0; i < n_contexts; i++)
        if (contexts[i].ctx == ctx)
            contexts[i] = contexts[--n_contexts];
    orri_blocks_free_all(ctx);
    orri_share_context_gone(ctx);
    pthread_mutex_unlock(&orri_cuda_lock);
}

static CUcontext primary_of(CUdevice device)
{
    CUcontext ctx = NULL;
    pthread_mutex_lock(&orri_cuda_lock);
    for (size_t i = 0; i < n_contexts; i++)
        if (contexts[i].is_primary && contexts[i].device == device)
            ctx = contexts[i].ctx;
    pthread_mutex_unlock(&orri_cuda_lock);
    return ctx;
}

/* ---- primary contexts ----------------------------------------------------------------- */

ORRI_EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev)
{
    orri_cuda_enter(CALL_cuDevicePrimaryCtxRetain);
    CUresult rc = REAL(cuDevicePrimaryCtxRetain)(pctx, dev);
    if (!rc)
        add(*pctx, dev, 1);
    orri_cuda_leave();
    return rc;
}

/* After a release or reset: the memory goes when the context did. */
static void look_after(CUdevice device)
{
    unsigned flags;
    int is_active = 1;
    CUcontext ctx = primary_of(device);
    if (ctx &&
        REAL(cuDevicePrimaryCtxGetState)(device, &flags, &is_active) == CUDA_SUCCESS &&
        !is_active)
        remove_ctx(ctx);
}

/* Inlined, so that the gate sees who calls. */
static inline __attribute__((always_inline)) CUresult
end_primary(CUdevice device, uint32_t call, CUresult (*real)(CUdevice))
{
    orri_cuda_enter(call);
    CUresult rc = real(device);
    look_after(device);
    orri_cuda_leave();
    return rc;
}

ORRI_EXPORT CUresult cuDevicePrimaryCtxRelease(CUdevice dev)
{
    return end_primary(
        dev, CALL_cuDevicePrimaryCtxRelease, REAL(cuDevicePrimaryCtxRelease));
}

ORRI_EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
    return end_primary(
        dev, CALL_cuDevicePrimaryCtxRelease_v2, REAL(cuDevicePrimaryCtxRelease_v2));
}

ORRI_EXPORT CUresult cuDevicePrimaryCtxReset(CUdevice dev)
{
    return end_primary(
        dev, CALL_cuDevicePrimaryCtxReset, REAL(cuDevicePrimaryCtxReset));
}

ORRI_EXPORT CUresult cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
    return end_primary(
        dev, CALL_cuDevicePrimaryCtxReset_v2, REAL(cuDevicePrimaryCtxReset_v2));
}

/* ---- contexts of the program's own ------------------------------------------------------- */

static CUresult created(CUresult rc, const CUcontext *ctx, CUdevice device)
{
    if (!rc)
        add(*ctx, device, 0);
    orri_cuda_leave();
    return rc;
}

ORRI_EXPORT CUresult cuCtxCreate_v2(CUcontext *ctx, unsigned flags, CUdevice device)
{
    orri_cuda_enter(CALL_cuCtxCreate_v2);
    return created(REAL(cuCtxCreate_v2)(ctx, flags, device), ctx, device);
}

ORRI_EXPORT CUresult cuCtxCreate_v3(
    CUcontext *ctx, void *params, int n_params, unsigned flags, CUdevice device)
{
    orri_cuda_enter(CALL_cuCtxCreate_v3);
    return created(
        REAL(cuCtxCreate_v3)(ctx, params, n_params, flags, device), ctx, device);
}

ORRI_EXPORT CUresult cuCtxCreate_v4(CUcontext *ctx,
                                    CUctxCreateParams *params,
                                    unsigned flags,
                                    CUdevice device)
{
    orri_cuda_enter(CALL_cuCtxCreate_v4);
    return created(REAL(cuCtxCreate_v4)(ctx, params, flags, device), ctx, device);
}

ORRI_EXPORT CUresult cuCtxFromGreenCtx(CUcontext *ctx, CUgreenCtx green)
{
    CUdevice device = 0;
    orri_cuda_enter(CALL_cuCtxFromGreenCtx);
    CUresult rc = REAL(cuCtxFromGreenCtx)(ctx, green);
    if (!rc && REAL(cuCtxPushCurrent)(*ctx) == CUDA_SUCCESS) {
        CUcontext popped;
        REAL(cuCtxGetDevice)(&device);
        REAL(cuCtxPopCurrent)(&popped);
    }
    return created(rc, ctx, device);
}

ORRI_EXPORT CUresult cuCtxDestroy(CUcontext ctx)
{
    orri_cuda_enter(CALL_cuCtxDestroy);
    CUresult rc = REAL(cuCtxDestroy)(ctx);
    if (!rc)
        remove_ctx(ctx);
    orri_cuda_leave();
    return rc;
}

ORRI_EXPORT CUresult cuCtxDestroy_v2(CUcontext ctx)
{
    orri_cuda_enter(CALL_cuCtxDestroy_v2);
    CUresult rc = REAL(cuCtxDestroy_v2)(ctx);
    if (!rc)
        remove_ctx(ctx);
    orri_cuda_leave();
    return rc;
}

/* Mapped memory has its own access rights: what the driver does for its allocations, we repeat. */
ORRI_EXPORT CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned flags)
{
    CUcontext popped;
    CUdevice device = 0, owner = 0;
    orri_cuda_enter(CALL_cuCtxEnablePeerAccess);
    CUresult rc = orri_share_is_on() ? CUDA_ERROR_PEER_ACCESS_UNSUPPORTED
                                     : REAL(cuCtxEnablePeerAccess)(peer, flags);
    if (!rc && REAL(cuCtxGetDevice)(&device) == CUDA_SUCCESS &&
        REAL(cuCtxPushCurrent)(peer) == CUDA_SUCCESS) {
        REAL(cuCtxGetDevice)(&owner);
        REAL(cuCtxPopCurrent)(&popped);
        pthread_mutex_lock(&orri_cuda_lock);
        rc = orri_segments_share(owner, device);
        pthread_mutex_unlock(&orri_cuda_lock);
    }
    orri_cuda_leave();
    return rc;
}
