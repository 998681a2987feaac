/* SPDX-License-Identifier: Apache-2.0
 * process_port.h - the actor through which a node's other actors reach its processes.
 *
 * Takes process_launch, process_signal, process_forget, port_reserve and log_read;
 * tells the node processes_found (each time the port starts) and process_event.  It
 * keeps no state: what is true is in the edge and on disk.
 */
#ifndef ORR_PROCESS_PORT_H
#define ORR_PROCESS_PORT_H

#include "orrery/actor.h"
#include "process.h"

struct orr_system;

/* orr_system_post */
typedef enum orr_err (*orr_process_post_f)(struct orr_system *system,
                                           struct orr_addr from,
                                           struct orr_addr to,
                                           const struct orr_msg_desc *desc,
                                           const void *msg);

struct orr_process_port_args {
    struct orr_process *process; /* borrowed: closed after the system has stopped */
    struct orr_system *system;   /* borrowed */
    orr_process_post_f post;
    struct orr_addr
        node; /* named, so that it stays right when the node actor restarts */
    const char *
        images; /* borrowed as process; the directory of images, opened (image_drop.h) */
};

extern const struct orr_actor_type orr_process_port_type;

#endif
