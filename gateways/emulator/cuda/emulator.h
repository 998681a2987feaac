/* SPDX-License-Identifier: Apache-2.0
 * emulator.h - what the emulated driver exports beside the driver API. A program finds
 * these by dlsym; the real library does not have them.
 */
#ifndef EMU_EMULATOR_H
#define EMU_EMULATOR_H

#include <stdint.h>

/* The index-th call that was asked for and is not emulated, and how often; NULL past
 * the last one. With ORRERY_EMULATOR_VERBOSE=1 the list is also printed to stderr at
 * exit. */
const char *orrEmuUnsupported(unsigned index, uint64_t *ret_count);

/* The device that a process has behind one of its own now: another one, once it was restored there.  0, or -1: no such device.
 * cuGetProcAddress knows it, too, for those before whom another library stands. */
int orrEmuDeviceUuid(int device, uint8_t uuid[16]);

#endif
