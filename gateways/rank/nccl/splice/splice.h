/* SPDX-License-Identifier: Apache-2.0
 * splice.h - communicators of which several ranks share a device (docs/splicing.md).
 *
 * The real NCCL takes one rank per device.  Here the ranks of a device meet in a scratch allocation that they share: each puts its input
 * there, the *leader* (the lowest rank of the device) combines, and alone is a member of a real communicator, of the leaders; each
 * takes its output.  All of it is in the program's streams, which wait for each other at words of the scratch: no host thread waits.
 *
 * Threads: calls of one communicator one after another, from any thread, in the order that all ranks have.
 * Limits: as many ranks of one device as the scratch has room for (orri_layout_init); graphs cannot capture such an operation.
 */
#ifndef ORRI_SPLICE_H
#define ORRI_SPLICE_H

#include "../op.h"
#include "driver.h"
#include "map.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

struct orri_half {
    uint32_t
        lead; /* the step, from 1, at whose end the leader let go of it; 0: never */
    uint32_t
        *took; /* owned: the same of each rank of the device, by its number there */
};

struct orri_mailbox {
    uint32_t sent, got; /* pieces so far, to and from a rank of the device */
};

/* How sends and receives reach a rank of another device. */
struct orri_far {
    _Atomic(ncclComm_t)
        comm;        /* owned: of two ranks; NULL: not made, or the leaders' serves */
    CUstream stream; /* owned: NULL until needed */
};

struct orri_splice {
    struct orri_splice *next; /* of those that were aborted, and have work still */
    struct orri_map map;
    struct orri_layout layout;
    CUcontext ctx; /* borrowed: the communicator's */
    ncclComm_t *
        real; /* borrowed: the leaders'; NULL there: not a leader, or the only device */
    int fd;   /* leader: the exported scratch until all have it; -1 */
    CUmemGenericAllocationHandle memory;
    CUdeviceptr base; /* of the scratch, here */
    bool is_mapped;
    struct orri_kernels kernels;
    struct orri_wellness *page; /* owned mapping: who of the device is well (watch.c) */
    int page_fd;                /* owned: -1: none */
    CUstream side;              /* owned: waits for nothing of the program */
    pthread_mutex_t side_lock;
    pid_t owner;
    atomic_bool is_shared; /* all of the above is there */
    bool is_aborting;      /* its aborter still has it */

    pthread_mutex_t
        lock; /* guards the rest: operations are put into streams one after another */
    CUevent order;    /* the end of the newest operation */
    bool is_used;     /* there was one */
    CUcontext before; /* of the thread that has the lock */
    bool has_begun;   /* an operation, which is not put into its stream yet */
    uint32_t step;    /* pieces of collectives so far; the same in all ranks */
    struct orri_half half[2];
    uint32_t seen_done, *seen_taken; /* what this process has waited for already */
    struct orri_mailbox *box;        /* owned: by rank of the device */
    uint64_t pair_seed;   /* names the pairs' communicators; new at each resume */
    struct orri_far *far; /* owned: of each rank of another device */
};

/* n, me, place: as orri_map_init; the context is current, of the device of this rank; seed: of this communicator in this generation,
 * the same in all ranks.  NULL: the thread's last error. */
struct orri_splice *orri_splice_new(int n,
                                    int me,
                                    const uint64_t *place,
                                    bool is_ordered,
                                    uint64_t seed,
                                    ncclComm_t *real);
/* Work that uses it is over. */
void orri_splice_free(struct orri_splice *s);
static inline bool orri_splice_is_leader(const struct orri_splice *s)
{
    return s->map.local_of[s->map.me] == 0;
}
/* The leader makes the scratch; the others take it: *take_fd is closed in any case. */
ncclResult_t orri_splice_make_scratch(struct orri_splice *s);
ncclResult_t
orri_splice_take_scratch(struct orri_splice *s, int *take_fd, int *take_page_fd);

/* A reduction, as its communicator means it; scalar: in the type's bits. */
struct orri_reduce {
    enum orri_verb verb;
    bool scales; /* inputs, first: by scalar, or by what is at scalar_at */
    uint64_t scalar;
    CUdeviceptr scalar_at;
    int divisor; /* of the result, at last; 0: none */
};
ncclResult_t orri_reduce_of(struct orri_reduce *ret,
                            const struct orri_op *op,
                            const struct orri_redop *redop,
                            int n);

/* Puts a collective into its stream; or sends and receives of one group, side by side. */
ncclResult_t orri_splice_collective(struct orri_splice *s,
                                    const struct orri_op *op,
                                    const struct orri_reduce *reduce);
ncclResult_t
orri_splice_exchange(struct orri_splice *s, const struct orri_op *const *ops, size_t n);
/* True when all that was put into streams is over.  Errors: the context is poisoned. */
ncclResult_t orri_splice_is_idle(struct orri_splice *s, bool *ret_is_idle);

/* ---- who is well: watch.c ------------------------------------------------------------------- */

/* Why what a rank is given is not right any more. */
enum orri_lost {
    ORRI_LOST_ABORTED, /* a rank of the device */
    ORRI_LOST_DIED,
    ORRI_LOST_FAILED, /* the call of one */
    ORRI_LOST_REMOTE, /* a communicator with other devices, says one */
};

/* The leader makes the page that the ranks of the device share (page_fd); the others have it; then each comes. */
ncclResult_t orri_watch_make(struct orri_splice *s);
ncclResult_t orri_watch_come(struct orri_splice *s);
/* In order.  Also where it never came. */
void orri_watch_end(struct orri_splice *s);
/* The process ends in order. */
void orri_watch_exit(struct orri_splice *s);
/* Success, or ncclRemoteError with the thread's text: of this rank. */
ncclResult_t orri_watch_state(struct orri_splice *s);
/* The ranks of the device, but one that aborts, get no further in their streams, and are told. */
void orri_watch_tell(struct orri_splice *s, enum orri_lost why, int culprit);
/* The state of all of it: of the leaders' communicator, too (NULL: none), and of the pairs'.  What it finds it tells. */
ncclResult_t orri_watch_ask(struct orri_splice *s, ncclComm_t real);
/* The same, with what must be looked for: who has died, what other devices' leaders have said. */
ncclResult_t orri_watch_look(struct orri_splice *s, ncclComm_t real);
/* First of an abort: the others of the device stay where they are, and are told. */
void orri_watch_leave(struct orri_splice *s);
/* Then: this rank's streams go on, over garbage.  Again, until they have: what others wrote just before may hold them. */
void orri_watch_release(struct orri_splice *s);

/* ---- between the files of this folder ------------------------------------------------------- */

/* One piece of a collective. */
struct orri_step {
    struct orri_splice *s;
    const struct orri_op *op;
    const struct orri_reduce *reduce;
    size_t size;     /* bytes of an element */
    size_t at, here; /* elements of a block before the piece, and in it */
    int half;
    uint32_t number; /* from 1 */
    bool is_last;    /* of its operation */
    bool is_direct;  /* the leader's input is read where it is */
};

/* Waits and writes in one call. */
enum { ORRI_WORDS_MAX = 64 };
struct orri_words {
    struct orri_splice *s;
    CUstream stream;
    unsigned n;
    CUstreamBatchMemOpParams op[ORRI_WORDS_MAX];
};
ncclResult_t orri_words_await(struct orri_words *w, size_t flag, uint32_t value);
ncclResult_t orri_words_write(struct orri_words *w, size_t flag, uint32_t value);
/* Stays while what this rank was given is not right: before it tells anything, and before the program's work goes on. */
ncclResult_t orri_words_check(struct orri_words *w);
ncclResult_t orri_words_flush(struct orri_words *w);

/* Takes the lock, enters the context, and waits in the stream for the operation before; and the reverse. */
ncclResult_t orri_splice_begin(struct orri_splice *s, CUstream stream);
ncclResult_t
orri_splice_end(struct orri_splice *s, CUstream stream, ncclResult_t result);

/* Makes the communicators with all those peers that lack one: each of them calls it, too. */
ncclResult_t orri_pairs_make(struct orri_splice *s, const int *peers, int n);
void orri_pairs_drop(struct orri_splice *s);
void orri_pairs_abort(struct orri_splice *s);

/* At the end of the last step: the leaders tell each other whether all was well (watch.c). */
ncclResult_t orri_vote(const struct orri_step *step);
/* What the leader does between all inputs and any output (reduce.c, move.c). */
ncclResult_t orri_reduce_lead(const struct orri_step *step);
ncclResult_t orri_move_lead(const struct orri_step *step);
/* Takes what other ranks have for this one. */
ncclResult_t orri_move_take(const struct orri_step *step);
/* What it has for itself; once. */
ncclResult_t orri_move_own(struct orri_splice *s, const struct orri_op *op);
/* Whether it goes to somebody else on the device by way of its slot, or comes so, and whose. */
bool orri_move_gives(const struct orri_splice *s, const struct orri_op *op, int rank);
bool orri_move_takes(const struct orri_splice *s, const struct orri_op *op, int rank);
bool orri_is_reduction(const struct orri_op *op);
/* Elements of a block that a step can have; 0: too many ranks for the scratch. */
size_t orri_step_room(const struct orri_splice *s, const struct orri_op *op);
/* Blocks that a rank puts into its slot. */
int orri_blocks_given(const struct orri_splice *s, const struct orri_op *op);

static inline CUdeviceptr orri_slot(const struct orri_step *st, int rank)
{
    return st->s->base +
           orri_layout_slot(&st->s->layout, st->half, st->s->map.local_of[rank]);
}
static inline CUdeviceptr orri_result(const struct orri_step *st)
{
    return st->s->base + orri_layout_result(&st->s->layout, st->half);
}
static inline CUdeviceptr orri_inbox(const struct orri_step *st)
{
    return st->s->base + orri_layout_inbox(&st->s->layout, st->half);
}
static inline bool orri_is_here(const struct orri_splice *s, int rank)
{
    return s->map.device_of[rank] == s->map.device;
}

/* Copies in a stream; neighbours become one. */
struct orri_copier {
    CUstream stream;
    CUdeviceptr to, from;
    size_t bytes;
};
ncclResult_t
orri_copy(struct orri_copier *c, CUdeviceptr to, CUdeviceptr from, size_t bytes);
ncclResult_t orri_copy_flush(struct orri_copier *c);

#endif
