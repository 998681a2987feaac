/* SPDX-License-Identifier: Apache-2.0
 * job_stop_peers.h - two nodes, a cluster and a region that do to a job actor what the test says (test_job_stop.c).
 */
#ifndef ORR_TEST_JOB_STOP_PEERS_H
#define ORR_TEST_JOB_STOP_PEERS_H

#include "job/job.h"
#include "orrery/pool.h"
#include "system.h"

/* SPARE: a node that the job is not on; its peer is the last. */
enum { NODES = 2, SPARE = 2, WORLD = 4, GENERATION = 3 };

/* ---- what the peers do ---- */

struct peer_script {
    uint32_t silent_at; /* enum orr_cut_step: does not answer it */
    uint32_t fail_at;   /* says that it failed */
    uint32_t works_at;  /* is not done with it */
    uint32_t late_at;   /* answers with an older cut first */
    bool has_no_parts;  /* SAVE is done, but its parts never come */
    bool is_dead;
    uint32_t n_steps[ORR_CUT_STEP_MAX_];
    uint64_t cut, round;   /* of the newest cut_step */
    uint32_t state[WORLD]; /* of its ranks */
    uint32_t signal[WORLD];
    uint64_t changed_ms[WORLD]; /* 0: now */
    bool is_told[WORLD];
    uint32_t device[WORLD];      /* of its ranks, in the newest resume, */
    uint32_t next_device[WORLD]; /* and in the newest release */
    struct orr_addr addr;
    uint64_t copy_us; /* that its ranks say */
    uint64_t found_cut;
    uint32_t found_step;
    uint32_t n_saved;      /* ranks that the newest save listed; WORLD: all */
    uint32_t n_here;       /* that the newest resume listed */
    uint32_t n_joins;      /* rank_launch with is_joining, */
    uint32_t joined;       /* bit per rank, */
    char parts[WORLD][8];  /* from these */
    uint32_t refuses_join; /* with this */
    bool joins_late;       /* it never says that they run */
    uint32_t n_stops, n_forgets;
    char told_machine[ORR_MACHINE_MAX]; /* in the newest release */
    uint32_t keeps; /* that many more ranks_forget: it still has some */
    uint64_t stop_cut;
};
extern struct peer_script nodes[NODES + 1];
/* The communicator that the ranks have besides that of all. */
enum comms { COMMS_WORLD, COMMS_FAR /* {0,2} {1,3} */, COMMS_NEAR /* {0,1} {2,3} */ };
extern enum comms comms;
extern uint32_t devices_a_node; /* that the ranks start on: 1 or 2 */
/* The newest answer to what was told and asked for (job_posts), and how many there were, by node. */
extern struct posts_heard {
    uint32_t n_answers, n;
    uint64_t name[8];
    uint8_t first[8]; /* byte of each */
} posts_heard[NODES];
struct cluster_script {
    bool has_no_devices;
    bool refuses_commit;
    uint32_t n_freed, n_want;
    uint32_t devices; /* of the newest devices_want; 0: no number */
    uint32_t n_slots; /* that it gives then */
    struct {
        uint32_t node, device;
    } slots[WORLD];
    struct {
        uint32_t ranks, least;
    } needs[NODES];
    uint32_t n_needs;
    bool may_spread;
    bool is_spare_far;            /* on another machine */
    uint32_t n_keep, kept[WORLD]; /* devices_keep */
    uint32_t silent_for;          /* asks for a number */
};
extern struct cluster_script cluster;
struct region_heard {
    uint32_t phase, n_phases, phases[64];
    uint32_t level;
    uint32_t outcome, n_ended;
    int64_t culprit;
    uint32_t n_commits, commit_parts;
    uint64_t commit_order, commit_paused_ms;
    uint32_t n_failed, failed_code;
    uint64_t failed_number;
    char failed[480], reason[240];
    uint64_t cut;
    uint32_t n_stop;
    struct orr_rec_stop_step stop[16];
    bool has_restored_places;
    uint32_t n_devices; /* of the newest placement, */
    uint32_t device[WORLD];
    bool is_placed_late; /* it came when a node had been told to resume */
    bool is_silent;      /* does not answer job_update */
    char node[WORLD];    /* of the newest placement: the last letter of each rank's */
    struct orr_rec_resize_cost cost;
    uint32_t shards, shards_stride,
        shards_size; /* the last two: of the newest manifest */
    char why_shards[400];
};
extern struct region_heard region;

extern uint64_t now;
extern struct orr_system *sys;
extern struct orr_addr job, peers[NODES + 3];

struct peer_args {
    uint32_t
        index; /* NODES: the cluster, NODES + 1: the region, NODES + 2: the spare node */
};
extern const struct orr_actor_type peer_type;
extern const struct orr_clock the_clock;
struct orr_rec_rank_row row_of(uint32_t rank);
const char *node_name(uint32_t index);
struct orr_list_rank_place all_places(uint32_t device);

#endif
