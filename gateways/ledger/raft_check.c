/* SPDX-License-Identifier: Apache-2.0
 * raft_check.c - the directory before a start: torn tails, damage.
 *
 * libraft 0.15 can mend what it finds by dropping what it cannot read, which may be what was
 * acknowledged, or stops with an error that says little.  So the decision is made here.  One
 * append at a time is on its way to a segment (raft_io.c): only the last batch of the last
 * open segment can be torn, and it was never acknowledged.  It is cut off.  Anything else that
 * does not read is damage: the start is refused, and the file named.
 *
 * Segment: u64 1, then batches: u32 CRC of the header, u32 CRC of the data, header (u64 n, n of
 * 16 bytes with the length of an entry in the last u32), data.  Little endian.  An open one
 * ends with zeros.
 */
#include "raft_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    FORMAT = 1,
    HEADER_BYTES = 16,       /* of an entry; and of the CRCs and n before them */
    BATCH_ENTRIES = 1 << 18, /* libraft's limit */
    TAIL_BYTES = 4096,       /* of zeros, so that libraft sees an end and not a cut */
    OPEN_MAX = 64,
};

struct file {
    char path[PATH_BYTES + NAME_MAX + 2];
    uint8_t *bytes; /* owned */
    size_t len;
};

struct segment {
    size_t valid; /* bytes that read */
    uint64_t entries;
};

/* What the directory has. */
struct listing {
    unsigned long long open[OPEN_MAX]; /* counters of open segments, ascending */
    unsigned n_open, n_closed, n_snapshots;
    unsigned long long snapshot[3]; /* of the newest: term, index, time */
    bool has_metadata1, has_metadata2;
};

/* ---- files ------------------------------------------------------------------------------------ */

static uint32_t crc32_of(const uint8_t *bytes, size_t len, uint32_t crc)
{
    static uint32_t table[256]; /* filled by each thread with the same */
    if (!table[1])
        for (uint32_t i = 256; i-- > 0;) {
            uint32_t c = i << 24;
            for (int bit = 0; bit < 8; bit++)
                c = c << 1 ^ (c & 0x80000000u ? 0x04c11db7u : 0);
            table[i] = c;
        }
    while (len--)
        crc = crc << 8 ^ table[(crc >> 24 ^ *bytes++) & 255];
    return crc;
}

static uint64_t u64_at(const uint8_t *bytes)
{
    uint64_t v;
    memcpy(&v, bytes, sizeof v);
    return v;
}

static uint32_t u32_at(const uint8_t *bytes)
{
    uint32_t v;
    memcpy(&v, bytes, sizeof v);
    return v;
}

static enum orr_err
read_file(const char *dir, const char *name, struct file *f, struct orr_error *err)
{
    struct stat st;
    *f = (struct file){.len = 0};
    snprintf(f->path, sizeof f->path, "%s/%s", dir, name);
    const int fd = open(f->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        const int saved = errno;
        if (fd >= 0)
            close(fd);
        return orr_fail(err, ORR_EIO, "%s: %s", f->path, strerror(saved));
    }
    f->bytes = malloc((size_t)st.st_size + 1);
    ssize_t n = 1;
    while (f->bytes && f->len < (size_t)st.st_size &&
           (n = read(fd, f->bytes + f->len, (size_t)st.st_size - f->len)) > 0)
        f->len += (size_t)n;
    const int saved = errno;
    close(fd);
    if (f->bytes && n >= 0)
        return ORR_OK;
    const bool has_memory = f->bytes != NULL;
    free(f->bytes);
    f->bytes = NULL;
    return orr_fail(err,
                    has_memory ? ORR_EIO : ORR_ENOMEM,
                    "%s: %s",
                    f->path,
                    has_memory ? strerror(saved) : "out of memory");
}

static enum orr_err
damage(const struct file *f, const char *what, struct orr_error *err)
{
    return orr_fail(
        err,
        ORR_EDISK,
        "%s is damaged: %s: restore that file from a copy; or, when other voters "
        "live, replace this host (docs/operations.md): not under the same name",
        f->path,
        what);
}

/* ---- segments --------------------------------------------------------------------------------- */

/* Length of the batch at `at` when its header reads, with *ret_n; else 0. */
static size_t batch_header(const struct file *f, size_t at, uint64_t *ret_n)
{
    const size_t left = f->len - at;
    if (left < HEADER_BYTES)
        return 0;
    const uint64_t n = u64_at(f->bytes + at + 8);
    if (n == 0 || n > BATCH_ENTRIES || (n + 1) * HEADER_BYTES > left ||
        crc32_of(f->bytes + at + 8, 8 + n * HEADER_BYTES, 0) != u32_at(f->bytes + at))
        return 0;
    size_t len = (n + 1) * HEADER_BYTES;
    for (uint64_t i = 0; i < n; i++)
        len += u32_at(f->bytes + at + HEADER_BYTES + i * HEADER_BYTES + 12);
    *ret_n = n;
    return len;
}

static struct segment scan_segment(const struct file *f)
{
    struct segment s = {.valid = 0};
    if (f->len < 8 || u64_at(f->bytes) != FORMAT)
        return s;
    s.valid = 8;
    for (;;) {
        uint64_t n;
        const size_t len = batch_header(f, s.valid, &n);
        const size_t head = (n + 1) * HEADER_BYTES;
        if (len == 0 || len > f->len - s.valid ||
            crc32_of(f->bytes + s.valid + head, len - head, 0) !=
                u32_at(f->bytes + s.valid + 4))
            return s;
        s.valid += len;
        s.entries += n;
    }
}

static bool is_zero(const struct file *f, size_t from)
{
    for (size_t i = from; i < f->len; i++)
        if (f->bytes[i])
            return false;
    return true;
}

/* A batch behind one that does not read: that one was complete once. */
static bool has_batch_after(const struct file *f, size_t from)
{
    uint64_t n;
    for (size_t at = from + 8; at < f->len; at += 8)
        if (batch_header(f, at, &n))
            return true;
    return false;
}

static enum orr_err check_closed(const char *dir,
                                 const char *name,
                                 uint64_t n_expected,
                                 struct orr_error *err)
{
    struct file f;
    enum orr_err code = read_file(dir, name, &f, err);
    if (code != ORR_OK)
        return code;
    const struct segment s = scan_segment(&f);
    if (s.valid != f.len || s.entries != n_expected)
        code = damage(&f, "a closed segment that does not read to its end", err);
    free(f.bytes);
    return code;
}

static enum orr_err cut(const struct file *f, size_t valid, struct orr_error *err)
{
    const bool is_empty =
        valid <= 8; /* without a batch: libraft removes an empty file */
    const int fd = open(f->path, O_WRONLY | O_CLOEXEC);
    const bool is_cut = fd >= 0 && ftruncate(fd, is_empty ? 0 : (off_t)valid) == 0 &&
                        (is_empty || ftruncate(fd, (off_t)valid + TAIL_BYTES) == 0) &&
                        fsync(fd) == 0;
    const int saved = errno;
    if (fd >= 0)
        close(fd);
    return is_cut ? ORR_OK
                  : orr_fail(err,
                             ORR_EIO,
                             "%s: cut at byte %zu: %s",
                             f->path,
                             valid,
                             strerror(saved));
}

/* *may_tear: no later open segment has data. */
static enum orr_err check_open(const char *dir,
                               unsigned long long counter,
                               bool *may_tear,
                               struct orr_error *err)
{
    char name[64];
    struct file f;
    snprintf(name, sizeof name, "open-%llu", counter);
    enum orr_err code = read_file(dir, name, &f, err);
    if (code != ORR_OK)
        return code;
    const struct segment s = scan_segment(&f);
    const bool is_clean = is_zero(&f, s.valid);
    if (!is_clean && (!*may_tear || has_batch_after(&f, s.valid)))
        code = damage(&f, "an entry before the last one does not read", err);
    else if (f.len && (!is_clean || s.valid <= 8 || f.len - s.valid < TAIL_BYTES))
        code = cut(&f, s.valid, err);
    if (s.valid > 8 || !is_clean)
        *may_tear = false;
    free(f.bytes);
    return code;
}

/* ---- snapshots -------------------------------------------------------------------------------- */

/* The rest of a snapshot is checked as it is restored. */
static enum orr_err
check_snapshot_meta(const char *dir, const char *snapshot, struct orr_error *err)
{
    char name[160];
    struct file f;
    snprintf(name, sizeof name, "%s.meta", snapshot);
    enum orr_err code = read_file(dir, name, &f, err);
    if (code != ORR_OK)
        return code;
    if (f.len < 32 || u64_at(f.bytes) != FORMAT || u64_at(f.bytes + 24) != f.len - 32 ||
        crc32_of(f.bytes + 16, f.len - 16, 0) != (uint32_t)u64_at(f.bytes + 8))
        code = damage(&f, "the description of a snapshot does not read", err);
    free(f.bytes);
    return code;
}

/* ---- the directory ---------------------------------------------------------------------------- */

static int by_counter(const void *a, const void *b)
{
    const unsigned long long x = *(const unsigned long long *)a;
    const unsigned long long y = *(const unsigned long long *)b;
    return (x > y) - (x < y);
}

static bool is_newer(const unsigned long long a[3], const unsigned long long b[3])
{
    return a[0] != b[0] ? a[0] > b[0] : a[1] != b[1] ? a[1] > b[1] : a[2] > b[2];
}

static enum orr_err
list_name(const char *dir, const char *name, struct listing *ls, struct orr_error *err)
{
    unsigned long long a, b, s[3];
    int end = 0;
    const int len = (int)strlen(name);
    ls->has_metadata1 = ls->has_metadata1 || strcmp(name, "metadata1") == 0;
    ls->has_metadata2 = ls->has_metadata2 || strcmp(name, "metadata2") == 0;
    if (sscanf(name, "snapshot-%llu-%llu-%llu%n", &s[0], &s[1], &s[2], &end) == 3 &&
        end == len) {
        ls->n_snapshots++;
        if (ls->n_snapshots == 1 || is_newer(s, ls->snapshot))
            memcpy(ls->snapshot, s, sizeof s);
    } else if (sscanf(name, "open-%llu%n", &a, &end) == 1 && end == len) {
        if (ls->n_open == OPEN_MAX)
            return orr_fail(
                err, ORR_EDISK, "%s: more than %d open segments", dir, OPEN_MAX);
        ls->open[ls->n_open++] = a;
    } else if (sscanf(name, "%llu-%llu%n", &a, &b, &end) == 2 && end == len) {
        ls->n_closed++;
        return check_closed(dir, name, b - a + 1, err);
    }
    return ORR_OK;
}

static enum orr_err list_dir(const char *dir, struct listing *ls, struct orr_error *err)
{
    enum orr_err code = ORR_OK;
    DIR *d = opendir(dir);
    if (!d)
        return orr_fail(err, ORR_EIO, "%s: %s", dir, strerror(errno));
    for (struct dirent *e; code == ORR_OK && (e = readdir(d));)
        code = list_name(dir, e->d_name, ls, err);
    closedir(d);
    qsort(ls->open, ls->n_open, sizeof ls->open[0], by_counter);
    return code;
}

enum orr_err orri_raft_check_dir(struct ledger_raft *l, struct orr_error *err)
{
    struct listing ls = {.n_open = 0};
    bool may_tear = true;
    enum orr_err code = list_dir(l->dir, &ls, err);
    for (unsigned i = ls.n_open; code == ORR_OK && i-- > 0;)
        code = check_open(l->dir, ls.open[i], &may_tear, err);
    l->snapshot_name[0] = '\0';
    if (code == ORR_OK && ls.n_snapshots) {
        snprintf(l->snapshot_name,
                 sizeof l->snapshot_name,
                 "snapshot-%llu-%llu-%llu",
                 ls.snapshot[0],
                 ls.snapshot[1],
                 ls.snapshot[2]);
        code = check_snapshot_meta(l->dir, l->snapshot_name, err);
    }
    if (code == ORR_OK && !l->is_joining && ls.has_metadata1 && !ls.has_metadata2 &&
        ls.n_open + ls.n_closed + ls.n_snapshots == 0) {
        /* the very first start was cut off between its two files: as if it had not been */
        char path[PATH_BYTES + 16];
        snprintf(path, sizeof path, "%s/metadata1", l->dir);
        if (unlink(path) != 0)
            code = orr_fail(err, ORR_EIO, "%s: %s", path, strerror(errno));
    }
    return code;
}
