/* SPDX-License-Identifier: Apache-2.0
 * pool.c - cuMemAllocAsync and cuMemFreeAsync, from the same blocks as cuMemAlloc.
 *
 * Allocating takes effect at once, which is earlier than stream order asks for. Freeing waits for
 * an event in its stream; a later allocation in that stream may take the block before, since
 * the stream itself keeps the order. Pools themselves are the driver's and stay empty. While a
 * stream is being captured the calls are graph nodes, and those, like pools whose memory can be
 * exported, are left to the driver and noted.
 */
#include "pool.h"

#include <stddef.h>

#include "abi.h"
#include "context.h"
#include "gate.h"
#include "reason.h"
#include "segment.h"
#include "share/share.h"

enum { POOLS_MAX = 64 };

/* Pools of the program's own; guarded by orri_cuda_lock. A pool that is not here is a default one. */
static struct {
    CUmemoryPool pool;
    CUdevice device;
    bool is_left; /* to the driver */
} pools[POOLS_MAX];

void orri_pool_collect(void)
{
    for (size_t i = orri_blocks.n; i-- > 0;) {
        struct orri_block *b = (struct orri_block *)orri_blocks.items[i];
        if (!b->freed_after ||
            REAL(cuEventQuery)(b->freed_after) == CUDA_ERROR_NOT_READY)
            continue;
        REAL(cuEventDestroy)(b->freed_after);
        orri_block_free(b);
    }
}

static bool is_capturing(CUstream stream)
{
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    return REAL(cuStreamIsCapturing)(stream, &status) == CUDA_SUCCESS &&
           status != CU_STREAM_CAPTURE_STATUS_NONE;
}

/* A block that was freed in this stream, not much larger than asked for. */
static struct orri_block *
reuse(CUcontext ctx, CUdevice device, CUstream stream, size_t bytes)
{
    for (size_t i = 0; i < orri_blocks.n; i++) {
        struct orri_block *b = (struct orri_block *)orri_blocks.items[i];
        if (!b->freed_after || b->stream != stream || b->segment->ctx != ctx ||
            b->segment->device != device || b->span.bytes != bytes)
            continue;
        REAL(cuEventDestroy)(b->freed_after);
        b->freed_after = NULL;
        return b;
    }
    return NULL;
}

static CUresult
make(CUdeviceptr *dptr, size_t bytes, CUcontext ctx, CUdevice device, CUstream stream)
{
    CUresult rc = CUDA_SUCCESS;
    pthread_mutex_lock(&orri_cuda_lock);
    struct orri_block *b = reuse(ctx, device, stream, bytes);
    if (!b) {
        orri_pool_collect();
        rc = orri_block_new(ctx, device, bytes, &b);
    }
    if (!rc)
        *dptr = b->span.at;
    pthread_mutex_unlock(&orri_cuda_lock);
    return rc;
}

static CUresult alloc_in(CUdeviceptr *dptr, size_t bytes, int device, CUstream stream)
{
    CUcontext ctx = NULL;
    CUdevice current = 0;
    CUresult rc = orri_context_current(&ctx, &current);
    if (rc)
        return rc;
    if (!dptr || bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    device = device < 0 ? current : device;
    rc = orri_share_ready(ctx, device);
    if (!rc)
        rc = make(dptr, bytes, ctx, device, stream);
    if (rc == CUDA_ERROR_OUT_OF_MEMORY && orri_share_make_room(CALL_cuMemAllocAsync))
        rc = make(dptr, bytes, ctx, device, stream);
    return rc;
}

static CUresult alloc_async(CUdeviceptr *dptr,
                            size_t bytes,
                            CUstream stream,
                            CUresult (*real)(CUdeviceptr *, size_t, CUstream))
{
    if (!is_capturing(stream))
        return alloc_in(dptr, bytes, -1, stream);
    orri_cuda_note("uses a graph that allocates memory");
    return real(dptr, bytes, stream);
}

static CUresult
alloc_from_pool(CUdeviceptr *dptr,
                size_t bytes,
                CUmemoryPool pool,
                CUstream stream,
                CUresult (*real)(CUdeviceptr *, size_t, CUmemoryPool, CUstream))
{
    bool is_left = is_capturing(stream);
    int device = -1;
    pthread_mutex_lock(&orri_cuda_lock);
    for (int i = 0; pool && i < POOLS_MAX; i++)
        if (pools[i].pool == pool) {
            is_left |= pools[i].is_left;
            device = pools[i].device;
        }
    pthread_mutex_unlock(&orri_cuda_lock);
    if (!is_left)
        return pool ? alloc_in(dptr, bytes, device, stream) : CUDA_ERROR_INVALID_VALUE;
    orri_cuda_note("uses a memory pool or graph that only the driver can serve");
    return real(dptr, bytes, pool, stream);
}

/* With orri_cuda_lock. */
static CUresult free_later(struct orri_block *b, CUdeviceptr dptr, CUstream stream)
{
    CUevent event = NULL;
    if (b->span.at != dptr)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult rc = REAL(cuEventCreate)(&event, CU_EVENT_DISABLE_TIMING);
    if (rc)
        return rc;
    rc = REAL(cuEventRecord)(event, stream);
    if (rc) {
        REAL(cuEventDestroy)(event);
        return rc;
    }
    b->freed_after = event;
    b->stream = stream;
    return CUDA_SUCCESS;
}

static CUresult
free_async(CUdeviceptr dptr, CUstream stream, CUresult (*real)(CUdeviceptr, CUstream))
{
    CUcontext ctx = NULL;
    CUdevice device = 0;
    CUresult rc = orri_context_current(&ctx, &device);
    if (rc)
        return rc;
    pthread_mutex_lock(&orri_cuda_lock);
    struct orri_block *b = orri_block_find(dptr);
    if (b)
        rc = free_later(b, dptr, stream);
    pthread_mutex_unlock(&orri_cuda_lock);
    return b ? rc : real(dptr, stream);
}

/* The default stream of the _ptsz variants is the calling thread's. */
static CUstream per_thread(CUstream stream)
{
    return stream ? stream : CU_STREAM_PER_THREAD;
}

ORRI_EXPORT CUresult cuMemAllocAsync(CUdeviceptr *dptr, size_t bytes, CUstream stream)
{
    orri_cuda_enter(CALL_cuMemAllocAsync);
    CUresult rc = alloc_async(dptr, bytes, stream, REAL(cuMemAllocAsync));
    orri_cuda_leave();
    return rc;
}

ORRI_EXPORT CUresult cuMemAllocAsync_ptsz(CUdeviceptr *dptr,
                                          size_t bytes,
                                          CUstream stream)
{
    orri_cuda_enter(CALL_cuMemAllocAsync_ptsz);
    CUresult rc =
        alloc_async(dptr, bytes, per_thread(stream), REAL(cuMemAllocAsync_ptsz));
    orri_cuda_leave();
    return rc;
}

ORRI_EXPORT CUresult cuMemAllocFromPoolAsync(CUdeviceptr *dptr,
                                             size_t bytes,
                                             CUmemoryPool pool,
                                             CUstream stream)
{
    orri_cuda_enter(CALL_cuMemAllocFromPoolAsync);
    CUresult rc =
        alloc_from_pool(dptr, bytes, pool, stream, REAL(cuMemAllocFromPoolAsync));
    orri_cuda_leave();
    return rc;
}

ORRI_EXPORT CUresult cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *dptr,
                                                  size_t bytes,
                                                  CUmemoryPool pool,
                                                  CUstream stream)
{
    orri_cuda_enter(CALL_cuMemAllocFromPoolAsync_ptsz);
    CUresult rc = alloc_from_pool(
        dptr, bytes, pool, per_thread(stream), REAL(cuMemAllocFromPoolAsync_ptsz));
    orri_cuda_leave();
    return rc;
}

ORRI_EXPORT CUresult cuMemFreeAsync(CUdeviceptr dptr, CUstream stream)
{
    orri_cuda_enter(CALL_cuMemFreeAsync);
    CUresult rc = free_async(dptr, stream, REAL(cuMemFreeAsync));
    orri_cuda_leave();
    return rc;
}

ORRI_EXPORT CUresult cuMemFreeAsync_ptsz(CUdeviceptr dptr, CUstream stream)
{
    orri_cuda_enter(CALL_cuMemFreeAsync_ptsz);
    CUresult rc = free_async(dptr, per_thread(stream), REAL(cuMemFreeAsync_ptsz));
    orri_cuda_leave();
    return rc;
}

ORRI_EXPORT CUresult cuMemPoolCreate(CUmemoryPool *pool,
                                     const struct orri_pool_props *props)
{
    orri_cuda_enter(CALL_cuMemPoolCreate);
    CUresult rc = REAL(cuMemPoolCreate)(pool, props);
    pthread_mutex_lock(&orri_cuda_lock);
    bool is_placed = rc != CUDA_SUCCESS;
    for (int i = 0; !is_placed && i < POOLS_MAX; i++)
        if (!pools[i].pool) {
            pools[i].pool = *pool;
            pools[i].device = props->location.id;
            pools[i].is_left = props->handle_types != CU_MEM_HANDLE_TYPE_NONE ||
                               props->location.type != CU_MEM_LOCATION_TYPE_DEVICE;
            is_placed = true;
        }
    pthread_mutex_unlock(&orri_cuda_lock);
    if (!is_placed)
        orri_cuda_note("uses more than 64 memory pools");
    orri_cuda_leave();
    return rc;
}

ORRI_EXPORT CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    orri_cuda_enter(CALL_cuMemPoolDestroy);
    CUresult rc = REAL(cuMemPoolDestroy)(pool);
    pthread_mutex_lock(&orri_cuda_lock);
    for (int i = 0; rc == CUDA_SUCCESS && i < POOLS_MAX; i++)
        if (pools[i].pool == pool)
            pools[i].pool = NULL;
    pthread_mutex_unlock(&orri_cuda_lock);
    orri_cuda_leave();
    return rc;
}
