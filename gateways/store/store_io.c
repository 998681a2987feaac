/* SPDX-License-Identifier: Apache-2.0
 * store_io.c - every system call that changes the directory, in one place, so that a test can stop
 * the process before any of them, in the middle of a write, or let one fail.
 */
#include "store_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

orri_store_fault_f orri_store_fault;

int orri_io_fault(const char *call, const char *name)
{
    const int why = orri_store_fault ? orri_store_fault(call, name) : 0;
    if (why)
        errno = why;
    return why;
}

int orri_io_create(int dir, const char *name)
{
    if (orri_io_fault("create", name))
        return -1;
    return openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
}

static int write_all(int fd, const uint8_t *data, size_t len)
{
    while (len) {
        const ssize_t n = write(fd, data, len);
        if (n < 0 && errno != EINTR)
            return -1;
        data += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int orri_io_write(int fd,
                  const char *name,
                  const void *head,
                  size_t head_len,
                  const void *data,
                  size_t len)
{
    const uint8_t *at = data;
    if (orri_io_fault("write", name))
        return -1;
    const struct iovec parts[2] = {{(void *)(uintptr_t)head, head_len},
                                   {(void *)(uintptr_t)data, len}};
    if (!orri_store_fault) {
        const ssize_t n = writev(fd, parts, 2);
        if (n < 0 && errno != EINTR)
            return -1;
        const size_t done = n > 0 ? (size_t)n : 0;
        if (done < head_len)
            return write_all(fd, (const uint8_t *)head + done, head_len - done) ||
                           write_all(fd, at, len)
                       ? -1
                       : 0;
        return write_all(fd, at + (done - head_len), len - (done - head_len));
    }
    if (write_all(fd, head, head_len) || write_all(fd, at, len / 2) ||
        orri_io_fault("write2", name))
        return -1;
    return write_all(fd, at + len / 2, len - len / 2);
}

int orri_io_sync(int fd, const char *name)
{
    return orri_io_fault("sync", name) ? -1 : fsync(fd);
}

int orri_io_symlink(const char *target, int dir, const char *name)
{
    return orri_io_fault("symlink", name) ? -1 : symlinkat(target, dir, name);
}

int orri_io_rename(int from_dir, const char *from, int to_dir, const char *to)
{
    return orri_io_fault("rename", to) ? -1 : renameat(from_dir, from, to_dir, to);
}

int orri_io_rename_new(int from_dir, const char *from, int to_dir, const char *to)
{
    if (orri_io_fault("rename_new", to))
        return -1;
    if (renameat2(from_dir, from, to_dir, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -1;
    /* A filesystem without it, such as NFS. */
    if (linkat(from_dir, from, to_dir, to, 0) != 0)
        return -1;
    return unlinkat(from_dir, from, 0);
}

int orri_io_unlink(int dir, const char *name)
{
    return orri_io_fault("unlink", name) ? -1 : unlinkat(dir, name, 0);
}

int orri_io_mkdir(int dir, const char *name)
{
    return orri_io_fault("mkdir", name) ? -1 : mkdirat(dir, name, 0755);
}

int orri_io_touch(int dir, const char *name)
{
    struct timespec t[2];
    clock_gettime(CLOCK_REALTIME, &t[0]);
    t[1] = t[0];
    return orri_io_fault("touch", name) ? -1
                                        : utimensat(dir, name, t, AT_SYMLINK_NOFOLLOW);
}

int orri_io_touch_fd(int fd, const char *name, struct timespec *ret_time)
{
    struct timespec t[2];
    clock_gettime(CLOCK_REALTIME, &t[0]);
    t[1] = t[0];
    *ret_time = t[1];
    return orri_io_fault("touch", name) ? -1 : futimens(fd, t);
}

enum orr_err orri_io_fail(struct orr_error *err, const char *what, const char *name)
{
    const int why = errno;
    const bool is_full = why == ENOSPC || why == EDQUOT;
    if (why == ENOMEM)
        return orr_fail(err, ORR_ENOMEM, "store: %s %s: out of memory", what, name);
    return orr_fail(err,
                    is_full || why == EIO || why == EROFS ? ORR_EDISK : ORR_EIO,
                    "store: %s %s: %s%s",
                    what,
                    name,
                    strerror(why),
                    is_full ? "; nothing that was kept is lost: remove checkpoints "
                              "(`orrery checkpoint rm`) or give the store a larger disk"
                            : "");
}
