/* SPDX-License-Identifier: Apache-2.0
 * api_op.c - the exported collectives, sends and receives (op.h).
 */
#include "op.h"

#define ISSUE(...) return orri_op_issue(&(struct orri_op){__VA_ARGS__})

EXPORT ncclResult_t ncclAllReduce(const void *sendbuff,
                                  void *recvbuff,
                                  size_t count,
                                  ncclDataType_t datatype,
                                  ncclRedOp_t op,
                                  ncclComm_t comm,
                                  cudaStream_t stream)
{
    ENTER(AllReduce, sendbuff, recvbuff, count, datatype, op, comm, stream);
    ISSUE(ORR_CLOCK_OP_ALL_REDUCE,
          sendbuff,
          recvbuff,
          count,
          datatype,
          op,
          -1,
          comm,
          stream);
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
    ENTER(Reduce, sendbuff, recvbuff, count, datatype, op, root, comm, stream);
    ISSUE(ORR_CLOCK_OP_REDUCE,
          sendbuff,
          recvbuff,
          count,
          datatype,
          op,
          root,
          comm,
          stream);
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
    ENTER(Broadcast, sendbuff, recvbuff, count, datatype, root, comm, stream);
    ISSUE(ORR_CLOCK_OP_BROADCAST,
          sendbuff,
          recvbuff,
          count,
          datatype,
          ncclSum,
          root,
          comm,
          stream);
}
ALIAS(Broadcast);

EXPORT ncclResult_t ncclBcast(void *buff,
                              size_t count,
                              ncclDataType_t datatype,
                              int root,
                              ncclComm_t comm,
                              cudaStream_t stream)
{
    ENTER(Bcast, buff, count, datatype, root, comm, stream);
    ISSUE(ORR_CLOCK_OP_BROADCAST,
          buff,
          buff,
          count,
          datatype,
          ncclSum,
          root,
          comm,
          stream);
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
    ENTER(ReduceScatter, sendbuff, recvbuff, recvcount, datatype, op, comm, stream);
    ISSUE(ORR_CLOCK_OP_REDUCE_SCATTER,
          sendbuff,
          recvbuff,
          recvcount,
          datatype,
          op,
          -1,
          comm,
          stream);
}
ALIAS(ReduceScatter);

EXPORT ncclResult_t ncclAllGather(const void *sendbuff,
                                  void *recvbuff,
                                  size_t sendcount,
                                  ncclDataType_t datatype,
                                  ncclComm_t comm,
                                  cudaStream_t stream)
{
    ENTER(AllGather, sendbuff, recvbuff, sendcount, datatype, comm, stream);
    ISSUE(ORR_CLOCK_OP_ALL_GATHER,
          sendbuff,
          recvbuff,
          sendcount,
          datatype,
          ncclSum,
          -1,
          comm,
          stream);
}
ALIAS(AllGather);

EXPORT ncclResult_t ncclAlltoAll(const void *sendbuff,
                                 void *recvbuff,
                                 size_t count,
                                 ncclDataType_t datatype,
                                 ncclComm_t comm,
                                 cudaStream_t stream)
{
    ENTER(AlltoAll, sendbuff, recvbuff, count, datatype, comm, stream);
    ISSUE(ORR_CLOCK_OP_ALL_TO_ALL,
          sendbuff,
          recvbuff,
          count,
          datatype,
          ncclSum,
          -1,
          comm,
          stream);
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
    ENTER(Gather, sendbuff, recvbuff, count, datatype, root, comm, stream);
    ISSUE(ORR_CLOCK_OP_GATHER,
          sendbuff,
          recvbuff,
          count,
          datatype,
          ncclSum,
          root,
          comm,
          stream);
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
    ENTER(Scatter, sendbuff, recvbuff, count, datatype, root, comm, stream);
    ISSUE(ORR_CLOCK_OP_SCATTER,
          sendbuff,
          recvbuff,
          count,
          datatype,
          ncclSum,
          root,
          comm,
          stream);
}
ALIAS(Scatter);

EXPORT ncclResult_t ncclSend(const void *sendbuff,
                             size_t count,
                             ncclDataType_t datatype,
                             int peer,
                             ncclComm_t comm,
                             cudaStream_t stream)
{
    ENTER(Send, sendbuff, count, datatype, peer, comm, stream);
    ISSUE(ORR_CLOCK_OP_SEND,
          sendbuff,
          NULL,
          count,
          datatype,
          ncclSum,
          peer,
          comm,
          stream);
}
ALIAS(Send);

EXPORT ncclResult_t ncclRecv(void *recvbuff,
                             size_t count,
                             ncclDataType_t datatype,
                             int peer,
                             ncclComm_t comm,
                             cudaStream_t stream)
{
    ENTER(Recv, recvbuff, count, datatype, peer, comm, stream);
    ISSUE(ORR_CLOCK_OP_RECV,
          NULL,
          recvbuff,
          count,
          datatype,
          ncclSum,
          peer,
          comm,
          stream);
}
ALIAS(Recv);
