/* SPDX-License-Identifier: Apache-2.0
 * cluster_place.c - gang placement (see cluster_place.h).
 */
#include "cluster_place.h"

#include "orrery/job_units.h"

static uint32_t left(const struct place_node *node)
{
    return node->room - node->take;
}

static void take_packed(struct place_node *nodes, uint32_t n_nodes, uint32_t units)
{
    while (units > 0) {
        struct place_node *best = NULL; /* the least room that suffices */
        struct place_node *most = nodes;
        for (uint32_t i = 0; i < n_nodes; i++) {
            if (left(&nodes[i]) >= units && (!best || left(&nodes[i]) < left(best)))
                best = &nodes[i];
            if (left(&nodes[i]) > left(most))
                most = &nodes[i];
        }
        uint32_t n = best ? units : left(most);
        (best ? best : most)->take += n;
        units -= n;
    }
}

static void take_spread(struct place_node *nodes, uint32_t n_nodes, uint32_t units)
{
    for (; units > 0; units--) {
        struct place_node *best = NULL; /* the fewest taken, then the most room */
        for (uint32_t i = 0; i < n_nodes; i++) {
            struct place_node *node = &nodes[i];
            if (left(node) > 0 &&
                (!best || node->take < best->take ||
                 (node->take == best->take && left(node) > left(best))))
                best = node;
        }
        best->take++;
    }
}

enum orr_err cluster_place(const struct place_want *want,
                           struct place_node *nodes,
                           uint32_t n_nodes,
                           uint32_t *ret_units)
{
    uint64_t room = 0;
    for (uint32_t i = 0; i < n_nodes; i++) {
        nodes[i].take = 0;
        room += nodes[i].room;
    }
    uint32_t units = want->world;
    if (want->gpus_max > 0) {
        uint32_t high = want->gpus_max < want->world ? want->gpus_max : want->world;
        if (high > room)
            high = (uint32_t)room;
        units =
            want->devices
                ? want->devices
                : orr_job_units(
                      want->world, want->shards, want->gpus_min, high, want->gpus_max);
    }
    if (units == 0 || units > room)
        return ORR_ENODEV;
    if (want->spread == ORR_SPREAD_SPREAD)
        take_spread(nodes, n_nodes, units);
    else
        take_packed(nodes, n_nodes, units);
    *ret_units = units;
    return ORR_OK;
}
