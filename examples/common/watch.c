/* SPDX-License-Identifier: Apache-2.0
 * watch.c - see watch.h.
 */
#include "watch.h"

#include "fail.h"

#include <string.h>
#include <time.h>

enum { TICK_MS = 100, TICKS_PER_S = 1000 / TICK_MS };

static void check(struct watch *w)
{
    for (size_t i = 0; i < w->ncomms; i++) {
        ncclResult_t res;
        NCCL(ncclCommGetAsyncError, w->comms[i], &res);
        if (res != ncclSuccess && res != ncclInProgress)
            nccl_die(w->what, res, w->comms[i]);
    }
    if (w->ticks_left == 0)
        die("%s: not finished in time: is a peer stuck?", w->what);
    w->ticks_left--;
}

static void *run(void *arg)
{
    struct watch *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->is_stopping) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += TICK_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        if (pthread_cond_timedwait(&w->wake, &w->lock, &until) != 0)
            check(w);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

void watch_init(struct watch *w)
{
    pthread_condattr_t attr;
    *w = (struct watch){.what = "start", .ticks_left = UINT32_MAX};
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &attr);
    pthread_condattr_destroy(&attr);
    int rc = pthread_create(&w->thread, NULL, run, w);
    if (rc != 0)
        die("pthread_create: %s", strerror(rc));
}

void watch_fini(struct watch *w)
{
    pthread_mutex_lock(&w->lock);
    w->is_stopping = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
}

void watch_comms(struct watch *w, const ncclComm_t *comms, size_t n)
{
    pthread_mutex_lock(&w->lock);
    for (size_t i = 0; i < n; i++)
        w->comms[i] = comms[i];
    w->ncomms = n;
    pthread_mutex_unlock(&w->lock);
}

void watch_enter(struct watch *w, const char *what, uint32_t seconds)
{
    pthread_mutex_lock(&w->lock);
    w->what = what;
    w->ticks_left = seconds * TICKS_PER_S;
    pthread_mutex_unlock(&w->lock);
}
