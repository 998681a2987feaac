/* SPDX-License-Identifier: Apache-2.0
 * device_lib.h - where the libraries are that ranks load: the emulator's, and those that stand before CUDA and NCCL.
 *
 * Below $ORRERY_LIB when that is set (ranks may be of another build than the host), else ../lib from this program.
 */
#ifndef ORR_DEVICE_LIB_H
#define ORR_DEVICE_LIB_H

#include <stdbool.h>

/* Absolute path of NAME there, owned by the caller.  NULL: no memory. */
char *orr_device_lib(const char *name);

/* LD_PRELOAD for a rank with devices, owned by the caller.  NULL: the libraries are not there, or no memory. */
char *orr_device_preload(void);

#endif
