/* SPDX-License-Identifier: Apache-2.0
 * places.h - where the ranks of a communicator are: told to each other when one is made, and again when one is made anew, so that those
 * that share a device can splice (splice/splice.h).
 *
 * A rank's *place* is a record that all members get.  At a resume it travels with the unique ids, under names of its own; when a
 * communicator is made it is posted (../core/part.h).
 */
#ifndef ORRI_NCCL_PLACES_H
#define ORRI_NCCL_PLACES_H

#include "../core/part.h"
#include "op.h"
#include "splice/handover.h"
#include "splice/splice.h"

struct orri_place {
    uint8_t device[16]; /* uuid */
    uint64_t nonce;     /* of the process' handover */
    int32_t color, key; /* of a split */
    uint8_t zero[96];   /* a record is as long as an id */
};
_Static_assert(sizeof(struct orri_place) == sizeof((struct orri_comm_id){0}.id),
               "a place is posted like an id");

/* Whether the job's ranks may come to share devices: then places are told at each resume. */
bool orri_is_elastic(void);
/* The name under which rank r of what `key` names is told. */
uint64_t orri_place_name(uint64_t key, int r);
/* Of this process, in the current context; `told`: the device's uuid as its node says ("": the driver's word). */
ncclResult_t orri_place_here(struct orri_place *ret, const char *told, uint64_t nonce);

/* Makes c->splice if two of its places are on one device; places: of all its ranks.  The context is current. */
ncclResult_t orri_splice_begin_comm(struct orri_comm *c,
                                    const struct orri_place *places,
                                    uint64_t seed);
/* The real communicator's size and this rank in it; false: this process has none. */
bool orri_splice_real(const struct orri_comm *c, int *ret_n, int *ret_me);
/* Gives and takes the scratch of all those that are spliced; places[i]: of comms[i].  Called by all of their members. */
ncclResult_t orri_splice_share(struct orri_comm *const *comms,
                               struct orri_place *const *places,
                               size_t n,
                               struct orri_handover *h,
                               uint64_t deadline_ms);

/* ---- spliced.c.  Of one that is not spliced nothing is said or done. */

/* After its work is over, or when there was none; the real one goes apart. */
void orri_splice_end_comm(struct orri_comm *c);
/* As ncclCommGetAsyncError, of all of it. */
ncclResult_t orri_splice_ask(struct orri_comm *c);
/* Waits for its work.  ncclInProgress: the deadline; else what is wrong with it. */
ncclResult_t
orri_splice_await(struct orri_comm *c, ncclComm_t real, uint64_t deadline_ms);
/* Of the communicator and its real one (NULL: none), spliced or not: this rank's work goes on over garbage, others are told. */
ncclResult_t orri_splice_abort(struct orri_comm *c, ncclComm_t real);
/* Takes the real one out; nobody looks at it any more. */
ncclComm_t orri_spliced_take_real(struct orri_comm *c);
/* Now and then, by the link's thread: tells the ranks of the device what this process knows. */
void orri_spliced_look(void);
/* Until no aborted one has work.  False: deadline. */
bool orri_spliced_await_aborted(uint64_t deadline_ms);

/* The making of communicators where ranks share devices: all of a group together, in this order. */
ncclResult_t orri_making_post(struct orri_making *m, const struct orri_handover *h);
ncclResult_t orri_making_meet(struct orri_making *m);
ncclResult_t
orri_making_share(struct orri_making *const *list, size_t n, struct orri_handover *h);
/* Whether it needs the above. */
bool orri_making_meets(const struct orri_making *m);

#endif
