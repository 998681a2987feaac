/* SPDX-License-Identifier: Apache-2.0
 * watch.h - a thread that ends the program when NCCL fails or nothing moves on.
 *
 * A rank whose peer has died may wait in cuStreamSynchronize for ever. The watch asks
 * ncclCommGetAsyncError ten times a second meanwhile, and ends the program by name, as
 * PyTorch's watchdog does. Its deadlines count its own ticks, not the clock: a program
 * that was stopped for an hour and goes on has not missed one.
 */
#ifndef EXAMPLE_WATCH_H
#define EXAMPLE_WATCH_H

#include "gpu.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

/* Seconds for watch_enter. */
enum { WATCH_INIT_S = 120, WATCH_STEP_S = 600, WATCH_COMMS_MAX = 4 };

struct watch {
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t wake;
    bool is_stopping;
    ncclComm_t comms[WATCH_COMMS_MAX]; /* borrowed: outlive the watch_fini */
    size_t ncomms;
    const char *what; /* borrowed: a literal; what the program is doing */
    uint32_t ticks_left;
};

void watch_init(struct watch *w);
void watch_fini(struct watch *w);

/* From now on errors of these communicators, and of no others, end the program. */
void watch_comms(struct watch *w, const ncclComm_t *comms, size_t n);

/* The program does `what` and ends if it still does so in `seconds` of running. */
void watch_enter(struct watch *w, const char *what, uint32_t seconds);

#endif
