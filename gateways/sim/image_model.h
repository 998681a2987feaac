/* SPDX-License-Identifier: Apache-2.0
 * image_model.h - the newest value of each key of a replica's ledger, in order of change.
 */
#ifndef SIM_IMAGE_MODEL_H
#define SIM_IMAGE_MODEL_H

#include "orrery/msg.h"

struct image_item {
    const struct orr_rec_ledger_record *record; /* borrowed: the entry's */
    uint64_t index;                             /* of that entry */
    uint64_t hash;                              /* of the key */
    bool is_stale;                              /* a newer item has this key */
};

struct image {
    struct image_item *items; /* owned; by index */
    uint32_t n, cap, n_stale;
    uint32_t *slots; /* owned; open addressing: position in items + 1 */
    uint32_t n_slots;
    uint64_t committed;
    uint64_t forgotten; /* keys that went up to here may not be told of any more */
    uint64_t digest;    /* of all keys and values, in no order */
    uint64_t n_keys;
    uint64_t bytes;
};

void image_fini(struct image *image);
/* Entry `index` = committed + 1; its records stay where they are for as long as the image is used. */
void image_apply(struct image *image,
                 uint64_t index,
                 const struct orr_list_ledger_record *records);
/* The records changed after an index, whole entries, about `limit` records; dst has room for all of one entry beyond that.
 * is_within_reset: the reader has begun a reset that is not complete. */
void image_page(const struct image *image,
                uint64_t after,
                bool is_within_reset,
                uint32_t limit,
                struct orr_rec_ledger_record *dst,
                uint32_t cap,
                struct orr_msg_ledger_page *ret_page);

#endif
