/* SPDX-License-Identifier: Apache-2.0
 * letter.c - a message, or another effect of a handler, in the kernel's hands.
 */
#include "core.h"

static inline struct orri_letter *
new_letter(struct orri_worker *w, size_t body, size_t tail, bool must)
{
    uint8_t class;
    body = (body + 7) & ~(size_t)7;
    struct orri_letter *letter = orri_block_new(
        &w->sys->pool, &w->cache, sizeof(*letter) + body + tail, must, &class);
    if (!letter)
        return NULL;
    *letter = (struct orri_letter){.class = class, .bytes = (uint32_t)body};
    return letter;
}

struct orri_letter *orri_letter_new(struct orri_worker *w, size_t body, bool must)
{
    return new_letter(w, body, 0, must);
}

struct orri_letter *orri_letter_space(struct orri_worker *w,
                                      const struct orr_msg_desc *desc,
                                      size_t body,
                                      const uint8_t *trace,
                                      bool must)
{
    struct orri_letter *letter = new_letter(w, body, trace ? ORRI_TRACE : 0, must);
    if (!letter)
        return NULL;
    letter->desc = desc;
    if (trace) {
        letter->flags = LETTER_TRACED;
        memcpy(orri_letter_trace(letter), trace, ORRI_TRACE);
    }
    return letter;
}

struct orri_letter *orri_letter_make(struct orri_worker *w,
                                     const struct orr_msg_desc *desc,
                                     const void *msg,
                                     const uint8_t *trace,
                                     bool must)
{
    if (!desc->is_flat || trace) {
        size_t bytes = orr_msg_size(desc, msg);
        struct orri_letter *letter = orri_letter_space(w, desc, bytes, trace, must);
        if (letter)
            orr_msg_copy(desc, msg, letter->body);
        return letter;
    }
    size_t bytes = desc->body.size;
    struct orri_letter *letter = new_letter(w, bytes, 0, must);
    if (!letter)
        return NULL;
    letter->desc = desc;
    if (bytes == 2 * sizeof(uint64_t)) /* the most common size, without a call */
        memcpy(letter->body, msg, 2 * sizeof(uint64_t));
    else
        memcpy(letter->body, msg, bytes);
    return letter;
}

void orri_letter_free(struct orri_worker *w, struct orri_letter *letter)
{
    size_t tail = letter->flags & LETTER_TRACED ? ORRI_TRACE : 0;
    orri_block_free(&w->sys->pool,
                    &w->cache,
                    letter,
                    letter->class,
                    sizeof(*letter) + letter->bytes + tail);
}
