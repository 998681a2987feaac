/* SPDX-License-Identifier: Apache-2.0
 * net.h - a fleet of stepped hosts on one virtual clock, joined by a network that misbehaves.
 *
 * Messages between two hosts keep their order but for repeated ones; they are delayed, lost and repeated as told.  A host
 * can crash and start again with the next incarnation.  Everything follows from one seed.
 */
#ifndef SIM_NET_H
#define SIM_NET_H

#include "system.h"
#include "transport.h"
#include "world.h"

enum { NET_HOSTS = 12, NET_PACKETS = 1 << 16 };

struct net;
struct net_host {
    struct orr_transport transport; /* first */
    struct net *net;                /* borrowed: the test's */
    char name[ORR_NAME_MAX];
    uint64_t id;
    unsigned role;
    uint32_t incarnation;
    struct orr_system *sys;              /* owned; NULL: down */
    bool is_cut;                         /* neither sends nor receives */
    void (*boot)(struct net_host *host); /* spawns its actors */
    void *arg;
    uint64_t last_due[NET_HOSTS]; /* per receiver: order is kept */
};

struct packet {
    uint64_t due_ms;
    uint64_t order;
    uint32_t from;
    uint32_t to;
    size_t len;
    uint8_t *data; /* owned */
};

struct net {
    struct world *world; /* borrowed: the test's */
    struct orr_clock clock;
    uint32_t n_hosts;
    struct net_host hosts[NET_HOSTS];
    uint32_t loss_per_mille;
    uint32_t repeat_per_mille;
    uint32_t delay_max_ms;
    uint64_t n_sent;
    uint64_t hash; /* of every delivery so far: same seed, same hash */
    uint32_t n_packets;
    struct packet packets[NET_PACKETS]; /* heap by (due_ms, order) */
    bool is_logging;
};

void net_init(struct net *net, struct world *world);
struct net_host *net_host_add(struct net *net,
                              const char *name,
                              unsigned role,
                              void (*boot)(struct net_host *),
                              void *arg);
void net_host_start(struct net_host *host);
void net_host_crash(struct net_host *host);
void net_spawn(struct net_host *host,
               const struct orr_actor_type *type,
               const void *args,
               const char *path);

/* Handle everything that is due, then move the clock to the next thing, at most to until_ms. */
void net_step(struct net *net, uint64_t until_ms);
void net_fini(struct net *net);

#endif
