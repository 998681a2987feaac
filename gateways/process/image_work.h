/* SPDX-License-Identifier: Apache-2.0
 * image_work.h - freezing and images take time, so a few threads of their own do them.
 *
 * Of a rank one piece of work is done at a time.  Images take at most half of the threads, so that a freeze never waits for one.
 */
#ifndef ORR_PROCESS_IMAGE_WORK_H
#define ORR_PROCESS_IMAGE_WORK_H

#include <pthread.h>
#include <sys/queue.h>

#include "process.h"

enum {
    ORRI_WORKERS_MAX = 16,
    ORRI_WORK_MAX = 4096, /* waiting or being done */
    ORRI_ABILITY_TEXT_MAX = 256,
};

struct orri_edge;
struct orri_task;

struct orri_ability { /* guarded by the edge's lock */
    bool is_known, is_able, has_nft, has_lazy;
    char text[ORRI_ABILITY_TEXT_MAX];
    char version[32];
};

struct orri_work { /* guarded by the edge's lock */
    pthread_cond_t changed;
    pthread_t threads[ORRI_WORKERS_MAX];
    uint32_t n_threads, n_idle, n_images, n_tasks;
    TAILQ_HEAD(, orri_task) freezes, images, done; /* done: to be told */
    int stop_fd;                                   /* readable when the edge closes */
};

/* Ends what is being done. */
void orri_work_stop(struct orri_edge *edge);
/* The edge's thread: tell what is done; ORR_OK: all of it. */
enum orr_err orri_work_tell(struct orri_edge *edge);

enum orr_err orri_edge_freeze(struct orr_process *process,
                              const struct orr_process_id *id,
                              bool is_frozen,
                              uint64_t tag,
                              struct orr_error *err);
enum orr_err orri_edge_image(struct orr_process *process,
                             const struct orr_process_id *id,
                             const struct orr_process_image *image,
                             uint64_t tag,
                             struct orr_error *err);

#endif
