/* SPDX-License-Identifier: Apache-2.0
 * sim.c - see sim.h.
 *
 * The clock of all hosts is one variable.  A host is ready when its last step found something to do, when a message was
 * delivered to it, or when its next timer is due; a heap over the hosts' due times finds the latter without asking all of
 * them.  Among ready hosts the seed chooses.
 */
#include "sim.h"

#include "transport_loop.h"

struct host {
    char name[ORR_NAME_MAX];
    uint64_t id;
    struct orr_system *system; /* owned; NULL: crashed */
    uint32_t incarnation;
    uint32_t side;
    uint64_t due_ms;   /* its key in the heap */
    uint32_t heap_at;
    uint32_t ready_at; /* UINT32_MAX: not ready */
};

struct event {
    uint64_t time_ms;
    orr_sim_event_f fn;
    void *arg; /* borrowed: the caller's */
    uint64_t number;
};

struct link {
    uint64_t from, to; /* from 0: empty */
    struct orr_sim_faults faults;
    bool has_faults;
    uint64_t last_due_ms; /* keeps the order */
};

struct orr_sim {
    struct orr_sim_config config;
    struct orr_clock clock;
    uint64_t now_ms;
    uint64_t random;
    uint64_t hash;
    uint64_t handled;
    struct orr_loop *loop;
    struct host **hosts; /* owned */
    uint32_t n_hosts, cap_hosts;
    uint32_t *heap;  /* owned; hosts by due_ms */
    uint32_t *ready; /* owned */
    uint32_t n_ready;
    struct event *events; /* owned; by time, then by order of orr_sim_at */
    uint32_t n_events, cap_events;
    struct link *links; /* owned; open addressing */
    uint32_t n_links, cap_links;
};

static uint64_t sim_now(void *arg)
{
    return ((struct orr_sim *)arg)->now_ms;
}

static uint64_t sim_wall(void *arg)
{
    return UINT64_C(1700000000000) + ((struct orr_sim *)arg)->now_ms;
}

uint64_t orr_sim_random(struct orr_sim *sim)
{
    uint64_t z = (sim->random += UINT64_C(0x9e3779b97f4a7c15)); /* splitmix64 */
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void hash_bytes(struct orr_sim *sim, const void *data, size_t len)
{
    const uint8_t *at = data;
    for (size_t i = 0; i < len; i++)
        sim->hash = (sim->hash ^ at[i]) * 0x100000001b3u;
}

static void sim_trace(void *arg,
                      uint64_t now_ms,
                      struct orr_addr to,
                      struct orr_addr from,
                      const struct orr_msg_desc *desc,
                      const void *msg)
{
    struct orr_sim *sim = arg;
    uint64_t head[] = {now_ms,    to.host,   to.slot,          to.incarnation,
                       from.host, from.slot, from.incarnation, desc->id};
    hash_bytes(sim, head, sizeof(head));
    uint8_t small[1024];
    size_t cap = orr_msg_encode_bound(desc, msg);
    uint8_t *body = cap <= sizeof(small) ? small : malloc(cap);
    size_t len = 0;
    if (body && orr_msg_encode(desc, msg, body, cap, &len) == ORR_OK)
        hash_bytes(sim, body, len);
    if (body != small)
        free(body);
    sim->handled++;
    if (sim->config.trace)
        sim->config.trace(sim->config.trace_arg, now_ms, to, from, desc, msg);
}

/* ---- hosts by due time, ready hosts ---- */

static void heap_swap(struct orr_sim *sim, uint32_t i, uint32_t j)
{
    uint32_t host = sim->heap[i];
    sim->heap[i] = sim->heap[j];
    sim->heap[j] = host;
    sim->hosts[sim->heap[i]]->heap_at = i;
    sim->hosts[sim->heap[j]]->heap_at = j;
}

static bool heap_is_before(const struct orr_sim *sim, uint32_t i, uint32_t j)
{
    uint64_t x = sim->hosts[sim->heap[i]]->due_ms;
    uint64_t y = sim->hosts[sim->heap[j]]->due_ms;
    return x != y ? x < y : sim->heap[i] < sim->heap[j];
}

static void set_due(struct orr_sim *sim, uint32_t index, uint64_t due_ms)
{
    sim->hosts[index]->due_ms = due_ms;
    uint32_t at = sim->hosts[index]->heap_at;
    for (; at > 0 && heap_is_before(sim, at, (at - 1) / 2); at = (at - 1) / 2)
        heap_swap(sim, at, (at - 1) / 2);
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= sim->n_hosts)
            return;
        if (child + 1 < sim->n_hosts && heap_is_before(sim, child + 1, child))
            child++;
        if (!heap_is_before(sim, child, at))
            return;
        heap_swap(sim, at, child);
        at = child;
    }
}

static void set_ready(struct orr_sim *sim, uint32_t index, bool is_ready)
{
    struct host *host = sim->hosts[index];
    if (is_ready == (host->ready_at != UINT32_MAX))
        return;
    if (is_ready) {
        host->ready_at = sim->n_ready;
        sim->ready[sim->n_ready++] = index;
        return;
    }
    uint32_t last = sim->ready[--sim->n_ready];
    sim->ready[host->ready_at] = last;
    sim->hosts[last]->ready_at = host->ready_at;
    host->ready_at = UINT32_MAX;
}

static uint32_t index_of(const struct orr_sim *sim, uint64_t id)
{
    for (uint32_t i = 0; i < sim->n_hosts; i++)
        if (sim->hosts[i]->id == id)
            return i;
    return ORR_SIM_ALL;
}

/* ---- the network ---- */

static struct link *link_slot(struct link *links, uint32_t cap, uint64_t from, uint64_t to)
{
    uint32_t at = (uint32_t)((from * 31 ^ to) >> 7) & (cap - 1);
    while (links[at].from && (links[at].from != from || links[at].to != to))
        at = (at + 1) & (cap - 1);
    return &links[at];
}

static struct link *link_get(struct orr_sim *sim, uint64_t from, uint64_t to)
{
    if (sim->n_links * 2 >= sim->cap_links) {
        uint32_t cap = sim->cap_links ? sim->cap_links * 2 : 64;
        struct link *links = calloc(cap, sizeof(*links));
        if (!links)
            return NULL;
        for (uint32_t i = 0; i < sim->cap_links; i++)
            if (sim->links[i].from)
                *link_slot(links, cap, sim->links[i].from, sim->links[i].to) = sim->links[i];
        free(sim->links);
        sim->links = links;
        sim->cap_links = cap;
    }
    struct link *link = link_slot(sim->links, sim->cap_links, from, to);
    if (!link->from) {
        link->from = from;
        link->to = to;
        sim->n_links++;
    }
    return link;
}

static bool chance(struct orr_sim *sim, uint32_t ppm)
{
    return ppm && orr_sim_random(sim) % 1000000 < ppm;
}

static unsigned
network_policy(void *arg, uint64_t from, uint64_t to, uint64_t ret_due_ms[ORR_LOOP_COPIES])
{
    struct orr_sim *sim = arg;
    struct link *link = link_get(sim, from, to);
    uint32_t i = index_of(sim, from);
    uint32_t j = index_of(sim, to);
    if (!link || i == ORR_SIM_ALL || j == ORR_SIM_ALL ||
        sim->hosts[i]->side != sim->hosts[j]->side)
        return 0;
    const struct orr_sim_faults *f = link->has_faults ? &link->faults : &sim->config.faults;
    if (chance(sim, f->loss_ppm))
        return 0;
    unsigned copies = chance(sim, f->duplicate_ppm) ? 2 : 1;
    for (unsigned n = 0; n < copies; n++) {
        uint64_t spread = f->delay_max_ms - f->delay_min_ms + 1;
        uint64_t due = sim->now_ms + f->delay_min_ms + orr_sim_random(sim) % spread;
        if (!chance(sim, f->reorder_ppm)) {
            due = due < link->last_due_ms ? link->last_due_ms : due;
            link->last_due_ms = due;
        }
        ret_due_ms[n] = due;
    }
    return copies;
}

enum orr_err orr_sim_faults_set(struct orr_sim *sim,
                                uint32_t from,
                                uint32_t to,
                                const struct orr_sim_faults *faults)
{
    if (faults->delay_max_ms < faults->delay_min_ms)
        return ORR_EINVAL;
    if (from == ORR_SIM_ALL && to == ORR_SIM_ALL) {
        sim->config.faults = *faults;
        return ORR_OK;
    }
    if (from >= sim->n_hosts || to >= sim->n_hosts)
        return ORR_EINVAL;
    struct link *link = link_get(sim, sim->hosts[from]->id, sim->hosts[to]->id);
    if (!link)
        return ORR_ENOMEM;
    link->faults = *faults;
    link->has_faults = true;
    return ORR_OK;
}

void orr_sim_side_set(struct orr_sim *sim, uint32_t host, uint32_t side)
{
    sim->hosts[host]->side = side;
    for (uint32_t i = 0; i < sim->n_hosts; i++)
        if (sim->hosts[i]->side != side)
            orr_loop_break(sim->loop, sim->hosts[host]->id, sim->hosts[i]->id);
}

/* ---- hosts ---- */

enum orr_err orr_sim_restart(struct orr_sim *sim, uint32_t index)
{
    struct host *host = sim->hosts[index];
    ORR_ASSERT(!host->system);
    struct orr_system_config config = {
        .host = host->name,
        .incarnation = host->incarnation + 1,
        .actors_max = sim->config.actors_max,
        .mailbox_max = sim->config.mailbox_max,
        .asks_max = sim->config.asks_max,
        .seed = orr_sim_random(sim),
        .clock = &sim->clock,
        .log = sim->config.log,
        .log_arg = sim->config.log_arg,
        .log_level = sim->config.log_level,
        .trace = sim_trace,
        .trace_arg = sim,
    };
    struct orr_system *system;
    enum orr_err err = orr_system_new(&config, &system, NULL);
    if (err != ORR_OK)
        return err;
    err = orr_loop_join(sim->loop, system, ORR_ROLE_HOST);
    if (err != ORR_OK) {
        orr_system_free(system);
        return err;
    }
    host->system = system;
    host->incarnation++;
    set_ready(sim, index, true);
    sim->config.boot(sim->config.arg, sim, index);
    return ORR_OK;
}

void orr_sim_crash(struct orr_sim *sim, uint32_t index)
{
    struct host *host = sim->hosts[index];
    if (!host->system)
        return;
    orr_loop_leave(sim->loop, host->id);
    orr_system_free(host->system);
    host->system = NULL;
    set_ready(sim, index, false);
    set_due(sim, index, UINT64_MAX);
}

static bool grow_hosts(struct orr_sim *sim)
{
    if (sim->n_hosts < sim->cap_hosts)
        return true;
    uint32_t cap = sim->cap_hosts ? sim->cap_hosts * 2 : 16;
    struct host **hosts = realloc(sim->hosts, cap * sizeof(struct host *));
    sim->hosts = hosts ? hosts : sim->hosts;
    uint32_t *heap = realloc(sim->heap, cap * sizeof(*heap));
    sim->heap = heap ? heap : sim->heap;
    uint32_t *ready = realloc(sim->ready, cap * sizeof(*ready));
    sim->ready = ready ? ready : sim->ready;
    if (!hosts || !heap || !ready)
        return false;
    sim->cap_hosts = cap;
    return true;
}

enum orr_err orr_sim_host_add(struct orr_sim *sim, const char *name, uint32_t *ret_host)
{
    if (index_of(sim, orr_hash(orr_str(name))) != ORR_SIM_ALL)
        return ORR_EEXIST;
    struct host *host = calloc(1, sizeof(*host));
    if (!host || !grow_hosts(sim)) {
        free(host);
        return ORR_ENOMEM;
    }
    orr_str_copy(host->name, sizeof(host->name), orr_str(name));
    host->id = orr_hash(orr_str(host->name));
    host->ready_at = UINT32_MAX;
    host->due_ms = UINT64_MAX;
    uint32_t index = sim->n_hosts++;
    host->heap_at = index;
    sim->hosts[index] = host;
    sim->heap[index] = index;
    *ret_host = index;
    return orr_sim_restart(sim, index);
}

struct orr_system *orr_sim_system(struct orr_sim *sim, uint32_t host)
{
    return sim->hosts[host]->system;
}

/* ---- time ---- */

uint64_t orr_sim_now_ms(const struct orr_sim *sim)
{
    return sim->now_ms;
}

uint64_t orr_sim_hash(const struct orr_sim *sim)
{
    return sim->hash;
}

uint64_t orr_sim_handled(const struct orr_sim *sim)
{
    return sim->handled;
}

enum orr_err
orr_sim_at(struct orr_sim *sim, uint64_t time_ms, orr_sim_event_f fn, void *arg, uint64_t number)
{
    if (sim->n_events == sim->cap_events) {
        uint32_t cap = sim->cap_events ? sim->cap_events * 2 : 16;
        struct event *events = realloc(sim->events, cap * sizeof(*events));
        if (!events)
            return ORR_ENOMEM;
        sim->events = events;
        sim->cap_events = cap;
    }
    uint32_t at = sim->n_events++;
    for (; at > 0 && sim->events[at - 1].time_ms <= time_ms; at--) /* the next one is last */
        sim->events[at] = sim->events[at - 1];
    sim->events[at] = (struct event){time_ms, fn, arg, number};
    return ORR_OK;
}

static uint64_t next_event_ms(const struct orr_sim *sim)
{
    return sim->n_events ? sim->events[sim->n_events - 1].time_ms : UINT64_MAX;
}

static uint64_t next_ms(const struct orr_sim *sim)
{
    uint64_t next = next_event_ms(sim);
    uint64_t net = orr_loop_next_due_ms(sim->loop);
    uint64_t due = sim->n_hosts ? sim->hosts[sim->heap[0]]->due_ms : UINT64_MAX;
    next = net < next ? net : next;
    return due < next ? due : next;
}

static void step_host(struct orr_sim *sim, uint32_t index)
{
    struct orr_system *system = sim->hosts[index]->system;
    bool did = orr_system_step(system);
    uint64_t due = orr_system_next_due_ms(system);
    set_due(sim, index, due);
    set_ready(sim, index, did || due <= sim->now_ms);
}

bool orr_sim_step(struct orr_sim *sim)
{
    if (sim->n_ready == 0) {
        uint64_t next = next_ms(sim);
        if (next == UINT64_MAX)
            return false;
        if (next > sim->now_ms)
            sim->now_ms = next;
    }
    if (next_event_ms(sim) <= sim->now_ms) {
        struct event event = sim->events[--sim->n_events];
        event.fn(event.arg, sim, event.number);
        return true;
    }
    uint64_t id;
    if (orr_loop_step(sim->loop, &id)) {
        uint32_t index = index_of(sim, id);
        if (sim->hosts[index]->system)
            set_ready(sim, index, true);
        return true;
    }
    while (sim->n_hosts && sim->hosts[sim->heap[0]]->due_ms <= sim->now_ms) {
        uint32_t index = sim->heap[0];
        set_ready(sim, index, true);
        set_due(sim, index, UINT64_MAX); /* known again after its step */
    }
    if (sim->n_ready)
        step_host(sim, sim->ready[orr_sim_random(sim) % sim->n_ready]);
    return true;
}

enum orr_err orr_sim_run_until(struct orr_sim *sim,
                               uint64_t time_ms,
                               orr_sim_pred_f pred,
                               void *arg,
                               struct orr_error *err)
{
    char text[256] = "";
    for (;;) {
        if (pred && pred(arg, sim))
            return ORR_OK;
        if (sim->n_ready == 0 && next_ms(sim) > time_ms)
            break;
        if (!orr_sim_step(sim))
            break;
        if (sim->config.check && !sim->config.check(sim->config.arg, sim, text, sizeof(text)))
            return orr_fail(err,
                            ORR_ESTATE,
                            "seed %llu, %llu ms, message %llu: %s",
                            (unsigned long long)sim->config.seed,
                            (unsigned long long)sim->now_ms,
                            (unsigned long long)sim->handled,
                            text);
    }
    if (sim->now_ms < time_ms)
        sim->now_ms = time_ms;
    if (!pred)
        return ORR_OK;
    return orr_fail(err,
                    ORR_ETIMEOUT,
                    "seed %llu: what was waited for did not happen by %llu ms",
                    (unsigned long long)sim->config.seed,
                    (unsigned long long)time_ms);
}

enum orr_err orr_sim_new(const struct orr_sim_config *config, struct orr_sim **ret_sim)
{
    struct orr_sim *sim = calloc(1, sizeof(*sim));
    if (!sim)
        return ORR_ENOMEM;
    sim->config = *config;
    sim->config.detect_ms = config->detect_ms ? config->detect_ms : 2000;
    sim->config.actors_max = config->actors_max ? config->actors_max : 4096;
    sim->config.asks_max = config->asks_max ? config->asks_max : 4096;
    sim->clock = (struct orr_clock){sim_now, sim_wall, sim};
    sim->now_ms = 1;
    sim->random = config->seed;
    sim->hash = 0xcbf29ce484222325u;
    struct orr_loop_config loop = {.now_ms = sim_now,
                                   .policy = network_policy,
                                   .arg = sim,
                                   .detect_ms = sim->config.detect_ms};
    enum orr_err err = orr_loop_new(&loop, &sim->loop);
    if (err != ORR_OK) {
        free(sim);
        return err;
    }
    *ret_sim = sim;
    return ORR_OK;
}

void orr_sim_free(struct orr_sim *sim)
{
    if (!sim)
        return;
    for (uint32_t i = 0; i < sim->n_hosts; i++) {
        if (sim->hosts[i]->system)
            orr_system_free(sim->hosts[i]->system);
        free(sim->hosts[i]);
    }
    orr_loop_free(sim->loop);
    free(sim->hosts);
    free(sim->heap);
    free(sim->ready);
    free(sim->events);
    free(sim->links);
    free(sim);
}
