/* SPDX-License-Identifier: Apache-2.0
 * cli_main.h - the `orrery` command without its daemons: every verb a user types.
 */
#ifndef ORR_CLI_MAIN_H
#define ORR_CLI_MAIN_H

/* argv[0] is the program, argv[1] the verb.  Returns the exit code (docs/cli.md). */
int orr_cli_main(int argc, char **argv);

#endif
