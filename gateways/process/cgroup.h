/* SPDX-License-Identifier: Apache-2.0
 * cgroup.h - one control group for the processes of a rank, to freeze and to kill them as a whole.
 *
 * It is made below the cgroup that this program runs in, in the unified hierarchy (v2) or else in the freezer of v1; it limits
 * nothing.  A path names it from then on, since a later host may run in another cgroup.
 * Blocking: waits up to a deadline where it says so; everything else takes less than a millisecond.
 */
#ifndef ORR_PROCESS_CGROUP_H
#define ORR_PROCESS_CGROUP_H

#include <stdint.h>
#include <sys/types.h>

#include "orrery/base.h"

enum { ORRI_CGROUP_PATH_MAX = 384 };

/* Where a group of that name would be; false: no freezer here that we can write to. */
bool orri_cgroup_path(const char *name, char path[ORRI_CGROUP_PATH_MAX]);
/* 0 or an errno; there already: 0. */
int orri_cgroup_make(const char *path);
/* For the group's file of processes, close-on-exec: who writes "0" into it joins.  Or -errno. */
int orri_cgroup_procs(const char *path);
int orri_cgroup_join(const char *path, pid_t pid);
/* Freeze or thaw, and wait until it is so.  0, ETIMEDOUT, or an errno. */
int orri_cgroup_freeze(const char *path, bool is_frozen, uint64_t timeout_ms);
bool orri_cgroup_is_frozen(const char *path);
/* In v1 nobody dies while frozen: thaw it there, after a SIGKILL. */
void orri_cgroup_let_die(const char *path);
/* Kill all in it and wait until they are gone.  0, ETIMEDOUT, or an errno. */
int orri_cgroup_kill(const char *path, uint64_t timeout_ms);
/* An empty group goes; one that is gone already: 0. */
int orri_cgroup_remove(const char *path, uint64_t timeout_ms);

#endif
