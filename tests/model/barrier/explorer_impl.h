/* SPDX-License-Identifier: Apache-2.0
 * explorer_impl.h - the state of a walk, shared by the explorer's files.
 *
 * explorer.c walks; explorer_state.c reads programs, copies and hashes states; explorer_rank.c is a program and its gate;
 * explorer_job.c is the job, and what a cut must be.
 */
#ifndef ORR_MODEL_EXPLORER_IMPL_H
#define ORR_MODEL_EXPLORER_IMPL_H

#include "explorer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gate_state.h"
#include "job/job_barrier.h"

enum { CLOCKS = 10, CHANNEL = 2, ROWS = 40, DEPTH_MAX = 4000 };

struct move {
    uint8_t comm, kind, peer;
};
struct op {
    uint8_t n;
    bool blocks, is_sync;
    bool is_destroy; /* of moves[0].comm: passes the gate, and moves no clock */
    struct move moves[X_MOVES];
};
struct program {
    uint8_t rank, n;
    struct op ops[X_OPS];
};

struct rec { /* a clock on the wire */
    uint8_t comm, kind, me, peer, n, issued;
};
enum { TO_CLOSE, TO_TARGETS, TO_OPEN };
struct down {
    uint8_t what, cut, round, n;
    struct rec recs[CLOCKS];
};
struct up {
    uint8_t cut, round, is_at_cut, n;
    struct rec recs[CLOCKS];
};

struct thread {
    uint8_t pc, issued; /* calls done; gated calls counted */
    uint8_t is_inside;
    uint8_t n_half; /* mutant: operations of the group that are counted */
    uint8_t closed; /* `issued` when its gate was closed */
    uint8_t seq[X_MOVES];
};

struct rank {
    struct orri_clock clocks[CLOCKS];
    uint64_t targets[CLOCKS];
    struct orri_target wants[CLOCKS];
    struct orri_gate gate;
    struct down down[CHANNEL];
    struct up up[CHANNEL];
    uint8_t n_down, n_up;
    uint8_t is_dead, is_raised, has_told, told_round, told_at_cut;
};

enum job_phase { JOB_IDLE, JOB_CUTTING, JOB_OPENING };
struct state {
    struct thread threads[X_THREADS];
    struct rank ranks[X_RANKS];
    uint8_t phase, cut, requests;
    uint8_t is_decided;     /* of this cut: nobody may move before its release */
    uint8_t sent[X_RANKS];  /* round; or whether released */
    uint8_t begun[X_RANKS]; /* close was sent */
    /* the job's tables */
    struct orr_pool pool;
    struct orr_map map;
    uint64_t round;
    bool is_stale;
    struct job_barrier_peer peers[X_RANKS];
    struct job_clock items[ROWS];
    uint32_t links[ROWS];
    struct orr_map_slot slots[4 * ROWS];
};

struct run {
    const struct x_world *world;
    enum x_mutant mutant;
    uint64_t max_states;
    uint32_t n_threads, n_comms;
    uint8_t n_members[X_COMMS], members[X_COMMS][X_RANKS];
    struct program programs[X_THREADS];
    struct job_barrier barrier;
    struct state now;
    struct x_result result;
    uint64_t *seen; /* open addressing, 0: free */
    uint64_t seen_mask, n_seen;
    uint32_t depth;
};

/* explorer_state.c */
void parse(struct run *run);
void save_tables(struct run *run); /* into run->now */
void load(struct run *run, const struct state *state);
uint64_t hash_state(const struct run *run);
void broken(struct run *run, const char *what);

/* explorer_rank.c: each says whether it could do anything. */
void make_comms(struct run *run);
bool is_synced(struct run *run, uint32_t rank); /* all that it has issued is matched */
bool step_thread(struct run *run, uint32_t thread);
bool deliver_down(struct run *run, uint32_t rank);
bool tell(struct run *run, uint32_t rank);

/* explorer_job.c */
bool deliver_up(struct run *run, uint32_t rank);
bool settle_job(struct run *run);
bool request(struct run *run);
bool expire(struct run *run);

#endif
