/* SPDX-License-Identifier: Apache-2.0
 * probe.h - see probe.c.
 */
#ifndef ORR_INIT_PROBE_H
#define ORR_INIT_PROBE_H

int probe_main(void);

#endif
