/* SPDX-License-Identifier: Apache-2.0
 * dispatch.c - a type's handlers by message id, as a perfect hash: one multiplication finds the row.
 */
#include "core.h"

static bool try_multiplier(struct orri_dispatch *d, unsigned bits, uint32_t multiplier)
{
    memset(d->rows, 0, sizeof(d->rows[0]) << bits);
    d->multiplier = multiplier;
    d->shift = (uint8_t)(32 - bits);
    for (size_t i = 0; i < d->type->n_handlers; i++) {
        uint32_t at = (d->type->handlers[i].msg_id * multiplier) >> d->shift;
        if (d->rows[at])
            return false;
        d->rows[at] = (uint16_t)(i + 1);
    }
    return true;
}

struct orri_dispatch *orri_dispatch_new(const struct orr_actor_type *type)
{
    for (size_t i = 0; i < type->n_handlers; i++)
        for (size_t j = 0; j < i; j++)
            ORR_ASSERT(type->handlers[i].msg_id != type->handlers[j].msg_id);
    unsigned bits = 2;
    while ((UINT64_C(1) << bits) < 2 * type->n_handlers)
        bits++;
    for (;; bits++) {
        struct orri_dispatch *d =
            orri_zalloc(sizeof(*d) + (sizeof(d->rows[0]) << bits));
        if (!d)
            return NULL;
        d->type = type;
        for (size_t i = 0; i < type->n_handlers; i++)
            d->has_policy |= type->handlers[i].overflow != ORR_REFUSE;
        uint32_t multiplier = 0x9e3779b1u;
        for (int tries = 0; tries < 256; tries++, multiplier = multiplier * 5 + 2)
            if (try_multiplier(d, bits, multiplier | 1))
                return d;
        free(d);
    }
}
