/* SPDX-License-Identifier: Apache-2.0
 * api.c - the exported calls about the library and about existing communicators, and
 * those that are not emulated: they fail, and are counted.
 */
#include "export.h"
#include "op.h"
#include "thread.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

/* ---- The library --------------------------------------------------------------------
 */

EXPORT ncclResult_t ncclGetVersion(int *version)
{
    if (!version)
        return orri_fail(ncclInvalidArgument, "ncclGetVersion: version is NULL");
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}
ALIAS(GetVersion);

EXPORT const char *ncclGetErrorString(ncclResult_t result)
{
    static const char *const text[ncclNumResults] = {
        [ncclSuccess] = "no error",
        [ncclUnhandledCudaError] = "unhandled cuda error (run with NCCL_DEBUG=INFO for "
                                   "details)",
        [ncclSystemError] =
            "unhandled system error (run with NCCL_DEBUG=INFO for details)",
        [ncclInternalError] = "internal error - please report this issue to the NCCL "
                              "developers",
        [ncclInvalidArgument] =
            "invalid argument (run with NCCL_DEBUG=WARN for details)",
        [ncclInvalidUsage] = "invalid usage (run with NCCL_DEBUG=WARN for details)",
        [ncclRemoteError] = "remote process exited or there was a network error",
        [ncclInProgress] = "NCCL operation in progress",
    };

    return (unsigned)result < ncclNumResults ? text[result] : "unknown result code";
}
ALIAS(GetErrorString);

EXPORT const char *ncclGetLastError(ncclComm_t handle)
{
    struct ncclComm *comm = handle ? orri_comm_get(handle) : NULL;
    struct orri_why why = {.text = ""};
    ncclResult_t state = ncclSuccess;

    if (comm) {
        state = orri_comm_state(comm, &why);
        orri_comm_put(comm);
    }
    if (state != ncclSuccess && state != ncclInProgress)
        orri_fail(state, "%s", why.text);
    return orri_last_error();
}
ALIAS(GetLastError);

EXPORT void ncclResetDebugInit(void) {} /* NCCL_DEBUG is read anew each time */
ALIAS(ResetDebugInit);

EXPORT ncclResult_t ncclMemAlloc(void **ptr, size_t size)
{
    struct orri_why why;
    const struct orri_driver *d = orri_driver_get(&why);
    CUdeviceptr at = 0;
    CUresult got;

    if (!ptr || size == 0)
        return orri_fail(ncclInvalidArgument, "ncclMemAlloc: ptr is NULL or size is 0");
    if (!d)
        return orri_fail(ncclUnhandledCudaError, "%s", why.text);
    got = d->mem_alloc(&at, size);
    if (got != CUDA_SUCCESS) {
        orri_driver_fail(&why, "cuMemAlloc", got);
        return orri_fail(ncclUnhandledCudaError, "%s", why.text);
    }
    *ptr = (void *)(uintptr_t)at;
    return ncclSuccess;
}
ALIAS(MemAlloc);

EXPORT ncclResult_t ncclMemFree(void *ptr)
{
    struct orri_why why;
    const struct orri_driver *d = orri_driver_get(&why);
    CUresult got;

    if (!ptr)
        return ncclSuccess;
    if (!d)
        return orri_fail(ncclUnhandledCudaError, "%s", why.text);
    got = d->mem_free((CUdeviceptr)(uintptr_t)ptr);
    if (got == CUDA_SUCCESS)
        return ncclSuccess;
    orri_driver_fail(&why, "cuMemFree", got);
    return orri_fail(ncclUnhandledCudaError, "%s", why.text);
}
ALIAS(MemFree);

/* ---- Questions ----------------------------------------------------------------------
 */

enum question { COUNT, DEVICE, RANK };

static ncclResult_t ask(ncclComm_t handle, enum question what, int *ret)
{
    struct ncclComm *comm = orri_comm_get(handle);
    ncclResult_t result;

    if (!comm)
        return ncclInvalidArgument;
    result = ret ? orri_comm_check(comm)
                 : orri_fail(ncclInvalidArgument, "the result pointer is NULL");
    if (result == ncclSuccess)
        *ret = what == COUNT    ? comm->nranks
               : what == DEVICE ? comm->place.device
                                : comm->rank;
    orri_comm_put(comm);
    return result;
}

EXPORT ncclResult_t ncclCommCount(ncclComm_t comm, int *count)
{
    return ask(comm, COUNT, count);
}
ALIAS(CommCount);

EXPORT ncclResult_t ncclCommCuDevice(ncclComm_t comm, int *device)
{
    return ask(comm, DEVICE, device);
}
ALIAS(CommCuDevice);

EXPORT ncclResult_t ncclCommUserRank(ncclComm_t comm, int *rank)
{
    return ask(comm, RANK, rank);
}
ALIAS(CommUserRank);

EXPORT ncclResult_t ncclCommGetAsyncError(ncclComm_t handle, ncclResult_t *error)
{
    struct ncclComm *comm = orri_comm_get(handle);
    struct orri_why why;

    if (!comm)
        return ncclInvalidArgument;
    if (error)
        *error = orri_comm_state(comm, &why);
    orri_comm_put(comm);
    return error ? ncclSuccess
                 : orri_fail(ncclInvalidArgument, "the result pointer is NULL");
}
ALIAS(CommGetAsyncError);

/* ---- The end ------------------------------------------------------------------------
 */

static void finalize(struct ncclComm *comm)
{
    orri_comm_drain(comm);
    pthread_mutex_lock(&comm->lock);
    if (comm->state == ncclInProgress)
        comm->state = ncclSuccess;
    pthread_cond_broadcast(&comm->turn);
    pthread_mutex_unlock(&comm->lock);
}

static void *finalize_behind(void *arg)
{
    finalize(arg);
    orri_comm_put(arg);
    return NULL;
}

/* Marks it finalized, once. */
static ncclResult_t begin_finalize(struct ncclComm *comm)
{
    ncclResult_t result = orri_comm_check(comm);

    pthread_mutex_lock(&comm->lock);
    if (result == ncclSuccess && comm->is_finalized)
        result =
            orri_fail(ncclInvalidArgument, "the communicator is finalized already");
    if (result == ncclSuccess) {
        comm->is_finalized = true;
        if (!orri_comm_is_blocking(comm))
            comm->state = ncclInProgress;
    }
    pthread_mutex_unlock(&comm->lock);
    return result;
}

EXPORT ncclResult_t ncclCommFinalize(ncclComm_t handle)
{
    struct ncclComm *comm = orri_comm_get(handle);
    ncclResult_t result;

    if (!comm)
        return ncclInvalidArgument;
    result = begin_finalize(comm);
    if (result == ncclSuccess && !orri_comm_is_blocking(comm)) {
        orri_comm_ref(comm);
        if (orri_thread_start(finalize_behind, comm) == 0)
            result = ncclInProgress;
        else
            finalize_behind(comm);
    } else if (result == ncclSuccess) {
        finalize(comm);
        result = orri_comm_check(comm);
    }
    orri_comm_put(comm);
    return result;
}
ALIAS(CommFinalize);

EXPORT ncclResult_t ncclCommDestroy(ncclComm_t handle)
{
    struct ncclComm *comm;

    if (!handle)
        return ncclSuccess;
    comm = orri_comm_get(handle);
    if (!comm)
        return ncclInvalidArgument;
    pthread_mutex_lock(&comm->lock);
    while (comm->state == ncclInProgress && !atomic_load(&comm->aborted))
        pthread_cond_wait(&comm->turn, &comm->lock);
    pthread_mutex_unlock(&comm->lock);
    orri_comm_drain(comm);
    if (comm->is_mapped)
        orri_rank_mark(&comm->seg, comm->rank, RANK_LEFT);
    orri_comm_forget(comm);
    orri_comm_put(comm);
    return ncclSuccess;
}
ALIAS(CommDestroy);

EXPORT ncclResult_t ncclCommAbort(ncclComm_t handle)
{
    struct ncclComm *comm;

    if (!handle)
        return ncclSuccess;
    comm = orri_comm_get(handle);
    if (!comm)
        return ncclInvalidArgument;
    pthread_mutex_lock(&comm->lock);
    atomic_store(&comm->aborted, true);
    eventfd_write(comm->cancel, 1);
    if (comm->is_mapped)
        orri_rank_mark(&comm->seg, comm->rank, RANK_ABORTED);
    pthread_cond_broadcast(&comm->turn);
    while (comm->running > 0)
        pthread_cond_wait(&comm->turn, &comm->lock);
    pthread_mutex_unlock(&comm->lock);
    orri_comm_forget(comm);
    orri_comm_put(comm);
    return ncclSuccess;
}
ALIAS(CommAbort);

/* ---- What is not emulated -----------------------------------------------------------
 */

enum absent {
    SHRINK,
    REVOKE,
    WINDOW_REGISTER,
    WINDOW_DEREGISTER,
    SIMULATE,
    ABSENT_MAX_
};

static const char *const absent_names[ABSENT_MAX_] = {
    [SHRINK] = "ncclCommShrink",
    [REVOKE] = "ncclCommRevoke",
    [WINDOW_REGISTER] = "ncclCommWindowRegister",
    [WINDOW_DEREGISTER] = "ncclCommWindowDeregister",
    [SIMULATE] = "ncclGroupSimulateEnd",
};
static atomic_ulong absent_calls[ABSENT_MAX_];

static ncclResult_t absent(enum absent call)
{
    atomic_fetch_add(&absent_calls[call], 1);
    return orri_group_note(orri_fail(ncclInvalidUsage,
                                     "%s is not emulated: it needs the real NCCL",
                                     absent_names[call]));
}

/* The calls that are not emulated and how often each was made; NULL past the last. Its
 * presence tells a program that this is the emulator. */
EXPORT const char *orrEmuNcclUnsupported(unsigned index, uint64_t *ret_count);

EXPORT const char *orrEmuNcclUnsupported(unsigned index, uint64_t *ret_count)
{
    if (index >= ABSENT_MAX_)
        return NULL;
    *ret_count = atomic_load(&absent_calls[index]);
    return absent_names[index];
}

__attribute__((destructor)) static void print_absent(void)
{
    const char *verbose = getenv("ORRERY_EMULATOR_VERBOSE"), *name;
    uint64_t count;

    if (!verbose || strcmp(verbose, "1") != 0)
        return;
    for (unsigned i = 0; (name = orrEmuNcclUnsupported(i, &count)); i++)
        if (count > 0)
            fprintf(stderr,
                    "emulated libnccl: not emulated: %s (%" PRIu64 " times)\n",
                    name,
                    count);
}

EXPORT ncclResult_t ncclCommShrink(ncclComm_t comm,
                                   int *excluded,
                                   int nexcluded,
                                   ncclComm_t *newcomm,
                                   ncclConfig_t *config,
                                   int flags)
{
    (void)comm, (void)excluded, (void)nexcluded, (void)newcomm, (void)config,
        (void)flags;
    return absent(SHRINK);
}
ALIAS(CommShrink);

EXPORT ncclResult_t ncclCommRevoke(ncclComm_t comm, int flags)
{
    (void)comm, (void)flags;
    return absent(REVOKE);
}
ALIAS(CommRevoke);

EXPORT ncclResult_t ncclCommWindowRegister(
    ncclComm_t comm, void *buff, size_t size, ncclWindow_t *win, int flags)
{
    (void)comm, (void)buff, (void)size, (void)win, (void)flags;
    return absent(WINDOW_REGISTER);
}
ALIAS(CommWindowRegister);

EXPORT ncclResult_t ncclCommWindowDeregister(ncclComm_t comm, ncclWindow_t win)
{
    (void)comm, (void)win;
    return absent(WINDOW_DEREGISTER);
}
ALIAS(CommWindowDeregister);

EXPORT ncclResult_t ncclGroupSimulateEnd(ncclSimInfo_t *info)
{
    (void)info;
    return absent(SIMULATE);
}
ALIAS(GroupSimulateEnd);
