/* SPDX-License-Identifier: Apache-2.0
 * lazy.h - a restored rank runs before its memory is there: `criu lazy-pages` brings what is touched first, then the rest.
 *
 * START      the daemon starts before the restore, which hands it a userfaultfd for each process; guard, before any of them runs
 * OPERATION  look, when the signal fd is readable and now and then; the mark `lazy` is in the rank's directory until all is there
 * STOP       the daemon exits with 0: all is there.  end: the rank has ended
 * FAILURES   a daemon that dies would leave pages of zeros behind it, and the rank would compute with them.  So the keeper traces it
 * (PTRACE_O_TRACEEXIT): when it dies the kernel holds it before its userfaultfds go, until the rank is dead.  The keeper's own death
 * is the rank's, and the daemon, which does not die with the keeper, is killed after the rank (orri_env_end) or finds nobody left
 *
 * Names in the image's directory may go once guard has returned: the daemon has all files open.
 * Source: criu/uffd.c, ptrace(2)
 */
#ifndef ORR_PROCESS_LAZY_H
#define ORR_PROCESS_LAZY_H

#include "lease.h"

enum orri_lazy_state { ORRI_LAZY_NONE, ORRI_LAZY_WORKS, ORRI_LAZY_FAILED };

struct orri_lazy { /* of a keeper; all zero: none */
    pid_t pid;     /* 0: none, or it is done */
    int pidfd;     /* owned: readable when it has died before guard */
    int signal_fd; /* owned: readable when look has something to see */
    int rank_dir;  /* borrowed: of the keeper */
    uint64_t left_ms, looked_ms;
    bool has_failed;
    char why[ORRI_REASON_MAX]; /* then */
};

struct orri_lazy_plan {
    const char *criu, *dir; /* of the image */
    int rank_dir;
    uint32_t
        timeout_ms; /* to begin; for all of it, beside the time that the image's size needs */
};

/* Bytes of memory in an image. */
uint64_t orri_lazy_bytes(const char *dir);
/* Blocks SIGCHLD.  Errors: ORR_EIO, ORR_ETIMEOUT; then there is none. */
ORR_NODISCARD enum orr_err orri_lazy_start(struct orri_lazy *lazy,
                                           const struct orri_lazy_plan *plan,
                                           struct orr_error *err);
/* After the restore, while its processes stand still.  Errors: ORR_EIO it has died, ORR_ETIMEOUT. */
ORR_NODISCARD enum orr_err orri_lazy_guard(struct orri_lazy *lazy,
                                           const struct orri_lazy_plan *plan,
                                           struct orr_error *err);
/* lease: time without one does not count.  Failed: kill the rank, then call end. */
enum orri_lazy_state orri_lazy_look(struct orri_lazy *lazy,
                                    const struct orri_lease *lease);
/* The rank is dead, or never ran. */
void orri_lazy_end(struct orri_lazy *lazy);

#endif
