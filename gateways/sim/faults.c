/* SPDX-License-Identifier: Apache-2.0
 * faults.c - see faults.h.
 */
#include "faults.h"

enum {
    PPM = 1000000,
    LOSS_MAX = PPM / 4,
    REPEAT_MAX = PPM / 10,
    DELAY_MAX_MS = 400,
    /* ADR 0010: two clocks drift apart by less than a quarter of a lease within one, and the looks of both sides, each
     * a heartbeat apart, come on top. */
    DRIFT_MAX = PPM / 12,
    CUT_OFF_MAX = 60,
};

static const struct {
    const char *name;
    uint32_t every_ms; /* on average */
    uint32_t last_min_ms;
    uint32_t last_max_ms;
} kinds[] = {
    [FAULT_LOSS] = {"loss", 8000, 500, 12000},
    [FAULT_DELAY] = {"delay", 10000, 500, 10000},
    [FAULT_DUPLICATE] = {"duplicate", 10000, 1000, 15000},
    [FAULT_REORDER] = {"reorder", 10000, 1000, 15000},
    [FAULT_PARTITION] = {"partition", 6000, 200, 20000},
    [FAULT_CRASH] = {"crash", 3000, 50, 12000},
    [FAULT_CLOCK] = {"clock", 6000, 2000, 20000},
    [FAULT_DISK] = {"disk", 8000, 200, 6000},
};

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint32_t pick(uint64_t *random, uint64_t n)
{
    return (uint32_t)(mix(*random += 0x9e3779b97f4a7c15u) % n); /* splitmix64 */
}

const char *fault_name(enum fault_kind kind)
{
    return kinds[kind].name;
}

bool fault_cuts_off(const struct fault *fault, uint32_t host)
{
    return fault->kind == FAULT_PARTITION &&
           (host == fault->host ||
            mix(fault->salt + host) % 100 < (uint64_t)fault->value);
}

static uint32_t
pick_host(const struct fault_plan *plan, uint64_t *random, enum fault_kind kind)
{
    uint32_t n_nodes = plan->first_client - plan->first_node;
    uint32_t n_clusters = plan->first_node - plan->first_cluster;
    uint32_t way = pick(random, 4);
    if (kind == FAULT_PARTITION && way == 3 && pick(random, 4) == 0)
        return pick(random, plan->n_hosts);
    if (way == 0 && plan->n_regions)
        return pick(random, plan->n_regions);
    if (way == 1 && kind != FAULT_DISK)
        return plan->first_cluster + pick(random, n_clusters);
    return plan->first_node + pick(random, n_nodes);
}

static int32_t pick_value(uint64_t *random, enum fault_kind kind)
{
    switch (kind) {
    case FAULT_LOSS:
        return 1 + (int32_t)pick(random, LOSS_MAX);
    case FAULT_DELAY:
        return 1 + (int32_t)pick(random, DELAY_MAX_MS);
    case FAULT_DUPLICATE:
    case FAULT_REORDER:
        return 1 + (int32_t)pick(random, REPEAT_MAX);
    case FAULT_PARTITION:
        return pick(random, 2) ? 0 : (int32_t)pick(random, CUT_OFF_MAX);
    case FAULT_CRASH:
        return pick(random, 3) == 0;
    case FAULT_CLOCK:
        return (int32_t)pick(random, 2 * DRIFT_MAX + 1) - DRIFT_MAX;
    case FAULT_DISK:
    case FAULT_KIND_MAX_:
        break;
    }
    return 0;
}

static uint32_t count_of(const struct fault_plan *plan, enum fault_kind kind)
{
    uint64_t n = plan->time_ms / kinds[kind].every_ms;
    return plan->kinds & FAULT_BIT(kind) ? (uint32_t)(n ? n : 1) : 0;
}

enum orr_err faults_make(const struct fault_plan *plan, struct faults *ret_faults)
{
    struct faults faults = {0};
    uint64_t random = mix(plan->seed + 1);
    for (unsigned kind = 0; kind < FAULT_KIND_MAX_; kind++)
        faults.n += count_of(plan, kind);
    faults.at = calloc(faults.n ? faults.n : 1, sizeof(*faults.at));
    if (!faults.at)
        return ORR_ENOMEM;
    struct fault *fault = faults.at;
    for (unsigned kind = 0; kind < FAULT_KIND_MAX_; kind++)
        for (uint32_t n = count_of(plan, kind); n > 0; n--, fault++) {
            uint32_t spread = kinds[kind].last_max_ms - kinds[kind].last_min_ms;
            *fault = (struct fault){.kind = kind,
                                    .from_ms = 1 + pick(&random, plan->time_ms),
                                    .host = pick_host(plan, &random, kind),
                                    .value = pick_value(&random, kind),
                                    .salt = mix(random)};
            fault->until_ms =
                fault->from_ms + kinds[kind].last_min_ms + pick(&random, spread);
            if (fault->until_ms > plan->time_ms)
                fault->until_ms = plan->time_ms;
        }
    *ret_faults = faults;
    return ORR_OK;
}

void faults_fini(struct faults *faults)
{
    free(faults->at);
    *faults = (struct faults){0};
}

bool fault_kinds_parse(const char *text, unsigned *ret_kinds, struct orr_str *ret_bad)
{
    unsigned found = 0;
    for (const char *at = text; *at;) {
        uint32_t len = (uint32_t)strcspn(at, ",");
        struct orr_str word = {at, len};
        unsigned kind = 0;
        while (kind < FAULT_KIND_MAX_ && !orr_str_eq(word, orr_str(kinds[kind].name)))
            kind++;
        if (kind < FAULT_KIND_MAX_)
            found |= FAULT_BIT(kind);
        else if (orr_str_eq(word, ORR_LIT("all")))
            found |= FAULTS_ALL;
        else if (!orr_str_eq(word, ORR_LIT("none"))) {
            *ret_bad = word;
            return false;
        }
        at += len + (at[len] == ',');
    }
    *ret_kinds = found;
    return true;
}
