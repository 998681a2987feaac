/* SPDX-License-Identifier: Apache-2.0
 * msg_encode.c - C struct to msgpack: one loop over the field table.  Integers take
 * their shortest form.
 */
#include "orrery/msg.h"

struct writer {
    uint8_t *at;
    size_t left;
    bool is_full;     /* the buffer ended; what follows is dropped */
    bool is_too_long; /* a text, bytes or list beyond the limits */
};

static void put(struct writer *w, const void *src, size_t n)
{
    if (w->is_full || n > w->left) {
        w->is_full = true;
        return;
    }
    if (n)
        memcpy(w->at, src, n);
    w->at += n;
    w->left -= n;
}

/* A tag byte and `bytes` bytes of v, big-endian. */
static void put_tagged(struct writer *w, unsigned tag, uint64_t v, unsigned bytes)
{
    uint8_t out[9] = {(uint8_t)tag};
    for (unsigned i = 0; i < bytes; i++)
        out[1 + i] = (uint8_t)(v >> (8 * (bytes - 1 - i)));
    put(w, out, 1 + (size_t)bytes);
}

static void put_uint(struct writer *w, uint64_t v)
{
    if (v <= 0x7f)
        put_tagged(w, (unsigned)v, 0, 0);
    else if (v <= UINT8_MAX)
        put_tagged(w, 0xcc, v, 1);
    else if (v <= UINT16_MAX)
        put_tagged(w, 0xcd, v, 2);
    else if (v <= UINT32_MAX)
        put_tagged(w, 0xce, v, 4);
    else
        put_tagged(w, 0xcf, v, 8);
}

static void put_int(struct writer *w, int64_t v)
{
    if (v >= 0)
        put_uint(w, (uint64_t)v);
    else if (v >= -32)
        put_tagged(w, (unsigned)(v & 0xff), 0, 0);
    else
        put_tagged(w, 0xd3, (uint64_t)v, 8);
}

static void put_array(struct writer *w, size_t n)
{
    if (n <= 15)
        put_tagged(w, 0x90 | (unsigned)n, 0, 0);
    else if (n <= UINT16_MAX)
        put_tagged(w, 0xdc, n, 2);
    else
        put_tagged(w, 0xdd, n, 4);
}

static void put_str(struct writer *w, const struct orr_str *s)
{
    if (s->len > ORR_STR_MAX)
        w->is_too_long = true;
    else if (s->len <= 31)
        put_tagged(w, 0xa0 | s->len, 0, 0);
    else if (s->len <= UINT8_MAX)
        put_tagged(w, 0xd9, s->len, 1);
    else if (s->len <= UINT16_MAX)
        put_tagged(w, 0xda, s->len, 2);
    else
        put_tagged(w, 0xdb, s->len, 4);
    put(w, s->ptr, s->len);
}

static void put_bytes(struct writer *w, const struct orr_bytes *b)
{
    if (b->len > ORR_BYTES_MAX)
        w->is_too_long = true;
    put_tagged(w, 0xc6, b->len, 4);
    put(w, b->ptr, b->len);
}

static void put_f64(struct writer *w, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_tagged(w, 0xcb, bits, 8);
}

static void put_addr(struct writer *w, const struct orr_addr *a)
{
    put_array(w, 3);
    put_uint(w, a->host);
    put_uint(w, a->incarnation);
    put_uint(w, a->slot);
}

static void
put_record(struct writer *w, const struct orr_rec_desc *desc, const void *rec);

static void
put_list(struct writer *w, const struct orr_rec_desc *desc, const void *field)
{
    const struct orr_list_any *list = field;
    if (list->n > ORR_LIST_MAX) {
        w->is_too_long = true;
        return;
    }
    put_array(w, list->n);
    for (uint32_t i = 0; i < list->n; i++)
        put_record(w, desc, (const char *)list->at + (size_t)i * desc->size);
}

static void put_field(struct writer *w, const struct orr_field_desc *f, const void *at)
{
    switch (f->type) {
    case ORR_T_bool:
        put_tagged(w, *(const bool *)at ? 0xc3 : 0xc2, 0, 0);
        break;
    case ORR_T_u32:
        put_uint(w, *(const uint32_t *)at);
        break;
    case ORR_T_u64:
        put_uint(w, *(const uint64_t *)at);
        break;
    case ORR_T_i64:
        put_int(w, *(const int64_t *)at);
        break;
    case ORR_T_f64:
        put_f64(w, *(const double *)at);
        break;
    case ORR_T_str:
        put_str(w, at);
        break;
    case ORR_T_bytes:
        put_bytes(w, at);
        break;
    case ORR_T_addr:
        put_addr(w, at);
        break;
    case ORR_T_record:
        put_record(w, f->record(), at);
        break;
    case ORR_T_list:
        put_list(w, f->record(), at);
        break;
    }
}

static void
put_record(struct writer *w, const struct orr_rec_desc *desc, const void *rec)
{
    put_array(w, desc->n_fields);
    for (unsigned i = 0; i < desc->n_fields; i++)
        put_field(w, &desc->fields[i], (const char *)rec + desc->fields[i].offset);
}

enum orr_err orr_msg_encode(const struct orr_msg_desc *desc,
                            const void *msg,
                            uint8_t *buf,
                            size_t cap,
                            size_t *ret_len)
{
    struct writer w = {.at = buf, .left = cap};
    put_record(&w, &desc->body, msg);
    if (w.is_full || w.is_too_long || cap - w.left > ORR_BODY_MAX)
        return ORR_ENOSPC;
    *ret_len = cap - w.left;
    return ORR_OK;
}

static size_t record_bound(const struct orr_rec_desc *desc, const void *rec)
{
    enum { HEAD = 5, SCALAR = 9, ADDR = 1 + 9 + 5 + 9 };
    size_t bound = HEAD;
    for (unsigned i = 0; i < desc->n_fields; i++) {
        const struct orr_field_desc *f = &desc->fields[i];
        const void *at = (const char *)rec + f->offset;
        if (f->type == ORR_T_str) {
            bound += HEAD + ((const struct orr_str *)at)->len;
        } else if (f->type == ORR_T_bytes) {
            bound += HEAD + ((const struct orr_bytes *)at)->len;
        } else if (f->type == ORR_T_addr) {
            bound += ADDR;
        } else if (f->type == ORR_T_record) {
            bound += record_bound(f->record(), at);
        } else if (f->type == ORR_T_list) {
            const struct orr_list_any *list = at;
            const struct orr_rec_desc *item = f->record();
            bound += HEAD;
            for (uint32_t k = 0; k < list->n; k++)
                bound +=
                    record_bound(item, (const char *)list->at + (size_t)k * item->size);
        } else {
            bound += SCALAR;
        }
    }
    return bound;
}

size_t orr_msg_encode_bound(const struct orr_msg_desc *desc, const void *msg)
{
    return record_bound(&desc->body, msg);
}
