/* SPDX-License-Identifier: Apache-2.0
 * context.c - contexts and the calling thread's stack of them.
 *
 * A primary context lives from the first retain to the last release, or reset.
 * Destroying a context waits for its work, then takes everything it owns with it;
 * threads that still have it current get CUDA_ERROR_CONTEXT_IS_DESTROYED.
 */
#include "driver.h"

#include <stdlib.h>

static __thread struct CUctx_st *stack[EMU_CTX_DEPTH_MAX]; /* looked up before use */
static __thread unsigned depth;

CUresult emu_ctx_current(struct CUctx_st **ret_ctx)
{
    *ret_ctx = depth ? stack[depth - 1] : NULL;
    if (*ret_ctx && !emu_object_find(*ret_ctx, EMU_CONTEXT))
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    return CUDA_SUCCESS;
}

void emu_ctx_unref(struct CUctx_st *ctx)
{
    if (--ctx->object.refs == 0)
        free(ctx);
}

CUresult emu_ctx_wait_idle(struct CUctx_st *ctx)
{
    /* Only what was submitted before this call counts, and streams may come and go
     * while the lock is dropped: look at a list of our own. */
    struct pending {
        struct CUstream_st *stream; /* a reference */
        uint64_t seq;
    } * list;
    size_t n = 0;
    for (struct CUstream_st *s = ctx->streams; s; s = s->next_in_ctx)
        n += !emu_stream_is_idle(s);
    if (n == 0)
        return ctx->sticky;
    list = calloc(n, sizeof *list);
    if (!list)
        return CUDA_ERROR_OUT_OF_MEMORY;
    n = 0;
    for (struct CUstream_st *s = ctx->streams; s; s = s->next_in_ctx)
        if (!emu_stream_is_idle(s)) {
            s->object.refs++;
            list[n++] = (struct pending){s, s->submitted};
        }
    ctx->object.refs++;
    for (size_t i = 0; i < n; i++) {
        emu_stream_wait(list[i].stream, list[i].seq);
        emu_stream_unref(list[i].stream);
    }
    free(list);
    CUresult rc = ctx->sticky;
    emu_ctx_unref(ctx);
    return rc;
}

static CUresult
ctx_new(struct emu_device *device, unsigned flags, struct CUctx_st **ret_ctx)
{
    struct CUctx_st *ctx = calloc(1, sizeof *ctx);
    if (!ctx)
        return CUDA_ERROR_OUT_OF_MEMORY;
    emu_object_init(&ctx->object, EMU_CONTEXT, NULL);
    ctx->device = device;
    ctx->flags = flags;
    ctx->limits[CU_LIMIT_STACK_SIZE] = 1024;
    ctx->limits[CU_LIMIT_PRINTF_FIFO_SIZE] = 1 << 20;
    ctx->limits[CU_LIMIT_MALLOC_HEAP_SIZE] = 8 << 20;
    CUresult rc = emu_stream_new(ctx, CU_STREAM_DEFAULT, 0, &ctx->legacy);
    if (!rc)
        rc = emu_stream_new(ctx, CU_STREAM_DEFAULT, 0, &ctx->per_thread);
    if (rc) {
        if (ctx->legacy)
            emu_stream_close(ctx->legacy);
        emu_object_kill(&ctx->object);
        free(ctx);
        return rc;
    }
    *ret_ctx = ctx;
    return CUDA_SUCCESS;
}

/* Last use of ctx by a caller: no handle finds it from here on. */
static void ctx_destroy(struct CUctx_st *ctx)
{
    struct CUevent_st *event;
    emu_object_kill(&ctx->object);
    ctx->is_closing = true; /* a value that will never come holds nobody up */
    emu_ctx_wait_idle(ctx);
    while ((event = emu_object_any(EMU_EVENT, ctx))) {
        emu_object_kill(&event->object);
        emu_event_unref(event);
    }
    emu_module_unref_all(ctx);
    while (ctx->streams)
        emu_stream_close(ctx->streams);
    emu_memory_free_all(ctx);
    emu_ctx_unref(ctx); /* a worker on its way out may be the last to let go */
}

static CUresult check_flags(unsigned flags)
{
    unsigned sched = flags & CU_CTX_SCHED_MASK;
    bool is_one = (sched & (sched - 1)) == 0;
    return is_one && (flags & ~(unsigned)CU_CTX_FLAGS_MASK) == 0
               ? CUDA_SUCCESS
               : CUDA_ERROR_INVALID_VALUE;
}

EMU_API CUresult cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev)
{
    struct emu_device *d;
    CUresult rc = emu_enter_device(dev, &d);
    if (rc)
        return rc;
    if (!pctx)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (!d->primary)
        rc = ctx_new(d, d->primary_flags, &d->primary);
    if (rc)
        return emu_leave(rc);
    d->primary_refs++;
    *pctx = d->primary;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuDevicePrimaryCtxRelease(CUdevice dev)
{
    struct emu_device *d;
    CUresult rc = emu_enter_device(dev, &d);
    if (rc)
        return rc;
    if (d->primary_refs == 0)
        return emu_leave(CUDA_ERROR_INVALID_CONTEXT);
    if (--d->primary_refs == 0) {
        struct CUctx_st *ctx = d->primary;
        d->primary = NULL;
        ctx_destroy(ctx);
    }
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuDevicePrimaryCtxReset(CUdevice dev)
{
    struct emu_device *d;
    CUresult rc = emu_enter_device(dev, &d);
    if (rc)
        return rc;
    struct CUctx_st *ctx = d->primary;
    d->primary = NULL;
    d->primary_refs = 0;
    if (ctx)
        ctx_destroy(ctx);
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuDevicePrimaryCtxSetFlags(CUdevice dev, unsigned int flags)
{
    struct emu_device *d;
    CUresult rc = emu_enter_device(dev, &d);
    if (rc)
        return rc;
    rc = check_flags(flags);
    if (rc)
        return emu_leave(rc);
    d->primary_flags = flags;
    if (d->primary)
        d->primary->flags = flags;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuDevicePrimaryCtxGetState(CUdevice dev,
                                            unsigned int *flags,
                                            int *active)
{
    struct emu_device *d;
    CUresult rc = emu_enter_device(dev, &d);
    if (rc)
        return rc;
    if (!flags || !active)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *flags = d->primary_flags;
    *active = d->primary != NULL;
    return emu_leave(CUDA_SUCCESS);
}

static CUresult push(struct CUctx_st *ctx)
{
    if (depth == EMU_CTX_DEPTH_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    stack[depth++] = ctx;
    return CUDA_SUCCESS;
}

EMU_API CUresult cuCtxCreate(CUcontext *pctx,
                             CUctxCreateParams *ctxCreateParams,
                             unsigned int flags,
                             CUdevice dev)
{
    struct emu_device *d;
    struct CUctx_st *ctx = NULL;
    CUresult rc = emu_enter_device(dev, &d);
    if (rc)
        return rc;
    if (!pctx || check_flags(flags) || depth == EMU_CTX_DEPTH_MAX)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (ctxCreateParams)
        return emu_leave(emu_unsupported("cuCtxCreate with parameters"));
    rc = ctx_new(d, flags, &ctx);
    if (rc)
        return emu_leave(rc);
    push(ctx);
    *pctx = ctx;
    return emu_leave(CUDA_SUCCESS);
}

/* The name that programs built for CUDA 12 and older use. */
EMU_API CUresult cuCtxCreate_v2(CUcontext *pctx, unsigned int flags, CUdevice dev);
EMU_API CUresult cuCtxCreate_v2(CUcontext *pctx, unsigned int flags, CUdevice dev)
{
    return cuCtxCreate(pctx, NULL, flags, dev);
}

EMU_API CUresult cuCtxDestroy(CUcontext ctx)
{
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    if (!emu_object_find(ctx, EMU_CONTEXT))
        return emu_leave(CUDA_ERROR_INVALID_CONTEXT);
    if (ctx == ctx->device->primary)
        return emu_leave(CUDA_ERROR_INVALID_CONTEXT);
    if (depth && stack[depth - 1] == ctx)
        depth--;
    ctx_destroy(ctx);
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuCtxPushCurrent(CUcontext ctx)
{
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    if (!emu_object_find(ctx, EMU_CONTEXT))
        return emu_leave(CUDA_ERROR_INVALID_CONTEXT);
    return emu_leave(push(ctx));
}

EMU_API CUresult cuCtxPopCurrent(CUcontext *pctx)
{
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    if (!depth)
        return emu_leave(CUDA_ERROR_INVALID_CONTEXT);
    depth--;
    if (pctx)
        *pctx = stack[depth];
    return emu_leave(CUDA_SUCCESS);
}

/* Replaces the top of the stack; NULL pops it. */
EMU_API CUresult cuCtxSetCurrent(CUcontext ctx)
{
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    if (ctx && !emu_object_find(ctx, EMU_CONTEXT))
        return emu_leave(CUDA_ERROR_INVALID_CONTEXT);
    if (depth)
        depth--;
    return emu_leave(ctx ? push(ctx) : CUDA_SUCCESS);
}

EMU_API CUresult cuCtxGetCurrent(CUcontext *pctx)
{
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    if (!pctx)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *pctx = depth ? stack[depth - 1] : NULL;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuCtxGetDevice(CUdevice *device)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    if (!device)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *device = (CUdevice)(ctx->device - emu.devices);
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuCtxGetFlags(unsigned int *flags)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    if (!flags)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *flags = ctx->flags;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuCtxSynchronize(void)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    return rc ? rc : emu_leave(emu_ctx_wait_idle(ctx));
}

EMU_API CUresult cuCtxGetApiVersion(CUcontext ctx, unsigned int *version)
{
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    if (!version)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (!ctx) {
        rc = emu_ctx_current(&ctx);
        if (!rc && !ctx)
            rc = CUDA_ERROR_INVALID_CONTEXT;
    } else if (!emu_object_find(ctx, EMU_CONTEXT))
        rc = CUDA_ERROR_INVALID_CONTEXT;
    if (!rc)
        *version = 3020; /* what every context of the v2 API and later reports */
    return emu_leave(rc);
}

EMU_API CUresult cuCtxGetStreamPriorityRange(int *leastPriority, int *greatestPriority)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    if (leastPriority)
        *leastPriority = 0;
    if (greatestPriority)
        *greatestPriority = -5;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuCtxGetLimit(size_t *pvalue, CUlimit limit)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    if (!pvalue)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if ((unsigned)limit >= 3)
        return emu_leave(CUDA_ERROR_UNSUPPORTED_LIMIT);
    *pvalue = ctx->limits[limit];
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuCtxSetLimit(CUlimit limit, size_t value)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    if ((unsigned)limit >= 3)
        return emu_leave(CUDA_ERROR_UNSUPPORTED_LIMIT);
    ctx->limits[limit] = value;
    return emu_leave(CUDA_SUCCESS);
}
