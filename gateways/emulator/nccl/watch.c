/* SPDX-License-Identifier: Apache-2.0
 * watch.c - notices that a neighbour's process has died.
 *
 * The ranks of a communicator are a ring of socket pairs. Nothing is ever sent on them:
 * when a process ends, however it ends, the kernel closes its ends. A rank that leaves
 * in order has marked itself before; else its neighbour marks it dead, and with that
 * wakes all others. One thread watches all communicators of the process; it knows them
 * by serial number, so that it never follows a pointer to one that is gone.
 */
#include "comm.h"
#include "thread.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

static struct {
    pthread_mutex_t lock; /* guards the start, and each communicator's ring[] */
    pid_t pid;
    int epoll;
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

static void *serve(void *unused)
{
    struct epoll_event event;

    (void)unused;
    for (;;) {
        struct ncclComm *comm;
        if (epoll_wait(watch.epoll, &event, 1, -1) != 1)
            continue;
        comm = orri_comm_get_serial(event.data.u64 >> 1);
        if (!comm)
            continue;
        neighbour_hung_up(comm, (int)(event.data.u64 & 1));
        orri_comm_put(comm);
    }
    return NULL;
}

static bool start(void)
{
    if (watch.pid == getpid())
        return true;
    watch.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (watch.epoll < 0)
        return false;
    if (orri_thread_start(serve, NULL) != 0) {
        close(watch.epoll);
        return false;
    }
    watch.pid = getpid();
    return true;
}

bool orri_watch_add(struct ncclComm *comm)
{
    bool ok;

    pthread_mutex_lock(&watch.lock);
    ok = start();
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
    pthread_mutex_unlock(&watch.lock);
}
