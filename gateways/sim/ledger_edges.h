/* SPDX-License-Identifier: Apache-2.0
 * ledger_edges.h - /edge/ledger on each region host of a simulation, over one model of the log (ledger_model.h).
 *
 * The hosts of a region are the first n of the simulation.  START: ledger_edges_init; each boot of a region host calls
 * ledger_edges_boot, each crash ledger_edges_crash.
 */
#ifndef SIM_LEDGER_EDGES_H
#define SIM_LEDGER_EDGES_H

#include "invariants.h"
#include "ledger_model.h"
#include "sim.h"

struct ledger_edges {
    struct orr_sim *sim;           /* borrowed: outlives this */
    struct ledger *ledger;         /* owned */
    struct invariants *invariants; /* borrowed: the world's */
    char region[ORR_NAME_MAX];
    uint32_t n;
    uint64_t armed_ms; /* the next step is scheduled */
    uint64_t told_ms[LEDGER_REPLICAS_MAX];
    struct ledger_view told[LEDGER_REPLICAS_MAX];
    uint64_t
        reset_until[LEDGER_REPLICAS_MAX]; /* the reader is within a reset of that */
    uint64_t
        told_all[LEDGER_REPLICAS_MAX];  /* the index that the reader's tables mean */
    struct orr_rec_ledger_record *page; /* owned */
};

/* Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err ledger_edges_init(struct ledger_edges *edges,
                                             struct orr_sim *sim,
                                             const char *region,
                                             struct invariants *invariants,
                                             const struct ledger_config *config);
void ledger_edges_fini(struct ledger_edges *edges);
void ledger_edges_boot(struct ledger_edges *edges, uint32_t host);
void ledger_edges_crash(struct ledger_edges *edges, uint32_t host);
void ledger_edges_disk_set(struct ledger_edges *edges, uint32_t host, bool works);

struct ledger_edge_args {
    struct ledger_edges *edges; /* borrowed: outlives the hosts */
    uint32_t host;
};
extern const struct orr_actor_type sim_ledger_type; /* /edge/ledger */
/* Asks the region of its host again and again what its tables mean (struct ledger_edge_args). */
extern const struct orr_actor_type sim_audit_type;

#endif
