/* SPDX-License-Identifier: Apache-2.0
 * fail.c - see fail.h.
 */
#include "fail.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static uint32_t rank_of_messages;

void die_as_rank(uint32_t rank)
{
    rank_of_messages = rank;
}

void die(const char *fmt, ...)
{
    static atomic_flag dying = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&dying)) {
        for (;;)
            pause(); /* another thread is saying why, and will exit */
    }
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fflush(stdout);
    fprintf(stderr,
            "%s: rank %u: %s\n",
            program_invocation_short_name,
            rank_of_messages,
            text);
    _exit(1);
}

void usage_error(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "; see %s --help\n", program_invocation_short_name);
    va_end(ap);
    exit(EXIT_USAGE);
}
