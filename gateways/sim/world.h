/* SPDX-License-Identifier: Apache-2.0
 * world.h - the machines under a simulated fleet: processes and devices that outlive the hosts which look after them.
 *
 * A machine's processes run on while its host is down, as real ranks do under their keepers.  A job's program is a plan in
 * its command line: sim RUN_MS BAD_RANK EXIT_CODE SIGNAL, and what the spec has of gpus.min, gpus.max and the time
 * between resizes; every rank runs RUN_MS and exits 0, but BAD_RANK (-1: none) ends
 * halfway as told.  When a rank ends badly, or its machine dies, its peers soon exit with 1.
 * A rank's state is how far it got: it counts a collective each STEP_MS.  A stop holds it at a count that all have in common;
 * an image is the rank as it then is, a part of a checkpoint is an image under a name, and a restored rank goes on from there.
 * Time here is true time: a host's drifting clock changes when its edges look, not when a process ends.
 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "invariants.h"

enum { WORLD_PROCS = 128, WORLD_STEP_MS = 100 };

struct proc {
    bool is_used;
    bool is_ended; /* the edge has seen its end */
    bool ignores_term;
    bool is_told;        /* TERM or KILL was sent by its node */
    bool is_frozen;      /* by its keeper, at the end of the lease */
    bool is_held;        /* at its closed gate */
    bool is_parked;      /* by its node, for an image or a suspend */
    bool is_stopped;     /* at a cut: it holds no device memory, and no communicators */
    uint64_t left_ms;    /* to run, while it stands still for one of these reasons */
    uint64_t done_ms;    /* that it has run, */
    uint64_t from_ms;    /* and since then; 0: it stands still */
    uint64_t hold_at_ms; /* true time at which it reaches its target; 0: none */
    uint64_t target;     /* collectives */
    uint64_t restored;   /* collectives at its start */
    uint64_t cut;        /* newest stop that it has heard of */
    uint32_t step;       /* of it: enum orr_cut_step */
    uint64_t noted_cut;  /* by its node, on disk */
    uint32_t noted_step;
    uint64_t noted_visible;
    uint64_t round;
    uint32_t world; /* ranks of the job */
    uint32_t gpus_min, gpus_max;
    uint64_t quiet_ms; /* the least time between two resizes by itself */
    char job[ORR_JOB_ID_MAX];
    uint64_t generation;
    uint32_t rank;
    uint32_t device;
    uint64_t started_ms;
    uint64_t ends_ms;
    int64_t exit_code;
    uint32_t signal;
};

struct machine {
    char name[ORR_NAME_MAX];
    char node_path[128];
    uint32_t cluster;
    uint32_t gpus;
    bool has_bad_disk; /* nothing can be launched */
    uint32_t n_procs;  /* of procs, ever used */
    uint64_t
        freeze_at_ms; /* true time at which keepers freeze all, host or no host; 0: never */
    uint64_t heard_ms;      /* of process_lease; 0: none yet */
    uint8_t note[32 << 10]; /* of node_note */
    uint32_t note_len;
    struct proc procs[WORLD_PROCS];
    struct world *world; /* borrowed: whoever made it */
};

struct world {
    uint64_t (*true_ms)(void *arg); /* NULL: now_ms is set by the test */
    void *arg;
    uint64_t now_ms;
    uint64_t calm_ms; /* no faults from then on, nor any orders; UINT64_MAX: never so */
    uint64_t seed;
    uint32_t n_machines;
    struct machine *machines; /* borrowed: whoever made it */
    uint64_t n_launched;
    uint64_t n_restored;
    struct saved_rank
        *images; /* owned; in directories of machines, and parts in the store */
    uint32_t n_images;
    uint64_t
        reap_ms; /* from a violent end, which peers feel at once, until the edge sees it */
    struct invariants invariants;
};

/* A rank as it was; dir: "MACHINE:DIRECTORY", or the hash of a part. */
struct saved_rank {
    char dir[256];
    struct proc proc;
};
/* The newest of that name; NULL: none. */
const struct saved_rank *world_image_find(const struct world *world, const char *dir);
void world_image_keep(struct world *world, const char *dir, const struct proc *proc);
void world_fini(struct world *world);

/* Bring now_ms up to date. */
uint64_t world_now(struct world *world);
/* A number that is the same for the same rank in every run of the seed. */
uint64_t world_chance(const struct world *world,
                      struct orr_str job,
                      uint64_t generation,
                      uint32_t rank);

static inline bool proc_stands(const struct proc *proc)
{
    return proc->is_frozen || proc->is_held || proc->is_parked;
}
/* Collectives that it has issued. */
uint64_t proc_count(const struct proc *proc, uint64_t now_ms);
/* It stands still from now on, or goes on when no other reason is left; `reason` is one of its flags. */
void proc_stand(struct machine *machine, struct proc *proc, bool *reason, bool on);
/* Run on to that many collectives, then be held. */
void proc_run_to(struct machine *machine, struct proc *proc, uint64_t target);

static inline bool proc_is_live(const struct proc *proc, uint64_t now_ms)
{
    return proc->is_used && now_ms < proc->ends_ms;
}
/* When the edge sees its end: a killed process is torn down before its parent hears of it. */
static inline uint64_t proc_reaped_ms(const struct world *world,
                                      const struct proc *proc)
{
    return proc->ends_ms + (proc->signal ? world->reap_ms : 0);
}

/* NULL: not on this machine. */
struct proc *machine_find(struct machine *machine,
                          struct orr_str job,
                          uint64_t generation,
                          uint32_t rank);
/* NULL: no room. */
struct proc *machine_start(struct machine *machine, const struct proc *plan);
void machine_signal(struct machine *machine, struct proc *proc, uint32_t signal);
/* A rank that ended badly takes its peers with it. */
void machine_end_peers(struct world *world, const struct proc *dead);
/* Power off: every process on it is gone without a trace. */
void machine_dies(struct machine *machine);

struct edge_args {
    struct machine *machine; /* NULL for events */
    struct world *world;
};
extern const struct orr_actor_type sim_process_type; /* /edge/process */
extern const struct orr_actor_type sim_device_type;  /* /edge/device */
extern const struct orr_actor_type sim_events_type;  /* /edge/events */
extern const struct orr_actor_type sim_rank_type;    /* /edge/rank */
extern const struct orr_actor_type sim_store_type;   /* /edge/store */

#endif
