/* SPDX-License-Identifier: Apache-2.0
 * copy.c - copies and fills, in a stream or at once.
 *
 * A range is checked when the call is made. Pageable host memory follows the real
 * rules: the source of an asynchronous copy may be reused when the call returns (it is
 * staged), and a copy into pageable memory has happened when the call returns.
 */
#include "driver.h"

#include <stdlib.h>
#include <string.h>

enum copy_end { END_DEVICE, END_HOST, END_ANY };

static bool is_pinned(const void *p)
{
    return emu_range_find((uint64_t)p) != NULL;
}

/* A device end must be known memory; a host end must not be a stray device address. */
static bool end_is_valid(enum copy_end end, const void *p, size_t bytes)
{
    bool is_known = is_pinned(p);
    if (!p)
        return false;
    if (is_known)
        return emu_range_is_valid((uint64_t)p, bytes);
    return end != END_DEVICE && !emu_range_is_ours((uint64_t)p);
}

static CUresult copy_now(void *dst,
                         enum copy_end dst_end,
                         const void *src,
                         enum copy_end src_end,
                         size_t bytes)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    if (bytes == 0)
        return emu_leave(CUDA_SUCCESS);
    if (!end_is_valid(dst_end, dst, bytes) || !end_is_valid(src_end, src, bytes))
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    struct emu_op op = {.kind = EMU_OP_COPY, .copy = {dst, src, bytes, NULL}};
    return emu_leave(emu_stream_run(ctx->legacy, &op));
}

static CUresult copy_later(void *dst,
                           enum copy_end dst_end,
                           const void *src,
                           enum copy_end src_end,
                           size_t bytes,
                           CUstream stream)
{
    struct CUctx_st *ctx;
    struct CUstream_st *s;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    rc = emu_stream_find(ctx, stream, &s);
    if (rc || bytes == 0)
        return emu_leave(rc);
    if (!end_is_valid(dst_end, dst, bytes) || !end_is_valid(src_end, src, bytes))
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    struct emu_op op = {.kind = EMU_OP_COPY, .copy = {dst, src, bytes, NULL}};
    if (!is_pinned(dst))
        return emu_leave(emu_stream_run(s, &op));
    if (!is_pinned(src)) {
        op.copy.staged = malloc(bytes);
        if (!op.copy.staged)
            return emu_leave(emu_stream_run(s, &op));
        memcpy(op.copy.staged, src, bytes);
        op.copy.src = op.copy.staged;
    }
    return emu_leave(emu_stream_submit(s, &op, NULL));
}

EMU_API CUresult cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount)
{
    return copy_now((void *)dst, END_ANY, (void *)src, END_ANY, ByteCount);
}

EMU_API CUresult cuMemcpyHtoD(CUdeviceptr dstDevice,
                              const void *srcHost,
                              size_t ByteCount)
{
    return copy_now((void *)dstDevice, END_DEVICE, srcHost, END_HOST, ByteCount);
}

EMU_API CUresult cuMemcpyDtoH(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount)
{
    return copy_now(dstHost, END_HOST, (void *)srcDevice, END_DEVICE, ByteCount);
}

EMU_API CUresult cuMemcpyDtoD(CUdeviceptr dstDevice,
                              CUdeviceptr srcDevice,
                              size_t ByteCount)
{
    return copy_now(
        (void *)dstDevice, END_DEVICE, (void *)srcDevice, END_DEVICE, ByteCount);
}

EMU_API CUresult cuMemcpyAsync(CUdeviceptr dst,
                               CUdeviceptr src,
                               size_t ByteCount,
                               CUstream hStream)
{
    return copy_later((void *)dst, END_ANY, (void *)src, END_ANY, ByteCount, hStream);
}

EMU_API CUresult cuMemcpyHtoDAsync(CUdeviceptr dstDevice,
                                   const void *srcHost,
                                   size_t ByteCount,
                                   CUstream hStream)
{
    return copy_later(
        (void *)dstDevice, END_DEVICE, srcHost, END_HOST, ByteCount, hStream);
}

EMU_API CUresult cuMemcpyDtoHAsync(void *dstHost,
                                   CUdeviceptr srcDevice,
                                   size_t ByteCount,
                                   CUstream hStream)
{
    return copy_later(
        dstHost, END_HOST, (void *)srcDevice, END_DEVICE, ByteCount, hStream);
}

EMU_API CUresult cuMemcpyDtoDAsync(CUdeviceptr dstDevice,
                                   CUdeviceptr srcDevice,
                                   size_t ByteCount,
                                   CUstream hStream)
{
    return copy_later((void *)dstDevice,
                      END_DEVICE,
                      (void *)srcDevice,
                      END_DEVICE,
                      ByteCount,
                      hStream);
}

static CUresult check_peers(CUcontext dst, CUcontext src)
{
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    bool is_live =
        emu_object_find(dst, EMU_CONTEXT) && emu_object_find(src, EMU_CONTEXT);
    return emu_leave(is_live ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT);
}

EMU_API CUresult cuMemcpyPeer(CUdeviceptr dstDevice,
                              CUcontext dstContext,
                              CUdeviceptr srcDevice,
                              CUcontext srcContext,
                              size_t ByteCount)
{
    CUresult rc = check_peers(dstContext, srcContext);
    return rc ? rc : cuMemcpyDtoD(dstDevice, srcDevice, ByteCount);
}

EMU_API CUresult cuMemcpyPeerAsync(CUdeviceptr dstDevice,
                                   CUcontext dstContext,
                                   CUdeviceptr srcDevice,
                                   CUcontext srcContext,
                                   size_t ByteCount,
                                   CUstream hStream)
{
    CUresult rc = check_peers(dstContext, srcContext);
    return rc ? rc : cuMemcpyDtoDAsync(dstDevice, srcDevice, ByteCount, hStream);
}

static CUresult fill_in(CUdeviceptr dst,
                        size_t n,
                        unsigned value,
                        unsigned width,
                        bool is_async,
                        CUstream stream)
{
    struct CUctx_st *ctx;
    struct CUstream_st *s;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    rc = emu_stream_find(ctx, stream, &s);
    if (rc || n == 0)
        return emu_leave(rc);
    if (dst % width != 0 || n > SIZE_MAX / width ||
        !end_is_valid(END_DEVICE, (void *)dst, n * width))
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    struct emu_op op = {.kind = EMU_OP_FILL, .fill = {(void *)dst, n, value, width}};
    return emu_leave(is_async ? emu_stream_submit(s, &op, NULL)
                              : emu_stream_run(s, &op));
}

EMU_API CUresult cuMemsetD8(CUdeviceptr dstDevice, unsigned char uc, size_t N)
{
    return fill_in(dstDevice, N, uc, 1, false, NULL);
}

EMU_API CUresult cuMemsetD16(CUdeviceptr dstDevice, unsigned short us, size_t N)
{
    return fill_in(dstDevice, N, us, 2, false, NULL);
}

EMU_API CUresult cuMemsetD32(CUdeviceptr dstDevice, unsigned int ui, size_t N)
{
    return fill_in(dstDevice, N, ui, 4, false, NULL);
}

EMU_API CUresult cuMemsetD8Async(CUdeviceptr dstDevice,
                                 unsigned char uc,
                                 size_t N,
                                 CUstream hStream)
{
    return fill_in(dstDevice, N, uc, 1, true, hStream);
}

EMU_API CUresult cuMemsetD16Async(CUdeviceptr dstDevice,
                                  unsigned short us,
                                  size_t N,
                                  CUstream hStream)
{
    return fill_in(dstDevice, N, us, 2, true, hStream);
}

EMU_API CUresult cuMemsetD32Async(CUdeviceptr dstDevice,
                                  unsigned int ui,
                                  size_t N,
                                  CUstream hStream)
{
    return fill_in(dstDevice, N, ui, 4, true, hStream);
}
