/* SPDX-License-Identifier: Apache-2.0
 * wheel.c - see wheel.h.
 */
#include "wheel.h"

#define END_MS ((UINT64_C(1) << (ORRI_WHEEL_LEVELS * ORRI_WHEEL_BITS)) - 1)

static unsigned digit(uint64_t time_ms, unsigned level)
{
    return (unsigned)(time_ms >> (level * ORRI_WHEEL_BITS)) & (ORRI_WHEEL_SLOTS - 1);
}

void orri_wheel_init(struct orri_wheel *wheel, uint64_t now_ms)
{
    memset(wheel, 0, sizeof(*wheel));
    wheel->now_ms = now_ms;
    for (size_t i = 0; i < ORR_ARRAY_SIZE(wheel->slots); i++)
        wheel->slots[i].next = wheel->slots[i].prev = &wheel->slots[i];
}

static void place(struct orri_wheel *wheel, struct orri_due *due)
{
    uint64_t when = due->due_ms < wheel->now_ms ? wheel->now_ms : due->due_ms;
    uint64_t differs = when ^ wheel->now_ms;
    unsigned level =
        differs ? (63u - (unsigned)__builtin_clzll(differs)) / ORRI_WHEEL_BITS : 0;
    unsigned slot = digit(when, level);
    due->place = (uint16_t)(level * ORRI_WHEEL_SLOTS + slot);
    struct orri_link *head = &wheel->slots[due->place];
    due->link = (struct orri_link){head, head->prev};
    head->prev->next = &due->link;
    head->prev = &due->link;
    wheel->busy[level] |= UINT64_C(1) << slot;
}

void orri_wheel_insert(struct orri_wheel *wheel, struct orri_due *due, uint64_t due_ms)
{
    ORR_ASSERT(!due->link.next);
    due->due_ms = due_ms < END_MS ? due_ms : END_MS;
    place(wheel, due);
}

void orri_wheel_remove(struct orri_wheel *wheel, struct orri_due *due)
{
    if (!due->link.next)
        return;
    due->link.next->prev = due->link.prev;
    due->link.prev->next = due->link.next;
    due->link = (struct orri_link){NULL, NULL};
    struct orri_link *head = &wheel->slots[due->place];
    if (head->next == head)
        wheel->busy[due->place / ORRI_WHEEL_SLOTS] &=
            ~(UINT64_C(1) << (due->place % ORRI_WHEEL_SLOTS));
}

/* The first slot that has entries.  Returns its place, or -1. */
static int first_slot(const struct orri_wheel *wheel)
{
    for (unsigned level = 0; level < ORRI_WHEEL_LEVELS; level++)
        if (wheel->busy[level])
            return (int)(level * ORRI_WHEEL_SLOTS) +
                   __builtin_ctzll(wheel->busy[level]);
    return -1;
}

/* When the wheel's time enters that slot. */
static uint64_t slot_start_ms(const struct orri_wheel *wheel, unsigned at)
{
    unsigned level = at / ORRI_WHEEL_SLOTS;
    unsigned shift = level * ORRI_WHEEL_BITS;
    uint64_t above = wheel->now_ms >> shift >> ORRI_WHEEL_BITS;
    return ((above << ORRI_WHEEL_BITS) | (at % ORRI_WHEEL_SLOTS)) << shift;
}

struct orri_due *orri_wheel_take(struct orri_wheel *wheel, uint64_t now_ms)
{
    for (;;) {
        int at = first_slot(wheel);
        uint64_t start = at < 0 ? UINT64_MAX : slot_start_ms(wheel, (unsigned)at);
        if (at < 0 || start > now_ms) {
            if (wheel->now_ms < now_ms)
                wheel->now_ms = now_ms;
            return NULL;
        }
        struct orri_link *head = &wheel->slots[at];
        struct orri_due *due = (struct orri_due *)head->next;
        if (wheel->now_ms < start)
            wheel->now_ms = start;
        if (at < ORRI_WHEEL_SLOTS && due->due_ms <= wheel->now_ms) {
            orri_wheel_remove(wheel, due);
            return due;
        }
        while (head->next != head) { /* the slot's entries move to lower levels */
            due = (struct orri_due *)head->next;
            orri_wheel_remove(wheel, due);
            place(wheel, due);
        }
    }
}

uint64_t orri_wheel_next_ms(const struct orri_wheel *wheel)
{
    int at = first_slot(wheel);
    if (at < 0)
        return UINT64_MAX;
    const struct orri_link *head = &wheel->slots[at];
    uint64_t next = UINT64_MAX;
    for (const struct orri_link *link = head->next; link != head; link = link->next) {
        const struct orri_due *due = (const struct orri_due *)link;
        if (due->due_ms < next)
            next = due->due_ms;
        if (at < ORRI_WHEEL_SLOTS)
            break; /* all of one tick */
    }
    return next;
}
