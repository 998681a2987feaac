/* SPDX-License-Identifier: Apache-2.0
 * stream_api.c - the calls on streams.
 */
#include "driver.h"

/* Current context and one of its streams; the lock is held on success. */
static CUresult enter_stream(CUstream handle, struct CUstream_st **ret_stream)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    rc = emu_stream_find(ctx, handle, ret_stream);
    return rc ? emu_leave(rc) : CUDA_SUCCESS;
}

EMU_API CUresult cuStreamCreateWithPriority(CUstream *phStream,
                                            unsigned int flags,
                                            int priority)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    if (!phStream || (flags & ~(unsigned)CU_STREAM_NON_BLOCKING))
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    priority = priority > 0    ? 0
               : priority < -5 ? -5
                               : priority; /* clamped, as documented */
    return emu_leave(emu_stream_new(ctx, flags, priority, phStream));
}

EMU_API CUresult cuStreamCreate(CUstream *phStream, unsigned int Flags)
{
    return cuStreamCreateWithPriority(phStream, Flags, 0);
}

EMU_API CUresult cuStreamDestroy(CUstream hStream)
{
    struct CUstream_st *s;
    CUresult rc = enter_stream(hStream, &s);
    if (rc)
        return rc;
    if (s == s->object.ctx->legacy || s == s->object.ctx->per_thread)
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    emu_stream_close(s);
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuStreamGetPriority(CUstream hStream, int *priority)
{
    struct CUstream_st *s;
    CUresult rc = enter_stream(hStream, &s);
    if (rc)
        return rc;
    if (!priority)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *priority = s->priority;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuStreamGetFlags(CUstream hStream, unsigned int *flags)
{
    struct CUstream_st *s;
    CUresult rc = enter_stream(hStream, &s);
    if (rc)
        return rc;
    if (!flags)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *flags = s->flags;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuStreamGetCtx(CUstream hStream, CUcontext *pctx)
{
    struct CUstream_st *s;
    CUresult rc = enter_stream(hStream, &s);
    if (rc)
        return rc;
    if (!pctx)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *pctx = s->object.ctx;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuStreamWaitEvent(CUstream hStream, CUevent hEvent, unsigned int Flags)
{
    struct CUstream_st *s;
    CUresult rc = enter_stream(hStream, &s);
    if (rc)
        return rc;
    if (Flags & ~(unsigned)CU_EVENT_WAIT_EXTERNAL)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (!emu_object_find(hEvent, EMU_EVENT))
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    if (!hEvent->stream)
        return emu_leave(CUDA_SUCCESS); /* never recorded: nothing to wait for */
    return emu_leave(emu_stream_depend(s, hEvent->stream, hEvent->seq));
}

EMU_API CUresult cuStreamQuery(CUstream hStream)
{
    struct CUstream_st *s;
    CUresult rc = enter_stream(hStream, &s);
    if (rc)
        return rc;
    bool is_idle = emu_stream_is_idle(s);
    struct CUctx_st *ctx = s->object.ctx;
    if (s == ctx->legacy) /* stands for all streams that it waits for */
        for (struct CUstream_st *t = ctx->streams; t; t = t->next_in_ctx)
            is_idle = is_idle &&
                      ((t->flags & CU_STREAM_NON_BLOCKING) || emu_stream_is_idle(t));
    return emu_leave(is_idle ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY);
}

EMU_API CUresult cuStreamSynchronize(CUstream hStream)
{
    struct CUstream_st *s;
    CUresult rc = enter_stream(hStream, &s);
    if (rc)
        return rc;
    if (s == s->object.ctx->legacy) /* a mark waits for all that the stream waits for */
        return emu_leave(emu_stream_run(s, &(struct emu_op){.kind = EMU_OP_MARK}));
    s->object.refs++;
    emu_stream_wait(s, s->submitted);
    rc = s->object.ctx->sticky;
    emu_stream_unref(s);
    return emu_leave(rc);
}

EMU_API CUresult cuLaunchHostFunc(CUstream hStream, CUhostFn fn, void *userData)
{
    struct CUstream_st *s;
    CUresult rc = enter_stream(hStream, &s);
    if (rc)
        return rc;
    if (!fn)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    struct emu_op op = {.kind = EMU_OP_HOST, .host = {fn, userData}};
    return emu_leave(emu_stream_submit(s, &op, NULL));
}

EMU_API CUresult cuStreamAddCallback(CUstream hStream,
                                     CUstreamCallback callback,
                                     void *userData,
                                     unsigned int flags)
{
    struct CUstream_st *s;
    CUresult rc = enter_stream(hStream, &s);
    if (rc)
        return rc;
    if (!callback || flags != 0)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    struct emu_op op = {.kind = EMU_OP_CALLBACK,
                        .callback = {callback, hStream, userData}};
    return emu_leave(emu_stream_submit(s, &op, NULL));
}
