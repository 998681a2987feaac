/* SPDX-License-Identifier: Apache-2.0
 * rank_probe.h - memory that a test shares with the ranks it starts (rank_probe.c): what they really issued.
 */
#ifndef RANK_PROBE_H
#define RANK_PROBE_H

#include <stdatomic.h>
#include <stdint.h>

enum { PROBE_RANKS_MAX = 8, PROBE_THREADS_MAX = 8, PROBE_AHEAD = 3 };

struct probe_shared {
    _Atomic uint32_t is_over;       /* the ranks are to end */
    _Atomic uint32_t is_slow;       /* microseconds between calls */
    _Atomic uint32_t fails_quiesce; /* rank + 1: its part refuses */
    _Atomic uint32_t n_started, n_quiesced, n_resumed, n_bad;
    _Atomic uint32_t forks;         /* the first thread forks now and then */
    _Atomic uint32_t skips_next;    /* rank + 1: it issues nothing more */
    _Atomic uint32_t stalls_resume; /* parts wait, once for each value, for peers */
    _Atomic uint32_t n_stalled;
    _Atomic uint64_t issued[PROBE_THREADS_MAX][PROBE_RANKS_MAX];
    _Atomic uint64_t sum[PROBE_RANKS_MAX]; /* cooperative: the state after each step */
};

#endif
