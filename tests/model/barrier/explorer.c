/* SPDX-License-Identifier: Apache-2.0
 * explorer.c - see explorer.h.  Depth first over hashed states; a state is copied whole, the job's tables included.
 *
 * After each step all that cannot wait is done at once (settle): a rank's library reports, the job computes targets and
 * sends them.  What is on its way may be as late as it likes, so nothing is lost by that; reports that find their
 * channel full are told later, as one.
 */
#include "explorer_impl.h"

const char *const x_mutant_names[X_MUTANT_MAX_] = {
    [X_SOUND] = "sound",
    [X_NO_RAISE] = "no-raise",
    [X_NO_INSIDE] = "no-inside",
    [X_NO_GROUP] = "no-group",
    [X_NO_INCOMPLETE] = "no-incomplete",
    [X_ONE_SIDED] = "one-sided",
    [X_OLD_ROUND] = "old-round",
    [X_FIRST_IS_MAX] = "first-is-max",
    [X_PARKS_ALWAYS] = "parks-always",
    [X_NO_RELEASE] = "no-release",
};

/* False: seen before. */
static bool is_new(struct run *run)
{
    uint64_t hash = hash_state(run);
    uint64_t at = hash & run->seen_mask;
    while (run->seen[at] && run->seen[at] != hash)
        at = (at + 1) & run->seen_mask;
    if (run->seen[at])
        return false;
    run->seen[at] = hash;
    run->n_seen++;
    return true;
}

static void settle(struct run *run)
{
    bool is_changed = true;
    while (is_changed) {
        is_changed = settle_job(run);
        for (uint32_t i = 0; i < run->world->n_ranks; i++)
            is_changed |= tell(run, i);
    }
}

static bool has_died(const struct run *run)
{
    for (uint32_t i = 0; i < run->world->n_ranks; i++)
        if (run->now.ranks[i].is_dead)
            return true;
    return false;
}

/* Nothing moves by itself any more. */
static void check_rest(struct run *run)
{
    bool is_excused = run->world->is_hanging || has_died(run);
    if (run->now.phase == JOB_CUTTING && !is_excused)
        broken(run, "deadlock: the barrier waits for ever");
    if (run->now.phase == JOB_CUTTING)
        return;
    for (uint32_t i = 0; i < run->world->n_ranks; i++)
        if (!run->now.ranks[i].is_dead && run->now.ranks[i].gate.mode != ORRI_GATE_OPEN)
            broken(run, "a gate stays closed");
    for (uint32_t i = 0; i < run->n_threads && !is_excused; i++)
        if (run->now.threads[i].pc < run->programs[i].n)
            broken(run, "the program does not go on after the barrier");
}

enum { DO_THREAD, DO_DOWN, DO_UP, DO_REST_, DO_REQUEST, DO_DIE, DO_EXPIRE, DO_MAX_ };

static bool act(struct run *run, uint32_t what, uint32_t index)
{
    switch (what) {
    case DO_THREAD:
        return index < run->n_threads && step_thread(run, index);
    case DO_DOWN:
        return index < run->world->n_ranks && deliver_down(run, index);
    case DO_UP:
        return index < run->world->n_ranks && deliver_up(run, index);
    case DO_REQUEST:
        return index == 0 && request(run);
    case DO_EXPIRE:
        return index == 0 && expire(run);
    case DO_DIE:
        if ((int)index != run->world->mortal || run->now.ranks[index].is_dead)
            return false;
        run->now.ranks[index].is_dead = true;
        run->now.ranks[index].n_down = 0; /* its node answers no more */
        return true;
    default:
        return false;
    }
}

/* No barrier will come any more: whatever the order, the end is the same. */
static bool is_settled(const struct run *run)
{
    return run->now.phase == JOB_IDLE && run->now.requests == run->world->requests;
}

static void run_out(struct run *run)
{
    bool is_moving = true;
    while (is_moving) {
        is_moving = false;
        for (uint32_t what = 0; what < DO_REST_; what++)
            for (uint32_t i = 0; i < X_THREADS; i++)
                is_moving |= act(run, what, i);
        settle(run);
    }
    check_rest(run);
}

static void explore(struct run *run)
{
    if (run->result.broken[0] || !is_new(run))
        return;
    if (is_settled(run)) {
        run_out(run);
        return;
    }
    if (run->n_seen >= run->max_states || run->depth >= DEPTH_MAX) {
        run->result.is_bounded = true;
        return;
    }
    run->depth++;
    struct state *here = malloc(sizeof(*here));
    ORR_ASSERT(here);
    save_tables(run);
    *here = run->now;
    bool is_moving = false;
    for (uint32_t what = 0; what < DO_MAX_ && !run->result.broken[0]; what++) {
        if (what == DO_REST_ && !is_moving)
            check_rest(run);
        if (what == DO_EXPIRE && is_moving && !run->world->may_expire)
            continue;
        for (uint32_t i = 0; i < X_THREADS && !run->result.broken[0]; i++) {
            if (!act(run, what, i))
                continue;
            is_moving |= what < DO_REST_;
            settle(run);
            explore(run);
            load(run, here);
        }
    }
    free(here);
    run->depth--;
}

struct x_result
x_explore(const struct x_world *world, enum x_mutant mutant, uint64_t max_states)
{
    struct run *run = calloc(1, sizeof(*run));
    ORR_ASSERT(run);
    run->world = world;
    run->mutant = mutant;
    run->max_states = max_states;
    parse(run);
    for (run->seen_mask = 1; run->seen_mask < 2 * max_states; run->seen_mask *= 2)
        ;
    run->seen = calloc(run->seen_mask, sizeof(*run->seen));
    run->seen_mask--;
    ORR_ASSERT(run->seen);
    ORR_ASSERT(job_barrier_init(&run->barrier, world->n_ranks, ROWS) == ORR_OK);
    ORR_ASSERT(run->barrier.by_key.mask < 4 * ROWS);
    for (uint32_t i = 0; i < X_RANKS; i++) {
        struct rank *rank = &run->now.ranks[i];
        orri_gate_init(
            &rank->gate, rank->clocks, rank->targets, CLOCKS, rank->wants, CLOCKS);
    }
    job_barrier_reset(&run->barrier);
    make_comms(run);
    settle(run);
    explore(run);
    struct x_result result = run->result;
    result.n_states = run->n_seen;
    job_barrier_fini(&run->barrier);
    free(run->seen);
    free(run);
    return result;
}
