/* SPDX-License-Identifier: Apache-2.0
 * work.c - see work.h.
 */
#include "work.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "../core/thread.h"

static int by_key(const void *a, const void *b)
{
    const struct orri_comm *x = *(struct orri_comm *const *)a;
    const struct orri_comm *y = *(struct orri_comm *const *)b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->me > y->me) - (x->me < y->me);
}

void orri_work_sort(struct orri_comm **list, size_t n)
{
    qsort(list, n, sizeof *list, by_key);
}

static bool is_of(struct orri_comm *c, enum orri_work_kind kind)
{
    if (kind == ORRI_WORK_DESTROYED)
        return c->is_used && c->destroyed;
    return atomic_load(&c->handle) &&
           (kind == ORRI_WORK_REAL ? atomic_load(&c->real) || atomic_load(&c->splice)
                                   : c->is_stopped);
}

size_t orri_work_list(struct orri_comm **list, enum orri_work_kind kind)
{
    size_t n = 0;

    for (int i = 0; i < ORRI_COMMS_MAX; i++)
        if (is_of(&orri_comms[i], kind))
            list[n++] = &orri_comms[i];
    orri_work_sort(list, n);
    return n;
}

struct orri_work *orri_work_new(void (*run)(struct orri_work *, size_t),
                                enum orri_work_kind kind)
{
    struct orri_work *w = calloc(1, sizeof *w);
    pthread_condattr_t attr;

    if (!w)
        return NULL;
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->turn, &attr);
    pthread_condattr_destroy(&attr);
    w->refs = 1;
    w->run = run;
    w->n = orri_work_list(w->comm, kind);
    return w;
}

void orri_work_put(struct orri_work *w)
{
    bool is_last;

    pthread_mutex_lock(&w->lock);
    is_last = --w->refs == 0;
    pthread_mutex_unlock(&w->lock);
    if (is_last) {
        pthread_cond_destroy(&w->turn);
        pthread_mutex_destroy(&w->lock);
        free(w);
    }
}

void orri_work_note(struct orri_work *w, size_t i, ncclResult_t result)
{
    const char *text =
        orri_self.is_ours ? orri_self.text : orri_real.GetLastError(NULL);

    pthread_mutex_lock(&w->lock);
    w->result[i] = result;
    if (result != ncclSuccess && !w->text[0])
        snprintf(w->text,
                 sizeof w->text,
                 "communicator %016llx (rank %d of %d): %.60s: %.120s",
                 (unsigned long long)w->comm[i]->key,
                 w->comm[i]->me,
                 atomic_load(&w->comm[i]->n),
                 orri_real.GetErrorString(result),
                 text ? text : "");
    pthread_mutex_unlock(&w->lock);
}

static void *worker(void *arg)
{
    struct orri_work *w = arg;

    orri_self.inside = 1; /* all calls of this thread are to the real library */
    for (;;) {
        size_t i;
        pthread_mutex_lock(&w->lock);
        i = w->next++;
        pthread_mutex_unlock(&w->lock);
        if (i >= w->n)
            break;
        w->run(w, i);
        atomic_store(&w->is_done[i], true);
    }
    pthread_mutex_lock(&w->lock);
    w->threads--;
    pthread_cond_broadcast(&w->turn);
    pthread_mutex_unlock(&w->lock);
    orri_work_put(w);
    return NULL;
}

bool orri_work_await(struct orri_work *w, uint64_t deadline_ms)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ms / 1000),
                             .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    bool is_over;
    int err = 0;

    pthread_mutex_lock(&w->lock);
    while (w->threads > 0 && err != ETIMEDOUT)
        err = pthread_cond_timedwait(&w->turn, &w->lock, &until);
    is_over = w->threads == 0;
    pthread_mutex_unlock(&w->lock);
    return is_over;
}

bool orri_work_run(struct orri_work *w, size_t n, uint64_t deadline_ms)
{
    size_t started = 0;

    n = n > w->n ? w->n : n;
    n = n > ORRI_WORK_THREADS ? ORRI_WORK_THREADS : n;
    for (; started < n; started++) {
        pthread_mutex_lock(&w->lock);
        w->threads++;
        w->refs++;
        pthread_mutex_unlock(&w->lock);
        if (!orri_thread_run(worker, w)) {
            pthread_mutex_lock(&w->lock);
            w->threads--;
            w->refs--;
            pthread_mutex_unlock(&w->lock);
            break;
        }
    }
    return (n == 0 || started > 0) && orri_work_await(w, deadline_ms);
}
