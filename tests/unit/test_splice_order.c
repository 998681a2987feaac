/* SPDX-License-Identifier: Apache-2.0
 * test_splice_order.c - ranks that share devices never wait for each other in a circle, nor get into each other's way: the engine itself
 * puts programs of collectives and of groups of sends and receives into streams, and splice_machine.c looks at what can come of it.
 *
 * A program is a list of operations that all members of their communicators issue in that order, in any of their streams.  Every
 * consistent cut of such a program is one itself (with each operation that somebody has issued, all that come before it in any of
 * its ranks): so what holds for programs holds at every cut that the barrier can come to (docs/barrier.md): all streams run dry there,
 * and nobody needs a call that is behind the cut.
 */
#include "splice_machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "orr_test.h"

enum {
    RANKS = 6,
    COMMS = 3,
    OPS = 8,
    STREAMS = 2,
    MESSAGES = 8,
    VALUES = 1000,
    CASES = 80,
    LOOK_EACH = 29 /* elements */
};

struct group { /* of ranks */
    int n, rank[RANKS], me[RANKS];
    struct orri_splice *splice[RANKS]; /* by member */
    ncclComm_t real[RANKS];
};

struct message {
    int from, to; /* members */
    size_t count;
    int32_t *out, *in;
};

struct operation {
    enum orr_clock_op kind; /* SEND: a group of messages */
    int comm, root, number;
    bool averages, scales;
    size_t count;
    int n_messages;
    struct message message[MESSAGES];
};

struct world {
    int n, n_comms, n_ops;
    uint64_t place[RANKS];
    bool is_ordered;
    struct group comm[COMMS];
    struct operation op[OPS];
    CUstream stream[RANKS][STREAMS];
};

static uint64_t seed;

static uint32_t any(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 20) % n;
}

/* ---- what is sent, and what must come of it ---- */

static int32_t given(int op, int member, size_t at)
{
    return (int32_t)((size_t)(op * 131 + member * 17) + at * 7) % VALUES;
}

static size_t blocks_sent(const struct operation *op, int n)
{
    return op->kind == ORR_CLOCK_OP_SCATTER || op->kind == ORR_CLOCK_OP_ALL_TO_ALL ||
                   op->kind == ORR_CLOCK_OP_REDUCE_SCATTER
               ? (size_t)n
               : 1;
}

static size_t blocks_got(const struct operation *op, int n)
{
    return op->kind == ORR_CLOCK_OP_ALL_GATHER || op->kind == ORR_CLOCK_OP_GATHER ||
                   op->kind == ORR_CLOCK_OP_ALL_TO_ALL
               ? (size_t)n
               : 1;
}

static bool gets(const struct operation *op, int me)
{
    return (op->kind != ORR_CLOCK_OP_REDUCE && op->kind != ORR_CLOCK_OP_GATHER) ||
           me == op->root;
}

static int32_t
wanted(const struct operation *op, int n, int me, size_t block, size_t at)
{
    size_t count = op->count;
    int32_t sum = 0;
    switch ((int)op->kind) {
    case ORR_CLOCK_OP_BROADCAST:
        return given(op->number, op->root, at);
    case ORR_CLOCK_OP_SCATTER:
        return given(op->number, op->root, (size_t)me * count + at);
    case ORR_CLOCK_OP_ALL_GATHER:
    case ORR_CLOCK_OP_GATHER:
        return given(op->number, (int)block, at);
    case ORR_CLOCK_OP_ALL_TO_ALL:
        return given(op->number, (int)block, (size_t)me * count + at);
    default:
        at += op->kind == ORR_CLOCK_OP_REDUCE_SCATTER ? (size_t)me * count : 0;
        for (int i = 0; i < n; i++)
            sum += given(op->number, i, at) * (op->scales ? 3 : 1);
        return op->averages ? sum / n : sum;
    }
}

/* The program's own work in a stream: it fills a buffer, or looks at one. */
struct look {
    const struct operation *op;
    int n, me, from;
    int32_t *at;
    size_t count;
};

static struct look *
look(const struct operation *op, int n, int me, int from, int32_t *at, size_t count)
{
    struct look *l = test_malloc(sizeof(*l));
    *l = (struct look){op, n, me, from, at, count};
    return l;
}

static void fill(void *arg)
{
    struct look *l = arg;
    for (size_t i = 0; i < l->count; i++)
        l->at[i] = given(l->op->number, l->me, i);
    test_free(l);
}

static void spoil(void *arg)
{
    struct look *l = arg;
    memset(l->at, 0x55, l->count * sizeof(*l->at));
    test_free(l);
}

static void check(void *arg)
{
    struct look *l = arg;
    for (size_t i = 0; i < l->count; i += i + LOOK_EACH < l->count ? LOOK_EACH : 1) {
        size_t block = l->op->count ? i / l->op->count : 0,
               at = i - block * l->op->count;
        int32_t want = l->from >= 0 ? given(l->op->number, l->from, i)
                                    : wanted(l->op, l->n, l->me, block, at);
        if (l->at[i] != want)
            fail_msg("operation %d of kind %d: member %d of %d has %d at %zu, not %d",
                     l->op->number,
                     (int)l->op->kind,
                     l->me,
                     l->n,
                     l->at[i],
                     i,
                     want);
    }
    test_free(l);
}

/* ---- programs ---- */

static void
issue_collective(struct world *w, const struct operation *op, int me, CUstream stream)
{
    struct group *g = &w->comm[op->comm];
    size_t out = op->count * blocks_sent(op, g->n),
           in = op->count * blocks_got(op, g->n);
    int32_t *send = machine_memory(out * sizeof(*send)),
            *recv = machine_memory(in * sizeof(*recv));
    struct orri_op call = {.kind = op->kind,
                           .send = send,
                           .recv = recv,
                           .count = op->count,
                           .type = ncclInt32,
                           .op = op->averages ? ncclAvg : ncclSum,
                           .root = op->root,
                           .stream = (cudaStream_t)stream};
    struct orri_redop redop = {.value = 3, .type = ncclInt32};
    struct orri_reduce reduce;
    machine_call(stream,
                 fill,
                 look(op, g->n, me, -1, send, out),
                 send,
                 out * sizeof(*send),
                 true);
    assert_int_equal(orri_reduce_of(&reduce, &call, op->scales ? &redop : NULL, g->n),
                     ncclSuccess);
    assert_int_equal(orri_splice_collective(g->splice[me], &call, &reduce),
                     ncclSuccess);
    if (gets(op, me))
        machine_call(stream,
                     check,
                     look(op, g->n, me, -1, recv, in),
                     recv,
                     in * sizeof(*recv),
                     false);
    machine_call(stream,
                 spoil,
                 look(op, g->n, me, -1, send, out),
                 send,
                 out * sizeof(*send),
                 true);
}

static void
issue_messages(struct world *w, struct operation *op, int me, CUstream stream)
{
    struct group *g = &w->comm[op->comm];
    struct orri_op calls[2 * MESSAGES];
    const struct orri_op *list[2 * MESSAGES];
    size_t n = 0;
    for (int i = 0; i < op->n_messages; i++) {
        struct message *m = &op->message[i];
        size_t bytes = m->count * sizeof(*m->out);
        struct orri_op call = {
            .count = m->count, .type = ncclInt32, .stream = (cudaStream_t)stream};
        if (m->from == me) {
            m->out = machine_memory(bytes);
            machine_call(stream,
                         fill,
                         look(op, g->n, me, -1, m->out, m->count),
                         m->out,
                         bytes,
                         true);
            call.kind = ORR_CLOCK_OP_SEND;
            call.root = m->to;
            call.send = m->out;
            list[n] = &calls[n];
            calls[n++] = call;
        }
        if (m->to == me) {
            m->in = machine_memory(bytes);
            call.kind = ORR_CLOCK_OP_RECV;
            call.root = m->from;
            call.send = NULL;
            call.recv = m->in;
            list[n] = &calls[n];
            calls[n++] = call;
        }
    }
    if (n == 0)
        return;
    assert_int_equal(orri_splice_exchange(g->splice[me], list, n), ncclSuccess);
    for (int i = 0; i < op->n_messages; i++) {
        struct message *m = &op->message[i];
        size_t bytes = m->count * sizeof(*m->out);
        if (m->to == me)
            machine_call(stream,
                         check,
                         look(op, g->n, me, m->from, m->in, m->count),
                         m->in,
                         bytes,
                         false);
        if (m->from == me)
            machine_call(stream,
                         spoil,
                         look(op, g->n, me, -1, m->out, m->count),
                         m->out,
                         bytes,
                         true);
    }
}

static void issue(struct world *w, struct operation *op)
{
    struct group *g = &w->comm[op->comm];
    for (int me = 0; me < g->n; me++) {
        machine_enter(g->rank[me]);
        CUstream stream = w->stream[g->rank[me]][any(STREAMS)];
        if (op->kind == ORR_CLOCK_OP_SEND)
            issue_messages(w, op, me, stream);
        else
            issue_collective(w, op, me, stream);
    }
}

/* ---- worlds ---- */

/* As at a resume: the leaders make the scratch, the others take it. */
static void make_comm(struct world *w, int number)
{
    struct group *g = &w->comm[number];
    uint64_t place[RANKS];
    for (int i = 0; i < g->n; i++)
        place[i] = w->place[g->rank[i]];
    for (int i = 0; i < g->n; i++) {
        machine_enter(g->rank[i]);
        g->splice[i] = orri_splice_new(
            g->n, i, place, w->is_ordered, (uint64_t)number + 1, &g->real[i]);
        assert_non_null(g->splice[i]);
        g->real[i] = NULL;
    }
    const struct orri_map *map = &g->splice[0]->map;
    int leaders = map->ndevices > 1 ? machine_comm(map->ndevices) : -1;
    for (int d = 0; d < map->ndevices; d++) {
        int lead = map->leader[d];
        machine_enter(g->rank[lead]);
        g->real[lead] = leaders < 0 ? NULL : machine_member(leaders, d);
        assert_int_equal(orri_splice_make_scratch(g->splice[lead]), ncclSuccess);
        for (int i = 0; i < g->n; i++) {
            if (i == lead || map->device_of[i] != d)
                continue;
            machine_enter(g->rank[i]);
            int fd = dup(g->splice[lead]->fd), page = dup(g->splice[lead]->page_fd);
            assert_int_equal(orri_splice_take_scratch(g->splice[i], &fd, &page),
                             ncclSuccess);
        }
    }
}

static void free_world(struct world *w)
{
    for (int c = 0; c < w->n_comms; c++)
        for (int i = 0; i < w->comm[c].n; i++) {
            machine_enter(w->comm[c].rank[i]);
            orri_splice_free(w->comm[c].splice[i]);
        }
    machine_reset();
}

static void make_world(struct world *w)
{
    machine_reset();
    for (int r = 0; r < w->n; r++) {
        machine_enter(r);
        for (int s = 0; s < STREAMS; s++)
            w->stream[r][s] = machine_stream();
    }
    for (int c = 0; c < w->n_comms; c++)
        make_comm(w, c);
}

static void run_world(struct world *w, uint64_t name)
{
    char why[MACHINE_WHY], places[RANKS + 1] = "";
    for (int r = 0; r < w->n; r++)
        places[r] = (char)('0' + w->place[r]);
    make_world(w);
    for (int i = 0; i < w->n_ops; i++)
        issue(w, &w->op[i]);
    if (!machine_run(any(MACHINE_STREAMS), why))
        fail_msg("case %#llx, ranks on devices %s, %s: %s",
                 (unsigned long long)name,
                 places,
                 w->is_ordered ? "ordered" : "fast",
                 why);
    free_world(w);
}

static const enum orr_clock_op kinds[] = {ORR_CLOCK_OP_ALL_REDUCE,
                                          ORR_CLOCK_OP_REDUCE,
                                          ORR_CLOCK_OP_REDUCE_SCATTER,
                                          ORR_CLOCK_OP_BROADCAST,
                                          ORR_CLOCK_OP_ALL_GATHER,
                                          ORR_CLOCK_OP_GATHER,
                                          ORR_CLOCK_OP_SCATTER,
                                          ORR_CLOCK_OP_ALL_TO_ALL,
                                          ORR_CLOCK_OP_SEND};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

static size_t any_count(void)
{
    static const size_t counts[] = {1, 65, 3000, 20000, 50000};
    return counts[any(5)];
}

static void any_messages(struct operation *op, int n)
{
    op->n_messages = 1 + (int)any(MESSAGES);
    for (int i = 0; i < op->n_messages; i++)
        op->message[i] = (struct message){
            (int)any((uint32_t)n), (int)any((uint32_t)n), any_count(), NULL, NULL};
}

static struct operation
any_operation(const struct world *w, int number, enum orr_clock_op kind)
{
    struct operation op = {
        .kind = kind, .number = number, .comm = (int)any((uint32_t)w->n_comms)};
    int n = w->comm[op.comm].n;
    op.root = (int)any((uint32_t)n);
    op.count = any_count();
    op.scales = any(4) == 0;
    op.averages = !op.scales && any(4) == 0;
    if (kind == ORR_CLOCK_OP_SEND)
        any_messages(&op, n);
    return op;
}

static void whole_world(struct world *w)
{
    w->n_comms = 1;
    w->comm[0].n = w->n;
    for (int r = 0; r < w->n; r++)
        w->comm[0].rank[r] = r;
}

/* Of those ranks; at least two of them share a device, or it would be a real one. */
static void some_ranks(struct world *w)
{
    struct group g = {0};
    bool shares = false;
    for (int r = 0; r < w->n; r++)
        if (any(2))
            g.rank[g.n++] = r;
    for (int i = 0; i < g.n; i++)
        for (int k = 0; k < i; k++)
            shares = shares || w->place[g.rank[i]] == w->place[g.rank[k]];
    if (shares)
        w->comm[w->n_comms++] = g;
}

/* ---- the cases ---- */

/* Every placement of up to four ranks, every operation, twice and in several pieces. */
static void each_operation_in_each_small_world(void **state)
{
    (void)state;
    for (uint64_t name = 0; name < (uint64_t)3 * 256 * KINDS * 2; name++) {
        struct world w = {.n = 2 + (int)(name % 3),
                          .is_ordered = name / 3 / 256 / KINDS};
        uint32_t digits = (uint32_t)(name / 3 % 256), most = 0;
        enum orr_clock_op kind = kinds[name / 3 / 256 % KINDS];
        bool is_first = true;
        if (w.is_ordered && kind != ORR_CLOCK_OP_ALL_REDUCE &&
            kind != ORR_CLOCK_OP_REDUCE && kind != ORR_CLOCK_OP_REDUCE_SCATTER)
            continue; /* there is no order */
        for (int r = 0; r < w.n; r++, digits /= 4) {
            w.place[r] = digits % 4;
            is_first = is_first && w.place[r] <= most;
            most = w.place[r] >= most ? (uint32_t)w.place[r] + 1 : most;
        }
        if (!is_first || digits ||
            most == (uint32_t)w.n) /* named in another order; or nobody shares */
            continue;
        seed = name + 1;
        whole_world(&w);
        for (w.n_ops = 0; w.n_ops < 2; w.n_ops++) {
            w.op[w.n_ops] = any_operation(&w, w.n_ops, kind);
            w.op[w.n_ops].count = w.n_ops ? 3000 : 40000;
        }
        run_world(&w, name);
    }
}

static void random_programs_of_several_communicators(void **state)
{
    (void)state;
    for (uint64_t name = 1; name <= CASES; name++) {
        struct world w = {.n = 2 + (int)(name % (RANKS - 1))};
        seed = name * UINT64_C(0x9e3779b97f4a7c15);
        w.is_ordered = any(2);
        uint32_t devices = 1 + any((uint32_t)w.n - 1);
        for (int r = 0; r < w.n; r++)
            w.place[r] = (uint32_t)r < devices ? (uint32_t)r : any(devices);
        whole_world(&w);
        some_ranks(&w);
        some_ranks(&w);
        for (w.n_ops = 0; w.n_ops < OPS; w.n_ops++)
            w.op[w.n_ops] = any_operation(&w, w.n_ops, kinds[any(KINDS)]);
        run_world(&w, name);
    }
}

int main(void)
{
    setenv("ORRERY_SPLICE_BYTES", "1048576", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_operation_in_each_small_world),
        cmocka_unit_test(random_programs_of_several_communicators),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
