/* SPDX-License-Identifier: Apache-2.0
 * explorer_state.c - worlds from texts; copies and hashes of states; see explorer_impl.h.
 */
#include "explorer_impl.h"

/* ---- worlds from texts ---- */

static void parse_op(const char **at, struct op *op)
{
    const char *s = *at;
    char end = *s == '(' ? ')' : *s == '[' ? ']' : '\0';
    op->blocks = *s == '[' || *s == 'C';
    op->is_sync = *s == 'y';
    if (op->is_sync) {
        *at = s + 1;
        return;
    }
    if (*s == 'd') {
        op->is_destroy = true;
        op->moves[0].comm = (uint8_t)(s[1] - '0');
        *at = s + 2;
        return;
    }
    s += end != '\0';
    do {
        struct move *move = &op->moves[op->n++];
        char what = *s++;
        move->comm = (uint8_t)(*s++ - '0');
        move->kind = what == 's'   ? ORR_CLOCK_SEND
                     : what == 'r' ? ORR_CLOCK_RECV
                                   : ORR_CLOCK_COLLECTIVE;
        if (move->kind != ORR_CLOCK_COLLECTIVE)
            move->peer = (uint8_t)(*s++ - '0');
    } while (end && *s != end);
    *at = s + (end != '\0');
}

void parse(struct run *run)
{
    const struct x_world *world = run->world;
    for (; run->n_comms < X_COMMS && world->comms[run->n_comms]; run->n_comms++)
        for (const char *s = world->comms[run->n_comms]; *s; s++)
            run->members[run->n_comms][run->n_members[run->n_comms]++] =
                (uint8_t)(*s - '0');
    for (; run->n_threads < X_THREADS && world->programs[run->n_threads];
         run->n_threads++) {
        struct program *program = &run->programs[run->n_threads];
        const char *s = world->programs[run->n_threads];
        program->rank = (uint8_t)(*s - '0');
        for (s += 2; *s;) {
            if (*s == ' ')
                s++;
            else
                parse_op(&s, &program->ops[program->n++]);
        }
    }
}

/* ---- states ---- */

static void aim_pointers(struct state *state)
{
    for (uint32_t i = 0; i < X_RANKS; i++) {
        struct rank *rank = &state->ranks[i];
        rank->gate.clocks = rank->clocks;
        rank->gate.targets = rank->targets;
        rank->gate.wants = rank->wants;
    }
}

/* The job's tables live in the run; a state has a copy. */
void save_tables(struct run *run)
{
    struct state *state = &run->now;
    struct job_barrier *b = &run->barrier;
    state->pool = b->clocks;
    state->map = b->by_key;
    state->round = b->round;
    state->is_stale = b->is_stale;
    memcpy(state->peers, b->peers.at, run->world->n_ranks * sizeof(state->peers[0]));
    memcpy(state->items, b->clocks.items, b->clocks.n_fresh * sizeof(struct job_clock));
    memcpy(state->links, b->clocks.links, b->clocks.n_fresh * sizeof(uint32_t));
    memcpy(
        state->slots, b->by_key.slots, (b->by_key.mask + 1) * sizeof(state->slots[0]));
}

void load(struct run *run, const struct state *state)
{
    struct job_barrier *b = &run->barrier;
    run->now = *state;
    aim_pointers(&run->now);
    b->clocks = state->pool;
    b->by_key = state->map;
    b->round = state->round;
    b->is_stale = state->is_stale;
    memcpy(b->peers.at, state->peers, run->world->n_ranks * sizeof(state->peers[0]));
    memcpy(b->clocks.items, state->items, b->clocks.n_fresh * sizeof(struct job_clock));
    memcpy(b->clocks.links, state->links, b->clocks.n_fresh * sizeof(uint32_t));
    memcpy(
        b->by_key.slots, state->slots, (b->by_key.mask + 1) * sizeof(state->slots[0]));
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 29;
}

static uint64_t hash_bytes(uint64_t hash, const void *at, size_t n)
{
    const uint8_t *p = at;
    for (size_t i = 0; i < n; i++)
        hash = mix(hash, p[i]);
    return hash;
}

static uint64_t hash_rank(uint64_t hash, const struct rank *rank)
{
    const struct orri_gate *gate = &rank->gate;
    uint64_t wants = 0;
    hash = mix(hash, gate->mode << 16 | gate->cut << 8 | gate->round);
    for (uint32_t i = 0; i < gate->n; i++) {
        const struct orri_clock *clock = &rank->clocks[i];
        hash = mix(hash, clock->comm << 24 | clock->kind << 16 | clock->peer << 8);
        hash = mix(hash, atomic_load(&clock->issued) << 8 | gate->targets[i]);
    }
    for (uint32_t i = 0; i < gate->n_wants; i++) {
        const struct orri_target *want = &gate->wants[i];
        wants += mix(mix(want->comm << 8 | want->kind, want->me),
                     want->peer << 8 | want->issued);
    }
    hash = mix(hash, wants);
    for (uint32_t i = 0; i < rank->n_down; i++)
        hash =
            hash_bytes(hash, &rank->down[i], 4 + rank->down[i].n * sizeof(struct rec));
    for (uint32_t i = 0; i < rank->n_up; i++)
        hash = hash_bytes(hash, &rank->up[i], 4 + rank->up[i].n * sizeof(struct rec));
    return hash_bytes(hash, &rank->n_down, 7);
}

uint64_t hash_state(const struct run *run)
{
    const struct state *state = &run->now;
    uint64_t rows = 0, hash = mix(1, state->phase);
    hash = hash_bytes(hash, state->threads, run->n_threads * sizeof(struct thread));
    for (uint32_t i = 0; i < run->world->n_ranks; i++)
        hash = hash_rank(hash, &state->ranks[i]);
    hash =
        hash_bytes(hash, &state->phase, 4 + sizeof(state->sent) + sizeof(state->begun));
    for (const struct job_clock *row = NULL;
         (row = orr_pool_next(&run->barrier.clocks, row)) != NULL;)
        rows += mix(mix(row->comm << 32 | row->kind << 24 | row->me << 8 | row->peer,
                        row->issued << 8 | row->target),
                    row->n_members);
    hash = mix(mix(hash, rows), run->barrier.round << 1 | run->barrier.is_stale);
    for (uint32_t i = 0; i < run->world->n_ranks; i++) {
        const struct job_barrier_peer *peer =
            (const struct job_barrier_peer *)run->barrier.peers.at + i;
        hash = mix(hash, peer->round << 2 | peer->has_begun << 1 | peer->is_at_cut);
    }
    return hash ? hash : 1;
}

void broken(struct run *run, const char *what)
{
    if (run->result.broken[0])
        return;
    size_t len = (size_t)snprintf(
        run->result.broken, sizeof(run->result.broken), "%s; calls issued:", what);
    for (uint32_t i = 0; i < run->n_threads; i++)
        len += (size_t)snprintf(run->result.broken + len,
                                sizeof(run->result.broken) - len,
                                " %u/%u%s",
                                run->now.threads[i].issued,
                                run->programs[i].n,
                                run->now.threads[i].is_inside ? "(inside)" : "");
}
