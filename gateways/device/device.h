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

enum { ORR_DEVICES_MAX = 64, ORR_DEVICE_UUIDS_BYTES = ORR_DEVICES_MAX * 41 };

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

enum orr_device_op { ORR_DEVICE_SUSPEND, ORR_DEVICE_RESUME, ORR_DEVICE_USAGE };

/* What takes time, and is answered once by a result with the same ticket. */
struct orr_device_request {
    uint64_t ticket;
    enum orr_device_op op;
    uint32_t pid;   /* suspend, resume: as the host sees it */
    uint32_t index; /* usage */
    uint32_t timeout_ms;
    char from
        [ORR_DEVICE_UUIDS_BYTES]; /* resume: uuids with commas, of all devices that it saw, */
    char to
        [ORR_DEVICE_UUIDS_BYTES]; /* and of those in their places; "": the same as before */
};

struct orr_device_result {
    uint64_t ticket;
    enum orr_err code;
    uint32_t processes; /* usage: that hold the device, without our own */
    uint64_t bytes;     /* usage: of its memory that they hold */
    char text[256];     /* not ORR_OK: why, and the remedy */
};

/* Any thread. */
typedef void (*orr_device_done_f)(void *arg, const struct orr_device_result *result);

struct orr_device; /* defined below; an implementation embeds it first */

struct orr_device_ops {
    /* Look at the devices.  May block, up to the implementation's deadline; one thread at a time.
     * Errors: ORR_ENODEV there is no driver, or no device; ORR_ETIMEOUT, ORR_EIO the driver hangs, crashes or refuses. */
    enum orr_err (*probe)(struct orr_device *device,
                          struct orr_device_list *ret_list,
                          struct orr_error *err);

    /* What every rank needs in its environment to reach the devices.  Borrowed: lives as long as device.  Any thread. */
    struct orr_list_env_var (*rank_env)(struct orr_device *device);

    /* Who hears of results: one at a time; NULL: nobody, once this returns. */
    void (*attach)(struct orr_device *device, orr_device_done_f done, void *arg);

    /* Have the driver put what it keeps of a process into host memory, or back; or tell who uses a device. Suspending a process
     * that does not use devices, or is suspended, is ORR_OK at once, and resuming one that runs. Never blocks; results may come
     * before it returns. Errors: ORR_EBUSY too many wait, ORR_ENOMEM. */
    enum orr_err (*ask)(struct orr_device *device,
                        const struct orr_device_request *request,
                        struct orr_error *err);

    void (*close)(struct orr_device *device);
};

struct orr_device {
    const struct orr_device_ops *ops;
};

void orr_device_uuid_text(const uint8_t uuid[16], char text[48]);

#endif
