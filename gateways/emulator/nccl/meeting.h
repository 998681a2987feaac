/* SPDX-License-Identifier: Apache-2.0
 * meeting.h - the meetings of a process and the ranks that come to them: the part of
 * the root (rendezvous.h) that decides. The caller holds the one lock around all calls.
 */
#ifndef ORRI_MEETING_H
#define ORRI_MEETING_H

#include "rendezvous.h"

#include <stdbool.h>
#include <stddef.h>

enum { ORRI_GUESTS_MAX = 1024, ORRI_MEETINGS_MAX = 4096, ORRI_HELLO_MS = 10000 };

struct orri_guest {
    int fd; /* owned; -1: free */
    uint64_t hello_by_ms;
    struct orri_hello hello;
    struct meeting *meeting; /* borrowed: until it ends, which clears this */
};

/* The guests, ORRI_GUESTS_MAX of them; all free after orri_meetings_init. */
extern struct orri_guest orri_guests[];

/* Forgets everything that a parent process had (its descriptors are left to it). */
void orri_meetings_init(void);
/* Invites to a new meeting. Past the limit the oldest unanswered one is dropped. */
bool orri_meeting_add(const uint8_t cookie[16]);
struct orri_guest *orri_guest_free(void);
/* Hangs up on all. */
void orri_guests_drop(void);
int orri_meetings_count(void);
/* Something has come on the guest's socket, or it has hung up. */
void orri_guest_read(struct orri_guest *g);
/* Ends what is late; returns the ms until the next deadline, -1 for none. */
int orri_meetings_expire(void);

#endif
