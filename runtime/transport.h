/* SPDX-License-Identifier: Apache-2.0
 * transport.h - how a kernel reaches other hosts: one op table, two implementations
 * (loop: in process and deterministic; zmq: ROUTER/DEALER).  An implementation embeds
 * struct orr_transport as its first member.
 *
 * A transport keeps per-peer FIFO order while a link lives, loses messages only when a
 * link breaks (then it calls orr_system_peer_down), and never blocks the caller.
 */
#ifndef ORR_TRANSPORT_H
#define ORR_TRANSPORT_H

#include "system.h"

struct orr_transport_ops {
    /* Queue one encoded message (envelope + body) for a host; copies it.  Any worker
     * thread. Errors: ORR_EUNREACH no link and none can be made, ORR_EBUSY the peer's
     * queue is full, ORR_ENOMEM. */
    enum orr_err (*send)(struct orr_transport *self,
                         uint64_t peer_host,
                         enum orr_lane lane,
                         const uint8_t *data,
                         size_t len);
};

struct orr_transport {
    const struct orr_transport_ops *ops;
};

#endif
