/* SPDX-License-Identifier: Apache-2.0
 * node_cut.h - what a node knows of the stop of a group of ranks (node_cut.c).
 */
#ifndef ORR_NODE_CUT_H
#define ORR_NODE_CUT_H

#include "orrery/ids.h"

/* What a step of a stop is made of, one stage after another; each is asked for rank by rank, but for the library's. */
enum node_stage {
    NODE_STAGE_NONE,
    NODE_STAGE_NOTE,    /* rank_note: what a later life of the host is to know */
    NODE_STAGE_LIBRARY, /* cut_step to /edge/rank */
    NODE_STAGE_ROOM,    /* device_usage: is there host memory for it? */
    NODE_STAGE_SUSPEND, /* device_suspend */
    NODE_STAGE_FREEZE,
    NODE_STAGE_IMAGE, /* process_image */
    NODE_STAGE_STORE, /* wait for the parts */
    NODE_STAGE_WIDEN, /* process_widen, to one of them */
    NODE_STAGE_FREE,  /* device_usage, until it is 0 */
    NODE_STAGE_THAW,
    NODE_STAGE_RESUME, /* device_resume */
    NODE_STAGE_EXPECT, /* before a launch: rank_expect */
    NODE_STAGE_ARENA,  /* its path */
    NODE_STAGE_FETCH,  /* store_get */
    NODE_STAGE_MAX_
};

/* The newest stop of a group, as far as it got here (node_cut.c). */
struct node_cut {
    uint64_t cut;   /* 0: none known */
    uint64_t round; /* targets, resume: version, attempt */
    uint64_t since_ms;
    uint64_t until_ms;
    uint64_t took_ms;
    uint64_t device_bytes;
    uint64_t copy_us; /* as cut_report */
    uint32_t step;    /* enum orr_cut_step */
    uint32_t state;   /* enum orr_step_state */
    enum node_stage stage;
    bool is_found;    /* left by an earlier life: it may be in the middle of its step */
    uint32_t seq;     /* of the stage's asks */
    uint32_t n_due;   /* ranks whose share of the stage is not done */
    bool is_asked;    /* /edge/rank, and it has not answered */
    bool is_to_begin; /* its stage, by NODE_T_STAGE */
    bool is_frozen;   /* the ranks' processes, by us */
    bool is_detached;
    bool keeps_running;
    bool is_some;  /* save: only rows that are leaving */
    bool is_wider; /* release: their network is to reach other machines */
    int64_t culprit;
    char text[240];
};

#endif
