/* SPDX-License-Identifier: Apache-2.0
 * examples_ranks.h - the ranks of an example as threads of a test, on an emulated device
 * of its own.
 */
#ifndef EXAMPLES_RANKS_H
#define EXAMPLES_RANKS_H

#include "gpu.h"

enum { RANKS_MAX = 8 };

/* What one rank does between ncclCommInitRank, for which it opens its device in `open`,
 * and the end. Both fail by ending the program. */
struct rank_work {
    void (*open)(void *self);
    void (*run)(void *self, uint32_t rank, ncclComm_t *take_all);
};

/* Makes a device, and lets the ranks of this process find it. -1 on errors. */
int ranks_set_up(void);
int ranks_tear_down(void);

/* Runs a thread for each of the ranks; self[r] is what `work` is given. */
void ranks_run(const struct rank_work *work, uint32_t world, void *const *self);

#endif
