/* SPDX-License-Identifier: Apache-2.0
 * explorer.h - all interleavings of the collective clock barrier in a small world: real gates (gateways/rank/core), the
 * real job side (actors/job/job_barrier.c), programs as lists of calls, and channels that deliver in order, but as late
 * as they like.
 *
 * A program is a text, one call after another:
 *   c0        a collective of communicator 0 that returns at once
 *   C0        one that returns when all members have come to it (making a communicator, ncclCommSplit, a lazy connect)
 *   (s01r02)  a group: send to member 1 and receive from member 2 of communicator 0; returns at once
 *   [s01r02]  the same, returns when all of it is matched
 *   y         wait until everything that this rank has issued is matched (a stream is synchronized)
 */
#ifndef ORR_MODEL_EXPLORER_H
#define ORR_MODEL_EXPLORER_H

#include <stdbool.h>
#include <stdint.h>

enum { X_RANKS = 4, X_THREADS = 5, X_COMMS = 4, X_MOVES = 4, X_OPS = 10 };

/* Rules that are broken on purpose: each must be found. */
enum x_mutant {
    X_SOUND,
    X_NO_RAISE,      /* a call past its target is not told */
    X_NO_INSIDE,     /* calls in progress are not waited for */
    X_NO_GROUP,      /* the operations of a group are gated one by one */
    X_NO_INCOMPLETE, /* who has not come to a communicator yet is not let run */
    X_ONE_SIDED,     /* what was sent is not a target for who receives */
    X_OLD_ROUND,     /* `at the cut` of older targets counts */
    X_FIRST_IS_MAX,  /* the target is one member's count, not the maximum */
    X_PARKS_ALWAYS,  /* a rank that is below a target waits, too */
    X_NO_RELEASE,    /* at the deadline only those are released that answered */
    X_MUTANT_MAX_
};
extern const char *const x_mutant_names[X_MUTANT_MAX_];

struct x_world {
    const char *name;
    bool is_long; /* only in `make model` */
    uint32_t n_ranks;
    const char *comms[X_COMMS];      /* "013": ranks 0, 1, 3 are its members 0, 1, 2 */
    const char *programs[X_THREADS]; /* "1: c0 c0": a thread of rank 1 */
    uint32_t requests;               /* barriers that may be asked for, at any moment */
    int mortal;                      /* this rank may die at any moment; -1: none */
    bool
        is_hanging; /* the program never ends by itself: the deadline must release it */
    bool may_expire; /* the deadline may come at any moment */
    bool
        is_made; /* the communicators are there from the start; else their first call makes them.  With one thread a
                        rank the cut must then be the causal past of what was issued, and no more */
};

struct x_result {
    uint64_t n_states;
    uint64_t n_cuts;
    uint64_t n_expired;
    bool is_bounded;  /* gave up after max_states */
    char broken[400]; /* empty: nothing was found */
};

struct x_result
x_explore(const struct x_world *world, enum x_mutant mutant, uint64_t max_states);

#endif
