/* SPDX-License-Identifier: Apache-2.0
 * rank_map_nodes.c - the same ranks together, but on other devices: so that fewer leave their nodes (see rank_map.h).
 *
 * Which groups of ranks share a device is decided; which device each gets is an assignment problem: a rank that stays on its device
 * counts more than all that stay on their nodes.  Solved by shortest augmenting paths (Jonker, Volgenant 1987), a row at a
 * time, in the cube of the devices: therefore only where they are few.
 */
#include "rank_map_work.h"

/* Of no path: column n_given stands for the row that is looked at, and for "no column". */
struct paths {
    uint32_t n;
    const uint64_t *keeps; /* borrowed: [n][n] what a group (row) keeps on a device */
    int64_t row_price[RANK_MAP_NODES_DEVICES_MAX];
    int64_t price[RANK_MAP_NODES_DEVICES_MAX + 1]; /* of a column */
    uint32_t row_of[RANK_MAP_NODES_DEVICES_MAX + 1];
    uint32_t before[RANK_MAP_NODES_DEVICES_MAX + 1]; /* on the shortest path to it */
    int64_t dist[RANK_MAP_NODES_DEVICES_MAX + 1];
    bool is_done[RANK_MAP_NODES_DEVICES_MAX + 1];
};

/* Lengths through the row of a column; the nearest column that is not done. */
static uint32_t look_on(struct paths *p, uint32_t column)
{
    uint32_t row = p->row_of[column], nearest = p->n;
    int64_t least = INT64_MAX;
    p->is_done[column] = true;
    for (uint32_t j = 0; j < p->n; j++) {
        if (p->is_done[j])
            continue;
        int64_t length = -(int64_t)p->keeps[(size_t)row * p->n + j] -
                         p->row_price[row] - p->price[j];
        if (length < p->dist[j]) {
            p->dist[j] = length;
            p->before[j] = column;
        }
        if (p->dist[j] < least) {
            least = p->dist[j];
            nearest = j;
        }
    }
    for (uint32_t j = 0; j <= p->n; j++)
        if (p->is_done[j]) {
            p->row_price[p->row_of[j]] += least;
            p->price[j] -= least;
        } else {
            p->dist[j] -= least;
        }
    return nearest;
}

static void add_row(struct paths *p, uint32_t row)
{
    uint32_t column = p->n;
    for (uint32_t j = 0; j <= p->n; j++) {
        p->dist[j] = INT64_MAX / 2;
        p->is_done[j] = false;
    }
    p->row_of[column] = row;
    do
        column = look_on(p, column);
    while (p->row_of[column] != ORR_NONE);
    for (; column != p->n; column = p->before[column])
        p->row_of[column] = p->row_of[p->before[column]];
}

/* keeps[group][device], in the order of given. */
static void weigh(struct rank_map_work *w)
{
    uint32_t n = w->n_given;
    memset(w->keeps, 0, (size_t)n * n * sizeof(*w->keeps));
    for (uint32_t j = 0; j < n; j++)
        w->slot_n[w->given[j]] = j;
    for (uint32_t r = 0; r < w->world; r++) {
        uint32_t old = rank_map_old(w, r);
        if (old == ORR_NONE)
            continue;
        uint64_t *row = w->keeps + (size_t)w->slot_n[w->next[r]] * n;
        for (uint32_t j = 0; j < n; j++) {
            uint32_t slot = w->given[j];
            row[j] += slot == old ? (uint64_t)w->world + 1 : 0;
            row[j] += rank_map_node(w, slot) == rank_map_node(w, old);
        }
    }
}

void rank_map_nodes(struct rank_map_work *w)
{
    uint32_t n = w->n_given;
    uint64_t sum = 0, sum_now = 0;
    if (n > RANK_MAP_NODES_DEVICES_MAX)
        return;
    weigh(w);
    struct paths p = {.n = n, .keeps = w->keeps};
    for (uint32_t j = 0; j < n; j++)
        p.row_of[j] = ORR_NONE;
    for (uint32_t row = 0; row < n; row++)
        add_row(&p, row);
    for (uint32_t j = 0; j < n; j++) {
        sum += w->keeps[(size_t)p.row_of[j] * n + j];
        sum_now += w->keeps[(size_t)j * n + j];
        w->order[p.row_of[j]] = w->given[j];
    }
    ORR_ASSERT(sum >= sum_now);
    if (sum == sum_now)
        return; /* as it is in the natural order */
    for (uint32_t r = 0; r < w->world; r++)
        w->next[r] = w->order[w->slot_n[w->next[r]]];
}
