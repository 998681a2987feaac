/* SPDX-License-Identifier: Apache-2.0
 * sim.c - see sim.h.
 *
 * True time is one variable; a host's clock may drift from it (sim_host.c).  A host is ready when its last step found something to do, when a message was
 * delivered to it, or when its next timer is due; a heap over the hosts' due times finds the latter without asking all of
 * them.  Among ready hosts the seed chooses.
 */
#include "sim_impl.h"

static uint64_t sim_now(void *arg)
{
    return ((struct orr_sim *)arg)->now_ms;
}

uint64_t orr_sim_random(struct orr_sim *sim)
{
    return orri_sim_next(&sim->random);
}

static void hash_bytes(struct orr_sim *sim, const void *data, size_t len)
{
    const uint8_t *at = data;
    for (size_t i = 0; i < len; i++)
        sim->hash = (sim->hash ^ at[i]) * 0x100000001b3u;
}

void orri_sim_trace(void *arg,
                    uint64_t now_ms,
                    struct orr_addr to,
                    struct orr_addr from,
                    const struct orr_msg_desc *desc,
                    const void *msg)
{
    struct orr_sim *sim = arg;
    uint64_t head[] = {now_ms,
                       to.host,
                       to.slot,
                       to.incarnation,
                       from.host,
                       from.slot,
                       from.incarnation,
                       desc->id};
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

enum orr_err orr_sim_at(struct orr_sim *sim,
                        uint64_t time_ms,
                        orr_sim_event_f fn,
                        void *arg,
                        uint64_t number)
{
    if (sim->n_events == sim->cap_events) {
        uint32_t cap = sim->cap_events ? sim->cap_events * 2 : 16;
        struct orri_event *events = realloc(sim->events, cap * sizeof(*events));
        if (!events)
            return ORR_ENOMEM;
        sim->events = events;
        sim->cap_events = cap;
    }
    uint32_t at = sim->n_events++;
    for (; at > 0 && sim->events[at - 1].time_ms <= time_ms;
         at--) /* the next one is last */
        sim->events[at] = sim->events[at - 1];
    sim->events[at] = (struct orri_event){time_ms, fn, arg, number};
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
    uint64_t due = orri_sim_true_ms(sim->hosts[index], orr_system_next_due_ms(system));
    orri_sim_set_due(sim, index, due);
    orri_sim_set_ready(sim, index, did || due <= sim->now_ms);
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
        struct orri_event event = sim->events[--sim->n_events];
        event.fn(event.arg, sim, event.number);
        return true;
    }
    uint64_t id;
    if (orr_loop_step(sim->loop, &id)) {
        uint32_t index = orri_sim_index_of(sim, id);
        if (sim->hosts[index]->system)
            orri_sim_set_ready(sim, index, true);
        return true;
    }
    while (sim->n_hosts && sim->hosts[sim->heap[0]]->due_ms <= sim->now_ms) {
        uint32_t index = sim->heap[0];
        orri_sim_set_ready(sim, index, true);
        orri_sim_set_due(sim, index, UINT64_MAX); /* known again after its step */
    }
    if (sim->turn_ms != sim->now_ms) {
        sim->turn_ms = sim->now_ms;
        sim->turn = sim->config.seed + orri_sim_mix(sim->now_ms);
    }
    if (sim->n_ready)
        step_host(sim, sim->ready[orri_sim_next(&sim->turn) % sim->n_ready]);
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
        if (sim->config.check &&
            !sim->config.check(sim->config.arg, sim, text, sizeof(text)))
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
    sim->now_ms = 1;
    sim->random = config->seed;
    sim->hash = 0xcbf29ce484222325u;
    struct orr_loop_config loop = {.now_ms = sim_now,
                                   .policy = orri_sim_policy,
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
    free(sim->by_id);
    free(sim->events);
    free(sim->links);
    free(sim);
}
