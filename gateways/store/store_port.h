/* SPDX-License-Identifier: Apache-2.0
 * store_port.h - the actor /edge/store: what a node keeps of checkpoints, asked for by messages.
 *
 * Takes store_put, store_get, store_gc and store_remove from actors of its host, store_verify and store_stat_get
 * from anybody, store_read from the /edge/store of other hosts.  It never blocks: threads of the pool do the
 * work and answer.  A call whose asker's deadline has passed is cancelled.
 */
#ifndef ORR_STORE_PORT_H
#define ORR_STORE_PORT_H

#include "store_pool.h"

struct orr_store_port_args {
    struct orr_store_pool *pool; /* borrowed: freed after the system has stopped */
};

extern const struct orr_actor_type orr_store_port_type;

#endif
