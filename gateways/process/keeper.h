/* SPDX-License-Identifier: Apache-2.0
 * keeper.h - the insides of a keeper, shared by its files: keeper.c, and keeper_ns.c for ranks with namespaces of their own.
 */
#ifndef ORR_PROCESS_KEEPER_H
#define ORR_PROCESS_KEEPER_H

#include <signal.h>

#include "lazy.h"
#include "lease.h"
#include "spawner.h"

enum start_step {
    STEP_LIMITS,
    STEP_OUTPUT,
    STEP_WORKDIR,
    STEP_LEASE,
    STEP_EXEC,
    STEP_NAMESPACE, /* `what` says which part */
    STEP_RESTORE,   /* `what` says it all */
};

struct start {
    const struct orri_launch *launch;
    const char *key;
    const char *workdir;
    const char *address, *hostname, *underlay, *restore_dir, *why;
    const char *criu, *init, *plugins;
    char **peers;
    char **args;
    char **env;
    const struct orri_lease *lease; /* NULL: cannot be read, and nothing starts */
    int ranks_dir;
    int dir;
    pid_t keeper;
    volatile enum start_step
        step; /* written by the child, which shares our memory until it execs */
    volatile int error;
    char what[ORRI_REASON_MAX];

    /* with namespaces */
    struct orri_env rank_env;
    struct orri_lazy lazy;
    int work_dir; /* the same as dir, and not locked: what CRIU has of it may outlive the keeper */
    int net_ns;    /* -1: none */
    int procs_fd;  /* of the cgroup, or -1 */
    int report_fd; /* the child's: errno of a failed exec; closed by a good one */
    int gone_fd;   /* pidfd of the keeper, for the child */
};

/* What the rank does before its exec, by itself or as the init of its namespaces.  Only calls that are safe after vfork; on
 * failure step and error are set. */
bool orri_rank_prepare(struct start *s);
bool orri_open_output(int dir);
/* Whether the lease allows a start now; else step and error are set. */
bool orri_lease_allows(struct start *s);

/* Start or restore the rank in namespaces of its own.  Returns its pid, or -1 with step, error and what. */
pid_t orri_ns_start(struct start *s);
pid_t orri_ns_restore(struct start *s);
/* Until the rank ended; its status as of waitpid. */
int orri_ns_wait(struct start *s, pid_t rank);
/* Kill what is left, remove what was made.  Also after a start that failed. */
void orri_ns_end(struct start *s);

/* Freezes the rank once for each end of a lease; how long until the next look. */
uint64_t orri_lease_look(const struct start *s, uint64_t *frozen_for);

#endif
