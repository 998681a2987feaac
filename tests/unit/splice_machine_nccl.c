/* SPDX-License-Identifier: Apache-2.0
 * splice_machine_nccl.c - see splice_machine.h: the calls of NCCL that the engine makes.
 */
#include "splice_machine_impl.h"

#include <string.h>

#include "orr_test.h"

struct orri_real orri_real;
_Thread_local struct orri_self orri_self;

int machine_comm(int n)
{
    assert_true(machine.n_comms < COMMS && n <= COMM_RANKS);
    machine.comms[machine.n_comms] = (struct comm){.n = n};
    for (int i = 0; i < n; i++)
        machine.members[machine.n_comms][i] = (struct member){(int)machine.n_comms, i};
    return (int)machine.n_comms++;
}

ncclComm_t machine_member(int comm, int member)
{
    return (ncclComm_t)(void *)&machine.members[comm][member];
}

/* The parts of one communicator from `first` on are one kernel in its stream; they are put side by side. */
static void launch_parts(uint32_t first)
{
    while (first < machine.n_parts) {
        const struct part *head = &machine.parts[first];
        uint32_t n = 1;
        for (uint32_t i = first + 1; i < machine.n_parts; i++) {
            struct part p = machine.parts[i];
            if (p.comm != head->comm || p.me != head->me)
                continue;
            assert_ptr_equal(p.stream, head->stream);
            memmove(&machine.parts[first + n + 1],
                    &machine.parts[first + n],
                    (i - first - n) * sizeof(p));
            machine.parts[first + n++] = p;
        }
        struct item *item = machine_add(head->stream, ITEM_NCCL);
        item->first_part = first;
        item->n_parts = n;
        for (uint32_t i = 0; i < n; i++)
            machine.parts[first + i].item = machine.n_items;
        first += n;
    }
}

static ncclResult_t group_start(void)
{
    assert_false(machine.is_in_group);
    machine.is_in_group = true;
    machine.group_first = machine.n_parts;
    return ncclSuccess;
}

static ncclResult_t group_end(void)
{
    machine.is_in_group = false;
    launch_parts(machine.group_first);
    return ncclSuccess;
}

static ncclResult_t add_part(enum part_kind kind,
                             const void *send,
                             void *recv,
                             size_t bytes,
                             int peer,
                             ncclComm_t comm,
                             cudaStream_t stream)
{
    const struct member *m = (const void *)comm;
    struct comm *c = &machine.comms[m->comm];
    assert_true(machine.n_parts < PARTS && peer < c->n);
    uint32_t *count = kind == PART_SEND   ? &c->sent[m->me][peer]
                      : kind == PART_RECV ? &c->got[m->me][peer]
                                          : &c->collectives[m->me];
    machine.parts[machine.n_parts++] = (struct part){.kind = kind,
                                                     .comm = m->comm,
                                                     .me = m->me,
                                                     .peer = peer,
                                                     .seq = ++*count,
                                                     .send = send,
                                                     .recv = recv,
                                                     .bytes = bytes,
                                                     .stream = (CUstream)stream};
    if (!machine.is_in_group)
        launch_parts(machine.n_parts - 1);
    return ncclSuccess;
}

static ncclResult_t nccl_send(const void *at,
                              size_t n,
                              ncclDataType_t type,
                              int peer,
                              ncclComm_t comm,
                              cudaStream_t stream)
{
    return add_part(PART_SEND, at, NULL, n * orri_type_bytes(type), peer, comm, stream);
}

static ncclResult_t nccl_recv(void *at,
                              size_t n,
                              ncclDataType_t type,
                              int peer,
                              ncclComm_t comm,
                              cudaStream_t stream)
{
    return add_part(PART_RECV, NULL, at, n * orri_type_bytes(type), peer, comm, stream);
}

static ncclResult_t nccl_broadcast(const void *from,
                                   void *to,
                                   size_t n,
                                   ncclDataType_t type,
                                   int root,
                                   ncclComm_t comm,
                                   cudaStream_t stream)
{
    return add_part(
        PART_BROADCAST, from, to, n * orri_type_bytes(type), root, comm, stream);
}

static ncclResult_t nccl_all_gather(const void *from,
                                    void *to,
                                    size_t n,
                                    ncclDataType_t type,
                                    ncclComm_t comm,
                                    cudaStream_t stream)
{
    return add_part(
        PART_ALL_GATHER, from, to, n * orri_type_bytes(type), 0, comm, stream);
}

static ncclResult_t nccl_all_reduce(const void *from,
                                    void *to,
                                    size_t n,
                                    ncclDataType_t type,
                                    ncclRedOp_t op,
                                    ncclComm_t comm,
                                    cudaStream_t stream)
{
    assert_true(type == ncclInt32 && op == ncclSum);
    return add_part(PART_ALL_REDUCE, from, to, n * sizeof(int32_t), 0, comm, stream);
}

ncclResult_t orri_pairs_make(struct orri_splice *s, const int *peers, int n)
{
    int me = s->map.me;
    for (int i = 0; i < n; i++) {
        int low = me < peers[i] ? me : peers[i], high = me < peers[i] ? peers[i] : me;
        uint32_t at = 0;
        while (at < machine.n_comms &&
               (machine.comms[at].seed != s->pair_seed ||
                machine.comms[at].low != low || machine.comms[at].high != high))
            at++;
        if (at == machine.n_comms) {
            machine_comm(2);
            machine.comms[at].seed = s->pair_seed;
            machine.comms[at].low = low;
            machine.comms[at].high = high;
        }
        atomic_store(&s->far[peers[i]].comm, machine_member((int)at, me > peers[i]));
    }
    return ncclSuccess;
}

void machine_install_nccl(void)
{
    orri_real = (struct orri_real){.GroupStart = group_start,
                                   .GroupEnd = group_end,
                                   .Send = nccl_send,
                                   .Recv = nccl_recv,
                                   .Broadcast = nccl_broadcast,
                                   .AllGather = nccl_all_gather,
                                   .AllReduce = nccl_all_reduce};
}
