/* SPDX-License-Identifier: Apache-2.0
 * store_set.c - hashes in an open-addressed table that doubles.
 *
 * A hash spreads by itself: its first bytes are the slot.  All zero marks a free slot; no content is
 * known that hashes to it.
 */
#include "store_impl.h"

static const struct orr_store_hash none;

static bool is_eq(const struct orr_store_hash *a, const struct orr_store_hash *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static size_t slot_of(const struct orri_set *set, const struct orr_store_hash *hash)
{
    uint64_t first;
    memcpy(&first, hash->at, sizeof first);
    size_t i = (size_t)first & (set->cap - 1);
    while (!is_eq(&set->at[i], &none) && !is_eq(&set->at[i], hash))
        i = (i + 1) & (set->cap - 1);
    return i;
}

static enum orr_err grow(struct orri_set *set)
{
    struct orri_set next = {.cap = set->cap ? 2 * set->cap : 1024, .n = set->n};
    next.at = calloc(next.cap, sizeof *next.at);
    if (!next.at)
        return ORR_ENOMEM;
    for (size_t i = 0; i < set->cap; i++)
        if (!is_eq(&set->at[i], &none))
            next.at[slot_of(&next, &set->at[i])] = set->at[i];
    free(set->at);
    *set = next;
    return ORR_OK;
}

enum orr_err
orri_set_add(struct orri_set *set, const struct orr_store_hash *hash, bool *ret_is_new)
{
    if (set->n >= set->cap / 2) {
        enum orr_err code = grow(set);
        if (code)
            return code;
    }
    struct orr_store_hash *at = &set->at[slot_of(set, hash)];
    *ret_is_new = is_eq(at, &none);
    set->n += *ret_is_new;
    *at = *hash;
    return ORR_OK;
}

bool orri_set_has(const struct orri_set *set, const struct orr_store_hash *hash)
{
    return set->cap && is_eq(&set->at[slot_of(set, hash)], hash);
}

void orri_set_fini(struct orri_set *set)
{
    free(set->at);
    *set = (struct orri_set){0};
}
