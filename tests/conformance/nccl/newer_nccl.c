/* SPDX-License-Identifier: Apache-2.0
 * newer_nccl.c - stands for an NCCL of the future behind the interposer: one call of newer.def with every kind of argument, which
 * says whether they all arrived.
 */
#include "orrery/gpu_abi.h"

#define EXPORT __attribute__((visibility("default")))

static char one;

EXPORT ncclResult_t ncclCommInitRank(ncclComm_t *comm, int n, ncclUniqueId id, int me)
{
    (void)n, (void)id, (void)me;
    *comm = (ncclComm_t)(void *)&one;
    return ncclSuccess;
}

EXPORT ncclResult_t ncclCommCuDevice(ncclComm_t comm, int *device)
{
    *device = 0;
    return comm == (ncclComm_t)(void *)&one ? ncclSuccess : ncclInvalidArgument;
}

EXPORT ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    return comm == (ncclComm_t)(void *)&one ? ncclSuccess : ncclInvalidArgument;
}

EXPORT ncclResult_t ncclPutSignal(int a,
                                  ncclComm_t first,
                                  double x,
                                  int b,
                                  long c,
                                  int d,
                                  ncclComm_t sixth,
                                  long on_stack,
                                  float y);

EXPORT ncclResult_t ncclPutSignal(int a,
                                  ncclComm_t first,
                                  double x,
                                  int b,
                                  long c,
                                  int d,
                                  ncclComm_t sixth,
                                  long on_stack,
                                  float y)
{
    ncclComm_t real = (ncclComm_t)(void *)&one;

    return a == 1 && first == real && x == 2.5 && b == 3 && c == 4 && d == 5 &&
                   sixth == real && on_stack == 7 && y == 8.5f
               ? ncclSuccess
               : ncclInternalError;
}
