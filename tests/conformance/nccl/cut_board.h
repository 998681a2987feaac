/* SPDX-License-Identifier: Apache-2.0
 * cut_board.h - what the ranks of a case and the coordinator of its cuts share: the barrier of DESIGN 7.1 in its simplest form,
 * under one lock.
 */
#ifndef CUT_BOARD_H
#define CUT_BOARD_H

#include "../../../gateways/rank/core/part.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { CUT_PROCS = 8, CUT_CLOCKS = 512, CUT_IDS = 2048, CUT_POSTS = 1024 };

enum cut_state {
    CUT_RUN,
    CUT_CLOSING, /* a rank at all of its targets parks */
    CUT_STOP,    /* each process destroys its communicators */
    CUT_IDS_MADE,
    CUT_IDS_ADDED, /* all have spoken */
    CUT_RESUME,
};

struct cut_proc {
    bool is_here, is_gone;
    int pid, inside;
    enum cut_state reached; /* the step that it has done */
    uint32_t nclocks;
    struct orri_clock clocks[CUT_CLOCKS];
};

struct cut_post {
    uint64_t name;
    uint8_t data[128];
};

struct cut_board {
    pthread_mutex_t lock; /* robust; guards everything */
    _Atomic uint32_t
        turn; /* a futex: a condition variable does not survive a waiter that is killed */
    enum cut_state state;
    uint64_t cut; /* the how manyth */
    struct cut_proc proc[CUT_PROCS];
    uint32_t nids, nids_spoken;
    struct orri_comm_id ids[CUT_IDS];
    uint32_t nposts; /* all so far; the newest are kept */
    struct cut_post posts[CUT_POSTS];
    uint32_t failures;
    char failure[256]; /* the first */
    /* what came of it */
    uint64_t done, given_up, parked, comms_remade, comms_left;
};

void cut_lock(struct cut_board *b);
void cut_unlock(struct cut_board *b);
/* Something has changed. */
void cut_notify(struct cut_board *b);
/* False: the deadline (CLOCK_MONOTONIC, ms) has passed. */
bool cut_wait(struct cut_board *b, uint64_t deadline_ms);
uint64_t cut_now_ms(void);

enum { CUT_NEVER = 999999 }; /* a seed: what is posted is kept, and no cut is made */
/* The coordinator (cut_drive.c): makes cuts at random moments until stopped.  path: of the board's file, for the ranks. */
struct cut_drive;
struct cut_drive *cut_drive_new(unsigned seed);
const char *cut_drive_path(const struct cut_drive *d);
/* Ends the cuts; adds what was done to the totals and returns the failures. */
uint32_t cut_drive_free(struct cut_drive *d,
                        uint64_t *add_done,
                        uint64_t *add_remade,
                        uint64_t *add_left);

/* True when every clock is at its target. */
bool cut_is_consistent(const struct cut_board *b);
/* True when this clock is below its target: the largest among its members.  Where a member's process has ended, it could not be
 * made anew: the others run on until they have destroyed it. */
bool cut_is_behind(const struct cut_board *b, const struct orri_clock *c);

#endif
