/* SPDX-License-Identifier: Apache-2.0
 * context.h - the contexts of this process: what must be drained at a stop, and what takes
 * memory with it when it goes.
 */
#ifndef ORR_RANK_CUDA_CONTEXT_H
#define ORR_RANK_CUDA_CONTEXT_H

#include <stddef.h>

#include "orrery/gpu_abi.h"

enum { ORRI_CONTEXTS_MAX = 64 };

struct orri_context {
    CUcontext ctx;
    CUdevice device;
    int is_primary;
};

/* The calling thread's, and its device; the driver's error when there is none. */
CUresult orri_context_current(CUcontext *ret_ctx, CUdevice *ret_device);
/* Until all work of a context is done. */
CUresult orri_context_wait(CUcontext ctx);
/* All that are alive; at most ORRI_CONTEXTS_MAX. With orri_cuda_lock. */
size_t orri_contexts_get(struct orri_context *ret);

#endif
