/* SPDX-License-Identifier: Apache-2.0
 * device_emulated.h - devices on host memory, for machines without a GPU: files that the emulator's libcuda maps.
 *
 * The files outlive the host: ranks may be using them when it restarts, and find the same devices, by the same uuids, which
 * <state>/emulated_devices keeps.  Their names come from the state directory, so that many fleets run side by side.
 */
#ifndef ORR_DEVICE_EMULATED_H
#define ORR_DEVICE_EMULATED_H

#include "device.h"

struct orr_device_emulated_config {
    const char *state_dir; /* must exist */
    uint32_t n;            /* devices, at most ORR_DEVICES_MAX */
    uint64_t memory_bytes; /* of each */
    const char *type;      /* NULL: emulated */
    const char *file_dir;  /* NULL: /dev/shm */
    const char *
        driver_dir; /* of the emulator's libcuda.so.1; NULL: emulator of device_lib.h */
};

/* Find or make the devices.  Errors: ORR_EINVAL config, ORR_ESTATE a device of another size is in use, ORR_EIO. */
ORR_NODISCARD enum orr_err
orr_device_emulated_open(const struct orr_device_emulated_config *config,
                         struct orr_device **ret_device,
                         struct orr_error *err);

/* Remove the files of a state directory's devices; none there: ORR_OK.  Who still uses one keeps its memory until it ends.
 * Errors: ORR_EIO. */
ORR_NODISCARD enum orr_err orr_device_emulated_remove(const char *state_dir,
                                                      struct orr_error *err);

#endif
