/* SPDX-License-Identifier: Apache-2.0
 * device.h - the devices of this machine, as an op table.
 *
 * An implementation answers one question, as often as it is asked: which devices are there, and is each of them well?
 * What changed since the last time is the watch's business (device_watch.h).
 */
#ifndef ORR_DEVICE_H
#define ORR_DEVICE_H

#include "orrery/ids.h"
#include "orrery/msg.h"

enum { ORR_DEVICES_MAX = 64 };

struct orr_device_info {
    uint32_t index; /* from 0 */
    char uuid[48];  /* GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx; tells devices apart */
    char type[64];  /* H100, emulated, ... */
    uint64_t memory_bytes;
    bool is_healthy;
    char trouble[256]; /* why not healthy */
};

struct orr_device_list {
    uint32_t n;
    struct orr_device_info at[ORR_DEVICES_MAX];
};

struct orr_device; /* defined below; an implementation embeds it first */

struct orr_device_ops {
    /* Look at the devices.  May block, up to the implementation's deadline; one thread at a time.
     * Errors: ORR_ENODEV there is no driver, or no device; ORR_ETIMEOUT, ORR_EIO the driver hangs, crashes or refuses. */
    enum orr_err (*probe)(struct orr_device *device,
                          struct orr_device_list *ret_list,
                          struct orr_error *err);

    /* What every rank needs in its environment to reach the devices.  Borrowed: lives as long as device.  Any thread. */
    struct orr_list_env_var (*rank_env)(struct orr_device *device);

    void (*close)(struct orr_device *device);
};

struct orr_device {
    const struct orr_device_ops *ops;
};

void orr_device_uuid_text(const uint8_t uuid[16], char text[48]);

#endif
