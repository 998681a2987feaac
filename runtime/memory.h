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

/* Under AddressSanitizer a free block is poisoned: use after free is seen in spite of the free lists. */
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define ORRI_POISON(ptr, bytes)   ASAN_POISON_MEMORY_REGION((ptr), (bytes))
#define ORRI_UNPOISON(ptr, bytes) ASAN_UNPOISON_MEMORY_REGION((ptr), (bytes))
#else
#define ORRI_POISON(ptr, bytes)   ((void)(ptr), (void)(bytes))
#define ORRI_UNPOISON(ptr, bytes) ((void)(ptr), (void)(bytes))
#endif

enum {
    ORRI_LINE = 64
}; /* bytes of a cache line: blocks start there if their size allows */
enum { ORRI_CLASSES = 9, ORRI_SMALLEST = 128, ORRI_LARGE = 255, ORRI_BATCH = 64 };

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

/* When the cache cannot help. */
void *orri_block_new_slowly(struct orri_pool *pool,
                            struct orri_cache *cache,
                            size_t bytes,
                            bool must,
                            uint8_t *ret_class);
/* A magazine is full. */
void orri_magazine_rotate(struct orri_pool *pool,
                          struct orri_cache *cache,
                          unsigned class);
void orri_large_free(struct orri_pool *pool, void *block, size_t bytes);

/* A block of at least bytes, aligned to 16; *ret_class goes to orri_block_free.  NULL when memory or the limit is used up. */
static inline void *orri_block_new(struct orri_pool *pool,
                                   struct orri_cache *cache,
                                   size_t bytes,
                                   bool must,
                                   uint8_t *ret_class)
{
    struct orri_block *block = cache->now[0].first;
    if (bytes > ORRI_SMALLEST || !block)
        return orri_block_new_slowly(pool, cache, bytes, must, ret_class);
    ORRI_UNPOISON(block, ORRI_SMALLEST);
    cache->now[0].first = block->next;
    cache->now[0].n--;
    *ret_class = 0;
    return block;
}

static inline void orri_block_free(struct orri_pool *pool,
                                   struct orri_cache *cache,
                                   void *ptr,
                                   uint8_t class,
                                   size_t bytes)
{
    if (class == ORRI_LARGE) {
        orri_large_free(pool, ptr, bytes);
        return;
    }
    struct orri_magazine *now = &cache->now[class];
    struct orri_block *block = ptr;
    block->next = now->first;
    now->first = block;
    ORRI_POISON(block, orri_class_bytes[class]);
    if (++now->n == ORRI_BATCH)
        orri_magazine_rotate(pool, cache, class);
}

/* malloc and calloc, which tests can make fail: the countdown-th call from now returns NULL (0: never). */
void *orri_alloc(size_t bytes);
void *orri_zalloc(size_t bytes);
void *orri_alloc_lines(size_t bytes); /* a multiple of ORRI_LINE, starting at a line */
extern _Atomic long orri_alloc_countdown;

#endif
