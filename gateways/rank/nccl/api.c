/* SPDX-License-Identifier: Apache-2.0
 * api.c - the exported calls about the library and about existing communicators.
 */
#include "places.h"

/* ---- The library --------------------------------------------------------------------- */

EXPORT ncclResult_t ncclGetVersion(int *version)
{
    ENTER(GetVersion, version);
    return REAL(GetVersion, version);
}
ALIAS(GetVersion);

EXPORT ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    ENTER(GetUniqueId, id);
    return REAL(GetUniqueId, id);
}
ALIAS(GetUniqueId);

EXPORT const char *ncclGetErrorString(ncclResult_t result)
{
    if (!orri_self.inside && !orri_real_ready())
        return "no NCCL was found";
    return orri_real.GetErrorString(result);
}
ALIAS(GetErrorString);

EXPORT const char *ncclGetLastError(ncclComm_t handle)
{
    struct orri_comm *c = orri_comm_find(handle);
    const char *text;

    if (orri_self.inside)
        return orri_real.GetLastError(handle);
    if (orri_self.is_ours || !orri_real_ready())
        return orri_self.text;
    orri_use_begin();
    text = orri_real.GetLastError(c ? atomic_load(&c->real) : NULL);
    orri_use_end();
    return text;
}
ALIAS(GetLastError);

extern void ncclResetDebugInit(void);
EXPORT void ncclResetDebugInit(void)
{
    if (orri_self.inside || orri_real_ready())
        orri_real.ResetDebugInit();
}
ALIAS(ResetDebugInit);

EXPORT ncclResult_t ncclMemAlloc(void **ptr, size_t size)
{
    ncclResult_t result;

    ENTER(MemAlloc, ptr, size);
    orri_use_begin();
    result = REAL(MemAlloc, ptr, size);
    orri_use_end();
    return result;
}
ALIAS(MemAlloc);

EXPORT ncclResult_t ncclMemFree(void *ptr)
{
    ncclResult_t result;

    ENTER(MemFree, ptr);
    orri_use_begin();
    result = REAL(MemFree, ptr);
    orri_use_end();
    return result;
}
ALIAS(MemFree);

/* ---- Questions ------------------------------------------------------------------------ */

static ncclResult_t
ask(ncclComm_t comm, ncclResult_t (*call)(ncclComm_t, int *), int *ret)
{
    struct orri_comm *c = orri_comm_get(comm);
    ncclResult_t result;
    ncclComm_t real;

    if (!c)
        return ncclInvalidArgument;
    orri_use_begin();
    if (ret && (atomic_load(&c->splice) || (atomic_load(&c->is_lost) && c->is_left))) {
        *ret = call == orri_real.CommCount      ? atomic_load(&c->n)
               : call == orri_real.CommUserRank ? c->me
                                                : c->device;
        orri_use_end();
        return ncclSuccess;
    }
    result = orri_comm_real(c, &real);
    if (result == ncclSuccess) {
        orri_self.inside++;
        orri_self.is_ours = false;
        result = call(real, ret);
        orri_self.inside--;
    }
    orri_use_end();
    return result;
}

EXPORT ncclResult_t ncclCommCount(ncclComm_t comm, int *count)
{
    ENTER_COMM(comm, CommCount, comm, count);
    return ask(comm, orri_real.CommCount, count);
}
ALIAS(CommCount);

EXPORT ncclResult_t ncclCommCuDevice(ncclComm_t comm, int *device)
{
    ENTER_COMM(comm, CommCuDevice, comm, device);
    return ask(comm, orri_real.CommCuDevice, device);
}
ALIAS(CommCuDevice);

EXPORT ncclResult_t ncclCommUserRank(ncclComm_t comm, int *rank)
{
    ENTER_COMM(comm, CommUserRank, comm, rank);
    return ask(comm, orri_real.CommUserRank, rank);
}
ALIAS(CommUserRank);

/* Watchdogs ask this all the time, also while the process is stopped: then all is well. */
EXPORT ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
    struct orri_comm *c;
    ncclResult_t result = ncclSuccess;
    ncclComm_t real;

    ENTER_COMM(comm, CommGetAsyncError, comm, error);
    c = orri_comm_get(comm);
    if (!c)
        return ncclInvalidArgument;
    if (error && atomic_load(&c->is_lost) && c->is_left && !atomic_load(&c->is_told)) {
        *error = ncclSuccess; /* it has not been used since */
    } else if (error && orri_use_try()) {
        *error = orri_comm_real(c, &real);
        if (*error == ncclSuccess && atomic_load(&c->splice))
            *error = orri_splice_ask(c);
        else if (*error == ncclSuccess && real)
            result = REAL(CommGetAsyncError, real, error);
        orri_use_end();
    } else if (error) {
        *error = ncclSuccess;
    } else {
        result = orri_nccl_fail(ncclInvalidArgument, "the result pointer is NULL");
    }
    return result;
}
ALIAS(CommGetAsyncError);

/* ---- The end --------------------------------------------------------------------------- */

/* A stop that comes meanwhile destroys the real one after this has returned. */
EXPORT ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    struct orri_comm *c;
    ncclResult_t result = ncclSuccess;
    bool was_finalized;
    ncclComm_t real;

    ENTER_COMM(comm, CommFinalize, comm);
    c = orri_comm_get(comm);
    if (!c)
        return ncclInvalidArgument;
    orri_use_begin();
    was_finalized = atomic_exchange(&c->is_finalized, true);
    atomic_fetch_add(&c->finalizing, 1);
    real = atomic_load(&c->splice) ? NULL : atomic_load(&c->real);
    orri_use_end();
    if (was_finalized)
        result = orri_nccl_fail(ncclInvalidArgument,
                                "the communicator is finalized already");
    else if (real)
        result = REAL(CommFinalize, real);
    if (!was_finalized && result != ncclSuccess && result != ncclInProgress)
        atomic_store(&c->is_finalized, false);
    atomic_fetch_sub(&c->finalizing, 1);
    return result;
}
ALIAS(CommFinalize);

/* The handle is gone at once: a stop meanwhile leaves the real one to this thread. */
static ncclResult_t leave(struct orri_comm *c, ncclComm_t comm, ncclComm_t *ret_real)
{
    orri_leave_begin();
    if (!orri_comm_forget(c, comm)) {
        orri_leave_end();
        return orri_nccl_fail(ncclInvalidArgument,
                              "another thread destroys this communicator");
    }
    *ret_real = orri_spliced_take_real(c);
    return ncclSuccess;
}

/* Passes the gate like a collective: at a cut either the program has the communicator, or it is seen that it has not. */
static ncclResult_t destroy(ncclComm_t comm)
{
    struct orri_comm *c = orri_comm_get(comm);
    ncclComm_t real = NULL;
    ncclResult_t result;

    if (!c)
        return ncclInvalidArgument;
    orri_gate_enter(&c->clock, 0, ORR_CLOCK_OP_NONE);
    result = leave(c, comm, &real);
    orri_gate_leave();
    if (result != ncclSuccess)
        return result;
    if (atomic_load(&c->splice) &&
        orri_splice_await(c, real, UINT64_MAX) != ncclSuccess) {
        result = orri_splice_abort(c, real); /* its work would never end */
        real = NULL;
    }
    orri_splice_end_comm(c);
    if (real)
        result = REAL(CommDestroy, real);
    orri_comm_retire(c);
    orri_leave_end();
    return result;
}

/* Does not: it is to free threads that are stuck. */
static ncclResult_t abort_now(ncclComm_t comm)
{
    struct orri_comm *c = orri_comm_get(comm);
    ncclComm_t real = NULL;
    ncclResult_t result;

    if (!c)
        return ncclInvalidArgument;
    orri_use_begin();
    result = leave(c, comm, &real);
    orri_use_end();
    if (result != ncclSuccess)
        return result;
    result = orri_splice_abort(c, real);
    orri_gone_add(c->key);
    orri_comm_free(c);
    orri_leave_end();
    return result;
}

EXPORT ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    ENTER_COMM(comm, CommDestroy, comm);
    return comm ? destroy(comm) : ncclSuccess;
}
ALIAS(CommDestroy);

EXPORT ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    ENTER_COMM(comm, CommAbort, comm);
    return comm ? abort_now(comm) : ncclSuccess;
}
ALIAS(CommAbort);

EXPORT ncclResult_t ncclCommRevoke(ncclComm_t comm, int flags)
{
    struct orri_comm *c;
    ncclResult_t result;

    ENTER_COMM(comm, CommRevoke, comm, flags);
    c = orri_comm_find(comm);
    orri_use_begin();
    result = REAL(CommRevoke, c ? atomic_load(&c->real) : NULL, flags);
    orri_use_end();
    if (result == ncclSuccess)
        orri_rank_limit("revoked a communicator", "revoked a communicator");
    return result;
}
ALIAS(CommRevoke);
