/* SPDX-License-Identifier: Apache-2.0
 * page.h - the clock page: what a process of a rank counts, where its node can read it without asking.
 *
 * A memfd that the library makes and sends with rank_hello; the node maps it read-only and believes nothing in it (bounds are its
 * own).  Entries are only added; `n` is stored (release) after the entry is complete.  Closed and unmapped while the process is
 * stopped, so that its image is clean; the library keeps the numbers.  docs/barrier.md
 */
#ifndef ORR_RANK_PAGE_H
#define ORR_RANK_PAGE_H

#include <stdatomic.h>
#include <stdint.h>

#define ORRI_PAGE_MAGIC UINT64_C(0x314b434f4c43524f) /* "ORCLOCK1" */
/* The last eight bytes of an arena that has a program's own state (coop.c). */
#define ORRI_SAVED_MAGIC UINT64_C(0x3145544154535252) /* "RRSTATE1" */
enum { ORRI_CLOCKS_MAX = 16384 };

struct orri_clock {
    uint64_t comm; /* key of the communicator */
    uint32_t kind; /* enum orr_clock_kind */
    uint32_t me;   /* rank in the communicator */
    uint32_t peer; /* send, receive */
    uint32_t n;    /* ranks of the communicator */
    _Atomic uint64_t issued;
    _Atomic uint64_t issued_ms; /* CLOCK_MONOTONIC (coarse) of the newest */
    _Atomic uint32_t op;        /* enum orr_clock_op of the newest */
    uint32_t is_over;           /* the communicator was destroyed: it bars no cut */
    uint64_t pad_[2];
};

struct orri_page {
    uint64_t magic;
    uint32_t version; /* ORR_RANK_PROTOCOL */
    _Atomic uint32_t n;
    uint64_t pad_[6];
    struct orri_clock clocks[ORRI_CLOCKS_MAX];
};

_Static_assert(sizeof(struct orri_clock) == 64, "one cache line each");

#endif
