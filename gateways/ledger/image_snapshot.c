/* SPDX-License-Identifier: Apache-2.0
 * image_snapshot.c - an image as bytes, and back (image.h).
 *
 * Little endian, like every machine that this runs on:
 *   header: magic, records, last, forgotten, bytes that follow, sum of the records' digests
 *   record: index u64, value length u32, key length u8, is_gone u8, 2 zero bytes, key, value
 * in order of change.  The sum is the checksum: libraft has none of its own over snapshots.
 */
#include "image_impl.h"

#define MAGIC 0x316567616d492d4fu /* "O-Image1" */

struct header {
    uint64_t magic;
    uint64_t n;
    uint64_t last;
    uint64_t forgotten;
    uint64_t bytes;
    uint64_t digest;
};

struct row {
    uint64_t index;
    uint32_t value_len;
    uint8_t key_len;
    uint8_t is_gone;
    uint8_t zero[2];
};

enum orr_err orr_image_freeze(struct orr_image *image,
                              struct orr_image_frozen **ret_frozen)
{
    if (image->is_frozen)
        return ORR_EBUSY;
    struct orr_image_frozen *frozen = calloc(1, sizeof *frozen);
    struct record **records = malloc((image->n + 1) * sizeof(struct record *));
    if (!frozen || !records) {
        free(frozen);
        free(records);
        return ORR_ENOMEM;
    }
    size_t n = 0;
    for (uint64_t i = 0; i <= image->mask;
         i++) { /* the table, not the list: no cache misses */
        records[n] = image->slots[i].record;
        n += records[n] != NULL;
    }
    ORR_ASSERT(n == image->n);
    *frozen = (struct orr_image_frozen){.records = records,
                                        .n = n,
                                        .bytes = image->bytes,
                                        .last = image->last,
                                        .forgotten = image->forgotten};
    image->is_frozen = true;
    *ret_frozen = frozen;
    return ORR_OK;
}

void orr_image_thaw(struct orr_image *image, struct orr_image_frozen *frozen)
{
    for (struct record *r = image->aside, *next; r; r = next) {
        next = r->older;
        orri_record_free(r);
    }
    image->aside = NULL;
    image->is_frozen = false;
    free(frozen->records);
    free(frozen);
}

static int by_index(const void *a, const void *b)
{
    const struct record *x = *(struct record *const *)a,
                        *y = *(struct record *const *)b;
    return (x->index > y->index) - (x->index < y->index);
}

enum orr_err orr_image_encode(const struct orr_image_frozen *frozen,
                              uint8_t **ret_bytes,
                              size_t *ret_len)
{
    /* sizeof(struct record) > sizeof(struct row), so this is enough */
    uint8_t *bytes = malloc(sizeof(struct header) + frozen->bytes);
    if (!bytes)
        return ORR_ENOMEM;
    struct header h = {.magic = MAGIC,
                       .n = frozen->n,
                       .last = frozen->last,
                       .forgotten = frozen->forgotten};
    uint8_t *to = bytes + sizeof h;
    qsort(frozen->records, frozen->n, sizeof *frozen->records, by_index);
    for (size_t i = 0; i < frozen->n; i++) {
        const struct record *r = frozen->records[i];
        const struct row row = {r->index, r->value_len, r->key_len, r->is_gone, {0}};
        memcpy(to, &row, sizeof row);
        memcpy(to + sizeof row, r->bytes, (size_t)r->key_len + r->value_len);
        to += sizeof row + r->key_len + r->value_len;
        h.digest += orri_record_digest(r);
    }
    h.bytes = (uint64_t)(to - bytes) - sizeof h;
    h.digest ^=
        orr_digest_bytes(h.n, (const uint8_t *)&h, offsetof(struct header, digest));
    memcpy(bytes, &h, sizeof h);
    *ret_bytes = bytes;
    *ret_len = (size_t)(to - bytes);
    return ORR_OK;
}

/* The next record of what is left; NULL when it is none, with *ret_code why. */
static struct record *take_record(const uint8_t **at,
                                  const uint8_t *end,
                                  uint64_t last,
                                  enum orr_err *ret_code)
{
    struct row row;
    *ret_code = ORR_EPROTO;
    if ((size_t)(end - *at) < sizeof row)
        return NULL;
    memcpy(&row, *at, sizeof row);
    const uint8_t *key = *at + sizeof row;
    const size_t left = (size_t)(end - key);
    if (row.key_len == 0 || row.is_gone > 1 || (row.is_gone && row.value_len) ||
        row.index > last || left < row.key_len || left - row.key_len < row.value_len)
        return NULL;
    struct record *r =
        orri_record_new((struct orr_str){(const char *)key, row.key_len},
                        (struct orr_bytes){key + row.key_len, row.value_len},
                        row.is_gone,
                        row.index);
    if (!r)
        *ret_code = ORR_ENOMEM;
    *at = key + row.key_len + row.value_len;
    return r;
}

static enum orr_err
decode_records(struct orr_image *image, const struct header *h, const uint8_t *at)
{
    const uint8_t *end = at + h->bytes;
    uint64_t digest = 0, index = 0;
    enum orr_err code;
    for (uint64_t i = 0; i < h->n; i++) {
        struct record *r = take_record(&at, end, h->last, &code);
        if (!r)
            return code;
        if (r->index < index) {
            orri_record_free(r);
            return ORR_EPROTO;
        }
        index = r->index;
        digest += orri_record_digest(r);
        orri_image_put(image, r);
    }
    digest ^=
        orr_digest_bytes(h->n, (const uint8_t *)h, offsetof(struct header, digest));
    return at == end && digest == h->digest && image->n == h->n ? ORR_OK : ORR_EPROTO;
}

enum orr_err orr_image_decode(const struct orr_image_config *config,
                              const uint8_t *bytes,
                              size_t len,
                              struct orr_image **ret_image)
{
    struct header h;
    if (len < sizeof h)
        return ORR_EPROTO;
    memcpy(&h, bytes, sizeof h);
    if (h.magic != MAGIC || h.bytes != len - sizeof h ||
        h.n > h.bytes / sizeof(struct row))
        return ORR_EPROTO;
    struct orr_image *image;
    enum orr_err code = orr_image_new(config, &image);
    if (code == ORR_OK) {
        code = orri_image_reserve(image, h.n);
        if (code == ORR_OK)
            code = decode_records(image, &h, bytes + sizeof h);
        image->last = h.last;
        if (image->forgotten < h.forgotten)
            image->forgotten = h.forgotten;
        if (code == ORR_OK)
            *ret_image = image;
        else
            orr_image_free(image);
    }
    return code;
}
