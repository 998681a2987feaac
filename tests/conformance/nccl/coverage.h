/* SPDX-License-Identifier: Apache-2.0
 * coverage.h - which calls the cases have made, with success and with an error, against
 * those that the library exports.
 */
#ifndef SUITE_COVERAGE_H
#define SUITE_COVERAGE_H

#include <stdbool.h>

/* From here on the ranks note their calls in a file of this run. */
bool coverage_begin(void);
void coverage_end(void);
/* In a rank; nothing unless begun. */
bool coverage_note(const char *call, bool is_error_case);
/* Prints what was exported and not covered, and returns how much that is; -1: no list. */
int coverage_missing(void);

#endif
