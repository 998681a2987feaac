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

#include "memory.h"
#include "transport.h"
#include "wheel.h"

enum {
    ORRI_TRACE = 24,
    ORRI_BATCH_MAX = 64, /* messages of one actor before the next one's turn */
    ORRI_CHUNK =
        16, /* slots in one piece of the actor table, and of the table of asks */
    ORRI_LIMIT_MAX =
        32767, /* messages in a lane; half of what the lane's word can count */
    ORRI_DEAD_KEPT = 32,
};

enum orri_letter_kind {
    LETTER_MESSAGE,
    LETTER_RUN, /* first of messages to one actor; in the outbox: last, and corr = how many */
    LETTER_TIMER_SET, /* the others are effects of a handler: orri_effect_* is their body */
    LETTER_TIMER_CANCEL,
    LETTER_SPAWN,
    LETTER_STOP,
    LETTER_WATCH,
    LETTER_UNWATCH,
    LETTER_RELAY,
};

enum orri_letter_flag {
    LETTER_ASK = 1,    /* in an outbox: tag and deadline become an open ask */
    LETTER_ANSWER = 2, /* answers a request; in a mailbox its tag is the asker's */
    LETTER_KERNEL =
        4, /* made by the kernel: not subject to limits, roles and deadlines */
    LETTER_TIMER = 8, /* a timer's message: corr is the serial number of the setting */
    LETTER_TRACED = 16, /* 24 bytes of trace id follow the body */
};

struct orri_letter {
    struct orri_letter *next;  /* the one sent after it */
    struct orri_letter *below; /* in an inbox: what was pushed before */
    struct orri_letter
        *last; /* in an inbox: the end of the run that was pushed with it */
    const struct orr_msg_desc *desc;
    struct orr_addr
        peer;      /* the receiver while in an outbox (not of a run), then the sender */
    uint64_t slot; /* of the receiver, once it is known */
    uint64_t corr; /* of the request, or of the request that this answers */
    uint64_t deadline_ms; /* 0 = none; of an ask in an outbox: its timeout */
    uint64_t tag;
    uint8_t kind;
    uint8_t flags;
    uint8_t role;   /* of the sender */
    uint8_t class;  /* of the block */
    uint32_t bytes; /* of the body, to a multiple of 8; a trace id may follow */
    unsigned char body[];
};

struct orri_effect_timer {
    uint32_t id;
    uint64_t delay_ms;
    uint64_t arg;
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

struct orri_actor {
    struct orri_lane lanes[ORR_LANE_MAX_];
    _Atomic uint8_t duty;
    _Atomic uint8_t orders;
    _Atomic uint8_t phase; /* changed by the owner; FREE to RESERVED under tree */
    uint8_t restart;       /* enum orr_restart */
    bool is_doomed;        /* told to stop before it started */
    _Atomic uint32_t life; /* counts the lives of this slot */
    uint32_t index;
    _Atomic uint32_t limit; /* messages in a lane */
    _Atomic(struct orri_dispatch *) dispatch;
    struct orri_actor *next_run; /* in the shared run queue */
    void *body;                  /* owned: struct orri_body */
    void *state;                 /* in body */

    /* Family: lists are guarded by tree, the rest belongs to the parent's owner. */
    struct orri_actor *parent;
    struct orri_actor *first_child;
    struct orri_actor *last_child;
    struct orri_actor *next_sibling;
    struct orri_actor *prev_sibling;
    _Atomic(struct orri_actor *) to_see; /* children that ended or are due; shared */
    struct orri_actor *seeing;           /* taken from to_see, oldest first */
    struct orri_actor *next_to_see;
    uint8_t why;          /* enum orr_err: how its life ended */
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
};

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
