/* SPDX-License-Identifier: Apache-2.0
 * image_drop.c - image_drop.h.  An image is a directory of plain files; nothing else is followed or removed.
 */
#include "image_drop.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* All names in an open directory, each given to `drop`; takes fd. */
static int for_each(int fd, int (*drop)(int dir, const char *name))
{
    DIR *list = fdopendir(fd);
    if (!list) {
        int error = errno;
        close(fd);
        return error;
    }
    int error = 0;
    for (struct dirent *entry; (entry = readdir(list)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            !error)
            error = drop(dirfd(list), entry->d_name);
    closedir(list);
    return error;
}

static int drop_file(int dir, const char *name)
{
    return unlinkat(dir, name, 0) == 0 || errno == ENOENT ? 0 : errno;
}

static int drop_image(int images, const char *name)
{
    int fd = openat(images, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? 0 : errno;
    int error = for_each(fd, drop_file);
    if (!error && unlinkat(images, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
        error = errno;
    return error;
}

static bool is_file(int images, const char *name)
{
    struct stat st;
    return fstatat(images, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

static int drop_left(int images, const char *name)
{
    return is_file(images, name) ? 0 : drop_image(images, name);
}

static int drop_any(int images, const char *name)
{
    return is_file(images, name) ? drop_file(images, name) : drop_image(images, name);
}

enum orr_err orr_images_remove(const char *images, struct orr_error *err)
{
    int fd = open(images, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    int error = fd < 0 ? errno : for_each(fd, drop_any);
    if (!error && rmdir(images) != 0)
        error = errno;
    return error && error != ENOENT
               ? orr_fail(err, ORR_EIO, "%s: %s", images, strerror(error))
               : ORR_OK;
}

enum orr_err orr_images_open(const char *images, struct orr_error *err)
{
    if (mkdir(images, 0700) != 0 && errno != EEXIST)
        return orr_fail(
            err, ORR_EIO, "%s: cannot be made: %s", images, strerror(errno));
    int fd = open(images, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    int error = fd < 0 ? errno : for_each(fd, drop_left);
    return error ? orr_fail(err, ORR_EIO, "%s: %s", images, strerror(error)) : ORR_OK;
}

enum orr_err
orr_image_drop(const char *images, struct orr_str dir, struct orr_error *err)
{
    char name[256];
    size_t len = strlen(images);
    bool is_below = dir.len > len + 1 && dir.len - len - 1 < sizeof name &&
                    memcmp(dir.ptr, images, len) == 0 && dir.ptr[len] == '/';
    if (is_below)
        orr_str_copy(name,
                     sizeof name,
                     (struct orr_str){dir.ptr + len + 1, dir.len - (uint32_t)len - 1});
    if (!is_below || strchr(name, '/') || name[0] == '.')
        return orr_fail(err,
                        ORR_EINVAL,
                        "dir: %.*s is not an image in %s",
                        ORR_STR_ARGS(dir),
                        images);
    int fd = open(images, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    int error = fd < 0 ? errno : drop_image(fd, name);
    if (fd >= 0)
        close(fd);
    return error ? orr_fail(err, ORR_EIO, "%s/%s: %s", images, name, strerror(error))
                 : ORR_OK;
}
