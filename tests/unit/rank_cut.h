/* SPDX-License-Identifier: Apache-2.0
 * rank_cut.h - a job's side of a cut, for tests of the rank edge: one node, targets by the rule of DESIGN 7.1; and ranks as real
 * processes (rank_probe).
 */
#ifndef RANK_CUT_H
#define RANK_CUT_H

#include <pthread.h>
#include <sys/types.h>

#include "orr_test.h"

#include "orrery/ids.h"
#include "rank_edge.h"
#include "rank_probe.h"

struct cut {
    struct orr_rank_edge *edge; /* owned */
    char dir[64], run[80], shared_path[80], arenas[80];
    struct probe_shared *shared;
    uint64_t cut, round, generation, timeout_ms;
    uint32_t grace_ms; /* of the edge; 0: little */
    uint32_t world;
    pid_t pids[PROBE_RANKS_MAX];

    pthread_mutex_t lock;
    pthread_cond_t changed;
    _Atomic uint32_t n_reports, n_abilities, n_idle, n_posts;
    _Atomic uint32_t n_silent,
        n_over; /* told: a rank does not run; nobody is idle any more */
    _Atomic bool is_cooperative;
    char why_not[128], idle_op[32];
    uint32_t idle_rank, silent_rank;

    struct orr_msg_cut_report *report; /* owned: of the newest step */
    struct orr_rec_clock targets[4096];
    uint32_t n_targets;
};

/* prepare: all but the edge. */
void cut_prepare(struct cut *cut, uint32_t world);
void cut_set_up(struct cut *cut, uint32_t world);
void cut_open_edge(struct cut *cut);
void cut_close_edge(struct cut *cut);
void cut_expect(struct cut *cut, uint32_t rank, uint32_t process, uint64_t arena_bytes);
void cut_start(struct cut *cut,
               const char *probe,
               uint32_t n_threads,
               const char *mode);
void cut_start_rank(struct cut *cut,
                    const char *probe,
                    uint32_t rank,
                    uint32_t n_threads,
                    const char *mode);
/* It goes on: each rank issues more. */
void cut_wait_progress(struct cut *cut);
/* End and wait for all ranks; fails when one did not exit with 0 or found something wrong. */
void cut_end(struct cut *cut);
void cut_kill(struct cut *cut);
/* Write what was saved into the arenas of ranks that are expected to be restored. */
void cut_fill_arenas(struct cut *cut, uint8_t *const *bytes, const size_t *len);
void cut_tear_down(struct cut *cut);

/* Ask until it is done or failed; cut->report is the answer. */
uint32_t cut_step(struct cut *cut, uint32_t step, bool is_detached);
/* Tell it once and do not wait; false: not all processes have spoken yet. */
bool cut_tell_resume(struct cut *cut, bool has_all_ids);
/* BEGIN and TARGETS until all are at the cut. */
uint32_t cut_make(struct cut *cut);
/* Names in the directory of arenas. */
uint32_t cut_count_arenas(const struct cut *cut);
/* What the shared memory says: each thread's communicator has the same number issued on all ranks. */
void cut_check(struct cut *cut, uint32_t n_threads);

/* Wait until *count >= n, at most 20 s.  Of the ranks; and of what the edge told. */
void cut_wait_shared(_Atomic uint32_t *count, uint32_t n);
void cut_wait(struct cut *cut, _Atomic uint32_t *count, uint32_t n);

#endif
