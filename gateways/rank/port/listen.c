/* SPDX-License-Identifier: Apache-2.0
 * listen.c - the sockets of ranks: one each, at the path that the rank's processes know for the job's life.
 *
 * The path is taken over by rename: a host that dies leaves its sockets behind, and two hosts of one machine may have the rank one
 * after the other.  Only a path that is still ours is removed; and one that is gone is made anew: a host that came back with the
 * rank's earlier generation has taken it over, and then away.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "edge.h"
#include "orrery/rank_link.h"

enum { BACKLOG = 64 };

static uint64_t inode_of(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 ? st.st_ino : 0;
}

static int listen_at(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    char text[ORRI_PATH_MAX];
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (sock < 0)
        return -1;
    /* as long as the path itself, and of this host alone */
    snprintf(
        text, sizeof text, "%.*s%05d", (int)strlen(path) - 5, path, getpid() % 100000);
    memcpy(addr.sun_path, text, sizeof addr.sun_path);
    unlink(text);
    if (bind(sock, (const struct sockaddr *)&addr, sizeof addr) == 0) {
        if (listen(sock, BACKLOG) == 0 && rename(text, path) == 0)
            return sock;
        int code = errno;
        unlink(text);
        errno = code;
    }
    close(sock);
    return -1;
}

enum orr_err orri_rank_show(struct orr_rank_edge *edge,
                            struct orri_rank *rank,
                            struct orr_error *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &rank->source};
    if (rank->listener >= 0)
        return ORR_OK;
    orr_rank_link_path(
        edge->run, rank->gen->link, rank->rank, rank->path, sizeof rank->path);
    rank->listener = listen_at(rank->path);
    if (rank->listener < 0 ||
        epoll_ctl(edge->epoll_fd, EPOLL_CTL_ADD, rank->listener, &event) != 0) {
        enum orr_err rc = orr_fail(err, ORR_EIO, "%s: %s", rank->path, strerror(errno));
        orri_rank_hide(rank);
        return rc;
    }
    rank->path_inode = inode_of(rank->path);
    return ORR_OK;
}

void orri_rank_hide(struct orri_rank *rank)
{
    if (rank->listener < 0)
        return;
    if (rank->path_inode && inode_of(rank->path) == rank->path_inode)
        unlink(rank->path);
    close(rank->listener);
    rank->listener = -1;
    rank->path_inode = 0;
}

void orri_rank_keep_shown(struct orr_rank_edge *edge, struct orri_rank *rank)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &rank->source};
    if (rank->listener < 0 || inode_of(rank->path) != 0)
        return;
    int fresh = listen_at(rank->path);
    if (fresh < 0)
        return; /* next time */
    if (epoll_ctl(edge->epoll_fd, EPOLL_CTL_ADD, fresh, &event) != 0) {
        unlink(rank->path);
        close(fresh);
        return;
    }
    close(rank->listener);
    rank->listener = fresh;
    rank->path_inode = inode_of(rank->path);
}

void orri_rank_accept(struct orr_rank_edge *edge, struct orri_rank *rank)
{
    struct ucred who = {0};
    socklen_t len = sizeof who;
    int sock = accept4(rank->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct orri_proc *proc = sock < 0 ? NULL : orri_proc_new(rank);
    struct epoll_event event = {.events = EPOLLIN};
    if (!proc) {
        rank->ability_due |= sock >= 0 && !rank->is_crowded;
        rank->is_crowded |= sock >= 0; /* and stays so: nobody knows when it ends */
        if (sock >= 0)
            close(sock);
        return;
    }
    event.data.ptr = &proc->source;
    proc->sock = sock;
    proc->accepted_ms = edge->now_ms;
    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 && who.pid > 0) {
        proc->pid = who.pid;
        proc->pidfd = (int)syscall(SYS_pidfd_open, who.pid, 0);
    }
    if (epoll_ctl(edge->epoll_fd, EPOLL_CTL_ADD, sock, &event) != 0)
        orri_proc_free(edge, proc);
}
