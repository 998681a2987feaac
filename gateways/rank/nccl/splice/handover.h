/* SPDX-License-Identifier: Apache-2.0
 * handover.h - descriptors of scratch go from the leader's process to those of its device, over a UNIX socket.
 *
 * Each process listens under a name that nobody else has (a *nonce*, which the others are told) before it tells anybody of it, gives
 * out what it leads from a thread of its own, and closes the socket when all have theirs: at a stop there is none.
 * Waits: every one has a deadline (CLOCK_MONOTONIC, ms).
 */
#ifndef ORRI_SPLICE_HANDOVER_H
#define ORRI_SPLICE_HANDOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct orri_handover;

struct orri_gift {
    uint64_t key; /* of the communicator */
    int fd[2];    /* borrowed until the end */
    int times;    /* how many are to have it */
};

/* Listens.  NULL: the thread's last error of NCCL. */
struct orri_handover *orri_handover_new(void);
uint64_t orri_handover_nonce(const struct orri_handover *h);
/* From now on gives these (copied) out; false: no thread. */
bool orri_handover_serve(struct orri_handover *h,
                         const struct orri_gift *gifts,
                         size_t n,
                         uint64_t deadline_ms);
/* Waits until all are given, or until the deadline.  False: not all. */
bool orri_handover_await(struct orri_handover *h);
void orri_handover_free(struct orri_handover *h); /* ends the thread */

/* False: not in time, or it is not there (the thread's last error of NCCL).  Else the giver counts it as given when *ret_sock is closed: once
 * what the descriptors stand for is held. */
bool orri_handover_fetch(
    uint64_t nonce, uint64_t key, uint64_t deadline_ms, int ret_fd[2], int *ret_sock);

#endif
