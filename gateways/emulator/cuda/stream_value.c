/* SPDX-License-Identifier: Apache-2.0
 * stream_value.c - streams that wait until a word of memory has a value, and that write one: how streams of different processes
 * wait for each other, in memory that they share.
 *
 * A wait sleeps on the word itself.  The pages of a device are one file, so that the futex is the same in all processes, and a write
 * of a stream wakes it; what kernels, copies and the program write does not, so that a sleeper also looks by itself, ever more
 * rarely down to SLEEP_MAX_NS.  It ends, besides, with its context; a process that ends takes its waits along.
 */
#include "driver.h"

#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SLEEP_MIN_NS = 50000, SLEEP_MAX_NS = 2000000, BATCH_MAX = 256 };

static uint64_t load(const struct emu_value *v)
{
    return v->width == 8 ? __atomic_load_n((const uint64_t *)v->at, __ATOMIC_ACQUIRE)
                         : __atomic_load_n((const uint32_t *)v->at, __ATOMIC_ACQUIRE);
}

static bool is_met(const struct emu_value *v, uint64_t seen)
{
    uint64_t all = v->width == 8 ? UINT64_MAX : UINT32_MAX;
    switch (v->how) {
    case CU_STREAM_WAIT_VALUE_EQ:
        return seen == v->value;
    case CU_STREAM_WAIT_VALUE_AND:
        return (seen & v->value) != 0;
    case CU_STREAM_WAIT_VALUE_NOR:
        return (~(seen | v->value) & all) != 0;
    default: /* GEQ, which wraps around */
        return v->width == 8 ? (int64_t)(seen - v->value) >= 0
                             : (int32_t)(uint32_t)(seen - v->value) >= 0;
    }
}

void emu_value_await(const struct CUctx_st *ctx, const struct emu_value *v)
{
    struct timespec sleep = {.tv_nsec = SLEEP_MIN_NS};
    uint64_t seen;
    while (!is_met(v, seen = load(v)) && !ctx->is_closing) {
        syscall(SYS_futex, v->at, FUTEX_WAIT, (uint32_t)seen, &sleep, NULL, 0);
        sleep.tv_nsec *= 2;
        if (sleep.tv_nsec > SLEEP_MAX_NS)
            sleep.tv_nsec = SLEEP_MAX_NS;
    }
}

void emu_value_write(const struct emu_value *v)
{
    if (v->width == 8)
        __atomic_store_n((uint64_t *)v->at, v->value, __ATOMIC_RELEASE);
    else
        __atomic_store_n((uint32_t *)v->at, (uint32_t)v->value, __ATOMIC_RELEASE);
    syscall(SYS_futex, v->at, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* ---- the calls ------------------------------------------------------------------------ */

static CUresult check(const struct emu_op *op, unsigned flags)
{
    const struct emu_value *v = &op->value;
    unsigned known = op->kind == EMU_OP_AWAIT_VALUE
                         ? CU_STREAM_WAIT_VALUE_NOR
                         : CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER;
    if (op->kind == EMU_OP_AWAIT_VALUE && (flags & CU_STREAM_WAIT_VALUE_FLUSH))
        return CUDA_ERROR_NOT_SUPPORTED; /* as CAN_FLUSH_REMOTE_WRITES says */
    return flags > known || (uint64_t)v->at % v->width != 0 ||
                   !emu_range_is_valid((uint64_t)v->at, v->width)
               ? CUDA_ERROR_INVALID_VALUE
               : CUDA_SUCCESS;
}

/* All or none.  With the lock; leaves. */
static CUresult
submit(CUstream stream, const struct emu_op *ops, const unsigned *flags, unsigned n)
{
    struct CUctx_st *ctx;
    struct CUstream_st *s;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    rc = emu_stream_find(ctx, stream, &s);
    for (unsigned i = 0; i < n && !rc; i++)
        rc = check(&ops[i], flags[i]);
    for (unsigned i = 0; i < n && !rc; i++)
        rc = emu_stream_submit(s, &ops[i], NULL);
    return emu_leave(rc);
}

static struct emu_op value_op(
    enum emu_op_kind kind, CUdeviceptr at, uint64_t value, unsigned width, unsigned how)
{
    return (struct emu_op){.kind = kind,
                           .value = {(void *)(uintptr_t)at, value, width, how}};
}

static CUresult submit_one(CUstream stream, struct emu_op op, unsigned flags)
{
    return submit(stream, &op, &flags, 1);
}

EMU_API CUresult cuStreamWaitValue32(CUstream stream,
                                     CUdeviceptr addr,
                                     cuuint32_t value,
                                     unsigned int flags)
{
    return submit_one(
        stream, value_op(EMU_OP_AWAIT_VALUE, addr, value, 4, flags), flags);
}

EMU_API CUresult cuStreamWaitValue64(CUstream stream,
                                     CUdeviceptr addr,
                                     cuuint64_t value,
                                     unsigned int flags)
{
    return submit_one(
        stream, value_op(EMU_OP_AWAIT_VALUE, addr, value, 8, flags), flags);
}

EMU_API CUresult cuStreamWriteValue32(CUstream stream,
                                      CUdeviceptr addr,
                                      cuuint32_t value,
                                      unsigned int flags)
{
    return submit_one(stream, value_op(EMU_OP_WRITE_VALUE, addr, value, 4, 0), flags);
}

EMU_API CUresult cuStreamWriteValue64(CUstream stream,
                                      CUdeviceptr addr,
                                      cuuint64_t value,
                                      unsigned int flags)
{
    return submit_one(stream, value_op(EMU_OP_WRITE_VALUE, addr, value, 8, 0), flags);
}

/* False: not one of those that there are. */
static bool read_param(const CUstreamBatchMemOpParams *p,
                       struct emu_op *ret_op,
                       unsigned *ret_flags)
{
    bool is_wide = p->operation == CU_STREAM_MEM_OP_WAIT_VALUE_64 ||
                   p->operation == CU_STREAM_MEM_OP_WRITE_VALUE_64;
    switch ((int)p->operation) {
    case CU_STREAM_MEM_OP_WAIT_VALUE_32:
    case CU_STREAM_MEM_OP_WAIT_VALUE_64:
        *ret_op = value_op(EMU_OP_AWAIT_VALUE,
                           p->waitValue.address,
                           is_wide ? p->waitValue.value64 : p->waitValue.value,
                           is_wide ? 8 : 4,
                           p->waitValue.flags);
        *ret_flags = p->waitValue.flags;
        return true;
    case CU_STREAM_MEM_OP_WRITE_VALUE_32:
    case CU_STREAM_MEM_OP_WRITE_VALUE_64:
        *ret_op = value_op(EMU_OP_WRITE_VALUE,
                           p->writeValue.address,
                           is_wide ? p->writeValue.value64 : p->writeValue.value,
                           is_wide ? 8 : 4,
                           0);
        *ret_flags = p->writeValue.flags;
        return true;
    default:
        return false;
    }
}

EMU_API CUresult cuStreamBatchMemOp(CUstream stream,
                                    unsigned int count,
                                    CUstreamBatchMemOpParams *paramArray,
                                    unsigned int flags)
{
    struct emu_op ops[BATCH_MAX];
    unsigned op_flags[BATCH_MAX], n = 0;
    CUresult rc = CUDA_SUCCESS;
    if (!paramArray || count == 0 || count > BATCH_MAX || flags)
        rc = CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < count && !rc; i++) {
        if (paramArray[i].operation == CU_STREAM_MEM_OP_BARRIER)
            continue; /* operations of a stream are seen in order */
        if (paramArray[i].operation == CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES)
            rc = CUDA_ERROR_NOT_SUPPORTED;
        else if (read_param(&paramArray[i], &ops[n], &op_flags[n]))
            n++;
        else
            rc = CUDA_ERROR_INVALID_VALUE;
    }
    return rc ? rc : submit(stream, ops, op_flags, n);
}
