/* SPDX-License-Identifier: Apache-2.0
 * image_impl.h - what image.c and image_snapshot.c share.
 */
#ifndef ORR_LEDGER_IMAGE_IMPL_H
#define ORR_LEDGER_IMAGE_IMPL_H

#include "image.h"
#include "orrery/record.h"

#include <assert.h>

struct record {
    struct record *older, *newer; /* all records, in order of change */
    uint64_t index;
    uint32_t value_len;
    uint8_t key_len;
    bool is_gone;
    uint8_t bytes[]; /* key, then value */
};
static_assert(ORR_KEY_MAX - 1 <= UINT8_MAX, "a key's length fits");

/* Stands before a record of a key that is gone; these have a list of their own, because
 * the oldest are forgotten. */
struct gone {
    struct gone *older, *newer;
};
static_assert(sizeof(struct gone) % _Alignof(struct record) == 0, "aligned behind it");

struct slot {
    struct record *record; /* owned; NULL: free */
    uint32_t hash;
};

struct orr_image {
    struct orr_image_config config;
    struct slot *slots; /* owned; open addressing, linear */
    uint32_t mask;
    uint64_t n; /* records, gone ones too */
    uint64_t n_gone;
    struct record *oldest, *newest;
    struct gone *gone_oldest, *gone_newest;
    struct record *aside; /* owned: replaced since the freeze; linked by `older` */
    const struct record *cursor; /* where the newest page ended, or just before */
    uint64_t last;
    uint64_t forgotten;
    uint64_t bytes; /* of records */
    uint64_t digest;
    bool is_frozen;
};

struct orr_image_frozen {
    struct record **records; /* owned; what they point to: the image's */
    size_t n;
    uint64_t bytes; /* of keys and values */
    uint64_t last;
    uint64_t forgotten;
};

/* Of a record's key, index and value: for snapshots. */
uint64_t orri_record_digest(const struct record *record);
struct record *orri_record_new(struct orr_str key,
                               struct orr_bytes value,
                               bool is_gone,
                               uint64_t index); /* NULL: no memory */
void orri_record_free(struct record *record);
/* Room for so many more keys.  Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orri_image_reserve(struct orr_image *image, size_t more);
/* Room was reserved; takes the record. */
void orri_image_put(struct orr_image *image, struct record *record);

#endif
