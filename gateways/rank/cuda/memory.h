/* SPDX-License-Identifier: Apache-2.0
 * memory.h - the physical device memory of this process and where it is mapped: what must be let go at a
 * stop and made anew at the same addresses.
 *
 * All of it comes from cuMemCreate: the program's own calls (vmm.c), and ours on behalf of
 * cuMemAlloc and its like (segment.h). The program never sees a handle of the driver, since that
 * changes with each stop, but one of ours. Everything here is guarded by orri_cuda_lock.
 */
#ifndef ORR_RANK_CUDA_MEMORY_H
#define ORR_RANK_CUDA_MEMORY_H

#include <pthread.h>
#include <stdbool.h>

#include "real.h"
#include "table.h"

enum { ORRI_CUDA_DEVICES_MAX = 64 }; /* bits of an access mask */

struct orri_memory {
    CUmemGenericAllocationHandle real; /* while is_resident */
    CUmemAllocationProp prop;
    unsigned long long flags;
    uint64_t bytes;
    uint64_t handle;     /* what the program holds */
    unsigned n_handles;  /* references by handle */
    unsigned n_mappings; /* references by mapping */
    bool is_resident;
    bool is_foreign;  /* imported: cannot be made anew here */
    bool is_exported; /* somebody else may hold it, too */
    uint64_t arena_at;
    uint64_t scratch_at;          /* a mapping of our own while it is copied; 0: none */
    struct orri_segment *segment; /* borrowed: it owns this; NULL: the program's */
    struct orri_memory *next;
};

struct orri_mapping {
    struct orri_span span;
    uint64_t offset;
    struct orri_memory *memory; /* a reference */
    uint64_t readers, writers;  /* devices with access, bit by ordinal */
    bool is_away;               /* not mapped now: the process is stopped */
};

extern pthread_mutex_t orri_cuda_lock;
extern struct orri_memory *orri_memories; /* list */
extern struct orri_table orri_mappings;

/* Create physical memory with one reference by handle. */
CUresult orri_memory_new(const CUmemAllocationProp *prop,
                         uint64_t bytes,
                         unsigned long long flags,
                         struct orri_memory **ret);
/* Take over a handle of the driver: what was imported. */
CUresult orri_memory_adopt(CUmemGenericAllocationHandle real, struct orri_memory **ret);
/* By the program's handle; NULL: not one of ours. */
struct orri_memory *orri_memory_find(CUmemGenericAllocationHandle handle);
/* Drop a reference by handle; the last reference of both kinds releases. */
CUresult orri_memory_unref(struct orri_memory *m);

CUresult orri_mapping_new(uint64_t at,
                          uint64_t bytes,
                          uint64_t offset,
                          struct orri_memory *m,
                          struct orri_mapping **ret);
/* Unmap, forget, drop the reference. */
CUresult orri_mapping_free(struct orri_mapping *map);
/* Give the mapping the access it should have. */
CUresult orri_mapping_set_access(const struct orri_mapping *map);

/* At a stop and after. */
CUresult orri_memory_create(struct orri_memory *m);
CUresult orri_memory_release(struct orri_memory *m);
CUresult orri_mapping_map(struct orri_mapping *map);
CUresult orri_mapping_unmap(struct orri_mapping *map);

#endif
