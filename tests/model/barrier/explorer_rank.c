/* SPDX-License-Identifier: Apache-2.0
 * explorer_rank.c - a program that runs, its gate, and its library; see explorer_impl.h.
 */
#include "explorer_impl.h"

/* ---- a rank ---- */

static uint8_t member_of(const struct run *run, uint32_t comm, uint32_t rank)
{
    uint8_t me = 0;
    while (run->members[comm][me] != rank)
        me++;
    return me;
}

static struct orri_clock *find_clock(
    struct rank *rank, uint32_t comm, uint32_t kind, uint32_t peer, uint32_t *ret_at)
{
    for (uint32_t i = 0; i < rank->gate.n; i++)
        if (rank->clocks[i].comm == comm + 1 && rank->clocks[i].kind == kind &&
            rank->clocks[i].peer == peer) {
            *ret_at = i;
            return &rank->clocks[i];
        }
    return NULL;
}

static uint64_t
count_of(struct run *run, uint32_t rank, uint32_t comm, uint32_t kind, uint32_t peer)
{
    uint32_t at;
    const struct orri_clock *clock =
        find_clock(&run->now.ranks[rank], comm, kind, peer, &at);
    return clock ? atomic_load(&clock->issued) : 0;
}

static uint32_t clock_for(struct run *run, uint32_t index, const struct move *move)
{
    struct rank *rank = &run->now.ranks[index];
    uint32_t at;
    if (find_clock(rank, move->comm, move->kind, move->peer, &at))
        return at;
    at = rank->gate.n;
    ORR_ASSERT(at < CLOCKS);
    rank->clocks[at].comm = move->comm + 1u;
    rank->clocks[at].kind = move->kind;
    rank->clocks[at].me = member_of(run, move->comm, index);
    rank->clocks[at].peer = move->peer;
    rank->clocks[at].n = run->n_members[move->comm];
    orri_gate_add_clock(&rank->gate);
    return at;
}

/* Have all members come to the seq-th? */
static bool
is_matched(struct run *run, uint32_t rank, const struct move *move, uint64_t seq)
{
    uint32_t me = member_of(run, move->comm, rank);
    if (move->kind != ORR_CLOCK_COLLECTIVE) {
        uint32_t kind = move->kind == ORR_CLOCK_SEND ? ORR_CLOCK_RECV : ORR_CLOCK_SEND;
        return count_of(
                   run, run->members[move->comm][move->peer], move->comm, kind, me) >=
               seq;
    }
    for (uint32_t i = 0; i < run->n_members[move->comm]; i++)
        if (count_of(
                run, run->members[move->comm][i], move->comm, ORR_CLOCK_COLLECTIVE, 0) <
            seq)
            return false;
    return true;
}

bool is_synced(struct run *run, uint32_t index)
{
    const struct rank *rank = &run->now.ranks[index];
    for (uint32_t i = 0; i < rank->gate.n; i++) {
        const struct orri_clock *clock = &rank->clocks[i];
        const struct move move = {
            (uint8_t)(clock->comm - 1), (uint8_t)clock->kind, (uint8_t)clock->peer};
        if (!is_matched(run, index, &move, atomic_load(&clock->issued)))
            return false;
    }
    return true;
}

static uint32_t n_inside(const struct run *run, uint32_t rank)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < run->n_threads; i++)
        n += run->programs[i].rank == rank && run->now.threads[i].is_inside;
    return run->mutant == X_NO_INSIDE ? 0 : n;
}

/* The gate is asked; then the call is counted whole. */
static bool enter(struct run *run, uint32_t index, const struct op *op)
{
    struct thread *thread = &run->now.threads[index];
    uint32_t on = run->programs[index].rank;
    struct rank *rank = &run->now.ranks[on];
    uint32_t at[X_MOVES];
    uint32_t first = thread->n_half;
    uint32_t n = run->mutant == X_NO_GROUP && op->n ? 1 : op->n;
    bool may_go = orri_gate_may_go(&rank->gate, false);
    if (run->mutant == X_PARKS_ALWAYS && rank->gate.mode != ORRI_GATE_OPEN)
        may_go = false;
    if (!may_go)
        return false;
    if (run->now.is_decided && rank->gate.mode != ORRI_GATE_OPEN)
        broken(run, "a rank went on after the cut was found");
    for (uint32_t i = 0; i < n; i++)
        at[i] = clock_for(run, on, &op->moves[first + i]);
    rank->is_raised |= orri_gate_count(&rank->gate, at, n);
    if (run->mutant == X_NO_RAISE)
        rank->is_raised = false;
    for (uint32_t i = 0; i < n; i++)
        thread->seq[first + i] = (uint8_t)atomic_load(&rank->clocks[at[i]].issued);
    thread->n_half = (uint8_t)(first + n);
    if (thread->n_half < op->n)
        return true;
    for (uint32_t i = 0; i < rank->gate.n && op->is_destroy; i++)
        if (rank->clocks[i].comm == op->moves[0].comm + 1u)
            rank->clocks[i].is_over = 1;
    thread->n_half = 0;
    thread->issued++;
    thread->is_inside = op->blocks;
    thread->pc += !op->blocks;
    return true;
}

bool step_thread(struct run *run, uint32_t index)
{
    struct thread *thread = &run->now.threads[index];
    const struct program *program = &run->programs[index];
    if (run->now.ranks[program->rank].is_dead || thread->pc == program->n)
        return false;
    const struct op *op = &program->ops[thread->pc];
    if (op->is_sync) {
        if (!is_synced(run, program->rank))
            return false;
        thread->pc++;
        return true;
    }
    if (!thread->is_inside)
        return enter(run, index, op);
    for (uint32_t i = 0; i < op->n; i++)
        if (!is_matched(run, program->rank, &op->moves[i], thread->seq[i]))
            return false;
    thread->is_inside = 0;
    memset(thread->seq, 0, sizeof(thread->seq));
    thread->pc++;
    return true;
}

bool deliver_down(struct run *run, uint32_t index)
{
    struct rank *rank = &run->now.ranks[index];
    if (!rank->n_down || rank->is_dead)
        return false;
    const struct down msg = rank->down[0];
    rank->down[0] = rank->down[1];
    memset(&rank->down[--rank->n_down], 0, sizeof(msg));
    if (msg.what == TO_CLOSE) {
        orri_gate_close(&rank->gate, msg.cut);
        rank->has_told = rank->is_raised = rank->told_at_cut = rank->told_round = 0;
        for (uint32_t i = 0; i < run->n_threads; i++)
            if (run->programs[i].rank == index)
                run->now.threads[i].closed = run->now.threads[i].issued;
    } else if (msg.what == TO_OPEN) {
        orri_gate_open(&rank->gate, msg.cut);
    } else {
        struct orri_target targets[CLOCKS];
        for (uint32_t i = 0; i < msg.n; i++)
            targets[i] = (struct orri_target){
                .comm = msg.recs[i].comm,
                .issued = msg.recs[i].issued,
                .kind = msg.recs[i].kind,
                .me = msg.recs[i].me == UINT8_MAX ? ORRI_MEMBER_ABSENT : msg.recs[i].me,
                .peer = msg.recs[i].peer};
        orri_gate_take_targets(
            &rank->gate, msg.cut, msg.round, true, targets, msg.n, true);
    }
    return true;
}

/* The library reports when there is something that the job does not know. */
bool tell(struct run *run, uint32_t index)
{
    struct rank *rank = &run->now.ranks[index];
    if (rank->is_dead || rank->gate.mode == ORRI_GATE_OPEN || rank->n_up == CHANNEL)
        return false;
    bool is_at_cut = orri_gate_is_at_cut(&rank->gate, n_inside(run, index), 0);
    if (rank->has_told && !rank->is_raised && rank->told_round == rank->gate.round &&
        (rank->told_at_cut || !is_at_cut))
        return false;
    struct up *up = &rank->up[rank->n_up++];
    *up = (struct up){.cut = (uint8_t)rank->gate.cut,
                      .round = (uint8_t)rank->gate.round,
                      .is_at_cut = is_at_cut,
                      .n = (uint8_t)rank->gate.n};
    for (uint32_t i = 0; i < rank->gate.n; i++) {
        const struct orri_clock *clock = &rank->clocks[i];
        uint64_t issued = atomic_load(&clock->issued);
        if (run->mutant == X_NO_RAISE && rank->told_round && issued > rank->targets[i])
            issued = rank->targets[i];
        up->recs[i] = (struct rec){(uint8_t)clock->comm,
                                   (uint8_t)clock->kind,
                                   (uint8_t)clock->me,
                                   (uint8_t)clock->peer,
                                   (uint8_t)clock->n,
                                   (uint8_t)issued};
    }
    rank->has_told = true;
    rank->is_raised = false;
    rank->told_round = (uint8_t)rank->gate.round;
    rank->told_at_cut = is_at_cut;
    return true;
}

/* As if the program had made its communicators before. */
void make_comms(struct run *run)
{
    for (uint32_t c = 0; c < run->n_comms && run->world->is_made; c++)
        for (uint32_t i = 0; i < run->n_members[c]; i++) {
            uint32_t rank = run->members[c][i];
            uint32_t at = clock_for(run, rank, &(struct move){.comm = (uint8_t)c});
            orri_gate_count(&run->now.ranks[rank].gate, &at, 1);
        }
}
