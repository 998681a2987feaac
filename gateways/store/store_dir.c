/* SPDX-License-Identifier: Apache-2.0
 * store_dir.c - the directory: opening, places, the lock, what is in it.
 */
#include "store_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sodium.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { QUOTA_RECOUNT_MS = 5000, LOCK_DEADLINE_MS = 10000 };

static const char format_text[] = "orrery store 1\n";

/* ---- open, close ---- */

static int open_dir(int at, const char *name, bool *is_made)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    const int fd = openat(at, name, flags);
    if (fd >= 0 || errno != ENOENT)
        return fd;
    if (orri_io_mkdir(at, name) != 0 && errno != EEXIST)
        return -1;
    *is_made = true;
    return openat(at, name, flags);
}

/* On ext4 the directories below lie in block groups of their own, each with its share of the inodes.  In one group, making a link
 * looks at every inode there that was freed within the last minutes: after a collection, milliseconds a link.  Other filesystems
 * refuse, and need it not. */
static void spread_below(int dir)
{
    int flags = 0;
    if (ioctl(dir, FS_IOC_GETFLAGS, &flags) != 0)
        return;
    flags |= FS_TOPDIR_FL;
    (void)ioctl(dir, FS_IOC_SETFLAGS, &flags);
}

static enum orr_err check_format(struct orr_store *s, struct orr_error *err)
{
    char text[sizeof format_text] = "";
    int fd = openat(s->root, "format", O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        char tmp[STORE_NAME];
        snprintf(tmp, sizeof tmp, "format.%d", (int)getpid());
        (void)unlinkat(s->root, tmp, 0);
        fd = orri_io_create(s->root, tmp);
        if (fd < 0 ||
            orri_io_write(fd, tmp, "", 0, format_text, sizeof format_text - 1) ||
            orri_io_sync(fd, tmp) || orri_io_rename(s->root, tmp, s->root, "format") ||
            orri_io_sync(s->root, s->path)) {
            enum orr_err code = orri_io_fail(err, "cannot write", s->path);
            if (fd >= 0)
                close(fd);
            return code;
        }
        close(fd);
        return ORR_OK;
    }
    if (fd < 0)
        return orri_io_fail(err, "cannot open format of", s->path);
    const ssize_t n = pread(fd, text, sizeof text, 0);
    close(fd);
    if (n != (ssize_t)(sizeof format_text - 1) ||
        memcmp(text, format_text, (size_t)n) != 0)
        return orr_fail(err,
                        ORR_EVERSION,
                        "store: %s/format: not a store of this version; use the Orrery "
                        "that made it, or another directory",
                        s->path);
    return ORR_OK;
}

static enum orr_err open_dirs(struct orr_store *s, struct orr_error *err)
{
    bool is_made = false;
    s->root = open_dir(AT_FDCWD, s->path, &is_made);
    if (s->root < 0)
        return orri_io_fail(err, "cannot open", s->path);
    const struct {
        int *fd;
        const char *name;
    } dirs[] = {{&s->chunks, "chunks"},
                {&s->packs, "packs"},
                {&s->parts, "parts"},
                {&s->tmp, "tmp"},
                {&s->leases, "leases"},
                {&s->damaged, "damaged"}};
    for (size_t i = 0; i < ORR_ARRAY_SIZE(dirs); i++)
        if ((*dirs[i].fd = open_dir(s->root, dirs[i].name, &is_made)) < 0)
            return orri_io_fail(err, "cannot open", dirs[i].name);
    if (is_made)
        spread_below(s->chunks);
    for (unsigned i = 0; i < STORE_SHARDS; i++) {
        char name[8];
        snprintf(name, sizeof name, "%02x", i);
        if ((s->shards[i] = open_dir(s->chunks, name, &is_made)) < 0)
            return orri_io_fail(err, "cannot open chunks of", s->path);
    }
    if (is_made &&
        (orri_io_sync(s->chunks, "chunks") || orri_io_sync(s->root, s->path)))
        return orri_io_fail(err, "cannot sync", s->path);
    return ORR_OK;
}

enum orr_err orr_store_open(const struct orr_store_config *config,
                            struct orr_store **ret_store,
                            struct orr_error *err)
{
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (!config->path || config->path[0] != '/')
        return orr_fail(err,
                        ORR_EINVAL,
                        "store: %s: write an absolute path",
                        config->path ? config->path : "");
    if (sodium_init() < 0)
        return orr_fail(err, ORR_EIO, "store: libsodium does not start");
    struct orr_store *s = calloc(1, sizeof *s);
    if (!s || !(s->path = strdup(config->path))) {
        free(s);
        return orr_fail(err, ORR_ENOMEM, "store: out of memory");
    }
    s->root = s->chunks = s->packs = s->parts = s->tmp = s->leases = s->damaged = -1;
    for (unsigned i = 0; i < STORE_SHARDS; i++)
        s->shards[i] = -1;
    s->threads = config->threads ? config->threads : cores > 0 ? (unsigned)cores : 1;
    if (s->threads > STORE_THREADS_MAX)
        s->threads = STORE_THREADS_MAX;
    s->quota_bytes = config->quota_bytes;
    orri_rate_init(&s->rate, config->bytes_per_s);
    enum orr_err code = open_dirs(s, err);
    if (!code)
        code = check_format(s, err);
    if (!code) {
        const int lock = orri_lock_open(s);
        if (lock < 0)
            code = orri_io_fail(err, "cannot open lock of", s->path);
        else
            close(lock);
    }
    if (code) {
        orr_store_close(s);
        return code;
    }
    *ret_store = s;
    return ORR_OK;
}

void orr_store_close(struct orr_store *s)
{
    if (!s)
        return;
    const int fds[] = {
        s->root, s->chunks, s->packs, s->parts, s->tmp, s->leases, s->damaged};
    for (size_t i = 0; i < ORR_ARRAY_SIZE(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    for (unsigned i = 0; i < STORE_SHARDS; i++)
        if (s->shards[i] >= 0)
            close(s->shards[i]);
    orri_rate_fini(&s->rate);
    free(s->path);
    free(s);
}

/* ---- names ---- */

void orr_store_hex(const struct orr_store_hash *hash, char hex[ORR_STORE_HEX_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < ORR_STORE_HASH_BYTES; i++) {
        hex[2 * i] = digits[hash->at[i] >> 4];
        hex[2 * i + 1] = digits[hash->at[i] & 15];
    }
    hex[2 * ORR_STORE_HASH_BYTES] = '\0';
}

static int digit_of(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

enum orr_err orr_store_parse(struct orr_str hex, struct orr_store_hash *ret_hash)
{
    struct orr_store_hash hash;
    if (hex.len != 2 * ORR_STORE_HASH_BYTES)
        return ORR_EINVAL;
    for (size_t i = 0; i < ORR_STORE_HASH_BYTES; i++) {
        const int high = digit_of(hex.ptr[2 * i]), low = digit_of(hex.ptr[2 * i + 1]);
        if (high < 0 || low < 0)
            return ORR_EINVAL;
        hash.at[i] = (uint8_t)(high << 4 | low);
    }
    *ret_hash = hash;
    return ORR_OK;
}

int orri_chunk_place(const struct orr_store *s,
                     const struct orr_store_hash *hash,
                     char name[STORE_NAME])
{
    char hex[ORR_STORE_HEX_BYTES];
    orr_store_hex(hash, hex);
    memcpy(name, hex + 2, sizeof hex - 2);
    return s->shards[hash->at[0]];
}

bool orri_link_parse(const char *target,
                     char pack[STORE_NAME],
                     uint64_t *ret_offset,
                     uint64_t *ret_len)
{
    unsigned long long offset, len;
    if (sscanf(target, "%63[0-9a-f.]:%llu:%llu", pack, &offset, &len) != 3 ||
        len > ORR_STORE_OBJECT_MAX || offset > INT64_MAX - len)
        return false;
    *ret_offset = offset;
    *ret_len = len;
    return true;
}

int orri_chunk_open(const struct orr_store *s,
                    const struct orr_store_hash *hash,
                    struct orri_place *ret_place)
{
    char name[STORE_NAME], target[STORE_NAME], pack[STORE_NAME];
    struct orri_place p = {.fd = -1};
    struct stat st;
    const int dir = orri_chunk_place(s, hash, name);
    const ssize_t n = readlinkat(dir, name, target, sizeof target - 1);
    if (n < 0 && errno != EINVAL)
        return errno;
    if (n >= 0) {
        target[n] = '\0';
        if (!orri_link_parse(target, pack, &p.offset, &p.len))
            return EBADMSG;
    }
    p.fd = n < 0 ? openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
                 : openat(s->packs, pack, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (p.fd < 0)
        return n >= 0 && errno == ENOENT ? EBADMSG : errno;
    int why = fstat(p.fd, &st) == 0 ? 0 : errno;
    if (!why && n < 0)
        p.len = (uint64_t)st.st_size;
    else if (!why && (uint64_t)st.st_size < p.offset + p.len)
        why = EBADMSG;
    if (why)
        close(p.fd);
    else
        *ret_place = p;
    return why;
}

/* ---- cancelling, the lock ---- */

bool orri_is_cancelled(const struct orr_store_op *op)
{
    return op && atomic_load_explicit(&op->is_cancelled, memory_order_relaxed);
}

enum orr_err orri_cancelled(struct orr_error *err)
{
    return orr_fail(err, ORR_ESTATE, "store: cancelled");
}

int orri_lock_open(struct orr_store *s)
{
    return openat(s->root, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
}

bool orri_lock(int lock, int how)
{
    for (unsigned waited_ms = 0; flock(lock, how | LOCK_NB) != 0; waited_ms++) {
        if ((errno != EWOULDBLOCK && errno != EINTR) || waited_ms >= LOCK_DEADLINE_MS) {
            if (errno == EWOULDBLOCK)
                errno = ETIMEDOUT;
            return false;
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return true;
}

static int compare(const struct timespec *a, const struct timespec *b)
{
    if (a->tv_sec != b->tv_sec)
        return a->tv_sec < b->tv_sec ? -1 : 1;
    return (a->tv_nsec > b->tv_nsec) - (a->tv_nsec < b->tv_nsec);
}

int orri_remove_old(
    int lock, int dir, const char *name, const struct timespec *cutoff, bool is_exact)
{
    struct stat st;
    int rc = 0;
    if (!orri_lock(lock, LOCK_EX))
        return -1;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        rc = errno == ENOENT ? 0 : -1;
    else if (is_exact ? compare(&st.st_mtim, cutoff) == 0
                      : compare(&st.st_mtim, cutoff) < 0)
        rc = orri_io_unlink(dir, name) == 0 ? 1 : -1;
    const int why = errno;
    (void)flock(lock, LOCK_UN);
    errno = why;
    return rc;
}

/* ---- what is in it ---- */

static bool add_dir(int dir, uint64_t *bytes, uint64_t *n)
{
    const int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct stat st;
    if (!d) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.' &&
            fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            (S_ISREG(st.st_mode) || S_ISLNK(st.st_mode))) {
            *bytes += (uint64_t)st.st_size;
            ++*n;
        }
    closedir(d);
    return true;
}

static bool count(struct orr_store *s, struct orr_store_usage *u)
{
    uint64_t ignored = 0;
    *u = (struct orr_store_usage){.quota_bytes = s->quota_bytes};
    for (unsigned i = 0; i < STORE_SHARDS; i++)
        if (!add_dir(s->shards[i], &u->bytes, &u->chunks))
            return false;
    return add_dir(s->packs, &u->bytes, &ignored) &&
           add_dir(s->parts, &u->bytes, &u->parts) &&
           add_dir(s->tmp, &u->bytes, &ignored) &&
           add_dir(s->damaged, &u->bytes, &u->damaged);
}

enum orr_err orr_store_stat(struct orr_store *s,
                            struct orr_store_usage *ret_usage,
                            struct orr_error *err)
{
    struct orr_store_usage u;
    struct statvfs fs;
    if (!count(s, &u) || fstatvfs(s->root, &fs) != 0)
        return orri_io_fail(err, "cannot read", s->path);
    u.disk_free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    *ret_usage = u;
    return ORR_OK;
}

enum orr_err orr_store_parts(struct orr_store *s,
                             void (*fn)(void *arg,
                                        const struct orr_store_hash *part,
                                        uint64_t changed_unix_ms),
                             void *arg,
                             struct orr_error *err)
{
    const int fd = openat(s->parts, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct orr_store_hash hash;
    struct stat st;
    if (!d) {
        enum orr_err code = orri_io_fail(err, "cannot read parts of", s->path);
        if (fd >= 0)
            close(fd);
        return code;
    }
    for (struct dirent *e; (e = readdir(d));)
        if (orr_store_parse(orr_str(e->d_name), &hash) == ORR_OK &&
            fstatat(s->parts, e->d_name, &st, 0) == 0)
            fn(arg,
               &hash,
               (uint64_t)st.st_mtim.tv_sec * 1000 +
                   (uint64_t)st.st_mtim.tv_nsec / 1000000);
    closedir(d);
    return ORR_OK;
}

/* ---- quota ---- */

enum orr_err
orri_quota_count(struct orr_store *s, uint64_t age_ms, struct orr_error *err)
{
    struct orr_store_usage u;
    const uint64_t now_ms = (uint64_t)(orri_now_s() * 1e3);
    const uint64_t counted_ms = atomic_load(&s->counted_ms);
    if (!s->quota_bytes || (counted_ms && now_ms - counted_ms < age_ms))
        return ORR_OK;
    if (!count(s, &u))
        return orri_io_fail(err, "cannot read", s->path);
    atomic_store(&s->used_bytes, u.bytes);
    atomic_store(&s->counted_ms, now_ms);
    return ORR_OK;
}

enum orr_err orri_quota_check(struct orr_store *s, uint64_t more, struct orr_error *err)
{
    enum orr_err code = ORR_OK;
    if (!s->quota_bytes)
        return ORR_OK;
    if (atomic_load(&s->used_bytes) + more > s->quota_bytes)
        code = orri_quota_count(s, QUOTA_RECOUNT_MS, err);
    if (!code && atomic_load(&s->used_bytes) + more > s->quota_bytes)
        code =
            orr_fail(err,
                     ORR_ENOSPC,
                     "store: the quota of %llu MiB is reached: `orrery checkpoint rm` "
                     "old ones, or raise roles.node.store.quota; nothing that was kept "
                     "is lost: %s",
                     (unsigned long long)(s->quota_bytes >> 20),
                     s->path);
    return code;
}
