/* SPDX-License-Identifier: Apache-2.0
 * digests.h - what a rank's state was after a step, for whoever wants to compare.
 *
 * With --digests PREFIX, rank R appends a line to PREFIX.R after every K-th step:
 *
 *     step=40 weights=0123456789abcdef moments=... counters=...
 *
 * FNV-1a over the bytes of each named part of the state. A line is one write, and the
 * file is open only for that: a program that is copied or set back to an earlier moment
 * goes on with whatever the file has become, and writes some lines a second time.
 */
#ifndef EXAMPLE_DIGESTS_H
#define EXAMPLE_DIGESTS_H

#include "options.h"

#include <stdbool.h>

enum { DIGESTS_LINE_MAX = 8192 };

struct digests {
    char prefix[PATH_MAX]; /* empty: none are wanted */
    uint32_t every, rank;
    size_t used;
    char line[DIGESTS_LINE_MAX];
};

/* The options of all examples; `d` is the struct digests. */
/* clang-format off */
#define DIGESTS_OPTIONS(d)                                                             \
    {"digests", OPTION_PATH, (d)->prefix, 0, 0, "PREFIX  append state digests to PREFIX.RANK"}, \
    {"digest-every", OPTION_NUMBER, &(d)->every, 1, STEPS_MAX, "K  after every K steps"}
/* clang-format on */

#define FNV1A_START UINT64_C(0xcbf29ce484222325)
uint64_t fnv1a(uint64_t hash, const void *data, size_t len);

/* Is a line due after `step`? If so, begins it; then digests_add for each part, and
 * digests_end, which ends the program when the file cannot be written. */
bool digests_begin(struct digests *d, uint32_t step);
void digests_add(struct digests *d, const char *name, const void *data, size_t len);
void digests_end(struct digests *d);

#endif
