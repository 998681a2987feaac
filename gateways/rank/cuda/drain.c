/* SPDX-License-Identifier: Apache-2.0
 * drain.c - see drain.h.
 */
#include "drain.h"

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#include "../core/thread.h"
#include "context.h"
#include "gate.h"
#include "pool.h"
#include "segment.h"

/* Guarded by lock. The waiting thread may outlive the stop that began it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t done;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct orri_context contexts[ORRI_CONTEXTS_MAX];
static size_t n_contexts;
static bool is_running;
static CUresult result;

static void start(void)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&done, &attr);
    pthread_condattr_destroy(&attr);
}

static void *wait_for_all(void *unused)
{
    (void)unused;
    CUresult rc = CUDA_SUCCESS;
    orri_cuda_exempt_begin();
    for (size_t i = 0; i < n_contexts && !rc; i++)
        rc = orri_context_wait(contexts[i].ctx);
    if (!rc && n_contexts && REAL(cuCtxSetCurrent)(contexts[0].ctx) == CUDA_SUCCESS) {
        pthread_mutex_lock(&orri_cuda_lock);
        orri_pool_collect();
        pthread_mutex_unlock(&orri_cuda_lock);
    }
    pthread_mutex_lock(&lock);
    result = rc;
    is_running = false;
    pthread_cond_signal(&done);
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* With lock. */
static bool begin(void)
{
    pthread_mutex_lock(&orri_cuda_lock);
    n_contexts = orri_contexts_get(contexts);
    pthread_mutex_unlock(&orri_cuda_lock);
    is_running = orri_thread_run(wait_for_all, NULL);
    return is_running;
}

CUresult orri_drain(uint64_t deadline_ms)
{
    const struct timespec until = {.tv_sec = (time_t)(deadline_ms / 1000),
                                   .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    pthread_once(&once, start);
    pthread_mutex_lock(&lock);
    CUresult rc = is_running ? CUDA_ERROR_TIMEOUT : CUDA_SUCCESS;
    if (!rc && !begin())
        rc = CUDA_ERROR_OUT_OF_MEMORY;
    while (!rc && is_running)
        if (pthread_cond_timedwait(&done, &lock, &until) != 0 && is_running)
            rc = CUDA_ERROR_TIMEOUT;
    if (!rc)
        rc = result;
    pthread_mutex_unlock(&lock);
    return rc;
}
