/* SPDX-License-Identifier: Apache-2.0
 * splice_machine_impl.h - work, streams and memory, shared by the machine's files: splice_machine.c is the driver and
 * splice_machine_nccl.c NCCL, which note what is put into streams; splice_machine_run.c works it off.
 */
#ifndef ORR_SPLICE_MACHINE_IMPL_H
#define ORR_SPLICE_MACHINE_IMPL_H

#include "splice_machine.h"

enum {
    ITEMS = 1 << 15,
    PARTS = 1 << 15,
    REGIONS = 512,
    COMMS = 64,
    COMM_RANKS = 8,
    INPUTS = 8
};

enum kind {
    ITEM_WAIT,
    ITEM_WRITE,
    ITEM_COPY,
    ITEM_COMBINE,
    ITEM_EACH,
    ITEM_EVENT,
    ITEM_CALL,
    ITEM_NCCL
};
enum part_kind {
    PART_SEND,
    PART_RECV,
    PART_BROADCAST,
    PART_ALL_GATHER,
    PART_ALL_REDUCE
};

typedef uint32_t clock_vector[MACHINE_STREAMS];

struct part { /* of a call of NCCL */
    enum part_kind kind;
    int comm, me, peer; /* root */
    uint32_t seq;       /* between the two, or of the communicator */
    const char *send;
    char *recv;
    size_t bytes;
    CUstream stream;
    uint32_t item; /* that it is a part of */
    bool is_active, is_moved, is_done;
};

struct item {
    enum kind kind;
    uint32_t stream, tick; /* from 1 */
    uint32_t next;         /* in its stream; 0: none */
    char *to;
    const char *in[INPUTS];
    int n_in;
    size_t bytes;
    uint32_t value; /* of a word; scalar */
    const uint32_t *scalar_at;
    bool equals; /* waits for the value itself, not for one that is as great */
    bool divides, is_write;
    uint32_t event; /* the item that it waits for; 0: nothing */
    void (*fn)(void *arg);
    void *arg;
    uint32_t first_part, n_parts; /* of the parts, those of this item are together */
    bool is_active, is_done;
    clock_vector start, end;
};

struct stream {
    int rank;
    uint32_t head, tail, n;
    clock_vector now;
};

struct region { /* of addresses; several may be the same memory */
    char *at;
    size_t bytes;
    uint64_t memory;
    bool is_mapped;
};

struct comm {
    int n;
    uint64_t seed;
    int low, high; /* of a pair */
    uint32_t sent[COMM_RANKS][COMM_RANKS], got[COMM_RANKS][COMM_RANKS],
        collectives[COMM_RANKS];
};
struct member {
    int comm, me;
};

struct machine {
    int rank;
    struct item *items; /* from 1 */
    uint32_t n_items;
    struct part *parts;
    uint32_t n_parts;
    struct stream streams[MACHINE_STREAMS];
    uint32_t n_streams;
    struct region regions[REGIONS];
    uint32_t n_regions;
    struct comm comms[COMMS];
    struct member members[COMMS][COMM_RANKS];
    uint32_t n_comms;
    bool is_in_group;
    uint32_t group_first;
};
extern struct machine machine;

struct item *machine_add(CUstream stream, enum kind kind);
void machine_install_nccl(void);
/* Which memory an address is in, and where. */
bool machine_where(const void *at, uint64_t *ret_memory, size_t *ret_offset);

#endif
