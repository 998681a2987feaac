/* SPDX-License-Identifier: Apache-2.0
 * worlds.c - the worlds that the explorer walks, and then every mutant, which must be found in one of them.
 *
 *   barrier_model [WORLD | mutants | long]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explorer.h"

static const struct x_world worlds[] = {
    {.name = "data-parallel",
     .n_ranks = 3,
     .comms = {"012"},
     .programs = {"0:C0c0c0y", "1:C0c0c0y", "2:C0c0c0y"},
     .requests = 1,
     .mortal = -1},
    {.name = "data-parallel-twice",
     .n_ranks = 2,
     .comms = {"01"},
     .programs = {"0:c0c0yc0c0", "1:c0c0yc0c0"},
     .requests = 2,
     .mortal = -1,
     .may_expire = true,
     .is_made = true},
    {.name = "chain",
     .n_ranks = 3,
     .comms = {"01", "12"},
     .programs = {"0:c0c0", "1:c0c1c0c1", "2:c1c1"},
     .requests = 1,
     .mortal = -1,
     .is_made = true},
    {.name = "chain-of-four",
     .n_ranks = 4,
     .comms = {"01", "12", "23"},
     .programs = {"0:c0c0", "1:c0c1c0", "2:c1c2", "3:c2"},
     .requests = 1,
     .mortal = -1,
     .is_made = true},
    {.name = "tensor-and-data",
     .is_long = true,
     .n_ranks = 4,
     .comms = {"01", "23", "02"},
     .programs = {"0:c0c2c0", "1:c0c0", "2:c1c2c1", "3:c1c1"},
     .requests = 1,
     .mortal = -1,
     .is_made = true},
    {.name = "group-over-communicators",
     .n_ranks = 3,
     .comms = {"012", "01"},
     .programs = {"0:(c0c1)c1", "1:(c0c1)c1", "2:c0"},
     .requests = 1,
     .mortal = -1,
     .is_made = true},
    {.name = "made-while-running",
     .is_long = true,
     .n_ranks = 3,
     .comms = {"012", "12"},
     .programs = {"0:C0c0", "1:C0C1c1c0", "2:C0C1c1c0"},
     .requests = 1,
     .mortal = -1},
    {.name = "split",
     .is_long = true,
     .n_ranks = 4,
     .comms = {"0123", "02", "13"},
     .programs = {"0:C0c1", "1:C0c2", "2:C0c1", "3:C0c2"},
     .requests = 1,
     .mortal = -1},
    {.name = "pipeline",
     .n_ranks = 3,
     .comms = {"012"},
     .programs = {"0:(s01)(s01)y(r01)", "1:(r00)(s02)(r00r02)(s00)", "2:(r01)(s01)"},
     .requests = 1,
     .mortal = -1,
     .is_made = true},
    {.name = "one-forward-one-backward",
     .n_ranks = 2,
     .comms = {"01"},
     .programs = {"0:c0(s01)[s01r01]y(r01)c0", "1:c0(r00)[s00r00]y(s00)c0"},
     .requests = 1,
     .mortal = -1},
    {.name = "ring-of-groups",
     .is_long = true,
     .n_ranks = 3,
     .comms = {"012"},
     .programs = {"0:c0[s01r02]c0", "1:c0[s02r00]c0", "2:c0[s00r01]c0"},
     .requests = 1,
     .mortal = -1},
    {.name = "never-calls-again",
     .n_ranks = 3,
     .comms = {"012", "01"},
     .programs = {"0:c0c1c1", "1:c0c1c1", "2:c0"},
     .requests = 2,
     .mortal = -1,
     .is_made = true},
    {.name = "hangs",
     .n_ranks = 3,
     .comms = {"012"},
     .programs = {"0:c0C0", "1:c0C0", "2:c0"},
     .requests = 2,
     .mortal = -1,
     .is_hanging = true},
    {.name = "dies",
     .n_ranks = 3,
     .comms = {"012"},
     .programs = {"0:c0C0c0", "1:c0C0c0", "2:c0C0c0"},
     .requests = 1,
     .mortal = 1},
    {.name = "expires",
     .is_long = true,
     .n_ranks = 3,
     .comms = {"01", "12"},
     .programs = {"0:c0c0", "1:c0c1c0", "2:c1"},
     .requests = 2,
     .mortal = -1,
     .may_expire = true,
     .is_made = true},
    {.name = "two-threads",
     .is_long = true,
     .n_ranks = 2,
     .comms = {"01", "01"},
     .programs = {"0:C0c0", "0:C1c1", "1:C0c0", "1:C1c1"},
     .requests = 1,
     .mortal = -1},
    {.name = "made-by-two",
     .n_ranks = 3,
     .comms = {"01", "12"},
     .programs = {"0:C0", "1:C0C1", "2:C1"},
     .requests = 1,
     .mortal = -1},
    {.name = "split-of-three",
     .n_ranks = 3,
     .comms = {"012", "02"},
     .programs = {"0:C0c1", "1:C0", "2:C0c1"},
     .requests = 1,
     .mortal = -1},
    {.name = "ring",
     .n_ranks = 3,
     .comms = {"012"},
     .programs = {"0:[s01r02]c0", "1:[s02r00]c0", "2:[s00r01]c0"},
     .requests = 1,
     .mortal = -1,
     .is_made = true},
    {.name = "expires-soon",
     .n_ranks = 3,
     .comms = {"01", "12"},
     .programs = {"0:c0", "1:c0c1", "2:c1"},
     .requests = 2,
     .mortal = -1,
     .may_expire = true,
     .is_made = true},
    {.name = "destroyed-early",
     .n_ranks = 3,
     .comms = {"012", "012"},
     .programs = {"0:(s01)d0c1", "1:(r00)(s02)c1d0", "2:(r01)d0c1"},
     .requests = 1,
     .mortal = -1,
     .is_made = true},
    {.name = "destroyed-by-one",
     .n_ranks = 3,
     .comms = {"012", "01"},
     .programs = {"0:c0c1d1c0", "1:c0c1c0", "2:c0c0"},
     .requests = 2,
     .mortal = -1,
     .is_made = true},
    {.name = "threads",
     .n_ranks = 2,
     .comms = {"01", "01"},
     .programs = {"0:C0c0", "0:c1", "1:C0c0", "1:c1"},
     .requests = 1,
     .mortal = -1,
     .is_made = true},
};

enum { N_WORLDS = sizeof(worlds) / sizeof(worlds[0]) };

static int walk(const struct x_world *world, uint64_t max_states)
{
    struct x_result result = x_explore(world, X_SOUND, max_states);
    printf("%-26s %9llu states, %8llu cuts, %8llu expired%s%s%s\n",
           world->name,
           (unsigned long long)result.n_states,
           (unsigned long long)result.n_cuts,
           (unsigned long long)result.n_expired,
           result.is_bounded ? ", NOT ALL" : "",
           result.broken[0] ? ": " : "",
           result.broken);
    fflush(stdout);
    return result.broken[0] || result.is_bounded ||
           !(result.n_cuts || world->is_hanging);
}

static int refute(enum x_mutant mutant, uint64_t max_states)
{
    for (uint32_t i = 0; i < N_WORLDS; i++) {
        if (worlds[i].is_long)
            continue;
        struct x_result result = x_explore(&worlds[i], mutant, max_states);
        if (!result.broken[0])
            continue;
        printf("%-14s found in %s after %llu states: %s\n",
               x_mutant_names[mutant],
               worlds[i].name,
               (unsigned long long)result.n_states,
               result.broken);
        fflush(stdout);
        return 0;
    }
    printf("%-14s was NOT found\n", x_mutant_names[mutant]);
    return 1;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    bool is_long = strcmp(what, "long") == 0, is_all = !*what || is_long;
    uint64_t max_states = is_long ? 30000000 : 4000000;
    int n_bad = 0, n_walked = 0;
    for (uint32_t i = 0; i < N_WORLDS; i++)
        if ((is_all && (is_long || !worlds[i].is_long)) ||
            strcmp(what, worlds[i].name) == 0) {
            n_bad += walk(&worlds[i], max_states);
            n_walked++;
        }
    for (uint32_t i = 1; (is_all || strcmp(what, "mutants") == 0) && i < X_MUTANT_MAX_;
         i++) {
        n_bad += refute((enum x_mutant)i, max_states);
        n_walked++;
    }
    if (!n_walked)
        fprintf(stderr,
                "%s: no such world; name one of worlds.c, or `mutants`, or `long`\n",
                what);
    return n_bad || !n_walked;
}
