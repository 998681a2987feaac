/* SPDX-License-Identifier: Apache-2.0
 * rank_map_oracle.c - see rank_map_oracle.h.
 */
#include "rank_map_oracle.h"

struct search {
    struct oracle *oracle;
    uint32_t map[ORACLE_WORLD_MAX];
    uint32_t shard_on[ORACLE_SLOTS_MAX];
    uint32_t set_on[ORACLE_SLOTS_MAX]; /* ranks as bits */
    uint8_t n_on[ORACLE_SLOTS_MAX];
    uint32_t given[ORACLE_SLOTS_MAX];
    uint32_t n_given, n_used;
    uint8_t best[ORACLE_SLOTS_MAX]; /* most even loads so far */
    uint8_t fair_max, fair_min;
    bool is_block[1 << ORACLE_WORLD_MAX]; /* of sets of ranks */
};

/* Whatever is a partial result of the sum over all replicas of a shard. */
static void
find_blocks(const struct rank_shards *shards, uint32_t shard, bool *is_block)
{
    uint32_t x[ORACLE_WORLD_MAX] = {0}, n = 0;
    for (uint32_t r = 0; r < shards->world; r++)
        if (shards->shard_of[r] == shard) {
            x[shards->replica_of[r]] = 1u << r;
            is_block[1u << r] = true;
            n++;
        }
    for (uint32_t d = 1; d < n; d *= 2)
        for (uint32_t i = 0; i + d < n; i += 2 * d) {
            x[i] |= x[i + d];
            is_block[x[i]] = true;
        }
}

/* loads: of the devices in use, most first. */
static bool
keeps_rules(const struct search *s, const struct rank_map_ask *ask, uint8_t *loads)
{
    for (uint32_t i = 0; i < s->n_given; i++) {
        uint32_t slot = s->given[i], at = i;
        if (s->n_on[slot] == 0 || (ask->is_ordered && !s->is_block[s->set_on[slot]]))
            return false;
        for (; at > 0 && loads[at - 1] < s->n_on[slot]; at--)
            loads[at] = loads[at - 1];
        loads[at] = s->n_on[slot];
    }
    return true;
}

/* < 0: a is more even.  In order: as the largest are halved first; else: the greatest, then the least. */
static int compare(const struct search *s, const uint8_t *a, const uint8_t *b)
{
    if (s->oracle->ask->is_ordered)
        return memcmp(a, b, s->n_given);
    if (a[0] != b[0])
        return a[0] < b[0] ? -1 : 1;
    return (int)b[s->n_given - 1] - (int)a[s->n_given - 1];
}

static void judge(struct search *s)
{
    struct oracle *o = s->oracle;
    const struct rank_map_ask *ask = o->ask;
    uint8_t load[ORACLE_SLOTS_MAX];
    if (!keeps_rules(s, ask, load))
        return;
    uint8_t least = load[s->n_given - 1];
    if (load[0] < s->fair_max || (load[0] == s->fair_max && least > s->fair_min)) {
        s->fair_max = load[0];
        s->fair_min = least;
    }
    int order = o->n_legal ? compare(s, load, s->best) : -1;
    if (order > 0)
        return;
    if (order < 0) {
        memcpy(s->best, load, sizeof(load));
        o->n_legal = 0;
        o->n_moved = o->n_left_node = UINT32_MAX;
    }
    uint32_t n_moved = 0, n_left = 0;
    for (uint32_t r = 0; r < ask->shards->world; r++) {
        uint32_t old = ask->old[r];
        if (old == ORR_NO_DEVICE || old == s->map[r])
            continue;
        n_moved++;
        n_left += ask->slots[old].node != ask->slots[s->map[r]].node;
    }
    if (n_moved < o->n_moved || (n_moved == o->n_moved && n_left < o->n_left_node)) {
        o->n_moved = n_moved;
        o->n_left_node = n_left;
    }
    if (o->draw && o->draw() % ++o->n_legal == 0)
        memcpy(o->drawn, s->map, sizeof(s->map));
    else if (!o->draw)
        o->n_legal++;
}

static void place(struct search *s, uint32_t rank)
{
    const struct rank_map_ask *ask = s->oracle->ask;
    if (rank == ask->shards->world) {
        judge(s);
        return;
    }
    if (s->n_given - s->n_used > ask->shards->world - rank)
        return;
    for (uint32_t i = 0; i < s->n_given; i++) {
        uint32_t slot = s->given[(i + rank) % s->n_given]; /* even maps come early */
        bool is_new = s->n_on[slot] == 0;
        if (!is_new && (s->shard_on[slot] != ask->shards->shard_of[rank] ||
                        s->n_on[slot] >= s->fair_max))
            continue; /* (whatever is more than the greatest load of one is not legal) */
        s->map[rank] = slot;
        s->shard_on[slot] = ask->shards->shard_of[rank];
        s->set_on[slot] ^= 1u << rank;
        s->n_on[slot]++;
        s->n_used += is_new;
        place(s, rank + 1);
        s->n_used -= is_new;
        s->n_on[slot]--;
        s->set_on[slot] ^= 1u << rank;
    }
}

static void begin(struct search *s, const struct rank_map_ask *ask)
{
    for (uint32_t i = 0; i < ask->n_slots; i++)
        if (ask->slots[i].is_given)
            s->given[s->n_given++] = i;
    for (uint32_t shard = 0; shard < ask->shards->n_shards; shard++)
        find_blocks(ask->shards, shard, s->is_block);
}

bool oracle_keeps_rules(const struct rank_map_ask *ask,
                        const uint32_t *map,
                        uint8_t *loads)
{
    struct search s = {.n_given = 0};
    begin(&s, ask);
    for (uint32_t r = 0; r < ask->shards->world; r++) {
        uint32_t slot = map[r], shard = ask->shards->shard_of[r];
        if (slot >= ask->n_slots || !ask->slots[slot].is_given ||
            (s.n_on[slot] > 0 && s.shard_on[slot] != shard))
            return false;
        s.shard_on[slot] = shard;
        s.set_on[slot] |= 1u << r;
        s.n_on[slot]++;
    }
    return keeps_rules(&s, ask, loads);
}

void oracle_run(struct oracle *self)
{
    struct search s = {.oracle = self, .fair_max = UINT8_MAX};
    begin(&s, self->ask);
    self->n_legal = 0;
    place(&s, 0);
    if (!self->n_legal)
        return;
    self->load_max = s.best[0];
    self->load_min = s.best[s.n_given - 1];
    self->is_fairest = s.best[0] == s.fair_max && self->load_min == s.fair_min;
}
