/* SPDX-License-Identifier: Apache-2.0
 * device_port.h - the actor that tells a node of its devices: devices_found each time it starts, then device_health; and that has
 * the driver suspend and resume processes.
 */
#ifndef ORR_DEVICE_PORT_H
#define ORR_DEVICE_PORT_H

#include "device_watch.h"
#include "orrery/actor.h"

struct orr_system;

/* orr_system_post */
typedef enum orr_err (*orr_device_post_f)(struct orr_system *system,
                                          struct orr_addr from,
                                          struct orr_addr to,
                                          const struct orr_msg_desc *desc,
                                          const void *msg);

struct orr_device_port_args {
    struct orr_device_watch *watch; /* borrowed: freed after the system has stopped */
    struct orr_device *device; /* borrowed: the same; NULL: nothing can be suspended */
    struct orr_system *system; /* borrowed */
    orr_device_post_f post;
    struct orr_addr
        node; /* named, so that it stays right when the node actor restarts */
    void (*no_devices)(void *arg,
                       const char *why); /* for the log, any thread; NULL: not told */
    void *no_devices_arg;
};

extern const struct orr_actor_type orr_device_port_type;

#endif
