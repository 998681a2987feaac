/* SPDX-License-Identifier: Apache-2.0
 * spliced.c - the state, the end and the abort of communicators that are spliced (places.h, splice/watch.c).
 *
 * The link's thread looks at all of them about once a second, so that the ranks of a device are told by one that knows though its program
 * does not ask.  Whoever takes a communicator or its real one away does it under look_lock.
 *
 * ABORT   The others of the device are held and told first.  NCCL's abort flags are set before this rank's streams are let go: in a
 *         group, since the abort itself may wait for kernels that stand behind our waits.  What has work for longer is kept, and let go
 *         again and again, until it is over.
 */
#include "places.h"

#include <time.h>

enum { POLL_NS = 100000, LOOK_MS = 100, ABORT_MS = 2000, RELEASE_MS = 20 };

static pthread_mutex_t look_lock = PTHREAD_MUTEX_INITIALIZER;
static struct orri_splice *aborted; /* owned; guarded by look_lock */

static void pause_a_little(void)
{
    const struct timespec pause = {.tv_nsec = POLL_NS};

    nanosleep(&pause, NULL); /* the driver's own wait has no deadline */
}

static struct orri_splice *detach(struct orri_comm *c)
{
    struct orri_splice *s;

    pthread_mutex_lock(&look_lock);
    s = atomic_exchange(&c->splice, NULL);
    pthread_mutex_unlock(&look_lock);
    return s;
}

ncclComm_t orri_spliced_take_real(struct orri_comm *c)
{
    ncclComm_t real;

    pthread_mutex_lock(&look_lock);
    real = atomic_exchange(&c->real, NULL);
    pthread_mutex_unlock(&look_lock);
    return real;
}

void orri_splice_end_comm(struct orri_comm *c)
{
    struct orri_splice *s = detach(c);

    if (!s)
        return;
    orri_pairs_drop(s);
    orri_splice_free(s);
}

/* ---- the state --------------------------------------------------------------------------------- */

/* real: the program's thread has taken it out; NULL: it is where it was. */
static ncclResult_t look_at(struct orri_comm *c,
                            const ncclComm_t *real,
                            ncclResult_t (*look)(struct orri_splice *s,
                                                 ncclComm_t real))
{
    struct orri_splice *s;
    ncclResult_t state = ncclSuccess;

    pthread_mutex_lock(&look_lock);
    s = atomic_load(&c->splice);
    if (s && atomic_load(&s->is_shared))
        state = look(s, real ? *real : atomic_load(&c->real));
    pthread_mutex_unlock(&look_lock);
    return state;
}

ncclResult_t orri_splice_ask(struct orri_comm *c)
{
    return look_at(c, NULL, orri_watch_ask);
}

ncclResult_t
orri_splice_await(struct orri_comm *c, ncclComm_t real, uint64_t deadline_ms)
{
    struct orri_splice *s = atomic_load(&c->splice);
    ncclResult_t state = s ? look_at(c, &real, orri_watch_ask) : ncclSuccess;
    uint64_t look_ms = orri_nccl_now_ms() + LOOK_MS;
    bool is_idle = false;

    while (s && state == ncclSuccess &&
           orri_splice_is_idle(s, &is_idle) == ncclSuccess && !is_idle) {
        uint64_t now_ms = orri_nccl_now_ms();
        if (now_ms >= deadline_ms)
            return ncclInProgress;
        if (now_ms >= look_ms) {
            state = look_at(c, &real, orri_watch_look);
            look_ms = now_ms + LOOK_MS;
        }
        pause_a_little();
    }
    return state;
}

/* Those whose rank has aborted, and whose work goes on: let go again, and freed when it is over. */
static void look_at_aborted(void)
{
    struct orri_splice **at = &aborted;

    while (*at) {
        struct orri_splice *s = *at;
        bool is_idle = false;
        orri_watch_release(s);
        if (s->is_aborting ||
            (orri_splice_is_idle(s, &is_idle) == ncclSuccess && !is_idle)) {
            at = &s->next;
        } else {
            *at = s->next;
            orri_splice_free(s);
        }
    }
}

void orri_spliced_look(void)
{
    for (int i = 0; i < ORRI_COMMS_MAX; i++) {
        struct orri_comm *c = &orri_comms[i];
        if (!atomic_load(&c->splice) || !atomic_load(&c->handle))
            continue;
        if (!orri_use_try())
            return; /* a stop */
        look_at(c, NULL, orri_watch_look);
        orri_use_end();
    }
    pthread_mutex_lock(&look_lock);
    look_at_aborted();
    pthread_mutex_unlock(&look_lock);
}

bool orri_spliced_await_aborted(uint64_t deadline_ms)
{
    bool is_any;

    for (;;) {
        pthread_mutex_lock(&look_lock);
        look_at_aborted();
        is_any = aborted != NULL;
        pthread_mutex_unlock(&look_lock);
        if (!is_any || orri_nccl_now_ms() >= deadline_ms)
            return !is_any;
        pause_a_little();
    }
}

/* A process that ends in order has left, which is no failure to those that go on. */
__attribute__((destructor)) static void leave_all(void)
{
    for (int i = 0; i < ORRI_COMMS_MAX; i++) {
        struct orri_splice *s = atomic_load(&orri_comms[i].splice);
        if (s && atomic_load(&s->is_shared))
            orri_watch_exit(s);
    }
}

/* ---- the abort ---------------------------------------------------------------------------------- */

static void keep(struct orri_splice *s)
{
    pthread_mutex_lock(&look_lock);
    s->is_aborting = true;
    s->next = aborted;
    aborted = s;
    pthread_mutex_unlock(&look_lock);
}

/* The link's thread frees it when its work is over, if it is not now. */
static void free_if_idle(struct orri_splice *s)
{
    uint64_t deadline_ms = orri_nccl_now_ms() + ABORT_MS, next_ms = 0;
    bool is_idle = false;

    while (orri_splice_is_idle(s, &is_idle) == ncclSuccess && !is_idle &&
           orri_nccl_now_ms() < deadline_ms) {
        if (orri_nccl_now_ms() >= next_ms) {
            orri_watch_release(s);
            next_ms = orri_nccl_now_ms() + RELEASE_MS;
        }
        pause_a_little();
    }
    pthread_mutex_lock(&look_lock);
    s->is_aborting = false;
    look_at_aborted();
    pthread_mutex_unlock(&look_lock);
}

ncclResult_t orri_splice_abort(struct orri_comm *c, ncclComm_t real)
{
    struct orri_splice *s = detach(c);
    ncclResult_t start, result = ncclSuccess, end;

    if (!s)
        return real ? REAL(CommAbort, real) : ncclSuccess;
    orri_watch_leave(s);
    keep(s);
    start = REAL0(GroupStart);
    if (real)
        result = REAL(CommAbort, real);
    orri_pairs_abort(s);
    orri_watch_release(s);
    end = REAL0(GroupEnd);
    free_if_idle(s);
    result = start == ncclSuccess ? result : start;
    return result == ncclSuccess ? end : result;
}
