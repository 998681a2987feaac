/* SPDX-License-Identifier: Apache-2.0
 * memory.h - memory of the kernel: blocks for messages from size-class free lists, everything else from the C library.
 *
 * Each worker owns a cache; caches trade batches of blocks through the pool, so that a worker that only sends and one that
 * only receives need the pool's lock once in ORRI_BATCH messages.  Blocks are carved from slabs that live as long as the
 * pool.  A block above the largest class comes from malloc.
 * Limits: slabs and large blocks together stay under bytes_max, except where the caller must not fail for that reason.
 * Threads: a cache belongs to one thread at a time; the pool may be shared.
 */
#ifndef ORRI_MEMORY_H
#define ORRI_MEMORY_H

#include "orrery/base.h"
#include <pthread.h>
#include <stdatomic.h>

enum { ORRI_CLASSES = 9, ORRI_LARGE = 255, ORRI_BATCH = 64 };

struct orri_block {
    struct orri_block *next;
    struct orri_block *next_batch; /* of the first block of a batch in the pool */
};

struct orri_magazine {
    struct orri_block *first;
    uint32_t n;
};

struct orri_cache {
    struct orri_magazine now[ORRI_CLASSES];
    struct orri_magazine spare[ORRI_CLASSES]; /* full or empty */
};

enum { ORRI_LINE = 64 }; /* blocks start where cache lines do, if their size allows */

struct orri_slab {
    struct orri_slab *next;
};

struct orri_pool {
    pthread_mutex_t lock; /* guards batches and slabs */
    struct orri_block *batches[ORRI_CLASSES];
    struct orri_slab *slabs; /* owned */
    size_t slab_bytes;
    uint64_t bytes_max;
    _Atomic uint64_t bytes;
};

extern const uint16_t orri_class_bytes[ORRI_CLASSES];

void orri_pool_init(struct orri_pool *pool, size_t slab_bytes, uint64_t bytes_max);
void orri_pool_fini(struct orri_pool *pool);

/* A block of at least bytes, aligned to 16; *ret_class goes to orri_block_free.  NULL when memory or the limit is used up. */
void *orri_block_new(struct orri_pool *pool,
                     struct orri_cache *cache,
                     size_t bytes,
                     bool must,
                     uint8_t *ret_class);
void orri_block_free(struct orri_pool *pool,
                     struct orri_cache *cache,
                     void *block,
                     uint8_t class,
                     size_t bytes);

/* malloc and calloc, which tests can make fail: the countdown-th call from now returns NULL (0: never). */
void *orri_alloc(size_t bytes);
void *orri_zalloc(size_t bytes);
extern _Atomic long orri_alloc_countdown;

#endif
