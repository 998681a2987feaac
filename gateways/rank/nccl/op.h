/* SPDX-License-Identifier: Apache-2.0
 * op.h - operations and the making of communicators: checked and counted here, then issued to the real library, at once or at the
 * end of the group that they are in.
 *
 * A group is recorded and issued as a whole, so that a rank parks before it and never in its middle.  Clocks: a collective moves
 * its communicator's once in a group, a send or receive that of its pair each time, the making of a communicator the new one's,
 * a split its parent's.  What is refused by the checks is not counted, as the other ranks may not have made that mistake.
 */
#ifndef ORRI_NCCL_OP_H
#define ORRI_NCCL_OP_H

#include "comm.h"

struct orri_op {
    enum orr_clock_op kind;
    const void *send;
    void *recv;
    size_t count; /* as the call has it */
    ncclDataType_t type;
    ncclRedOp_t op; /* the program's */
    int root;       /* or peer; -1: none */
    ncclComm_t comm;
    cudaStream_t stream;
};

/* Checks, counts and issues, or adds to the open group. */
ncclResult_t orri_op_issue(const struct orri_op *op);
/* Puts a collective of a communicator whose ranks share devices into its stream. */
ncclResult_t orri_op_splice(struct orri_comm *c,
                            const struct orri_op *op,
                            const struct orri_redop *redop);
/* The real call. */
ncclResult_t orri_op_call(const struct orri_op *op, ncclComm_t real, ncclRedOp_t redop);
struct orri_clock *orri_op_clock(struct orri_comm *c, const struct orri_op *op);

enum orri_making_kind {
    ORRI_MAKE_INIT,
    ORRI_MAKE_SCALABLE,
    ORRI_MAKE_SPLIT,
    ORRI_MAKE_SHRINK
};

struct orri_making {
    enum orri_making_kind kind;
    struct orri_comm *c; /* the new one; NULL: a split that makes none here */
    ncclComm_t *program; /* borrowed: where the program wants its handle */
    ncclComm_t handle;
    struct orri_comm *parent; /* split, shrink */
    ncclUniqueId *ids;        /* owned: nids */
    int nids, n, me, color, key;
    int *excluded; /* owned: nexcluded */
    int nexcluded, flags;
    struct orri_config config; /* as passed */
    uint64_t meeting;          /* of a split: what its places are told under */
    struct orri_place
        *places; /* owned: of all ranks of c, where devices are shared; else NULL */
};

/* All of a group, or one: where devices are shared the members tell each other their places around `issue`. */
ncclResult_t orri_makings_run(struct orri_making *const *list,
                              size_t n,
                              ncclResult_t (*issue)(void *arg),
                              void *arg);

struct orri_clock *orri_making_clock(const struct orri_making *m);
/* The real call; then result() with what came of it (of the group, in one). */
ncclResult_t orri_making_call(struct orri_making *m);
void orri_making_result(struct orri_making *m, ncclResult_t result);
void orri_making_free(struct orri_making *m);

/* A window that a group registers. */
struct orri_window {
    struct orri_comm *c;
    struct orri_buffer *buffer; /* owned until result */
    ncclWindow_t *program;
};
ncclResult_t orri_window_call(struct orri_window *w);
ncclResult_t orri_window_result(struct orri_window *w, ncclResult_t result);

/* The calling thread's group (group.c). */
bool orri_group_is_open(void);
/* Notes an error of a call in the group, which fails at its end; returns it. */
ncclResult_t orri_group_note(ncclResult_t result);
/* c: NULL when the communicator is not ours.  These take over redop's reference, m and w, also on failure. */
ncclResult_t orri_group_add_op(struct orri_comm *c,
                               const struct orri_op *op,
                               struct orri_redop *redop);
ncclResult_t orri_group_add_making(struct orri_making *m);
ncclResult_t orri_group_add_window(struct orri_window *w);

#endif
