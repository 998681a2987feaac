/* SPDX-License-Identifier: Apache-2.0
 * host.h - `orrery host`: one process that runs any set of roles.
 */
#ifndef ORR_HOST_H
#define ORR_HOST_H

/* argv[0] is "host".  Runs until SIGTERM or SIGINT.  Exit codes: 0 stopped as asked, 1
 * failed, 2 usage or bad configuration. */
int orr_host_main(int argc, char **argv);

#endif
