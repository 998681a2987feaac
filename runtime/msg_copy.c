/* SPDX-License-Identifier: Apache-2.0
 * msg_copy.c - a message into one block: the struct, then its lists and texts, each
 * pointer moved to its copy.
 */
#include "orrery/msg.h"

static size_t align8(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

/* Adds to `used` what the record's pointers need; the order must be that of copy_tail.
 */
static size_t tail_size(const struct orr_rec_desc *desc, const void *rec, size_t used)
{
    for (unsigned i = 0; i < desc->n_fields; i++) {
        const struct orr_field_desc *f = &desc->fields[i];
        const void *at = (const char *)rec + f->offset;
        if (f->type == ORR_T_str) {
            used += ((const struct orr_str *)at)->len + 1u;
        } else if (f->type == ORR_T_bytes) {
            used += ((const struct orr_bytes *)at)->len + 1u;
        } else if (f->type == ORR_T_record) {
            used = tail_size(f->record(), at, used);
        } else if (f->type == ORR_T_list) {
            const struct orr_list_any *list = at;
            const struct orr_rec_desc *item = f->record();
            used = align8(used) + (size_t)list->n * item->size;
            for (uint32_t k = 0; k < list->n; k++)
                used = tail_size(
                    item, (const char *)list->at + (size_t)k * item->size, used);
        }
    }
    return used;
}

static const void *copy_blob(char *base, size_t *used, const void *src, size_t len)
{
    char *dst = base + *used;
    if (len)
        memcpy(dst, src, len);
    dst[len] = '\0';
    *used += len + 1;
    return dst;
}

/* rec is already a plain copy inside the block that starts at base. */
static void
copy_tail(const struct orr_rec_desc *desc, void *rec, char *base, size_t *used)
{
    for (unsigned i = 0; i < desc->n_fields; i++) {
        const struct orr_field_desc *f = &desc->fields[i];
        void *at = (char *)rec + f->offset;
        if (f->type == ORR_T_str) {
            struct orr_str *s = at;
            s->ptr = copy_blob(base, used, s->ptr, s->len);
        } else if (f->type == ORR_T_bytes) {
            struct orr_bytes *b = at;
            b->ptr = copy_blob(base, used, b->ptr, b->len);
        } else if (f->type == ORR_T_record) {
            copy_tail(f->record(), at, base, used);
        } else if (f->type == ORR_T_list) {
            struct orr_list_any *list = at;
            const struct orr_rec_desc *item = f->record();
            *used = align8(*used);
            char *items = base + *used;
            if (list->n)
                memcpy(items, list->at, (size_t)list->n * item->size);
            *used += (size_t)list->n * item->size;
            list->at = items;
            for (uint32_t k = 0; k < list->n; k++)
                copy_tail(item, items + (size_t)k * item->size, base, used);
        }
    }
}

size_t orr_msg_size(const struct orr_msg_desc *desc, const void *msg)
{
    return desc->is_flat ? desc->body.size
                         : tail_size(&desc->body, msg, desc->body.size);
}

void orr_msg_copy(const struct orr_msg_desc *desc, const void *msg, void *dst)
{
    memcpy(dst, msg, desc->body.size);
    if (desc->is_flat)
        return;
    size_t used = desc->body.size;
    copy_tail(&desc->body, dst, dst, &used);
}
