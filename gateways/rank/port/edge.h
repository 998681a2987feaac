/* SPDX-License-Identifier: Apache-2.0
 * edge.h - the insides of the rank edge, shared by its files.  Everything is guarded by the edge's one lock, which is held for
 * short moments only: no system call under it waits.
 */
#ifndef ORRI_RANK_EDGE_H
#define ORRI_RANK_EDGE_H

#include <pthread.h>
#include <sys/types.h>

#include "orrery/ids.h"
#include "packet.h"
#include "page.h"
#include "rank_edge.h"

enum {
    ORRI_PATH_MAX = 108,
    ORRI_IDS_MAX = 4096,
    ORRI_ID_BYTES = 128,
    ORRI_WHY_MAX = 128,
    ORRI_CALL_MAX = 48,
    ORRI_ARENA_NAME_MAX = ORR_JOB_ID_MAX + 64,
    ORRI_ARENAS_MAX = 256, /* of their directory's path */
};

enum orri_source_kind { ORRI_SOURCE_WAKE, ORRI_SOURCE_LISTENER, ORRI_SOURCE_PROC };
struct orri_source { /* what epoll points at */
    enum orri_source_kind kind;
};

/* One process of a rank: connected, or known to be there, or stopped, or expected to come back stopped. */
struct orri_proc {
    struct orri_source source;
    struct orri_rank *rank; /* borrowed: outlives it */
    struct orri_proc *next;
    uint32_t process; /* its pid as it sees it; 0: it has not said hello */
    pid_t pid;        /* as this host sees it */
    int sock, pidfd, page_fd, arena_fd; /* owned; -1: none */
    bool is_welcome, is_expected, is_stopped, is_cooperative;
    bool ability_due;
    char why_not[ORRI_WHY_MAX], why_no_image[ORRI_WHY_MAX];
    uint64_t accepted_ms;
    uint64_t stopped_cut, arena_bytes, device_bytes;
    uint64_t copy_us; /* of its last stop or resume */
    bool needs_arena;
    char arena_name[ORRI_ARENA_NAME_MAX]; /* in edge->arenas; empty: it has none */

    struct orr_rec_clock *rows; /* owned: as it reported last */
    uint32_t n_rows, rows_cap;
    bool rows_go_on;
    uint64_t rows_cut, rows_round;
    bool is_at_cut;

    /* watch.c: of a process that issues nothing */
    bool answers_looks, was_outside; /* at a look since its newest operation */
    uint64_t newest_ms,
        look_ms;           /* that operation; the look that was not answered yet */
    uint32_t look, looked; /* number of the newest look, and of the newest answer */
    uint32_t n_looks;      /* answered since newest_ms */
    char call[ORRI_CALL_MAX];

    /* what it was told on this connection */
    uint64_t said_close, said_open, said_quiesce, said_round, said_attempt, said_ms;
    uint32_t said_targets, said_ids;
    uint64_t resumed_attempt,
        spoken_attempt; /* of the latter it has sent its list of communicators */
    bool said_all_ids;
};

struct orri_rank {
    struct orri_source source;
    struct orri_gen *gen; /* borrowed: outlives it */
    struct orri_rank *next;
    uint32_t rank;
    int listener; /* owned; -1: nobody is to connect now */
    char path[ORRI_PATH_MAX];
    uint64_t path_inode;
    uint64_t expected_ms;
    uint64_t silent_cut; /* when that was quiesced, it had no process with a library */
    bool is_silent;      /* restored, and had no process with a library either */
    bool has_looked;     /* for what an earlier life left of it */
    bool is_crowded;     /* one process too many came */
    bool ability_due;    /* one of its processes has ended */
    char device[ORR_NAME_MAX]; /* uuid for its resume; empty: as before */
    struct orri_proc *procs;   /* owned */
    uint32_t n_procs;
};

struct orri_id {
    uint64_t comm;
    uint8_t id[ORRI_ID_BYTES];
    uint32_t strength; /* 0: wanted, nothing in id; 1: an id; 2: zeros */
    bool is_made_here;
};

/* The arena of a process that has gone on; somebody may still read it. */
struct orri_kept {
    struct orri_kept *next;
    int fd; /* owned */
    uint64_t cut;
};

struct orri_gen {
    struct orri_gen *next;
    char job[ORR_JOB_ID_MAX];
    uint64_t generation, link;
    struct orri_rank *ranks; /* owned */
    uint64_t cut, round, attempt;
    uint32_t step, state; /* enum orr_cut_step, orr_step_state */
    bool is_detached, report_due, is_touched;
    uint64_t started_ms, deadline_ms, step_ms;
    struct orr_rec_clock *targets; /* owned */
    uint32_t n_targets;
    struct orri_id *ids; /* owned: ORRI_IDS_MAX, or NULL */
    uint32_t n_ids;
    bool has_all_ids; /* of the whole job, in this attempt */
    bool has_spoken;  /* orri_gen_has_spoken, as reported */
    uint64_t *
        gone; /* owned: communicators of processes that have ended; n_gone of ORRI_IDS_MAX, or NULL */
    uint32_t n_gone;
    int64_t culprit;
    char text[480];
    uint64_t idle_told_ms;
    bool is_idle_told;      /* and not yet that nobody is idle any more */
    struct orri_kept *kept; /* owned */
    uint64_t dropped_cut;   /* arenas of stops up to it have no reader */
};

struct orr_rank_edge {
    char run[ORRI_PATH_MAX], node[ORR_NAME_MAX];
    char arenas[ORRI_ARENAS_MAX];
    int arenas_fd; /* owned: that directory; -1: none */
    uint32_t ranks_max, grace_ms, idle_ms;
    pthread_t thread;
    bool has_thread;
    int epoll_fd, wake_fd;
    struct orri_source wake;

    pthread_mutex_t lock;   /* guards what follows */
    struct orri_gen *gens;  /* owned */
    struct orri_proc *dead; /* owned: freed when no event can name them any more */
    struct orri_rank *dead_ranks;
    uint32_t n_ranks;
    struct orr_rank_sink sink;
    bool has_sink, is_closing;
    uint64_t now_ms;
};

uint64_t orri_edge_now(void);

/* table.c */
struct orri_gen *
orri_gen_find(struct orr_rank_edge *edge, struct orr_str job, uint64_t generation);
struct orri_proc *orri_proc_new(struct orri_rank *rank);
void orri_proc_free(struct orr_rank_edge *edge, struct orri_proc *proc);
void orri_proc_disconnect(struct orri_proc *proc);
void orri_gen_free(struct orr_rank_edge *edge, struct orri_gen *gen);
void orri_edge_bury(struct orr_rank_edge *edge);

/* arena.c.  The device memory of stopped processes. */
void orri_arenas_open(struct orr_rank_edge *edge, const char *dir);
/* The process has sent it; takes *fd.  From now on it outlives this host, where it can. */
void orri_arena_take(struct orr_rank_edge *edge, struct orri_proc *proc, int *fd);
/* An empty one, for a process that is to be restored. */
ORR_NODISCARD enum orr_err orri_arena_make(struct orr_rank_edge *edge,
                                           struct orri_proc *proc,
                                           struct orr_error *err);
/* What an earlier life of this host left of the rank. */
void orri_arenas_find(struct orr_rank_edge *edge, struct orri_rank *rank);
/* The process has its memory back; a reader may go on. */
void orri_arena_release(struct orr_rank_edge *edge, struct orri_proc *proc);
/* It is of no use to anybody; but its name stays when the edge closes. */
void orri_arena_drop(struct orr_rank_edge *edge, struct orri_proc *proc);
/* Those of ranks that are not expected. */
void orri_arenas_sweep(struct orr_rank_edge *edge);
void orri_arenas_dropped(struct orri_gen *gen, uint64_t cut);

/* listen.c.  Let the rank's processes connect, or not. */
ORR_NODISCARD enum orr_err orri_rank_show(struct orr_rank_edge *edge,
                                          struct orri_rank *rank,
                                          struct orr_error *err);
/* Again, when somebody else has removed its path. */
void orri_rank_keep_shown(struct orr_rank_edge *edge, struct orri_rank *rank);
void orri_rank_hide(struct orri_rank *rank);
void orri_rank_accept(struct orr_rank_edge *edge, struct orri_rank *rank);

/* peer.c.  Read what a process says; tell it what its generation wants of it. */
void orri_proc_read(struct orr_rank_edge *edge, struct orri_proc *proc);
void orri_proc_drive(struct orr_rank_edge *edge, struct orri_proc *proc);
bool orri_gen_add_id(struct orri_gen *gen,
                     uint64_t comm,
                     const uint8_t *id,
                     size_t len,
                     bool is_made_here);

/* cut.c */
ORR_NODISCARD enum orr_err orri_gen_step(struct orr_rank_edge *edge,
                                         struct orri_gen *gen,
                                         const struct orr_msg_cut_step *msg,
                                         struct orr_error *err);
void orri_gen_fail(struct orr_rank_edge *edge,
                   struct orri_gen *gen,
                   int64_t culprit,
                   const char *fmt,
                   ...) ORR_PRINTF(4, 5);
/* Has every process here said what it has of communicators? */
bool orri_gen_has_spoken(const struct orr_rank_edge *edge, const struct orri_gen *gen);
/* Look whether the step is done or late. */
void orri_gen_judge(struct orr_rank_edge *edge, struct orri_gen *gen);

/* report.c */
enum orr_err orri_gen_report(struct orr_rank_edge *edge,
                             const struct orri_gen *gen,
                             enum orr_err (*tell)(void *arg,
                                                  const struct orr_msg_cut_report *),
                             void *arg);
void orri_gen_tell(struct orr_rank_edge *edge, struct orri_gen *gen);

/* watch.c */
void orri_gen_watch(struct orr_rank_edge *edge, struct orri_gen *gen);
void orri_proc_looked(struct orri_proc *proc, const struct orr_msg_rank_looked *msg);

/* loop.c */
void *orri_edge_loop(void *edge);
void orri_edge_wake_up(struct orr_rank_edge *edge);

#endif
