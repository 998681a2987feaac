/* SPDX-License-Identifier: Apache-2.0
 * memory.c - allocating device and host memory, and asking about pointers.
 *
 * Device memory is whole pages of the device file mapped side by side; host memory is
 * anonymous memory in the same address range, so that kernels reach it at its own
 * address.
 */
#include "driver.h"

#include <stdlib.h>
#include <sys/mman.h>

static uint64_t whole_pages(uint64_t bytes)
{
    return (bytes + EMU_PAGE_BYTES - 1) / EMU_PAGE_BYTES * EMU_PAGE_BYTES;
}

/* Pages for a range that has an address; on failure nothing is held. */
static CUresult back_with_pages(struct emu_range *r)
{
    struct emu_device_file *file = r->ctx->device->file;
    size_t n = r->mapped_bytes / EMU_PAGE_BYTES;
    r->pages = malloc(n * sizeof *r->pages);
    if (!r->pages)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = CUDA_ERROR_OUT_OF_MEMORY;
    if (emu_device_file_take(file, n, r->pages, NULL) == 0) {
        if (emu_device_file_map(file, (void *)r->address, n, r->pages) == 0)
            return CUDA_SUCCESS;
        emu_range_reserve_again(r->address, r->mapped_bytes);
        emu_device_file_drop(file, n, r->pages);
        rc = CUDA_ERROR_MAP_FAILED;
    }
    free(r->pages);
    return rc;
}

CUresult emu_memory_alloc(struct CUctx_st *ctx, size_t bytes, CUdeviceptr *ret_address)
{
    struct emu_range *range;
    if (bytes > ctx->device->info.memory_bytes)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct emu_range r = {.bytes = bytes,
                          .mapped_bytes = whole_pages(bytes),
                          .kind = EMU_RANGE_DEVICE,
                          .ctx = ctx};
    r.address = emu_range_place(r.mapped_bytes, EMU_PAGE_BYTES, 0);
    if (!r.address)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = back_with_pages(&r);
    if (rc)
        return rc;
    rc = emu_range_insert(&r, &range);
    if (rc) {
        emu_range_reserve_again(r.address, r.mapped_bytes);
        emu_device_file_drop(
            ctx->device->file, r.mapped_bytes / EMU_PAGE_BYTES, r.pages);
        free(r.pages);
        return rc;
    }
    emu_range_set_valid(r.address, bytes, true);
    *ret_address = r.address;
    return CUDA_SUCCESS;
}

void emu_memory_free(struct emu_range *r)
{
    if (r->kind != EMU_RANGE_REGISTERED) {
        emu_range_set_valid(r->address, r->bytes, false);
        emu_range_reserve_again(r->address, r->mapped_bytes);
    }
    if (r->pages)
        emu_device_file_drop(
            r->ctx->device->file, r->mapped_bytes / EMU_PAGE_BYTES, r->pages);
    emu_range_remove(r);
}

void emu_memory_free_all(struct CUctx_st *ctx)
{
    uint64_t at = 0;
    for (struct emu_range *r; (r = emu_range_next(at));) {
        at = r->address + r->mapped_bytes;
        if (r->ctx == ctx)
            emu_memory_free(r);
    }
}

EMU_API CUresult cuMemGetInfo(size_t *free_bytes, size_t *total)
{
    struct CUctx_st *ctx;
    struct emu_device_info info;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    if (!free_bytes || !total)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    emu_device_file_get_info(ctx->device->file, &info);
    *free_bytes = info.free_bytes;
    *total = info.memory_bytes;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuMemAlloc(CUdeviceptr *dptr, size_t bytesize)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    if (!dptr || bytesize == 0)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    return emu_leave(emu_memory_alloc(ctx, bytesize, dptr));
}

EMU_API CUresult cuMemFree(CUdeviceptr dptr)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    if (dptr == 0)
        return emu_leave(CUDA_SUCCESS);
    struct emu_range *r = emu_range_find(dptr);
    if (!r || r->kind != EMU_RANGE_DEVICE || r->address != dptr)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    rc = emu_ctx_wait_idle(r->ctx); /* as the real call: work in flight may use it */
    r = emu_range_find(dptr);
    if (r && !rc)
        emu_memory_free(r);
    return emu_leave(rc);
}

EMU_API CUresult cuMemGetAddressRange(CUdeviceptr *pbase,
                                      size_t *psize,
                                      CUdeviceptr dptr)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    struct emu_range *r = emu_range_find(dptr);
    if (!r)
        return emu_leave(CUDA_ERROR_NOT_FOUND);
    if (pbase)
        *pbase = r->address;
    if (psize)
        *psize = r->bytes;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuMemHostAlloc(void **pp, size_t bytesize, unsigned int Flags)
{
    struct CUctx_st *ctx;
    struct emu_range *range;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    if (!pp || bytesize == 0 || Flags > 7)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (bytesize > EMU_HOST_BYTES_MAX)
        return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    struct emu_range r = {.bytes = bytesize,
                          .mapped_bytes = whole_pages(bytesize),
                          .kind = EMU_RANGE_HOST,
                          .flags = Flags,
                          .ctx = ctx};
    r.address = emu_range_place(r.mapped_bytes, EMU_PAGE_BYTES, 0);
    if (!r.address || mmap((void *)r.address,
                           r.mapped_bytes,
                           PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                           -1,
                           0) == MAP_FAILED)
        return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    rc = emu_range_insert(&r, &range);
    if (rc) {
        emu_range_reserve_again(r.address, r.mapped_bytes);
        return emu_leave(rc);
    }
    emu_range_set_valid(r.address, bytesize, true);
    *pp = (void *)r.address;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuMemAllocHost(void **pp, size_t bytesize)
{
    return cuMemHostAlloc(pp, bytesize, 0);
}

/* Host memory of a kind, by the address it starts at; the lock is held on success. */
static CUresult find_host(void *p,
                          enum emu_range_kind kind,
                          CUresult not_found,
                          struct emu_range **ret_range)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    struct emu_range *r = emu_range_find((uint64_t)p);
    if (!r || r->address != (uint64_t)p || r->kind != kind)
        return emu_leave(p ? not_found : CUDA_ERROR_INVALID_VALUE);
    *ret_range = r;
    return CUDA_SUCCESS;
}

static CUresult release_host(void *p, enum emu_range_kind kind, CUresult not_found)
{
    struct emu_range *r = NULL;
    CUresult rc = find_host(p, kind, not_found, &r);
    if (rc)
        return rc;
    rc = emu_ctx_wait_idle(r->ctx);
    r = emu_range_find((uint64_t)p);
    if (r && !rc)
        emu_memory_free(r);
    return emu_leave(rc);
}

EMU_API CUresult cuMemFreeHost(void *p)
{
    return release_host(p, EMU_RANGE_HOST, CUDA_ERROR_INVALID_VALUE);
}

EMU_API CUresult cuMemHostRegister(void *p, size_t bytesize, unsigned int Flags)
{
    struct CUctx_st *ctx;
    struct emu_range *range;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    if (!p || bytesize == 0 || bytesize > EMU_HOST_BYTES_MAX || Flags > 15)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (emu_range_is_ours((uint64_t)p))
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (Flags & CU_MEMHOSTREGISTER_IOMEMORY)
        return emu_leave(emu_unsupported("cuMemHostRegister of I/O memory"));
    struct emu_range *next = emu_range_next((uint64_t)p);
    if (next && next->address < (uint64_t)p + bytesize)
        return emu_leave(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    struct emu_range r = {.address = (uint64_t)p,
                          .bytes = bytesize,
                          .mapped_bytes = bytesize,
                          .kind = EMU_RANGE_REGISTERED,
                          .flags = Flags,
                          .ctx = ctx};
    return emu_leave(emu_range_insert(&r, &range));
}

EMU_API CUresult cuMemHostUnregister(void *p)
{
    return release_host(p, EMU_RANGE_REGISTERED, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
}

/* Host memory that a kernel may touch, wherever in it p points; lock held on success.
 */
static CUresult enter_pinned(void *p, struct emu_range **ret_range)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    struct emu_range *r = emu_range_find((uint64_t)p);
    if (!r || (r->kind != EMU_RANGE_HOST && r->kind != EMU_RANGE_REGISTERED))
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *ret_range = r;
    return CUDA_SUCCESS;
}

EMU_API CUresult cuMemHostGetDevicePointer(CUdeviceptr *pdptr,
                                           void *p,
                                           unsigned int Flags)
{
    struct emu_range *r = NULL;
    CUresult rc = enter_pinned(p, &r);
    if (rc)
        return rc;
    if (!pdptr || Flags != 0)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *pdptr = (CUdeviceptr)(uintptr_t)p;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuMemHostGetFlags(unsigned int *pFlags, void *p)
{
    struct emu_range *r = NULL;
    CUresult rc = enter_pinned(p, &r);
    if (rc)
        return rc;
    if (!pFlags)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *pFlags = r->flags | CU_MEMHOSTALLOC_DEVICEMAP;
    return emu_leave(CUDA_SUCCESS);
}
