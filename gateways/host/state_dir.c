/* SPDX-License-Identifier: Apache-2.0
 * state_dir.c - see state_dir.h.
 */
#include "state_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum orr_err state_dir_open(const char *path, int *ret_lock, struct orr_error *err)
{
    char file[PATH_MAX];
    if (mkdir(path, 0755) != 0 && errno != EEXIST)
        return orr_fail(
            err, ORR_EIO, "state: cannot make %s: %s", path, strerror(errno));
    snprintf(file, sizeof file, "%s/lock", path);
    int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return orr_fail(
            err, ORR_EIO, "state: cannot open %s: %s", file, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        char pid[16] = "";
        ssize_t n = read(fd, pid, sizeof pid - 1);
        close(fd);
        return orr_fail(err,
                        ORR_EEXIST,
                        "state: %s is in use by another host (pid %.*s); stop it or "
                        "choose another `state:`",
                        path,
                        n > 0 ? (int)strcspn(pid, "\n") : 1,
                        n > 0 ? pid : "?");
    }
    if (ftruncate(fd, 0) != 0 || dprintf(fd, "%d\n", (int)getpid()) < 0) {
        int why = errno;
        close(fd);
        return orr_fail(
            err, ORR_EIO, "state: cannot write %s: %s", file, strerror(why));
    }
    *ret_lock = fd;
    return ORR_OK;
}

static enum orr_err
write_counter(const char *dir, uint32_t value, struct orr_error *err)
{
    char file[PATH_MAX], tmp[PATH_MAX + 8];
    snprintf(file, sizeof file, "%s/incarnation", dir);
    snprintf(tmp, sizeof tmp, "%s.tmp", file);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool is_ok = fd >= 0 && dir_fd >= 0 && dprintf(fd, "%u\n", value) > 0 &&
                 fsync(fd) == 0 && rename(tmp, file) == 0 && fsync(dir_fd) == 0;
    int why = errno;
    if (fd >= 0)
        close(fd);
    if (dir_fd >= 0)
        close(dir_fd);
    return is_ok ? ORR_OK
                 : orr_fail(
                       err, ORR_EIO, "state: cannot write %s: %s", file, strerror(why));
}

enum orr_err state_dir_next_incarnation(const char *path,
                                        uint32_t *ret_incarnation,
                                        struct orr_error *err)
{
    char file[PATH_MAX];
    unsigned last = 0;
    char end = 0;
    snprintf(file, sizeof file, "%s/incarnation", path);
    FILE *in = fopen(file, "re");
    if (!in && errno != ENOENT)
        return orr_fail(
            err, ORR_EIO, "state: cannot read %s: %s", file, strerror(errno));
    if (in) {
        int n = fscanf(in, "%u%c", &last, &end);
        fclose(in);
        if (n != 2 || end != '\n' || last == 0 || last == UINT32_MAX)
            return orr_fail(err,
                            ORR_EIO,
                            "state: %s is damaged; write into it a number above every "
                            "earlier start of this host "
                            "(its peers' logs name the last one)",
                            file);
    }
    enum orr_err code = write_counter(path, last + 1, err);
    if (!code)
        *ret_incarnation = last + 1;
    return code;
}
