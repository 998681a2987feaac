/* SPDX-License-Identifier: Apache-2.0
 * node_devices.c - which devices a rank's processes see, and what becomes of each when the rank gets another one.
 *
 * At its start a rank sees all devices of its group, in an order in which LOCAL_RANK (modulo their number) is its own.  What its
 * processes see later is the same number of devices: the driver puts one in the place of each (device_resume), and no two in one
 * place.  So a rank that moves to a device that it sees already swaps the two; one that others of its group left may stay in
 * sight, and is used by whoever holds it now.
 */
#include "node_devices.h"

const char *node_device_uuid(const struct node *self, uint32_t index)
{
    for (uint32_t i = 0; i < self->n_devices; i++)
        if (self->devices[i].index == index)
            return self->devices[i].uuid;
    return "";
}

bool node_row_has_moved(const struct node_row *row)
{
    return row->old_device != ORR_NO_DEVICE && row->old_device != row->device;
}

static uint32_t was_on(const struct node_row *row)
{
    return node_row_has_moved(row) ? row->old_device : row->device;
}

static bool is_bit(uint64_t mask, uint32_t at)
{
    return at < NODE_DEVICES_MAX && (mask >> at & 1);
}

uint64_t node_group_devices(const struct node *self, const struct node_group *group)
{
    uint64_t mask = 0;
    for (const struct node_row *row = node_row_first(self, group); row;
         row = node_row_next(self, row))
        if (was_on(row) < NODE_DEVICES_MAX)
            mask |= UINT64_C(1) << was_on(row);
    return mask;
}

/* Of an earlier life that did not say: all of its group's, as at a start. */
static uint64_t visible_to(const struct node *self,
                           const struct node_group *group,
                           const struct node_row *row)
{
    uint64_t mask = row->visible ? row->visible : node_group_devices(self, group);
    return was_on(row) < NODE_DEVICES_MAX ? mask | UINT64_C(1) << was_on(row) : mask;
}

/* ---- at its start ---- */

uint32_t node_row_order(const struct node *self,
                        const struct node_group *group,
                        const struct node_row *row,
                        uint32_t ret_devices[NODE_DEVICES_MAX])
{
    uint64_t mask = visible_to(self, group, row);
    uint32_t n = 0, own = 0;
    for (uint32_t i = 0; i < self->n_devices; i++)
        if (is_bit(mask, self->devices[i].index)) {
            own = self->devices[i].index == row->device ? n : own;
            ret_devices[n++] = self->devices[i].index;
        }
    if (n > 0 && row->device < NODE_DEVICES_MAX) {
        uint32_t place = row->local_rank % n, other = ret_devices[place];
        ret_devices[place] = ret_devices[own];
        ret_devices[own] = other;
    }
    return n;
}

/* ---- and later ---- */

/* Where each device that it sees goes; ORR_NO_DEVICE: not seen.  Returns the mask of where they went. */
static uint64_t map_visible(const struct node *self,
                            const struct node_group *group,
                            const struct node_row *row,
                            uint32_t ret_to[NODE_DEVICES_MAX])
{
    uint64_t visible = visible_to(self, group, row), used = 0, stay = 0;
    for (const struct node_row *other = node_row_first(self, group); other;
         other = node_row_next(self, other))
        if (other->device < NODE_DEVICES_MAX)
            stay |= UINT64_C(1) << other->device;
    for (uint32_t i = 0; i < NODE_DEVICES_MAX; i++)
        ret_to[i] = ORR_NO_DEVICE;
    if (was_on(row) < NODE_DEVICES_MAX && row->device < NODE_DEVICES_MAX) {
        ret_to[was_on(row)] = row->device;
        used = UINT64_C(1) << row->device;
    }
    /* Those that all have left: what came instead of them, and is not in sight yet. */
    for (const struct node_row *other = node_row_first(self, group); other;
         other = node_row_next(self, other)) {
        uint32_t from = was_on(other), to = other->device;
        if (!is_bit(visible, from) || ret_to[from] != ORR_NO_DEVICE ||
            to >= NODE_DEVICES_MAX || is_bit(used | visible, to) || is_bit(stay, from))
            continue;
        ret_to[from] = to;
        used |= UINT64_C(1) << to;
    }
    for (uint32_t from = 0; from < NODE_DEVICES_MAX; from++) {
        if (!is_bit(visible, from) || ret_to[from] != ORR_NO_DEVICE)
            continue;
        uint64_t left = visible & ~used;
        uint32_t own = was_on(row);
        uint32_t to = !is_bit(used, from) ? from
                      : is_bit(left, own) ? own
                                          : (uint32_t)__builtin_ctzll(left);
        ret_to[from] = to;
        used |= UINT64_C(1) << to;
    }
    return used;
}

static void add_uuid(char *list, size_t cap, const char *uuid)
{
    size_t len = strlen(list);
    snprintf(list + len, cap - len, "%s%s", len ? "," : "", uuid);
}

/* A restored rank: the first that it saw is its own; the others get what else there is on this node, as long as there is.
 * Returns the mask of where they went. */
static uint64_t
map_seen(const struct node *self, const struct node_row *row, struct node_pairs *ret)
{
    struct orr_bytes seen = orr_blob_get(
        &self->specs, row->seen, (uint8_t *)ret->from, sizeof(ret->from) - 1);
    uint64_t used = 0, rest = 0;
    uint32_t n = seen.len > 0, next = 0;
    ret->from[seen.len] = ret->to[0] = '\0';
    for (uint32_t i = 0; i < seen.len; i++)
        n += ret->from[i] == ',';
    for (uint32_t i = 0; i < self->n_devices; i++)
        if (self->devices[i].index < NODE_DEVICES_MAX)
            rest |= UINT64_C(1) << self->devices[i].index;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t to = row->device;
        while (next < NODE_DEVICES_MAX && !is_bit(rest & ~used, next))
            next++;
        if (i > 0 && next < NODE_DEVICES_MAX)
            to = next;
        used |= UINT64_C(1) << to;
        add_uuid(ret->to, sizeof(ret->to), node_device_uuid(self, to));
    }
    return used;
}

void node_row_pairs(const struct node *self,
                    const struct node_group *group,
                    const struct node_row *row,
                    struct node_pairs *ret)
{
    uint32_t to[NODE_DEVICES_MAX];
    bool is_moved = false;
    ret->from[0] = ret->to[0] = '\0';
    if (row->seen != ORR_NONE && row->device < NODE_DEVICES_MAX) {
        (void)map_seen(self, row, ret);
        return;
    }
    (void)map_visible(self, group, row, to);
    for (uint32_t from = 0; from < NODE_DEVICES_MAX; from++) {
        if (to[from] == ORR_NO_DEVICE)
            continue;
        is_moved |= to[from] != from;
        add_uuid(ret->from, sizeof(ret->from), node_device_uuid(self, from));
        add_uuid(ret->to, sizeof(ret->to), node_device_uuid(self, to[from]));
    }
    if (!is_moved)
        ret->from[0] = ret->to[0] = '\0';
}

void node_row_list(const struct node *self,
                   const struct node_group *group,
                   const struct node_row *row,
                   char *dst,
                   size_t cap)
{
    uint64_t mask = visible_to(self, group, row);
    dst[0] = '\0';
    if (row->device >= NODE_DEVICES_MAX)
        return;
    add_uuid(dst, cap, node_device_uuid(self, was_on(row)));
    for (uint32_t i = 0; i < NODE_DEVICES_MAX; i++)
        if (is_bit(mask, i) && i != was_on(row))
            add_uuid(dst, cap, node_device_uuid(self, i));
}

void node_row_saw(struct node *self, struct node_row *row, struct orr_str devices)
{
    const struct orr_bytes bytes = {(const uint8_t *)devices.ptr, devices.len};
    bool is_news = devices.len && devices.len < NODE_UUIDS_BYTES && !row->is_seen &&
                   row->seen == ORR_NONE;
    if (is_news && orr_blob_put(&self->specs, bytes, &row->seen) != ORR_OK)
        row->seen = ORR_NONE;
}

void node_group_know_devices(struct node *self, struct node_group *group)
{
    uint64_t mask = node_group_devices(self, group);
    for (struct node_row *row = node_row_first(self, group); row;
         row = node_row_next(self, row))
        if (!row->visible && row->seen == ORR_NONE)
            row->visible = mask;
}

void node_group_moved(struct node *self, struct node_group *group)
{
    uint32_t to[NODE_DEVICES_MAX];
    struct node_pairs pairs;
    for (struct node_row *row = node_row_first(self, group); row;
         row = node_row_next(self, row)) {
        row->is_joining = false;
        if (row->device >= NODE_DEVICES_MAX)
            continue;
        row->visible = row->seen == ORR_NONE ? map_visible(self, group, row, to)
                                             : map_seen(self, row, &pairs);
        orr_blob_drop(&self->specs, row->seen);
        row->seen = ORR_NONE;
        row->is_seen = true;
    }
    for (struct node_row *row = node_row_first(self, group); row;
         row = node_row_next(self, row))
        row->old_device = ORR_NO_DEVICE;
}

/* ---- is there memory for it? ---- */

/* What a rank had on its device: what it gave away, or its share of what was in use there, whichever is more. */
static uint64_t device_bytes(const struct node *self,
                             const struct node_group *group,
                             const struct node_row *row)
{
    uint32_t n = 0;
    for (const struct node_row *other = node_row_first(self, group); other;
         other = node_row_next(self, other))
        n += other->device == row->device;
    uint64_t share = n ? row->used_bytes / n : 0;
    return row->arena_bytes > share ? row->arena_bytes : share;
}

bool node_group_fits(const struct node *self,
                     const struct node_group *group,
                     struct orr_list_rank_place places,
                     char *text,
                     size_t cap)
{
    uint64_t needs[NODE_DEVICES_MAX] = {0};
    for (uint32_t i = 0; i < places.n; i++) {
        const struct node_row *row = node_row_find(self, group, places.at[i].rank);
        if (row && places.at[i].device < NODE_DEVICES_MAX)
            needs[places.at[i].device] += device_bytes(self, group, row);
    }
    for (uint32_t i = 0; i < self->n_devices; i++) {
        const struct node_device *device = &self->devices[i];
        if (device->index >= NODE_DEVICES_MAX || !needs[device->index] ||
            needs[device->index] <= device->memory_bytes)
            continue;
        snprintf(text,
                 cap,
                 "the ranks that device %u is to have need %llu MiB of its %llu MiB; "
                 "give the job more devices",
                 device->index,
                 (unsigned long long)(needs[device->index] >> 20),
                 (unsigned long long)(device->memory_bytes >> 20));
        return false;
    }
    return true;
}
