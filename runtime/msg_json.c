/* SPDX-License-Identifier: Apache-2.0
 * msg_json.c - a message as one line of JSON, for people and for the event stream.
 * Never read back.
 */
#include "orrery/msg.h"

#include <inttypes.h>

struct printer {
    char *buf;
    size_t cap;
    size_t len; /* full length, also beyond cap */
};

static void put_char(struct printer *p, char c)
{
    if (p->len < p->cap)
        p->buf[p->len] = c;
    p->len++;
}

static void put_text(struct printer *p, const char *text)
{
    while (*text)
        put_char(p, *text++);
}

/* Length of the UTF-8 sequence at s, 0 if it is none. */
static size_t utf8_len(const uint8_t *s, size_t left)
{
    size_t n = s[0] < 0x80                   ? 1
               : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
               : (s[0] & 0xf0) == 0xe0       ? 3
               : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
                                             : 0;
    if (n > left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0; /* overlong, surrogate, or beyond U+10FFFF */
    return n;
}

static void put_quoted(struct printer *p, const void *bytes, size_t len)
{
    const uint8_t *s = bytes;
    put_char(p, '"');
    for (size_t i = 0; i < len;) {
        size_t n = utf8_len(s + i, len - i);
        if (n == 1 && (s[i] == '"' || s[i] == '\\')) {
            put_char(p, '\\');
            put_char(p, (char)s[i]);
        } else if (n == 0 || s[i] < 0x20 || s[i] == 0x7f) {
            char esc[8];
            snprintf(esc, sizeof esc, "\\u%04x", s[i]);
            put_text(p, s[i] == '\n' ? "\\n" : s[i] == '\t' ? "\\t" : esc);
            n = 1;
        } else {
            for (size_t k = 0; k < n; k++)
                put_char(p, (char)s[i + k]);
        }
        i += n;
    }
    put_char(p, '"');
}

static void
put_record(struct printer *p, const struct orr_rec_desc *desc, const void *rec);

static void put_list(struct printer *p,
                     const struct orr_rec_desc *desc,
                     const struct orr_list_any *list)
{
    put_char(p, '[');
    for (uint32_t i = 0; i < list->n; i++) {
        if (i)
            put_char(p, ',');
        put_record(p, desc, (const char *)list->at + (size_t)i * desc->size);
    }
    put_char(p, ']');
}

static void put_addr(struct printer *p, const struct orr_addr *a)
{
    char text[64];
    snprintf(text,
             sizeof text,
             "\"%016" PRIx64 ".%" PRIu32 ".%" PRIx64 "\"",
             a->host,
             a->incarnation,
             a->slot);
    put_text(p, text);
}

static void put_value(struct printer *p, const struct orr_field_desc *f, const void *at)
{
    char num[40] = "";
    switch (f->type) {
    case ORR_T_bool:
        put_text(p, *(const bool *)at ? "true" : "false");
        break;
    case ORR_T_u32:
        snprintf(num, sizeof num, "%" PRIu32, *(const uint32_t *)at);
        break;
    case ORR_T_u64:
        snprintf(num, sizeof num, "%" PRIu64, *(const uint64_t *)at);
        break;
    case ORR_T_i64:
        snprintf(num, sizeof num, "%" PRId64, *(const int64_t *)at);
        break;
    case ORR_T_f64: {
        double v = *(const double *)at;
        bool is_finite = v - v == 0.0;
        snprintf(num, sizeof num, is_finite ? "%.17g" : "null", v);
        break;
    }
    case ORR_T_str:
        put_quoted(
            p, ((const struct orr_str *)at)->ptr, ((const struct orr_str *)at)->len);
        break;
    case ORR_T_bytes:
        put_quoted(p,
                   ((const struct orr_bytes *)at)->ptr,
                   ((const struct orr_bytes *)at)->len);
        break;
    case ORR_T_addr:
        put_addr(p, at);
        break;
    case ORR_T_record:
        put_record(p, f->record(), at);
        break;
    case ORR_T_list:
        put_list(p, f->record(), at);
        break;
    }
    put_text(p, num);
}

static void
put_record(struct printer *p, const struct orr_rec_desc *desc, const void *rec)
{
    put_char(p, '{');
    for (unsigned i = 0; i < desc->n_fields; i++) {
        const struct orr_field_desc *f = &desc->fields[i];
        if (i)
            put_char(p, ',');
        put_char(p, '"');
        put_text(p, f->name);
        put_text(p, "\":");
        put_value(p, f, (const char *)rec + f->offset);
    }
    put_char(p, '}');
}

size_t
orr_rec_json(const struct orr_rec_desc *desc, const void *rec, char *buf, size_t cap)
{
    struct printer p = {.buf = buf, .cap = cap};
    put_record(&p, desc, rec);
    if (cap)
        buf[p.len < cap ? p.len : cap - 1] = '\0';
    return p.len;
}

size_t
orr_msg_json(const struct orr_msg_desc *desc, const void *msg, char *buf, size_t cap)
{
    return orr_rec_json(&desc->body, msg, buf, cap);
}
