/* SPDX-License-Identifier: Apache-2.0
 * job_plan.h - what a job knows of its stop (job_plan.c).
 */
#ifndef ORR_JOB_PLAN_H
#define ORR_JOB_PLAN_H

#include "job_barrier.h"
#include "orrery/pool.h"
#include "rank_map.h"

struct job_part {
    char hash[72]; /* empty: not stored yet */
    uint64_t bytes;
    uint64_t new_bytes;
    uint64_t arena_bytes;
    bool is_silent;
    const char *arenas; /* borrowed: of the plan's part_text */
};

struct job_comm_id {
    uint64_t comm;
    uint32_t len;
    uint8_t id[132];
};

struct job_stop_step { /* what a step took, for those who look */
    enum orr_cut_step step;
    uint32_t rounds;
    uint64_t took_us;
};
enum { JOB_STOP_STEPS_MAX = 12 };

/* What a stop took (job_cost.c); times in us. */
struct job_cost_stop {
    uint64_t barrier, rest, out, in, bytes;
    uint64_t
        record; /* between the steps: a resize's places go into the region's record; UINT64_MAX: not measured */
    uint32_t devices_out, devices_in;
};
enum { JOB_COST_STOPS = 8 };
struct job_cost {
    struct job_cost_stop stops[JOB_COST_STOPS]; /* a ring */
    uint32_t n;                                 /* all so far */
    uint32_t devices; /* when the stop under way began; 0: it does not count */
};

/* Who may share a device (job_shards.c). */
struct job_shards {
    bool has_tables;
    bool is_seen; /* `now` is what the communicators showed at a cut */
    struct rank_shards now;
    struct orr_block members; /* uint32_t[world]: ranks by shard and replica */
    uint32_t n;    /* as they were seen last; 0: not yet, or the spec says it */
    char why[320]; /* for `show`: what was seen, or why nothing was found */
};

/* What a job needs to find its ranks other devices (job_resize.c). */
struct job_resize {
    bool has_tables;
    bool is_asked_again; /* devices: what was asked for first did not suit its shards */
    struct rank_map map;
    struct orr_block needs;   /* struct orr_rec_device_need[n_nodes] */
    struct orr_block slots;   /* struct rank_map_slot[2 * world], */
    uint32_t n_slots;         /* of which there are */
    struct orr_block slot_of; /* uint32_t[n_nodes][64]: of a device; ORR_NONE */
    struct orr_block old;     /* uint32_t[world]: slot of each rank */
    struct orr_block next;    /* uint32_t[2 * world]: device of each slot */
};

enum job_remap {
    JOB_REMAP_NONE,
    JOB_REMAP_HELD,  /* the ranks' next devices are known, and held for it */
    JOB_REMAP_TAKEN, /* they are the ranks' devices now */
};

/* A stop, and what is to come of it (job_plan.c). */
struct job_plan {
    uint32_t goal;       /* enum orr_order; NONE: go on as it is */
    uint64_t number;     /* of the order; 0: its own idea */
    uint64_t taken;      /* newest order heard of */
    uint64_t checkpoint; /* number that it will have */
    uint32_t devices;    /* resize: that many, */
    bool may_move;       /* and on other nodes if need be: */
    bool is_moving;      /* these do not have them */
    enum job_remap remap;
    bool is_partial;         /* some of the ranks change node for it (job_partial.c) */
    uint64_t clear_until_ms; /* nodes that it has left are waited for; 0: not */
    bool is_unrecorded;      /* they have, and the region does not know it yet */
    bool is_keep_due;        /* the cluster holds more for it than it runs on */
    uint64_t want_until_ms;  /* it must have given them by then; 0: not asked yet */
    uint64_t cut;            /* newest; 0: none yet */
    enum orr_cut_step step;  /* what all nodes are asked to do; NONE: the ranks run */
    uint64_t attempt;        /* of RESUME */
    uint64_t since_ms;       /* the step began */
    uint64_t until_ms;       /* and has failed then; 0: no end */
    uint32_t n_extended;     /* how often a resume was given more time */
    uint64_t stopped_ms;     /* the cut was asked for */
    uint64_t paused_ms;      /* from then until the ranks ran again */
    struct job_stop_step steps[JOB_STOP_STEPS_MAX]; /* of the newest cut, in order */
    uint32_t n_steps;
    uint64_t step_us;    /* the last of them began; 0: it is over */
    bool is_held;        /* released: waits for an order */
    bool is_freed;       /* the cluster knows */
    bool is_given;       /* devices are there again, */
    bool is_placing;     /* the update under way says where */
    bool is_placed;      /* and the region knows it */
    bool is_restoring;   /* of a manifest */
    bool is_unable_told; /* that there are no periodic checkpoints */
    bool is_saving;      /* parts are on their way to the store */
    uint64_t save_until_ms;
    bool is_commit_due;
    bool is_committed;
    uint64_t commit_number; /* of the order whose checkpoint it is */
    uint64_t commit_checkpoint;
    bool is_failure_due; /* order_failed */
    uint64_t failed_number;
    uint64_t told_number; /* in the order_failed under way */
    uint32_t failed_code;
    char failed[400];
    char trouble[320]; /* newest failure of a RESUME */
    bool has_tables;
    struct job_barrier barrier;
    struct orr_block targets; /* struct orr_rec_clock[] */
    uint32_t targets_max;
    struct orr_block ids; /* struct job_comm_id[JOB_IDS_MAX] */
    uint32_t n_ids;
    struct orr_block id_list;   /* struct orr_rec_comm_id[JOB_IDS_MAX] */
    struct orr_block parts;     /* struct job_part[world] */
    struct orr_block body;      /* an encoded manifest */
    struct orr_block part_text; /* what they borrow */
    size_t part_text_used;
    struct orr_block part_list; /* struct orr_rec_part[world] */
    struct job_cost cost;
    struct job_shards shards;
    struct job_resize resize;
};

/* It is saved, and this generation is over then. */
static inline bool job_plan_is_leaving(const struct job_plan *plan)
{
    return plan->goal == ORR_ORDER_VACATE ||
           (plan->goal == ORR_ORDER_RESIZE && plan->is_moving);
}
/* Of a resize whose map is not taken yet: ranks are to change node. */
static inline bool job_plan_is_partial(const struct job_plan *plan)
{
    return plan->goal == ORR_ORDER_RESIZE && plan->remap == JOB_REMAP_HELD &&
           plan->is_partial;
}
enum { JOB_IDS_MAX = 4096 };

#endif
