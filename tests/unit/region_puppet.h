/* SPDX-License-Identifier: Apache-2.0
 * region_puppet.h - a region on two hosts, whose only cluster and its jobs are the test's puppet.
 *
 * Whatever is posted to the puppet it asks of the region that leads; what the region asks of it is noted down and acknowledged.
 * puppet_setup submits one job, eu1-1, of PUPPET_WORLD ranks, which is then offered to the puppet.
 */
#ifndef REGION_PUPPET_H
#define REGION_PUPPET_H

#include "orrery/actor.h"

enum { PUPPET_WORLD = 2 };

/* A name that a part may have. */
#define PUPPET_HASH "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

extern struct puppet_answer {
    uint16_t msg; /* of the last answer; 0: none yet */
    uint32_t code;
    char text[256];
    uint64_t number; /* checkpoint_made, or the first of checkpoint_rows */
    uint32_t n_rows;
    struct orr_msg_region_check check;
    struct orr_msg_job_offered offered; /* flags and token only; the text is above */
    struct orr_msg_job_detail *detail;  /* owned */
} answer;

extern struct puppet_seen {
    unsigned n_assigns, n_orders, n_stops, n_drains, n_collects;
    uint32_t n_waiting;   /* of the last jobs_waiting */
    uint32_t n_roots;     /* of the last stores_collect */
    uint64_t term, round; /* the same */
    uint64_t generation;
    uint64_t manifest; /* number of the checkpoint to restore; 0: none */
    bool is_recovery, is_suspended, is_draining;
    char want_node[ORR_NAME_MAX];
    uint32_t devices; /* of the last job_assign: exactly so many; 0: any */
    struct orr_msg_job_order order; /* numbers only */
    uint32_t refuse_order;          /* enum orr_err: answer with that */
} seen;

/* The other region, us2, which the test plays, too: what it was asked, and how it answers. */
extern struct puppet_peer {
    unsigned n_offers, n_transfers;
    bool is_silent;   /* answers nothing */
    bool is_stalling; /* answers, and says nothing */
    bool is_mute;     /* takes a job, and the answer is lost */
    bool refuses;
    bool has_taken, is_known, is_settled;
    char hosts[64]; /* of the last offer, with spaces between */
    uint64_t token; /* the newest */
    uint64_t generation;
    uint64_t manifest; /* number of the checkpoint that came with the job */
} peer;

extern uint32_t gpus_free;  /* on each of n1, n2 */
extern uint32_t node_state; /* of n1, as its cluster says */
extern uint32_t least_gpus; /* of the job that is submitted */
extern uint32_t job_level;  /* that its actor says */

struct orr_bytes puppet_spec(void);
struct orr_bytes puppet_manifest(uint64_t number, const char *hash_of_1);

int puppet_setup(void **state);
int puppet_teardown(void **state);

/* Ask the region; the answer's message, 0: none within 100 ms. */
#define POST(name, ...)                                                                \
    post(orr_msg_desc_##name(), &(struct orr_msg_##name){__VA_ARGS__})
uint16_t post(const struct orr_msg_desc *desc, const void *msg);

void drain(const char *node, bool is_draining);
void summary(void);
void wait_for(uint64_t ms); /* with the cluster's heartbeats */
void run_for(uint64_t ms);  /* without them; an answer may come */
const struct orr_msg_job_detail *show(void);

/* The tables of both hosts are what the ledger says. */
void tables_match(void);
/* Whether what the region appends is committed from now on. */
void puppet_commits(bool is_committing);
/* Another host leads from now on, and the cluster registers there with that generation of the job; 0: with nothing. */
void fail_over(uint64_t generation);

/* What the job's actor says. */
void update(uint32_t phase);
/* And its ranks are on so many devices, which may have changed. */
void update_on(uint32_t phase, uint32_t devices);
void end(uint32_t outcome, bool is_restore_failed);
uint16_t commit(uint64_t order, uint64_t number, uint64_t cut, const char *hash_of_1);

#endif
