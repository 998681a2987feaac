/* SPDX-License-Identifier: Apache-2.0
 * sim_main.h - `orrery sim`: fleets in virtual time, with faults, one history for each seed.
 */
#ifndef SIM_MAIN_H
#define SIM_MAIN_H

/* argv[0] is "sim".  Returns the exit code (docs/cli.md). */
int orr_sim_main(int argc, char **argv);

#endif
