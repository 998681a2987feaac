/* SPDX-License-Identifier: Apache-2.0
 * comm.h - a communicator, as one of its ranks sees it.
 *
 * Handles are looked up in a registry and never followed before they are found there,
 * so a stale one is an error and not a crash. A communicator is referenced by the
 * registry, by each call that uses it and by each plan that is on its way through a
 * stream; the last to let go frees it.
 *
 * Order: operations get a ticket when they are launched, and run in the order of their
 * tickets, whatever streams they are on.
 */
#ifndef ORRI_COMM_H
#define ORRI_COMM_H

#include "driver.h"
#include "segment.h"
#include "why.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

struct orri_redop;
struct orri_buffer;

struct ncclComm {
    struct ncclComm *next; /* in the registry; guarded, as refs, by its lock */
    int refs;
    uint64_t serial; /* of this process */
    pid_t owner;
    int nranks, rank;
    struct orri_place place; /* until forgotten; launching holds issue_lock */
    ncclConfig_t config;
    int cancel; /* owned eventfd: readable once aborted */

    struct orri_segment seg; /* valid once state has left ncclInProgress for success */
    bool is_mapped;
    int ring[2];                  /* owned by watch.c once watched; -1: none */
    bool is_watched;              /* watch.c's */
    pthread_mutex_t control_lock; /* the control lane; also what may block: split */

    pthread_mutex_t issue_lock; /* tickets are launched in order; before `lock` */
    uint64_t issued;

    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t turn;  /* any of it has changed */
    uint64_t retired;     /* plans that are over */
    int running;          /* plans that use buffers just now */
    atomic_bool aborted;
    bool is_finalized;
    ncclResult_t state; /* ncclInProgress, ncclSuccess, or what broke it, for ever */
    struct orri_why why;
    struct orri_redop *redops;   /* owned */
    unsigned nredops;            /* made so far */
    struct orri_buffer *buffers; /* owned list */
};

/* The communicator behind a handle, referenced; NULL (and the thread's error) if it is
 * none. Give back with orri_comm_put. */
struct ncclComm *orri_comm_get(ncclComm_t handle);
struct ncclComm *orri_comm_get_serial(uint64_t serial);
void orri_comm_ref(struct ncclComm *comm);
void orri_comm_put(struct ncclComm *comm);

/* A registered, starting communicator; takes over the place. NULL: out of memory. */
struct ncclComm *orri_comm_new(int nranks,
                               int rank,
                               const struct orri_place *place,
                               const ncclConfig_t *config);
/* Rendezvous and mapping; blocks. Leaves the result in the state, too. */
ncclResult_t orri_comm_start(struct ncclComm *comm, const ncclUniqueId *id);
/* Out of the registry, so that no call finds it. */
void orri_comm_forget(struct ncclComm *comm);

/* Success, or why the communicator cannot be used now (the thread's error). */
ncclResult_t orri_comm_check(struct ncclComm *comm);
/* The asynchronous error: state, or that a rank was lost. Fills `why`. */
ncclResult_t orri_comm_state(struct ncclComm *comm, struct orri_why *why);
/* Something failed: keeps the first reason and tells the other ranks. */
void orri_comm_break(struct ncclComm *comm,
                     ncclResult_t code,
                     const struct orri_why *why);
/* ncclRemoteError naming the rank that is gone. */
ncclResult_t
orri_comm_remote_error(struct ncclComm *comm, int rank, struct orri_why *why);
bool orri_comm_is_blocking(const struct ncclComm *comm);
bool orri_comm_is_finalized(struct ncclComm *comm);

/* Waits until all plans launched so far are over. */
void orri_comm_drain(struct ncclComm *comm);

/* Watches both ends of the ring: a neighbour that hangs up without leaving is dead.
 * Takes over the descriptors. */
bool orri_watch_add(struct ncclComm *comm);
void orri_watch_remove(struct ncclComm *comm);

/* The operators of a communicator (redop.c). */
void orri_redops_fini(struct ncclComm *comm);
void orri_buffers_fini(struct ncclComm *comm);

#endif
