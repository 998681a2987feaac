/* SPDX-License-Identifier: Apache-2.0
 * event.c - events: a place in a stream, and the time when it was reached.
 */
#include "driver.h"

#include <stdlib.h>

enum { FLAGS_ALL = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING };

void emu_event_unref(struct CUevent_st *e)
{
    if (--e->object.refs > 0)
        return;
    if (e->stream)
        emu_stream_unref(e->stream);
    free(e);
}

static bool is_done(const struct CUevent_st *e)
{
    return !e->stream || e->stream->completed >= e->seq;
}

static CUresult enter_event(CUevent event, struct CUctx_st **ret_ctx)
{
    CUresult rc = emu_enter_ctx(ret_ctx);
    if (rc)
        return rc;
    return emu_object_find(event, EMU_EVENT) ? CUDA_SUCCESS
                                             : emu_leave(CUDA_ERROR_INVALID_HANDLE);
}

EMU_API CUresult cuEventCreate(CUevent *phEvent, unsigned int Flags)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    if (!phEvent || (Flags & ~(unsigned)(FLAGS_ALL | CU_EVENT_INTERPROCESS)))
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (Flags & CU_EVENT_INTERPROCESS)
        return emu_leave(emu_unsupported("cuEventCreate with CU_EVENT_INTERPROCESS"));
    struct CUevent_st *e = calloc(1, sizeof *e);
    if (!e)
        return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    emu_object_init(&e->object, EMU_EVENT, ctx);
    e->flags = Flags;
    *phEvent = e;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuEventRecord(CUevent hEvent, CUstream hStream)
{
    struct CUctx_st *ctx;
    struct CUstream_st *s;
    uint64_t seq;
    CUresult rc = enter_event(hEvent, &ctx);
    if (rc)
        return rc;
    rc = emu_stream_find(ctx, hStream, &s);
    if (rc || hEvent->object.ctx != ctx)
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    hEvent->object.refs++;
    rc = emu_stream_submit(
        s, &(struct emu_op){.kind = EMU_OP_RECORD, .record = {hEvent}}, &seq);
    if (rc)
        return emu_leave(rc);
    if (hEvent->stream)
        emu_stream_unref(hEvent->stream);
    s->object.refs++;
    hEvent->stream = s;
    hEvent->seq = seq;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuEventRecordWithFlags(CUevent hEvent,
                                        CUstream hStream,
                                        unsigned int flags)
{
    /* CU_EVENT_RECORD_EXTERNAL only means something while a stream is captured. */
    if (flags & ~(unsigned)CU_EVENT_RECORD_EXTERNAL)
        return CUDA_ERROR_INVALID_VALUE;
    return cuEventRecord(hEvent, hStream);
}

EMU_API CUresult cuEventQuery(CUevent hEvent)
{
    struct CUctx_st *ctx;
    CUresult rc = enter_event(hEvent, &ctx);
    return rc ? rc : emu_leave(is_done(hEvent) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY);
}

EMU_API CUresult cuEventSynchronize(CUevent hEvent)
{
    struct CUctx_st *ctx;
    CUresult rc = enter_event(hEvent, &ctx);
    if (rc)
        return rc;
    struct CUstream_st *s = hEvent->stream;
    if (!is_done(hEvent)) {
        s->object.refs++;
        emu_stream_wait(s, hEvent->seq);
        rc = s->object.ctx->sticky;
        emu_stream_unref(s);
    }
    return emu_leave(rc);
}

EMU_API CUresult cuEventDestroy(CUevent hEvent)
{
    struct CUctx_st *ctx;
    CUresult rc = enter_event(hEvent, &ctx);
    if (rc)
        return rc;
    emu_object_kill(&hEvent->object);
    emu_event_unref(hEvent);
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuEventElapsedTime(float *pMilliseconds, CUevent hStart, CUevent hEnd)
{
    struct CUctx_st *ctx;
    CUresult rc = enter_event(hStart, &ctx);
    if (rc)
        return rc;
    if (!pMilliseconds)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (!emu_object_find(hEnd, EMU_EVENT) || !hStart->stream || !hEnd->stream ||
        ((hStart->flags | hEnd->flags) & CU_EVENT_DISABLE_TIMING))
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    if (!is_done(hStart) || !is_done(hEnd))
        return emu_leave(CUDA_ERROR_NOT_READY);
    *pMilliseconds = (float)((double)(int64_t)(hEnd->time_ns - hStart->time_ns) * 1e-6);
    return emu_leave(CUDA_SUCCESS);
}
