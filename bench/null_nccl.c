/* SPDX-License-Identifier: Apache-2.0
 * null_nccl.c - an NCCL whose calls do nothing: what bench_nccl_gate puts behind the interposer, to see what that alone costs.
 */
#include "orrery/gpu_abi.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT ncclResult_t ncclCommInitRank(ncclComm_t *comm, int n, ncclUniqueId id, int me)
{
    static char one;

    (void)n, (void)id, (void)me;
    *comm = (ncclComm_t)(void *)&one;
    return ncclSuccess;
}

EXPORT ncclResult_t ncclCommCuDevice(ncclComm_t comm, int *device)
{
    (void)comm;
    *device = 0;
    return ncclSuccess;
}

EXPORT ncclResult_t ncclGroupStart(void)
{
    return ncclSuccess;
}

EXPORT ncclResult_t ncclGroupEnd(void)
{
    return ncclSuccess;
}

EXPORT ncclResult_t ncclAllReduce(const void *send,
                                  void *recv,
                                  size_t count,
                                  ncclDataType_t type,
                                  ncclRedOp_t op,
                                  ncclComm_t comm,
                                  cudaStream_t stream)
{
    (void)send, (void)recv, (void)count, (void)type, (void)op, (void)comm, (void)stream;
    return ncclSuccess;
}

EXPORT ncclResult_t ncclSend(const void *send,
                             size_t count,
                             ncclDataType_t type,
                             int peer,
                             ncclComm_t comm,
                             cudaStream_t stream)
{
    (void)send, (void)count, (void)type, (void)peer, (void)comm, (void)stream;
    return ncclSuccess;
}
