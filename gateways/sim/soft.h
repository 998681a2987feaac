/* SPDX-License-Identifier: Apache-2.0
 * soft.h - the shared soft state of a simulated fleet: what actors published for readers, in one store that may be away and
 * come back empty.
 *
 * The edge keeps nothing of its own: after a loss only what the publishers say again comes back, which is the worst case.
 */
#ifndef SIM_SOFT_H
#define SIM_SOFT_H

#include "orrery/map.h"
#include "orrery/soft.h"

enum { SOFT_ROWS = 16384 };

struct soft_store {
    bool is_away;
    struct orr_pool rows;
    struct orr_map by_key;
};

/* Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err soft_store_init(struct soft_store *store);
void soft_store_fini(struct soft_store *store);
/* Away: and all that was in it is lost. */
void soft_store_set_away(struct soft_store *store, bool is_away);
bool soft_store_has(const struct soft_store *store,
                    enum orr_soft_kind kind,
                    const char *region,
                    const char *name,
                    const char *sub);

extern const struct orr_actor_type
    sim_soft_type; /* /edge/softstate; args: struct soft_store * */

#endif
