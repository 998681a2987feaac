/* SPDX-License-Identifier: Apache-2.0
 * job_suspect.h - who holds a job up whose ranks stand still: from their clocks, and from what nodes see of their processes.
 *
 * Pure, as job_barrier.h.  In this order:
 *   1. a rank that does not run while others wait;
 *   2. a member that has not come to an operation in which all who have come wait; of several one that waits for nobody itself,
 *      that is not in a call of its device, that is alone, that has stood still for longest;
 *   3. a rank that has not come to the making of a communicator of all ranks, in which all others wait;
 *   4. nobody in particular: all have come to everything, and all wait for their devices: an operation does not end there.
 * Two ranks that hold each other up are not told from one that holds up all others by anything but their number.
 */
#ifndef ORR_JOB_SUSPECT_H
#define ORR_JOB_SUSPECT_H

#include "job_barrier.h"

enum { JOB_SUSPECT_NONE = -1, JOB_SUSPECT_ALL = -2 };

struct job_pause {
    uint32_t pause; /* enum orr_pause */
    uint64_t silent_ms;
};

struct job_suspects {
    const struct job_barrier *clocks; /* aimed */
    const struct job_pause *pauses;   /* of each rank */
    uint32_t world;
    const char *call; /* that one of those in ORR_PAUSE_CALL is in */
};

/* The rank for which others have waited for at least idle_ms, or JOB_SUSPECT_ALL: then text says so; JOB_SUSPECT_NONE:
 * unchanged. */
int64_t job_suspect_find(const struct job_suspects *self,
                         uint64_t idle_ms,
                         char *text,
                         size_t cap);

#endif
