/* SPDX-License-Identifier: Apache-2.0
 * exchange.c - sends and receives, through the pipes of the segment.
 *
 * All operations of a group make progress side by side: each pass moves what can be
 * moved without waiting, and a pass that moved nothing sleeps on the own doorbell,
 * which was read before it. So no order of calls between peers can deadlock a group.
 * Per direction and peer messages are matched in the order of the calls.
 */
#include "op.h"

#include <stdlib.h>
#include <string.h>

struct transfer {
    const struct orri_op *op;
    size_t total, done; /* bytes */
    bool has_begun, is_over;
    bool peer_left; /* before this pass began */
};

struct exchange {
    struct ncclComm *comm;
    struct orri_why *why;
    struct transfer *all; /* owned */
    size_t count, over;
    int lost; /* a rank that was lost before this pass began, or -1 */
};

static void advance(struct transfer *t, size_t bytes)
{
    t->has_begun = true;
    t->done += bytes;
    t->is_over = t->done == t->total;
}

static bool send_some(struct exchange *e, struct transfer *t)
{
    struct orri_segment *seg = &e->comm->seg;
    struct orri_pipe *pipe = orri_pipe_get(seg, seg->rank, t->op->root);
    uint32_t head = atomic_load(&pipe->head), first = head;

    while (!t->is_over && head - atomic_load(&pipe->tail) < ORRI_PIPE_SLOTS) {
        size_t left = t->total - t->done,
               n = left < ORRI_SLOT_BYTES ? left : ORRI_SLOT_BYTES;
        pipe->slot[head % ORRI_PIPE_SLOTS] =
            (struct orri_slot){.bytes = (uint32_t)n,
                               .type = t->op->type,
                               .total = t->has_begun ? 0 : t->total};
        if (n > 0)
            memcpy(pipe->data[head % ORRI_PIPE_SLOTS],
                   (const char *)t->op->send + t->done,
                   n);
        advance(t, n);
        atomic_store(&pipe->head, ++head);
    }
    return head != first;
}

static ncclResult_t check_message(struct exchange *e,
                                  const struct transfer *t,
                                  const struct orri_slot *slot)
{
    if (slot->total == t->total && slot->type == t->op->type)
        return ncclSuccess;
    return orri_why_set(
        e->why,
        ncclInvalidUsage,
        "ranks disagree: rank %d sends %llu bytes of %s, rank %d receives "
        "%llu bytes of %s",
        t->op->root,
        (unsigned long long)slot->total,
        orri_type_name((ncclDataType_t)slot->type),
        e->comm->rank,
        (unsigned long long)t->total,
        orri_type_name(t->op->type));
}

static ncclResult_t
receive_some(struct exchange *e, struct transfer *t, bool *ret_moved)
{
    struct orri_segment *seg = &e->comm->seg;
    struct orri_pipe *pipe = orri_pipe_get(seg, t->op->root, seg->rank);
    uint32_t tail = atomic_load(&pipe->tail);

    while (!t->is_over && tail != atomic_load(&pipe->head)) {
        struct orri_slot slot = pipe->slot[tail % ORRI_PIPE_SLOTS];
        ncclResult_t result = t->has_begun ? ncclSuccess : check_message(e, t, &slot);
        if (result != ncclSuccess)
            return result;
        if (slot.bytes > 0)
            memcpy((char *)t->op->recv + t->done,
                   pipe->data[tail % ORRI_PIPE_SLOTS],
                   slot.bytes);
        advance(t, slot.bytes);
        atomic_store(&pipe->tail, ++tail);
        *ret_moved = true;
    }
    return ncclSuccess;
}

/* What is known before a pass decides what a pass without progress means. */
static void look_around(struct exchange *e)
{
    struct orri_segment *seg = &e->comm->seg;

    e->lost = orri_rank_lost(seg);
    if (orri_rank_gone(seg) < 0)
        return;
    for (size_t i = 0; i < e->count; i++)
        e->all[i].peer_left = orri_rank_get(seg, e->all[i].op->root) == RANK_LEFT;
}

static ncclResult_t pass(struct exchange *e, bool *ret_moved)
{
    bool busy[2][ORRI_RANKS_MAX] = {{false}};

    for (size_t i = 0; i < e->count; i++) {
        struct transfer *t = &e->all[i];
        bool *in_turn = &busy[t->op->kind == OP_SEND][t->op->root], moved = false;
        ncclResult_t result = ncclSuccess;
        if (t->is_over || *in_turn)
            continue;
        if (t->op->kind == OP_SEND)
            moved = send_some(e, t);
        else
            result = receive_some(e, t, &moved);
        if (result != ncclSuccess)
            return result;
        *in_turn = !t->is_over;
        e->over += t->is_over;
        if (moved) {
            orri_doorbell_ring(&e->comm->seg, t->op->root);
            *ret_moved = true;
        }
    }
    return ncclSuccess;
}

/* After a pass without progress: can there ever be any? */
static ncclResult_t check_hope(struct exchange *e)
{
    if (e->lost >= 0)
        return orri_comm_remote_error(e->comm, e->lost, e->why);
    for (size_t i = 0; i < e->count; i++)
        if (!e->all[i].is_over && e->all[i].peer_left)
            return orri_comm_remote_error(e->comm, e->all[i].op->root, e->why);
    return ncclSuccess;
}

ncclResult_t orri_exchange_run(struct ncclComm *comm,
                               const struct orri_op *ops,
                               size_t nops,
                               struct orri_why *why)
{
    struct exchange e = {.comm = comm, .why = why, .count = nops};
    ncclResult_t result = ncclSuccess;

    e.all = calloc(nops, sizeof *e.all);
    if (!e.all)
        return orri_why_set(why, ncclSystemError, "out of memory");
    for (size_t i = 0; i < nops; i++)
        e.all[i] = (struct transfer){
            .op = &ops[i], .total = ops[i].count * orri_type_size(ops[i].type)};
    while (result == ncclSuccess && e.over < e.count) {
        uint32_t seen = orri_doorbell_read(&comm->seg);
        bool moved = false;
        look_around(&e);
        result = pass(&e, &moved);
        if (result != ncclSuccess || moved)
            continue;
        result = check_hope(&e);
        if (result == ncclSuccess)
            orri_doorbell_wait(&comm->seg, seen);
    }
    free(e.all);
    return result;
}
