/* SPDX-License-Identifier: Apache-2.0
 * edge.h - the insides of process_linux.c, shared by its files.
 *
 * Threads: callers only look at the table and put ranks into queues, under `lock`;
 * everything that touches the machine or the sink is done by the edge's one thread
 * (edge_loop.c), which sleeps in epoll and is woken through wake_fd.
 */
#ifndef ORR_PROCESS_EDGE_H
#define ORR_PROCESS_EDGE_H

#include <pthread.h>

#include "image_work.h"
#include "lease.h"
#include "process_linux.h"
#include "rank_table.h"

enum {
    ORRI_PORT_HOLD_MS =
        10000, /* a reserved port is not given to another job for so long at least */
    ORRI_BACKOFF_MIN_MS = 10, /* between two spawners */
};

struct orri_ports {
    char addr[64];
    uint16_t min, max;
    uint32_t next, stride;   /* from min; prime to the size of the range */
    uint64_t *held_until_ms; /* owned; by port, from min */
};

struct orri_edge {
    struct orr_process base;
    struct orr_process_linux_config config; /* numbers only, defaults filled in */
    char *state_path, *ranks_path;          /* owned */
    char *criu, *init, *plugins;            /* owned; empty: none found */
    int state_dir, ranks_dir, logs_dir;
    char boot[ORRI_BOOT_MAX];
    struct orri_lease *lease; /* owned */
    pthread_t thread, probe;
    bool has_thread, has_probe;

    pthread_mutex_t lock; /* guards what follows, up to the next blank line */
    struct orri_table table;
    struct orri_queue launches; /* to be sent to the spawner */
    struct orri_queue sent;     /* and not reported yet, oldest first */
    struct orri_queue settling; /* found between launch and meta, or not watched for
                                   want of a pidfd: looked at again */
    struct orri_queue events;   /* changed, to be told to the sink */
    struct orri_queue forgets;  /* to be moved to the logs */
    struct orri_queue logs;     /* forgotten, oldest first */
    uint64_t log_bytes;
    struct orri_ports ports;
    bool is_closing;
    struct orri_ability ability;
    struct orri_work work;

    pthread_mutex_t sink_lock; /* held while the sink is called; guards: */
    struct orr_process_sink sink;
    bool has_sink;
    bool is_announced; /* `found` was taken */
    bool is_ability_told;

    /* the edge's thread only */
    int epoll_fd, wake_fd;
    pid_t spawner;
    int spawner_fd; /* -1: none */
    bool is_spawner_full;
    uint32_t spawner_backoff_ms;
    uint64_t spawner_due_ms;
    uint64_t tell_due_ms; /* the sink was busy until then */
};

void *orri_edge_run(void *edge);
void orri_edge_wake(struct orri_edge *edge);

/* Read what an earlier host left.  Before the thread runs.  Errors: ORR_EIO,
 * ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orri_edge_adopt(struct orri_edge *edge,
                                           struct orr_error *err);
/* Take up a rank whose directory is there, as far as it has got; true when that decided
 * its state or its keeper is watched, false while its keeper is still starting it. */
bool orri_edge_adopt_rank(struct orri_edge *edge, struct orri_rank *rank);
/* The rank's keeper is dead: read how the rank ended; without a status make sure it is
 * dead (it may take a moment: then its pidfd is watched and this is called again) and
 * call it lost. */
void orri_edge_settle_end(struct orri_edge *edge, struct orri_rank *rank);
void orri_edge_set_end(struct orri_edge *edge,
                       struct orri_rank *rank,
                       const struct orri_status *status);
/* Set, and write down, an end that no keeper recorded. */
ORR_PRINTF(4, 5)
void orri_edge_declare(struct orri_edge *edge,
                       struct orri_rank *rank,
                       uint32_t state,
                       const char *fmt,
                       ...);
void orri_edge_watch(struct orri_edge *edge, struct orri_rank *rank, int pidfd);

enum orr_err orri_edge_launch(struct orr_process *process,
                              const struct orr_process_launch *launch,
                              struct orr_error *err);

/* To the process group, if the process is the one that started then.  0 or an errno
 * (ESRCH: it is gone). */
int orri_group_signal(pid_t pid, uint64_t start, int sig);
/* On the word of its node.  That it was told to end is kept in its directory first. */
int orri_rank_signal(
    struct orri_edge *edge, const char *key, pid_t pid, uint64_t start, int sig);

uint32_t orri_rank_level(const struct orri_edge *edge, const struct orri_rank *rank);
/* What a rank had besides its processes, removed; and what is left of those in its cgroup, killed.  dir: of the rank. */
void orri_env_end(int dir);
enum orr_err orri_edge_widen(struct orr_process *process,
                             const struct orr_process_id *id,
                             const struct orr_process_network *network,
                             struct orr_error *err);
/* What an image that was being made when its host died has left. */
void orri_env_mend(struct orri_edge *edge, int dir, pid_t keeper);

/* Find CRIU and the init.  Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err
orri_image_setup(struct orri_edge *edge, const struct orr_process_linux_config *config);

/* Move a forgotten rank's directory to the logs, and age out the oldest. */
void orri_logs_keep(struct orri_edge *edge, struct orri_rank *rank);
/* Under lock.  False: it is not among them yet. */
bool orri_logs_drop(struct orri_edge *edge, struct orri_rank *rank);
ORR_NODISCARD enum orr_err orri_logs_adopt(struct orri_edge *edge,
                                           struct orr_error *err);
enum orr_err orri_edge_log_read(struct orr_process *process,
                                const struct orr_process_id *id,
                                uint32_t stream,
                                uint64_t offset,
                                uint8_t *buf,
                                size_t cap,
                                struct orr_process_log *ret_log,
                                struct orr_error *err);

/* min and max are set. */
enum orr_err orri_ports_init(struct orri_ports *ports);

enum orr_err orri_edge_port_reserve(struct orr_process *process,
                                    const char **ret_addr,
                                    uint32_t *ret_port,
                                    struct orr_error *err);

#endif
