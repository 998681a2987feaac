/* SPDX-License-Identifier: Apache-2.0
 * test_cli_run.h - run a verb in this process and keep what it wrote.
 */
#ifndef TEST_CLI_RUN_H
#define TEST_CLI_RUN_H

extern char out[16384], errors[4096]; /* of the last run */

/* Words separated by blanks; the exit code. */
int orrery(const char *line);

/* Fail unless part is in text. */
void expect(const char *text, const char *part);

#endif
