/* SPDX-License-Identifier: Apache-2.0
 * work.h - calls of the real library that may never return, on threads of their own, with a deadline.
 */
#ifndef ORRI_NCCL_WORK_H
#define ORRI_NCCL_WORK_H

#include "comm.h"

enum { ORRI_WORK_THREADS = 32 };

/* Shared by the caller and its threads; the last to let go frees it. */
struct orri_work {
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t turn;
    int refs, threads; /* still at it */
    size_t next;
    atomic_bool is_cancelled;
    /* fixed from the start */
    void (*run)(struct orri_work *w, size_t i);
    size_t n;
    struct orri_comm *comm[ORRI_COMMS_MAX];
    ncclComm_t real[ORRI_COMMS_MAX];
    /* each slot by the thread that has it; read when all are done */
    ncclResult_t result[ORRI_COMMS_MAX];
    atomic_bool is_done[ORRI_COMMS_MAX];
    char text[256]; /* of the first failure; guarded by the lock */
};

enum orri_work_kind {
    ORRI_WORK_REAL,      /* have a real one */
    ORRI_WORK_STOPPED,   /* are to get it again */
    ORRI_WORK_DESTROYED, /* by the program, and perhaps not by others */
};
/* Those communicators, in the order of their keys. */
size_t orri_work_list(struct orri_comm **list, enum orri_work_kind kind);
void orri_work_sort(struct orri_comm **list, size_t n);
/* All of those, each once to be given to run; NULL: out of memory.  put: by the caller when it is through with it. */
struct orri_work *orri_work_new(void (*run)(struct orri_work *, size_t),
                                enum orri_work_kind kind);
void orri_work_put(struct orri_work *w);
/* The result of item i, with the calling thread's last error if it is one. */
void orri_work_note(struct orri_work *w, size_t i, ncclResult_t result);
/* Runs all of it on up to n threads.  False: not over at the deadline, or no thread. */
bool orri_work_run(struct orri_work *w, size_t n, uint64_t deadline_ms);
/* Waits for the threads.  False: not in time. */
bool orri_work_await(struct orri_work *w, uint64_t deadline_ms);

#endif
