/* SPDX-License-Identifier: Apache-2.0
 * suite_devices.h - the devices that the suite runs on. One implementation makes emulated
 * ones in a directory of its own; one takes what the driver has. CMake picks.
 */
#ifndef SUITE_DEVICES_H
#define SUITE_DEVICES_H

/* Returns how many devices the ranks will see; 0 or less for none. */
int suite_devices_make(int wanted);
void suite_devices_remove(void);
/* In a rank's process, before it calls either library. */
void suite_devices_enter(int rank);

#endif
