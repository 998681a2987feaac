/* SPDX-License-Identifier: Apache-2.0
 * board.h - what the ranks of a device that share its memory know together: who has the turn, which slots there are, what each rank
 * has in them, and which contents the backup holds (docs/adr/0025-turns.md).
 *
 * Pure: no device, no file, no clock.  A board is plain memory without pointers, so that processes can map it wherever they like; who
 * calls holds the one lock of it.  The caller moves the bytes and says when it has.
 *
 * INVARIANT  Of a member without the turn each common slot's bytes are those of its view, and these are in the backup, or zero.
 *            Where a tag is not ORRI_NOTHING, the slot's frame has these bytes.  A tag is ORRI_NOTHING from before the holder may
 *            write to the frame until after it may not any more.
 * DEATH      A member may end anywhere, also within a call (the lock then goes by itself, and is_torn stays set).  Views, groups and
 *            contents are written in an order that leaves them valid; what follows from them is counted anew by orri_board_repair.
 * Limits     64 members, 65536 slots (128 GiB of 2 MiB pieces); contents as the board was made for.
 */
#ifndef ORR_RANK_CUDA_SHARE_BOARD_H
#define ORR_RANK_CUDA_SHARE_BOARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ORRI_MEMBERS_MAX = 64,
    ORRI_SLOTS_MAX = 65536,
    ORRI_GROUPS_MAX = 16384,
    ORRI_BUCKETS = 65536,
    ORRI_CONTENTS_LEAST = 16,
};

/* Views and tags that are no content of the backup. */
enum {
    ORRI_NOTHING, /* view: the member has no such slot.  tag: nobody knows */
    ORRI_ZERO,    /* all bytes are zero */
    ORRI_PRIVATE, /* view: the member has physical memory of its own */
    ORRI_CONTENT, /* the first of the backup */
};

struct orri_hash {
    uint64_t lane[4];
};

struct orri_member {
    uint32_t is_here;
    uint32_t rank;   /* for messages */
    uint64_t ticket; /* it wants the turn; 0: it does not */
    uint32_t n_slots;
    uint32_t unused;
    uint64_t nonce; /* where it can be reached */
};

/* The slots of one segment: of the ordinal-th of its size in each member that has it. */
struct orri_group {
    uint64_t key;
    uint32_t ordinal, first;
    uint32_t n; /* pieces; 0: no group.  Written last */
    uint32_t unused;
    uint64_t members; /* bit by member */
};

struct orri_slot {
    uint64_t holders; /* of the frame: bit by member.  0: there is none */
    uint32_t tag;
    uint8_t is_used;  /* by a group */
    uint8_t is_apart; /* it is to be private */
    uint16_t n_apart; /* changes in a row to what nobody else had */
};

enum orri_content_state { ORRI_FREE, ORRI_FILLING, ORRI_KEPT };

struct orri_content {
    struct orri_hash hash;
    uint32_t state; /* enum orri_content_state; written last */
    uint32_t asker; /* member + 1 whose leave needs it, and is under way */
    uint32_t refs;  /* views */
    uint32_t next;  /* in its bucket: a content, or 0 */
};

struct orri_board {
    struct orri_hash zero; /* of a piece of zeros */
    uint64_t next_ticket;
    uint32_t holder; /* member + 1; 0: nobody has the turn */
    _Atomic uint32_t
        moved; /* changes when somebody may have to look: a futex, which the caller wakes */
    uint32_t is_torn;    /* a call is under way, or its member died in it */
    uint32_t is_tight;   /* nothing becomes private any more */
    uint32_t n_contents; /* room in the backup */
    uint32_t next_free;  /* where a search for a free content begins */
    uint32_t contents_top, slots_top; /* none in use from here on */
    struct orri_member member[ORRI_MEMBERS_MAX];
    struct orri_group group[ORRI_GROUPS_MAX];
    struct orri_slot slot[ORRI_SLOTS_MAX];
    uint32_t view[ORRI_MEMBERS_MAX][ORRI_SLOTS_MAX];
    uint32_t bucket[ORRI_BUCKETS]; /* contents, by hash */
    struct orri_content content[]; /* n_contents */
};

/* Bytes of a board for as many contents. */
size_t orri_board_bytes(uint32_t n_contents);
/* memory: zeroed. */
void orri_board_init(struct orri_board *b,
                     uint32_t n_contents,
                     const struct orri_hash *zero);

/* Every change stands between these two. */
static inline void orri_board_begin(struct orri_board *b)
{
    b->is_torn = 1;
    atomic_signal_fence(memory_order_seq_cst);
}

static inline void orri_board_end(struct orri_board *b)
{
    atomic_signal_fence(memory_order_seq_cst);
    b->is_torn = 0;
}

/* ---- members --------------------------------------------------------------------------------- */

/* False: all places are taken. */
bool orri_board_join(struct orri_board *b,
                     uint32_t rank,
                     uint64_t nonce,
                     uint32_t *ret_me);
/* Takes out those that are here and not in `alive` (bit by member), and counts anew all that follows from views and groups. */
void orri_board_repair(struct orri_board *b, uint64_t alive);
uint64_t orri_board_members(const struct orri_board *b);

/* ---- the turn -------------------------------------------------------------------------------- */

/* Queue for the turn; again: no change. */
void orri_turn_want(struct orri_board *b, uint32_t me);
/* True: the turn is free and nobody has waited longer; from now on it is this member's. */
bool orri_turn_take(struct orri_board *b, uint32_t me);
bool orri_turn_is_wanted(const struct orri_board *b, uint32_t me);
/* All slots were left. */
void orri_turn_pass(struct orri_board *b, uint32_t me);

/* ---- slots: the member has the turn ------------------------------------------------------------ */

/* Slots for a segment of n pieces, which this member has from now on: of zeros, common, not entered.  key: its size, and what else
 * segments must have in common.  False: no room for so many slots, or for what they may come to hold in the backup. */
bool orri_slots_add(
    struct orri_board *b, uint32_t me, uint64_t key, uint32_t n, uint32_t *ret_first);
/* The segment is gone, and with it what this member held of its frames. */
void orri_slots_drop(struct orri_board *b, uint32_t me, uint32_t first);
/* Who could hand over the frame; 0: there is none. */
uint64_t orri_slot_holders(const struct orri_board *b, uint32_t slot);
void orri_slot_hold(struct orri_board *b, uint32_t me, uint32_t slot, bool is_held);
bool orri_slot_is_common(const struct orri_board *b, uint32_t me, uint32_t slot);

/* ---- leaving ---------------------------------------------------------------------------------- */

/* The frame has these bytes.  Returns the content, *ret_copy: the caller has to copy it to the backup first.  0: no room, which
 * orri_slots_add has seen to.  Then, when all that was to be copied is there, orri_leave_slot for each. */
uint32_t orri_leave_ask(struct orri_board *b,
                        uint32_t me,
                        uint32_t slot,
                        const struct orri_hash *hash,
                        bool *ret_copy);
void orri_leave_slot(struct orri_board *b,
                     uint32_t me,
                     uint32_t slot,
                     uint32_t content);
/* All was left: what it asked for is held by views alone.  Then the turn may be passed. */
void orri_leave_end(struct orri_board *b, uint32_t me);
/* It could not be copied: the member keeps the turn, and what it asked for is forgotten. */
void orri_leave_not(struct orri_board *b, uint32_t me);

/* ---- entering --------------------------------------------------------------------------------- */

/* What the frame must be filled with: ORRI_NOTHING (it has the bytes already), ORRI_ZERO, or a content.  The tag is gone. */
uint32_t orri_enter_slot(struct orri_board *b, uint32_t me, uint32_t slot);
/* It should be made private. */
bool orri_enter_is_apart(const struct orri_board *b, uint32_t me, uint32_t slot);
/* The member, which has entered, has made it so, or common again. */
void orri_slot_set_private(struct orri_board *b,
                           uint32_t me,
                           uint32_t slot,
                           bool is_private);

/* Has anybody memory apart? */
bool orri_board_is_any_private(const struct orri_board *b);

/* NULL, or what is wrong with the board: for tests. */
const char *orri_board_check(const struct orri_board *b);

#endif
