/* SPDX-License-Identifier: Apache-2.0
 * splice_machine_run.c - see splice_machine.h: the streams are worked off, and what they touched is looked at.
 *
 * A vector clock has for each stream the number of its newest work that is over for whoever has the clock.  Work begins with what its
 * stream had; waiting for a word adds what its writer had with the first write that is enough, waiting for an event what its stream had;
 * a kernel of NCCL ends with what its counterparts began with.
 */
#include "splice_machine_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orr_test.h"

struct write { /* of a word */
    uint64_t memory;
    size_t offset;
    uint32_t value, item;
};

struct access {
    uint64_t memory;
    size_t from, to;
    uint32_t item;
    bool is_write;
};

enum { ACCESSES = 1 << 17 };

static struct write *writes;
static size_t n_writes, n_waits;
static struct access *accesses;
static size_t n_accesses;

static void join(clock_vector to, const clock_vector from)
{
    for (uint32_t i = 0; i < machine.n_streams; i++)
        to[i] = to[i] > from[i] ? to[i] : from[i];
}

static bool touch(struct item *item, const void *at, size_t bytes, bool is_write)
{
    struct access *a = &accesses[n_accesses];
    if (bytes == 0)
        return true;
    assert_true(n_accesses + 1 < ACCESSES);
    *a =
        (struct access){.item = (uint32_t)(item - machine.items), .is_write = is_write};
    if (!machine_where(at, &a->memory, &a->from))
        return false;
    a->to = a->from + bytes;
    n_accesses++;
    return true;
}

/* ---- words ---- */

static bool try_wait(struct item *item)
{
    uint64_t memory;
    size_t offset;
    uint32_t now = *(volatile uint32_t *)(void *)item->to;
    assert_true(machine_where(item->to, &memory, &offset));
    if (item->equals ? now != item->value : (int32_t)(now - item->value) < 0)
        return false;
    n_waits++;
    for (size_t i = 0; i < n_writes && !item->equals; i++) {
        const struct write *w = &writes[i];
        if (w->memory != memory || w->offset != offset ||
            (int32_t)(w->value - item->value) < 0)
            continue;
        join(item->end, machine.items[w->item].end);
        break;
    }
    return true;
}

static bool do_write(struct item *item, char *why)
{
    struct write *w = &writes[n_writes++];
    uint32_t *at = (uint32_t *)(void *)item->to;
    assert_true(n_writes < ITEMS && machine_where(item->to, &w->memory, &w->offset));
    w->value = item->value;
    w->item = (uint32_t)(item - machine.items);
    if ((int32_t)(item->value - *at) <= 0) {
        snprintf(why,
                 MACHINE_WHY,
                 "a word goes from %u to %u: others' waits need it to grow",
                 *at,
                 item->value);
        return false;
    }
    *at = item->value;
    return true;
}

/* ---- kernels ---- */

static void combine(const struct item *item)
{
    for (size_t i = 0; i < item->bytes / sizeof(int32_t); i++) {
        int32_t sum = 0;
        for (int k = 0; k < item->n_in; k++)
            sum += ((const int32_t *)(const void *)item->in[k])[i];
        ((int32_t *)(void *)item->to)[i] = sum;
    }
}

static void each(const struct item *item)
{
    int32_t by = (int32_t)(item->scalar_at ? *item->scalar_at : item->value);
    for (size_t i = 0; i < item->bytes / sizeof(int32_t); i++) {
        int32_t x = ((const int32_t *)(const void *)item->in[0])[i];
        ((int32_t *)(void *)item->to)[i] = item->divides ? x / by : x * by;
    }
}

static bool do_kernel(struct item *item)
{
    bool is_known =
        touch(item, item->to, item->bytes, item->kind != ITEM_CALL || item->is_write);
    for (int i = 0; i < item->n_in; i++)
        is_known = touch(item, item->in[i], item->bytes, false) && is_known;
    if (!is_known)
        return false;
    if (item->kind == ITEM_COPY)
        memmove(item->to, item->in[0], item->bytes);
    else if (item->kind == ITEM_COMBINE)
        combine(item);
    else if (item->kind == ITEM_EACH)
        each(item);
    else
        item->fn(item->arg);
    return true;
}

/* ---- NCCL ---- */

static struct part *
find_part(int comm, int me, enum part_kind kind, int peer, uint32_t seq)
{
    for (uint32_t i = 0; i < machine.n_parts; i++) {
        struct part *p = &machine.parts[i];
        bool is_two = kind == PART_SEND || kind == PART_RECV;
        if (p->is_active && p->comm == comm && p->me == me && p->seq == seq &&
            (is_two ? p->kind == kind && p->peer == peer
                    : p->kind != PART_SEND && p->kind != PART_RECV))
            return p;
    }
    return NULL;
}

/* Once: a sender that is through may write into its buffer again. */
static void move_one(const struct part *from, struct part *to)
{
    if (!to->is_moved)
        memmove(to->recv, from->send, to->bytes);
    to->is_moved = true;
}

static void move_all(struct part *const *all, int n)
{
    const struct part *root = all[all[0]->peer];
    int32_t *sum = all[0]->kind == PART_ALL_REDUCE ? calloc(1, all[0]->bytes) : NULL;
    for (int i = 0; i < n && sum; i++)
        for (size_t k = 0; k < all[i]->bytes / sizeof(int32_t); k++)
            sum[k] += ((const int32_t *)(const void *)all[i]->send)[k];
    for (int i = 0; i < n; i++) {
        if (sum)
            memcpy(all[i]->recv, sum, all[i]->bytes);
        else if (all[i]->kind == PART_BROADCAST)
            memmove(all[i]->recv, root->send, all[i]->bytes);
        for (int k = 0; k < n && all[i]->kind == PART_ALL_GATHER; k++)
            memmove(
                all[i]->recv + (size_t)k * all[k]->bytes, all[k]->send, all[k]->bytes);
    }
    free(sum);
}

/* With all of its counterparts under way. */
static bool try_part(struct part *p, struct item *item)
{
    struct part *all[COMM_RANKS] = {0};
    int n = machine.comms[p->comm].n;
    if (p->kind == PART_SEND || p->kind == PART_RECV) {
        all[0] = find_part(p->comm,
                           p->peer,
                           p->kind == PART_SEND ? PART_RECV : PART_SEND,
                           p->me,
                           p->seq);
        n = 1;
        if (all[0])
            move_one(p->kind == PART_SEND ? p : all[0],
                     p->kind == PART_SEND ? all[0] : p);
    } else {
        bool is_first = true;
        for (int i = 0; i < n; i++) {
            all[i] = find_part(p->comm, i, p->kind, 0, p->seq);
            if (!all[i])
                return false;
            assert_int_equal(all[i]->kind, p->kind);
            is_first = is_first && !all[i]->is_done;
        }
        if (is_first)
            move_all(all, n);
    }
    for (int i = 0; i < n; i++) {
        if (!all[i])
            return false;
        assert_int_equal(all[i]->bytes, p->bytes);
        join(item->end, machine.items[all[i]->item].start);
    }
    p->is_done = true;
    return true;
}

static bool try_nccl(struct item *item)
{
    bool is_over = true;
    for (uint32_t i = 0; i < item->n_parts; i++) {
        struct part *p = &machine.parts[item->first_part + i];
        size_t received = p->kind == PART_ALL_GATHER
                              ? p->bytes * (size_t)machine.comms[p->comm].n
                              : p->bytes;
        bool is_root = p->kind != PART_BROADCAST || p->me == p->peer;
        if (!item->is_active) {
            assert_true(!p->send || !is_root || touch(item, p->send, p->bytes, false));
            assert_true(!p->recv || touch(item, p->recv, received, true));
            p->is_active = true;
        }
    }
    item->is_active = true;
    for (uint32_t i = 0; i < item->n_parts; i++) {
        struct part *p = &machine.parts[item->first_part + i];
        is_over = (p->is_done || try_part(p, item)) && is_over;
    }
    return is_over;
}

/* ---- the streams ---- */

static bool try_item(struct item *item, char *why)
{
    struct stream *s = &machine.streams[item->stream];
    bool goes = true;
    if (!item->is_active) {
        memcpy(item->start, s->now, sizeof(s->now));
        memcpy(item->end, s->now, sizeof(s->now));
    }
    if (item->kind == ITEM_WAIT)
        goes = try_wait(item);
    else if (item->kind == ITEM_WRITE)
        item->end[item->stream] = item->tick;
    else if (item->kind == ITEM_EVENT)
        goes = !item->event || machine.items[item->event].is_done;
    else if (item->kind == ITEM_NCCL)
        goes = try_nccl(item);
    else if (!do_kernel(item))
        snprintf(why,
                 MACHINE_WHY,
                 "work of kind %d touches no memory that there is",
                 item->kind);
    if (!goes)
        return false;
    if (item->event)
        join(item->end, machine.items[item->event].end);
    item->end[item->stream] = item->tick;
    memcpy(s->now, item->end, sizeof(s->now));
    item->is_done = true;
    if (item->kind == ITEM_WRITE)
        do_write(item, why);
    s->head = item->next;
    return true;
}

static int by_place(const void *a, const void *b)
{
    const struct access *x = a, *y = b;
    if (x->memory != y->memory)
        return x->memory < y->memory ? -1 : 1;
    return x->from < y->from ? -1 : x->from > y->from;
}

static bool is_before(const struct item *a, const struct item *b)
{
    return b->start[a->stream] >= a->tick;
}

static bool has_race(char *why)
{
    qsort(accesses, n_accesses, sizeof(*accesses), by_place);
    for (size_t i = 0; i < n_accesses; i++)
        for (size_t k = i + 1; k < n_accesses; k++) {
            const struct access *x = &accesses[i], *y = &accesses[k];
            const struct item *a = &machine.items[x->item],
                              *b = &machine.items[y->item];
            if (y->memory != x->memory || y->from >= x->to)
                break;
            if (x->item == y->item || !(x->is_write || y->is_write) ||
                is_before(a, b) || is_before(b, a))
                continue;
            snprintf(why,
                     MACHINE_WHY,
                     "a race: work %u of stream %u (rank %d, kind %d, %s) and work %u "
                     "of stream %u (rank %d, kind %d, %s) at %zu",
                     a->tick,
                     a->stream,
                     machine.streams[a->stream].rank,
                     a->kind,
                     x->is_write ? "writes" : "reads",
                     b->tick,
                     b->stream,
                     machine.streams[b->stream].rank,
                     b->kind,
                     y->is_write ? "writes" : "reads",
                     y->from);
            return true;
        }
    return false;
}

static bool is_stuck(char *why)
{
    for (uint32_t i = 0; i < machine.n_streams; i++) {
        const struct stream *s = &machine.streams[i];
        if (!s->head)
            continue;
        const struct item *item = &machine.items[s->head];
        snprintf(
            why,
            MACHINE_WHY,
            "rank %d waits for ever in stream %u at work %u of %u (kind %d, value %u)",
            s->rank,
            i,
            item->tick,
            s->n,
            item->kind,
            item->value);
        return true;
    }
    return false;
}

bool machine_run(unsigned first, char why[MACHINE_WHY])
{
    bool is_moving = true;
    why[0] = '\0';
    if (!writes) {
        writes = malloc(ITEMS * sizeof(*writes));
        accesses = malloc(ACCESSES * sizeof(*accesses));
    }
    assert_true(writes && accesses);
    n_writes = n_waits = n_accesses = 0;
    while (is_moving && !why[0]) {
        is_moving = false;
        for (uint32_t i = 0; i < machine.n_streams; i++) {
            const struct stream *s = &machine.streams[(first + i) % machine.n_streams];
            while (s->head && !why[0] && try_item(&machine.items[s->head], why))
                is_moving = true;
        }
    }
    return !(why[0] || is_stuck(why) || has_race(why));
}

void machine_count(size_t *ret_items, size_t *ret_waits)
{
    *ret_items = machine.n_items;
    *ret_waits = n_waits;
}
