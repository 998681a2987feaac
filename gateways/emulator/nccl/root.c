/* SPDX-License-Identifier: Apache-2.0
 * root.c - the thread that serves the meetings of this process (rendezvous.h): its
 * socket and its poll loop. What is decided is in meeting.c.
 */
#include "meeting.h"
#include "segment.h"
#include "thread.h"

#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

const char orri_id_tag[8] = "ORRNCC2";

static struct {
    pthread_mutex_t lock; /* guards everything here and in meeting.c */
    pid_t pid;            /* whose thread serves; after a fork there is none */
    int listener, wake;   /* owned */
    struct orri_id id;    /* without cookie */
} root = {.lock = PTHREAD_MUTEX_INITIALIZER, .listener = -1, .wake = -1};

static void accept_guest(void)
{
    struct orri_guest *g = orri_guest_free();
    int fd = accept4(root.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd >= 0)
        *g =
            (struct orri_guest){.fd = fd, .hello_by_ms = orri_now_ms() + ORRI_HELLO_MS};
}

static int list_polls(struct pollfd *polls, struct orri_guest **who)
{
    int n = 2, more = orri_guest_free() ? POLLIN : 0;

    polls[0] = (struct pollfd){.fd = root.wake, .events = POLLIN};
    polls[1] = (struct pollfd){.fd = root.listener, .events = (short)more};
    for (int i = 0; i < ORRI_GUESTS_MAX; i++) {
        if (orri_guests[i].fd < 0)
            continue;
        who[n] = &orri_guests[i];
        polls[n++] = (struct pollfd){.fd = orri_guests[i].fd, .events = POLLIN};
    }
    return n;
}

static void close_all(void)
{
    if (root.listener >= 0) {
        unlink(root.id.path);
        close(root.listener);
    }
    if (root.wake >= 0)
        close(root.wake);
    root.listener = root.wake = -1;
    root.pid = 0;
}

/* Until there is no meeting left. */
static void *serve(void *unused)
{
    static struct pollfd polls[ORRI_GUESTS_MAX + 2];
    static struct orri_guest *who[ORRI_GUESTS_MAX + 2];
    eventfd_t ignored;

    (void)unused;
    pthread_mutex_lock(&root.lock);
    for (;;) {
        int timeout_ms = orri_meetings_expire(), n, ready;
        if (orri_meetings_count() == 0)
            break;
        n = list_polls(polls, who);
        pthread_mutex_unlock(&root.lock);
        ready = poll(polls, (nfds_t)n, timeout_ms);
        pthread_mutex_lock(&root.lock);
        if (ready <= 0)
            continue;
        if (polls[0].revents)
            eventfd_read(root.wake, &ignored);
        for (int i = 2; i < n; i++)
            if (polls[i].revents && who[i]->fd == polls[i].fd)
                orri_guest_read(who[i]);
        if (polls[1].revents && orri_guest_free())
            accept_guest();
    }
    unlink(root.id.path); /* before it hangs up: see used_up() in join.c */
    orri_guests_drop();
    close_all();
    pthread_mutex_unlock(&root.lock);
    return NULL;
}

/* The root needs no network, but a program that names an interface that is not there hears of it, as from NCCL.
 * ("eth0": a prefix, "=eth0": exactly.) */
static int check_interface(void)
{
    const char *want = getenv("NCCL_SOCKET_IFNAME");
    bool exact = want && want[0] == '=';
    struct ifaddrs *all;
    int err = -ENODEV;

    if (!want || !want[0] || want[0] == '^')
        return 0;
    want += exact;
    if (getifaddrs(&all) < 0)
        return -errno;
    for (struct ifaddrs *i = all; i && err; i = i->ifa_next) {
        bool named = exact ? strcmp(i->ifa_name, want) == 0
                           : strncmp(i->ifa_name, want, strlen(want)) == 0;
        if (named && i->ifa_addr && i->ifa_addr->sa_family == AF_INET)
            err = 0;
    }
    freeifaddrs(all);
    return err;
}

/* Returns 0 or -errno. The first meeting is there already. */
static int start_serving(void)
{
    int err;

    root.id = (struct orri_id){.tag = ""};
    memcpy(root.id.tag, orri_id_tag, sizeof root.id.tag);
    root.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    err = root.wake < 0 ? -errno : 0;
    if (!err)
        err = orri_listen(root.id.path, sizeof root.id.path, &root.listener);
    root.pid = getpid();
    if (!err)
        err = orri_thread_start(serve, NULL);
    if (err)
        close_all();
    return err;
}

/* A process that ends in order takes its socket with it. */
__attribute__((destructor)) static void leave(void)
{
    if (root.pid == getpid() && root.listener >= 0)
        unlink(root.id.path);
}

ncclResult_t orri_root_invite(ncclUniqueId *ret_id, struct orri_why *why)
{
    struct orri_id id;
    uint8_t cookie[16];
    int err = check_interface();

    pthread_mutex_lock(&root.lock);
    if (root.pid != getpid()) {
        if (root.pid != 0) /* a fork's: the descriptors are its parent's business */
            root.listener = root.wake = -1;
        orri_meetings_init();
    }
    if (!err && getrandom(cookie, sizeof cookie, 0) != sizeof cookie)
        err = -EIO;
    if (!err && !orri_meeting_add(cookie))
        err = -ENOMEM;
    if (!err && root.pid != getpid())
        err = start_serving();
    id = root.id;
    if (!err)
        eventfd_write(root.wake, 1);
    pthread_mutex_unlock(&root.lock);
    if (err == -ENODEV)
        return orri_why_set(why,
                            ncclSystemError,
                            "NCCL_SOCKET_IFNAME=%s names no interface with an IPv4 "
                            "address: unset it",
                            getenv("NCCL_SOCKET_IFNAME"));
    if (err == -EPERM)
        return orri_why_set(why,
                            ncclSystemError,
                            "/dev/shm/orrery-nccl-%u must be a directory of this user "
                            "with mode 0700: remove it",
                            (unsigned)geteuid());
    if (err)
        return orri_why_set(
            why, ncclSystemError, "cannot listen for ranks: %s", strerror(-err));
    memcpy(id.cookie, cookie, sizeof id.cookie);
    memcpy(ret_id->internal, &id, sizeof id);
    return ncclSuccess;
}
