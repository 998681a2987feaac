/* SPDX-License-Identifier: Apache-2.0
 * segment.h - the memory that the ranks of one communicator share.
 *
 * A memfd, mapped by every rank, holds:
 *   - the state of each rank: here, left, dead, aborted, failed;
 *   - two *lanes*, for stream operations and for control (init, split). A lane is a
 *     sequence of supersteps: in step k a rank writes into its own half k%2, all ranks
 *     meet (orri_lane_meet), then each reads what it needs from the halves k%2 of the
 *     others. A half is written again two steps later; every rank has then met once
 *     more, so nobody still reads it. One meeting a step is all the synchronisation;
 *   - for each ordered pair of ranks a *pipe* of a few slots, and for each rank a
 *     *doorbell* that is rung when one of its pipes has moved.
 * Waiting is by futex, never by spinning. Whoever leaves, dies or fails marks itself
 * (or is marked by a neighbour) and wakes everyone, so a wait ends when it cannot
 * succeed.
 *
 * Threads: a lane is used by one thread of a rank at a time; pipes likewise per end.
 */
#ifndef ORRI_SEGMENT_H
#define ORRI_SEGMENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ORRI_RANKS_MAX = 256,
    ORRI_HALF_BYTES = 256 * 1024, /* of the data lane */
    ORRI_CONTROL_BYTES = 256,     /* of the control lane */
    ORRI_PIPE_SLOTS = 4,
    ORRI_SLOT_BYTES = 16 * 1024,
};

/* Lost from RANK_FAILED on; the later, the nearer to the cause. */
enum orri_rank_state { RANK_HERE, RANK_LEFT, RANK_FAILED, RANK_ABORTED, RANK_DEAD };

enum orri_lane_id { LANE_DATA, LANE_CONTROL, LANE_MAX_ };

enum orri_wait {
    WAIT_OK,
    WAIT_GONE,    /* a rank that is needed is gone */
    WAIT_TIMEOUT, /* the deadline passed */
};

/* What a rank is about to do in a step: equal on all ranks, or the program is wrong. */
struct orri_intent {
    uint32_t kind; /* enum op_kind */
    uint32_t type;
    uint32_t op;
    int32_t root;
    uint64_t count;
};

struct orri_slot {
    uint32_t bytes; /* in this slot */
    uint32_t type;
    uint64_t total; /* bytes of the whole message, in its first slot; else 0 */
};

/* head: slots filled by the sender; tail: slots emptied by the receiver. */
struct orri_pipe {
    _Alignas(64) _Atomic uint32_t head;
    _Alignas(64) _Atomic uint32_t tail;
    struct orri_slot slot[ORRI_PIPE_SLOTS];
    _Alignas(64) char data[ORRI_PIPE_SLOTS][ORRI_SLOT_BYTES];
};

struct orri_segment {
    struct orri_shared *shared; /* owned mapping */
    size_t bytes;
    int nranks;
    int rank;
    uint32_t step[LANE_MAX_];
};

/* Bytes of a segment for `nranks`. */
size_t orri_segment_bytes(int nranks);
/* Maps fd, which stays the caller's. Returns 0 or -errno. */
int orri_segment_map(struct orri_segment *seg, int fd, int nranks, int rank);
void orri_segment_unmap(struct orri_segment *seg);

/* This step's half of `rank`, and what it said it would do. */
char *orri_lane_half(struct orri_segment *seg, enum orri_lane_id lane, int rank);
struct orri_intent *
orri_lane_intent(struct orri_segment *seg, enum orri_lane_id lane, int rank);
/* Meets all ranks. The halves read afterwards are those written before: call
 * orri_lane_next to go on to the next step. deadline_ms: monotonic, 0 for none. */
enum orri_wait
orri_lane_meet(struct orri_segment *seg, enum orri_lane_id lane, uint64_t deadline_ms);
void orri_lane_next(struct orri_segment *seg, enum orri_lane_id lane);

struct orri_pipe *orri_pipe_get(struct orri_segment *seg, int from, int to);
uint32_t orri_doorbell_read(struct orri_segment *seg);
void orri_doorbell_ring(struct orri_segment *seg, int rank);
/* Sleeps until the own doorbell differs from `seen`. */
void orri_doorbell_wait(struct orri_segment *seg, uint32_t seen);

enum orri_rank_state orri_rank_get(struct orri_segment *seg, int rank);
/* HERE -> state, once, and wakes everybody. Returns false if the rank was already gone.
 */
bool orri_rank_mark(struct orri_segment *seg, int rank, enum orri_rank_state state);
/* The rank that is lost, of several one that is nearest to the cause; -1 for none. */
int orri_rank_lost(struct orri_segment *seg);
/* A rank that is not here any more, whyever; -1 for none. */
int orri_rank_gone(struct orri_segment *seg);

uint64_t orri_now_ms(void);

#endif
