/* SPDX-License-Identifier: Apache-2.0
 * listen.c - the root's socket, and those that dead roots have left (rendezvous.h).
 *
 * A socket keeps the name that it was bound to: that is the one under which CRIU binds it again in a migrated process.  Its file
 * is there a moment before it, so only what refuses and is no longer new is nobody's.
 */
#include "rendezvous.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { SWEEP_MAX = 1000, NEW_FOR_S = 60 };

static int open_directory(char *dir, size_t cap)
{
    struct stat st;

    snprintf(dir, cap, "/dev/shm/orrery-nccl-%u", (unsigned)geteuid());
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return -errno;
    if (lstat(dir, &st) < 0)
        return -errno;
    return S_ISDIR(st.st_mode) && st.st_uid == geteuid() && (st.st_mode & 077) == 0
               ? 0
               : -EPERM;
}

/* Asked with a socket of another kind, which one that lives refuses otherwise (EPROTOTYPE), and does not hear of: a connection
 * that its process, stopped just then, has not accepted, and that is closed, is what CRIU cannot save. */
static bool is_dead(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool refuses;

    snprintf(un.sun_path, sizeof un.sun_path, "%.107s", path);
    refuses = fd >= 0 && connect(fd, (struct sockaddr *)&un, sizeof un) < 0 &&
              errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    return refuses;
}

static void sweep(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *e;

    for (int n = 0; d && n < SWEEP_MAX && (e = readdir(d)); n++) {
        char path[sizeof(struct sockaddr_un)];
        struct stat st;
        if (e->d_name[0] == '.' ||
            snprintf(path, sizeof path, "%s/%.64s", dir, e->d_name) >= (int)sizeof path)
            continue;
        if (lstat(path, &st) == 0 && st.st_mtime + NEW_FOR_S < time(NULL) &&
            is_dead(path))
            unlink(path);
    }
    if (d)
        closedir(d);
}

int orri_listen(char *path, size_t cap, int *ret_fd)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    char dir[64];
    uint64_t name[2];
    int err = open_directory(dir, sizeof dir), fd;

    if (err)
        return err;
    sweep(dir);
    if (getrandom(name, sizeof name, 0) != sizeof name)
        return -EIO;
    if (snprintf(path,
                 cap,
                 "%s/%016llx%016llx",
                 dir,
                 (unsigned long long)name[0],
                 (unsigned long long)name[1]) >= (int)cap ||
        strlen(path) >= sizeof un.sun_path)
        return -ENAMETOOLONG;
    memcpy(un.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&un, sizeof un) < 0 || listen(fd, 512) < 0) {
        err = -errno;
        unlink(path);
        close(fd);
        return err;
    }
    *ret_fd = fd;
    return 0;
}
