/* SPDX-License-Identifier: Apache-2.0
 * victim.h - a process with device memory, to be suspended by its parent.
 *
 * It does one thing at a time, when told to: `step` adds one to every word of its memory
 * and looks at some of them, `busy MS` starts a kernel that runs so long and does not
 * wait for it. Each is answered by one line that begins with `ok`.
 */
#ifndef VICTIM_H
#define VICTIM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define VICTIM_ARG "--victim"

struct victim {
    pid_t pid;
    int to, from; /* pipes; owned */
};

/* In the child: the program's main hands over when its first argument is VICTIM_ARG. */
int victim_main(size_t mib);

/* In the parent. Every wait ends after its ms; false then, and when the victim died. */
bool victim_start(struct victim *v, size_t mib, int ms);
bool victim_tell(const struct victim *v, const char *line);
bool victim_answers(const struct victim *v, int ms);
/* Told to end, waited for, killed if it must be. False unless it ended by itself. */
bool victim_end(struct victim *v, int ms);
/* Resident memory in MiB, 0 when unknown. */
size_t victim_resident_mib(const struct victim *v);

#endif
