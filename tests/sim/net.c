/* SPDX-License-Identifier: Apache-2.0
 * net.c - see net.h.
 */
#include "net.h"

static bool is_before(const struct packet *a, const struct packet *b)
{
    return a->due_ms < b->due_ms || (a->due_ms == b->due_ms && a->order < b->order);
}

static void heap_push(struct net *net, struct packet packet)
{
    ORR_ASSERT(net->n_packets < NET_PACKETS);
    uint32_t at = net->n_packets++;
    while (at > 0 && is_before(&packet, &net->packets[(at - 1) / 2])) {
        net->packets[at] = net->packets[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    net->packets[at] = packet;
}

static struct packet heap_pop(struct net *net)
{
    struct packet top = net->packets[0];
    struct packet last = net->packets[--net->n_packets];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child + 1 < net->n_packets &&
            is_before(&net->packets[child + 1], &net->packets[child]))
            child++;
        if (child >= net->n_packets || !is_before(&net->packets[child], &last))
            break;
        net->packets[at] = net->packets[child];
        at = child;
    }
    net->packets[at] = last;
    return top;
}

static void post(struct net *net,
                 const struct net_host *from,
                 uint32_t to,
                 uint64_t due,
                 const uint8_t *data,
                 size_t len)
{
    uint8_t *copy = malloc(len);
    ORR_ASSERT(copy);
    memcpy(copy, data, len);
    heap_push(net,
              (struct packet){.due_ms = due,
                              .order = net->n_sent++,
                              .from = (uint32_t)(from - net->hosts),
                              .to = to,
                              .len = len,
                              .data = copy});
}

static enum orr_err net_send(struct orr_transport *self,
                             uint64_t peer,
                             enum orr_lane lane,
                             const uint8_t *data,
                             size_t len)
{
    struct net_host *from = (struct net_host *)self;
    struct net *net = from->net;
    (void)lane;
    uint32_t to = 0;
    while (to < net->n_hosts && net->hosts[to].id != peer)
        to++;
    if (to == net->n_hosts)
        return ORR_EUNREACH;
    if (from->is_cut || net->hosts[to].is_cut ||
        world_random(net->world) % 1000 < net->loss_per_mille)
        return ORR_OK;
    uint64_t delay = 1 + world_random(net->world) % net->delay_max_ms;
    uint64_t due = net->world->now_ms + delay;
    if (due < from->last_due[to])
        due = from->last_due[to];
    from->last_due[to] = due;
    post(net, from, to, due, data, len);
    if (world_random(net->world) % 1000 < net->repeat_per_mille)
        post(net, from, to, due + world_random(net->world) % 5000, data, len);
    return ORR_OK;
}

static const struct orr_transport_ops ops = {.send = net_send};

static uint64_t clock_now(void *arg)
{
    return ((struct world *)arg)->now_ms;
}

static uint64_t clock_wall(void *arg)
{
    return 1000000 + ((struct world *)arg)->now_ms;
}

void net_init(struct net *net, struct world *world)
{
    memset(net, 0, sizeof(*net));
    net->world = world;
    net->clock = (struct orr_clock){clock_now, clock_wall, world};
    net->delay_max_ms = 1;
    net->hash = 0xcbf29ce484222325u;
    net->is_logging = getenv("ORR_SIM_LOG") != NULL;
}

struct net_host *net_host_add(struct net *net,
                              const char *name,
                              unsigned role,
                              void (*boot)(struct net_host *),
                              void *arg)
{
    struct net_host *host = &net->hosts[net->n_hosts++];
    host->transport.ops = &ops;
    host->net = net;
    orr_str_copy(host->name, sizeof(host->name), orr_str(name));
    host->id = orr_hash(orr_str(name));
    host->role = role;
    host->boot = boot;
    host->arg = arg;
    return host;
}

static void show_log(void *arg,
                     enum orr_log_level level,
                     uint64_t wall,
                     const char *who,
                     const char *text)
{
    const struct net_host *host = arg;
    (void)wall;
    if (host->net->is_logging)
        fprintf(stderr,
                "%8u %s %d %s: %s\n",
                (unsigned)host->net->world->now_ms,
                host->name,
                (int)level,
                who,
                text);
}

void net_spawn(struct net_host *host,
               const struct orr_actor_type *type,
               const void *args,
               const char *path)
{
    struct orr_addr addr;
    enum orr_err err = orr_system_spawn(
        host->sys, &(struct orr_spawn){type, args, path, ORR_PERMANENT}, &addr);
    ORR_ASSERT(err == ORR_OK);
}

void net_host_start(struct net_host *host)
{
    struct net *net = host->net;
    struct orr_error error;
    const struct orr_system_config config = {
        .host = host->name,
        .incarnation = ++host->incarnation,
        .clock = &net->clock,
        .seed = world_random(net->world),
        .log = show_log,
        .log_arg = host,
        .log_level = ORR_LOG_DEBUG,
    };
    ORR_ASSERT(orr_system_new(&config, &host->sys, &error) == ORR_OK);
    orr_system_set_transport(host->sys, &host->transport);
    host->boot(host);
    ORR_ASSERT(orr_system_start(host->sys, &error) == ORR_OK);
    for (uint32_t i = 0; i < net->n_hosts; i++)
        if (net->hosts[i].sys && &net->hosts[i] != host)
            orr_system_peer_up(net->hosts[i].sys, host->id, host->incarnation);
}

void net_host_crash(struct net_host *host)
{
    struct net *net = host->net;
    orr_system_stop(host->sys);
    orr_system_free(host->sys);
    host->sys = NULL;
    for (uint32_t i = 0; i < net->n_hosts; i++)
        if (net->hosts[i].sys)
            orr_system_peer_down(net->hosts[i].sys, host->id);
}

static void deliver(struct net *net, struct packet packet)
{
    const struct net_host *from = &net->hosts[packet.from];
    struct net_host *to = &net->hosts[packet.to];
    net->hash =
        (net->hash ^
         orr_hash((struct orr_str){(const char *)packet.data, (uint32_t)packet.len}) ^
         packet.due_ms ^ packet.to) *
        0x100000001b3u;
    if (to->sys && !to->is_cut)
        (void)orr_system_receive(
            to->sys, from->id, from->role, packet.data, packet.len);
    free(packet.data);
}

void net_step(struct net *net, uint64_t until_ms)
{
    struct world *world = net->world;
    while (net->n_packets && net->packets[0].due_ms <= world->now_ms)
        deliver(net, heap_pop(net));
    uint64_t next = net->n_packets ? net->packets[0].due_ms : UINT64_MAX;
    for (uint32_t i = 0; i < net->n_hosts; i++) {
        struct orr_system *sys = net->hosts[i].sys;
        if (!sys)
            continue;
        while (orr_system_step(sys))
            ;
        uint64_t due = orr_system_next_due_ms(sys);
        next = due < next ? due : next;
    }
    if (net->n_packets && net->packets[0].due_ms < next)
        next = net->packets[0].due_ms;
    next = next < until_ms ? next : until_ms;
    world->now_ms = next > world->now_ms ? next : world->now_ms + 1;
}

void net_fini(struct net *net)
{
    for (uint32_t i = 0; i < net->n_hosts; i++) {
        if (!net->hosts[i].sys)
            continue;
        orr_system_stop(net->hosts[i].sys);
        orr_system_free(net->hosts[i].sys);
        net->hosts[i].sys = NULL;
    }
    while (net->n_packets)
        free(heap_pop(net).data);
}
