/* SPDX-License-Identifier: Apache-2.0
 * image_model.c - see image_model.h.
 *
 * Items are only ever added at the end; an older item of the same key becomes stale, and stale items are swept when they are
 * the larger part.  A key that has gone stays as an item until a sweep, so that readers hear of it; after that they start
 * over.
 */
#include "image_model.h"

#include "orrery/record.h"

enum { SLOTS_MIN = 256, SWEEP_MIN = 128, GONE_KEPT = 64 };

void image_fini(struct image *image)
{
    free(image->items);
    free(image->slots);
    *image = (struct image){0};
}

static uint32_t *slot_of(const struct image *image, uint64_t hash, struct orr_str key)
{
    uint32_t at = (uint32_t)(hash ^ hash >> 32) & (image->n_slots - 1);
    while (image->slots[at]) {
        const struct image_item *item = &image->items[image->slots[at] - 1];
        if (item->hash == hash && orr_str_eq(item->record->key, key))
            break;
        at = (at + 1) & (image->n_slots - 1);
    }
    return &image->slots[at];
}

static void index_again(struct image *image)
{
    uint32_t want = SLOTS_MIN;
    while (want < 4 * image->n)
        want *= 2;
    free(image->slots);
    image->slots = calloc(want, sizeof(*image->slots));
    ORR_ASSERT(image->slots);
    image->n_slots = want;
    for (uint32_t i = 0; i < image->n; i++)
        if (!image->items[i].is_stale)
            *slot_of(image, image->items[i].hash, image->items[i].record->key) = i + 1;
}

static void sweep(struct image *image)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < image->n; i++) {
        const struct image_item *item = &image->items[i];
        if (item->is_stale)
            continue;
        if (item->record->is_gone && item->index + GONE_KEPT < image->committed) {
            image->forgotten = item->index;
            continue;
        }
        image->items[n++] = *item;
    }
    image->n = n;
    image->n_stale = 0;
    index_again(image);
}

static void count(struct image *image, const struct image_item *item, bool is_added)
{
    const struct orr_rec_ledger_record *record = item->record;
    if (record->is_gone)
        return;
    uint64_t digest = orr_record_digest(record->key, record->value);
    uint64_t bytes = record->key.len + record->value.len;
    image->digest += is_added ? digest : -digest;
    image->n_keys += is_added ? 1 : UINT64_MAX;
    image->bytes += is_added ? bytes : -bytes;
}

static void put(struct image *image, struct image_item item)
{
    if (image->n == image->cap) {
        image->cap = image->cap ? image->cap * 2 : SLOTS_MIN;
        image->items = realloc(image->items, image->cap * sizeof(*image->items));
        ORR_ASSERT(image->items);
    }
    if (image->n * 2 >= image->n_slots)
        index_again(image);
    uint32_t *slot = slot_of(image, item.hash, item.record->key);
    if (*slot) {
        struct image_item *old = &image->items[*slot - 1];
        count(image, old, false);
        old->is_stale = true;
        image->n_stale++;
    }
    image->items[image->n++] = item;
    *slot = image->n;
    count(image, &item, true);
}

void image_apply(struct image *image,
                 uint64_t index,
                 const struct orr_list_ledger_record *records)
{
    ORR_ASSERT(index == image->committed + 1);
    for (uint32_t i = 0; i < records->n; i++)
        put(image,
            (struct image_item){.record = &records->at[i],
                                .index = index,
                                .hash = orr_hash(records->at[i].key)});
    image->committed = index;
    if (image->n_stale > SWEEP_MIN && image->n_stale * 2 > image->n)
        sweep(image);
}

void image_page(const struct image *image,
                uint64_t after,
                bool is_within_reset,
                uint32_t limit,
                struct orr_rec_ledger_record *dst,
                uint32_t cap,
                struct orr_msg_ledger_page *ret_page)
{
    bool is_reset = after < image->forgotten && !is_within_reset;
    uint64_t from = is_reset ? 0 : after;
    uint64_t last = image->committed;
    uint64_t index = 0; /* of the item before */
    uint32_t n = 0;
    for (uint32_t i = 0; i < image->n; i++) {
        const struct image_item *item = &image->items[i];
        if (item->is_stale || item->index <= from ||
            (is_reset && item->record->is_gone))
            continue;
        if (n >= limit && item->index != index) {
            last = index; /* whole entries only */
            break;
        }
        ORR_ASSERT(n < cap);
        dst[n++] = *item->record;
        index = item->index;
    }
    *ret_page = (struct orr_msg_ledger_page){.is_reset = is_reset,
                                             .last = last,
                                             .committed = image->committed,
                                             .records = {dst, n}};
}
