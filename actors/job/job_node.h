/* SPDX-License-Identifier: Apache-2.0
 * job_node.h - what a job actor knows of each of its nodes and ranks, and how it talks with them.
 */
#ifndef ORR_JOB_NODE_H
#define ORR_JOB_NODE_H

#include "orrery/actor.h"

enum job_ask {
    JOB_ASK_NONE,
    JOB_ASK_LAUNCH,
    JOB_ASK_GET,
    JOB_ASK_STOP,
    JOB_ASK_FORGET,
    JOB_ASK_CUT,
    JOB_ASK_JOIN, /* ranks that change node (job_partial.c) */
    JOB_ASK_UPDATE,
    JOB_ASK_ENDED,
    JOB_ASK_COMMIT, /* a checkpoint */
    JOB_ASK_REFUSE, /* order_failed */
    JOB_ASK_FREED,  /* of the cluster, as the next */
    JOB_ASK_WANT,
    JOB_ASK_KEEP,
};
enum job_launch { JOB_LAUNCH_NONE, JOB_LAUNCH_SENT, JOB_LAUNCH_DONE };

/* A conversation with one peer: one ask at a time, repeated after a pause that grows.
 */
struct job_talk {
    enum job_ask asked; /* JOB_ASK_NONE: nothing under way */
    uint32_t seq;       /* of that ask */
    uint32_t backoff_ms;
    uint64_t retry_ms; /* not before */
};

struct job_node {
    char name[ORR_NAME_MAX];
    struct orr_addr addr; /* none: its cluster does not know its host yet */
    uint32_t state;       /* enum orr_node_state */
    uint32_t n_ranks;
    uint32_t n_open;      /* ranks that have not ended */
    uint32_t n_next;      /* ranks that come to it in a resize (job_partial.c), */
    enum job_launch join; /* and how far they are */
    uint32_t next_local;  /* local rank of the next of them */
    enum job_launch launch;
    struct job_talk talk;
    bool wants_get;
    bool is_checked; /* answered since the first failure was seen, or since the recovery
                        began */
    bool is_stop_acked;
    bool has_absent; /* a rank was not listed: a launch may still be on its way */
    bool is_forgotten;
    uint64_t idle_heard_ms; /* when it last had ranks that stand still; 0: never */
    uint64_t found_cut;     /* as `ranks` said: its newest cut, */
    uint32_t found_step;
    uint32_t level; /* enum orr_level of its ranks, as far as is known */
    uint64_t cut;   /* as cut_report said: of that cut */
    uint32_t cut_step;
    uint32_t cut_state;
    uint64_t cut_round;
    uint64_t
        ids_attempt; /* of this resume it has said what all of its ranks have of communicators */
    uint64_t device_bytes, copy_us[2]; /* what its ranks took to copy them: out, in */
    uint64_t devices; /* bit per device of it that has ranks (job_device_count) */
    char machine[ORR_MACHINE_MAX]; /* as in node_register */
    char store[ORR_NAME_MAX];      /* where its parts are */
    char endpoint[128];
};

struct job_rank {
    uint32_t node;
    uint32_t device;
    uint32_t next_device; /* in a resize, once they are mapped */
    uint32_t next_node;
    uint32_t next_state; /* enum orr_rank_state: as restored there */
    uint32_t local_rank;
    uint32_t state; /* enum orr_rank_state */
    int64_t exit_code;
    uint32_t signal;
    uint32_t level; /* enum orr_level, as far as is known */
    uint64_t changed_unix_ms;
};

struct job_culprit {
    int64_t rank; /* -1: none */
    uint64_t changed_unix_ms;
    int64_t exit_code;
    uint32_t signal;
    uint32_t node;
    bool is_hard; /* killed, or never started: rarely the consequence of a peer's end */
    char reason[160];
    char tail[ORR_TAIL_MAX];
};

static inline bool job_node_is_gone(const struct job_node *node)
{
    if (node->launch == JOB_LAUNCH_NONE || node->state == ORR_NODE_LOST)
        return true;
    return node->n_open == 0 && (!node->has_absent || node->is_stop_acked);
}

/* It has no rank of this job's map, but may have what is left of ranks that were there or were to come. */
static inline bool job_node_is_guest(const struct job_node *node)
{
    return !node->n_ranks && node->launch != JOB_LAUNCH_NONE && !node->is_forgotten &&
           node->state != ORR_NODE_LOST;
}

#endif
