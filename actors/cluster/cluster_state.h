/* SPDX-License-Identifier: Apache-2.0
 * cluster_state.h - the cluster actor's state, shared by its files.
 *
 * A hold is what one (job, generation) occupies on one node.  Invariants: a device is
 * in at most one hold; a hold is there before the launch is permitted and goes only
 * when no rank of it can live (job_released, or the node forgot it).
 */
#ifndef ORR_CLUSTER_STATE_H
#define ORR_CLUSTER_STATE_H

#include "cluster.h"
#include "cluster_elastic.h"
#include "cluster_place.h"
#include "orrery/map.h"

enum { CLUSTER_DEVICES_MAX = 64, CLUSTER_SPEC_BYTES = 256 << 10 };
enum cluster_timer { CLUSTER_T_TICK = 1, CLUSTER_T_SUMMARY, CLUSTER_T_SEARCH };
enum cluster_tag {
    CLUSTER_TAG_REGISTER = 1,
    CLUSTER_TAG_SUMMARY,
    CLUSTER_TAG_CHECK,
    CLUSTER_TAG_STOP,
    CLUSTER_TAG_FORGET,
    CLUSTER_TAG_COLLECT,
    CLUSTER_TAG_RESIZE
};

struct cluster_device {
    uint64_t memory_bytes;
    bool is_healthy;
    bool is_there;
    char type[32];
};

struct cluster_node {
    char name[ORR_NAME_MAX];
    struct orr_addr addr; /* none: only heard of in a recovery */
    uint32_t state;       /* enum orr_node_state */
    uint64_t seen_ms;
    uint64_t
        heard_ms; /* of the last sign that it hears us, too: such nodes make the majority */
    uint32_t
        n_told; /* length of the newest list that it is known to have; 0: none of this life */
    uint64_t joined; /* the first version of the list that has it */
    uint64_t
        majority_since_ms; /* of the list that ends with this node: at least half of it is heard; 0: it is not */
    char host[ORR_NAME_MAX];
    char endpoint[128];
    char machine[ORR_MACHINE_MAX], machine_trouble[160];
    uint32_t level; /* enum orr_level that its machine can give */
    char why_level[160];
    uint64_t register_seq;
    uint64_t used; /* devices in holds */
    uint32_t slots;
    uint32_t slots_used;
    uint32_t ranks;
    bool is_draining; /* nothing new is placed there */
    struct cluster_device devices[CLUSTER_DEVICES_MAX]; /* by index on the node */
};

enum cluster_job_state {
    CLUSTER_JOB_LIVE,   /* has an actor */
    CLUSTER_JOB_ORPHAN, /* has ranks on nodes and no actor: the region is asked */
    CLUSTER_JOB_DOOMED, /* the region does not want it: being stopped and forgotten */
};

/* What a plan needs to know of a job that may have more devices or fewer (cluster_grow.c). */
struct cluster_growth {
    uint32_t world, gpus_min, gpus_max, tier; /* of its spec */
    bool is_ordered;
    uint64_t quiet_ms;
    bool is_known; /* its actor has reported: */
    bool is_busy;
    uint32_t phase, level, devices, shards;
    struct orr_rec_resize_cost cost;
    uint64_t
        changed_ms; /* it began to run, or got another number of devices; 0: not yet */
    uint64_t shrunk_ms; /* it began to run, or got fewer */
    uint32_t wish; /* that many it is to have, as the region was asked; 0: not asked */
    uint32_t wish_seq;
    bool is_wish_begun;
    bool is_giving; /* for one that waits */
    uint64_t wish_until_ms;
    uint64_t later_ms; /* wait after the last failure; 0: none */
    uint64_t not_before_ms;
};

struct cluster_plan { /* scratch */
    struct elastic_job jobs[ELASTIC_JOBS_MAX];
    struct elastic_spot spots[ELASTIC_SPOTS_MAX];
};

struct cluster_job {
    char key[ORR_JOB_ID_MAX + 24]; /* "<job>/<generation>" */
    char job[ORR_JOB_ID_MAX];
    uint64_t generation;
    enum cluster_job_state state;
    bool is_claimed;      /* in the last cluster_register */
    bool is_awaited;      /* the region is about to hand it over again */
    struct orr_addr addr; /* of the actor, while LIVE */
    uint32_t first_hold;
    uint32_t seq; /* of the last claim_check */
    struct cluster_growth growth;
};

struct cluster_hold {
    uint32_t next; /* of the same job; ORR_NONE at the end */
    uint32_t job;
    uint32_t node;
    uint32_t slots;
    uint64_t devices;
    uint64_t parked; /* that it had when it was suspended */
    uint32_t ranks;  /* by its actor's last report; */
    uint32_t least;  /* and the fewest devices for them */
    uint32_t seq;    /* of the last ranks_forget */
    bool is_placed;  /* by a placement that an actor answers for */
    bool
        is_given_up; /* with its node, which may come back with these ranks standing still */
    bool is_present; /* listed by the registration that is being handled */
};

struct cluster {
    struct orr_cluster_args args;
    struct orr_addr region[ORR_REGION_HOSTS_MAX]; /* its actor on each of its hosts */
    uint32_t n_region;
    uint32_t leader;     /* of them, as far as is known */
    uint32_t n_tried;    /* of them that did not lead, in this round */
    uint32_t region_seq; /* of the last registration */
    bool is_registered;
    bool is_registering;
    bool is_summary_due;
    uint64_t soft_ms;      /* when it was last published for readers */
    uint64_t members;      /* version of the list of nodes and their addresses */
    uint64_t watched_ms;   /* the last look at the nodes */
    uint32_t n_awaited;    /* nothing new is placed before they are here */
    uint32_t collect_next; /* node whose store has the next turn */
    uint32_t next_seq;
    uint64_t planned_ms; /* the last look at who may grow, */
    uint32_t grow_next;  /* and the job to begin the next one with */
    uint64_t waited_ms;  /* the region said that jobs wait; 0: none does */
    struct orr_pool nodes;
    struct orr_map nodes_by_name;
    struct orr_pool jobs;
    struct orr_map jobs_by_key;
    struct orr_pool holds;
    struct orr_block spec;   /* decoded struct orr_msg_job_spec */
    struct orr_block view;   /* struct place_node[nodes_max] */
    struct orr_block places; /* struct orr_rec_rank_place[world_max] */
    struct orr_block slots;  /* struct orr_rec_device_slot[world_max] */
    struct orr_block list;   /* records of one message */
    struct orr_block plan;   /* struct cluster_plan */
    struct orr_block sums;   /* struct elastic_sum[world_max + 1] */
};

static inline uint64_t cluster_tag(enum cluster_tag kind, uint32_t index, uint32_t seq)
{
    return (uint64_t)kind << 56 | (uint64_t)(seq & 0xffffff) << 32 | index;
}

#endif
