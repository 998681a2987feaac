/* SPDX-License-Identifier: Apache-2.0
 * table.c - see table.h.
 */
#include "table.h"

#include <stdlib.h>
#include <string.h>

size_t orri_table_from(const struct orri_table *t, uint64_t at)
{
    size_t low = 0, high = t->n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (t->items[mid]->at + t->items[mid]->bytes <= at)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct orri_span *orri_table_find(const struct orri_table *t, uint64_t at)
{
    size_t i = orri_table_from(t, at);
    return i < t->n && t->items[i]->at <= at ? t->items[i] : NULL;
}

bool orri_table_make_room(struct orri_table *t)
{
    if (t->n < t->cap)
        return true;
    size_t cap = t->cap ? 2 * t->cap : 64;
    struct orri_span **items = realloc(t->items, cap * sizeof(*items));
    if (!items)
        return false;
    t->items = items;
    t->cap = cap;
    return true;
}

void orri_table_insert(struct orri_table *t, struct orri_span *s)
{
    size_t i = orri_table_from(t, s->at);
    memmove(&t->items[i + 1], &t->items[i], (t->n - i) * sizeof(*t->items));
    t->items[i] = s;
    t->n++;
}

void orri_table_remove(struct orri_table *t, const struct orri_span *s)
{
    size_t i = orri_table_from(t, s->at);
    if (i == t->n || t->items[i] != s)
        return;
    t->n--;
    memmove(&t->items[i], &t->items[i + 1], (t->n - i) * sizeof(*t->items));
}
