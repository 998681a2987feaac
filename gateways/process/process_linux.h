/* SPDX-License-Identifier: Apache-2.0
 * process_linux.h - rank processes that outlive the host that launched them.
 *
 *   host ──(socketpair)── spawner ──fork── keeper ──fork/exec── rank
 *
 * The spawner is a small single-threaded copy of this program, so that a launch never
 * forks the host.  A keeper belongs to one rank: it opens the log files, starts the
 * rank in a process group of its own, waits, and records how it ended in the rank's
 * directory.  Spawner and host may die at any moment: keepers need neither, and the
 * next host finds all ranks through <state>/ranks/<job>.<generation>.<rank>/.  If a
 * keeper dies its rank dies with it.
 */
#ifndef ORR_PROCESS_LINUX_H
#define ORR_PROCESS_LINUX_H

#include "process.h"

struct orr_process_linux_config {
    const char *state_dir; /* made if absent; one host at a time */
    const char *addr;   /* of this machine, told with reserved ports; NULL: 127.0.0.1 */
    uint32_t ranks_max; /* not forgotten; 0: 16384 */
    uint32_t launches_max;     /* waiting to start; 0: 4096 */
    uint32_t logs_max;         /* log directories of forgotten ranks; 0: 1000 */
    uint64_t log_bytes_max;    /* of all those; 0: 1 GiB */
    uint64_t core_bytes_max;   /* RLIMIT_CORE of ranks */
    uint64_t files_max;        /* RLIMIT_NOFILE of ranks; 0: as the host's */
    uint32_t start_timeout_ms; /* for a rank to get to its exec; 0: 30 s */
    uint16_t port_min;         /* 0: 20000 */
    uint16_t port_max;         /* 0: 29999 */
    const char *criu; /* NULL: $ORRERY_CRIU, or beside this program, or in $PATH */
    const char *init; /* NULL: $ORRERY_INIT, or orrery-init beside this program */
    uint32_t restore_timeout_ms; /* for CRIU to restore a rank; 0: 120 s */
    uint64_t
        lazy_bytes_min; /* images with so much memory start before it is there; 0: 64 MiB */
};

/* Errors: ORR_EINVAL config, ORR_EEXIST another host has the directory, ORR_EIO,
 * ORR_ENOMEM. */
ORR_NODISCARD enum orr_err
orr_process_linux_open(const struct orr_process_linux_config *config,
                       struct orr_process **ret_process,
                       struct orr_error *err);

/* Can networks of ranks reach other machines from `machine`, "192.0.2.7:4789"?  Makes a VXLAN device there and removes it.  Why not,
 * or empty.  Blocks for some milliseconds. */
void orr_overlay_try(const char *machine, char *why, size_t cap);

/* A program that opens this edge must hand over to it when its first argument is this
 * one. */
#define ORR_SPAWNER_ARG "--spawner"
int orr_spawner_main(int argc, char **argv);

#endif
