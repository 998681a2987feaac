/* SPDX-License-Identifier: Apache-2.0
 * splice_machine.h - a driver and a NCCL on which the real engine of splicing (gateways/rank/nccl/splice) runs for all ranks of a small
 * world in one process.  Streams are lists of work; machine_run works them off, and looks at three things:
 *
 *   END      every stream runs dry.  All that streams wait for only grows: words, which have one writer each, events, and what NCCL has
 *            matched.  So work that can go on always can, whatever goes first; who ends up stuck does not depend on the order; one order
 *            shows all of them.
 *   RACES    two accesses to the same bytes, one of them a write, are ordered by what streams wait for: vector clocks, a component for
 *            each stream.  Where there is no race, every order of the streams moves the same data as the one that was run.
 *   DATA     it is moved and added up for real, as i32, and machine_call looks at it in its place in the stream.
 *
 * Not modelled: the communicators of two ranks are there when they are asked for (pairs.c waits on the host for the peer).
 * One machine per process; all of it from one thread.
 */
#ifndef ORR_SPLICE_MACHINE_H
#define ORR_SPLICE_MACHINE_H

#include "splice.h"

enum { MACHINE_STREAMS = 96, MACHINE_WHY = 300 };

/* Nothing is left of the world before: its splices are freed. */
void machine_reset(void);
/* The rank that calls from now on. */
void machine_enter(int rank);
CUstream machine_stream(void);
/* Memory of that rank, until machine_reset. */
void *machine_memory(size_t bytes);
/* A real communicator of n, and a member's handle. */
int machine_comm(int n);
ncclComm_t machine_member(int comm, int member);
/* Puts a call into the stream: it reads, or writes, those bytes. */
void machine_call(CUstream stream,
                  void (*fn)(void *arg),
                  void *take_arg,
                  const void *at,
                  size_t bytes,
                  bool is_write);
/* Works all streams off, from the given one on.  False: why not. */
bool machine_run(unsigned first, char why[MACHINE_WHY]);
/* Work that was done, and waits for words among it. */
void machine_count(size_t *ret_items, size_t *ret_waits);

#endif
