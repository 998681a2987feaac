/* SPDX-License-Identifier: Apache-2.0
 * part.c - what the core calls at a stop, and cuInit, with which this library's life begins.
 */
#include <stdio.h>

#include "../core/part.h"
#include "abi.h"
#include "cuda_part.h"
#include "gate.h"
#include "reason.h"
#include "suspend.h"

static struct orri_cuda_account last;

static enum orr_err fail(struct orr_error *err, enum orr_err code, const char *text)
{
    if (err) {
        err->code = code;
        snprintf(err->text, sizeof err->text, "CUDA: %s", text);
    }
    return code;
}

/* The one place where the driver's errors become ours. */
static enum orr_err code_of(CUresult rc)
{
    switch ((int)rc) {
    case CUDA_ERROR_TIMEOUT:
        return ORR_ETIMEOUT;
    case CUDA_ERROR_OUT_OF_MEMORY:
        return ORR_ENOMEM;
    case CUDA_ERROR_NOT_SUPPORTED:
        return ORR_ENOSYS;
    default:
        return ORR_EIO;
    }
}

static enum orr_err part_close(uint64_t deadline_ms, struct orr_error *err)
{
    char why[200];
    return orri_cuda_gate_close(deadline_ms, why, sizeof why)
               ? ORR_OK
               : fail(err, ORR_ETIMEOUT, why);
}

static enum orr_err
part_quiesce(struct orri_arena *piece, uint64_t deadline_ms, struct orr_error *err)
{
    struct orri_cuda_why why;
    orri_cuda_exempt_begin();
    bool ok = orri_cuda_out(piece->at, piece->bytes, deadline_ms, &last, &why);
    orri_cuda_exempt_end();
    return ok ? ORR_OK : fail(err, code_of(why.code), why.text);
}

/* The devices keep their numbers in this process, whichever they are: the driver's restore, or
 * CUDA_VISIBLE_DEVICES, has settled that before. */
static enum orr_err part_resume(const struct orri_arena *piece,
                                const char *device,
                                uint64_t deadline_ms,
                                struct orr_error *err)
{
    struct orri_cuda_why why;
    (void)device;
    orri_cuda_exempt_begin();
    bool ok = orri_cuda_in(piece->at, piece->bytes, deadline_ms, &last, &why);
    orri_cuda_exempt_end();
    return ok ? ORR_OK : fail(err, code_of(why.code), why.text);
}

static uint64_t part_copied_us(void)
{
    return last.copy_us;
}

static const struct orri_part part = {
    .name = "cuda",
    .arena_bytes = orri_cuda_arena_bytes,
    .quiesce = part_quiesce,
    .resume = part_resume,
    .close = part_close,
    .open = orri_cuda_gate_open,
    .inside = orri_cuda_gate_inside,
    .copied_us = part_copied_us,
};

const struct orri_part *orri_cuda_part(void)
{
    return &part;
}

const char *orri_cuda_why_not_suspendable(void)
{
    return orri_cuda_reason();
}

void orri_cuda_last_account(struct orri_cuda_account *ret)
{
    *ret = last;
}

ORRI_EXPORT CUresult cuInit(unsigned int Flags)
{
    orri_cuda_enter(CALL_cuInit);
    CUresult rc = REAL(cuInit)(Flags);
    orri_cuda_leave();
    if (!rc)
        orri_part_register(ORRI_PART_CUDA, &part);
    return rc;
}
