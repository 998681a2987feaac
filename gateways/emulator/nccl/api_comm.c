/* SPDX-License-Identifier: Apache-2.0
 * api_comm.c - the exported calls that make communicators: init and split.
 */
#include "comm_make.h"
#include "export.h"
#include "op.h"
#include "rendezvous.h"
#include "thread.h"

#include <stdlib.h>
#include <string.h>

static const ncclConfig_t defaults = NCCL_CONFIG_INITIALIZER;

/* The program's config over `base`: only as many bytes as it says it has. */
static ncclResult_t
read_config(const ncclConfig_t *from, const ncclConfig_t *base, ncclConfig_t *ret)
{
    ncclConfig_t c = defaults;

    if (from) {
        if (from->magic != NCCL_CONFIG_MAGIC ||
            from->size < offsetof(ncclConfig_t, blocking))
            return orri_fail(ncclInvalidArgument,
                             "the config was not set from NCCL_CONFIG_INITIALIZER");
        memcpy(&c, from, from->size < sizeof c ? from->size : sizeof c);
    }
    c.size = sizeof c;
    c.netName = c.commName = NULL; /* the program's strings: not ours to keep */
    if (c.blocking == NCCL_CONFIG_UNDEF_INT)
        c.blocking = base->blocking;
    if (c.blocking != 0 && c.blocking != 1 && c.blocking != NCCL_CONFIG_UNDEF_INT)
        return orri_fail(
            ncclInvalidArgument, "config.blocking is %d: 0 or 1", c.blocking);
    if (c.minCTAs != NCCL_CONFIG_UNDEF_INT && c.minCTAs <= 0)
        return orri_fail(
            ncclInvalidArgument, "config.minCTAs is %d: 1 or more", c.minCTAs);
    if (c.maxCTAs != NCCL_CONFIG_UNDEF_INT && (c.maxCTAs <= 0 || c.maxCTAs < c.minCTAs))
        return orri_fail(ncclInvalidArgument,
                         "config.maxCTAs is %d: 1 or more, and at least minCTAs",
                         c.maxCTAs);
    if (c.cgaClusterSize != NCCL_CONFIG_UNDEF_INT &&
        (c.cgaClusterSize < 0 || c.cgaClusterSize > 8))
        return orri_fail(ncclInvalidArgument,
                         "config.cgaClusterSize is %d: 0 to 8",
                         c.cgaClusterSize);
    *ret = c;
    return ncclSuccess;
}

/* ---- Making one, now, at the end of a group, or behind the caller's back ------------
 */

struct making {
    struct ncclComm *comm; /* referenced */
    ncclComm_t *handle;    /* the program's; NULL once it may be gone */
    ncclUniqueId id;
    struct ncclComm *parent; /* referenced; of a split */
    int color, key;
};

static void making_free(struct making *m)
{
    orri_comm_put(m->comm);
    if (m->parent)
        orri_comm_put(m->parent);
    free(m);
}

static ncclResult_t making_run(struct making *m)
{
    ncclResult_t result = ncclSuccess;

    if (m->parent)
        result = orri_split_agree(m->parent, m->color, m->key, m->comm, &m->id);
    if (result == ncclSuccess && m->color != NCCL_SPLIT_NOCOLOR)
        result = orri_comm_start(m->comm, &m->id);
    return result;
}

static ncclResult_t make_now(void *arg, bool runs)
{
    struct making *m = arg;
    ncclResult_t result = runs ? making_run(m) : ncclInvalidUsage;

    if (result != ncclSuccess || m->color == NCCL_SPLIT_NOCOLOR) {
        *m->handle = NULL;
        orri_comm_forget(m->comm);
    }
    making_free(m);
    return result;
}

static void *make_behind(void *arg)
{
    struct making *m = arg;

    making_run(m);
    if (m->color == NCCL_SPLIT_NOCOLOR)
        orri_comm_forget(m->comm);
    making_free(m);
    return NULL;
}

/* Takes over the place. `parent` is NULL except for a split. */
static ncclResult_t make(ncclComm_t *ret,
                         const struct making *how,
                         int nranks,
                         int rank,
                         struct orri_place *place,
                         const ncclConfig_t *config)
{
    struct making *m = malloc(sizeof *m);
    struct ncclComm *comm = m ? orri_comm_new(nranks, rank, place, config) : NULL;

    if (!comm) {
        free(m);
        orri_place_fini(place);
        return orri_fail(ncclSystemError, "out of memory");
    }
    *m = *how;
    m->comm = comm;
    m->handle = ret;
    orri_comm_ref(comm);
    if (m->parent)
        orri_comm_ref(m->parent);
    *ret = comm;
    if (orri_comm_is_blocking(comm))
        return orri_group_job(make_now, m);
    if (m->color == NCCL_SPLIT_NOCOLOR)
        *ret = NULL;
    if (orri_thread_start(make_behind, m) == 0)
        return ncclInProgress;
    make_now(m, false);
    return orri_fail(ncclSystemError, "no thread for the init");
}

static ncclResult_t init_rank(ncclComm_t *ret,
                              int nranks,
                              const ncclUniqueId *id,
                              int rank,
                              const ncclConfig_t *config,
                              const int *device)
{
    struct making how = {.id = *id};
    struct orri_place place;
    struct orri_why why;
    ncclConfig_t c;
    ncclResult_t result;

    if (!ret)
        return orri_fail(ncclInvalidArgument, "comm is NULL");
    *ret = NULL;
    if (nranks < 1 || nranks > ORRI_RANKS_MAX)
        return orri_fail(
            ncclInvalidArgument, "nranks is %d: 1 to %d", nranks, (int)ORRI_RANKS_MAX);
    if (rank < 0 || rank >= nranks)
        return orri_fail(ncclInvalidArgument, "rank is %d: 0 to %d", rank, nranks - 1);
    result = read_config(config, &defaults, &c);
    if (result != ncclSuccess)
        return result;
    result = device ? orri_place_device(*device, &place, &why)
                    : orri_place_current(&place, &why);
    if (result != ncclSuccess)
        return orri_fail(result, "%s", why.text);
    return make(ret, &how, nranks, rank, &place, &c);
}

EXPORT ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    struct orri_why why;
    ncclResult_t result;

    if (!id)
        return orri_fail(ncclInvalidArgument, "ncclGetUniqueId: NULL");
    result = orri_root_invite(id, &why);
    return result == ncclSuccess ? result : orri_fail(result, "%s", why.text);
}
ALIAS(GetUniqueId);

EXPORT ncclResult_t ncclCommInitRank(ncclComm_t *comm,
                                     int nranks,
                                     ncclUniqueId id,
                                     int rank)
{
    return orri_group_note(init_rank(comm, nranks, &id, rank, NULL, NULL));
}
ALIAS(CommInitRank);

EXPORT ncclResult_t ncclCommInitRankConfig(
    ncclComm_t *comm, int nranks, ncclUniqueId id, int rank, ncclConfig_t *config)
{
    return orri_group_note(init_rank(comm, nranks, &id, rank, config, NULL));
}
ALIAS(CommInitRankConfig);

EXPORT ncclResult_t ncclCommInitRankScalable(ncclComm_t *comm,
                                             int nranks,
                                             int rank,
                                             int nids,
                                             ncclUniqueId *ids,
                                             ncclConfig_t *config)
{
    if (nids < 1 || nids > nranks || !ids)
        return orri_group_note(orri_fail(ncclInvalidArgument,
                                         "%d unique ids for %d ranks: 1 to as many",
                                         nids,
                                         nranks));
    return orri_group_note(init_rank(comm, nranks, &ids[0], rank, config, NULL));
}
ALIAS(CommInitRankScalable);

static ncclResult_t check_devices(int ndev, const int *devlist)
{
    struct orri_why why;
    const struct orri_driver *d = orri_driver_get(&why);
    int count = 0;
    CUresult got;

    if (!d)
        return orri_fail(ncclUnhandledCudaError, "%s", why.text);
    got = d->device_count(&count);
    if (got != CUDA_SUCCESS) {
        orri_driver_fail(&why, "cuDeviceGetCount", got);
        return orri_fail(ncclUnhandledCudaError, "%s", why.text);
    }
    if (ndev < 1 || ndev > count)
        return orri_fail(
            ncclInvalidArgument, "%d devices wanted, there are %d", ndev, count);
    for (int i = 0; i < ndev && devlist; i++) {
        if (devlist[i] < 0 || devlist[i] >= count)
            return orri_fail(
                ncclInvalidArgument, "device %d: 0 to %d", devlist[i], count - 1);
        for (int j = 0; j < i; j++)
            if (devlist[i] == devlist[j])
                return orri_fail(
                    ncclInvalidUsage, "device %d is listed twice", devlist[i]);
    }
    return ncclSuccess;
}

EXPORT ncclResult_t ncclCommInitAll(ncclComm_t *comms, int ndev, const int *devlist)
{
    ncclUniqueId id;
    ncclResult_t result;

    if (!comms)
        return orri_fail(ncclInvalidArgument, "ncclCommInitAll: comm is NULL");
    result = check_devices(ndev, devlist);
    if (result == ncclSuccess)
        result = ncclGetUniqueId(&id);
    if (result != ncclSuccess)
        return result;
    ncclGroupStart();
    for (int i = 0; i < ndev; i++) {
        int device = devlist ? devlist[i] : i;
        orri_group_note(init_rank(&comms[i], ndev, &id, i, NULL, &device));
    }
    return ncclGroupEnd();
}
ALIAS(CommInitAll);

EXPORT ncclResult_t ncclCommSplit(
    ncclComm_t handle, int color, int key, ncclComm_t *newcomm, ncclConfig_t *config)
{
    struct ncclComm *parent = orri_comm_get(handle);
    struct making how = {.parent = parent, .color = color, .key = key};
    struct orri_place place;
    struct orri_why why;
    ncclConfig_t c;
    ncclResult_t result;

    if (!parent)
        return orri_group_note(ncclInvalidArgument);
    result = orri_comm_check(parent);
    if (result == ncclSuccess && (!newcomm || color < NCCL_SPLIT_NOCOLOR))
        result = orri_fail(ncclInvalidArgument,
                           "ncclCommSplit: newcomm is NULL, or color %d is negative",
                           color);
    if (result == ncclSuccess)
        result = read_config(config, &parent->config, &c);
    if (result == ncclSuccess) {
        place = parent->place;
        if (place.is_retained &&
            orri_place_device(place.device, &place, &why) != ncclSuccess)
            result = orri_fail(ncclUnhandledCudaError, "%s", why.text);
    }
    if (result == ncclSuccess)
        result = make(newcomm, &how, 1, 0, &place, &c);
    orri_comm_put(parent);
    return orri_group_note(result);
}
ALIAS(CommSplit);
