/* SPDX-License-Identifier: Apache-2.0
 * soft_table.c - soft_table.h.
 *
 * Invariants: an entry is in the dirty list at most once; n_unsynced counts the entries
 * that say so.  The list keeps puts in order; a walk over all entries, a few times a
 * second, finds those that are due again: cheaper than keeping them sorted, at most
 * keys_max steps through memory.
 */
#include "soft_table.h"

static struct orr_str key_of(const void *item)
{
    return orr_str(((const struct soft_entry *)item)->key);
}

enum orr_err soft_table_init(struct soft_table *t, uint32_t keys_max, uint64_t ttl_ms)
{
    *t = (struct soft_table){
        .ttl_ms = ttl_ms, .dirty_head = ORR_NONE, .dirty_tail = ORR_NONE};
    enum orr_err rc = orr_pool_init(&t->entries, sizeof(struct soft_entry), keys_max);
    if (rc == ORR_OK)
        rc = orr_map_init(&t->by_key, &t->entries, key_of);
    if (rc != ORR_OK)
        soft_table_fini(t);
    return rc;
}

void soft_table_fini(struct soft_table *t)
{
    for (struct soft_entry *e = NULL;
         t->entries.items && (e = orr_pool_next(&t->entries, e)) != NULL;)
        free(e->value);
    orr_map_fini(&t->by_key);
    orr_pool_fini(&t->entries);
}

static void list(struct soft_table *t, struct soft_entry *e)
{
    uint32_t index = orr_pool_index(&t->entries, e);
    if (e->is_dirty || !t->has_backend)
        return;
    e->is_dirty = true;
    e->next = ORR_NONE;
    if (t->dirty_head == ORR_NONE) {
        t->dirty_head = index;
    } else {
        struct soft_entry *tail = orr_pool_at(&t->entries, t->dirty_tail);
        tail->next = index;
    }
    t->dirty_tail = index;
}

static void set_unsynced(struct soft_table *t, struct soft_entry *e, bool on)
{
    if (e->is_unsynced != on)
        t->n_unsynced = on ? t->n_unsynced + 1 : t->n_unsynced - 1;
    e->is_unsynced = on;
}

/* Not while it is in the list. */
static void forget(struct soft_table *t, struct soft_entry *e)
{
    set_unsynced(t, e, false);
    free(e->value);
    orr_map_remove(&t->by_key, e);
    orr_pool_give(&t->entries, e);
}

static enum orr_err refuse(struct soft_table *t, enum orr_err code)
{
    t->refused++;
    return code;
}

static struct soft_entry *entry_make(struct soft_table *t, struct orr_str key)
{
    struct soft_entry *e = orr_pool_take(&t->entries);
    if (!e)
        return NULL;
    orr_str_copy(e->key, sizeof e->key, key);
    e->life = ++t->next_life;
    orr_map_add(&t->by_key, e);
    return e;
}

static bool is_key(struct orr_str key)
{
    return key.len > 0 && key.len < ORR_SOFT_KEY_MAX && !memchr(key.ptr, '\0', key.len);
}

enum orr_err soft_table_put(struct soft_table *t,
                            struct orr_str key,
                            struct orr_bytes value,
                            uint64_t ttl_ms,
                            uint64_t owner,
                            uint64_t now_ms)
{
    if (!is_key(key) || value.len > ORR_SOFT_VALUE_MAX)
        return refuse(t, ORR_EINVAL);
    uint8_t *copy = malloc(value.len ? value.len : 1);
    if (!copy)
        return refuse(t, ORR_ENOMEM);
    if (value.len)
        memcpy(copy, value.ptr, value.len);
    struct soft_entry *e = orr_map_find(&t->by_key, key);
    if (!e && !(e = entry_make(t, key))) {
        free(copy);
        return refuse(t, ORR_ENOSPC);
    }
    free(e->value);
    e->value = copy;
    e->len = value.len;
    e->version++;
    e->owner = owner;
    e->ttl_ms = ttl_ms ? ttl_ms : t->ttl_ms;
    e->put_ms = now_ms;
    e->is_gone = false;
    list(t, e);
    return ORR_OK;
}

static void entry_remove(struct soft_table *t, struct soft_entry *e)
{
    if (!t->has_backend) {
        forget(t, e);
        return;
    }
    e->is_gone = true;
    e->version++;
    list(t, e);
}

void soft_table_remove(struct soft_table *t, struct orr_str key, uint64_t now_ms)
{
    struct soft_entry *e = orr_map_find(&t->by_key, key);
    if (!e && t->has_backend && is_key(key) && (e = entry_make(t, key)) != NULL) {
        e->ttl_ms = t->ttl_ms;
        e->put_ms = now_ms;
    }
    if (e && !e->is_gone)
        entry_remove(t, e);
}

/* Out of the list whatever is there no more: it is short of a walk only after a drop. */
static void unlist_forgotten(struct soft_table *t,
                             bool (*is_over)(const struct soft_entry *, uint64_t),
                             uint64_t arg)
{
    uint32_t *link = &t->dirty_head, tail = ORR_NONE;
    while (*link != ORR_NONE) {
        struct soft_entry *e = orr_pool_at(&t->entries, *link);
        if (is_over(e, arg)) {
            *link = e->next;
            e->is_dirty = false;
        } else {
            tail = *link;
            link = &e->next;
        }
    }
    t->dirty_tail = tail;
}

static void forget_all(struct soft_table *t,
                       bool (*is_over)(const struct soft_entry *, uint64_t),
                       uint64_t arg)
{
    bool is_any = false;
    for (struct soft_entry *e = NULL;
         !is_any && (e = orr_pool_next(&t->entries, e)) != NULL;)
        is_any = is_over(e, arg);
    if (!is_any)
        return;
    unlist_forgotten(t, is_over, arg);
    for (struct soft_entry *e = NULL; (e = orr_pool_next(&t->entries, e)) != NULL;)
        if (is_over(e, arg))
            forget(t, e);
}

static bool is_owned(const struct soft_entry *e, uint64_t owner)
{
    return e->owner == owner;
}

static bool has_lapsed(const struct soft_entry *e, uint64_t now_ms)
{
    return now_ms > e->put_ms + ORR_SOFT_LAPSE_TTLS * e->ttl_ms;
}

void soft_table_drop(struct soft_table *t, uint64_t owner)
{
    forget_all(t, is_owned, owner);
}

uint64_t soft_table_scan(const struct soft_table *t,
                         uint64_t cursor,
                         orr_softstate_visit_f visit,
                         void *arg)
{
    for (uint64_t i = cursor; i < t->entries.n_fresh; i++) {
        const struct soft_entry *e = orr_pool_at(&t->entries, (uint32_t)i);
        if (e && !e->is_gone &&
            !visit(arg, orr_str(e->key), (struct orr_bytes){e->value, e->len}))
            return i; /* not taken: it comes first next time */
    }
    return 0;
}

void soft_table_tick(struct soft_table *t, uint64_t now_ms)
{
    forget_all(t, has_lapsed, now_ms);
    for (struct soft_entry *e = NULL; (e = orr_pool_next(&t->entries, e)) != NULL;)
        if (now_ms >= e->written_ms + e->ttl_ms / 4)
            list(t, e);
}

void soft_table_all_dirty(struct soft_table *t)
{
    for (struct soft_entry *e = NULL; (e = orr_pool_next(&t->entries, e)) != NULL;) {
        set_unsynced(t, e, true);
        list(t, e);
    }
}

uint32_t soft_table_take_dirty(struct soft_table *t)
{
    uint32_t index = t->dirty_head;
    if (index == ORR_NONE)
        return ORR_NONE;
    struct soft_entry *e = orr_pool_at(&t->entries, index);
    t->dirty_head = e->next;
    if (t->dirty_head == ORR_NONE)
        t->dirty_tail = ORR_NONE;
    e->is_dirty = false;
    return index;
}

static struct soft_entry *
find_life(const struct soft_table *t, uint32_t index, uint64_t life)
{
    struct soft_entry *e = orr_pool_at(&t->entries, index);
    return e && e->life == life ? e : NULL;
}

void soft_table_written(struct soft_table *t,
                        uint32_t index,
                        uint64_t life,
                        uint64_t version,
                        uint64_t now_ms)
{
    struct soft_entry *e = find_life(t, index, life);
    if (!e || e->version != version)
        return; /* a newer one is listed */
    e->written_ms = now_ms;
    set_unsynced(t, e, false);
    if (e->is_gone && !e->is_dirty)
        forget(t, e);
}

void soft_table_not_written(struct soft_table *t, uint32_t index, uint64_t life)
{
    struct soft_entry *e = find_life(t, index, life);
    if (!e)
        return;
    set_unsynced(t, e, true);
    list(t, e);
}
