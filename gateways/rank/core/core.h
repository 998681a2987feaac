/* SPDX-License-Identifier: Apache-2.0
 * core.h - the insides of liborrery-rank.so, shared by its files.
 *
 * One process has one core.  The program's threads are only ever in gate.c, page.c and coop.c; everything else is done by the
 * link's one thread (link.c, stop.c).  orri_core.lock guards the gate's state, the registry of clocks and of parts; it is held
 * for short moments, never over a system call that may wait.
 */
#ifndef ORR_RANK_CORE_H
#define ORR_RANK_CORE_H

#include <pthread.h>

#include "gate_state.h"
#include "orrery/msg.h"
#include "part.h"

enum { ORRI_JOB_MAX = ORR_JOB_ID_MAX, ORRI_LINK_MAX = 108 };

struct orri_core {
    _Atomic bool is_active; /* has a link; false for ever in a forked child */
    char link[ORRI_LINK_MAX], job[ORRI_JOB_MAX];
    uint64_t generation;
    uint32_t rank, world;

    pthread_mutex_t lock; /* guards what follows */
    struct orri_gate gate;
    const struct orri_part *parts[ORRI_PART_MAX_];
    const char *why_not, *why_no_image;
    bool limits_moved; /* to be told */
};
extern struct orri_core orri_core;

uint64_t orri_mono_ms(void);

/* page.c.  make: once, under the lock; false when there is no memory.  fd: -1 when there is none. */
bool orri_page_make(void);
int orri_page_fd(void);
/* Put the clocks into memory of the process' own, or back into a page that can be shown.  Only while nobody counts. */
bool orri_page_detach(void);
bool orri_page_attach(void);
void orri_page_in_child(void);

/* gate.c.  What the link's thread does; each takes the lock. */
bool orri_gate_ask_close(uint64_t cut);
void orri_gate_ask_open(uint64_t cut);
bool orri_gate_ask_targets(uint64_t cut,
                           uint64_t round,
                           bool is_first,
                           const struct orri_target *targets,
                           uint32_t n,
                           bool is_last);
bool orri_gate_ask_shut(void);
void orri_gate_ask_unshut(void);
void orri_gate_ask_reopen(void);
void orri_gate_ask_renumber(
    uint64_t cut); /* a new generation: what is newer than this counts */

struct orri_gate_view {
    uint64_t cut, round;
    enum orri_gate_mode mode;
    bool is_at_cut;
    bool is_settled; /* false: a thread is just being counted; look again in a moment */
    uint32_t n;      /* clocks that were written to rows */
};
/* All in one moment; rows: ORRI_CLOCKS_MAX of them, or NULL. */
struct orri_gate_view orri_gate_look(struct orr_rec_clock *rows);
/* True, once, when something moved that the node may want to know. */
bool orri_gate_has_moved(void);
void orri_gate_tell_moved(void); /* any thread */
/* Threads between enter and leave, at about this moment. */
uint32_t orri_gate_inside(void);

/* A point: as enter and leave at once, but the thread that is parked serves the link's thread meanwhile. */
void orri_gate_point(struct orri_clock *world);
void orri_gate_set_cooperative(void);
/* Have the parked thread call fn(arg); false when no thread is parked in a point or deadline_ms passed. */
bool orri_gate_serve(void (*fn)(void *arg), void *arg, uint64_t deadline_ms);
void orri_gate_in_child(void);

/* link.c */
bool orri_link_start(void);
void orri_link_wake(void); /* any thread */
bool orri_link_wait_welcome(uint64_t deadline_ms);
void orri_link_in_child(void);

/* stop.c, coop.c */
void orri_stop_in_child(void);
/* A program that begins anew from what it saved: the state that its node has kept for it.  Consumes *take_fd. */
void orri_coop_take_state(int *take_fd);

#endif
