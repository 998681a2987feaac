/* SPDX-License-Identifier: Apache-2.0
 * region_state.h - the region actor's state, shared by its files.
 *
 * What the ledger keeps of it: region_records.c.  The rest is made anew by each leader: queues, capacities, asks, waits.
 *
 * Invariants: a job is with one cluster at most; it is with a next one only after the former cannot launch it any more (it
 * never got the permit, or job_ended came); generations only grow; a finished job never changes.
 */
#ifndef ORR_REGION_STATE_H
#define ORR_REGION_STATE_H

#include "orrery/map.h"
#include "orrery/sm.h"
#include "region.h"
#include "region_entry.h"
#include "region_fleet.h"

enum {
    REGION_CLUSTERS_MAX = 64,
    REGION_SPEC_BYTES = 256 << 10,
    REGION_BODY_BYTES = 1 << 20,
    REGION_STOP_STEPS_MAX = 16,
    REGION_HASH_BYTES = 384, /* of a part of a manifest: its texts */
    REGION_ROOT_BYTES = 32,  /* a part's hash, as stores_collect has it */
    REGION_ROOTS_MAX = 65536,
    REGION_WAITING_BYTES = 64 << 10, /* one spec at least */
    REGION_TOKENS_MAX = 1024,        /* of handovers from other regions under way */
};

enum region_timer {
    REGION_T_TICK = 1,
    REGION_T_SCHEDULE,
    REGION_T_JOB = 16
}; /* T_JOB + JOB_TIMERS * index + kind */
enum region_job_timer {
    REGION_JOB_START,
    REGION_JOB_STOP,
    REGION_JOB_ORDER,
    REGION_JOB_TIMERS
};
enum region_tag {
    REGION_TAG_ASSIGN = 1,
    REGION_TAG_STOP,
    REGION_TAG_LOG,
    REGION_TAG_LEDGER,
    REGION_TAG_ORDER,
    REGION_TAG_COLLECT,
    REGION_TAG_OFFER, /* of a region_wait */
    REGION_TAG_PEER   /* of a job that goes, or went, to another region */
};

enum region_where {
    REGION_QUEUED,     /* in its tier's queue */
    REGION_BACKOFF,    /* waits for its next start */
    REGION_ASSIGNING,  /* offered to a cluster that has not answered */
    REGION_HELD,       /* the cluster has it; launched only if it has places */
    REGION_RECOVERING, /* to be handed over again to its restarted cluster */
    REGION_PARKED, /* suspended, and nowhere: it has not started, or its ranks are lost */
    REGION_LEAVING, /* on its way to another region, which may have it already */
    REGION_ENDED,
};

enum region_dirty { /* what of a job has changed since the last entry */
                    REGION_DIRTY_JOB = 1,
                    REGION_DIRTY_SPEC = 2,
                    REGION_DIRTY_PLACES = 4,
};

struct region_link { /* of an intrusive list; indices into jobs */
    uint32_t prev;
    uint32_t next;
};
struct region_list {
    uint32_t head;
    uint32_t tail;
    uint32_t n;
};

/* The newest thing that was wanted of a job; what becomes of it is told by its cluster. */
struct region_order {
    uint64_t number;     /* of the job: 1, 2, ...; 0: none yet */
    uint32_t kind;       /* enum orr_order */
    uint32_t state;      /* enum orr_order_state */
    uint64_t generation; /* that it was given to */
    uint64_t checkpoint; /* number that its checkpoint will have */
    uint32_t devices;    /* resize: how many, */
    bool may_move;       /* and on other nodes if need be */
    bool is_own;         /* its cluster's idea, which any user's order replaces */
    uint32_t code;       /* failed: enum orr_err */
    uint32_t seq;        /* of the ask under way; 0: none */
    uint32_t backoff_ms; /* of a resume that waits for devices; 0: it does not */
    char text[200];      /* why; once it has failed: why it has */
};

struct region_checkpoint {
    uint32_t next;     /* newer one of the same job */
    uint32_t manifest; /* blob */
    uint64_t number;
    uint64_t generation;
    uint64_t cut;
    uint32_t level;
    uint64_t created_unix_ms;
    uint64_t bytes;
    uint64_t new_bytes;
    uint64_t paused_ms;
    char cause[24];
};

struct region_job {
    char id[ORR_JOB_ID_MAX];
    char key[ORR_NAME_MAX]; /* idempotency key; empty: none */
    char owner[ORR_NAME_MAX];
    char name[ORR_NAME_MAX];
    char project[ORR_NAME_MAX];
    uint64_t counter; /* age */
    uint32_t tier;
    uint32_t phase; /* enum orr_job_phase */
    enum region_where where;
    uint64_t generation;
    uint32_t world;
    uint32_t gpus_min;
    uint32_t gpus_max;
    uint32_t shards;
    bool has_rules; /* device type, memory or exclusions: look into the spec */
    bool is_cancelled;
    bool is_to_suspend; /* its user wants it so */
    bool
        is_parked; /* its ranks hold no devices, whatever its phase: until it is given some again */
    struct region_order order;
    uint32_t
        asked_devices; /* its user has ordered this size: it stays there until it starts anew; 0: none */
    char to_cluster[ORR_NAME_MAX]; /* where it is to go next; empty: anywhere */
    char to_node[ORR_NAME_MAX];
    char to_region[ORR_NAME_MAX]; /* it is to go there; or, MOVED, is there */
    char from_region[ORR_NAME_MAX];
    uint64_t from_generation;  /* of the handover that it came with */
    bool is_from_known;        /* from_region knows that it is here */
    bool is_settled;           /* of two regions the newer needs nothing of the older */
    uint64_t token;            /* to_region's, for the next job_transfer; 0: none */
    uint32_t peer_seq;         /* of the ask to to_region under way; 0: none */
    uint32_t peer_at;          /* which of its hosts */
    uint32_t peer_code;        /* enum orr_err of the last ask */
    uint32_t first_checkpoint; /* the oldest */
    uint32_t checkpoint_keep;
    uint64_t checkpoint; /* numbers up to here were given away */
    uint64_t restore;    /* this generation is still to be restored from it; 0: none */
    uint64_t restore_below; /* this one and later ones could not be restored; 0: none */
    uint32_t restore_tries;
    uint32_t level; /* enum orr_level */
    char why_level[160];
    bool is_hung;      /* by its actor's word; `reason` says who holds it up */
    uint64_t drain_ms; /* a drain does not try it before */
    bool is_recorded;  /* standby: its job_record was read, not only its parts */
    uint8_t dirty;     /* enum region_dirty bits; not 0: in the list of dirty jobs */
    uint32_t next_dirty;
    uint32_t spec; /* blob */
    uint32_t
        places; /* blob: a job_update's encoding, of the ranks alone; ORR_NONE: never permitted to launch */
    uint32_t tail; /* blob */
    uint32_t
        stop; /* blob: a job_update's encoding, of its newest stop alone; this leader's knowledge */
    uint32_t cluster; /* where it is or was; ORR_NONE */
    uint32_t units;   /* devices, or slots, that it is counted with */
    uint32_t update_incarnation;
    uint64_t update_step;
    uint32_t assign_seq; /* of the job_assign under way; 0: none */
    uint32_t stop_seq;
    uint32_t backoff_ms; /* of asks */
    uint64_t refused_by; /* bit per cluster ... */
    uint64_t refused_at; /* ... as of this capacity_seq */
    uint64_t submitted_unix_ms;
    uint64_t changed_unix_ms;
    uint64_t start_unix_ms; /* queued: not before */
    uint32_t restarts;
    uint32_t user_restarts;
    int64_t retries_infra;
    int64_t retries_user;
    uint64_t backoff_min_ms;
    uint64_t backoff_max_ms;
    int64_t exit_code;
    uint32_t signal;
    int64_t culprit;
    char culprit_node[ORR_NAME_MAX];
    char reason[200];
    uint32_t first_wait;
    struct region_link in_all;      /* in order of submission */
    struct region_link in_progress; /* queue of its tier, or finished */
};

struct region_wait {
    struct orr_request request;
    uint32_t next;  /* of the same job */
    uint32_t job;   /* ORR_NONE: a log_read */
    uint64_t order; /* job_checkpoint: the order that answers it; 0: job_wait */
    uint64_t until_ms;
    uint32_t migrates; /* job_migrate: the job; ORR_NONE */
    bool is_recall;    /* it is to come back */
    uint32_t tries;
    uint64_t counter; /* of that job */
    char to_region[ORR_NAME_MAX];
};

struct region_token { /* given to a region that wants to hand a job over */
    char job[ORR_JOB_ID_MAX];
    uint64_t generation;
    uint64_t token; /* 0: void */
};

/* Follows the ledger, or leads (region_ledger.c). */
struct region_ledger {
    struct orr_addr edge; /* /edge/ledger of this host */
    bool is_leading;
    bool is_reading;    /* a ledger_read is under way */
    uint64_t applied;   /* standby: the tables mean this index */
    uint64_t committed; /* as last heard */
    uint64_t term;      /* leading: of this leadership; else as last heard */
    bool is_elected;    /* the ledger leads in that term */
    bool is_used;       /* an earlier life of this actor led in that term */
    uint64_t ticket;    /* leading: of the last entry appended */
    uint64_t ticket_done;
    uint64_t progress_ms; /* when ticket_done last moved, or nothing was open */
    uint32_t trouble;     /* enum orr_err */
    char trouble_text[200];
    char leader[ORR_NAME_MAX];
    struct region_entry entry; /* being made by the running handler */
    uint32_t first_dirty;      /* job */
    bool is_region_dirty;
};

struct region {
    struct orr_region_args args;
    struct region_ledger ledger;
    struct orr_addr events;
    uint64_t epoch;
    uint64_t seq;       /* of the last event */
    uint64_t seq_first; /* oldest in the ledger */
    uint32_t n_running; /* jobs in phase RUNNING */
    uint64_t soft_ms;   /* when the region's own row was last published */
    uint32_t soft_next; /* job to go on with */
    uint64_t next_counter;
    uint64_t counter_min; /* as recorded */
    uint32_t next_seq;
    uint64_t capacity_seq; /* counts news about capacity */
    bool is_scheduling;    /* REGION_T_SCHEDULE runs */
    uint32_t resume_at;    /* job to go on with; ORR_NONE: from the first */
    struct orr_pool jobs;
    struct orr_map jobs_by_id;
    struct orr_map jobs_by_key;
    struct orr_pool clusters;
    struct orr_map clusters_by_name;
    struct orr_pool nodes;
    struct orr_map nodes_by_key;
    struct orr_pool waits;
    struct orr_pool checkpoints;
    uint64_t collect_ms;    /* when the stores are told next what is needed */
    uint64_t collect_round; /* of this leadership: lists sent */
    uint32_t n_draining;    /* nodes */
    uint32_t drain_next;    /* job to go on with */
    uint32_t drain_job;     /* the one that a drain moves now; ORR_NONE */
    struct region_token tokens[REGION_TOKENS_MAX];
    uint32_t next_token;
    struct orr_blobs blobs;
    struct region_list all;
    struct region_list queue[ORR_TIER_MAX_];
    struct region_list finished;
    struct orr_block spec;          /* decoded job_spec */
    struct orr_block spec_body;     /* encoded job_spec */
    struct orr_block body;          /* encoded job_update */
    struct orr_block places;        /* decoded job_update */
    struct orr_block manifest;      /* decoded manifest */
    struct orr_block manifest_body; /* encoded manifest */
    struct orr_block roots;         /* hashes of parts */
    struct orr_block list;          /* records of one message */
    struct orr_block waiting;       /* encoded job_specs of jobs that wait */
    char tail[ORR_TAIL_MAX];
};

static inline struct region_job *region_job_at(const struct region *self,
                                               uint32_t index)
{
    return orr_pool_at(&self->jobs, index);
}
static inline bool region_has_places(const struct region_job *job)
{
    return job->places != ORR_NONE;
}
static inline struct region_checkpoint *region_checkpoint_at(const struct region *self,
                                                             uint32_t index)
{
    return orr_pool_at(&self->checkpoints, index);
}
static inline bool region_is_with_cluster(const struct region_job *job)
{
    return job->where == REGION_ASSIGNING || job->where == REGION_HELD ||
           job->where == REGION_RECOVERING;
}

#endif
