/* SPDX-License-Identifier: Apache-2.0
 * rank.h - for a program that saves and loads its own state, so that it can be stopped anywhere and go on elsewhere without
 * CRIU and whatever its driver is able to do (level `cooperative`).
 *
 *     orr_rank_region("weights", w, sizeof w);
 *     orr_rank_region("step", &step, sizeof step);
 *     orr_rank_restored();                          loads what an earlier run of this rank has saved
 *     for (; step < STEPS; step++) {
 *         orr_rank_point();                         may be stopped here, and only here
 *         ... one step, collectives and all ...
 *     }
 *
 * A point is a collective: every rank comes to the same points in the same order, and with nothing in flight between the ranks
 * that a later step needs.  A point costs nanoseconds; it waits only when the job is being stopped.
 * Outside of Orrery all calls are no-ops.  Link with -lorrery-rank, or load liborrery-rank.so (python/orrery does).
 * Threads: register before the first point; points come from one thread, which also runs the callbacks.
 */
#ifndef ORR_RANK_H
#define ORR_RANK_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { ORR_RANK_STATES_MAX = 1024, ORR_RANK_NAME_MAX = 64 };

/* bytes: how many save will write; save and load return 0, or not 0 when they fail. */
struct orr_rank_callbacks {
    size_t (*bytes)(void *arg);
    int (*save)(void *arg, void *to, size_t bytes);
    int (*load)(void *arg, const void *from, size_t bytes);
    void *arg;
};

/* Names are the program's own and say what is what after a restore.  0; -1: no name, name taken, or more than
 * ORR_RANK_STATES_MAX. */
int orr_rank_region(const char *name, void *at, size_t bytes);
int orr_rank_state(const char *name, const struct orr_rank_callbacks *callbacks);

/* 1: all that is registered was loaded from a checkpoint.  0: there is none: begin.  -1: there is one, but it does not fit what
 * is registered, or a load failed: do not go on.  Asked before the first point; later it answers the same. */
int orr_rank_restored(void);

/* A barrier point. */
void orr_rank_point(void);

#ifdef __cplusplus
}
#endif
#endif
