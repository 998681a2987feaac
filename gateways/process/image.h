/* SPDX-License-Identifier: Apache-2.0
 * image.h - making an image of a rank with CRIU and starting one from it.
 *
 *   <dir>/ *.img        CRIU's files
 *   <dir>/stdout,stderr what the rank had written until then
 *   <dir>/rank          where those were, written last: an image without it is none
 *
 * CRIU is a program of its own that runs as long as its caller waits for it: it dies with it.  The rank is described in terms of
 * its init; its network namespace is not in the image, who restores brings one.
 * Source: criu(8), https://criu.org/Inheriting_FDs_on_restore, https://criu.org/External_resources
 */
#ifndef ORR_PROCESS_IMAGE_H
#define ORR_PROCESS_IMAGE_H

#include "lease.h"
#include "rank_files.h"

struct orri_criu {
    const char *path;
    const char
        *plugins; /* an empty directory: CRIU's own GPU plugins stay out of this */
    bool has_nft; /* else connections are held back by the link alone */
};

struct orri_dump {
    struct orri_criu criu;
    const char *dir; /* of the image; made if absent, else empty */
    int rank_dir;
    const char *rank_path; /* of rank_dir, as the kernel names it */
    const char *devices;   /* orri_image_devices; NULL: none */
    pid_t init;
    uint32_t timeout_ms;
    int stop_fd; /* readable: give up; or -1 */
};

struct orri_restore {
    struct orri_criu criu;
    const char *dir;
    int rank_dir;
    int net_ns;
    int procs_fd;                   /* of the cgroup */
    bool is_lazy;                   /* memory comes later (lazy.h) */
    const struct orri_lease *lease; /* its end is the end of the attempt */
    uint32_t timeout_ms;
};

/* All processes are stopped (orri_image_halt) before and after.  Errors: ORR_EEXIST the directory is not empty, ORR_EIO, ORR_ETIMEOUT.  After an error only
 * logs are left in the directory. */
ORR_NODISCARD enum orr_err orri_image_dump(const struct orri_dump *dump,
                                           uint64_t *ret_bytes,
                                           struct orr_error *err);
/* Bring the descendants of a keeper from frozen, with their cgroup, to stopped: when CRIU is killed in the middle, what it had
 * caught stays where it is until it was mended.  The restored ones are stopped, too.  False: not within a few seconds. */
bool orri_image_halt(pid_t keeper, const char *cgroup);
/* Let them go on, unless the lease is over. */
void orri_image_resume(pid_t keeper, const struct orri_lease *lease);
/* What a CRIU that was killed may leave behind in living processes: its code in them, sockets in repair mode, rules that drop packets.
 * They stand still since before it began. */
void orri_image_mend(pid_t init, int rank_dir);
/* Of that, what the processes themselves were like: kept in the rank's directory before CRIU, and put back (image_undo.c). */
void orri_image_keep(pid_t init, int rank_dir);
void orri_image_undo(int rank_dir);

/* What orri_dump had as devices; dir: of the image, or of a rank that was restored from it.  NULL: nothing, or no memory.  The
 * caller frees it. */
char *orri_image_devices(int dir);
/* *ret_init: a child of the caller, stopped, as all below it.  Errors: ORR_EIO, ORR_ETIMEOUT. */
ORR_NODISCARD enum orr_err orri_image_restore(const struct orri_restore *restore,
                                              pid_t *ret_init,
                                              struct orr_error *err);

#endif
