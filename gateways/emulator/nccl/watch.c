/* SPDX-License-Identifier: Apache-2.0
 * watch.c - notices that a neighbour's process has died.
 *
 * The ranks of a communicator are a ring of socket pairs. Nothing is ever sent on them:
 * when a process ends, however it ends, the kernel closes its ends. A rank that leaves
 * in order has marked itself before; else its neighbour marks it dead, and with that
 * wakes all others. One thread watches all communicators of the process; it knows them
 * by serial number, so that it never follows a pointer to one that is gone. It ends, and
 * closes what it has, when there is none left.
 */
#include "comm.h"
#include "thread.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* No serial number: of the eventfd. */
#define WAKE UINT64_MAX

static struct {
    pthread_mutex_t lock; /* guards all of this, and each communicator's ring[] */
    pid_t pid;            /* whose thread watches; 0: none */
    int epoll, wake;      /* owned; by the thread once it runs */
    unsigned n;           /* communicators that are watched */
} watch = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void neighbour_hung_up(struct ncclComm *comm, int side)
{
    int n = comm->nranks, rank = (comm->rank + (side ? 1 : n - 1)) % n;

    pthread_mutex_lock(&watch.lock);
    if (comm->ring[side] >= 0) {
        epoll_ctl(watch.epoll, EPOLL_CTL_DEL, comm->ring[side], NULL);
        orri_rank_mark(&comm->seg, rank, RANK_DEAD);
    }
    pthread_mutex_unlock(&watch.lock);
}

/* True when there is nothing left to watch; then it is all closed. */
static bool is_over(void)
{
    eventfd_t ignored;
    bool over;

    pthread_mutex_lock(&watch.lock);
    eventfd_read(watch.wake, &ignored);
    over = watch.n == 0;
    if (over) {
        close(watch.epoll);
        close(watch.wake);
        watch.pid = 0;
    }
    pthread_mutex_unlock(&watch.lock);
    return over;
}

static void *serve(void *unused)
{
    struct epoll_event event;
    int epoll = watch.epoll; /* its own until it is over */

    (void)unused;
    for (;;) {
        struct ncclComm *comm;
        if (epoll_wait(epoll, &event, 1, -1) != 1)
            continue;
        if (event.data.u64 == WAKE && is_over())
            break;
        comm =
            event.data.u64 == WAKE ? NULL : orri_comm_get_serial(event.data.u64 >> 1);
        if (!comm)
            continue;
        neighbour_hung_up(comm, (int)(event.data.u64 & 1));
        orri_comm_put(comm);
    }
    return NULL;
}

static bool start(void)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = WAKE};

    if (watch.pid == getpid())
        return true;
    watch.n = 0;
    watch.epoll = epoll_create1(EPOLL_CLOEXEC);
    watch.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (watch.epoll >= 0 && watch.wake >= 0 &&
        epoll_ctl(watch.epoll, EPOLL_CTL_ADD, watch.wake, &event) == 0 &&
        orri_thread_start(serve, NULL) == 0) {
        watch.pid = getpid();
        return true;
    }
    if (watch.epoll >= 0)
        close(watch.epoll);
    if (watch.wake >= 0)
        close(watch.wake);
    return false;
}

bool orri_watch_add(struct ncclComm *comm)
{
    bool ok;

    pthread_mutex_lock(&watch.lock);
    ok = start();
    watch.n += ok;
    comm->is_watched = ok;
    for (int side = 0; ok && side < 2; side++) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP,
                                    .data.u64 = comm->serial << 1 | (unsigned)side};
        ok = epoll_ctl(watch.epoll, EPOLL_CTL_ADD, comm->ring[side], &event) == 0;
    }
    pthread_mutex_unlock(&watch.lock);
    return ok;
}

void orri_watch_remove(struct ncclComm *comm)
{
    pthread_mutex_lock(&watch.lock);
    for (int side = 0; side < 2; side++) {
        if (comm->ring[side] >= 0)
            close(comm->ring[side]); /* and so out of the epoll set */
        comm->ring[side] = -1;
    }
    if (comm->is_watched && watch.pid == getpid() && --watch.n == 0)
        eventfd_write(watch.wake, 1);
    comm->is_watched = false;
    pthread_mutex_unlock(&watch.lock);
}
