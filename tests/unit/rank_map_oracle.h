/* SPDX-License-Identifier: Apache-2.0
 * rank_map_oracle.h - the nearest legal map by looking at all of them: for small worlds.
 *
 * Written from the words of rank_map.h and of gateways/emulator/nccl/op.h, not from the code: a block is whatever the loop that is
 * promised there has as a partial result, and the most even loads are those of the map that has them.
 */
#ifndef ORR_RANK_MAP_ORACLE_H
#define ORR_RANK_MAP_ORACLE_H

#include "rank_map.h"

enum { ORACLE_WORLD_MAX = 10, ORACLE_SLOTS_MAX = 2 * ORACLE_WORLD_MAX };

struct oracle {
    const struct rank_map_ask *ask;
    uint64_t (*draw)(void); /* to pick one of the legal maps */

    uint64_t n_legal;
    uint32_t n_moved, n_left_node; /* of the nearest */
    uint32_t load_min, load_max;   /* of all legal ones */
    bool
        is_fairest; /* no map that keeps to the rules has a smaller load_max, and then a greater load_min */
    uint32_t drawn[ORACLE_WORLD_MAX]; /* any legal map */
};

/* n_legal 0: there is none. */
void oracle_run(struct oracle *self);

/* Does a map keep to the rules, its loads aside?  load[ORACLE_SLOTS_MAX] of those devices it uses, most first. */
bool oracle_keeps_rules(const struct rank_map_ask *ask,
                        const uint32_t *map,
                        uint8_t *load);

#endif
