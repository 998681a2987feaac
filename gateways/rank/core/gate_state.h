/* SPDX-License-Identifier: Apache-2.0
 * gate_state.h - the decisions of a process' gate (DESIGN 7.1, docs/barrier.md), free of threads, time and memory.
 *
 * gate.c puts locks around it; the model check drives it from one thread.  The storage is the caller's.
 *
 *   OPEN    nobody is kept
 *   CLOSED  a cut is wanted; nobody goes on before targets have come
 *   BOUND   targets are known: the process runs on while it is below any of them, and past some if it must (a raise)
 *   SHUT    the process is being stopped, or is: nobody goes on, whatever the numbers are
 *
 * Targets only grow within a cut.  What is said of an older cut changes nothing.
 * A communicator that other processes have begun to make and not all members know of ("incomplete": a target with me =
 * UINT32_MAX) lets each process run on that has not issued anything on it: it may be the member that the others wait for.
 * A program that has registered its state (orrery/rank.h) is bound at its points alone, by the world's clock.
 */
#ifndef ORR_RANK_GATE_STATE_H
#define ORR_RANK_GATE_STATE_H

#include <stdbool.h>
#include <stddef.h>

#include "orrery/ids.h"
#include "page.h"

#define ORRI_WORLD_COMM UINT64_C(0) /* the communicator of orr_rank_point */
#define ORRI_MEMBER_ABSENT                                                             \
    UINT32_MAX /* as `me` of a target: the communicator is incomplete */

enum orri_gate_mode {
    ORRI_GATE_OPEN,
    ORRI_GATE_CLOSED,
    ORRI_GATE_BOUND,
    ORRI_GATE_SHUT,
};

/* What a target names. */
struct orri_target {
    uint64_t comm, issued;
    uint32_t kind, me, peer;
};

struct orri_gate {
    struct orri_clock *clocks; /* borrowed: n are in use */
    uint64_t *targets; /* borrowed: of clocks[i]; 0 when nothing is wanted of it */
    uint32_t n, cap;
    struct orri_target *
        wants; /* borrowed: targets of clocks that are not there yet, and incomplete communicators */
    uint32_t n_wants, wants_cap;
    uint64_t cut;   /* newest known */
    uint64_t round; /* of the targets that are in force; 0: none yet */
    enum orri_gate_mode mode;
    bool is_cooperative;
    bool
        is_overfull; /* more wants than fit: the process runs on, and the cut will expire */
};

void orri_gate_init(struct orri_gate *gate,
                    struct orri_clock *clocks,
                    uint64_t *targets,
                    uint32_t cap,
                    struct orri_target *wants,
                    uint32_t wants_cap);

/* The next clock was filled in at clocks[n]: from now on it counts. */
void orri_gate_add_clock(struct orri_gate *gate);

/* False: of an older cut, or shut; nothing changed.  The same cut again is harmless, also after it was opened. */
bool orri_gate_close(struct orri_gate *gate, uint64_t cut);
bool orri_gate_open(struct orri_gate *gate, uint64_t cut);

/* One list of targets, in any number of pieces; is_last: the list is whole, and in force.  False as above. */
bool orri_gate_take_targets(struct orri_gate *gate,
                            uint64_t cut,
                            uint64_t round,
                            bool is_first,
                            const struct orri_target *targets,
                            uint32_t n,
                            bool is_last);

/* May a call be issued now?  is_point: orr_rank_point, else a call of NCCL. */
bool orri_gate_may_go(const struct orri_gate *gate, bool is_point);

/* Count a call that moves these clocks (indices).  True: a target was raised, or a clock moved of which nobody knew; the
 * clocks are to be reported. */
bool orri_gate_count(struct orri_gate *gate, const uint32_t *at, uint32_t n);

/* At the cut as far as numbers go.  n_inside: threads between enter and leave; n_points: threads parked in a point. */
bool orri_gate_is_at_cut(const struct orri_gate *gate,
                         uint32_t n_inside,
                         uint32_t n_points);

/* Is this clock part of what the cut is about? */
bool orri_gate_reports(const struct orri_gate *gate, uint32_t at);

/* Begin of a stop; false when not at the cut.  unshut: the stop was undone, the gate is closed as before. */
bool orri_gate_shut(struct orri_gate *gate, uint32_t n_inside, uint32_t n_points);
void orri_gate_unshut(struct orri_gate *gate);
/* The process has been resumed. */
void orri_gate_reopen(struct orri_gate *gate);

#endif
