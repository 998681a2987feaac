/* SPDX-License-Identifier: Apache-2.0
 * sim_options.h - the command line of `orrery sim`.
 */
#ifndef SIM_OPTIONS_H
#define SIM_OPTIONS_H

#include "fleet.h"

struct sim_options {
    struct fleet_plan plan; /* seed: the first */
    const char *faults;     /* as given */
    uint64_t n_seeds;
    uint64_t minutes;  /* go on for so long, with ever new seeds; 0: n_seeds */
    bool is_replay;    /* show the messages about what broke, minimize nothing */
    const char *only;  /* numbers of faults, "3,7"; NULL: all */
    const char *trace; /* file of all messages, "-" for stdout; NULL: none */
    bool is_quiet;     /* one line for all seeds that hold */
    bool is_help;
};

extern const char sim_usage[];

/* Errors: ORR_EINVAL, err says which word and what would do. */
ORR_NODISCARD enum orr_err sim_options_parse(int argc,
                                             char **argv,
                                             struct sim_options *ret_options,
                                             struct orr_error *err);
/* The command that runs this seed again. */
void sim_options_again(const struct sim_options *options,
                       uint64_t seed,
                       char *text,
                       size_t cap);

#endif
