/* SPDX-License-Identifier: Apache-2.0
 * store_lease.c - a lease is a locked file in leases/; the kernel lets go of it when its holder dies.
 *
 * Its time says since when the holder has been writing: what carries that time or a later one may be
 * part of what it makes, and no collection touches it.
 */
#include "store_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

enum { ATTEMPTS = 16, CLOCK_STEP_S = 60 };

static int take(struct orr_store *s, struct orri_lease *lease)
{
    uint64_t number;
    struct stat st;
    struct timespec now;
    if (getrandom(&number, sizeof number, 0) != sizeof number)
        return -1;
    snprintf(lease->name,
             sizeof lease->name,
             "%016llx-%d",
             (unsigned long long)number,
             (int)getpid());
    const int fd = orri_io_create(s->leases, lease->name);
    if (fd < 0)
        return -1;
    /* A collection that saw the file before it was locked has taken it for a dead one. */
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 || fstat(fd, &st) != 0 || st.st_nlink == 0) {
        close(fd);
        errno = EAGAIN;
        return -1;
    }
    if (orri_io_touch_fd(fd, lease->name, &now) != 0) {
        const int why = errno;
        (void)unlinkat(s->leases, lease->name, 0);
        close(fd);
        errno = why;
        return -1;
    }
    return fd;
}

enum orr_err
orri_lease_take(struct orr_store *s, struct orri_lease *lease, struct orr_error *err)
{
    *lease = (struct orri_lease){.fd = -1};
    for (unsigned i = 0; i < ATTEMPTS; i++) {
        lease->fd = take(s, lease);
        if (lease->fd >= 0)
            return ORR_OK;
        if (errno != EAGAIN && errno != EEXIST)
            break;
    }
    return orri_io_fail(err, "cannot lease", s->path);
}

void orri_lease_drop(struct orr_store *s, struct orri_lease *lease)
{
    if (lease->fd < 0)
        return;
    (void)orri_io_unlink(s->leases, lease->name);
    close(lease->fd);
    lease->fd = -1;
}

/* ---- what dead holders left ---- */

static DIR *list(int dir)
{
    const int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d && fd >= 0)
        close(fd);
    return d;
}

static void lower(struct timespec *cutoff, const struct timespec *start)
{
    const time_t s =
        start->tv_sec - CLOCK_STEP_S; /* a clock may be set back meanwhile */
    if (s < cutoff->tv_sec)
        *cutoff = (struct timespec){.tv_sec = s};
}

/* Is its holder alive?  A dead one's is removed. */
static bool is_live(struct orr_store *s, const char *name, struct stat *ret_st)
{
    const int fd = openat(s->leases, name, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool is_held = flock(fd, LOCK_EX | LOCK_NB) != 0;
    if (!is_held)
        (void)orri_io_unlink(s->leases, name);
    else if (fstat(fd, ret_st) != 0)
        ret_st->st_mtim = (struct timespec){0};
    close(fd);
    return is_held;
}

static void sweep_tmp(struct orr_store *s, DIR *d)
{
    struct stat st;
    for (struct dirent *e; (e = readdir(d));) {
        char lease[sizeof e->d_name];
        snprintf(lease, sizeof lease, "%s", e->d_name);
        char *dot = strrchr(lease, '.');
        if (!dot || dot == lease)
            continue;
        *dot = '\0';
        if (!is_live(s, lease, &st))
            (void)orri_io_unlink(s->tmp, e->d_name);
    }
}

enum orr_err
orri_lease_sweep(struct orr_store *s, struct timespec *cutoff, struct orr_error *err)
{
    struct stat st;
    DIR *d = list(s->leases);
    if (!d)
        return orri_io_fail(err, "cannot read leases of", s->path);
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.' && is_live(s, e->d_name, &st))
            lower(cutoff, &st.st_mtim);
    closedir(d);
    d = list(s->tmp);
    if (!d)
        return orri_io_fail(err, "cannot read tmp of", s->path);
    sweep_tmp(s, d);
    closedir(d);
    return ORR_OK;
}
