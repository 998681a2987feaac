/* SPDX-License-Identifier: Apache-2.0
 * image.c - the newest value of each key: apply and read (image.h).
 */
#include "image_impl.h"

enum { SLOTS_MIN = 1 << 10 };

/* ---- digests ---------------------------------------------------------------------------------- */

uint64_t orri_record_digest(const struct record *r)
{
    const uint64_t h = orr_digest_bytes(r->index, r->bytes, r->key_len);
    return orr_digest_bytes(h ^ r->is_gone, r->bytes + r->key_len, r->value_len);
}

/* What a region's tables are compared with. */
static uint64_t content_digest(const struct record *r)
{
    return orr_record_digest((struct orr_str){(const char *)r->bytes, r->key_len},
                             (struct orr_bytes){r->bytes + r->key_len, r->value_len});
}

/* ---- records ---------------------------------------------------------------------------------- */

static struct gone *gone_of(struct record *r)
{
    return (struct gone *)(void *)r - 1;
}

static struct record *record_of(struct gone *g)
{
    return (struct record *)(void *)(g + 1);
}

struct record *orri_record_new(struct orr_str key,
                               struct orr_bytes value,
                               bool is_gone,
                               uint64_t index)
{
    const uint32_t value_len = is_gone ? 0 : value.len;
    const size_t head = is_gone ? sizeof(struct gone) : 0;
    char *block = malloc(head + sizeof(struct record) + key.len + value_len);
    if (!block)
        return NULL;
    struct record *r = (struct record *)(void *)(block + head);
    *r = (struct record){.index = index,
                         .value_len = value_len,
                         .key_len = (uint8_t)key.len,
                         .is_gone = is_gone};
    memcpy(r->bytes, key.ptr, key.len);
    if (value_len)
        memcpy(r->bytes + key.len, value.ptr, value_len);
    return r;
}

void orri_record_free(struct record *r)
{
    if (r)
        free(r->is_gone ? (void *)gone_of(r) : (void *)r);
}

static size_t record_bytes(const struct record *r)
{
    return sizeof *r + r->key_len + r->value_len +
           (r->is_gone ? sizeof(struct gone) : 0);
}

static struct orr_rec_ledger_record row_of(const struct record *r)
{
    return (struct orr_rec_ledger_record){
        .key = {(const char *)r->bytes, r->key_len},
        .value = {r->bytes + r->key_len, r->value_len},
        .is_gone = r->is_gone,
    };
}

/* ---- table ------------------------------------------------------------------------------------ */

static uint32_t hash_of(struct orr_str key)
{
    return (uint32_t)orr_digest_bytes(0, (const uint8_t *)key.ptr, key.len);
}

/* The slot that holds the key, or the free one where it belongs. */
static struct slot *
slot_of(const struct orr_image *image, uint32_t hash, struct orr_str key)
{
    for (uint32_t i = hash & image->mask;; i = (i + 1) & image->mask) {
        struct slot *s = &image->slots[i];
        if (!s->record)
            return s;
        if (s->hash == hash && s->record->key_len == key.len &&
            memcmp(s->record->bytes, key.ptr, key.len) == 0)
            return s;
    }
}

/* Empty a slot and move back what had to pass it. */
static void slot_clear(struct orr_image *image, struct slot *s)
{
    uint32_t hole = (uint32_t)(s - image->slots);
    for (uint32_t i = (hole + 1) & image->mask; image->slots[i].record;
         i = (i + 1) & image->mask) {
        const uint32_t home = image->slots[i].hash & image->mask;
        if (((i - home) & image->mask) < ((i - hole) & image->mask))
            continue;
        image->slots[hole] = image->slots[i];
        hole = i;
    }
    image->slots[hole] = (struct slot){0};
}

enum orr_err orri_image_reserve(struct orr_image *image, size_t more)
{
    const uint64_t want = (image->n + more) * 4 / 3 + 1;
    uint64_t size = image->slots ? (uint64_t)image->mask + 1 : SLOTS_MIN;
    while (size < want)
        size *= 2;
    if (image->slots && size == (uint64_t)image->mask + 1)
        return ORR_OK;
    if (size > UINT32_MAX)
        return ORR_ENOMEM;
    struct slot *slots = calloc(size, sizeof *slots);
    if (!slots)
        return ORR_ENOMEM;
    const uint32_t mask = (uint32_t)(size - 1);
    for (uint64_t i = 0; image->slots && i <= image->mask; i++) {
        const struct slot *s = &image->slots[i];
        uint32_t at = s->hash & mask;
        if (!s->record)
            continue;
        while (slots[at].record)
            at = (at + 1) & mask;
        slots[at] = *s;
    }
    free(image->slots);
    image->slots = slots;
    image->mask = mask;
    return ORR_OK;
}

/* ---- lists ------------------------------------------------------------------------------------ */

static void list_push(struct orr_image *image, struct record *r)
{
    r->older = image->newest;
    r->newer = NULL;
    *(image->newest ? &image->newest->newer : &image->oldest) = r;
    image->newest = r;
    if (!r->is_gone)
        return;
    struct gone *g = gone_of(r);
    *g = (struct gone){.older = image->gone_newest};
    *(image->gone_newest ? &image->gone_newest->newer : &image->gone_oldest) = g;
    image->gone_newest = g;
}

static void list_remove(struct orr_image *image, struct record *r)
{
    if (image->cursor == r)
        image->cursor = r->older;
    *(r->older ? &r->older->newer : &image->oldest) = r->newer;
    *(r->newer ? &r->newer->older : &image->newest) = r->older;
    if (!r->is_gone)
        return;
    struct gone *g = gone_of(r);
    *(g->older ? &g->older->newer : &image->gone_oldest) = g->newer;
    *(g->newer ? &g->newer->older : &image->gone_newest) = g->older;
}

static void count(struct orr_image *image, const struct record *r)
{
    image->n++;
    image->n_gone += r->is_gone;
    image->bytes += record_bytes(r);
    if (!r->is_gone)
        image->digest += content_digest(r);
}

/* Out of the list and the sums; its memory stays while a snapshot may read it. */
static void drop(struct orr_image *image, struct record *r)
{
    image->n--;
    image->n_gone -= r->is_gone;
    image->bytes -= record_bytes(r);
    if (!r->is_gone)
        image->digest -= content_digest(r);
    list_remove(image, r);
    if (image->is_frozen) {
        r->older = image->aside;
        image->aside = r;
    } else {
        orri_record_free(r);
    }
}

static void forget_oldest_gone(struct orr_image *image)
{
    struct record *r = record_of(image->gone_oldest);
    const struct orr_str key = {(const char *)r->bytes, r->key_len};
    image->forgotten = r->index;
    slot_clear(image, slot_of(image, hash_of(key), key));
    drop(image, r);
}

void orri_image_put(struct orr_image *image, struct record *r)
{
    const struct orr_str key = {(const char *)r->bytes, r->key_len};
    const uint32_t hash = hash_of(key);
    struct slot *s = slot_of(image, hash, key);
    if (s->record)
        drop(image, s->record);
    *s = (struct slot){r, hash};
    list_push(image, r);
    count(image, r);
    if (image->config.watch) {
        const struct orr_rec_ledger_record row = row_of(r);
        image->config.watch(image->config.watch_arg, &row);
    }
    while (image->n_gone > image->config.gone_max)
        forget_oldest_gone(image);
}

/* ---- interface -------------------------------------------------------------------------------- */

enum orr_err orr_image_new(const struct orr_image_config *config,
                           struct orr_image **ret_image)
{
    struct orr_image *image = calloc(1, sizeof *image);
    if (!image)
        return ORR_ENOMEM;
    image->config = *config;
    if (!image->config.gone_max)
        image->config.gone_max = ORR_IMAGE_GONE_MAX;
    if (orri_image_reserve(image, 0) != ORR_OK) {
        free(image);
        return ORR_ENOMEM;
    }
    *ret_image = image;
    return ORR_OK;
}

void orr_image_free(struct orr_image *image)
{
    if (!image)
        return;
    ORR_ASSERT(!image->is_frozen);
    for (struct record *r = image->oldest, *next; r; r = next) {
        next = r->newer;
        orri_record_free(r);
    }
    free(image->slots);
    free(image);
}

struct orr_image_stats orr_image_stats(const struct orr_image *image)
{
    return (struct orr_image_stats){
        .keys = image->n - image->n_gone,
        .gone = image->n_gone,
        .forgotten = image->forgotten,
        .last = image->last,
        .bytes = image->bytes + ((uint64_t)image->mask + 1) * sizeof(struct slot),
        .digest = image->digest,
    };
}

void orr_image_watch(struct orr_image *image, orr_image_watch_f watch, void *arg)
{
    image->config.watch = watch;
    image->config.watch_arg = arg;
}

bool orr_image_find(const struct orr_image *image,
                    struct orr_str key,
                    struct orr_bytes *ret_value)
{
    const struct slot *s = slot_of(image, hash_of(key), key);
    if (!s->record || s->record->is_gone)
        return false;
    *ret_value = row_of(s->record).value;
    return true;
}

/* ---- entries ---------------------------------------------------------------------------------- */

/* NULL when the bytes are not a ledger_append, with *ret_code why. */
static struct orr_msg_ledger_append *
decode_entry(const uint8_t *entry, size_t len, enum orr_err *ret_code)
{
    const struct orr_msg_desc *desc = orr_msg_desc_ledger_append();
    size_t size, taken;
    *ret_code = orr_msg_decode_size(desc, entry, len, &size, &taken);
    if (*ret_code != ORR_OK)
        return NULL;
    struct orr_msg_ledger_append *msg = malloc(size);
    *ret_code = msg ? orr_msg_decode(desc, entry, taken, msg, size) : ORR_ENOMEM;
    for (uint32_t i = 0; *ret_code == ORR_OK && i < msg->records.n; i++) {
        const uint32_t key_len = msg->records.at[i].key.len;
        if (key_len == 0 || key_len >= ORR_KEY_MAX)
            *ret_code = ORR_EPROTO;
    }
    if (*ret_code != ORR_OK) {
        free(msg);
        return NULL;
    }
    return msg;
}

enum orr_err orr_image_apply(struct orr_image *image,
                             uint64_t index,
                             const uint8_t *entry,
                             size_t len,
                             uint64_t *ret_term,
                             uint64_t *ret_ticket)
{
    enum orr_err code;
    struct record *made = NULL; /* newest first, linked by `older` */
    struct orr_msg_ledger_append *msg = decode_entry(entry, len, &code);
    if (!msg)
        return code;
    *ret_term = msg->term;
    *ret_ticket = msg->ticket;
    if (index <= image->last) {
        free(msg);
        return ORR_OK;
    }
    code = orri_image_reserve(image, msg->records.n);
    for (uint32_t i = msg->records.n; code == ORR_OK && i-- > 0;) {
        const struct orr_rec_ledger_record *row = &msg->records.at[i];
        struct record *r = orri_record_new(row->key, row->value, row->is_gone, index);
        if (!r)
            code = ORR_ENOMEM;
        else
            r->older = made, made = r;
    }
    free(msg);
    for (struct record *next; made; made = next) {
        next = made->older;
        if (code == ORR_OK)
            orri_image_put(image, made);
        else
            orri_record_free(made);
    }
    if (code == ORR_OK)
        image->last = index;
    return code;
}

/* ---- reading ---------------------------------------------------------------------------------- */

/* The first record after an index.  A reader goes on where the newest page ended, or is near
 * the end. */
static const struct record *first_after(const struct orr_image *image, uint64_t after)
{
    const struct record *r = image->cursor;
    if (r && r->index <= after) {
        while (r && r->index <= after)
            r = r->newer;
        return r;
    }
    if (!image->oldest || image->oldest->index > after)
        return image->oldest;
    const struct record *found = NULL;
    for (r = image->newest; r && r->index > after; r = r->older)
        found = r;
    return found;
}

/* How many records from r on make one page: whole entries, at least one. */
static uint32_t page_length(const struct record *r)
{
    uint32_t n = 0, n_whole = 0;
    size_t bytes = 0;
    for (; r; r = r->newer) {
        n++;
        bytes += (size_t)r->key_len + r->value_len;
        if (n_whole && (bytes > ORR_LEDGER_PAGE_BYTES || n > ORR_LIST_MAX / 2))
            break;
        if (!r->newer || r->newer->index != r->index)
            n_whole = n;
    }
    return n_whole;
}

enum orr_err orr_image_read(struct orr_image *image,
                            struct orr_ledger_reader *reader,
                            uint64_t after,
                            orr_ledger_page_f page,
                            void *arg)
{
    const uint64_t since =
        after == reader->last && reader->since > after ? reader->since : after;
    const bool is_reset = image->forgotten > since || after > image->last;
    if (is_reset)
        after = 0;
    const struct record *r = first_after(image, after);
    struct orr_msg_ledger_page msg = {
        .is_reset = is_reset, .committed = image->last, .records.n = page_length(r)};
    struct orr_rec_ledger_record *rows = malloc((msg.records.n + 1) * sizeof *rows);
    if (!rows)
        return ORR_ENOMEM;
    msg.last = image->last;
    for (uint32_t i = 0; i < msg.records.n; i++, r = r->newer) {
        rows[i] = row_of(r);
        image->cursor = r;
        if (i + 1 == msg.records.n && r->newer)
            msg.last = r->index;
    }
    msg.records.at = rows;
    reader->since = after == 0 ? image->last : since;
    reader->last = msg.last;
    page(arg, &msg);
    free(rows);
    return ORR_OK;
}
