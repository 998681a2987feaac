/* SPDX-License-Identifier: Apache-2.0
 * world.h - the machines under a simulated fleet: processes and devices that outlive the hosts which look after them.
 *
 * A machine's processes run on while its host is down, as real ranks do under their keepers.  A job's program is a plan in
 * its command line: sim RUN_MS BAD_RANK EXIT_CODE SIGNAL; every rank runs RUN_MS and exits 0, but BAD_RANK (-1: none) ends
 * halfway as told.  When a rank ends badly, or its machine dies, its peers soon exit with 1.
 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "orrery/actor.h"

enum { WORLD_MACHINES = 8, WORLD_PROCS = 128, WORLD_JOBS = 64, WORLD_GENERATIONS = 64 };

struct proc {
    bool is_used;
    bool is_ended; /* the edge has seen its end */
    bool ignores_term;
    bool is_frozen;
    uint64_t left_ms; /* to run, while frozen */
    char job[ORR_JOB_ID_MAX];
    uint64_t generation;
    uint32_t rank;
    uint32_t device;
    uint64_t started_ms;
    uint64_t ends_ms;
    bool is_lost; /* died with its machine */
    int64_t exit_code;
    uint32_t signal;
};

struct machine {
    char name[ORR_NAME_MAX];
    char node_path[128];
    uint32_t gpus;
    struct proc procs[WORLD_PROCS];
    uint64_t freeze_at_ms; /* as keepers do, whether the host is up or not; 0: never */
    uint64_t heard_ms;
    uint8_t note[4096]; /* of the node actor */
    uint32_t note_len;
    struct world *world; /* borrowed: the test's */
};

struct world {
    uint64_t now_ms;
    uint64_t random;
    uint32_t n_machines;
    struct machine machines[WORLD_MACHINES];
    uint64_t n_launched;
    uint64_t
        reap_ms; /* from a violent end, which peers feel at once, until the edge sees it */
    /* event stream */
    uint64_t epoch;
    uint64_t last_seq;
    uint64_t n_events;
    uint64_t n_terminal;
    const char *broken; /* the first invariant that did not hold; NULL: none */
    char broken_text[256];
};

uint64_t world_random(struct world *world);
void world_broken(struct world *world, const char *fmt, ...) ORR_PRINTF(2, 3);
static inline bool proc_is_live(const struct proc *proc, uint64_t now_ms)
{
    return proc->is_used && now_ms < proc->ends_ms;
}

/* Power off: every process on it is gone without a trace. */
void world_machine_dies(struct machine *machine);

/* The invariants that can be seen on the machines: one owner per device, one live generation per job. */
void world_check(struct world *world);

struct edge_args {
    struct machine *machine; /* NULL for events */
    struct world *world;
};
extern const struct orr_actor_type sim_process_type; /* /edge/process */
extern const struct orr_actor_type sim_device_type;  /* /edge/device */
extern const struct orr_actor_type sim_events_type;  /* /edge/events */

/* A client: submits n_jobs random jobs, cancels some, and looks until all have ended. */
enum client_goal { CLIENT_SUBMIT, CLIENT_LIVE, CLIENT_ENDED };
struct client_job {
    enum client_goal goal;
    char id[ORR_JOB_ID_MAX];
    uint64_t submit_at_ms;
    uint64_t cancel_at_ms; /* 0: never */
    uint32_t world;
    uint32_t gpus_min;
    uint32_t gpus_max;
    uint32_t run_ms;
    int32_t bad_rank;
    uint32_t exit_code;
    uint32_t signal;
    int64_t retries_user;
    uint64_t limit_ms;
    bool is_asked;
    uint32_t phase; /* when ended */
    uint64_t generation;
    int64_t end_exit_code;
    uint32_t end_signal;
    int64_t culprit;
    bool has_log; /* read after the end */
    char tail[16];
    char waited[200]; /* the last reason while queued */
    char reason[200];
};
struct client {
    struct orr_addr region;
    uint32_t n_jobs;
    uint32_t n_ended;
    uint32_t n_logs;
    uint32_t n_tree_nodes; /* of the last tree */
    struct client_job jobs[WORLD_JOBS];
};
extern const struct orr_actor_type sim_client_type; /* args: struct client * */

#endif
