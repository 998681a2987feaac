/* SPDX-License-Identifier: Apache-2.0
 * sim_net.c - the simulated network: each direction of a link has its faults, and remembers when its last message arrives, so
 * that order holds where no reordering is wanted.
 */
#include "sim_impl.h"

static struct orri_pair *
link_slot(struct orri_pair *links, uint32_t cap, uint64_t from, uint64_t to)
{
    uint32_t at = (uint32_t)((from * 31 ^ to) >> 7) & (cap - 1);
    while (links[at].from && (links[at].from != from || links[at].to != to))
        at = (at + 1) & (cap - 1);
    return &links[at];
}

static struct orri_pair *link_get(struct orr_sim *sim, uint64_t from, uint64_t to)
{
    if (sim->n_links * 2 >= sim->cap_links) {
        uint32_t cap = sim->cap_links ? sim->cap_links * 2 : 64;
        struct orri_pair *links = calloc(cap, sizeof(*links));
        if (!links)
            return NULL;
        for (uint32_t i = 0; i < sim->cap_links; i++)
            if (sim->links[i].from)
                *link_slot(links, cap, sim->links[i].from, sim->links[i].to) =
                    sim->links[i];
        free(sim->links);
        sim->links = links;
        sim->cap_links = cap;
    }
    struct orri_pair *link = link_slot(sim->links, sim->cap_links, from, to);
    if (!link->from) {
        link->from = from;
        link->to = to;
        sim->n_links++;
    }
    return link;
}

static bool chance(uint64_t *stream, uint32_t ppm)
{
    return orri_sim_next(stream) % 1000000 < ppm;
}

unsigned orri_sim_policy(void *arg,
                         uint64_t from,
                         uint64_t to,
                         uint64_t ret_due_ms[ORR_LOOP_COPIES])
{
    struct orr_sim *sim = arg;
    struct orri_pair *link = link_get(sim, from, to);
    uint32_t i = orri_sim_index_of(sim, from);
    uint32_t j = orri_sim_index_of(sim, to);
    if (link)
        link->n++;
    if (!link || i == ORR_SIM_ALL || j == ORR_SIM_ALL ||
        sim->hosts[i]->side != sim->hosts[j]->side)
        return 0;
    const struct orr_sim_faults *f =
        link->has_faults ? &link->faults : &sim->config.faults;
    uint64_t stream =
        sim->config.seed + orri_sim_mix(from ^ orri_sim_mix(to) ^ link->n);
    if (chance(&stream, f->loss_ppm))
        return 0;
    unsigned copies = chance(&stream, f->duplicate_ppm) ? 2 : 1;
    for (unsigned n = 0; n < copies; n++) {
        uint64_t spread = f->delay_max_ms - f->delay_min_ms + 1;
        uint64_t due = sim->now_ms + f->delay_min_ms + orri_sim_next(&stream) % spread;
        if (!chance(&stream, f->reorder_ppm)) {
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
    struct orri_pair *link = link_get(sim, sim->hosts[from]->id, sim->hosts[to]->id);
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
