/* SPDX-License-Identifier: Apache-2.0
 * rank_tree.h - all processes of a rank: its keeper's descendants.
 *
 * A keeper is the subreaper of its rank, so orphans stay below it.  What starts or ends meanwhile may be missed once: who must
 * have all of them repeats until nothing changes.
 */
#ifndef ORR_PROCESS_RANK_TREE_H
#define ORR_PROCESS_RANK_TREE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* For each one, parents first, but not for the keeper itself; how many. */
uint32_t orri_tree_each(pid_t keeper, void (*call)(void *arg, pid_t pid), void *arg);
/* The only or first child of a process; 0: none. */
pid_t orri_tree_child(pid_t parent);
void orri_tree_signal(pid_t keeper, int sig);
/* SIGSTOP, until all stand still.  False: not within the time. */
bool orri_tree_stop(pid_t keeper, uint64_t timeout_ms);
/* A process that waits in vfork (or posix_spawn) for a child to get to its exec. */
bool orri_tree_has_vfork(pid_t keeper);
bool orri_tree_join(pid_t keeper, const char *cgroup);

#endif
