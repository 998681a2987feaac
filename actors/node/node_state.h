/* SPDX-License-Identifier: Apache-2.0
 * node_state.h - the node actor's state, shared by its files.
 *
 * A group is the ranks of one (job, generation) on this machine.  Invariants: a row
 * belongs to one group and a group has at least one row; rank states only move forward;
 * a (job, generation) at or below a fence is never launched (again).
 */
#ifndef ORR_NODE_STATE_H
#define ORR_NODE_STATE_H

#include "node.h"
#include "node_cut.h"
#include "orrery/map.h"

enum {
    NODE_DEVICES_MAX = 64,
    NODE_UUIDS_BYTES = NODE_DEVICES_MAX * 64, /* a list of all their uuids */
    NODE_FENCES = 4096,
    NODE_SPEC_BYTES = 256 << 10, /* of a decoded spec */
    NODE_ENV_MAX = 1200,
    NODE_TEXT_BYTES = 32 << 10,
    NODE_RANK_ENV_MAX = 16,
    NODE_PEERS_MAX = 1024,
    NODE_FETCH_MS = 600000,
    NODE_LEASE_MS = 30000, /* until the cluster says otherwise */
    NODE_NOTE_BYTES = 512 << 10,
    NODE_ENDPOINT_MAX = 128,
    NODE_PROCS_PER_RANK = 4, /* that all ranks together may have, on average */
    NODE_ARENA_TEXT = 32,    /* of one process in a part's list */
};

enum node_state { NODE_WAITING, NODE_READY };
enum node_timer { NODE_T_HEARTBEAT = 1, NODE_T_RETRY, NODE_T_STAGE };
enum node_tag {
    NODE_TAG_REGISTER = 1,
    NODE_TAG_HEARTBEAT,
    NODE_TAG_PORT,
    NODE_TAG_LAUNCH,
    NODE_TAG_UPDATE,
    NODE_TAG_PROBE,
    NODE_TAG_NOTE,
    NODE_TAG_CUT,   /* cut_step to /edge/rank; index: the group */
    NODE_TAG_WORK,  /* one rank's share of a stage; index: its row */
    NODE_TAG_SAVE,  /* a rank's part, on its way to the store */
    NODE_TAG_ARENA, /* rank_arena_drop; index: the group */
    NODE_TAG_LEAVE  /* rank_forgotten of one rank; index: its row */
};

struct node_device {
    uint32_t index;
    bool is_healthy;
    uint64_t memory_bytes;
    char uuid[64];
    char type[32];
    char trouble[128];
};

/* A process of a rank that is stopped, or is to come so. */
struct node_proc {
    uint32_t next;    /* of the row, ORR_NONE at the end */
    uint32_t process; /* its pid in the rank */
    uint32_t pid;     /* as the host sees it; 0: it has not come back yet */
    uint64_t bytes;   /* of device memory, */
    char arena[64];   /* in this file; empty: none */
};

/* What a part has of a rank's device memory; borrows its paths. */
struct node_files {
    struct orr_rec_store_file at[ORR_RANK_PROCS_MAX];
    char names[ORR_RANK_PROCS_MAX][24];
};

struct node_row {
    uint32_t next; /* row of the group, ORR_NONE at the end */
    uint32_t group;
    uint32_t rank;
    uint32_t local_rank;
    uint32_t state; /* enum orr_rank_state */
    uint32_t pid;
    uint32_t device;
    uint32_t signal;
    int64_t exit_code;
    uint64_t changed_unix_ms;
    bool is_told;    /* to end, before it did */
    bool is_joining; /* until the resume */
    bool
        is_leaving; /* for another node; in a group that has left: /edge/rank is to forget it */
    bool is_launching;   /* process_launch asked, no definite answer */
    bool is_relaunching; /* to be asked again by NODE_T_RETRY */
    uint32_t launch_seq; /* of the newest process_launch */
    bool is_dirty;       /* the job actor does not know this state yet */
    bool is_telling;     /* rank_update asked, not answered */
    uint32_t seq;        /* of the newest rank_update */
    uint64_t retry_ms;
    uint32_t backoff_ms;
    char reason[160];
    char tail[ORR_TAIL_MAX];
    uint32_t n_due;   /* asks of the stage under way that are not answered */
    bool is_kept;     /* its part is in the store */
    bool is_saving;   /* the store reads its image and arena, */
    bool is_save_due; /* those of an older cut: this one's are next */
    uint32_t save_seq;
    uint64_t save_cut;
    uint64_t image_cut;  /* whose image it is being restored from; 0: none lies here */
    uint64_t save_bytes; /* of an older cut's arena that is still read */
    uint32_t level;      /* enum orr_level of its processes, */
    char why_level[120];
    bool is_cooperative; /* and what its library said: */
    char why_not[100];
    char why_no_image[100];
    uint32_t old_device; /* that its memory was on; ORR_NO_DEVICE: the same */
    uint64_t visible; /* bit per device that its processes see; 0: all of its group */
    uint32_t seen;    /* blob: uuids that it saw where its image was made; ORR_NONE */
    bool is_seen;     /* that is over */
    uint64_t
        used_bytes; /* of its device, by all of its ranks, when they were stopped */
    uint32_t first_proc;  /* of those that are stopped (node_procs.c) */
    uint64_t arena_bytes; /* of them all */
    bool was_found;       /* an earlier life of the host has started it, */
    bool
        is_silent; /* at its newest stop none of its processes had the library; or, in a restore, when it was saved */
    bool is_held;  /* these bytes are taken of host memory, or are about to be */
    bool has_one_arena; /* its part is of a time when there was one, named `arena` */
    char part[72];      /* hash; in a restore: where it comes from */
    char part_store[ORR_NAME_MAX];
    char part_endpoint[NODE_ENDPOINT_MAX];
    uint64_t part_bytes;
    uint64_t part_new_bytes;
};

struct node_group {
    char key[ORR_JOB_ID_MAX + 32]; /* "<job>/<generation>" */
    char job[ORR_JOB_ID_MAX];
    uint64_t generation;
    uint32_t first_row;
    uint32_t n_rows;
    uint32_t n_launching;
    uint32_t node_rank;
    uint32_t spec; /* blob, until all ranks are launched */
    uint32_t seq;  /* of the port_reserve */
    bool is_waiting_port;
    bool is_stopping;
    bool is_frozen;    /* for want of a lease; or perhaps, by an earlier life */
    bool is_in_doubt;  /* and perhaps given up: only its job actor's word thaws it */
    uint64_t asked_ms; /* when it last said that */
    uint64_t
        thaw_until_ms; /* a keeper may still freeze it by the lease that was over: CONT is repeated */
    uint64_t kill_ms;           /* when TERM has had its time; 0: not stopping */
    struct orr_request request; /* rank_launch to answer; corr 0: none */
    uint32_t master_port;
    char master_addr[64];
    struct node_cut cut;
    struct orr_request cut_request; /* cut_step to answer; corr 0: none */
    uint64_t
        arenas_cut; /* newest that /edge/rank was told that its arenas have no reader, */
    uint32_t arenas_seq; /* by this ask, */
    bool is_dropping;    /* which it has not answered */
    uint64_t link;
    uint64_t overlay;
    bool is_restore;       /* of parts, instead of a start */
    bool is_image_restore; /* of images; else they start, and load what they saved */
    bool is_joining;       /* and stay frozen */
    bool is_left;          /* ranks that have changed node (node_leave.c) */
    bool
        is_joined_by; /* rows that are being restored beside those that wait (node_join.c); */
    uint32_t step_before; /* these have done that step of the cut */
    bool is_fetching;     /* them */
    bool wants_image;     /* its ranks have namespaces of their own */
    uint32_t mode;        /* enum orr_checkpoint_mode */
    bool
        is_as_first; /* for it: the ranks of another node cannot, which they are to meet */
    bool is_too_wide; /* for it: they would be on more machines than a network spans */
    uint32_t n_machines; /* others of the job */
    char machines[ORR_MACHINES_MAX][ORR_MACHINE_MAX];
};

struct node_peer {
    struct orr_addr addr;
    uint64_t
        cut_off_ms; /* when it was asked, and then said that it is cut off, too; 0: it did not */
    char host[ORR_NAME_MAX];
    char endpoint[NODE_ENDPOINT_MAX]; /* empty: not for this node to dial */
};

struct node_fence {
    uint64_t job; /* orr_hash of the id */
    uint64_t generation;
    uint64_t cut; /* of that generation: what comes with a later one may be launched */
};

struct node_var {
    char name[64];
    char value[3072];
};

struct node {
    struct orr_node_args args;
    char path[3 * ORR_NAME_MAX + 4];
    struct orr_addr cluster;
    struct orr_addr process_edge;
    struct orr_addr links_edge;
    struct orr_addr rank_edge;
    struct orr_addr store_edge;
    struct orr_addr device_edge;
    bool is_image_able;
    char image_text[160];
    enum node_state state;
    bool has_devices;
    bool has_processes;
    bool is_registered;
    bool is_registering;
    bool is_changed;     /* since the registration was sent */
    bool is_retrying;    /* NODE_T_RETRY runs */
    bool may_have_ended; /* the lease of an earlier life */
    bool is_linking;     /* peers are dialled */
    bool
        is_confirm_due; /* registered: the list is confirmed as soon as it is on disk */
    uint64_t heartbeat_seq;
    uint64_t
        contact_ms; /* when the newest heartbeat was sent that the cluster answered */
    uint64_t lease_ms;
    uint64_t
        frozen_at_ms; /* when keepers freeze the ranks; 0: never, or an earlier life knows */
    uint64_t members; /* version of the list of nodes, as last told; 0: never */
    uint64_t noted;   /* of the list on disk, which heartbeats confirm; 0: none */
    uint64_t noting;  /* of the one being written; 0: none */
    uint32_t note_seq;
    uint32_t
        n_members; /* in that list, this node included; may be more than there is room for */
    uint64_t soft_ms; /* when progress was last published for readers */
    uint32_t n_peers;
    uint32_t register_backoff_ms;
    uint64_t register_due_ms; /* not before */
    uint32_t next_seq;
    uint32_t n_devices;
    uint32_t n_rank_env;
    uint32_t next_fence;
    struct node_device devices[NODE_DEVICES_MAX];
    struct node_var rank_env[NODE_RANK_ENV_MAX];
    struct node_fence fences[NODE_FENCES];
    struct node_peer peers[NODE_PEERS_MAX];
    struct orr_pool rows;
    struct orr_pool procs;
    struct orr_pool groups;
    struct orr_map groups_by_key;
    struct orr_blobs specs;
    struct orr_block spec;      /* decoded */
    struct orr_block spec_body; /* encoded */
    struct orr_block env;       /* struct orr_rec_env_var[NODE_ENV_MAX] */
    struct orr_block text;      /* what env points to */
    struct orr_block note;      /* struct orr_msg_node_registered, encoded or decoded */
    struct orr_block row_list;  /* struct orr_rec_rank_row[ranks_max], for messages */
    struct orr_block part_list; /* struct orr_rec_part[ranks_max], for messages, */
    struct orr_block part_text; /* and what they point to */
    struct orr_block
        place_list; /* struct orr_rec_rank_place[ranks_max], for messages */
};

static inline uint64_t node_tag(enum node_tag kind, uint32_t index, uint32_t seq)
{
    return (uint64_t)kind << 56 | (uint64_t)(seq & 0xffffff) << 32 | index;
}

static inline bool node_rank_is_live(uint32_t state)
{
    return state == ORR_RANK_STARTING || state == ORR_RANK_RUNNING;
}

#endif
