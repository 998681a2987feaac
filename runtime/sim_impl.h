/* SPDX-License-Identifier: Apache-2.0
 * sim_impl.h - what the files of the simulator share: sim.c (time), sim_host.c (hosts), sim_net.c (the network).
 */
#ifndef ORRI_SIM_IMPL_H
#define ORRI_SIM_IMPL_H

#include "sim.h"

#include "transport_loop.h"

struct orri_host {
    struct orr_sim *sim; /* borrowed: outlives its hosts */
    struct orr_clock clock;
    int32_t drift_ppm;     /* its clock runs so much faster than true time ... */
    uint64_t drift_from;   /* ... since this true time, */
    uint64_t drift_own_ms; /* when it showed that */
    char name[ORR_NAME_MAX];
    uint64_t id;
    struct orr_system *system; /* owned; NULL: crashed */
    uint32_t incarnation;
    uint32_t side;
    uint64_t due_ms; /* its key in the heap */
    uint32_t heap_at;
    uint32_t ready_at; /* UINT32_MAX: not ready */
};

struct orri_event {
    uint64_t time_ms;
    orr_sim_event_f fn;
    void *arg; /* borrowed: the caller's */
    uint64_t number;
};

struct orri_pair {
    uint64_t from, to; /* from 0: empty */
    struct orr_sim_faults faults;
    bool has_faults;
    uint64_t last_due_ms; /* keeps the order */
    uint64_t n;           /* messages so far */
};

struct orr_sim {
    struct orr_sim_config config;
    uint64_t now_ms;
    uint64_t random; /* of orr_sim_random */
    uint64_t turn;   /* which host is next, within turn_ms */
    uint64_t turn_ms;
    uint64_t hash;
    uint64_t handled;
    struct orr_loop *loop;
    struct orri_host **hosts; /* owned */
    uint32_t n_hosts, cap_hosts;
    uint32_t *by_id; /* owned; open addressing: index + 1 */
    uint32_t *heap;  /* owned; hosts by due_ms */
    uint32_t *ready; /* owned */
    uint32_t n_ready;
    struct orri_event *events; /* owned; by time, then by order of orr_sim_at */
    uint32_t n_events, cap_events;
    struct orri_pair *links; /* owned; open addressing */
    uint32_t n_links, cap_links;
};

/* A stream of randomness of its own for each thing that needs some, so that a run with one fault less is the same but for
 * what follows from it; otherwise nothing could be learned from leaving faults out. */
static inline uint64_t orri_sim_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}
static inline uint64_t orri_sim_next(uint64_t *stream) /* splitmix64 */
{
    return orri_sim_mix(*stream += UINT64_C(0x9e3779b97f4a7c15));
}

/* sim_host.c */
uint32_t orri_sim_index_of(const struct orr_sim *sim,
                           uint64_t id); /* ORR_SIM_ALL: none */
void orri_sim_set_due(struct orr_sim *sim, uint32_t index, uint64_t due_ms);
void orri_sim_clock_init(struct orr_sim *sim, struct orri_host *host);
/* The true time at which the host's clock shows its_ms. */
uint64_t orri_sim_true_ms(const struct orri_host *host, uint64_t its_ms);
void orri_sim_set_ready(struct orr_sim *sim, uint32_t index, bool is_ready);

/* sim_net.c: an orr_loop_policy_f; arg is the simulator. */
unsigned orri_sim_policy(void *arg,
                         uint64_t from,
                         uint64_t to,
                         uint64_t ret_due_ms[ORR_LOOP_COPIES]);

/* sim.c: an orr_trace_f; arg is the simulator. */
void orri_sim_trace(void *arg,
                    uint64_t now_ms,
                    struct orr_addr to,
                    struct orr_addr from,
                    const struct orr_msg_desc *desc,
                    const void *msg);

#endif
