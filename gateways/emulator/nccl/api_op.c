/* SPDX-License-Identifier: Apache-2.0
 * api_op.c - the exported collectives, sends and receives: checks, then op.h.
 */
#include "export.h"
#include "op.h"

static bool reduces(enum orri_kind kind)
{
    return kind == OP_ALL_REDUCE || kind == OP_REDUCE || kind == OP_REDUCE_SCATTER;
}

static bool reads(const struct orri_op *op, bool is_root)
{
    return op->kind == OP_BROADCAST || op->kind == OP_SCATTER ? is_root
                                                              : op->kind != OP_RECV;
}

static bool writes(const struct orri_op *op, bool is_root)
{
    return op->kind == OP_REDUCE || op->kind == OP_GATHER ? is_root
                                                          : op->kind != OP_SEND;
}

static ncclResult_t check(const struct ncclComm *comm, const struct orri_op *op)
{
    const char *call = orri_kind_name(op->kind);
    size_t size = orri_type_size(op->type);
    bool is_root = op->root == comm->rank;

    if (op->root < 0 || op->root >= comm->nranks)
        return orri_fail(ncclInvalidArgument,
                         "nccl%s: rank %d is not in 0 to %d",
                         call,
                         op->root,
                         comm->nranks - 1);
    if (size == 0)
        return orri_fail(
            ncclInvalidArgument, "nccl%s: %d is not a data type", call, (int)op->type);
    if (op->count > SIZE_MAX / size / (size_t)comm->nranks)
        return orri_fail(ncclInvalidArgument,
                         "nccl%s: count %zu is more than memory can hold",
                         call,
                         op->count);
    if (op->count > 0 && reads(op, is_root) && !op->send)
        return orri_fail(ncclInvalidArgument, "nccl%s: sendbuff is NULL", call);
    if (op->count > 0 && writes(op, is_root) && !op->recv)
        return orri_fail(ncclInvalidArgument, "nccl%s: recvbuff is NULL", call);
    return ncclSuccess;
}

static ncclResult_t
issue(ncclComm_t handle, struct orri_op op, ncclRedOp_t redop, cudaStream_t stream)
{
    struct ncclComm *comm = orri_comm_get(handle);
    ncclResult_t result;

    if (!comm)
        return orri_group_note(ncclInvalidArgument);
    result = orri_comm_check(comm);
    if (result == ncclSuccess && orri_comm_is_finalized(comm))
        result = orri_fail(ncclInvalidUsage, "the communicator is finalized");
    if (result == ncclSuccess)
        result = check(comm, &op);
    if (result == ncclSuccess && reduces(op.kind))
        result = orri_reduction_get(comm, redop, op.type, &op.reduction);
    if (result == ncclSuccess)
        result = orri_group_add(comm, &op, stream);
    orri_comm_put(comm);
    return orri_group_note(result);
}

EXPORT ncclResult_t ncclAllReduce(const void *sendbuff,
                                  void *recvbuff,
                                  size_t count,
                                  ncclDataType_t datatype,
                                  ncclRedOp_t op,
                                  ncclComm_t comm,
                                  cudaStream_t stream)
{
    struct orri_op o = {OP_ALL_REDUCE, sendbuff, recvbuff, count, datatype, {0}, 0};
    return issue(comm, o, op, stream);
}
ALIAS(AllReduce);

EXPORT ncclResult_t ncclReduce(const void *sendbuff,
                               void *recvbuff,
                               size_t count,
                               ncclDataType_t datatype,
                               ncclRedOp_t op,
                               int root,
                               ncclComm_t comm,
                               cudaStream_t stream)
{
    struct orri_op o = {OP_REDUCE, sendbuff, recvbuff, count, datatype, {0}, root};
    return issue(comm, o, op, stream);
}
ALIAS(Reduce);

EXPORT ncclResult_t ncclBroadcast(const void *sendbuff,
                                  void *recvbuff,
                                  size_t count,
                                  ncclDataType_t datatype,
                                  int root,
                                  ncclComm_t comm,
                                  cudaStream_t stream)
{
    struct orri_op o = {OP_BROADCAST, sendbuff, recvbuff, count, datatype, {0}, root};
    return issue(comm, o, ncclSum, stream);
}
ALIAS(Broadcast);

EXPORT ncclResult_t ncclBcast(void *buff,
                              size_t count,
                              ncclDataType_t datatype,
                              int root,
                              ncclComm_t comm,
                              cudaStream_t stream)
{
    return ncclBroadcast(buff, buff, count, datatype, root, comm, stream);
}
ALIAS(Bcast);

EXPORT ncclResult_t ncclReduceScatter(const void *sendbuff,
                                      void *recvbuff,
                                      size_t recvcount,
                                      ncclDataType_t datatype,
                                      ncclRedOp_t op,
                                      ncclComm_t comm,
                                      cudaStream_t stream)
{
    struct orri_op o = {
        OP_REDUCE_SCATTER, sendbuff, recvbuff, recvcount, datatype, {0}, 0};
    return issue(comm, o, op, stream);
}
ALIAS(ReduceScatter);

EXPORT ncclResult_t ncclAllGather(const void *sendbuff,
                                  void *recvbuff,
                                  size_t sendcount,
                                  ncclDataType_t datatype,
                                  ncclComm_t comm,
                                  cudaStream_t stream)
{
    struct orri_op o = {OP_ALL_GATHER, sendbuff, recvbuff, sendcount, datatype, {0}, 0};
    return issue(comm, o, ncclSum, stream);
}
ALIAS(AllGather);

EXPORT ncclResult_t ncclAlltoAll(const void *sendbuff,
                                 void *recvbuff,
                                 size_t count,
                                 ncclDataType_t datatype,
                                 ncclComm_t comm,
                                 cudaStream_t stream)
{
    struct orri_op o = {OP_ALL_TO_ALL, sendbuff, recvbuff, count, datatype, {0}, 0};
    return issue(comm, o, ncclSum, stream);
}
ALIAS(AlltoAll);

EXPORT ncclResult_t ncclGather(const void *sendbuff,
                               void *recvbuff,
                               size_t count,
                               ncclDataType_t datatype,
                               int root,
                               ncclComm_t comm,
                               cudaStream_t stream)
{
    struct orri_op o = {OP_GATHER, sendbuff, recvbuff, count, datatype, {0}, root};
    return issue(comm, o, ncclSum, stream);
}
ALIAS(Gather);

EXPORT ncclResult_t ncclScatter(const void *sendbuff,
                                void *recvbuff,
                                size_t count,
                                ncclDataType_t datatype,
                                int root,
                                ncclComm_t comm,
                                cudaStream_t stream)
{
    struct orri_op o = {OP_SCATTER, sendbuff, recvbuff, count, datatype, {0}, root};
    return issue(comm, o, ncclSum, stream);
}
ALIAS(Scatter);

EXPORT ncclResult_t ncclSend(const void *sendbuff,
                             size_t count,
                             ncclDataType_t datatype,
                             int peer,
                             ncclComm_t comm,
                             cudaStream_t stream)
{
    struct orri_op o = {OP_SEND, sendbuff, NULL, count, datatype, {0}, peer};
    return issue(comm, o, ncclSum, stream);
}
ALIAS(Send);

EXPORT ncclResult_t ncclRecv(void *recvbuff,
                             size_t count,
                             ncclDataType_t datatype,
                             int peer,
                             ncclComm_t comm,
                             cudaStream_t stream)
{
    struct orri_op o = {OP_RECV, NULL, recvbuff, count, datatype, {0}, peer};
    return issue(comm, o, ncclSum, stream);
}
ALIAS(Recv);
