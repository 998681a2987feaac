/* SPDX-License-Identifier: Apache-2.0
 * rank_shards.c - see rank_shards.h; docs/elastic.md has the rule, and what speaks for it.
 *
 * A *family* is a set of communicators of n ranks each, a fixed stride apart, that together hold every rank once: rank = i + stride
 * (j + n b), and the group (i, b) has all j.  The replicas are the groups of the family with the largest stride (of several: the
 * smallest groups) in which there were collectives and against which nothing speaks: no two ranks of a group send to each other, and
 * every communicator there is has none, one, or all of a group's ranks.  Neighbours (stride 1) are replicas only where they are the whole world.
 */
#include "rank_shards.h"

#include <stdarg.h>

enum { FAMILIES_MAX = 16, TOLD_MAX = 4 };

struct rank_shards_comm {
    uint64_t key;
    uint32_t n;
    uint32_t members; /* in members: by rank in the communicator */
    uint32_t low;     /* least rank */
    uint32_t stride;  /* 0: it may be in no family */
    bool is_rising;   /* its ranks are in the order of the job's */
};

struct family {
    uint32_t stride, n;
};

/* ---- life ---------------------------------------------------------------------------------- */

void rank_shards_reset(struct rank_shards *self)
{
    self->n_shards = self->world;
    self->stride = 0;
    for (uint32_t r = 0; r < self->world; r++) {
        self->shard_of[r] = r;
        self->replica_of[r] = 0;
    }
}

enum orr_err
rank_shards_init(struct rank_shards *self, uint32_t world, uint32_t clocks_max)
{
    *self = (struct rank_shards){.world = world, .clocks_max = clocks_max};
    if (world == 0 || world > ORR_WORLD_MAX)
        return ORR_EINVAL;
    size_t n_comms = clocks_max / 2 + 1;
    enum orr_err err =
        orr_block_init(&self->block,
                       n_comms * sizeof(struct rank_shards_comm) +
                           ((size_t)world * 4 + clocks_max) * sizeof(uint32_t));
    if (err != ORR_OK)
        return err;
    self->comms = self->block.at;
    self->shard_of = (uint32_t *)(self->comms + n_comms);
    self->replica_of = self->shard_of + world;
    self->count = self->replica_of + world;
    self->best = self->count + world;
    self->members = self->best + world;
    rank_shards_reset(self);
    return ORR_OK;
}

void rank_shards_fini(struct rank_shards *self)
{
    orr_block_fini(&self->block);
    *self = (struct rank_shards){0};
}

static uint32_t group_of(const struct family *family, uint32_t rank)
{
    return rank / (family->stride * family->n) * family->stride + rank % family->stride;
}

enum orr_err
rank_shards_family(struct rank_shards *self, uint32_t stride, uint32_t size)
{
    const struct family family = {stride, size};
    uint64_t reach = (uint64_t)stride * size;
    if (reach == 0 || self->world % reach != 0)
        return ORR_EINVAL;
    self->n_shards = self->world / size;
    self->stride = stride;
    for (uint32_t r = 0; r < self->world; r++) {
        self->shard_of[r] = group_of(&family, r);
        self->replica_of[r] = r / stride % size;
    }
    return ORR_OK;
}

enum orr_err
rank_shards_set(struct rank_shards *self, uint32_t shards, struct orr_error *err)
{
    if (shards == 0 || self->world % shards != 0)
        return orr_fail(err,
                        ORR_EINVAL,
                        "shards: %u does not divide the world of %u ranks; it is the "
                        "number of ranks that share one replica",
                        shards,
                        self->world);
    return rank_shards_family(self, shards, self->world / shards);
}

/* ---- words --------------------------------------------------------------------------------- */

struct text {
    char *at; /* borrowed */
    size_t cap, len;
};

static void say(struct text *text, const char *fmt, ...) ORR_PRINTF(2, 3);
static void say(struct text *text, const char *fmt, ...)
{
    va_list args;
    if (text->len + 1 >= text->cap)
        return;
    va_start(args, fmt);
    int n = vsnprintf(text->at + text->len, text->cap - text->len, fmt, args);
    va_end(args);
    if (n > 0)
        text->len += (size_t)n;
}

/* The first reason stays. */
static bool refuse(struct text *text, const char *fmt, ...) ORR_PRINTF(2, 3);
static bool refuse(struct text *text, const char *fmt, ...)
{
    char why[200];
    va_list args;
    if (text->len > 0)
        return false;
    va_start(args, fmt);
    vsnprintf(why, sizeof(why), fmt, args);
    va_end(args);
    say(text,
        "no ranks are taken for replicas: %s; `shards:` in the job's spec says which "
        "are",
        why);
    return false;
}

/* ---- what the communicators are ------------------------------------------------------------ */

static uint32_t divisor(uint32_t a, uint32_t b)
{
    while (b) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* low, is_rising; stride, of one that is used.  False: a rank is in it twice. */
static bool shape(struct rank_shards *self, struct rank_shards_comm *comm, bool is_used)
{
    const uint32_t *at = self->members + comm->members;
    uint32_t high = at[0], step = 0;
    bool is_single = true;
    comm->low = at[0];
    comm->is_rising = true;
    for (uint32_t i = 0; i < comm->n; i++) {
        is_single = is_single && self->count[at[i]]++ == 0;
        comm->is_rising = comm->is_rising && (i == 0 || at[i] > at[i - 1]);
        comm->low = at[i] < comm->low ? at[i] : comm->low;
        high = at[i] > high ? at[i] : high;
        step = divisor(step, at[i] > at[0] ? at[i] - at[0] : at[0] - at[i]);
    }
    for (uint32_t i = 0; i < comm->n; i++)
        self->count[at[i]] = 0;
    if (!is_single)
        return false;
    uint64_t reach = (uint64_t)step * comm->n;
    bool is_even = is_used && (uint64_t)high - comm->low == reach - step &&
                   self->world % reach == 0 && comm->low % reach < step;
    comm->stride = is_even && (step > 1 || comm->n == self->world) ? step : 0;
    return true;
}

static bool gather_one(struct rank_shards *self,
                       const struct job_barrier *clocks,
                       const struct job_clock *comm,
                       uint32_t *n_members,
                       struct text *text)
{
    if (comm->n_members < comm->n)
        return refuse(text,
                      "communicator %016llx has %u ranks, and %u have told of it",
                      (unsigned long long)comm->comm,
                      comm->n,
                      comm->n_members);
    if (comm->n > self->clocks_max - *n_members)
        return refuse(text, "there are too many communicators");
    struct rank_shards_comm *seen = &self->comms[self->n_comms++];
    *seen = (struct rank_shards_comm){
        .key = comm->comm, .n = comm->n, .members = *n_members};
    bool is_used = true; /* the first is its own making */
    for (uint32_t i = 0; i < comm->n; i++) {
        const struct job_clock *member = job_barrier_member(clocks, comm->comm, i);
        if (!member || member->rank >= self->world)
            return refuse(text,
                          "member %u of communicator %016llx is not known",
                          i,
                          (unsigned long long)comm->comm);
        self->members[(*n_members)++] = member->rank;
        is_used = is_used && member->issued > 1;
    }
    if (!shape(self, seen, is_used))
        return refuse(text,
                      "a rank is in communicator %016llx twice",
                      (unsigned long long)comm->comm);
    return true;
}

/* comms, of two ranks and more.  (Communicator 0 is that of orr_rank_point: it says nothing of the program's.) */
static bool
gather(struct rank_shards *self, const struct job_barrier *clocks, struct text *text)
{
    uint32_t n_members = 0;
    self->n_comms = 0;
    memset(self->count, 0, self->world * sizeof(*self->count));
    for (const struct job_clock *comm = NULL;
         (comm = orr_pool_next(&clocks->clocks, comm)) != NULL;)
        if (comm->me == ORR_NONE && comm->comm != 0 && comm->n > 1 &&
            !gather_one(self, clocks, comm, &n_members, text))
            return false;
    return self->n_comms > 0 ||
           refuse(text, "no communicator of several ranks has been seen");
}

/* ---- families ------------------------------------------------------------------------------ */

/* The one after *family: less stride, or the same and larger groups.  False: there is none. */
static bool next_family(const struct rank_shards *self, struct family *family)
{
    struct family next = {0, 0};
    for (uint32_t i = 0; i < self->n_comms; i++) {
        const struct rank_shards_comm *c = &self->comms[i];
        bool is_after = c->stride < family->stride ||
                        (c->stride == family->stride && c->n > family->n);
        if (c->stride && is_after &&
            (c->stride > next.stride || (c->stride == next.stride && c->n < next.n)))
            next = (struct family){c->stride, c->n};
    }
    *family = next;
    return next.stride > 0;
}

static bool is_better(const struct rank_shards_comm *a,
                      const struct rank_shards_comm *b)
{
    return a->is_rising != b->is_rising ? a->is_rising : a->key < b->key;
}

/* Does it hold every rank?  best: 1 + the communicator of each group. */
static bool is_complete(struct rank_shards *self, const struct family *family)
{
    uint32_t n = 0, n_groups = self->world / family->n;
    memset(self->best, 0, n_groups * sizeof(*self->best));
    for (uint32_t i = 0; i < self->n_comms; i++) {
        const struct rank_shards_comm *c = &self->comms[i];
        if (c->stride != family->stride || c->n != family->n)
            continue;
        uint32_t *best = &self->best[group_of(family, c->low)];
        n += *best == 0;
        if (*best == 0 || is_better(c, &self->comms[*best - 1]))
            *best = i + 1;
    }
    return n == n_groups;
}

/* Each communicator has none, one or all of the ranks of a group. */
static bool
is_uncut(struct rank_shards *self, const struct family *family, struct text *text)
{
    bool is_good = true;
    for (uint32_t k = 0; k < self->n_comms && is_good; k++) {
        const struct rank_shards_comm *c = &self->comms[k];
        const uint32_t *at = self->members + c->members;
        for (uint32_t i = 0; i < c->n; i++)
            self->count[group_of(family, at[i])]++;
        for (uint32_t i = 0; i < c->n && is_good; i++) {
            uint32_t n = self->count[group_of(family, at[i])];
            if (n != 1 && n != family->n)
                is_good = refuse(text,
                                 "communicator %016llx has rank %u and some, not all, "
                                 "of those that could be its replicas",
                                 (unsigned long long)c->key,
                                 at[i]);
        }
        for (uint32_t i = 0; i < c->n; i++)
            self->count[group_of(family, at[i])] = 0;
    }
    return is_good;
}

static bool sends_nothing(const struct family *family,
                          const struct job_barrier *clocks,
                          struct text *text)
{
    for (const struct job_clock *c = NULL;
         (c = orr_pool_next(&clocks->clocks, c)) != NULL;) {
        if (c->kind == ORR_CLOCK_COLLECTIVE || c->issued == 0)
            continue;
        const struct job_clock *peer = job_barrier_member(clocks, c->comm, c->peer);
        if (peer && peer->rank != c->rank &&
            group_of(family, peer->rank) == group_of(family, c->rank))
            return refuse(text,
                          "ranks %u and %u send to each other in communicator %016llx",
                          c->rank < peer->rank ? c->rank : peer->rank,
                          c->rank < peer->rank ? peer->rank : c->rank,
                          (unsigned long long)c->comm);
    }
    return true;
}

/* ---- the result ---------------------------------------------------------------------------- */

static void apply(struct rank_shards *self, const struct family *family)
{
    self->n_shards = self->world / family->n;
    self->stride = family->stride;
    for (uint32_t s = 0; s < self->n_shards; s++) {
        const struct rank_shards_comm *best = &self->comms[self->best[s] - 1];
        const uint32_t *at = self->members + best->members;
        if (!best->is_rising)
            self->stride = 0;
        for (uint32_t i = 0; i < family->n; i++) {
            self->shard_of[at[i]] = s;
            self->replica_of[at[i]] = i;
        }
    }
}

static void
tell(const struct rank_shards *self, const struct family *family, struct text *text)
{
    text->len = 0;
    if (family->n == self->world) {
        say(text,
            "all %u ranks are replicas: no communicator has less than all of them, and "
            "none sends to another",
            self->world);
        return;
    }
    say(text, "data-parallel groups ");
    for (uint32_t s = 0; s < self->n_shards && s < TOLD_MAX; s++) {
        const struct rank_shards_comm *c = &self->comms[self->best[s] - 1];
        for (uint32_t i = 0; i < c->n && i < TOLD_MAX; i++)
            say(text, "%s%u", i ? "," : s ? ",{" : "{", self->members[c->members + i]);
        say(text, c->n > TOLD_MAX ? ",..}" : "}");
    }
    if (self->n_shards > TOLD_MAX)
        say(text, ",.. (%u)", self->n_shards);
    say(text,
        " seen in communicator %016llx of size %u and %u more",
        (unsigned long long)self->comms[self->best[0] - 1].key,
        family->n,
        self->n_shards - 1);
}

bool rank_shards_infer(struct rank_shards *self,
                       const struct job_barrier *clocks,
                       char *at,
                       size_t cap)
{
    struct text text = {.at = at, .cap = cap};
    struct family family = {.stride = UINT32_MAX};
    if (cap > 0)
        at[0] = '\0';
    rank_shards_reset(self);
    if (!gather(self, clocks, &text))
        return false;
    for (uint32_t i = 0; i < FAMILIES_MAX && next_family(self, &family); i++) {
        if (!is_complete(self, &family) || !is_uncut(self, &family, &text) ||
            !sends_nothing(&family, clocks, &text))
            continue;
        apply(self, &family);
        tell(self, &family, &text);
        return true;
    }
    return refuse(
        &text,
        "its communicators, as far as they are used, do not divide all %u into "
        "groups alike",
        self->world);
}
