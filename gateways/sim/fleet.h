/* SPDX-License-Identifier: Apache-2.0
 * fleet.h - a fleet on simulated machines: one region, its clusters and nodes, a client with random jobs, and faults.
 *
 * Everything follows from the plan: the same plan and the same faults give the same history, whose hash is in the result.
 * START      fleet_init makes the machines, the jobs and the schedule of faults; change any of them before fleet_run
 * OPERATION  fleet_run until every job has ended, an invariant is broken (invariants.h), or the time is up
 * STOP       fleet_fini
 */
#ifndef SIM_FLEET_H
#define SIM_FLEET_H

#include "client.h"
#include "faults.h"
#include "ledger_edges.h"
#include "soft.h"

struct fleet_plan {
    uint64_t seed;
    uint32_t replicas;  /* region hosts; 0: 1 */
    uint32_t clusters;  /* 0: 2 */
    uint32_t nodes;     /* in all; 0: 3 in each cluster */
    uint32_t gpus;      /* of each node; 0: 2 */
    uint32_t jobs;      /* 0: 24 */
    unsigned kinds;     /* of faults: FAULT_BIT of each */
    uint64_t faults_ms; /* no faults after that; 0: 30 s */
    uint64_t settle_ms; /* and all jobs must end within that; 0: 270 s */
    uint32_t lease_ms;  /* 0: 8 s */
    bool has_no_orders; /* the client only submits and cancels */
    bool is_rigid;      /* clusters leave jobs at their sizes */
    bool is_elastic;    /* all jobs need devices, and may have more or fewer */
    orr_trace_f trace;  /* every message; NULL: none */
    void *trace_arg;
    orr_log_f log; /* NULL: none */
    void *log_arg;
};

struct fleet_result {
    const char *broken; /* the sentence that did not hold, static; NULL: all did */
    char subject[ORR_JOB_ID_MAX];
    char text[256];
    uint64_t at_ms;
    uint64_t hash;
    uint64_t handled;
    uint32_t n_ended;
    uint32_t n_begun; /* faults, before the run ended */
    uint32_t n_faults;
};

struct fleet {
    struct fleet_plan plan;
    struct orr_sim *sim; /* owned */
    struct world world;
    struct client client;
    struct ledger_edges edges;
    struct soft_store soft;
    struct faults faults; /* owned */
    uint32_t first_cluster, first_node, user, n_hosts;
    struct machine *machines; /* owned; of nodes */
    struct client_job *jobs;  /* owned */
    struct client_drain drains[2];
    uint32_t *n_down; /* owned; per host: faults that keep it down */
    uint32_t *sides;  /* owned; per host */
    uint64_t random;
};

/* Errors: ORR_ENOMEM, ORR_EINVAL (err says what). */
ORR_NODISCARD enum orr_err
fleet_init(struct fleet *fleet, const struct fleet_plan *plan, struct orr_error *err);
void fleet_fini(struct fleet *fleet);
void fleet_run(struct fleet *fleet, struct fleet_result *ret_result);

/* From the plan's seed, apart from the simulator's own. */
uint32_t fleet_pick(struct fleet *fleet, uint64_t n);
/* For schedules of one's own; may be nested, a host is up when it was started as often as crashed. */
void fleet_crash(struct fleet *fleet, uint32_t host);
void fleet_restart(struct fleet *fleet, uint32_t host);
void fleet_side_set(struct fleet *fleet, uint32_t host, uint32_t side);
uint32_t fleet_cluster_of(const struct fleet *fleet, uint32_t node);
void fleet_host_name(const struct fleet *fleet, uint32_t host, char name[16]);

#endif
