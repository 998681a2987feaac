/* SPDX-License-Identifier: Apache-2.0
 * sim.h - the simulator: many hosts in one process, virtual time, a network with faults, one seed.
 *
 * A host is a stepped system: the very code that runs in production.  The simulator decides which host steps next, when
 * messages arrive, which are lost, and who crashes.  Nothing else moves time: the same seed and the same calls give the same
 * trace, whose hash covers every handled message (time on its host, receiver, sender, id, body).
 * Delivery: in order per link unless reordering is on; at most once unless duplication is on.
 * Threads: none.  Limits: those of its systems and of the loop transport.
 */
#ifndef ORR_SIM_H
#define ORR_SIM_H

#include "system.h"

struct orr_sim;

/* Spawn a host's actors, at its start and again after each restart (a higher incarnation). */
typedef void (*orr_sim_boot_f)(void *arg, struct orr_sim *sim, uint32_t host);

/* Called after every step.  False: an invariant is broken; text says which, and the run ends. */
typedef bool (*orr_sim_check_f)(void *arg, struct orr_sim *sim, char *text, size_t cap);

typedef bool (*orr_sim_pred_f)(void *arg, struct orr_sim *sim);
typedef void (*orr_sim_event_f)(void *arg, struct orr_sim *sim, uint64_t number);

struct
    orr_sim_faults { /* of one direction of a link; chances are per million messages */
    uint32_t delay_min_ms;
    uint32_t delay_max_ms;
    uint32_t loss_ppm;
    uint32_t duplicate_ppm;
    uint32_t reorder_ppm; /* may overtake what was sent before */
};

struct orr_sim_config {
    uint64_t seed;
    orr_sim_boot_f boot;
    orr_sim_check_f check; /* NULL: nothing to check */
    void *arg;
    struct orr_sim_faults faults; /* of all links, until set otherwise */
    uint64_t detect_ms;   /* from a crash or cut until the peers notice; default 2000 */
    uint32_t actors_max;  /* per host; default 4096 */
    uint32_t mailbox_max; /* default 4096 */
    uint32_t asks_max;    /* default 4096 */
    orr_log_f log;        /* NULL: nowhere */
    void *log_arg;
    enum orr_log_level log_level;
    orr_trace_f trace; /* NULL: only hashed */
    void *trace_arg;
};

ORR_NODISCARD enum orr_err orr_sim_new(const struct orr_sim_config *config,
                                       struct orr_sim **ret_sim);
void orr_sim_free(struct orr_sim *sim);

/* Add a host and boot it; hosts are numbered from 0.  Errors: ORR_EEXIST, ORR_EINVAL (name), ORR_ENOMEM. */
ORR_NODISCARD enum orr_err
orr_sim_host_add(struct orr_sim *sim, const char *name, uint32_t *ret_host);
/* NULL while it is crashed. */
struct orr_system *orr_sim_system(struct orr_sim *sim, uint32_t host);
/* All of its state is gone at once; its peers notice detect_ms later. */
void orr_sim_crash(struct orr_sim *sim, uint32_t host);
ORR_NODISCARD enum orr_err orr_sim_restart(struct orr_sim *sim, uint32_t host);

/* Faults of the link from one host to another, or of all links that were not set one by one (ORR_SIM_ALL for both). */
#define ORR_SIM_ALL UINT32_MAX
ORR_NODISCARD enum orr_err orr_sim_faults_set(struct orr_sim *sim,
                                              uint32_t from,
                                              uint32_t to,
                                              const struct orr_sim_faults *faults);
/* Hosts of different sides do not reach each other; all start on side 0. */
void orr_sim_side_set(struct orr_sim *sim, uint32_t host, uint32_t side);

uint64_t orr_sim_now_ms(const struct orr_sim *sim);
uint64_t
orr_sim_random(struct orr_sim *sim); /* for tests' own choices: part of the seed */
uint64_t orr_sim_hash(const struct orr_sim *sim);
uint64_t orr_sim_handled(const struct orr_sim *sim); /* messages so far */

/* From now on the host's clock runs drift_ppm faster (below 0: slower) than true time, which is what all of sim.h counts in.
 * Errors: ORR_EINVAL beyond half of true time either way. */
ORR_NODISCARD enum orr_err
orr_sim_drift_set(struct orr_sim *sim, uint32_t host, int32_t drift_ppm);

/* Send to an actor of a host that is up, from outside of all actors: for edges that live beside the hosts.  A host that is
 * down, or has no room, loses it. */
void orr_sim_post(struct orr_sim *sim,
                  uint32_t host,
                  struct orr_addr from,
                  struct orr_addr to,
                  const struct orr_msg_desc *desc,
                  const void *msg);

/* Call fn at a virtual time: for schedules of faults. */
ORR_NODISCARD enum orr_err orr_sim_at(struct orr_sim *sim,
                                      uint64_t time_ms,
                                      orr_sim_event_f fn,
                                      void *arg,
                                      uint64_t number);

/* One move: an event, a delivery, or a handler; false when nothing will ever happen again. */
bool orr_sim_step(struct orr_sim *sim);
/* Run until virtual time, or until pred holds (may be NULL).
 * Errors: ORR_ETIMEOUT time is up and pred does not hold, ORR_ESTATE an invariant is broken (err: which, time, seed). */
ORR_NODISCARD enum orr_err orr_sim_run_until(struct orr_sim *sim,
                                             uint64_t time_ms,
                                             orr_sim_pred_f pred,
                                             void *arg,
                                             struct orr_error *err);

#endif
