/* SPDX-License-Identifier: Apache-2.0
 * rank_table.h - all ranks that the process edge knows, by key, and the queues of those
 * that need its thread.
 *
 * Invariants: a rank is in the table from launch (or adoption) until its logs age out,
 * and in at most one queue. Threads: table, queues and the fields of a rank are guarded
 * by the edge's lock; only the edge's thread frees ranks, so it may keep a pointer
 * without the lock, and fields marked (edge) are its own.
 */
#ifndef ORR_RANK_TABLE_H
#define ORR_RANK_TABLE_H

#include <sys/queue.h>

#include "spawner.h"

struct orri_rank {
    char key[ORRI_KEY_MAX];
    struct orr_process_id id; /* job borrows from key */
    uint32_t state;           /* enum orr_rank_state */
    pid_t pid;
    uint64_t pid_start;
    uint32_t device;
    int64_t exit_code;
    uint32_t signal;
    uint64_t changed_unix_ms;
    char reason[ORRI_REASON_MAX];
    uint32_t pending_signal; /* to be sent once it is up */
    bool is_forgotten;
    pid_t keeper;
    bool is_image;             /* it has namespaces of its own */
    char why[ORRI_REASON_MAX]; /* not, although they were wanted */
    bool is_frozen;            /* as asked for by `freeze` */
    uint64_t cut;              /* as told by stop_note, */
    uint32_t cut_step;         /* with the device, */
    uint64_t visible;          /* and those that it sees */
    char *devices;             /* owned; of a restored one (rank_row), or NULL */
    bool is_in_work;           /* a freeze or an image of it is being made, */
    bool is_in_image;          /* the latter */
    uint32_t start_timeout_ms;
    bool is_restore;
    bool is_dying;              /* (edge) its keeper is dead; watch_fd is the rank's */
    bool is_resent;             /* (edge) a second spawner got the launch */
    int watch_fd;               /* (edge) pidfd of the keeper, or -1 */
    uint64_t deadline_ms;       /* (edge) of STARTING, monotonic; 0: not sent yet */
    uint64_t log_bytes;         /* (edge) when forgotten */
    struct orri_launch *launch; /* owned; until reported */
    size_t launch_bytes;
    struct orri_queue *queue; /* that it is in, or NULL */
    TAILQ_ENTRY(orri_rank) link;
    LIST_ENTRY(orri_rank) bucket;
};

struct orri_queue {
    TAILQ_HEAD(, orri_rank) head;
    uint32_t n;
};

enum { ORRI_BUCKETS = 4096 };

struct orri_table {
    LIST_HEAD(orri_bucket, orri_rank) buckets[ORRI_BUCKETS];
    uint32_t n;
};

void orri_rank_queue_init(struct orri_queue *queue);
void orri_rank_queue_push(struct orri_queue *queue,
                          struct orri_rank *rank); /* leaves the queue it was in */
void orri_rank_queue_push_front(struct orri_queue *queue, struct orri_rank *rank);
struct orri_rank *orri_rank_queue_peek(struct orri_queue *queue); /* NULL: empty */
void orri_rank_queue_leave(struct orri_rank *rank);

void orri_rank_table_init(struct orri_table *table);
struct orri_rank *orri_rank_table_find(struct orri_table *table, const char *key);
/* A new rank in state STARTING; key must parse and be unknown.  NULL: no memory. */
struct orri_rank *orri_rank_table_add(struct orri_table *table, const char *key);
void orri_rank_table_remove(struct orri_table *table,
                            struct orri_rank *rank); /* and frees it */
/* The rank of that job with the highest generation, or NULL. */
struct orri_rank *
orri_rank_table_newest(struct orri_table *table, struct orr_str job, uint32_t rank);

#define ORRI_TABLE_EACH(table, rank)                                                   \
    for (size_t bucket_ = 0; bucket_ < ORRI_BUCKETS; bucket_++)                        \
    LIST_FOREACH(rank, &(table)->buckets[bucket_], bucket)

static inline bool orri_rank_has_ended(const struct orri_rank *rank)
{
    return rank->state != ORR_RANK_STARTING && rank->state != ORR_RANK_RUNNING;
}

#endif
