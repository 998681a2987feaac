/* SPDX-License-Identifier: Apache-2.0
 * store_part.c - parts in the directory: written last, read whole.
 */
#include "store_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

/* Write it under a name of tmp/, on disk. */
static int
write_tmp(struct orri_writer *w, const uint8_t *bytes, size_t len, char *name)
{
    struct timespec time;
    snprintf(name,
             STORE_NAME,
             "%.64s.%llu",
             w->lease.name,
             (unsigned long long)atomic_fetch_add(&w->lease.next, 1));
    const int fd = orri_io_create(w->store->tmp, name);
    if (fd < 0)
        return -1;
    int rc = orri_io_write(fd, name, bytes, 0, bytes, len);
    if (rc == 0)
        rc = orri_io_touch_fd(fd, name, &time);
    if (rc == 0)
        rc = orri_io_sync(fd, name);
    const int why = errno;
    close(fd);
    if (rc != 0)
        (void)orri_io_unlink(w->store->tmp, name);
    errno = why;
    return rc;
}

enum orr_err orri_part_write(struct orri_writer *w,
                             const uint8_t *bytes,
                             size_t len,
                             struct orr_store_hash *ret_hash,
                             struct orr_error *err)
{
    struct orr_store *s = w->store;
    struct orr_store_hash hash;
    char tmp[STORE_NAME], hex[ORR_STORE_HEX_BYTES];
    orri_hash(&hash, bytes, len);
    orr_store_hex(&hash, hex);
    enum orr_err code = orri_quota_check(s, len, err);
    if (code)
        return code;
    /* Over one that is there already, too: it may be damaged, and its time becomes now. */
    if (write_tmp(w, bytes, len, tmp) != 0)
        return orri_io_fail(err, "cannot write part", hex);
    if (orri_io_rename(s->tmp, tmp, s->parts, hex) != 0) {
        code = orri_io_fail(err, "cannot name part", hex);
        (void)orri_io_unlink(s->tmp, tmp);
        return code;
    }
    w->is_named = true;
    if (orri_io_sync(s->parts, "parts") != 0)
        return orri_io_fail(err, "cannot sync part", hex);
    *ret_hash = hash;
    return ORR_OK;
}

static enum orr_err read_file(struct orr_store *s,
                              const char *hex,
                              uint8_t **ret_bytes,
                              size_t *ret_len,
                              struct orr_error *err)
{
    struct stat st;
    size_t len = 0;
    const int fd = openat(s->parts, hex, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return orr_fail(err, ORR_ENOENT, "store: part %s is not in %s", hex, s->path);
    if (fd < 0 || fstat(fd, &st) != 0) {
        enum orr_err code = orri_io_fail(err, "cannot open part", hex);
        if (fd >= 0)
            close(fd);
        return code;
    }
    const size_t size =
        st.st_size > ORR_PART_BYTES_MAX ? ORR_PART_BYTES_MAX : (size_t)st.st_size;
    uint8_t *bytes = malloc(size + 1);
    ssize_t n = bytes ? 1 : 0;
    while (n > 0 && len < size) {
        n = pread(fd, bytes + len, size - len, (off_t)len);
        if (n < 0 && errno == EINTR)
            n = 1;
        else if (n > 0)
            len += (size_t)n;
    }
    close(fd);
    if (!bytes)
        return orr_fail(err, ORR_ENOMEM, "store: part %s: out of memory", hex);
    *ret_bytes = bytes;
    *ret_len = len;
    return ORR_OK;
}

enum orr_err orri_part_read(struct orr_store *s,
                            const struct orr_store_hash *hash,
                            struct orr_part *ret_part,
                            struct orr_error *err)
{
    struct orr_store_hash got;
    uint8_t *bytes = NULL;
    size_t len = 0;
    char hex[ORR_STORE_HEX_BYTES];
    orr_store_hex(hash, hex);
    enum orr_err code = read_file(s, hex, &bytes, &len, err);
    if (code)
        return code;
    orri_hash(&got, bytes, len);
    code = memcmp(&got, hash, sizeof got) == 0 ? orr_part_decode(bytes, len, ret_part)
                                               : ORR_EPROTO;
    free(bytes);
    if (code == ORR_ENOMEM)
        return orr_fail(err, code, "store: part %s: out of memory", hex);
    return code ? orr_fail(err,
                           ORR_EIO,
                           "store: part %s of %s is damaged; fetch it from another "
                           "store, put it again, or use an earlier checkpoint",
                           hex,
                           s->path)
                : ORR_OK;
}
