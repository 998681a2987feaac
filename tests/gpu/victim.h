/* SPDX-License-Identifier: Apache-2.0
 * victim.h - a process with device memory, to be suspended by its parent.
 *
 * It does one thing at a time, when told to: `step` adds one to every word of its memory
 * and looks at some of them, `busy MS` starts a kernel that runs so long and does not
 * wait for it, `out` and `in` are those of victim_stop.h. Each is answered by one line
 * that begins with `ok`.
 */
#ifndef VICTIM_H
#define VICTIM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define VICTIM_ARG "--victim"

enum {
    VICTIM_LINE = 256,
    VICTIM_UNSUPPORTED =
        77 /* its exit code where this driver does not have the kind's calls */
};

struct victim {
    pid_t pid;
    int to, from;  /* pipes; owned */
    int exit_code; /* after victim_end; -1: killed */
};

/* In the child: the program's main hands over when its first argument is VICTIM_ARG. */
int victim_main(size_t mib, const char *kind);

/* In the parent. Every wait ends after its ms; false then, and when the victim died. kind: of victim_memory.h. */
bool victim_start(struct victim *v, size_t mib, const char *kind, int ms);
bool victim_tell(const struct victim *v, const char *line);
bool victim_answers(const struct victim *v, int ms);
bool victim_line(const struct victim *v,
                 int ms,
                 char line[VICTIM_LINE]); /* the answer itself */
/* Told to end, waited for, killed if it must be. False unless it ended by itself. */
bool victim_end(struct victim *v, int ms);
/* Resident memory in MiB, 0 when unknown. */
size_t victim_resident_mib(const struct victim *v);

#endif
