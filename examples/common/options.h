/* SPDX-License-Identifier: Apache-2.0
 * options.h - a table of --name VALUE options: their limits, their defaults, their help.
 */
#ifndef EXAMPLE_OPTIONS_H
#define EXAMPLE_OPTIONS_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

enum option_kind {
    OPTION_NUMBER, /* uint32_t, min to max */
    OPTION_LONG,   /* uint64_t, min to max */
    OPTION_REAL,   /* float, 0 to 100 */
    OPTION_PATH,   /* char[PATH_MAX] */
};

struct option_spec {
    const char *name; /* without the dashes */
    enum option_kind kind;
    void *value; /* borrowed: what it sets; holds the default, which --help prints */
    uint64_t min, max;
    const char *help;
};

enum { OPTIONS_MAX = 24, STEPS_MAX = 100000000 };

/* Sets the values that the arguments name. Ends the program with EXIT_USAGE and the
 * reason for what the table does not hold, and with 0 after --help. */
void options_parse(const struct option_spec *specs, size_t n, int argc, char **argv);

/* An empty path becomes <directory of this program>/../share/digits/digits.csv. */
void options_find_data(char path[PATH_MAX]);

#endif
