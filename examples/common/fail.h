/* SPDX-License-Identifier: Apache-2.0
 * fail.h - one way to fail.
 */
#ifndef EXAMPLE_FAIL_H
#define EXAMPLE_FAIL_H

#include <stdint.h>

enum { EXIT_USAGE = 2 };

/* The rank that die() names; set once, before any thread is started. */
void die_as_rank(uint32_t rank);

/* Prints `PROGRAM: rank N: ...` on stderr and exits 1 at once, without the destructors
 * of libraries whose threads may hang in what failed. From any thread; the first one
 * wins. */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *fmt, ...);

/* Prints `PROGRAM: ...; see PROGRAM --help` on stderr and exits EXIT_USAGE. */
__attribute__((noreturn, format(printf, 1, 2))) void usage_error(const char *fmt, ...);

#endif
