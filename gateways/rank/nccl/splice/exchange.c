/* SPDX-License-Identifier: Apache-2.0
 * exchange.c - sends and receives of a group, side by side (splice.h).
 *
 * LOCAL   A pair of ranks of one device has two mailboxes in each direction, used in turn: the sender waits until what was in one is
 *         taken, copies, and says so; the receiver takes.  In a group all messages go on together: a round is one piece of each send,
 *         then one of each receive, in the order of their calls for each peer.  So a send waits at most for receives of earlier rounds,
 *         and a receive for sends of this one.
 * REMOTE  Ranks of different devices have a real communicator of two, made when they first need it (pairs.c), since leaders do not know
 *         when others send; two leaders use that of the leaders.  Each has a stream of its own between the program's work before and after,
 *         so that no message waits for one to somebody else.
 */
#include "splice.h"

#include <stdlib.h>

struct message {
    const struct orri_op *op;
    size_t bytes, at;
};

static bool is_send(const struct message *m)
{
    return m->op->kind == ORR_CLOCK_OP_SEND;
}

static CUdeviceptr buffer(const struct message *m)
{
    return (CUdeviceptr)(uintptr_t)(is_send(m) ? m->op->send : m->op->recv) + m->at;
}

static ncclResult_t
send_piece(struct orri_splice *s, struct message *m, CUstream stream)
{
    int mine = s->map.local_of[s->map.me], to = s->map.local_of[m->op->root];
    uint32_t number = ++s->box[to].sent;
    size_t left = m->bytes - m->at,
           here = left < s->layout.mail ? left : s->layout.mail;
    struct orri_words w = {.s = s, .stream = stream};
    ncclResult_t result = ncclSuccess;

    if (number > 2)
        result = orri_words_await(&w, orri_flag_got(&s->layout, mine, to), number - 2);
    if (result == ncclSuccess)
        result = orri_words_flush(&w);
    if (result == ncclSuccess)
        result = CU(MemcpyDtoDAsync,
                    s->base + orri_layout_mail(&s->layout, mine, to, (int)(number % 2)),
                    buffer(m),
                    here,
                    stream);
    if (result == ncclSuccess)
        result = orri_words_check(&w);
    if (result == ncclSuccess)
        result = orri_words_write(&w, orri_flag_sent(&s->layout, mine, to), number);
    m->at += here;
    return result == ncclSuccess ? orri_words_flush(&w) : result;
}

static ncclResult_t
receive_piece(struct orri_splice *s, struct message *m, CUstream stream)
{
    int mine = s->map.local_of[s->map.me], from = s->map.local_of[m->op->root];
    uint32_t number = ++s->box[from].got;
    size_t left = m->bytes - m->at,
           here = left < s->layout.mail ? left : s->layout.mail;
    struct orri_words w = {.s = s, .stream = stream};
    ncclResult_t result =
        orri_words_await(&w, orri_flag_sent(&s->layout, from, mine), number);

    if (result == ncclSuccess)
        result = orri_words_flush(&w);
    if (result == ncclSuccess)
        result =
            CU(MemcpyDtoDAsync,
               buffer(m),
               s->base + orri_layout_mail(&s->layout, from, mine, (int)(number % 2)),
               here,
               stream);
    if (result == ncclSuccess)
        result = orri_words_check(&w);
    if (result == ncclSuccess)
        result = orri_words_write(&w, orri_flag_got(&s->layout, from, mine), number);
    m->at += here;
    return result == ncclSuccess ? orri_words_flush(&w) : result;
}

/* The first unfinished message to, or from, its peer. */
static bool is_next(const struct message *all, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (all[k].op->kind == all[i].op->kind && all[k].op->root == all[i].op->root &&
            all[k].at < all[k].bytes)
            return false;
    return all[i].at < all[i].bytes;
}

static bool is_local(const struct orri_splice *s, const struct message *m)
{
    return m->op->root != s->map.me && orri_is_here(s, m->op->root);
}

static bool is_remote(const struct orri_splice *s, const struct message *m)
{
    return m->bytes > 0 && !orri_is_here(s, m->op->root);
}

/* One piece of each message of one direction. */
static ncclResult_t half_round(struct orri_splice *s,
                               struct message *all,
                               size_t n,
                               bool sends,
                               CUstream stream,
                               bool *ret_is_over)
{
    ncclResult_t result = ncclSuccess;
    bool *is_due = calloc(n, sizeof *is_due);

    if (!is_due)
        return orri_nccl_fail(ncclSystemError, "out of memory");
    for (size_t i = 0; i < n; i++)
        is_due[i] =
            is_local(s, &all[i]) && is_send(&all[i]) == sends && is_next(all, i);
    for (size_t i = 0; i < n && result == ncclSuccess; i++) {
        if (!is_due[i])
            continue;
        *ret_is_over = false;
        result =
            sends ? send_piece(s, &all[i], stream) : receive_piece(s, &all[i], stream);
    }
    free(is_due);
    return result;
}

static ncclResult_t
run_local(struct orri_splice *s, struct message *all, size_t n, CUstream stream)
{
    ncclResult_t result = ncclSuccess;
    bool is_over = false;

    while (!is_over && result == ncclSuccess) {
        is_over = true;
        result = half_round(s, all, n, true, stream, &is_over);
        if (result == ncclSuccess)
            result = half_round(s, all, n, false, stream, &is_over);
    }
    return result;
}

/* The k-th send to itself goes to the k-th receive. */
static ncclResult_t
run_own(struct orri_splice *s, const struct message *all, size_t n, CUstream stream)
{
    ncclResult_t result = ncclSuccess;
    size_t to = 0;

    for (size_t from = 0; from < n && result == ncclSuccess; from++) {
        if (all[from].op->root != s->map.me || !is_send(&all[from]))
            continue;
        while (to < n && (all[to].op->root != s->map.me || is_send(&all[to])))
            to++;
        if (to == n)
            return orri_nccl_fail(ncclInvalidUsage,
                                  "rank %d sends to itself without receiving: put both "
                                  "into one group",
                                  s->map.me);
        if (all[from].bytes > 0 && buffer(&all[to]) != buffer(&all[from]))
            result = CU(MemcpyDtoDAsync,
                        buffer(&all[to]),
                        buffer(&all[from]),
                        all[from].bytes,
                        stream);
        to++;
    }
    return result;
}

/* ---- other devices ------------------------------------------------------------------------- */

static bool are_leaders(const struct orri_splice *s, int peer)
{
    return orri_splice_is_leader(s) && s->map.local_of[peer] == 0;
}

/* All peers that the leaders' communicator serves have one stream. */
static int far_of(const struct orri_splice *s, int peer)
{
    return are_leaders(s, peer) ? s->map.me : peer;
}

static ncclResult_t call_real(const struct orri_splice *s, const struct message *m)
{
    int peer = m->op->root;
    bool leads = are_leaders(s, peer);
    ncclComm_t comm = leads ? *s->real : s->far[peer].comm;
    CUstream stream = s->far[far_of(s, peer)].stream;
    int to = leads ? s->map.device_of[peer] : peer > s->map.me;

    if (is_send(m))
        return REAL(Send,
                    (const void *)(uintptr_t)buffer(m),
                    m->bytes,
                    ncclInt8,
                    to,
                    comm,
                    stream);
    return REAL(
        Recv, (void *)(uintptr_t)buffer(m), m->bytes, ncclInt8, to, comm, stream);
}

static ncclResult_t
make_pairs(struct orri_splice *s, const struct message *all, size_t n)
{
    int *peers = malloc(n * sizeof *peers), npeers = 0;
    ncclResult_t result;

    if (!peers)
        return orri_nccl_fail(ncclSystemError, "out of memory");
    for (size_t i = 0; i < n; i++) {
        int peer = all[i].op->root;
        bool is_new =
            is_remote(s, &all[i]) && !are_leaders(s, peer) && !s->far[peer].comm;
        for (int k = 0; k < npeers && is_new; k++)
            is_new = peers[k] != peer;
        if (is_new)
            peers[npeers++] = peer;
    }
    result = npeers == 0 ? ncclSuccess : orri_pairs_make(s, peers, npeers);
    free(peers);
    return result;
}

static ncclResult_t wait_for(CUstream later, CUstream earlier)
{
    CUevent event;
    ncclResult_t result = CU(EventCreate, &event, CU_EVENT_DISABLE_TIMING);

    if (result != ncclSuccess)
        return result;
    result = CU(EventRecord, event, earlier);
    if (result == ncclSuccess)
        result = CU(StreamWaitEvent, later, event, 0);
    orri_cu.EventDestroy(event); /* when it is over */
    return result;
}

/* The streams of the remote messages, before them and after them. */
static ncclResult_t join_far(struct orri_splice *s,
                             const struct message *all,
                             size_t n,
                             CUstream stream,
                             bool is_before)
{
    ncclResult_t result = ncclSuccess;

    for (size_t i = 0; i < n && result == ncclSuccess; i++) {
        CUstream *far = &s->far[far_of(s, all[i].op->root)].stream;
        if (!is_remote(s, &all[i]))
            continue;
        if (!*far)
            result = CU(StreamCreate, far, CU_STREAM_NON_BLOCKING);
        if (result == ncclSuccess)
            result = is_before ? wait_for(*far, stream) : wait_for(stream, *far);
    }
    return result;
}

static ncclResult_t
run_remote(struct orri_splice *s, const struct message *all, size_t n, CUstream stream)
{
    ncclResult_t result = join_far(s, all, n, stream, true), end;
    bool is_any = false;

    for (size_t i = 0; i < n; i++)
        is_any = is_any || is_remote(s, &all[i]);
    if (!is_any || result != ncclSuccess)
        return result;
    result = REAL0(GroupStart);
    for (size_t i = 0; i < n && result == ncclSuccess; i++)
        if (is_remote(s, &all[i]))
            result = call_real(s, &all[i]);
    end = REAL0(GroupEnd);
    return result == ncclSuccess ? end : result;
}

/* ---- all of a group ------------------------------------------------------------------------- */

/* The first stream has the work; the others wait for its end, and it for what they have so far. */
static ncclResult_t
join_streams(const struct orri_op *const *ops, size_t n, bool is_before)
{
    CUstream first = ops[0]->stream;
    ncclResult_t result = ncclSuccess;

    for (size_t i = 1; i < n && result == ncclSuccess; i++) {
        CUstream from = is_before ? ops[i]->stream : first;
        CUstream to = is_before ? first : ops[i]->stream;
        if (ops[i]->stream != first)
            result = wait_for(to, from);
    }
    return result;
}

ncclResult_t
orri_splice_exchange(struct orri_splice *s, const struct orri_op *const *ops, size_t n)
{
    struct message *all = calloc(n ? n : 1, sizeof *all);
    CUstream stream = n ? ops[0]->stream : NULL;
    ncclResult_t result;

    if (!all)
        return orri_nccl_fail(ncclSystemError, "out of memory");
    for (size_t i = 0; i < n; i++)
        all[i] = (struct message){
            .op = ops[i], .bytes = ops[i]->count * orri_type_bytes(ops[i]->type)};
    result = orri_splice_begin(s, stream);
    if (result == ncclSuccess)
        result = make_pairs(s, all, n);
    if (result == ncclSuccess)
        result = join_streams(ops, n, true);
    if (result == ncclSuccess)
        result = run_own(s, all, n, stream);
    if (result == ncclSuccess)
        result = run_remote(s, all, n, stream);
    if (result == ncclSuccess)
        result = run_local(s, all, n, stream);
    if (result == ncclSuccess)
        result = join_far(s, all, n, stream, false);
    if (result == ncclSuccess)
        result = join_streams(ops, n, false);
    result = orri_splice_end(s, stream, result);
    free(all);
    return result;
}
