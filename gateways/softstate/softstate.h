/* SPDX-License-Identifier: Apache-2.0
 * softstate.h - the op table of soft state: what this host has to say to readers that
 * only look (docs/adr/0015-softstate.md).
 *
 * Both backends keep the host's own keys in memory, newest value first and last.  The
 * one with Redis copies them there in a thread of its own, again before each TTL ends,
 * and all of them anew when Redis comes back or turns out to have been emptied.
 * Ownership: keys and values are copied.  Threads: any; no call waits for Redis, the
 * lock is held for memory only.  Limits: keys_max keys, ORR_SOFT_KEY_MAX,
 * ORR_SOFT_VALUE_MAX; what does not fit is refused and counted.
 */
#ifndef ORR_SOFTSTATE_H
#define ORR_SOFTSTATE_H

#include "orrery/soft.h"

struct orr_softstate;

struct orr_softstate_status {
    const char *backend; /* static: "redis", "memory" */
    bool is_degraded;
    char why[200]; /* and the remedy; empty when not degraded */
    uint64_t since_unix_ms;
    uint64_t keys;
    uint64_t writes;
    uint64_t rewrites;
    uint64_t refused;
};

/* false: stop. */
typedef bool (*orr_softstate_visit_f)(void *arg,
                                      struct orr_str key,
                                      struct orr_bytes value);

struct orr_softstate_ops {
    /* owner: who may drop it, any number.  ttl_ms 0: the backend's.
     * Errors: ORR_ENOSPC no room, ORR_EINVAL key or value too long, ORR_ENOMEM. */
    enum orr_err (*put)(struct orr_softstate *softstate,
                        struct orr_str key,
                        struct orr_bytes value,
                        uint64_t ttl_ms,
                        uint64_t owner);
    void (*remove)(struct orr_softstate *softstate, struct orr_str key);
    /* Keep the owner's keys no longer; what Redis has of them lapses. */
    void (*drop)(struct orr_softstate *softstate, uint64_t owner);
    /* Visit this host's keys from cursor on (0: the first) under the lock.  Returns
     * where to go on, 0 when that was all. */
    uint64_t (*scan)(struct orr_softstate *softstate,
                     uint64_t cursor,
                     orr_softstate_visit_f visit,
                     void *arg);
    void (*status)(struct orr_softstate *softstate,
                   struct orr_softstate_status *ret_status);
    void (*close)(struct orr_softstate *softstate);
};

struct orr_softstate {
    const struct orr_softstate_ops *ops;
};

struct orr_softstate_config {
    const char *region; /* borrowed during open */
    const char *host;
    uint32_t keys_max;
    uint64_t ttl_ms;
    /* with Redis only */
    const char *redis;         /* unix:///PATH or tcp://ADDRESS:PORT */
    const char *user;          /* ACL user; "" or NULL: none */
    const char *password_file; /* its first line; read at each connect */
    uint64_t deadline_ms;      /* of each command; 0: default 500 */
};

/* Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err
orr_softstate_mem_open(const struct orr_softstate_config *config,
                       struct orr_softstate **ret_softstate,
                       struct orr_error *err);

/* Redis need not be there.  Errors: ORR_EINVAL the address, ORR_ENOMEM, ORR_EIO no
 * thread. */
ORR_NODISCARD enum orr_err
orr_softstate_redis_open(const struct orr_softstate_config *config,
                         struct orr_softstate **ret_softstate,
                         struct orr_error *err);

#endif
