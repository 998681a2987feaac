/* SPDX-License-Identifier: Apache-2.0
 * device_watch.h - a thread that probes devices now and then and tells what was found and what changed.
 *
 * Devices keep the index of their first sight, by uuid.  One that is missing later, and all of them when the probe fails,
 * count as not healthy; one that is new later is left out until the next start.
 */
#ifndef ORR_DEVICE_WATCH_H
#define ORR_DEVICE_WATCH_H

#include "device.h"

struct orr_device_watch;

/* Called from the watch's thread; rows are borrowed until the call returns.  A call that answers an error is repeated. */
struct orr_device_sink {
    /* Once after attach.  why: NULL, or why there are no devices. */
    enum orr_err (*found)(void *arg,
                          struct orr_list_device_row devices,
                          struct orr_list_env_var rank_env,
                          const char *why);
    enum orr_err (*health)(void *arg, const struct orr_rec_device_row *device);
    void *arg;
};

/* Start probing device (borrowed: outlives the watch) every period_ms.  Errors: ORR_EIO, ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_device_watch_new(struct orr_device *device,
                                                uint32_t period_ms,
                                                struct orr_device_watch **ret_watch,
                                                struct orr_error *err);
/* Waits for a probe in progress, which has a deadline. */
void orr_device_watch_free(struct orr_device_watch *watch);

/* Tell everything, then changes, to the sink; NULL: no more calls once this returns.  Any thread. */
void orr_device_watch_attach(struct orr_device_watch *watch,
                             const struct orr_device_sink *sink);

#endif
