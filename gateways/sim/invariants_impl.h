/* SPDX-License-Identifier: Apache-2.0
 * invariants_impl.h - what is known of a job from the outside, for the files of the invariants.
 */
#ifndef SIM_INVARIANTS_IMPL_H
#define SIM_INVARIANTS_IMPL_H

#include "world.h"

struct job_seen {
    char id[ORR_JOB_ID_MAX];
    uint64_t launched;    /* the newest generation that was, */
    uint64_t launched_ms; /* and when that began */
    uint32_t gpus_min, gpus_max;
    uint64_t quiet_ms;
    uint32_t n_own; /* resizes that its cluster had the idea of, of generation own_of */
    uint64_t own_of;
    uint64_t
        given_ms; /* when others gave devices back for it; 0: they have not, or it has them */
    uint64_t told;  /* generation of its last event */
    char phase[16]; /* that its last event entered; empty: none */
    uint64_t steps; /* most of any rank that is gone, of generation steps_of */
    uint64_t steps_of;
    uint64_t moving; /* this generation has moved, and none runs since; 0: none */
};

/* Find or make. */
struct job_seen *invariants_job(struct invariants *inv, struct orr_str id);

/* invariants_elastic.c: what an event says of jobs that grow by themselves, or give back. */
void elastic_event_follows(struct world *world, const struct orr_msg_event *event);

#endif
