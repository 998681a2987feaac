/* SPDX-License-Identifier: Apache-2.0
 * spawner.h - between the host, its spawner and the keepers: one socketpair of packets.
 *
 * START      the host starts its own program anew with one end of the socket
 * OPERATION  host -> spawner: a launch; the spawner forks a keeper.  keeper -> host: a
 * report, once, when the rank runs or never will, with a pidfd of the keeper.  The
 * keeper then closes its copy of the socket STOP       the host closes its end: the
 * spawner exits, keepers stay FAILURES   when the host reads the end of the stream, the
 * spawner is dead and no keeper is still starting: whatever was not reported was not
 * started.  A directory is made before its launch is sent and is locked by its keeper,
 * so a later host sees every launch that might still happen, and can forbid it by
 * writing a status. Both ends are the same program, so the structs below are no
 * protocol.
 */
#ifndef ORR_SPAWNER_H
#define ORR_SPAWNER_H

#include "rank_files.h"

enum { ORRI_LAUNCH_BYTES_MAX = 128 << 10 };

/* Then texts, each with its NUL: key, workdir, address, hostname, underlay, restore_dir, why, criu, init, plugins; peers, args,
 * NAME=value. */
struct orri_launch {
    uint64_t core_bytes_max;
    uint64_t files_max;
    uint32_t start_timeout_ms;
    uint32_t device;
    uint32_t n_args;
    uint32_t n_env;
    uint32_t n_peers;
    uint32_t restore_timeout_ms;
    uint64_t overlay;
    uint64_t lazy_bytes_min; /* an image with so much memory is restored lazily */
    bool wants_image;  /* namespaces; else `why` says why not, if they were wanted */
    bool has_nft;      /* CRIU can hold back packets by itself */
    bool stays_frozen; /* once it is restored */
};

struct orri_report {
    char key[ORRI_KEY_MAX];
    bool is_started; /* else the status file or `error` says why not */
    int error;       /* errno of fork, 0 otherwise */
    pid_t keeper;
    pid_t rank;
    uint64_t rank_start;
    uint64_t started_unix_ms;
    bool is_image;
    char why[ORRI_REASON_MAX]; /* not, although it was wanted */
};

/* Host: start a spawner for the ranks directory.  ret_pid is a child of the calling
 * thread, and dies with it. Errors: ORR_EIO. */
ORR_NODISCARD enum orr_err orri_spawner_start(const char *ranks_dir,
                                              pid_t *ret_pid,
                                              int *ret_socket,
                                              struct orr_error *err);

/* Host: the next report; 1, 0 at the end of the stream, or -errno (-EAGAIN: none now).
 * *ret_keeper: a pidfd or -1. */
int orri_report_receive(int sock, struct orri_report *ret_report, int *ret_keeper);
/* Keeper or spawner. */
void orri_report_send(int sock, const struct orri_report *report, int keeper);

/* The whole life of a keeper; packet is a whole launch. */
_Noreturn void orri_keeper_run(int ranks_dir, int sock, const char *boot, char *packet);

/* "exit code 1", "killed by signal 9 (SIGKILL)" */
void orri_exit_text(int64_t exit_code, uint32_t signal, char *buf, size_t cap);

#endif
