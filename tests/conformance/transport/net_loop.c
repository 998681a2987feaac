/* SPDX-License-Identifier: Apache-2.0
 * net_loop.c - the transport suite over the in-process loop, with stepped systems on the machine's clock.
 */
#include "suite.h"

#include "transport_loop.h"

#include <time.h>

static uint64_t loop_now_ms(void *arg)
{
    struct timespec ts;
    (void)arg;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void loop_open(struct net *net)
{
    struct orr_loop *loop;
    const struct orr_loop_config config = {.now_ms = loop_now_ms};
    if (orr_loop_new(&config, &loop) != ORR_OK)
        abort();
    net->state = loop;
}

static void loop_close(struct net *net)
{
    orr_loop_free(net->state);
}

static void loop_join(struct net *net, struct net_host *host)
{
    if (orr_loop_join(net->state, host->system, ORR_ROLE_HOST) != ORR_OK)
        abort();
}

static void loop_leave(struct net *net, struct net_host *host)
{
    orr_loop_leave(net->state, orr_hash(orr_str(host->name)));
}

static void loop_pump(struct net *net)
{
    bool has_moved = orr_loop_step(net->state, NULL);
    struct net_host *hosts[] = {&net->a, &net->b};
    for (size_t i = 0; i < ORR_ARRAY_SIZE(hosts); i++) {
        while (hosts[i]->system && orr_system_step(hosts[i]->system))
            has_moved = true;
    }
    if (!has_moved) /* until a deadline is due */
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

const struct net_ops net_under_test = {
    .open = loop_open,
    .close = loop_close,
    .join = loop_join,
    .leave = loop_leave,
    .pump = loop_pump,
};
