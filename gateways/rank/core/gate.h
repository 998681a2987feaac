/* SPDX-License-Identifier: Apache-2.0
 * gate.h - counting, and parking before a collective when a cut is wanted (DESIGN 7.1, docs/barrier.md).
 *
 * Every collective, group, or creation of a communicator is one call here with the clocks that it moves, BEFORE it is issued:
 *
 *     orri_gate_enter(clocks, n, op);      may park; on return the operation is counted and must be issued now
 *     real call
 *     orri_gate_leave();
 *
 * Steady state: three atomic additions and one load, no lock, no message (gate.c; bench_gate).  A thread either was counted before
 * the gate closed, or finds it closed, takes itself out and asks under the lock whether it may go on: yes while the process is
 * below any target (a call that passes a target raises it), else it parks.
 * Threads: any.  Never to be called with a lock held that orri_part callbacks need.
 */
#ifndef ORR_RANK_GATE_H
#define ORR_RANK_GATE_H

#include "orrery/ids.h"
#include "page.h"

/* The clock (comm, me, kind, peer), made when absent; lives until the process ends, survives a stop.  NULL: too many
 * (the process is then marked `not suspendable`); callers treat NULL as "do not count". */
struct orri_clock *orri_clock_get(
    uint64_t comm, uint32_t me, uint32_t n, enum orr_clock_kind kind, uint32_t peer);
/* The communicator was destroyed by the program. */
void orri_clock_over(uint64_t comm, uint32_t me);

void orri_gate_enter(struct orri_clock *const *clocks,
                     uint32_t n,
                     enum orr_clock_op op);
void orri_gate_leave(void);

#endif
