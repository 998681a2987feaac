/* SPDX-License-Identifier: Apache-2.0
 * device_sink.h - who hears of results; an implementation's part for attach and done (device.h).
 */
#ifndef ORR_DEVICE_SINK_H
#define ORR_DEVICE_SINK_H

#include <pthread.h>

#include "device.h"

struct orr_device_done_sink {
    pthread_mutex_t lock; /* held while done runs, so that attach can wait for it */
    orr_device_done_f done;
    void *arg;
};

static inline void orr_device_sink_set(struct orr_device_done_sink *sink,
                                       orr_device_done_f done,
                                       void *arg)
{
    pthread_mutex_lock(&sink->lock);
    sink->done = done;
    sink->arg = arg;
    pthread_mutex_unlock(&sink->lock);
}

/* arg: the sink; so that it is an orr_device_done_f itself. */
static inline void orr_device_sink_tell(void *arg,
                                        const struct orr_device_result *result)
{
    struct orr_device_done_sink *sink = arg;
    pthread_mutex_lock(&sink->lock);
    if (sink->done)
        sink->done(sink->arg, result);
    pthread_mutex_unlock(&sink->lock);
}

#endif
