/* SPDX-License-Identifier: Apache-2.0
 * memory.c - see memory.h.
 */
#include "memory.h"

const uint16_t orri_class_bytes[ORRI_CLASSES] = {
    ORRI_SMALLEST, 160, 192, 256, 384, 512, 1024, 2048, 4096};
_Atomic long orri_alloc_countdown;

static bool may_allocate(void)
{
    if (atomic_load_explicit(&orri_alloc_countdown, memory_order_relaxed) == 0)
        return true;
    return atomic_fetch_sub(&orri_alloc_countdown, 1) != 1;
}

void *orri_alloc(size_t bytes)
{
    return may_allocate() ? malloc(bytes) : NULL;
}

void *orri_zalloc(size_t bytes)
{
    return may_allocate() ? calloc(1, bytes) : NULL;
}

void *orri_alloc_lines(size_t bytes)
{
    return may_allocate() ? aligned_alloc(ORRI_LINE, bytes) : NULL;
}

void orri_pool_init(struct orri_pool *pool, size_t slab_bytes, uint64_t bytes_max)
{
    *pool = (struct orri_pool){.slab_bytes = slab_bytes, .bytes_max = bytes_max};
    pthread_mutex_init(&pool->lock, NULL);
}

void orri_pool_fini(struct orri_pool *pool)
{
    while (pool->slabs) {
        struct orri_slab *slab = pool->slabs;
        pool->slabs = slab->next;
        ORRI_UNPOISON(slab, pool->slab_bytes);
        free(slab);
    }
    pthread_mutex_destroy(&pool->lock);
}

static bool reserve(struct orri_pool *pool, size_t bytes, bool must)
{
    uint64_t before =
        atomic_fetch_add_explicit(&pool->bytes, bytes, memory_order_relaxed);
    if (must || before + bytes <= pool->bytes_max)
        return true;
    atomic_fetch_sub_explicit(&pool->bytes, bytes, memory_order_relaxed);
    return false;
}

static unsigned class_of(size_t bytes)
{
    unsigned class = 0;
    while (class < ORRI_CLASSES && orri_class_bytes[class] < bytes)
        class ++;
    return class;
}

/* lock held */
static void
give_batch(struct orri_pool *pool, struct orri_magazine *magazine, unsigned class)
{
    struct orri_block *batch = magazine->first;
    ORRI_UNPOISON(batch, sizeof(*batch));
    batch->next_batch = pool->batches[class];
    pool->batches[class] = batch;
    ORRI_POISON(batch, sizeof(*batch));
    *magazine = (struct orri_magazine){0};
}

/* Fill an empty magazine with a batch from the pool, or with the blocks of a new slab. */
static bool refill(struct orri_pool *pool,
                   struct orri_magazine *magazine,
                   unsigned class,
                   bool must)
{
    pthread_mutex_lock(&pool->lock);
    struct orri_block *batch = pool->batches[class];
    if (batch) {
        ORRI_UNPOISON(batch, sizeof(*batch));
        pool->batches[class] = batch->next_batch;
    }
    pthread_mutex_unlock(&pool->lock);
    if (batch) {
        *magazine = (struct orri_magazine){batch, ORRI_BATCH};
        return true;
    }
    if (!reserve(pool, pool->slab_bytes, must))
        return false;
    struct orri_slab *slab = orri_alloc_lines(pool->slab_bytes);
    if (!slab) {
        atomic_fetch_sub(&pool->bytes, pool->slab_bytes);
        return false;
    }
    pthread_mutex_lock(&pool->lock);
    slab->next = pool->slabs;
    pool->slabs = slab;
    size_t size = orri_class_bytes[class];
    char *at = (char *)slab + ORRI_LINE;
    for (size_t left = pool->slab_bytes - ORRI_LINE; left >= size; left -= size) {
        if (magazine->n == ORRI_BATCH) /* nor may a magazine hold more at first */
            give_batch(pool, magazine, class);
        struct orri_block *block = (struct orri_block *)(void *)at;
        block->next = magazine->first;
        magazine->first = block;
        magazine->n++;
        ORRI_POISON(block, size);
        at += size;
    }
    pthread_mutex_unlock(&pool->lock);
    return true;
}

static void *large_new(struct orri_pool *pool, size_t bytes, bool must)
{
    if (!reserve(pool, bytes, must))
        return NULL;
    void *block = orri_alloc(bytes);
    if (!block)
        atomic_fetch_sub_explicit(&pool->bytes, bytes, memory_order_relaxed);
    return block;
}

void *orri_block_new_slowly(struct orri_pool *pool,
                            struct orri_cache *cache,
                            size_t bytes,
                            bool must,
                            uint8_t *ret_class)
{
    unsigned class = class_of(bytes);
    bool fits_slab =
        class < ORRI_CLASSES && orri_class_bytes[class] <= pool->slab_bytes - ORRI_LINE;
    if (!fits_slab) {
        *ret_class = ORRI_LARGE;
        return large_new(pool, bytes, must);
    }
    struct orri_magazine *now = &cache->now[class];
    if (!now->first) {
        if (cache->spare[class].first) {
            *now = cache->spare[class];
            cache->spare[class] = (struct orri_magazine){0};
        } else if (!refill(pool, now, class, must)) {
            return NULL;
        }
    }
    struct orri_block *block = now->first;
    ORRI_UNPOISON(block, orri_class_bytes[class]);
    now->first = block->next;
    now->n--;
    *ret_class = (uint8_t) class;
    return block;
}

/* A full magazine becomes the spare one; a full spare goes to the pool. */
void orri_magazine_rotate(struct orri_pool *pool,
                          struct orri_cache *cache,
                          unsigned class)
{
    struct orri_magazine full = cache->spare[class];
    cache->spare[class] = cache->now[class];
    cache->now[class] = (struct orri_magazine){0};
    if (!full.first)
        return;
    pthread_mutex_lock(&pool->lock);
    give_batch(pool, &full, class);
    pthread_mutex_unlock(&pool->lock);
}

void orri_large_free(struct orri_pool *pool, void *block, size_t bytes)
{
    atomic_fetch_sub_explicit(&pool->bytes, bytes, memory_order_relaxed);
    free(block);
}
