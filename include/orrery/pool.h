/* SPDX-License-Identifier: Apache-2.0
 * pool.h - storage that actors may use: bounded, taken once in init, given back in
 * fini.
 *
 * orr_block is one zeroed block.  orr_pool is a fixed number of equal items with stable
 * addresses and indices.  orr_blobs keeps byte strings of any length in chains of small
 * chunks, named by a number.  Memory that was never used is never touched, so a
 * generous bound costs address space only. Threads: none of its own; one actor owns
 * each.
 */
#ifndef ORR_POOL_H
#define ORR_POOL_H

#include "orrery/msg.h"

#define ORR_NONE UINT32_MAX /* no item, no blob */

struct orr_block {
    void *at; /* owned */
    size_t size;
};

/* Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_block_init(struct orr_block *block, size_t size);
void orr_block_fini(struct orr_block *block);

struct orr_pool {
    uint8_t *items;  /* owned */
    uint32_t *links; /* owned; next free item, or IN_USE */
    size_t item_size;
    uint32_t cap;
    uint32_t n_used;
    uint32_t n_fresh;   /* items ever touched: those from here on are untouched */
    uint32_t free_head; /* ORR_NONE: none given back */
};

/* Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err
orr_pool_init(struct orr_pool *pool, size_t item_size, uint32_t cap);
void orr_pool_fini(struct orr_pool *pool);

/* A zeroed item, NULL when all are taken. */
void *orr_pool_take(struct orr_pool *pool);
void orr_pool_give(struct orr_pool *pool, void *item);

/* The item of an index, NULL when it is not taken. */
void *orr_pool_at(const struct orr_pool *pool, uint32_t index);
uint32_t orr_pool_index(const struct orr_pool *pool, const void *item);

/* Walk the taken items in index order: start with NULL.  The current item may be given
 * back. */
void *orr_pool_next(const struct orr_pool *pool, const void *item);

struct orr_blobs {
    struct orr_pool chunks;
};

/* Room for bytes_max bytes in all, rounded up per blob.  Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_blobs_init(struct orr_blobs *blobs, size_t bytes_max);
void orr_blobs_fini(struct orr_blobs *blobs);

/* Keep a copy.  Errors: ORR_ENOSPC. */
ORR_NODISCARD enum orr_err
orr_blob_put(struct orr_blobs *blobs, struct orr_bytes bytes, uint32_t *ret_blob);

/* Forget it; ORR_NONE is allowed. */
void orr_blob_drop(struct orr_blobs *blobs, uint32_t blob);

/* Copy it into dst[cap] and borrow it there; empty when it does not fit or is ORR_NONE.
 */
struct orr_bytes
orr_blob_get(const struct orr_blobs *blobs, uint32_t blob, void *dst, size_t cap);

#endif
