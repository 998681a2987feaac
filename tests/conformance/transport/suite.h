/* SPDX-License-Identifier: Apache-2.0
 * suite.h - what every transport must do, seen from actors: two hosts, `a` and `b`, and a way to crash and start b.
 *
 * An implementation brings struct net_ops; suite.c has the tests, and main.
 */
#ifndef TRANSPORT_SUITE_H
#define TRANSPORT_SUITE_H

#include "system.h"

#include <pthread.h>

/* What the actors of one host wrote down. */
struct notes {
    uint64_t pings;     /* that its echo has handled */
    uint64_t unordered; /* pings whose nonce did not follow the one before */
    uint64_t next_nonce;
    uint64_t bytes; /* of log_chunk that were as they should be */
    uint64_t pongs;
    uint64_t pong_nonce;
    uint64_t failures;
    uint64_t code; /* of the last failure, or of `down` */
    uint64_t downs;
    unsigned role;
    char text[200];
    struct orr_addr echo; /* of this start */
};

struct net_host {
    struct net *net;
    const char *name;
    uint32_t incarnation; /* of the next start */
    struct orr_system *system;
    struct notes notes; /* guarded by net->lock */
};

struct net {
    const struct net_ops *ops;
    void *state;          /* of the implementation */
    pthread_mutex_t lock; /* guards the notes */
    struct net_host a;
    struct net_host b;
};

struct net_ops {
    unsigned workers; /* threads of each system; 0: stepped by pump */
    void (*open)(struct net *net);
    void (*close)(struct net *net);
    /* Connect a system that was not started yet. */
    void (*join)(struct net *net, struct net_host *host);
    /* As if its process was killed: nothing that it holds leaves any more. */
    void (*leave)(struct net *net, struct net_host *host);
    /* Let something happen; returns at once or after a few milliseconds. */
    void (*pump)(struct net *net);
};

extern const struct net_ops net_under_test;

#endif
