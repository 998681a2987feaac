/* SPDX-License-Identifier: Apache-2.0
 * root.c - the thread that serves the meetings of this process (rendezvous.h): its
 * sockets and its poll loop. What is decided is in meeting.c.
 */
#include "meeting.h"
#include "segment.h"
#include "thread.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

const char orri_id_tag[8] = "ORRNCCL";

static struct {
    pthread_mutex_t lock; /* guards everything here and in meeting.c */
    pid_t pid;            /* whose thread serves; after a fork there is none */
    int tcp, local, wake; /* owned */
    struct orri_id id;    /* without cookie */
} root = {.lock = PTHREAD_MUTEX_INITIALIZER};

socklen_t orri_root_address(const uint8_t id[16], struct sockaddr_un *ret_address)
{
    int at;

    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    at = sprintf(ret_address->sun_path + 1, "orrery-nccl-");
    for (int i = 0; i < 16; i++)
        at += sprintf(ret_address->sun_path + 1 + at, "%02x", id[i]);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)at);
}

static void accept_guest(int listener)
{
    struct orri_guest *g = orri_guest_free();
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd >= 0)
        *g = (struct orri_guest){.fd = fd,
                                 .is_local = listener == root.local,
                                 .hello_by_ms = orri_now_ms() + ORRI_HELLO_MS};
}

static int list_polls(struct pollfd *polls, struct orri_guest **who)
{
    int n = 3, more = orri_guest_free() ? POLLIN : 0;

    polls[0] = (struct pollfd){.fd = root.wake, .events = POLLIN};
    polls[1] = (struct pollfd){.fd = root.tcp, .events = (short)more};
    polls[2] = (struct pollfd){.fd = root.local, .events = (short)more};
    for (int i = 0; i < ORRI_GUESTS_MAX; i++) {
        if (orri_guests[i].fd < 0)
            continue;
        who[n] = &orri_guests[i];
        polls[n++] = (struct pollfd){.fd = orri_guests[i].fd, .events = POLLIN};
    }
    return n;
}

static void *serve(void *unused)
{
    static struct pollfd polls[ORRI_GUESTS_MAX + 3];
    static struct orri_guest *who[ORRI_GUESTS_MAX + 3];
    eventfd_t ignored;

    (void)unused;
    pthread_mutex_lock(&root.lock);
    for (;;) {
        int timeout_ms = orri_meetings_expire(), n = list_polls(polls, who), ready;
        pthread_mutex_unlock(&root.lock);
        ready = poll(polls, (nfds_t)n, timeout_ms);
        pthread_mutex_lock(&root.lock);
        if (ready <= 0)
            continue;
        if (polls[0].revents)
            eventfd_read(root.wake, &ignored);
        for (int i = 3; i < n; i++)
            if (polls[i].revents && who[i]->fd == polls[i].fd)
                orri_guest_read(who[i]);
        for (int i = 1; i < 3; i++)
            if (polls[i].revents && orri_guest_free())
                accept_guest(polls[i].fd);
    }
    return NULL;
}

/* The address of NCCL_SOCKET_IFNAME ("eth0": a prefix, "=eth0": exactly), or loopback.
 */
static int own_address(uint32_t *ret_address)
{
    const char *want = getenv("NCCL_SOCKET_IFNAME");
    bool exact = want && want[0] == '=';
    struct ifaddrs *all, *i;
    int err = -ENODEV;

    *ret_address = htonl(INADDR_LOOPBACK);
    if (!want || !want[0] || want[0] == '^')
        return 0;
    want += exact;
    if (getifaddrs(&all) < 0)
        return -errno;
    for (i = all; i && err; i = i->ifa_next) {
        bool named = exact ? strcmp(i->ifa_name, want) == 0
                           : strncmp(i->ifa_name, want, strlen(want)) == 0;
        if (named && i->ifa_addr && i->ifa_addr->sa_family == AF_INET) {
            struct sockaddr_in in;
            memcpy(&in, i->ifa_addr, sizeof in);
            *ret_address = in.sin_addr.s_addr;
            err = 0;
        }
    }
    freeifaddrs(all);
    return err;
}

static int listen_tcp(void)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    socklen_t len = sizeof in;
    int err = own_address(&in.sin_addr.s_addr);

    if (err)
        return err;
    root.tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (root.tcp < 0 || bind(root.tcp, (struct sockaddr *)&in, sizeof in) < 0 ||
        listen(root.tcp, 512) < 0 ||
        getsockname(root.tcp, (struct sockaddr *)&in, &len) < 0)
        return -errno;
    root.id.address = in.sin_addr.s_addr;
    root.id.port = in.sin_port;
    return 0;
}

static int listen_local(void)
{
    struct sockaddr_un un;
    socklen_t len = orri_root_address(root.id.root, &un);

    root.local = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (root.local < 0 || bind(root.local, (struct sockaddr *)&un, len) < 0 ||
        listen(root.local, 512) < 0)
        return -errno;
    return 0;
}

static void close_all(void)
{
    int *fds[] = {&root.tcp, &root.local, &root.wake};

    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
}

/* Returns 0 or -errno. */
static int start_serving(void)
{
    int err;

    root.tcp = root.local = root.wake = -1;
    orri_meetings_init();
    root.id = (struct orri_id){.port = 0};
    memcpy(root.id.tag, orri_id_tag, sizeof root.id.tag);
    if (getrandom(root.id.root, sizeof root.id.root, 0) != sizeof root.id.root)
        return -EIO;
    root.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    err = root.wake < 0 ? -errno : listen_tcp();
    if (!err)
        err = listen_local();
    if (!err)
        err = orri_thread_start(serve, NULL);
    if (err)
        close_all();
    else
        root.pid = getpid();
    return err;
}

ncclResult_t orri_root_invite(ncclUniqueId *ret_id, struct orri_why *why)
{
    struct orri_id id;
    int err = 0;

    pthread_mutex_lock(&root.lock);
    if (root.pid != getpid())
        err = start_serving();
    id = root.id;
    if (!err && getrandom(id.cookie, sizeof id.cookie, 0) != sizeof id.cookie)
        err = -EIO;
    if (!err && !orri_meeting_add(id.cookie))
        err = -ENOMEM;
    pthread_mutex_unlock(&root.lock);
    if (err == -ENODEV)
        return orri_why_set(why,
                            ncclSystemError,
                            "NCCL_SOCKET_IFNAME=%s names no interface with an IPv4 "
                            "address: unset it to use loopback",
                            getenv("NCCL_SOCKET_IFNAME"));
    if (err)
        return orri_why_set(
            why, ncclSystemError, "cannot listen for ranks: %s", strerror(-err));
    *ret_id = (ncclUniqueId){.internal = {0}};
    memcpy(ret_id->internal, &id, sizeof id);
    return ncclSuccess;
}
