/* SPDX-License-Identifier: Apache-2.0
 * wheel.h - a hierarchical timer wheel: insert and remove in O(1), fire in order of time.
 *
 * Seven levels of 64 slots, one tick a millisecond.  An entry sits on the level of the highest base-64 digit in which its due
 * time differs from the wheel's time, so entries of a lower level are always due before those of a higher one, and the next
 * due time is found with seven bit masks.  Time ends at 2^42 ms (139 years): what is due later is due then.
 * Entries are embedded in what is due; the wheel owns nothing.  Threads: none; the caller locks.
 */
#ifndef ORRI_WHEEL_H
#define ORRI_WHEEL_H

#include "orrery/base.h"

enum { ORRI_WHEEL_LEVELS = 7, ORRI_WHEEL_BITS = 6, ORRI_WHEEL_SLOTS = 64 };

struct orri_link {
    struct orri_link *next; /* NULL: not in the wheel */
    struct orri_link *prev;
};

struct orri_due {
    struct orri_link link; /* first */
    uint64_t due_ms;
    uint16_t place; /* level * 64 + slot */
    uint8_t kind;   /* the owner's */
};

struct orri_wheel {
    uint64_t now_ms;
    uint64_t busy[ORRI_WHEEL_LEVELS]; /* bit per slot that has entries */
    struct orri_link slots[ORRI_WHEEL_LEVELS * ORRI_WHEEL_SLOTS]; /* heads of rings */
};

void orri_wheel_init(struct orri_wheel *wheel, uint64_t now_ms);
void orri_wheel_insert(struct orri_wheel *wheel, struct orri_due *due, uint64_t due_ms);
/* Nothing happens when it is not in the wheel. */
void orri_wheel_remove(struct orri_wheel *wheel, struct orri_due *due);
/* Take one entry that is due at now_ms, earliest first; NULL when none is. */
struct orri_due *orri_wheel_take(struct orri_wheel *wheel, uint64_t now_ms);
/* UINT64_MAX when empty. */
uint64_t orri_wheel_next_ms(const struct orri_wheel *wheel);

#endif
