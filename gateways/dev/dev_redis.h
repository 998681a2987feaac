/* SPDX-License-Identifier: Apache-2.0
 * dev_redis.h - the private Redis of a development fleet (DIR/redis), for soft state.
 *
 * Reached over a socket in DIR/redis only, by three users with random passwords: the
 * hosts', which writes keys orrery:*; the reader's, for the CLI; and admin.  Keeps
 * nothing on disk and at most 64 MiB.  Without redis-server there is none, and hosts
 * keep their soft state in memory.
 */
#ifndef ORR_DEV_REDIS_H
#define ORR_DEV_REDIS_H

#include "fleet.h"

/* Make its files, and DIR/softstate for readers; *ret_is_there false: redis-server is
 * not installed.  Errors: ORR_EIO. */
ORR_NODISCARD enum orr_err
dev_redis_write(const struct fleet *fleet, bool *ret_is_there, struct orr_error *err);

/* The fleet has one. */
bool dev_redis_is_there(const struct fleet *fleet);

/* What goes into host.yaml; empty when the fleet has none. */
void dev_redis_host_yaml(const struct fleet *fleet, char *buf, size_t cap);

/* Start it unless it runs or the fleet has none.  Errors: ORR_EIO. */
ORR_NODISCARD enum orr_err dev_redis_start(const struct fleet *fleet,
                                           struct orr_error *err);
int dev_redis_pid(const struct fleet *fleet); /* 0: it does not run */
void dev_redis_stop(const struct fleet *fleet, unsigned grace_ms);

/* One line about the soft state of a region's host: "redis", "memory", "degraded: why".
 */
void dev_softstate_line(const struct fleet *fleet,
                        const struct fleet_host *region,
                        char *buf,
                        size_t cap);

#endif
