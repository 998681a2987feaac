/* SPDX-License-Identifier: Apache-2.0
 * letter.c - a message, or another effect of a handler, in the kernel's hands.
 */
#include "core.h"

struct orri_letter *orri_letter_new(struct orri_worker *w, size_t body, bool must)
{
    uint8_t class;
    struct orri_letter *letter =
        orri_block_new(&w->sys->pool, &w->cache, sizeof(*letter) + body, must, &class);
    if (!letter)
        return NULL;
    memset(letter, 0, sizeof(*letter));
    letter->class = class;
    letter->bytes = (uint32_t)body;
    return letter;
}

struct orri_letter *orri_letter_make(struct orri_worker *w,
                                     const struct orr_msg_desc *desc,
                                     const void *msg,
                                     bool must)
{
    size_t bytes = desc->is_flat ? desc->body.size : orr_msg_size(desc, msg);
    struct orri_letter *letter = orri_letter_new(w, bytes, must);
    if (!letter)
        return NULL;
    letter->desc = desc;
    if (desc->is_flat)
        memcpy(letter->body, msg, bytes);
    else
        orr_msg_copy(desc, msg, letter->body);
    return letter;
}

void orri_letter_free(struct orri_worker *w, struct orri_letter *letter)
{
    orri_block_free(
        &w->sys->pool, &w->cache, letter, letter->class, sizeof(*letter) + letter->bytes);
}
