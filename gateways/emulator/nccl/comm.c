/* SPDX-License-Identifier: Apache-2.0
 * comm.c - the registry and the life of communicators (comm.h).
 */
#include "comm.h"
#include "rendezvous.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static struct {
    pthread_mutex_t lock;
    struct ncclComm *all; /* referenced */
    uint64_t serial;
    pthread_once_t once;
} registry = {.lock = PTHREAD_MUTEX_INITIALIZER, .once = PTHREAD_ONCE_INIT};

static void comm_free(struct ncclComm *comm)
{
    orri_watch_remove(comm);
    if (comm->is_mapped)
        orri_segment_unmap(&comm->seg);
    if (comm->cancel >= 0)
        close(comm->cancel);
    orri_redops_fini(comm);
    orri_buffers_fini(comm);
    pthread_cond_destroy(&comm->turn);
    pthread_mutex_destroy(&comm->lock);
    pthread_mutex_destroy(&comm->issue_lock);
    pthread_mutex_destroy(&comm->control_lock);
    free(comm);
}

struct ncclComm *orri_comm_get(ncclComm_t handle)
{
    struct ncclComm *comm;

    pthread_mutex_lock(&registry.lock);
    for (comm = registry.all; comm && comm != handle; comm = comm->next)
        ;
    if (comm)
        comm->refs++;
    pthread_mutex_unlock(&registry.lock);
    if (!comm)
        orri_fail(ncclInvalidArgument,
                  "comm %p is not a communicator, or was destroyed",
                  (void *)handle);
    return comm;
}

struct ncclComm *orri_comm_get_serial(uint64_t serial)
{
    struct ncclComm *comm;

    pthread_mutex_lock(&registry.lock);
    for (comm = registry.all; comm && comm->serial != serial; comm = comm->next)
        ;
    if (comm)
        comm->refs++;
    pthread_mutex_unlock(&registry.lock);
    return comm;
}

void orri_comm_ref(struct ncclComm *comm)
{
    pthread_mutex_lock(&registry.lock);
    comm->refs++;
    pthread_mutex_unlock(&registry.lock);
}

void orri_comm_put(struct ncclComm *comm)
{
    bool last;

    pthread_mutex_lock(&registry.lock);
    last = --comm->refs == 0;
    pthread_mutex_unlock(&registry.lock);
    if (last)
        comm_free(comm);
}

void orri_comm_forget(struct ncclComm *comm)
{
    bool was_there = false;

    pthread_mutex_lock(&registry.lock);
    for (struct ncclComm **at = &registry.all; *at; at = &(*at)->next) {
        if (*at == comm) {
            *at = comm->next;
            was_there = true;
            break;
        }
    }
    pthread_mutex_unlock(&registry.lock);
    if (!was_there)
        return;
    pthread_mutex_lock(&comm->issue_lock); /* another thread may be launching */
    orri_place_fini(&comm->place); /* here, as the last to let go may be a stream */
    pthread_mutex_unlock(&comm->issue_lock);
    orri_comm_put(comm);
}

/* A process that ends in order has left, which is no failure to those that go on. */
__attribute__((destructor)) static void leave_all(void)
{
    pthread_mutex_lock(&registry.lock);
    for (struct ncclComm *comm = registry.all; comm; comm = comm->next)
        if (comm->is_mapped && comm->owner == getpid())
            orri_rank_mark(&comm->seg, comm->rank, RANK_LEFT);
    pthread_mutex_unlock(&registry.lock);
}

/* A forked child is no rank, and must not hide the death of its parent. */
static void before_fork(void)
{
    pthread_mutex_lock(&registry.lock);
}
static void after_fork(void)
{
    pthread_mutex_unlock(&registry.lock);
}

static void in_child(void)
{
    for (struct ncclComm *comm = registry.all; comm; comm = comm->next) {
        for (int side = 0; side < 2; side++) {
            if (comm->ring[side] >= 0)
                close(comm->ring[side]);
            comm->ring[side] = -1;
        }
    }
    pthread_mutex_unlock(&registry.lock);
}

static void handle_forks(void)
{
    pthread_atfork(before_fork, after_fork, in_child);
}

struct ncclComm *orri_comm_new(int nranks,
                               int rank,
                               const struct orri_place *place,
                               const ncclConfig_t *config)
{
    struct ncclComm *comm = calloc(1, sizeof *comm);

    if (!comm)
        return NULL;
    pthread_once(&registry.once, handle_forks);
    comm->refs = 1;
    comm->owner = getpid();
    comm->nranks = nranks;
    comm->rank = rank;
    comm->place = *place;
    comm->config = *config;
    comm->ring[0] = comm->ring[1] = -1;
    comm->state = ncclInProgress;
    comm->cancel = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&comm->control_lock, NULL);
    pthread_mutex_init(&comm->issue_lock, NULL);
    pthread_mutex_init(&comm->lock, NULL);
    pthread_cond_init(&comm->turn, NULL);
    pthread_mutex_lock(&registry.lock);
    comm->serial = ++registry.serial;
    comm->next = registry.all;
    registry.all = comm;
    pthread_mutex_unlock(&registry.lock);
    return comm;
}

static ncclResult_t map_and_meet(struct ncclComm *comm,
                                 const struct orri_share *share,
                                 struct orri_why *why)
{
    int err = orri_segment_map(&comm->seg, share->segment, comm->nranks, comm->rank);
    enum orri_wait wait;

    if (err)
        return orri_why_set(
            why, ncclSystemError, "cannot map shared memory: %s", strerror(-err));
    pthread_mutex_lock(&comm->lock);
    comm->is_mapped = true;
    pthread_mutex_unlock(&comm->lock);
    if (comm->nranks > 1 && !orri_watch_add(comm))
        return orri_why_set(
            why, ncclSystemError, "cannot watch the other ranks: %s", strerror(errno));
    if (atomic_load(&comm->aborted))
        orri_rank_mark(&comm->seg, comm->rank, RANK_ABORTED);
    wait = orri_lane_meet(&comm->seg, LANE_CONTROL, orri_now_ms() + orri_timeout_ms());
    if (wait == WAIT_TIMEOUT)
        return orri_why_set(why,
                            ncclSystemError,
                            "a rank stopped in its init: no answer for %u ms",
                            orri_timeout_ms());
    if (wait == WAIT_GONE)
        return orri_comm_remote_error(comm, -1, why);
    orri_lane_next(&comm->seg, LANE_CONTROL);
    return ncclSuccess;
}

ncclResult_t orri_comm_start(struct ncclComm *comm, const ncclUniqueId *id)
{
    struct orri_why why = {.text = ""};
    struct orri_share share;
    uint8_t device[16];
    ncclResult_t result;

    orri_place_uuid(&comm->place, device);
    result =
        orri_join(id, comm->nranks, comm->rank, device, comm->cancel, &share, &why);

    if (result == ncclSuccess) {
        comm->ring[0] = share.ring[0];
        comm->ring[1] = share.ring[1];
        result = map_and_meet(comm, &share, &why);
        close(share.segment);
    }
    if (result != ncclSuccess) {
        orri_comm_break(comm, result, &why);
        return orri_fail(result, "%s", why.text);
    }
    pthread_mutex_lock(&comm->lock);
    if (comm->state == ncclInProgress)
        comm->state = ncclSuccess;
    pthread_cond_broadcast(&comm->turn);
    pthread_mutex_unlock(&comm->lock);
    return ncclSuccess;
}

ncclResult_t
orri_comm_remote_error(struct ncclComm *comm, int rank, struct orri_why *why)
{
    static const char *const how[] = {
        [RANK_HERE] = "is here", /* not reached */
        [RANK_LEFT] = "has destroyed the communicator or ended",
        [RANK_DEAD] = "has died",
        [RANK_ABORTED] = "has aborted the communicator",
        [RANK_FAILED] = "has failed",
    };

    if (rank < 0)
        rank = orri_rank_lost(&comm->seg);
    if (rank < 0)
        rank = orri_rank_gone(&comm->seg);
    if (rank < 0)
        return orri_why_set(why, ncclInternalError, "a wait ended without a reason");
    return orri_why_set(why,
                        ncclRemoteError,
                        "rank %d of %d %s: abort the communicator and make a new one",
                        rank,
                        comm->nranks,
                        how[orri_rank_get(&comm->seg, rank)]);
}

void orri_comm_break(struct ncclComm *comm,
                     ncclResult_t code,
                     const struct orri_why *why)
{
    pthread_mutex_lock(&comm->lock);
    if (comm->state == ncclSuccess || comm->state == ncclInProgress) {
        comm->state = code;
        comm->why = *why;
    }
    if (comm->is_mapped)
        orri_rank_mark(&comm->seg, comm->rank, RANK_FAILED);
    pthread_cond_broadcast(&comm->turn);
    pthread_mutex_unlock(&comm->lock);
}

ncclResult_t orri_comm_state(struct ncclComm *comm, struct orri_why *why)
{
    ncclResult_t state;
    int lost = -1;

    pthread_mutex_lock(&comm->lock);
    state = comm->state;
    *why = comm->why;
    if (state == ncclSuccess)
        lost = orri_rank_lost(&comm->seg);
    pthread_mutex_unlock(&comm->lock);
    return lost >= 0 ? orri_comm_remote_error(comm, lost, why) : state;
}

ncclResult_t orri_comm_check(struct ncclComm *comm)
{
    struct orri_why why;
    ncclResult_t state = orri_comm_state(comm, &why);

    if (state == ncclSuccess)
        return ncclSuccess;
    if (state == ncclInProgress)
        return orri_fail(ncclInvalidArgument,
                         "the communicator is not ready: wait until "
                         "ncclCommGetAsyncError no longer says ncclInProgress");
    return orri_fail(state, "%s", why.text);
}

bool orri_comm_is_blocking(const struct ncclComm *comm)
{
    return comm->config.blocking != 0;
}

bool orri_comm_is_finalized(struct ncclComm *comm)
{
    bool is_finalized;

    pthread_mutex_lock(&comm->lock);
    is_finalized = comm->is_finalized;
    pthread_mutex_unlock(&comm->lock);
    return is_finalized;
}

void orri_comm_drain(struct ncclComm *comm)
{
    uint64_t until;

    pthread_mutex_lock(&comm->issue_lock);
    until = comm->issued;
    pthread_mutex_unlock(&comm->issue_lock);
    pthread_mutex_lock(&comm->lock);
    while (comm->retired < until && !atomic_load(&comm->aborted))
        pthread_cond_wait(&comm->turn, &comm->lock);
    pthread_mutex_unlock(&comm->lock);
}
