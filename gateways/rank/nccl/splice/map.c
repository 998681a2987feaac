/* SPDX-License-Identifier: Apache-2.0
 * map.c - see map.h.
 */
#include "map.h"

#include <stdlib.h>
#include <string.h>

enum { FLAG_BYTES = 32, ALIGN = 512, MAIL_SHARE = 8 };

/* ---- programs ------------------------------------------------------------------------------- */

static bool add_combine(struct orri_program *p, const struct orri_combine *c)
{
    struct orri_combine *more = realloc(p->at, (size_t)(p->n + 1) * sizeof *more);

    if (!more)
        return false;
    p->at = more;
    p->at[p->n++] = *c;
    return true;
}

/* The whole tree over n values: three levels of it at a time. */
static bool even_program(struct orri_program *p, int n)
{
    for (int stride = 1; stride < n; stride *= ORRI_FAN)
        for (int i = 0; i < n; i += ORRI_FAN * stride) {
            struct orri_combine c = {.m = 0};
            for (int k = 0; k < ORRI_FAN && i + k * stride < n; k++)
                c.in[c.m++] = i + k * stride;
            if (c.m > 1 && !add_combine(p, &c))
                return false;
        }
    return true;
}

static int part_at(const struct orri_map *map, int first)
{
    int i = 0;

    while (map->parts[i].first != first)
        i++;
    return i;
}

/* Whether no part is larger than the nodes at `depth` below this one. */
static bool is_depth(const struct orri_map *map, int first, int span, int depth)
{
    int size = span >> depth;

    if (size == 0)
        return false;
    for (int at = first; at < first + span && at < map->n;) {
        int span_here = map->parts[part_at(map, at)].span;
        if (span_here > size)
            return false;
        at += size;
    }
    return true;
}

/* The node of the tree that spans these ranks, of its parts. */
static bool top_program(struct orri_map *map, int first, int span)
{
    struct orri_combine c = {.m = 0};
    int depth = 3;

    if (map->parts[part_at(map, first)].span >= span)
        return true;
    while (!is_depth(map, first, span, depth))
        depth--;
    for (int at = first; at < first + span && at < map->n; at += span >> depth) {
        if (!top_program(map, at, span >> depth))
            return false;
        c.in[c.m++] = part_at(map, at);
    }
    return c.m < 2 || add_combine(&map->top, &c);
}

/* ---- parts ---------------------------------------------------------------------------------- */

static bool add_part(struct orri_map *map, struct orri_subtree part, const int *ranks)
{
    struct orri_subtree *more =
        realloc(map->parts, (size_t)(map->nparts + 1) * sizeof *more);

    if (!more)
        return false;
    map->parts = more;
    part.ranks = malloc((size_t)part.n * sizeof *part.ranks);
    if (!part.ranks)
        return false;
    memcpy(part.ranks, ranks, (size_t)part.n * sizeof *part.ranks);
    map->parts[map->nparts++] = part;
    return even_program(&map->parts[map->nparts - 1].program, part.n);
}

static bool find_subtrees(struct orri_map *map, int first, int span, const int *all)
{
    int end = first + span < map->n ? first + span : map->n;
    bool is_one = true;

    if (first >= map->n)
        return true;
    for (int r = first; r < end; r++)
        is_one = is_one && map->device_of[r] == map->device_of[first];
    if (is_one)
        return add_part(map,
                        (struct orri_subtree){.device = map->device_of[first],
                                              .first = first,
                                              .span = span,
                                              .n = end - first},
                        all + first);
    return find_subtrees(map, first, span / 2, all) &&
           find_subtrees(map, first + span / 2, span / 2, all);
}

static bool find_parts(struct orri_map *map)
{
    int *list = calloc((size_t)map->n, sizeof *list), span = 1;
    bool ok = list != NULL;

    while (span < map->n)
        span *= 2;
    if (ok && map->is_ordered) {
        for (int r = 0; r < map->n; r++)
            list[r] = r;
        ok = find_subtrees(map, 0, span, list) && top_program(map, 0, span);
    } else if (ok) {
        for (int d = 0; d < map->ndevices && ok; d++) {
            int n = 0;
            for (int r = 0; r < map->n; r++)
                if (map->device_of[r] == d)
                    list[n++] = r;
            ok = add_part(map,
                          (struct orri_subtree){.device = d, .first = list[0], .n = n},
                          list);
        }
        ok = ok && even_program(&map->top, map->ndevices);
    }
    free(list);
    return ok;
}

/* ---- the map -------------------------------------------------------------------------------- */

static void find_devices(struct orri_map *map, const uint64_t *place)
{
    for (int r = 0; r < map->n; r++) {
        int d = 0;
        while (d < map->ndevices && place[map->leader[d]] != place[r])
            d++;
        if (d == map->ndevices)
            map->leader[map->ndevices++] = r;
        map->device_of[r] = d;
        map->local_of[r] = map->count[d]++;
        if (map->count[d] > map->most)
            map->most = map->count[d];
    }
    map->device = map->device_of[map->me];
    for (int r = 0, k = 0; r < map->n; r++)
        if (map->device_of[r] == map->device)
            map->members[k++] = r;
}

bool orri_map_init(
    struct orri_map *map, int n, int me, const uint64_t *place, bool is_ordered)
{
    size_t bytes = (size_t)n * sizeof(int);

    *map = (struct orri_map){.n = n, .me = me, .is_ordered = is_ordered};
    map->device_of = calloc(1, bytes);
    map->local_of = calloc(1, bytes);
    map->count = calloc(1, bytes);
    map->leader = calloc(1, bytes);
    map->members = calloc(1, bytes);
    if (map->device_of && map->local_of && map->count && map->leader && map->members) {
        find_devices(map, place);
        if (find_parts(map))
            return true;
    }
    orri_map_fini(map);
    return false;
}

void orri_map_fini(struct orri_map *map)
{
    for (int i = 0; i < map->nparts; i++) {
        free(map->parts[i].ranks);
        free(map->parts[i].program.at);
    }
    free(map->parts);
    free(map->top.at);
    free(map->device_of);
    free(map->local_of);
    free(map->count);
    free(map->leader);
    free(map->members);
    *map = (struct orri_map){.n = 0};
}

/* ---- the scratch ---------------------------------------------------------------------------- */

static size_t down(size_t bytes)
{
    return bytes / ALIGN * ALIGN;
}

/* inbox: room for what all parts send of one device's share of a result; each is rounded up to ALIGN. */
bool orri_layout_init(struct orri_layout *l, const struct orri_map *map, size_t bytes)
{
    size_t most = (size_t)map->most, parts = (size_t)map->nparts;
    size_t devices = (size_t)map->ndevices;
    size_t rounding = (parts + devices) * ALIGN,
           shares = (parts + devices - 1) / devices;
    size_t mail = bytes / MAIL_SHARE, half, words;

    *l = (struct orri_layout){
        .bytes = bytes, .most = map->most, .ndevices = map->ndevices};
    words = orri_flag_vote(l, map->ndevices) / FLAG_BYTES + 1;
    l->flags = (words * FLAG_BYTES + ALIGN - 1) / ALIGN * ALIGN;
    l->mail = down(mail / (2 * most * most));
    mail = l->mail * 2 * most * most;
    if (l->flags + mail >= bytes)
        return false;
    half = down((bytes - l->flags - mail) / 2);
    if (half < rounding + ALIGN)
        return false;
    l->slot = down((half - rounding) / (most + 1 + shares));
    l->result = l->slot + devices * ALIGN;
    l->half[0] = l->flags;
    l->half[1] = l->flags + half;
    l->inbox = half - most * l->slot - l->result;
    l->mail_at = l->flags + 2 * half;
    return l->slot >= ALIGN && l->mail >= ALIGN &&
           l->slot / (size_t)map->n >= 16; /* a block of any type */
}

size_t orri_layout_slot(const struct orri_layout *l, int half, int local)
{
    return l->half[half] + (size_t)local * l->slot;
}

size_t orri_layout_result(const struct orri_layout *l, int half)
{
    return l->half[half] + (size_t)l->most * l->slot;
}

size_t orri_layout_inbox(const struct orri_layout *l, int half)
{
    return orri_layout_result(l, half) + l->result;
}

size_t orri_layout_mail(const struct orri_layout *l, int from, int to, int half)
{
    return l->mail_at + (size_t)((from * l->most + to) * 2 + half) * l->mail;
}

static size_t flag(int number)
{
    return (size_t)number * FLAG_BYTES;
}

size_t orri_flag_done(const struct orri_layout *l, int waiter)
{
    return flag(waiter * (1 + 2 * l->most));
}

size_t orri_flag_ready(const struct orri_layout *l, int waiter, int local)
{
    return orri_flag_done(l, waiter) + flag(1 + 2 * local);
}

size_t orri_flag_taken(const struct orri_layout *l, int waiter, int local)
{
    return orri_flag_done(l, waiter) + flag(2 + 2 * local);
}

size_t orri_flag_sent(const struct orri_layout *l, int from, int to)
{
    return orri_flag_done(l, l->most) + flag(2 * (from * l->most + to));
}

size_t orri_flag_got(const struct orri_layout *l, int from, int to)
{
    return orri_flag_sent(l, from, to) + flag(1);
}

size_t orri_flag_broken(const struct orri_layout *l, int local)
{
    return orri_flag_sent(l, l->most, 0) + flag(local);
}

size_t orri_flag_left(const struct orri_layout *l, int local)
{
    return orri_flag_broken(l, local) + sizeof(uint32_t);
}

/* One after the other, as an all-gather puts them. */
size_t orri_flag_vote(const struct orri_layout *l, int device)
{
    return orri_flag_broken(l, l->most) + (size_t)device * 2 * sizeof(uint32_t);
}
