/* SPDX-License-Identifier: Apache-2.0
 * letter_make.h - making and freeing letters; included by core.h.  Inline, because every message passes here.
 */
#ifndef ORRI_LETTER_MAKE_H
#define ORRI_LETTER_MAKE_H

/* A body of that many bytes still to be filled in, and room for a trace id behind it.  must: see memory.h. */
static inline struct orri_letter *
orri_letter_space(struct orri_worker *w, size_t body, size_t tail, bool must)
{
    uint8_t class;
    body = (body + 7) & ~(size_t)7;
    struct orri_letter *letter = (struct orri_letter *)orri_block_new(
        &w->sys->pool, &w->cache, sizeof(*letter) + body + tail, must, &class);
    if (letter)
        *letter = (struct orri_letter){.class = class, .bytes = (uint32_t)body};
    return letter;
}

static inline void orri_letter_free(struct orri_worker *w, struct orri_letter *letter)
{
    size_t tail = letter->flags & LETTER_TRACED ? ORRI_TRACE : 0;
    orri_block_free(&w->sys->pool,
                    &w->cache,
                    letter,
                    letter->class,
                    sizeof(*letter) + letter->bytes + tail);
}

static inline uint8_t *orri_letter_trace(struct orri_letter *letter)
{
    return letter->flags & LETTER_TRACED ? letter->body + letter->bytes : NULL;
}

static inline void orri_letter_set_trace(struct orri_letter *letter,
                                         const uint8_t *trace)
{
    letter->flags |= LETTER_TRACED;
    memcpy(orri_letter_trace(letter), trace, ORRI_TRACE);
}

/* A copy of msg and all it points to.  trace: NULL for none. */
static inline struct orri_letter *orri_letter_make(struct orri_worker *w,
                                                   const struct orr_msg_desc *desc,
                                                   const void *msg,
                                                   const uint8_t *trace,
                                                   bool must)
{
    enum {
        USUAL = 2 * sizeof(uint64_t)
    }; /* the most common size: copied without a call */
    size_t bytes = desc->is_flat ? desc->body.size : orr_msg_size(desc, msg);
    struct orri_letter *letter =
        orri_letter_space(w, bytes, trace ? ORRI_TRACE : 0, must);
    if (!letter)
        return NULL;
    letter->desc = desc;
    if (trace)
        orri_letter_set_trace(letter, trace);
    if (!desc->is_flat)
        orr_msg_copy(desc, msg, letter->body);
    else if (bytes == USUAL)
        memcpy(letter->body, msg, USUAL);
    else
        memcpy(letter->body, msg, bytes);
    return letter;
}

#endif
