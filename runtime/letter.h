/* SPDX-License-Identifier: Apache-2.0
 * letter.h - a message, or another effect of a handler, in the kernel's hands.
 *
 * A letter is one block: this head, the body, and a trace id if it has one.  It is in one place at a time (an outbox, what an
 * actor holds back, a lane, a handler's hands) and owned by that place.
 */
#ifndef ORRI_LETTER_H
#define ORRI_LETTER_H

#include "orrery/msg.h"

enum { ORRI_TRACE = 24 }; /* bytes of a trace id */

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
    LETTER_NOW,  /* a message that is not held back */
    LETTER_HOLD, /* among what is held: what follows waits for the ticket in corr */
};

enum orri_letter_flag {
    LETTER_ASK = 1,    /* in an outbox: tag and timeout become an open ask */
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
    uint64_t corr; /* of the request, or of the request that this answers; of an ask in
                      an outbox: its timeout */
    uint64_t deadline_ms; /* 0 = none */
    uint64_t tag;         /* of an answer in an outbox: the id of what was asked */
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

#endif
