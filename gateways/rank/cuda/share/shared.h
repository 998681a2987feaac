/* SPDX-License-Identifier: Apache-2.0
 * shared.h - between the files of this folder that work on the device: pieces.c, switch.c, turns.c.
 */
#ifndef ORR_RANK_CUDA_SHARE_SHARED_H
#define ORR_RANK_CUDA_SHARE_SHARED_H

#include <pthread.h>

#include "hasher.h"
#include "meet.h"
#include "share.h"

/* Mapped is `own` where there is one, else `frame`. */
struct orri_piece {
    CUmemGenericAllocationHandle frame, own; /* 0: none */
};

/* The pieces of a segment. */
struct orri_shared {
    struct orri_shared *next;
    uint64_t at;
    uint32_t first, n; /* slots */
    struct orri_piece piece[];
};

struct orri_share {
    struct orri_meet meet;
    struct orri_hasher hasher;
    CUcontext ctx;
    CUdevice device;
    CUstream stream; /* of ctx: ours */
    pthread_mutex_t
        lock; /* guards the list and handles of pieces, which who gives frames reads; changed only with the turn */
    struct orri_shared *list;
    struct orri_share_counts counts;
};
extern struct orri_share orri_share;

/* One piece of all. */
struct orri_item {
    struct orri_shared *shared;
    struct orri_piece *piece;
    uint32_t slot;
    CUdeviceptr at;
    uint32_t content;
    bool is_copied;
};

/* All that are common, or all; *ret_items is owned by the caller.  With the turn. */
bool orri_items_list(bool with_private, struct orri_item **ret_items, size_t *ret_n);

/* pieces.c */
int orri_piece_give(uint32_t slot);
/* With the turn, and nothing of this process on the device.  Room for it is looked for; what fails leaves the piece as it was. */
CUresult orri_piece_make_private(const struct orri_item *i);
CUresult orri_piece_make_common(const struct orri_item *i);

/* switch.c.  The gate is closed, all work has ended; the context is current. */
CUresult orri_switch_leave(void);
CUresult orri_switch_enter(void);

#endif
