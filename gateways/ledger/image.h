/* SPDX-License-Identifier: Apache-2.0
 * image.h - what a log means: the newest value of each key, in order of change.
 *
 * A hash table over a list of records.  A record never changes; a new value is a new
 * record at the list's end.  So a snapshot needs only a copy of the table's pointers
 * (orr_image_freeze), and what is replaced meanwhile is kept aside until it is done.
 * Keys that are gone stay as records without a value, so that a reader hears of it, up
 * to a bound; a reader that is behind the bound starts over.
 * Memory: about 90 bytes per key and its bytes. Threads: none of its own; only
 * orr_image_encode may run beside the other calls.
 */
#ifndef ORR_LEDGER_IMAGE_H
#define ORR_LEDGER_IMAGE_H

#include "ledger.h"

struct orr_image;
struct orr_image_frozen;

enum { ORR_IMAGE_GONE_MAX = 1 << 16 };

/* Sees every record as it comes into the image, also out of a snapshot. */
typedef void (*orr_image_watch_f)(void *arg,
                                  const struct orr_rec_ledger_record *record);

struct orr_image_config {
    uint32_t gone_max;       /* 0: ORR_IMAGE_GONE_MAX */
    orr_image_watch_f watch; /* NULL: nobody */
    void *watch_arg;
};

struct orr_image_stats {
    uint64_t keys;
    uint64_t gone;      /* keys that are gone and still told */
    uint64_t forgotten; /* index of the newest key that is gone and not told any more */
    uint64_t last;      /* index of the newest entry */
    uint64_t bytes;     /* memory */
    uint64_t digest;    /* does not depend on the order in which keys came */
};

/* Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_image_new(const struct orr_image_config *config,
                                         struct orr_image **ret_image);
void orr_image_free(struct orr_image *image);
struct orr_image_stats orr_image_stats(const struct orr_image *image);
void orr_image_watch(struct orr_image *image, orr_image_watch_f watch, void *arg);

/* Take over an entry, whole or not at all.  index is above that of every earlier entry;
 * one that is not is an entry that was taken already: nothing happens.  ret_append: its
 * term and ticket.  Errors: ORR_EPROTO cannot be read, ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_image_apply(struct orr_image *image,
                                           uint64_t index,
                                           const uint8_t *entry,
                                           size_t len,
                                           uint64_t *ret_term,
                                           uint64_t *ret_ticket);

/* As the op of the same name. */
ORR_NODISCARD enum orr_err orr_image_read(struct orr_image *image,
                                          struct orr_ledger_reader *reader,
                                          uint64_t after,
                                          orr_ledger_page_f page,
                                          void *arg);

/* False when the key has no value; *ret_value lives until the next apply. */
bool orr_image_find(const struct orr_image *image,
                    struct orr_str key,
                    struct orr_bytes *ret_value);

/* A snapshot: freeze, encode (may take long; any thread), thaw.  One at a time.  The
 * bytes are malloc's.  Errors: ORR_ENOMEM, ORR_EBUSY frozen already. */
ORR_NODISCARD enum orr_err orr_image_freeze(struct orr_image *image,
                                            struct orr_image_frozen **ret_frozen);
ORR_NODISCARD enum orr_err orr_image_encode(const struct orr_image_frozen *frozen,
                                            uint8_t **ret_bytes,
                                            size_t *ret_len);
void orr_image_thaw(struct orr_image *image, struct orr_image_frozen *frozen);

/* Errors: ORR_EPROTO damaged or not a snapshot, ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_image_decode(const struct orr_image_config *config,
                                            const uint8_t *bytes,
                                            size_t len,
                                            struct orr_image **ret_image);

#endif
