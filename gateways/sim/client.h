/* SPDX-License-Identifier: Apache-2.0
 * client.h - a client in the simulation: submits jobs, cancels some, and looks until all have ended.  A region of several
 * hosts is asked wherever it answered last.
 */
#ifndef SIM_CLIENT_H
#define SIM_CLIENT_H

#include "world.h"

enum client_goal { CLIENT_SUBMIT, CLIENT_LIVE, CLIENT_ENDED };

enum client_act {
    ACT_SUSPEND,
    ACT_MIGRATE,
    ACT_CHECKPOINT,
    ACT_RESUME,
    ACT_RESIZE,
    ACT_RESIZE_AGAIN,
    ACT_MAX
};

struct client_drain {
    uint32_t cluster, node; /* c<cluster + 1>, n<node + 1> */
    uint64_t on_at_ms, off_at_ms;
    bool is_asked;
    uint32_t asked_at; /* whom */
    uint64_t look_at_ms;
};

struct client_job {
    /* the plan */
    uint64_t submit_at_ms;
    uint64_t cancel_at_ms; /* 0: never */
    bool
        acts_when_running; /* acts count from when it was first seen to run, else from the start of time */
    uint64_t running_ms; /* then; 0: not yet */
    uint64_t act_at_ms
        [ACT_MAX]; /* 0: not, or taken already; in this order when several are due */
    uint32_t devices[2]; /* of the two resizes */
    uint32_t to;       /* where a migration goes: cluster number from 1, 0: anywhere */
    uint64_t every_ms; /* periodic checkpoints; 0: hardly ever */
    uint32_t world;
    uint32_t gpus_min;
    uint32_t gpus_max;
    uint32_t run_ms;
    int32_t bad_rank;
    uint32_t exit_code;
    uint32_t signal;
    int64_t retries_user;
    uint64_t limit_ms;
    uint32_t min_run_ms;
    /* how far it is */
    enum client_goal goal;
    char id[ORR_JOB_ID_MAX];
    bool is_asked;
    uint32_t asked;    /* number of that request */
    uint32_t asked_at; /* and whom */
    uint64_t asked_ms;
    uint64_t look_at_ms; /* not before */
    uint32_t phase;
    uint64_t generation;
    uint32_t restarts; /* of generations that had begun */
    int64_t end_exit_code;
    uint32_t end_signal;
    int64_t culprit;
    bool has_log; /* read after the end */
    char tail[16];
    char waited[200]; /* the last reason while queued */
    char reason[200];
};

struct client {
    struct orr_addr regions[ORR_REGION_HOSTS_MAX]; /* hosts of the region; one leads */
    uint32_t n_regions;
    uint32_t at;                   /* which of them is asked now */
    struct invariants *invariants; /* borrowed: the world's */
    uint32_t look_ms;              /* between two looks at a job; 0: 20 */
    struct client_drain *drains;   /* borrowed: whoever made them */
    uint32_t n_drains;
    uint32_t n_acts; /* that were acknowledged */
    uint32_t n_asked;
    uint32_t n_jobs;
    uint32_t n_ended;
    uint32_t n_logs;
    uint32_t n_tree_nodes;   /* of the last tree */
    struct client_job *jobs; /* borrowed: whoever made it */
};

extern const struct orr_actor_type sim_client_type; /* args: struct client * */

#endif
