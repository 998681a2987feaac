/* SPDX-License-Identifier: Apache-2.0
 * net_zmq.c - the transport suite over ZeroMQ on tcp loopback: a listens, b dials and has no listener.
 */
#include "suite.h"

#include "transport_zmq.h"

#include <time.h>

struct zmq_net {
    struct orr_zmq *a;
    struct orr_zmq *b;
    char endpoint[ORR_ENDPOINT_MAX];
};

static void must(enum orr_err rc, const struct orr_error *err)
{
    if (rc == ORR_OK)
        return;
    fprintf(stderr, "%s\n", err->text);
    abort();
}

static void zmq_net_open(struct net *net)
{
    net->state = calloc(1, sizeof(struct zmq_net));
    if (!net->state)
        abort();
}

static void zmq_net_close(struct net *net)
{
    free(net->state);
}

static void zmq_net_join(struct net *net, struct net_host *host)
{
    struct zmq_net *z = net->state;
    bool is_a = host == &net->a;
    struct orr_zmq **at = is_a ? &z->a : &z->b;
    struct orr_error err;
    const struct orr_zmq_config config = {
        .system = host->system,
        .host = host->name,
        .incarnation = host->incarnation - 1,
        .build = "test",
    };
    must(orr_zmq_new(&config, at, &err), &err);
    if (is_a)
        must(orr_zmq_listen(*at, "tcp://127.0.0.1:*", z->endpoint, &err), &err);
    else
        must(orr_zmq_dial(*at, "a", z->endpoint, &err), &err);
    orr_system_set_transport(host->system, orr_zmq_transport(*at));
    must(orr_zmq_start(*at, &err), &err);
}

static void zmq_net_leave(struct net *net, struct net_host *host)
{
    struct zmq_net *z = net->state;
    struct orr_zmq **at = host == &net->a ? &z->a : &z->b;
    orr_zmq_stop(*at);
    orr_system_stop(host->system); /* nobody sends any more */
    orr_zmq_free(*at);
    *at = NULL;
}

static void zmq_net_pump(struct net *net)
{
    (void)net;
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

const struct net_ops net_under_test = {
    .workers = 2,
    .open = zmq_net_open,
    .close = zmq_net_close,
    .join = zmq_net_join,
    .leave = zmq_net_leave,
    .pump = zmq_net_pump,
};
