/* SPDX-License-Identifier: Apache-2.0
 * share.h - memory that this process has in common with other ranks of its device, and the turns that make it right
 * (docs/adr/0025-turns.md).  Only with ORRERY_MEMORY=shared.
 *
 * START      The first allocation in a context of the device: the process joins the others, and waits for its first turn.
 * OPERATION  Blocks of cuMemAlloc in that context lie in pieces (2 MiB), each common or private.  A thread of this library takes the
 *            turn when the gate says that somebody is waiting, and gives it up when others want it: the gate is closed without it.
 * STOP       Not suspendable.
 * FAILURES   A context that has failed takes its process out: its calls fail anyway, and nothing of it runs any more.  What could not be
 *            copied is tried again; a rank that cannot go on ends, and says why.  It never goes on with wrong memory.
 * Limits     One context of one device; 64 ranks; peer access to it is refused.  Work that waits, within a stream, for what another
 *            rank has not issued yet keeps the turn for ever.
 */
#ifndef ORR_RANK_CUDA_SHARE_H
#define ORR_RANK_CUDA_SHARE_H

#include <stdbool.h>

#include "../real.h"

struct orri_shared;

/* The program's memory is to be shared. */
bool orri_share_is_on(void);
/* Before a block is made in this context: from here on, until the thread leaves the gate, the process has the turn.  Not with
 * orri_cuda_lock. */
CUresult orri_share_ready(CUcontext ctx, CUdevice device);
/* Segments of this context are shared. */
bool orri_share_serves(CUcontext ctx);
/* Physical memory for a segment at a reserved address.  Errors: out of memory, of the device or in the backup; nothing is left then. */
CUresult
orri_shared_new(uint64_t at, uint64_t bytes, bool is_small, struct orri_shared **ret);
/* Unmaps and forgets. */
CUresult orri_shared_free(struct orri_shared *s);
/* A call found no memory: other ranks, and this one, make what they have apart common.  The calling thread, which is in that call,
 * leaves the gate meanwhile, and has the turn again when it returns.  False: nobody has anything apart. */
bool orri_share_make_room(uint32_t call);
void orri_share_context_gone(CUcontext ctx);

/* A thread waits at the gate for the turn. */
void orri_share_ask(void);
void orri_share_in_child(void);

struct orri_share_counts {
    uint64_t turns, kept; /* taken; tried in vain to give up */
    uint64_t hashed, copied_out, copied_in, zeroed; /* pieces */
    uint64_t common, private;                       /* pieces now */
};
void orri_share_get_counts(struct orri_share_counts *ret);

#endif
