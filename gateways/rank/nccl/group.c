/* SPDX-License-Identifier: Apache-2.0
 * group.c - what a thread calls between ncclGroupStart and ncclGroupEnd (op.h).
 */
#include "places.h"

#include <stdlib.h>
#include <string.h>

enum { STEPS_MAX = 65536, STEPS_KEPT = 64, CLOCKS_ON_STACK = 64 };

/* One call: an operation, or the making of a communicator, or a window. */
struct step {
    struct orri_comm *c; /* of an operation or a window */
    ncclComm_t handle;
    struct orri_op op;
    struct orri_redop *redop;   /* referenced; NULL: none */
    struct orri_making *making; /* owned */
    struct orri_window *window; /* owned */
};

static _Thread_local struct group {
    int depth;
    ncclResult_t error;
    struct step *steps; /* owned */
    size_t nsteps, room;
} group;

/* A thread keeps the room of its small groups, for the next; gone with the thread. */
static pthread_key_t kept;
static pthread_once_t kept_once = PTHREAD_ONCE_INIT;

static void make_kept(void)
{
    if (pthread_key_create(&kept, free) != 0)
        abort();
}

static void keep_room(struct step *steps, size_t room)
{
    pthread_once(&kept_once, make_kept);
    if (room != STEPS_KEPT || pthread_getspecific(kept) ||
        pthread_setspecific(kept, steps) != 0)
        free(steps);
}

static struct step *take_kept(void)
{
    struct step *steps;

    pthread_once(&kept_once, make_kept);
    steps = pthread_getspecific(kept);
    if (steps)
        pthread_setspecific(kept, NULL);
    return steps;
}

bool orri_group_is_open(void)
{
    return group.depth > 0;
}

ncclResult_t orri_group_note(ncclResult_t result)
{
    if (group.depth > 0 && result != ncclInProgress && group.error == ncclSuccess)
        group.error = result;
    return result;
}

static void step_drop(struct step *s, ncclResult_t why)
{
    if (s->redop)
        orri_redop_put(s->c, s->redop);
    if (s->making) {
        orri_making_result(s->making, why);
        orri_making_free(s->making);
    }
    if (s->window) {
        orri_window_result(s->window, why);
        free(s->window);
    }
}

static ncclResult_t add(const struct step *step)
{
    struct step *more;
    size_t room = group.room ? group.room * 2 : STEPS_KEPT;

    if (group.room == 0 && (group.steps = take_kept()))
        group.room = STEPS_KEPT;
    if (group.nsteps == group.room) {
        more = room <= STEPS_MAX ? realloc(group.steps, room * sizeof *more) : NULL;
        if (!more) {
            struct step lost = *step;
            step_drop(&lost, ncclInternalError);
            return orri_nccl_fail(
                ncclInternalError, "more than %d calls in a group", (int)STEPS_MAX);
        }
        group.steps = more;
        group.room = room;
    }
    group.steps[group.nsteps++] = *step;
    return ncclSuccess;
}

ncclResult_t orri_group_add_op(struct orri_comm *c,
                               const struct orri_op *op,
                               struct orri_redop *redop)
{
    return add(&(struct step){.c = c, .handle = op->comm, .op = *op, .redop = redop});
}

ncclResult_t orri_group_add_making(struct orri_making *m)
{
    return add(&(struct step){.making = m});
}

ncclResult_t orri_group_add_window(struct orri_window *w)
{
    return add(
        &(struct step){.c = w->c,
                       .handle = (ncclComm_t)(uintptr_t)atomic_load(&w->c->handle),
                       .window = w});
}

static struct orri_clock *clock_of(const struct step *s)
{
    if (s->making)
        return orri_making_clock(s->making);
    if (!s->c)
        return NULL;
    return s->window ? s->c->clock : orri_op_clock(s->c, &s->op);
}

/* The clocks that the group moves: a communicator's once, a pair's each time. */
static uint32_t list_clocks(const struct group *g, struct orri_clock **clocks)
{
    uint32_t n = 0;

    for (size_t i = 0; i < g->nsteps; i++) {
        struct orri_clock *clock = clock_of(&g->steps[i]);
        bool is_new = clock != NULL;
        for (uint32_t k = n; is_new && clock->kind == ORR_CLOCK_COLLECTIVE && k-- > 0;)
            is_new = clocks[k] != clock;
        if (is_new)
            clocks[n++] = clock;
    }
    return n;
}

static ncclResult_t step_call(struct step *s)
{
    ncclResult_t result;
    ncclComm_t real;

    if (s->making)
        return orri_making_call(s->making);
    if (!s->c)
        return orri_op_call(&s->op, s->op.comm, s->op.op);
    result = orri_comm_real(s->c, &real);
    if (result != ncclSuccess)
        return result;
    if (s->window)
        return orri_window_call(s->window);
    return orri_op_call(&s->op, real, s->redop ? s->redop->real : s->op.op);
}

/* An operation of ranks that share devices. */
static bool is_spliced(const struct step *s)
{
    return s->c && !s->window && !s->making && atomic_load(&s->c->splice);
}

/* Of one communicator: collectives, in their order, then sends and receives side by side. */
static ncclResult_t splice_comm(struct group *g, struct orri_comm *c)
{
    const struct orri_op **exchange = malloc(g->nsteps * sizeof *exchange);
    ncclResult_t result =
        exchange ? ncclSuccess : orri_nccl_fail(ncclSystemError, "out of memory");
    size_t n = 0;

    for (size_t i = 0; i < g->nsteps && result == ncclSuccess; i++) {
        struct step *s = &g->steps[i];
        if (s->c != c || !is_spliced(s))
            continue;
        result = orri_comm_real(c, &(ncclComm_t){NULL});
        if (s->op.kind == ORR_CLOCK_OP_SEND || s->op.kind == ORR_CLOCK_OP_RECV)
            exchange[n++] = &s->op;
        else if (result == ncclSuccess)
            result = orri_op_splice(c, &s->op, s->redop);
    }
    if (result == ncclSuccess && n > 0)
        result = orri_splice_exchange(atomic_load(&c->splice), exchange, n);
    free(exchange);
    return result;
}

/* In the order of their keys: the same in all ranks, whatever the order of calls in the group. */
static ncclResult_t splice_all(struct group *g)
{
    ncclResult_t result = ncclSuccess;
    uint64_t done = 0; /* no key */

    for (;;) {
        struct orri_comm *next = NULL;
        for (size_t i = 0; i < g->nsteps; i++)
            if (is_spliced(&g->steps[i]) && g->steps[i].c->key > done &&
                (!next || g->steps[i].c->key < next->key))
                next = g->steps[i].c;
        if (!next || result != ncclSuccess)
            return result;
        result = splice_comm(g, next);
        done = next->key;
    }
}

struct issue {
    struct group *g;
    ncclSimInfo_t *simulate;
};

/* Between real GroupStart and GroupEnd, or what stands for the latter; what is spliced comes after that. */
static ncclResult_t issue(void *arg)
{
    const struct issue *is = arg;
    struct group *g = is->g;
    ncclSimInfo_t *simulate = is->simulate;
    ncclResult_t result = REAL0(GroupStart), end;

    for (size_t i = 0; i < g->nsteps; i++) {
        ncclResult_t one =
            is_spliced(&g->steps[i]) ? ncclSuccess : step_call(&g->steps[i]);
        if (result == ncclSuccess && one != ncclInProgress)
            result = one;
    }
    end = simulate ? REAL(GroupSimulateEnd, simulate) : REAL0(GroupEnd);
    if (result == ncclSuccess)
        result = end;
    return result == ncclSuccess && !simulate ? splice_all(g) : result;
}

static ncclResult_t issue_all(struct group *g, ncclSimInfo_t *simulate)
{
    struct issue is = {g, simulate};
    struct orri_making **makings = calloc(g->nsteps + 1, sizeof(struct orri_making *));
    ncclResult_t result;
    size_t n = 0;

    if (!makings)
        return orri_nccl_fail(ncclSystemError, "out of memory");
    for (size_t i = 0; i < g->nsteps && !simulate; i++)
        if (g->steps[i].making)
            makings[n++] = g->steps[i].making;
    result = orri_makings_run(makings, n, issue, &is);
    free(makings);
    return result;
}

static ncclResult_t check_handles(const struct group *g)
{
    for (size_t i = 0; i < g->nsteps; i++)
        if (g->steps[i].c && orri_comm_find(g->steps[i].handle) != g->steps[i].c)
            return orri_nccl_fail(
                ncclInvalidArgument,
                "a communicator of the group was destroyed before its end");
    return ncclSuccess;
}

static ncclResult_t run(struct group *g, ncclSimInfo_t *simulate)
{
    struct orri_clock *few[CLOCKS_ON_STACK], **clocks = few;
    ncclResult_t result = g->error;
    uint32_t n;

    if (result == ncclSuccess)
        result = check_handles(g);
    if (result == ncclSuccess && g->nsteps > CLOCKS_ON_STACK)
        clocks = malloc(g->nsteps * sizeof(*clocks));
    if (!clocks)
        result = orri_nccl_fail(ncclSystemError, "out of memory");
    if (result == ncclSuccess) {
        n = simulate ? 0 : list_clocks(g, clocks);
        orri_gate_enter(clocks,
                        n,
                        g->nsteps == 1 && !g->steps[0].making && !g->steps[0].window
                            ? g->steps[0].op.kind
                            : ORR_CLOCK_OP_GROUP);
        result = issue_all(g, simulate);
        if (simulate && result == ncclSuccess)
            for (size_t i = 0; i < g->nsteps; i++) /* nothing was made */
                step_drop(&g->steps[i], ncclInvalidUsage);
        else
            for (size_t i = 0; i < g->nsteps; i++)
                step_drop(&g->steps[i], result);
        orri_gate_leave();
    } else {
        for (size_t i = 0; i < g->nsteps; i++)
            step_drop(&g->steps[i], result);
    }
    if (clocks != few)
        free(clocks);
    return result;
}

static ncclResult_t end(ncclSimInfo_t *simulate)
{
    struct group g = group;
    ncclResult_t result;

    memset(&group, 0, sizeof group);
    result = g.nsteps == 0 && !simulate ? g.error : run(&g, simulate);
    keep_room(g.steps, g.room);
    return result;
}

EXPORT ncclResult_t ncclGroupStart(void)
{
    ENTER0(GroupStart);
    group.depth++;
    return ncclSuccess;
}
ALIAS(GroupStart);

EXPORT ncclResult_t ncclGroupEnd(void)
{
    ENTER0(GroupEnd);
    if (group.depth == 0)
        return orri_nccl_fail(ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart");
    if (group.depth > 1) {
        group.depth--;
        return ncclSuccess;
    }
    return end(NULL);
}
ALIAS(GroupEnd);

EXPORT ncclResult_t ncclGroupSimulateEnd(ncclSimInfo_t *info)
{
    ENTER(GroupSimulateEnd, info);
    if (group.depth == 0)
        return REAL(GroupSimulateEnd, info);
    if (group.depth > 1) {
        group.depth--;
        return ncclSuccess;
    }
    return end(info);
}
ALIAS(GroupSimulateEnd);
