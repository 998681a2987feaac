/* SPDX-License-Identifier: Apache-2.0
 * criu_run.h - CRIU as a child with a deadline, which dies with the thread that waits for it.
 */
#ifndef ORR_PROCESS_CRIU_RUN_H
#define ORR_PROCESS_CRIU_RUN_H

#include "lease.h"

struct orri_criu_run {
    const char *const *args; /* the program's path first, NULL last */
    int fds[4];              /* passed on, under the same numbers */
    int n_fds;
    int procs_fd;                   /* of a cgroup that it joins; -1: none */
    int stop_fd;                    /* readable: kill it; -1: none */
    bool is_lone;                   /* does not die with its parent */
    const struct orri_lease *lease; /* over: kill it; NULL: none */
    uint32_t timeout_ms;
};

struct orri_criu_end {
    bool is_ok;
    bool is_late; /* it was killed by us */
    int signal;   /* it was killed */
    int error;    /* errno: it could not be started */
};

/* Only start it; it is the caller's to wait for.  -1: *ret_error is an errno. */
pid_t orri_criu_start(const struct orri_criu_run *run, int *ret_error);
struct orri_criu_end orri_criu_run(const struct orri_criu_run *run);

#endif
