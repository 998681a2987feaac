/* SPDX-License-Identifier: Apache-2.0
 * links.h - the actor at /edge/links: dials the hosts that an actor of this host wants to reach.
 *
 * link_want keeps a link to a host, link_drop lets it go; a link stays while any actor wants it.
 */
#ifndef ORR_HOST_LINKS_H
#define ORR_HOST_LINKS_H

#include "orrery/actor.h"

struct orr_zmq;

struct host_links_args {
    struct orr_zmq *zmq; /* borrowed: freed after the system has stopped */
};

extern const struct orr_actor_type host_links_type;

#endif
