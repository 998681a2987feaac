/* SPDX-License-Identifier: Apache-2.0
 * msg_decode.c - msgpack to C struct, in one walk that runs twice: once to check and
 * measure, once to fill.
 *
 * Nothing is reserved here: the first walk reads at most len bytes and sums up what the
 * struct form needs; the caller brings that memory; the second walk takes it piece by
 * piece.  Lengths are checked against the bytes that are left before they are believed,
 * so five hostile bytes cost five bytes.
 */
#include "orrery/msg.h"

struct reader {
    const uint8_t *at;
    size_t left;
    bool is_bad;
};

/* Memory of the result; base == NULL while measuring. */
struct arena {
    char *base;
    size_t used;
    size_t cap;
};

/* Returns NULL while measuring; the arena was sized by the measuring walk, so filling
 * never runs out. */
static void *take(struct arena *a, size_t bytes, size_t align)
{
    a->used = (a->used + align - 1) & ~(align - 1);
    size_t at = a->used;
    a->used += bytes;
    if (!a->base)
        return NULL;
    ORR_ASSERT(a->used <= a->cap);
    return a->base + at;
}

static uint64_t get_be(struct reader *r, unsigned bytes)
{
    uint64_t v = 0;
    if (r->is_bad || bytes > r->left) {
        r->is_bad = true;
        return 0;
    }
    for (unsigned i = 0; i < bytes; i++)
        v = v << 8 | r->at[i];
    r->at += bytes;
    r->left -= bytes;
    return v;
}

static uint64_t bad(struct reader *r)
{
    r->is_bad = true;
    return 0;
}

static uint64_t get_uint(struct reader *r, uint64_t max)
{
    unsigned tag = (unsigned)get_be(r, 1);
    uint64_t v = tag <= 0x7f   ? tag
                 : tag == 0xcc ? get_be(r, 1)
                 : tag == 0xcd ? get_be(r, 2)
                 : tag == 0xce ? get_be(r, 4)
                 : tag == 0xcf ? get_be(r, 8)
                               : bad(r);
    return v <= max && !r->is_bad ? v : bad(r);
}

static int64_t get_int(struct reader *r)
{
    unsigned tag = r->left ? *r->at : 0;
    if (tag < 0xd0 || (tag > 0xd3 && tag < 0xe0))
        return (int64_t)get_uint(r, INT64_MAX);
    (void)get_be(r, 1);
    switch (tag) {
    case 0xd0:
        return (int8_t)get_be(r, 1);
    case 0xd1:
        return (int16_t)get_be(r, 2);
    case 0xd2:
        return (int32_t)get_be(r, 4);
    case 0xd3:
        return (int64_t)get_be(r, 8);
    default:
        return (int8_t)tag;
    }
}

static bool get_bool(struct reader *r)
{
    unsigned tag = (unsigned)get_be(r, 1);
    if (tag != 0xc2 && tag != 0xc3)
        bad(r);
    return tag == 0xc3;
}

static double get_f64(struct reader *r)
{
    if (get_be(r, 1) != 0xcb)
        bad(r);
    uint64_t bits = get_be(r, 8);
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* Number of elements; each takes at least min_bytes of what is left. */
static size_t get_array(struct reader *r, size_t min_bytes)
{
    unsigned tag = (unsigned)get_be(r, 1);
    uint64_t n = (tag & 0xf0) == 0x90 ? (tag & 0x0f)
                 : tag == 0xdc        ? get_be(r, 2)
                 : tag == 0xdd        ? get_be(r, 4)
                                      : bad(r);
    if (r->is_bad || n > r->left / (min_bytes ? min_bytes : 1))
        return (size_t)bad(r);
    return (size_t)n;
}

static size_t get_str_len(struct reader *r)
{
    unsigned tag = (unsigned)get_be(r, 1);
    return (size_t)((tag & 0xe0) == 0xa0 ? (tag & 0x1f)
                    : tag == 0xd9        ? get_be(r, 1)
                    : tag == 0xda        ? get_be(r, 2)
                    : tag == 0xdb        ? get_be(r, 4)
                                         : bad(r));
}

static size_t get_bytes_len(struct reader *r)
{
    unsigned tag = (unsigned)get_be(r, 1);
    return (size_t)(tag == 0xc4   ? get_be(r, 1)
                    : tag == 0xc5 ? get_be(r, 2)
                    : tag == 0xc6 ? get_be(r, 4)
                                  : bad(r));
}

/* The next len bytes, copied with a NUL behind them. */
static const void *get_blob(struct reader *r, struct arena *a, size_t len, size_t max)
{
    if (r->is_bad || len > r->left || len > max) {
        bad(r);
        return NULL;
    }
    char *copy = take(a, len + 1, 1);
    if (copy) {
        memcpy(copy, r->at, len);
        copy[len] = '\0';
    }
    r->at += len;
    r->left -= len;
    return copy;
}

/* Skip one value of any kind, however nested: `pending` values are still to come. */
static void skip(struct reader *r)
{
    for (uint64_t pending = 1; pending > 0 && !r->is_bad; pending--) {
        unsigned tag = (unsigned)get_be(r, 1);
        uint64_t bytes = 0;
        if (tag <= 0x7f || tag >= 0xe0 || tag == 0xc0 || tag == 0xc2 || tag == 0xc3)
            bytes = 0;
        else if (tag <= 0x8f)
            pending += 2u * (tag & 0x0f);
        else if (tag <= 0x9f)
            pending += tag & 0x0f;
        else if (tag <= 0xbf)
            bytes = tag & 0x1f;
        else if (tag >= 0xc4 && tag <= 0xc6)
            bytes = get_be(r, 1u << (tag - 0xc4));
        else if (tag >= 0xc7 && tag <= 0xc9)
            bytes = 1 + get_be(r, 1u << (tag - 0xc7));
        else if (tag == 0xca || tag == 0xcb)
            bytes = tag == 0xca ? 4 : 8;
        else if (tag >= 0xcc && tag <= 0xcf)
            bytes = 1u << (tag - 0xcc);
        else if (tag >= 0xd0 && tag <= 0xd3)
            bytes = 1u << (tag - 0xd0);
        else if (tag >= 0xd4 && tag <= 0xd8)
            bytes = 1 + (1u << (tag - 0xd4));
        else if (tag >= 0xd9 && tag <= 0xdb)
            bytes = get_be(r, 1u << (tag - 0xd9));
        else if (tag == 0xdc || tag == 0xdd)
            pending += get_be(r, tag == 0xdc ? 2 : 4);
        else if (tag == 0xde || tag == 0xdf)
            pending += 2 * get_be(r, tag == 0xde ? 2 : 4);
        else
            bad(r);
        if (r->is_bad || bytes > r->left || pending - 1 > r->left - bytes) {
            bad(r);
            return;
        }
        r->at += bytes;
        r->left -= (size_t)bytes;
    }
}

static struct orr_addr get_addr(struct reader *r)
{
    struct orr_addr a = {0};
    size_t n = get_array(r, 1);
    if (n < 3) {
        bad(r);
        return a;
    }
    a.host = get_uint(r, UINT64_MAX);
    a.incarnation = (uint32_t)get_uint(r, UINT32_MAX);
    a.slot = get_uint(r, UINT64_MAX);
    for (size_t i = 3; i < n && !r->is_bad; i++)
        skip(r);
    return a;
}

static void get_record(struct reader *r,
                       struct arena *a,
                       const struct orr_rec_desc *desc,
                       void *out);

static void get_list(struct reader *r,
                     struct arena *a,
                     const struct orr_rec_desc *desc,
                     struct orr_list_any *out)
{
    size_t mandatory = 1;
    for (unsigned i = 0; i < desc->n_fields; i++)
        mandatory += desc->fields[i].since <= 1;
    size_t n = get_array(r, mandatory);
    if (n > ORR_LIST_MAX) {
        bad(r);
        return;
    }
    char *items = take(a, n * desc->size, 8);
    for (size_t i = 0; i < n && !r->is_bad; i++)
        get_record(r, a, desc, items ? items + i * desc->size : NULL);
    if (out)
        *out = (struct orr_list_any){items, (uint32_t)n};
}

#define SET(type, value)                                                               \
    do {                                                                               \
        type v_ = (value);                                                             \
        if (out)                                                                       \
            *(type *)out = v_;                                                         \
    } while (0)

/* out is NULL while measuring. */
static void
get_field(struct reader *r, struct arena *a, const struct orr_field_desc *f, void *out)
{
    switch (f->type) {
    case ORR_T_bool:
        SET(bool, get_bool(r));
        break;
    case ORR_T_u32:
        SET(uint32_t, (uint32_t)get_uint(r, UINT32_MAX));
        break;
    case ORR_T_u64:
        SET(uint64_t, get_uint(r, UINT64_MAX));
        break;
    case ORR_T_i64:
        SET(int64_t, get_int(r));
        break;
    case ORR_T_f64:
        SET(double, get_f64(r));
        break;
    case ORR_T_str: {
        size_t len = get_str_len(r);
        const char *text = get_blob(r, a, len, ORR_STR_MAX);
        SET(struct orr_str, ((struct orr_str){text, (uint32_t)len}));
        break;
    }
    case ORR_T_bytes: {
        size_t len = get_bytes_len(r);
        const uint8_t *bytes = get_blob(r, a, len, ORR_BYTES_MAX);
        SET(struct orr_bytes, ((struct orr_bytes){bytes, (uint32_t)len}));
        break;
    }
    case ORR_T_addr:
        SET(struct orr_addr, get_addr(r));
        break;
    case ORR_T_record:
        get_record(r, a, f->record(), out);
        break;
    case ORR_T_list:
        get_list(r, a, f->record(), out);
        break;
    }
}

static void get_record(struct reader *r,
                       struct arena *a,
                       const struct orr_rec_desc *desc,
                       void *out)
{
    size_t n = get_array(r, 1);
    if (out)
        memset(out, 0, desc->size);
    for (unsigned i = 0; i < desc->n_fields && !r->is_bad; i++) {
        const struct orr_field_desc *f = &desc->fields[i];
        if (i < n)
            get_field(r, a, f, out ? (char *)out + f->offset : NULL);
        else if (f->since <= 1)
            bad(r);
    }
    for (size_t i = desc->n_fields; i < n && !r->is_bad; i++)
        skip(r);
}

enum orr_err orr_msg_decode_size(const struct orr_msg_desc *desc,
                                 const uint8_t *buf,
                                 size_t len,
                                 size_t *ret_size,
                                 size_t *ret_taken)
{
    struct reader r = {.at = buf, .left = len};
    struct arena a = {.used = desc->body.size};
    if (len > ORR_BODY_MAX)
        return ORR_EPROTO;
    get_record(&r, &a, &desc->body, NULL);
    if (r.is_bad)
        return ORR_EPROTO;
    *ret_size = a.used;
    *ret_taken = len - r.left;
    return ORR_OK;
}

enum orr_err orr_msg_decode(const struct orr_msg_desc *desc,
                            const uint8_t *buf,
                            size_t len,
                            void *dst,
                            size_t cap)
{
    size_t size, taken;
    enum orr_err err = orr_msg_decode_size(desc, buf, len, &size, &taken);
    if (err)
        return err;
    if (size > cap)
        return ORR_ENOSPC;
    struct reader r = {.at = buf, .left = len};
    struct arena a = {.base = dst, .used = desc->body.size, .cap = cap};
    get_record(&r, &a, &desc->body, dst);
    ORR_ASSERT(!r.is_bad);
    return ORR_OK;
}
