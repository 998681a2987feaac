/* SPDX-License-Identifier: Apache-2.0
 * alloc.c - cuMemAlloc, cuMemFree and what asks about them.
 */
#include "abi.h"
#include "context.h"
#include "gate.h"
#include "pool.h"
#include "reason.h"
#include "segment.h"
#include "share/share.h"

enum { PITCH_BYTES = 512 };

/* The driver can do without us being asked: no virtual memory on this device. */
static bool has_virtual_memory(CUdevice device)
{
    static _Atomic int known[ORRI_CUDA_DEVICES_MAX]; /* 0: not asked, 1: no, 2: yes */
    if (device < 0 || device >= ORRI_CUDA_DEVICES_MAX)
        return false;
    int answer = atomic_load_explicit(&known[device], memory_order_relaxed);
    if (!answer) {
        int value = 0;
        REAL(cuDeviceGetAttribute)
        (&value, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, device);
        answer = value ? 2 : 1;
        atomic_store_explicit(&known[device], answer, memory_order_relaxed);
    }
    return answer == 2;
}

static CUresult make(CUdeviceptr *dptr, size_t bytes, CUcontext ctx, CUdevice device)
{
    struct orri_block *block = NULL;
    pthread_mutex_lock(&orri_cuda_lock);
    orri_pool_collect();
    CUresult rc = orri_block_new(ctx, device, bytes, &block);
    if (!rc)
        *dptr = block->span.at;
    pthread_mutex_unlock(&orri_cuda_lock);
    return rc;
}

static CUresult alloc(CUdeviceptr *dptr, size_t bytes, uint32_t call)
{
    CUcontext ctx = NULL;
    CUdevice device = 0;
    CUresult rc = orri_context_current(&ctx, &device);
    if (rc)
        return rc;
    if (!dptr || bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (!has_virtual_memory(device)) {
        orri_cuda_note("uses a device without virtual memory management");
        return REAL(cuMemAlloc)(dptr, bytes);
    }
    rc = orri_share_ready(ctx, device);
    if (!rc)
        rc = make(dptr, bytes, ctx, device);
    if (rc == CUDA_ERROR_OUT_OF_MEMORY && orri_share_make_room(call))
        rc = make(dptr, bytes, ctx, device);
    return rc;
}

ORRI_EXPORT CUresult cuMemAlloc(CUdeviceptr *dptr, size_t bytesize)
{
    orri_cuda_enter(CALL_cuMemAlloc_v2);
    CUresult rc = alloc(dptr, bytesize, CALL_cuMemAlloc_v2);
    orri_cuda_leave();
    return rc;
}

ORRI_EXPORT CUresult cuMemAllocPitch_v2(CUdeviceptr *dptr,
                                        size_t *pitch,
                                        size_t width,
                                        size_t height,
                                        unsigned element_bytes)
{
    orri_cuda_enter(CALL_cuMemAllocPitch_v2);
    const size_t row = (width + PITCH_BYTES - 1) / PITCH_BYTES * PITCH_BYTES;
    CUresult rc = CUDA_ERROR_INVALID_VALUE;
    if (pitch && height > 0 && width > 0 && width <= SIZE_MAX / 2 &&
        row <= SIZE_MAX / height &&
        (element_bytes == 4 || element_bytes == 8 || element_bytes == 16))
        rc = alloc(dptr, row * height, CALL_cuMemAllocPitch_v2);
    if (!rc)
        *pitch = row;
    orri_cuda_leave();
    return rc;
}

/* The work that may use the block ends first, as with the real call. */
static CUresult free_block(CUdeviceptr dptr)
{
    CUcontext ctx = NULL;
    CUdevice device = 0;
    CUresult rc = orri_context_current(&ctx, &device);
    if (rc)
        return rc;
    pthread_mutex_lock(&orri_cuda_lock);
    struct orri_block *b = orri_block_find(dptr);
    CUcontext owner = b ? b->segment->ctx : NULL;
    bool is_start = b && b->span.at == dptr;
    pthread_mutex_unlock(&orri_cuda_lock);
    if (!b)
        return REAL(cuMemFree)(dptr);
    if (!is_start)
        return CUDA_ERROR_INVALID_VALUE;
    rc = orri_context_wait(owner);
    if (rc)
        return rc;
    pthread_mutex_lock(&orri_cuda_lock);
    b = orri_block_find(dptr); /* another thread may have been quicker */
    rc = b ? orri_block_free(b) : CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_unlock(&orri_cuda_lock);
    return rc;
}

ORRI_EXPORT CUresult cuMemFree(CUdeviceptr dptr)
{
    orri_cuda_enter(CALL_cuMemFree_v2);
    CUresult rc = free_block(dptr);
    orri_cuda_leave();
    return rc;
}

ORRI_EXPORT CUresult cuMemGetAddressRange(CUdeviceptr *pbase,
                                          size_t *psize,
                                          CUdeviceptr dptr)
{
    CUcontext ctx = NULL;
    CUdevice device = 0;
    orri_cuda_enter(CALL_cuMemGetAddressRange_v2);
    CUresult rc = orri_context_current(&ctx, &device);
    pthread_mutex_lock(&orri_cuda_lock);
    struct orri_block *b = rc ? NULL : orri_block_find(dptr);
    if (b && pbase)
        *pbase = b->span.at;
    if (b && psize)
        *psize = b->span.bytes;
    pthread_mutex_unlock(&orri_cuda_lock);
    if (!rc && !b)
        rc = REAL(cuMemGetAddressRange)(pbase, psize, dptr);
    orri_cuda_leave();
    return rc;
}
