/* SPDX-License-Identifier: Apache-2.0
 * segment.h - memory for cuMemAlloc and its like, out of physical memory that comes only in whole
 * granules (2 MiB).
 *
 * A block is what the program asked for; a segment is physical memory with an address: a block of
 * a granule or more has one of its own, smaller blocks share segments of one granule, in units of
 * 512 bytes, so that many small ones cost what they are. A segment whose last block goes is given
 * back at once. Both belong to the context that was current and go with it. Guarded by
 * orri_cuda_lock.
 */
#ifndef ORR_RANK_CUDA_SEGMENT_H
#define ORR_RANK_CUDA_SEGMENT_H

#include "memory.h"

enum { ORRI_UNIT_BYTES = 512 };

struct orri_segment {
    uint64_t at, bytes;
    CUcontext ctx;
    CUdevice device;
    struct orri_mapping *mapping; /* owned */
    struct orri_memory *memory;   /* borrowed: the mapping's */
    struct orri_shared *shared; /* owned; in place of both, where ranks share memory */
    unsigned n_blocks;
    bool is_shared;  /* by small blocks */
    unsigned n_free; /* units, of a shared one */
    uint64_t *used;  /* owned; bit by unit, of a shared one */
    struct orri_segment *next;
};

struct orri_block {
    struct orri_span span; /* bytes: as asked for */
    struct orri_segment *segment;
    uint64_t id;         /* CU_POINTER_ATTRIBUTE_BUFFER_ID */
    CUevent freed_after; /* freed in stream order, once this is done; NULL: in use */
    CUstream stream;     /* where it was freed */
};

extern struct orri_segment *orri_segments; /* list */
extern struct orri_table orri_blocks;

CUresult
orri_block_new(CUcontext ctx, CUdevice device, uint64_t bytes, struct orri_block **ret);
CUresult orri_block_free(struct orri_block *b);
/* The block in use that holds this address; NULL if there is none. */
struct orri_block *orri_block_find(uint64_t at);
/* A context is gone: so is its memory. */
void orri_blocks_free_all(CUcontext ctx);
/* `device` may now touch the memory of `owner`, what there is and what comes. */
CUresult orri_segments_share(CUdevice owner, CUdevice device);

#endif
