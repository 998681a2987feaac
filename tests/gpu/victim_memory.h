/* SPDX-License-Identifier: Apache-2.0
 * victim_memory.h - the ways in which a program gets device memory and gives work, for the victim of victim.h.
 */
#ifndef VICTIM_MEMORY_H
#define VICTIM_MEMORY_H

#include <stddef.h>

#include "orrery/gpu_abi.h"

enum victim_kind {
    VICTIM_ALLOC, /* cuMemAlloc */
    VICTIM_POOL,  /* cuMemAllocAsync, from the device's pool */
    VICTIM_VMM,   /* cuMemCreate, cuMemMap */
    VICTIM_GRAPH, /* cuMemAlloc, and each step is the launch of a graph */
    VICTIM_KIND_MAX_
};

const char *victim_kind_name(enum victim_kind kind);
/* VICTIM_KIND_MAX_ when there is none of that name. */
enum victim_kind victim_kind_of(const char *name);

/* bytes, a multiple of 2 MiB, that stay where they are. CUDA_ERROR_NOT_SUPPORTED where this driver has no such calls. */
CUresult victim_memory_get(enum victim_kind kind,
                           CUdevice device,
                           size_t bytes,
                           CUstream stream,
                           CUdeviceptr *ret_at);

/* What is launched between begin and end becomes a graph. */
CUresult victim_graph_begin(CUstream stream);
CUresult victim_graph_end(CUstream stream, void **ret_graph);
CUresult victim_graph_launch(void *graph, CUstream stream);

#endif
