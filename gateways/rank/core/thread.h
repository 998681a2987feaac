/* SPDX-License-Identifier: Apache-2.0
 * thread.h - threads that the libraries of this folder start in a program: none of the program's signals is handled there.
 */
#ifndef ORRI_RANK_THREAD_H
#define ORRI_RANK_THREAD_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>

/* False: there is no thread left.  To be joined. */
static inline bool orri_thread_start(pthread_t *ret, void *(*fn)(void *), void *arg)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* inherited by the new one */
    bool ok = pthread_create(ret, NULL, fn, arg) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return ok;
}

/* The same; nobody waits for its end. */
static inline bool orri_thread_run(void *(*fn)(void *), void *arg)
{
    pthread_t thread;
    bool ok = orri_thread_start(&thread, fn, arg);
    if (ok)
        pthread_detach(thread);
    return ok;
}

#endif
