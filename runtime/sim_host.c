/* SPDX-License-Identifier: Apache-2.0
 * sim_host.c - the hosts of a simulation: start, crash, restart; which of them are ready, and when the others will be.
 */
#include "sim_impl.h"

static uint32_t *
id_slot(uint32_t *by_id, uint32_t cap, struct orri_host **hosts, uint64_t id)
{
    uint32_t at = (uint32_t)(id >> 17) & (cap - 1);
    while (by_id[at] && hosts[by_id[at] - 1]->id != id)
        at = (at + 1) & (cap - 1);
    return &by_id[at];
}

uint32_t orri_sim_index_of(const struct orr_sim *sim, uint64_t id)
{
    uint32_t found = 0;
    if (sim->cap_hosts)
        found = *id_slot(sim->by_id, 2 * sim->cap_hosts, sim->hosts, id);
    return found ? found - 1 : ORR_SIM_ALL;
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

void orri_sim_set_due(struct orr_sim *sim, uint32_t index, uint64_t due_ms)
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

void orri_sim_set_ready(struct orr_sim *sim, uint32_t index, bool is_ready)
{
    struct orri_host *host = sim->hosts[index];
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

/* ---- clocks ---- */

enum { PPM = 1000000, DRIFT_MAX_PPM = PPM / 2 };

static uint64_t own_now(void *arg)
{
    const struct orri_host *host = arg;
    uint64_t since = host->sim->now_ms - host->drift_from;
    return host->drift_own_ms + since * (uint64_t)(PPM + host->drift_ppm) / PPM;
}

static uint64_t own_wall(void *arg)
{
    return UINT64_C(1700000000000) + own_now(arg);
}

void orri_sim_clock_init(struct orr_sim *sim, struct orri_host *host)
{
    host->sim = sim;
    host->clock = (struct orr_clock){own_now, own_wall, host};
}

uint64_t orri_sim_true_ms(const struct orri_host *host, uint64_t its_ms)
{
    if (its_ms == UINT64_MAX)
        return UINT64_MAX;
    if (its_ms <= host->drift_own_ms)
        return host->drift_from;
    uint64_t rate = (uint64_t)(PPM + host->drift_ppm);
    uint64_t ahead = its_ms - host->drift_own_ms;
    if (ahead > UINT64_MAX / PPM - rate)
        return UINT64_MAX;
    return host->drift_from + (ahead * PPM + rate - 1) / rate;
}

enum orr_err orr_sim_drift_set(struct orr_sim *sim, uint32_t index, int32_t drift_ppm)
{
    if (index >= sim->n_hosts || drift_ppm > DRIFT_MAX_PPM ||
        drift_ppm < -DRIFT_MAX_PPM)
        return ORR_EINVAL;
    struct orri_host *host = sim->hosts[index];
    uint64_t own = own_now(host);
    host->drift_own_ms = own;
    host->drift_from = sim->now_ms;
    host->drift_ppm = drift_ppm;
    if (host->system)
        orri_sim_set_due(
            sim, index, orri_sim_true_ms(host, orr_system_next_due_ms(host->system)));
    return ORR_OK;
}

/* ---- life ---- */

enum orr_err orr_sim_restart(struct orr_sim *sim, uint32_t index)
{
    struct orri_host *host = sim->hosts[index];
    ORR_ASSERT(!host->system);
    struct orr_system_config config = {
        .host = host->name,
        .incarnation = host->incarnation + 1,
        .actors_max = sim->config.actors_max,
        .mailbox_max = sim->config.mailbox_max,
        .asks_max = sim->config.asks_max,
        .seed = orri_sim_mix(sim->config.seed + host->id + host->incarnation),
        .clock = &host->clock,
        .log = sim->config.log,
        .log_arg = sim->config.log_arg,
        .log_level = sim->config.log_level,
        .trace = orri_sim_trace,
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
    orri_sim_set_ready(sim, index, true);
    sim->config.boot(sim->config.arg, sim, index);
    return ORR_OK;
}

void orr_sim_crash(struct orr_sim *sim, uint32_t index)
{
    struct orri_host *host = sim->hosts[index];
    if (!host->system)
        return;
    orr_loop_leave(sim->loop, host->id);
    orr_system_free(host->system);
    host->system = NULL;
    orri_sim_set_ready(sim, index, false);
    orri_sim_set_due(sim, index, UINT64_MAX);
}

static bool grow_hosts(struct orr_sim *sim)
{
    if (sim->n_hosts < sim->cap_hosts)
        return true;
    uint32_t cap = sim->cap_hosts ? sim->cap_hosts * 2 : 16;
    struct orri_host **hosts = realloc(sim->hosts, cap * sizeof(struct orri_host *));
    sim->hosts = hosts ? hosts : sim->hosts;
    uint32_t *heap = realloc(sim->heap, cap * sizeof(*heap));
    sim->heap = heap ? heap : sim->heap;
    uint32_t *ready = realloc(sim->ready, cap * sizeof(*ready));
    sim->ready = ready ? ready : sim->ready;
    uint32_t *by_id = calloc(2 * (size_t)cap, sizeof(*by_id));
    if (!hosts || !heap || !ready || !by_id) {
        free(by_id);
        return false;
    }
    for (uint32_t i = 0; i < sim->n_hosts; i++)
        *id_slot(by_id, 2 * cap, hosts, hosts[i]->id) = i + 1;
    free(sim->by_id);
    sim->by_id = by_id;
    sim->cap_hosts = cap;
    return true;
}

enum orr_err orr_sim_host_add(struct orr_sim *sim, const char *name, uint32_t *ret_host)
{
    if (orri_sim_index_of(sim, orr_hash(orr_str(name))) != ORR_SIM_ALL)
        return ORR_EEXIST;
    struct orri_host *host = calloc(1, sizeof(*host));
    if (!host || !grow_hosts(sim)) {
        free(host);
        return ORR_ENOMEM;
    }
    orr_str_copy(host->name, sizeof(host->name), orr_str(name));
    host->id = orr_hash(orr_str(host->name));
    host->ready_at = UINT32_MAX;
    host->due_ms = UINT64_MAX;
    orri_sim_clock_init(sim, host);
    uint32_t index = sim->n_hosts++;
    host->heap_at = index;
    sim->hosts[index] = host;
    sim->heap[index] = index;
    *id_slot(sim->by_id, 2 * sim->cap_hosts, sim->hosts, host->id) = index + 1;
    *ret_host = index;
    return orr_sim_restart(sim, index);
}

struct orr_system *orr_sim_system(struct orr_sim *sim, uint32_t host)
{
    return sim->hosts[host]->system;
}

void orr_sim_post(struct orr_sim *sim,
                  uint32_t host,
                  struct orr_addr from,
                  struct orr_addr to,
                  const struct orr_msg_desc *desc,
                  const void *msg)
{
    struct orr_system *system = sim->hosts[host]->system;
    if (system && orr_system_post(system, from, to, desc, msg) == ORR_OK)
        orri_sim_set_ready(sim, host, true);
}
