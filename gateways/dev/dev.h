/* SPDX-License-Identifier: Apache-2.0
 * dev.h - `orrery dev`: a whole fleet of host processes on this machine, for demos,
 * tests and the tutorial.
 */
#ifndef ORR_DEV_H
#define ORR_DEV_H

/* argv[0] is "dev".  Returns the exit code (docs/cli.md). */
int orr_dev_main(int argc, char **argv);

#endif
