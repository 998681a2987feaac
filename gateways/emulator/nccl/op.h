/* SPDX-License-Identifier: Apache-2.0
 * op.h - one operation of a communicator, as it is issued, and how it runs.
 *
 * THE ORDER OF A REDUCTION is a promise: it depends on the number of ranks alone. With
 * x[r] the input of rank r, for d = 1, 2, 4, ...: x[i] = x[i] op x[i + d] for every i
 * that is a multiple of 2d with i + d < n; x[0] is the result. Each partial result is
 * rounded to the data type. So the bits are the same from run to run and on whatever
 * nodes the ranks live; and ranks of an aligned block of a power of two may be combined
 * beforehand without changing them. ncclAvg multiplies floats by 1/n first, as NCCL
 * does, and divides integers at the end, towards zero.
 */
#ifndef ORRI_OP_H
#define ORRI_OP_H

#include "comm.h"
#include "numeric.h"

enum orri_kind {
    OP_ALL_REDUCE,
    OP_REDUCE,
    OP_BROADCAST,
    OP_ALL_GATHER,
    OP_REDUCE_SCATTER,
    OP_ALL_TO_ALL,
    OP_GATHER,
    OP_SCATTER,
    OP_SEND,
    OP_RECV,
    OP_MAX_
};

/* A reduction; what ncclRedOp_t stands for. */
struct orri_reduction {
    ncclRedOp_t op;               /* ncclSum to ncclAvg */
    bool scales;                  /* PreMulSum: by */
    union orri_scalar scalar;     /* this, or */
    const void *scalar_on_device; /* what is here when it runs, if not NULL */
};

struct orri_op {
    enum orri_kind kind;
    const void *send;
    void *recv;
    size_t count; /* as the call has it: of a block where there are blocks */
    ncclDataType_t type;
    struct orri_reduction reduction;
    int root; /* or the peer */
};

const char *orri_kind_name(enum orri_kind kind);

/* Runs one collective to its end. Errors: remote, invalid usage (ranks disagree). */
ncclResult_t orri_collective_run(struct ncclComm *comm,
                                 const struct orri_op *op,
                                 struct orri_why *why);
/* Runs sends and receives side by side, in order per pair and direction. Same errors.
 */
ncclResult_t orri_exchange_run(struct ncclComm *comm,
                               const struct orri_op *ops,
                               size_t nops,
                               struct orri_why *why);

/* Adds to the thread's group, or launches at once if it has none. Takes no reference.
 */
ncclResult_t
orri_group_add(struct ncclComm *comm, const struct orri_op *op, CUstream stream);
/* In a group: fn(arg) runs at its end, side by side with its like; else now. If the
 * group fails, it is called with runs = false, only to dispose of its argument. */
typedef ncclResult_t orri_group_job_f(void *arg, bool runs);
ncclResult_t orri_group_job(orri_group_job_f *fn, void *arg);
/* Remembers a failure of a call, for ncclGroupEnd. Returns it. */
ncclResult_t orri_group_note(ncclResult_t result);
bool orri_group_is_open(void);

/* What ncclRedOp_t means to this communicator. Errors: invalid argument. */
ncclResult_t orri_reduction_get(struct ncclComm *comm,
                                ncclRedOp_t op,
                                ncclDataType_t type,
                                struct orri_reduction *ret);

#endif
