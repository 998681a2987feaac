/* SPDX-License-Identifier: Apache-2.0
 * remake.c - the second half of rebuild.c: what a process says of its communicators before a resume, and how they are made anew.
 */
#include "rebuild.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../core/thread.h"
#include "places.h"

enum { ABORT_GRACE_MS = 2000, LOOK_MS = 50, SHARE_MS = 30000 };

static struct orri_handover *handover; /* owned: from make_ids to resume */

/* Ids of ours that NCCL was not given, since all ranks turned out to share one device.  It would keep a thread and a socket for
 * each until the process ends; so they are used first. */
static struct {
    pthread_mutex_t lock;
    ncclUniqueId id[ORRI_COMMS_MAX];
    size_t n;
} spare = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void spare_put(const ncclUniqueId *id)
{
    pthread_mutex_lock(&spare.lock);
    if (spare.n < ORRI_COMMS_MAX)
        spare.id[spare.n++] = *id;
    pthread_mutex_unlock(&spare.lock);
}

static ncclResult_t unique_id(ncclUniqueId *ret)
{
    bool is_there;

    pthread_mutex_lock(&spare.lock);
    is_there = spare.n > 0;
    if (is_there)
        *ret = spare.id[--spare.n];
    pthread_mutex_unlock(&spare.lock);
    return is_there ? ncclSuccess : REAL(GetUniqueId, ret);
}

/* Rank 0's. */
static struct orri_comm_id fresh_id(struct orri_comm *c)
{
    struct orri_comm_id id = {.comm = c->key, .kind = ORRI_ID_VOID};

    if (unique_id(&c->fresh) == ncclSuccess) {
        id.kind = ORRI_ID_MADE;
        memcpy(id.id, &c->fresh, sizeof id.id);
    }
    return id;
}

/* The context in which it was made: NCCL takes its device from that. */
static ncclResult_t enter_context(struct orri_comm *c)
{
    if (c->destroyed && c->ctx && !orri_ctx_set(c->ctx))
        c->ctx = NULL; /* destroyed as well: the device's own will do */
    if (!c->ctx && c->device >= 0 && !c->is_retained) {
        if (!orri_ctx_primary(c->device, &c->ctx))
            return orri_nccl_fail(
                ncclUnhandledCudaError, "device %d has no context", c->device);
        c->is_retained = true;
    }
    if (c->ctx && !orri_ctx_set(c->ctx))
        return orri_nccl_fail(ncclUnhandledCudaError,
                              "the context of the communicator is gone");
    return ncclSuccess;
}

/* Those that cannot be made anew here, as the program has given up the device, too. */
static void drop_unmakable(void)
{
    static struct orri_comm *left[ORRI_COMMS_MAX];
    size_t n = orri_work_list(left, ORRI_WORK_DESTROYED);

    for (size_t i = 0; i < n; i++) {
        if (enter_context(left[i]) == ncclSuccess)
            continue;
        orri_gone_add(left[i]->key);
        orri_comm_free(left[i]);
    }
    if (n > 0)
        orri_ctx_set(NULL);
}

/* Where this process is now, for all who have one of its communicators: who is not told takes it for gone.  UINT32_MAX: it cannot
 * be told. */
static uint32_t add_places(struct orri_comm_id *ids, uint32_t made, uint32_t cap)
{
    static struct orri_comm *list[2 * ORRI_COMMS_MAX];
    size_t n = orri_work_list(list, ORRI_WORK_STOPPED);
    const char *told = orri_stop_device();

    if (!orri_is_elastic())
        return made;
    if (told[0])
        snprintf(orri_device_told, ORR_NAME_MAX, "%s", told);
    orri_handover_free(handover);
    handover = orri_handover_new();
    n += orri_work_list(list + n, ORRI_WORK_DESTROYED);
    if (!handover)
        return UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        struct orri_place place;
        if (atomic_load(&list[i]->n) < 2 || enter_context(list[i]) != ncclSuccess)
            continue;
        if (made == cap ||
            orri_place_here(&place, orri_device_told, orri_handover_nonce(handover)) !=
                ncclSuccess) {
            orri_ctx_set(NULL);
            return UINT32_MAX;
        }
        ids[made].comm = orri_place_name(list[i]->key, list[i]->me);
        ids[made].kind = ORRI_ID_MADE;
        memcpy(ids[made++].id, &place, sizeof place);
    }
    orri_ctx_set(NULL);
    return made;
}

uint32_t orri_make_ids(struct orri_comm_id *ids, uint32_t cap)
{
    static struct orri_comm *list[ORRI_COMMS_MAX]; /* the link's one thread */
    static uint64_t gone[ORRI_GONE_MAX];
    size_t n = orri_work_list(list, ORRI_WORK_STOPPED);
    uint32_t made = 0, ngone;

    drop_unmakable();
    ngone = orri_gone_list(gone, ORRI_GONE_MAX);
    for (uint32_t i = 0; i < ngone && made < cap; i++)
        ids[made++] = (struct orri_comm_id){.comm = gone[i], .kind = ORRI_ID_VOID};
    for (size_t i = 0; i < n && made < cap; i++)
        ids[made++] = list[i]->me == 0 ? fresh_id(list[i])
                                       : (struct orri_comm_id){.comm = list[i]->key,
                                                               .kind = ORRI_ID_WANTED};
    return add_places(ids, made, cap);
}

/* What all have said of it; NULL: nothing. */
static const struct orri_comm_id *
find_id(const struct orri_comm_id *ids, uint32_t n, uint64_t key)
{
    const struct orri_comm_id *found = NULL;

    for (uint32_t i = 0; i < n; i++)
        if (ids[i].comm == key && (!found || ids[i].kind > found->kind))
            found = &ids[i];
    return found;
}

/* Of those that the program has destroyed here and somebody still has. */
uint32_t orri_add_ids(const struct orri_comm_id *known,
                      uint32_t n,
                      struct orri_comm_id *ids,
                      uint32_t cap)
{
    static struct orri_comm *list[ORRI_COMMS_MAX];
    size_t comms = orri_work_list(list, ORRI_WORK_DESTROYED);
    uint32_t added = 0;

    for (size_t i = 0; i < comms && added < cap; i++) {
        const struct orri_comm_id *id = find_id(known, n, list[i]->key);
        if (list[i]->me == 0 && id && id->kind == ORRI_ID_WANTED)
            ids[added++] = fresh_id(list[i]);
    }
    return added;
}

/* Of all ranks of a communicator that can be made anew.  ret: n of them, or NULL. */
static bool find_places(const struct orri_comm_id *ids,
                        uint32_t n,
                        const struct orri_comm *c,
                        struct orri_place *ret)
{
    int ranks = atomic_load(&c->n);

    for (int r = 0; r < ranks && orri_is_elastic() && ranks > 1; r++) {
        const struct orri_comm_id *found = find_id(ids, n, orri_place_name(c->key, r));
        if (!found || found->kind != ORRI_ID_MADE)
            return false;
        if (ret)
            memcpy(&ret[r], found->id, sizeof *ret);
    }
    return true;
}

/* Once all have spoken: of a rank that has not, the program is over, and its communicators cannot be made anew. */
static bool
is_anyone_missing(const struct orri_comm_id *ids, uint32_t n, const struct orri_comm *c)
{
    return !find_places(ids, n, c, NULL);
}

bool orri_has_all_ids(const struct orri_comm_id *ids, uint32_t n)
{
    static struct orri_comm *list[2 * ORRI_COMMS_MAX];
    size_t comms = orri_work_list(list, ORRI_WORK_STOPPED), all;

    all = comms + orri_work_list(list + comms, ORRI_WORK_DESTROYED);
    for (size_t i = 0; i < all; i++) {
        const struct orri_comm_id *id = find_id(ids, n, list[i]->key);
        if ((id ? id->kind == ORRI_ID_WANTED : i < comms) &&
            !is_anyone_missing(ids, n, list[i]))
            return false;
    }
    return true;
}

/* Those that share devices now; places: each owned by the caller, NULL where nobody shares. */
static ncclResult_t splice_one(struct orri_comm *c, struct orri_place **ret_places)
{
    int n = atomic_load(&c->n);
    uint32_t nids;
    const struct orri_comm_id *ids = orri_comm_ids(&nids);
    struct orri_place *places = NULL;
    ncclResult_t result = ncclSuccess;

    if (n < 2 || !orri_is_elastic())
        return ncclSuccess;
    places = calloc((size_t)n, sizeof *places);
    if (!places || !find_places(ids, nids, c, places))
        result = orri_nccl_fail(ncclSystemError, "no places of its ranks have come");
    if (result == ncclSuccess)
        result = orri_splice_begin_comm(
            c, places, orri_key(6, c->fresh.internal, sizeof c->fresh.internal));
    *ret_places = places;
    return result;
}

static ncclResult_t
init_one(struct orri_work *w, size_t i, struct orri_place **ret_places)
{
    struct orri_comm *c = w->comm[i];
    ncclResult_t result = enter_context(c);
    int n, me;

    if (result == ncclSuccess)
        result = splice_one(c, ret_places);
    if (result != ncclSuccess)
        return result;
    if (!orri_splice_real(c, &n, &me)) {
        if (c->me == 0)
            spare_put(&c->fresh);
        return ncclSuccess;
    }
    return REAL(
        CommInitRankConfig, &w->real[i], n, c->fresh, me, orri_config_get(&c->config));
}

/* All of those that block, or all that do not, in one group. */
static ncclResult_t
init_group(struct orri_work *w, struct orri_place **places, bool blocking)
{
    ncclResult_t result = REAL0(GroupStart), end;

    for (size_t i = 0; i < w->n && result == ncclSuccess; i++) {
        if (orri_config_is_blocking(&w->comm[i]->config) != blocking)
            continue;
        result = init_one(w, i, &places[i]);
        if (result == ncclInProgress)
            result = ncclSuccess;
        if (result != ncclSuccess)
            orri_work_note(w, i, result);
    }
    end = REAL0(GroupEnd);
    if (end == ncclInProgress)
        end = ncclSuccess;
    if (result == ncclSuccess && end != ncclSuccess && w->n > 0)
        orri_work_note(w, 0, end);
    return result == ncclSuccess ? end : result;
}

/* The scratch of those that are spliced, of all together. */
static ncclResult_t share_all(struct orri_work *w, struct orri_place **places)
{
    ncclResult_t result = ncclSuccess;

    if (!handover)
        return ncclSuccess;
    result = orri_splice_share(
        w->comm, places, w->n, handover, orri_nccl_now_ms() + SHARE_MS);
    orri_handover_free(handover);
    handover = NULL;
    if (result != ncclSuccess && w->n > 0)
        orri_work_note(w, 0, result);
    return result;
}

/* By a peer that went on before us, and aborted it or ended: that is the program's to hear, as without a stop, and bars no
 * resume, in which the other communicators would go, too. */
static bool is_broken_since(ncclComm_t real)
{
    ncclResult_t state = ncclInProgress;

    return real && (REAL(CommGetAsyncError, real, &state) != ncclSuccess ||
                    (state != ncclSuccess && state != ncclInProgress));
}

static ncclResult_t furnish(struct orri_comm *c)
{
    ncclResult_t result = orri_redops_remake(c);

    if (result == ncclSuccess)
        result = orri_buffers_remake(c);
    return result != ncclSuccess && is_broken_since(atomic_load(&c->real)) ? ncclSuccess
                                                                           : result;
}

/* One item of work: all communicators. */
static void init_all(struct orri_work *w, size_t first)
{
    static struct orri_place *places[ORRI_COMMS_MAX]; /* one resume at a time */
    ncclResult_t result;

    (void)first;
    memset(places, 0, w->n * sizeof(struct orri_place *));
    result = init_group(w, places, false);
    if (result == ncclSuccess)
        result = init_group(w, places, true);
    for (size_t i = 0; i < w->n && result == ncclSuccess; i++) {
        if (w->real[i] && !orri_config_is_blocking(&w->comm[i]->config))
            result = orri_await_ready(w->real[i], UINT64_MAX, &w->is_cancelled);
        if (result != ncclSuccess)
            orri_work_note(w, i, result);
    }
    if (result == ncclSuccess)
        result = share_all(w, places);
    for (size_t i = 0; i < w->n; i++)
        free(places[i]);
    for (size_t i = 0; i < w->n && result == ncclSuccess; i++) {
        if (w->comm[i]->destroyed) {
            orri_splice_end_comm(w->comm[i]);
            continue;
        }
        atomic_store(&w->comm[i]->real, w->real[i]);
        result = furnish(w->comm[i]);
        if (result != ncclSuccess)
            orri_work_note(w, i, result);
    }
    pthread_mutex_lock(&w->lock);
    w->next = w->n;
    pthread_mutex_unlock(&w->lock);
    orri_ctx_set(NULL);
}

static void lose_left(struct orri_comm *c)
{
    c->is_left = true;
    orri_comm_lose(c,
                   ncclRemoteError,
                   "another rank has aborted the communicator, or is gone, since the "
                   "job was stopped");
}

/* Takes the ids; drops those that cannot be made anew, adds those that others still have.  False: one is missing. */
static bool take_ids(struct orri_work *w, struct orr_error *err)
{
    static struct orri_comm *left[ORRI_COMMS_MAX];
    size_t nleft = orri_work_list(left, ORRI_WORK_DESTROYED), kept = 0;
    const struct orri_comm_id *found;
    uint32_t nids;
    const struct orri_comm_id *ids = orri_comm_ids(&nids);

    for (size_t i = 0; i < w->n; i++) {
        struct orri_comm *c = w->comm[i];
        found = find_id(ids, nids, c->key);
        if (is_anyone_missing(ids, nids, c)) {
            lose_left(c);
            continue;
        }
        if (!found || found->kind == ORRI_ID_WANTED) {
            orri_set_error(err,
                           ORR_ENOENT,
                           "no unique id came for communicator %016llx (rank %d of %d)",
                           (unsigned long long)c->key,
                           c->me,
                           atomic_load(&c->n));
            return false;
        }
        memcpy(&c->fresh, found->id, sizeof c->fresh);
        if (found->kind == ORRI_ID_VOID)
            lose_left(c);
        else
            w->comm[kept++] = c;
    }
    for (size_t i = 0; i < nleft && kept < ORRI_COMMS_MAX; i++) {
        found = find_id(ids, nids, left[i]->key);
        if (!found || found->kind != ORRI_ID_MADE ||
            is_anyone_missing(ids, nids, left[i]))
            continue;
        memcpy(&left[i]->fresh, found->id, sizeof left[i]->fresh);
        w->comm[kept++] = left[i];
    }
    w->n = kept;
    orri_work_sort(w->comm, w->n);
    return true;
}

static void *destroy_left(void *real)
{
    orri_self.inside = 1;
    REAL(CommDestroy, (ncclComm_t)real); /* may wait for those who have it still */
    orri_leave_end();
    return NULL;
}

/* The others have it again; here the program had destroyed it. */
static void leave_again(ncclComm_t real)
{
    orri_leave_begin();
    if (orri_thread_run(destroy_left, real))
        return;
    REAL(CommAbort, real);
    orri_leave_end();
}

/* Those who have spoken of none that we have destroyed have destroyed it, too. */
static void forget_unwanted(void)
{
    static struct orri_comm *left[ORRI_COMMS_MAX];
    size_t nleft = orri_work_list(left, ORRI_WORK_DESTROYED);
    uint32_t nids;
    const struct orri_comm_id *ids = orri_comm_ids(&nids), *found;

    for (size_t i = 0; i < nleft; i++) {
        found = find_id(ids, nids, left[i]->key);
        if (!found || found->kind == ORRI_ID_VOID)
            orri_comm_free(left[i]);
    }
}

static void go_on(struct orri_work *w)
{
    for (size_t i = 0; i < w->n; i++) {
        if (w->comm[i]->destroyed && w->real[i])
            leave_again(w->real[i]);
        w->comm[i]->is_stopped = false;
    }
    forget_unwanted();
    orri_gone_clear();
}

/* What was made so far goes; those that hang are freed by that. */
static void undo(struct orri_work *w, bool is_over)
{
    atomic_store(&w->is_cancelled, true);
    for (size_t i = 0; i < w->n; i++) {
        atomic_store(&w->comm[i]->real, NULL);
        if (w->real[i])
            REAL(CommAbort, w->real[i]);
    }
    if (!is_over)
        is_over = orri_work_await(w, orri_nccl_now_ms() + ABORT_GRACE_MS);
    for (size_t i = 0; i < w->n && is_over; i++)
        orri_splice_end_comm(w->comm[i]);
}

/* False: not over in time, or another attempt has begun, to which the peers go. */
static bool run_resume(struct orri_work *w, uint64_t deadline_ms, bool *ret_is_newer)
{
    uint64_t next_ms = orri_nccl_now_ms() + LOOK_MS;
    bool is_over = orri_work_run(w, 1, next_ms < deadline_ms ? next_ms : deadline_ms);

    while (!is_over && next_ms < deadline_ms && !*ret_is_newer) {
        *ret_is_newer = orri_stop_has_newer();
        next_ms = orri_nccl_now_ms() + LOOK_MS;
        if (!*ret_is_newer)
            is_over = orri_work_await(w, next_ms < deadline_ms ? next_ms : deadline_ms);
    }
    return is_over && w->next >= w->n; /* without a thread nothing has begun */
}

enum orr_err orri_resume(const struct orri_arena *piece,
                         const char *device,
                         uint64_t deadline_ms,
                         struct orr_error *err)
{
    struct orri_work *w = orri_work_new(init_all, ORRI_WORK_STOPPED);
    enum orr_err code = ORR_OK;
    bool is_over = true, is_newer = false;

    (void)piece, (void)device;
    if (!w)
        return orri_set_error(err, ORR_ENOMEM, "out of memory");
    if (!take_ids(w, err)) {
        orri_work_put(w);
        return ORR_ENOENT;
    }
    if (w->n > 0)
        is_over = run_resume(w, deadline_ms, &is_newer);
    if (is_newer)
        code = orri_set_error(err, ORR_EGONE, "another attempt has begun");
    else if (!is_over)
        code = orri_set_error(
            err,
            ORR_ETIMEOUT,
            "%zu communicators were not made anew in time: a rank has not "
            "come, or the ranks cannot reach each other",
            w->n);
    else if (w->text[0])
        code = orri_set_error(err, ORR_EIO, "cannot make %s", w->text);
    if (code == ORR_OK)
        go_on(w);
    else
        undo(w, is_over);
    orri_work_put(w);
    return code;
}
