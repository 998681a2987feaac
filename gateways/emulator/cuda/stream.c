/* SPDX-License-Identifier: Apache-2.0
 * stream.c - in-order queues, each with a thread of its own once it has work.
 *
 * A thread per stream, so that a host function which waits for another process (a
 * collective) holds up its own stream only. Ordering between streams is explicit: a
 * WAIT operation names a stream and a sequence number there. The legacy default stream
 * is made of such waits: work in it waits for all blocking streams, and they for it.
 * Waits name only what was submitted before, so they can't form a cycle.
 */
#include "driver.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

CUresult emu_stream_new(struct CUctx_st *ctx,
                        unsigned flags,
                        int priority,
                        struct CUstream_st **ret_stream)
{
    struct CUstream_st *s = calloc(1, sizeof *s);
    if (!s)
        return CUDA_ERROR_OUT_OF_MEMORY;
    emu_object_init(&s->object, EMU_STREAM, ctx);
    ctx->object.refs++;
    s->flags = flags;
    s->priority = priority;
    pthread_cond_init(&s->work, NULL);
    pthread_cond_init(&s->progress, NULL);
    s->next_in_ctx = ctx->streams;
    ctx->streams = s;
    *ret_stream = s;
    return CUDA_SUCCESS;
}

void emu_stream_unref(struct CUstream_st *s)
{
    if (--s->object.refs > 0)
        return;
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->progress);
    ptx_scratch_fini(&s->scratch);
    emu_ctx_unref(s->object.ctx);
    free(s);
}

void emu_stream_close(struct CUstream_st *s)
{
    struct CUstream_st **at = &s->object.ctx->streams;
    while (*at != s)
        at = &(*at)->next_in_ctx;
    *at = s->next_in_ctx;
    emu_object_kill(&s->object);
    s->is_closing = true;
    pthread_cond_signal(&s->work);
    emu_stream_unref(s);
}

bool emu_stream_is_idle(const struct CUstream_st *s)
{
    return s->completed >= s->submitted;
}

void emu_stream_wait(struct CUstream_st *s, uint64_t seq)
{
    while (s->completed < seq)
        pthread_cond_wait(&s->progress, &emu.lock);
}

CUresult
emu_stream_find(struct CUctx_st *ctx, CUstream handle, struct CUstream_st **ret)
{
    if (!handle || handle == CU_STREAM_LEGACY)
        *ret = ctx->legacy;
    else if (handle == CU_STREAM_PER_THREAD)
        *ret = ctx->per_thread;
    else if (!emu_object_find(handle, EMU_STREAM) || handle->object.ctx != ctx)
        return CUDA_ERROR_INVALID_HANDLE;
    else
        *ret = handle;
    return CUDA_SUCCESS;
}

static void op_release(struct emu_op *op)
{
    if (op->kind == EMU_OP_WAIT)
        emu_stream_unref(op->wait.stream);
    else if (op->kind == EMU_OP_COPY)
        free(op->copy.staged);
    else if (op->kind == EMU_OP_RECORD)
        emu_event_unref(op->record.event);
    else if (op->kind == EMU_OP_LAUNCH)
        emu_launch_free(op->launch);
}

static void fill(void *dst, size_t n, unsigned value, unsigned width)
{
    if (width == 1) {
        memset(dst, (int)value, n);
    } else if (width == 2) {
        uint16_t v = (uint16_t)value, *d = dst;
        for (size_t i = 0; i < n; i++)
            d[i] = v;
    } else {
        uint32_t *d = dst;
        for (size_t i = 0; i < n; i++)
            d[i] = value;
    }
}

/* The part that runs without the lock. Skipped in a context that a kernel has poisoned,
 * except callbacks, which are told. */
static CUresult execute(struct CUstream_st *s, struct emu_op *op, CUresult status)
{
    struct emu_device *device = s->object.ctx->device;
    uint64_t start = emu_now_ns();
    CUresult rc = CUDA_SUCCESS;
    if (status && op->kind != EMU_OP_CALLBACK)
        return status;
    emu_set_in_callback(true);
    if (op->kind == EMU_OP_COPY)
        memmove(op->copy.dst, op->copy.src, op->copy.bytes);
    else if (op->kind == EMU_OP_FILL)
        fill(op->fill.dst, op->fill.n, op->fill.value, op->fill.width);
    else if (op->kind == EMU_OP_LAUNCH)
        rc = emu_launch_run(op->launch, &s->scratch);
    else if (op->kind == EMU_OP_AWAIT_VALUE)
        emu_value_await(s->object.ctx, &op->value);
    else if (op->kind == EMU_OP_WRITE_VALUE)
        emu_value_write(&op->value);
    else if (op->kind == EMU_OP_HOST)
        op->host.fn(op->host.arg);
    else if (op->kind == EMU_OP_CALLBACK)
        op->callback.fn(op->callback.handle, status, op->callback.arg);
    emu_set_in_callback(false);
    if (op->kind == EMU_OP_COPY || op->kind == EMU_OP_FILL || op->kind == EMU_OP_LAUNCH)
        emu_device_file_add_busy(device->file, emu_now_ns() - start);
    return rc;
}

/* Run one operation; called and returns with the lock. */
static void perform(struct CUstream_st *s, struct emu_op *op)
{
    struct CUctx_st *ctx = s->object.ctx;
    if (op->kind == EMU_OP_WAIT) {
        emu_stream_wait(op->wait.stream, op->wait.seq);
    } else if (op->kind == EMU_OP_RECORD) {
        struct CUevent_st *e = op->record.event;
        if (e->stream == s && e->seq == op->seq) /* not recorded again since */
            e->time_ns = emu_now_ns();
    } else if (op->kind != EMU_OP_MARK) {
        CUresult status = ctx->sticky;
        pthread_mutex_unlock(&emu.lock);
        CUresult rc = execute(s, op, status);
        pthread_mutex_lock(&emu.lock);
        if (rc && !ctx->sticky)
            ctx->sticky = rc;
    }
    s->completed = op->seq;
    pthread_cond_broadcast(&s->progress);
    op_release(op);
}

static void *worker(void *arg)
{
    struct CUstream_st *s = arg;
    pthread_mutex_lock(&emu.lock);
    for (;;) {
        while (s->is_inline || (!s->head && !s->is_closing))
            pthread_cond_wait(&s->work, &emu.lock);
        struct emu_op *op = s->head;
        if (!op)
            break;
        s->head = op->next;
        if (!s->head)
            s->tail = NULL;
        s->n_queued--;
        perform(s, op);
        free(op);
    }
    emu_stream_unref(s);
    pthread_mutex_unlock(&emu.lock);
    return NULL;
}

/* Signals of the program are for its own threads. */
static CUresult start_worker(struct CUstream_st *s)
{
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t all, before;
    if (s->has_worker)
        return CUDA_SUCCESS;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    s->has_worker = pthread_create(&thread, &attr, worker, s) == 0;
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!s->has_worker)
        return CUDA_ERROR_OPERATING_SYSTEM;
    s->object.refs++; /* the worker's */
    return CUDA_SUCCESS;
}

static CUresult enqueue(struct CUstream_st *s, const struct emu_op *op)
{
    while (s->n_queued >=
           EMU_QUEUED_OPS_MAX) /* as real launches do when the queue is full */
        pthread_cond_wait(&s->progress, &emu.lock);
    struct emu_op *copy = malloc(sizeof *copy);
    if (!copy)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *copy = *op;
    copy->seq = ++s->submitted;
    copy->next = NULL;
    if (s->tail)
        s->tail->next = copy;
    else
        s->head = copy;
    s->tail = copy;
    s->n_queued++;
    pthread_cond_signal(&s->work);
    return CUDA_SUCCESS;
}

CUresult
emu_stream_depend(struct CUstream_st *s, struct CUstream_st *other, uint64_t seq)
{
    if (other == s || other->completed >= seq)
        return CUDA_SUCCESS;
    CUresult rc = start_worker(s);
    if (rc)
        return rc;
    other->object.refs++;
    rc = enqueue(s, &(struct emu_op){.kind = EMU_OP_WAIT, .wait = {other, seq}});
    if (rc)
        emu_stream_unref(other);
    return rc;
}

/* What the rules of the legacy default stream ask of the next operation in s. */
static CUresult add_legacy_waits(struct CUstream_st *s)
{
    struct CUstream_st *legacy = s->object.ctx->legacy;
    CUresult rc = CUDA_SUCCESS;
    if (s->flags & CU_STREAM_NON_BLOCKING)
        return CUDA_SUCCESS;
    if (s != legacy) {
        if (s->legacy_waited < legacy->submitted) {
            rc = emu_stream_depend(s, legacy, legacy->submitted);
            s->legacy_waited = legacy->submitted;
        }
        return rc;
    }
    for (struct CUstream_st *t = s->object.ctx->streams; t && !rc; t = t->next_in_ctx)
        if (t != s && !(t->flags & CU_STREAM_NON_BLOCKING) &&
            t->waited_by_legacy < t->submitted) {
            rc = emu_stream_depend(s, t, t->submitted);
            t->waited_by_legacy = t->submitted;
        }
    return rc;
}

CUresult
emu_stream_submit(struct CUstream_st *s, const struct emu_op *op, uint64_t *ret_seq)
{
    struct emu_op taken = *op;
    CUresult rc = add_legacy_waits(s);
    if (!rc)
        rc = start_worker(s);
    if (!rc)
        rc = enqueue(s, op);
    if (rc)
        op_release(&taken);
    else if (ret_seq)
        *ret_seq = s->submitted;
    return rc;
}

CUresult emu_stream_run(struct CUstream_st *s, struct emu_op *op)
{
    struct CUctx_st *ctx = s->object.ctx;
    uint64_t seq;
    CUresult rc = add_legacy_waits(s);
    if (rc) {
        op_release(op);
        return rc;
    }
    s->object.refs++;
    if (emu_stream_is_idle(s)) {
        s->is_inline = true; /* the worker leaves later operations alone meanwhile */
        op->seq = ++s->submitted;
        perform(s, op);
        s->is_inline = false;
        pthread_cond_signal(&s->work);
    } else {
        rc = emu_stream_submit(s, op, &seq);
        if (!rc)
            emu_stream_wait(s, seq);
    }
    if (!rc)
        rc = ctx->sticky;
    emu_stream_unref(s);
    return rc;
}
