/* SPDX-License-Identifier: Apache-2.0
 * handle.c - the table of live handles: a program's pointer is looked up, never
 * followed.
 */
#include "driver.h"

#include <stddef.h>

enum { BUCKETS = 1024 };
static struct emu_object *buckets[BUCKETS];

static struct emu_object **bucket_of(const void *handle)
{
    uintptr_t h = (uintptr_t)handle >> 4;
    return &buckets[(h ^ (h >> 10)) % BUCKETS];
}

void emu_object_init(struct emu_object *o, enum emu_kind kind, struct CUctx_st *ctx)
{
    struct emu_object **b = bucket_of(o);
    *o = (struct emu_object){kind, 1, true, ctx, *b};
    *b = o;
}

void *emu_object_find(const void *handle, enum emu_kind kind)
{
    for (struct emu_object *o = *bucket_of(handle); o; o = o->next)
        if (o == handle)
            return o->kind == kind ? o : NULL;
    return NULL;
}

void emu_object_kill(struct emu_object *o)
{
    if (!o->is_live)
        return;
    struct emu_object **at = bucket_of(o);
    while (*at != o)
        at = &(*at)->next;
    *at = o->next;
    o->is_live = false;
}

/* In no order; objects may come and go only between walks. */
void *emu_object_next(const void *after, enum emu_kind kind)
{
    const struct emu_object *prev = after;
    size_t i = prev ? (size_t)(bucket_of(prev) - buckets) : 0;
    struct emu_object *o = prev ? prev->next : buckets[0];
    for (;; o = o->next) {
        while (!o && ++i < BUCKETS)
            o = buckets[i];
        if (!o || o->kind == kind)
            return o;
    }
}

void *emu_object_any(enum emu_kind kind, const struct CUctx_st *ctx)
{
    for (int i = 0; i < BUCKETS; i++)
        for (struct emu_object *o = buckets[i]; o; o = o->next)
            if (o->kind == kind && o->ctx == ctx)
                return o;
    return NULL;
}
