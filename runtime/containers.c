/* SPDX-License-Identifier: Apache-2.0
 * containers.c - the bounded containers of include/orrery: pool.h and map.h.
 *
 * All memory is asked for in init, with calloc: the machine hands out pages when they
 * are first written, so a pool sized for the worst day costs little on the others.
 */
#include "orrery/map.h"

#define IN_USE (UINT32_MAX - 1)

enum orr_err orr_block_init(struct orr_block *block, size_t size)
{
    block->at = calloc(1, size ? size : 1);
    block->size = block->at ? size : 0;
    return block->at ? ORR_OK : ORR_ENOMEM;
}

void orr_block_fini(struct orr_block *block)
{
    free(block->at);
    *block = (struct orr_block){0};
}

/* ---- pool ---- */

enum orr_err orr_pool_init(struct orr_pool *pool, size_t item_size, uint32_t cap)
{
    *pool = (struct orr_pool){
        .item_size = (item_size + 7) & ~(size_t)7, .cap = cap, .free_head = ORR_NONE};
    pool->items = calloc(cap ? cap : 1, pool->item_size);
    pool->links = calloc(cap ? cap : 1, sizeof(*pool->links));
    if (pool->items && pool->links)
        return ORR_OK;
    orr_pool_fini(pool);
    return ORR_ENOMEM;
}

void orr_pool_fini(struct orr_pool *pool)
{
    free(pool->items);
    free(pool->links);
    *pool = (struct orr_pool){0};
}

void *orr_pool_take(struct orr_pool *pool)
{
    uint32_t index;
    if (pool->free_head != ORR_NONE) {
        index = pool->free_head;
        pool->free_head = pool->links[index];
        memset(pool->items + index * pool->item_size, 0, pool->item_size);
    } else if (pool->n_fresh < pool->cap) {
        index = pool->n_fresh++;
    } else {
        return NULL;
    }
    pool->links[index] = IN_USE;
    pool->n_used++;
    return pool->items + index * pool->item_size;
}

void orr_pool_give(struct orr_pool *pool, void *item)
{
    uint32_t index = orr_pool_index(pool, item);
    ORR_ASSERT(orr_pool_at(pool, index) == item);
    pool->links[index] = pool->free_head;
    pool->free_head = index;
    pool->n_used--;
}

void *orr_pool_at(const struct orr_pool *pool, uint32_t index)
{
    if (index >= pool->n_fresh || pool->links[index] != IN_USE)
        return NULL;
    return pool->items + index * pool->item_size;
}

uint32_t orr_pool_index(const struct orr_pool *pool, const void *item)
{
    return (uint32_t)((size_t)((const uint8_t *)item - pool->items) / pool->item_size);
}

void *orr_pool_next(const struct orr_pool *pool, const void *item)
{
    uint32_t index = item ? orr_pool_index(pool, item) + 1 : 0;
    for (; index < pool->n_fresh; index++)
        if (pool->links[index] == IN_USE)
            return pool->items + index * pool->item_size;
    return NULL;
}

/* ---- blobs ---- */

enum { CHUNK_BYTES = 248 };

struct chunk {
    uint32_t next; /* ORR_NONE: the last */
    uint32_t len;
    uint8_t data[CHUNK_BYTES];
};

enum orr_err orr_blobs_init(struct orr_blobs *blobs, size_t bytes_max)
{
    return orr_pool_init(
        &blobs->chunks, sizeof(struct chunk), (uint32_t)(bytes_max / CHUNK_BYTES + 1));
}

void orr_blobs_fini(struct orr_blobs *blobs)
{
    orr_pool_fini(&blobs->chunks);
}

enum orr_err
orr_blob_put(struct orr_blobs *blobs, struct orr_bytes bytes, uint32_t *ret_blob)
{
    uint32_t first = ORR_NONE;
    uint32_t *link = &first;
    uint32_t at = 0;
    do {
        struct chunk *chunk = orr_pool_take(&blobs->chunks);
        if (!chunk) {
            orr_blob_drop(blobs, first);
            return ORR_ENOSPC;
        }
        chunk->next = ORR_NONE;
        chunk->len = bytes.len - at < CHUNK_BYTES ? bytes.len - at : CHUNK_BYTES;
        if (chunk->len)
            memcpy(chunk->data, bytes.ptr + at, chunk->len);
        at += chunk->len;
        *link = orr_pool_index(&blobs->chunks, chunk);
        link = &chunk->next;
    } while (at < bytes.len);
    *ret_blob = first;
    return ORR_OK;
}

void orr_blob_drop(struct orr_blobs *blobs, uint32_t blob)
{
    while (blob != ORR_NONE) {
        struct chunk *chunk = orr_pool_at(&blobs->chunks, blob);
        ORR_ASSERT(chunk);
        blob = chunk->next;
        orr_pool_give(&blobs->chunks, chunk);
    }
}

struct orr_bytes
orr_blob_get(const struct orr_blobs *blobs, uint32_t blob, void *dst, size_t cap)
{
    uint32_t len = 0;
    while (blob != ORR_NONE) {
        const struct chunk *chunk = orr_pool_at(&blobs->chunks, blob);
        ORR_ASSERT(chunk);
        if (len + chunk->len > cap)
            return (struct orr_bytes){0};
        memcpy((uint8_t *)dst + len, chunk->data, chunk->len);
        len += chunk->len;
        blob = chunk->next;
    }
    return (struct orr_bytes){dst, len};
}

/* ---- map ---- */

enum orr_err
orr_map_init(struct orr_map *map, const struct orr_pool *pool, orr_key_f key_of)
{
    uint32_t slots = 8;
    while (slots < pool->cap * 2)
        slots *= 2;
    *map = (struct orr_map){.pool = pool, .key_of = key_of, .mask = slots - 1};
    map->slots = calloc(slots, sizeof(*map->slots));
    return map->slots ? ORR_OK : ORR_ENOMEM;
}

void orr_map_fini(struct orr_map *map)
{
    free(map->slots);
    *map = (struct orr_map){0};
}

/* FNV's low bits are weak for short texts that differ at their end. */
static uint64_t hash_of(struct orr_str key)
{
    uint64_t h = orr_hash(key);
    return h ^ (h >> 29);
}

void *orr_map_find(const struct orr_map *map, struct orr_str key)
{
    uint64_t hash = hash_of(key);
    for (uint64_t at = hash & map->mask; map->slots[at].index;
         at = (at + 1) & map->mask) {
        if (map->slots[at].hash != hash)
            continue;
        void *item = orr_pool_at(map->pool, map->slots[at].index - 1);
        if (item && orr_str_eq(map->key_of(item), key))
            return item;
    }
    return NULL;
}

void orr_map_add(struct orr_map *map, const void *item)
{
    ORR_ASSERT(map->n < map->pool->cap);
    uint64_t hash = hash_of(map->key_of(item));
    uint64_t at = hash & map->mask;
    while (map->slots[at].index)
        at = (at + 1) & map->mask;
    map->slots[at] = (struct orr_map_slot){hash, orr_pool_index(map->pool, item) + 1};
    map->n++;
}

/* Close the hole: move back each follower whose home is not after the hole. */
static void close_hole(struct orr_map *map, uint64_t hole)
{
    for (uint64_t at = (hole + 1) & map->mask; map->slots[at].index;
         at = (at + 1) & map->mask) {
        uint64_t home = map->slots[at].hash & map->mask;
        if (((at - home) & map->mask) < ((at - hole) & map->mask))
            continue;
        map->slots[hole] = map->slots[at];
        hole = at;
    }
    map->slots[hole] = (struct orr_map_slot){0};
}

void orr_map_remove(struct orr_map *map, const void *item)
{
    uint32_t index = orr_pool_index(map->pool, item) + 1;
    uint64_t at = hash_of(map->key_of(item)) & map->mask;
    while (map->slots[at].index && map->slots[at].index != index)
        at = (at + 1) & map->mask;
    if (!map->slots[at].index)
        return;
    close_hole(map, at);
    map->n--;
}
