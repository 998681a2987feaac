/* SPDX-License-Identifier: Apache-2.0
 * meet.h - how the processes that share a device's memory find each other, and what they have in common: the board, the backup, the
 * key of the hash, and the way to hand a frame on (docs/adr/0025-turns.md).
 *
 * START     Whoever comes looks, under a lock of a file, for a socket of somebody who is here, and is given board and backup; who finds
 *           nobody makes them.  Both are memory without a name: they go with the last process.
 * LIFE      Each holds a lock of one byte of the board's file.  The kernel drops it with the process, in whichever namespace it is.  (A
 *           lock of the process, not of the descriptor: a child of fork has none.)
 * FAILURES  A process that dies with the board's lock leaves it to the next, who sees that the board is torn and repairs it.
 * Limits    All that wait have deadlines, but for the board's own lock: nobody waits for anything while he has it.
 */
#ifndef ORR_RANK_CUDA_SHARE_MEET_H
#define ORR_RANK_CUDA_SHARE_MEET_H

#include "nh.h"

struct orri_meet {
    struct orri_board *board; /* borrowed: within the mapping of head */
    struct orri_nh_key key;   /* a copy */
    uint8_t *backup; /* owned mapping; content c at (c - ORRI_CONTENT) pieces */
    uint64_t piece_bytes;
    uint32_t me;
    void *head; /* owned mapping */
    int board_fd,
        backup_fd;  /* owned.  Nobody closes the board's: that would undo its locks */
    int listen_fd;  /* owned */
    uint32_t moved; /* as it was when the lock was taken */
    int (*give)(
        uint32_t
            slot); /* a descriptor of the frame, to be closed; -1: it is not held here.  From a thread of meet's own */
};

/* uuid: of the device.  False: why says what, with the remedy. */
bool orri_meet_come(struct orri_meet *m,
                    const uint8_t uuid[16],
                    uint64_t piece_bytes,
                    int (*give)(uint32_t slot),
                    char *why,
                    size_t why_bytes);

/* The board's lock; wakes those who wait when something has moved. */
void orri_meet_lock(struct orri_meet *m);
void orri_meet_unlock(struct orri_meet *m);
/* Until board->moved is not `seen` any more; at most ms. */
void orri_meet_wait(struct orri_meet *m, uint32_t seen, uint32_t ms);
/* Out, though the process lives. */
void orri_meet_go(struct orri_meet *m);
/* Takes the dead out. */
void orri_meet_look(struct orri_meet *m);
/* Room in the backup, which has the limits of the machine, too. */
bool orri_meet_reserve(struct orri_meet *m, uint32_t content);
uint8_t *orri_meet_content(const struct orri_meet *m, uint32_t content);

/* hand.c.  Where others ask this process; its name is the nonce. */
struct orri_place {
    char dir[96];
    uint32_t key;
};
int orri_hand_listen(const struct orri_place *place, uint32_t *ret_nonce);
bool orri_hand_serve(struct orri_meet *m);
/* Board and backup from somebody who is here; false: nobody is. */
bool orri_hand_find(const struct orri_place *place, int ret_fds[2]);
/* The descriptors of the frames of slots [first, first + n), from one who holds them; -1 where he does not. */
void orri_hand_fetch(const struct orri_place *place,
                     uint64_t nonce,
                     uint32_t first,
                     uint32_t n,
                     int *ret_fds);
extern struct orri_place orri_place;

#endif
