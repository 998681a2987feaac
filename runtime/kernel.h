/* SPDX-License-Identifier: Apache-2.0
 * kernel.h - what the files of the kernel share: letters, actors, workers, the system.
 *
 * An actor's slot is never freed while the system lives, only its body (arguments, path, state).  So an address can be
 * followed without a lock: a letter carries slot and life, is pushed to whatever slot that is, and becomes a dead letter
 * when its life is not the one that it finds there.
 * Ownership of an actor goes with its `duty`: who moved it from DUTY_QUEUED to DUTY_RUNNING owns all fields that are not
 * said to be shared, until it moves it on.
 * Locks: outside (the pseudo worker of other threads), then tree (families, watches), then names (registry) or time (wheel,
 * asks, timers), then sched.lock (shared run queue, parking) or the pool's.
 */
#ifndef ORRI_KERNEL_H
#define ORRI_KERNEL_H

#include "letter.h"
#include "memory.h"
#include "transport.h"
#include "wheel.h"

enum {
    ORRI_BATCH_MAX = 64, /* messages of one actor before the next one's turn */
    ORRI_CHUNK =
        16, /* slots in one piece of the actor table, and of the table of asks */
    ORRI_LIMIT_MAX =
        32767, /* messages in a lane; half of what the lane's word can count */
    ORRI_DEAD_KEPT = 32,
};

/* A type's handlers by message id: a perfect hash, built once per type and system. */
struct orri_dispatch {
    const struct orr_actor_type *type; /* borrowed: static */
    struct orri_dispatch *next;
    uint32_t multiplier;
    uint8_t shift;
    bool has_policy; /* a row that does not just refuse */
    uint16_t rows[]; /* index into type->handlers + 1; 0 = none */
};

struct orri_lane {
    _Atomic uint64_t
        inbox; /* newest letter | how many << 48; shared: any thread pushes */
    struct orri_letter *first;
    struct orri_letter *last;
    _Atomic uint32_t
        queued; /* from first to last; written by the owner, read by senders */
};

enum orri_duty { DUTY_IDLE, DUTY_QUEUED, DUTY_RUNNING, DUTY_SORTING };

enum orri_phase {
    PHASE_FREE,
    PHASE_RESERVED, /* spawned, its START order not seen yet */
    PHASE_LIVE,
    PHASE_STOPPING, /* waits for its children to end */
    PHASE_DOWN,     /* ended; its parent decides what becomes of it */
};

enum orri_order { /* shared bits, taken by the owner */
                  ORDER_START = 1,
                  ORDER_STOP = 2,
                  ORDER_FAMILY = 4, /* a child ended, or is due to be restarted */
};

struct orri_body;

struct orri_actor {
    struct orri_lane lanes[ORR_LANE_MAX_];
    _Atomic uint8_t duty;
    _Atomic uint8_t orders;
    _Atomic uint8_t phase; /* changed by the owner; FREE to RESERVED under tree */
    bool is_holding;       /* held is not empty */
    _Atomic uint32_t life; /* counts the lives of this slot */
    uint32_t index;
    _Atomic uint32_t limit; /* messages in a lane */
    _Atomic(struct orri_dispatch *) dispatch;
    void *state; /* in body */
    /* Up to here two cache lines: all that a message touches. */
    struct orri_actor *next_run; /* in the shared run queue */
    struct orri_body *body;      /* owned */

    /* Family: lists are guarded by tree, the rest belongs to the parent's owner. */
    struct orri_actor *parent;
    struct orri_actor *first_child;
    struct orri_actor *last_child;
    struct orri_actor *next_sibling;
    struct orri_actor *prev_sibling;
    _Atomic(struct orri_actor *) to_see; /* children that ended or are due; shared */
    struct orri_actor *seeing;           /* taken from to_see, oldest first */
    struct orri_actor *next_to_see;
    uint8_t restart;      /* enum orr_restart */
    uint8_t why;          /* enum orr_err: how its life ended */
    bool is_doomed;       /* told to stop before it started */
    bool is_asked_to_end; /* by its parent's handler, or its end */
    bool is_reported;     /* ended, and the parent has seen it */
    bool is_awaiting;     /* a restart */
    bool is_fired;        /* its backoff is over, and the parent has seen it */
    uint16_t n_failures;  /* of its children, since failures_from_ms */
    uint64_t failures_from_ms;
    struct orri_due restart_due; /* time */

    struct orri_watch *watched_by; /* tree */
    struct orri_watch *watches;    /* tree */
    struct orri_timer *timers;     /* time */
    struct orri_ask *asks;         /* time */
    struct orri_letter *held;      /* hold.c; the newest of a ring, NULL: nothing */
} __attribute__((aligned(ORRI_LINE)));

/* One allocation per actor: arguments, path and state follow. */
struct orri_body {
    uint32_t path_len;
    uint32_t bytes;
    const void *args; /* in this block */
    char *path;       /* in this block, terminated; NULL for none */
};

static inline uint64_t orri_slot_of(uint32_t life, uint32_t index)
{
    return (uint64_t)life << 32 | index;
}

#endif
