/* SPDX-License-Identifier: Apache-2.0
 * arena.h - copying between device memory and the arena (part.h of the core), in parallel.
 */
#ifndef ORR_RANK_CUDA_ARENA_H
#define ORR_RANK_CUDA_ARENA_H

#include <stdbool.h>
#include <stddef.h>

#include "real.h"

struct orri_copy {
    CUdeviceptr device;
    uint8_t *host;
    uint64_t bytes;
    CUcontext ctx; /* of the device */
};

struct orri_copies { /* owned array */
    struct orri_copy *items;
    size_t n, cap;
};

/* Add one, cut into pieces; false: out of memory. */
bool orri_copies_add(struct orri_copies *c, struct orri_copy copy);
void orri_copies_fini(struct orri_copies *c);

/* Do all, from the device or to it. CUDA_ERROR_TIMEOUT when the deadline (ms, CLOCK_MONOTONIC)
 * comes first. Blocks; nothing of it is on its way when it returns. */
CUresult
orri_copies_run(const struct orri_copies *c, bool is_out, uint64_t deadline_ms);

#endif
