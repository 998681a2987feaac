/* SPDX-License-Identifier: Apache-2.0
 * store_source.c - store_source.h.
 *
 * Pieces of memory lie on a grid, so a thread takes one under the lock and reads it outside.  Where
 * an image's piece ends is seen only in its bytes: those are read and scanned under the lock, at several
 * times the speed of hashing.
 */
#include "store_source.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum { AHEAD_BYTES = 1 << 20, AHEAD_MIN = 256 << 10 };

/* ---- open ---- */

static enum orr_err check_file(const struct orr_store_file *f, struct orr_error *err)
{
    uint64_t end = 0;
    if (!f->name || !orr_part_name_ok(f->name, strlen(f->name)))
        return orr_fail(
            err,
            ORR_EINVAL,
            "store: %s: not a name for a file of a part (1 to %d bytes, no '/')",
            f->name ? f->name : "",
            ORR_STORE_NAME_MAX);
    if (!f->path || (unsigned)f->kind >= ORR_STORE_KIND_MAX_)
        return orr_fail(err, ORR_EINVAL, "store: %s: no path or kind", f->name);
    for (size_t i = 0; f->ranges && i < f->n_ranges; i++) {
        const struct orr_store_range *r = &f->ranges[i];
        if (r->offset < end || r->bytes > INT64_MAX - r->offset)
            return orr_fail(
                err,
                ORR_EINVAL,
                "store: %s: range %zu overlaps the one before, or is too long",
                f->name,
                i);
        end = r->offset + r->bytes;
    }
    return ORR_OK;
}

static enum orr_err open_file(struct orri_source_file *f,
                              const struct orr_store_file *what,
                              struct orr_error *err)
{
    struct stat st;
    *f = (struct orri_source_file){.what = what, .fd = -1};
    enum orr_err code = check_file(what, err);
    if (code)
        return code;
    f->fd = open(what->path, O_RDONLY | O_CLOEXEC);
    if (f->fd < 0 && errno == ENOENT)
        return orr_fail(err, ORR_ENOENT, "store: %s is not there", what->path);
    if (f->fd < 0 || fstat(f->fd, &st) != 0)
        return orri_io_fail(err, "cannot open", what->path);
    if (!S_ISREG(st.st_mode))
        return orr_fail(err, ORR_EINVAL, "store: %s is no regular file", what->path);
    f->bytes = (uint64_t)st.st_size;
    f->mode = st.st_mode & 07777;
    f->whole = (struct orr_store_range){0, f->bytes};
    f->ranges = what->ranges ? what->ranges : &f->whole;
    f->n_ranges = what->ranges ? what->n_ranges : 1;
    if (f->n_ranges) {
        const struct orr_store_range *last = &f->ranges[f->n_ranges - 1];
        if (last->offset + last->bytes > f->bytes)
            return orr_fail(err,
                            ORR_EINVAL,
                            "store: %s: its last range ends behind the file's end",
                            what->name);
    }
    return ORR_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum orr_err
check_unique(const struct orr_store_file *files, size_t n, struct orr_error *err)
{
    enum orr_err code = ORR_OK;
    const char **names = malloc(n * sizeof *names);
    if (!names)
        return orr_fail(err, ORR_ENOMEM, "store: out of memory");
    for (size_t i = 0; i < n; i++)
        names[i] = files[i].name;
    qsort(names, n, sizeof *names, by_name);
    for (size_t i = 1; !code && i < n; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            code = orr_fail(err, ORR_EINVAL, "store: two files named %s", names[i]);
    free(names);
    return code;
}

enum orr_err orri_source_open(struct orri_source *src,
                              const struct orr_store_file *files,
                              size_t n_files,
                              struct orr_error *err)
{
    *src = (struct orri_source){0};
    if (n_files == 0 || n_files > ORR_STORE_FILES_MAX)
        return orr_fail(err,
                        ORR_EINVAL,
                        "store: %zu files; a part has 1 to %d",
                        n_files,
                        ORR_STORE_FILES_MAX);
    pthread_mutex_init(&src->lock, NULL);
    src->ahead = malloc(AHEAD_BYTES);
    src->files = calloc(n_files, sizeof *src->files);
    enum orr_err code = src->ahead && src->files
                            ? ORR_OK
                            : orr_fail(err, ORR_ENOMEM, "store: out of memory");
    for (size_t i = 0; !code && i < n_files; i++) {
        src->n_files++;
        code = open_file(&src->files[i], &files[i], err);
        src->logical_bytes += src->files[i].bytes;
    }
    if (!code)
        code = check_unique(files, n_files, err);
    if (code)
        orri_source_close(src);
    return code;
}

void orri_source_close(struct orri_source *src)
{
    for (size_t i = 0; i < src->n_files; i++)
        if (src->files[i].fd >= 0)
            close(src->files[i].fd);
    free(src->files);
    free(src->ahead);
    pthread_mutex_destroy(&src->lock);
    *src = (struct orri_source){0};
}

/* ---- pieces ---- */

static enum orr_err read_at(const struct orri_source_file *f,
                            uint64_t at,
                            uint8_t *buf,
                            size_t len,
                            struct orr_error *err)
{
    for (size_t done = 0; done < len;) {
        const ssize_t n = pread(f->fd, buf + done, len - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return orri_io_fail(err, "cannot read", f->what->path);
        if (n == 0)
            return orr_fail(
                err,
                ORR_EIO,
                "store: %s became shorter while it was read; whoever writes "
                "to it must stand still during a put",
                f->what->path);
        done += (size_t)n;
    }
    return ORR_OK;
}

static uint64_t range_end(const struct orri_source_file *f, size_t range)
{
    return f->ranges[range].offset + f->ranges[range].bytes;
}

/* Where the next data is: step is the grid that pieces lie on, counted from the range's start. */
static uint64_t
skip_hole(const struct orri_source_file *f, size_t range, uint64_t at, uint64_t step)
{
    const uint64_t start = f->ranges[range].offset, end = range_end(f, range);
    const off_t data = lseek(f->fd, (off_t)at, SEEK_DATA);
    if (data < 0)
        return errno == ENXIO ? end : at; /* ENXIO: only a hole is left */
    if ((uint64_t)data >= end)
        return end;
    const uint64_t cell = start + ((uint64_t)data - start) / step * step;
    return cell > at ? cell : at;
}

/* Step to the next range that has something left; false: none. */
static bool seek_range(struct orri_source *src, struct orr_store_op *op)
{
    for (; src->file < src->n_files;
         src->file++, src->range = 0, src->is_begun = false) {
        const struct orri_source_file *f = &src->files[src->file];
        for (; src->range < f->n_ranges; src->range++, src->is_begun = false) {
            if (!src->is_begun) {
                src->at = f->ranges[src->range].offset;
                src->is_begun = true;
                src->ahead_len = 0;
            }
            if (src->at < range_end(f, src->range))
                return true;
        }
    }
    if (op)
        atomic_store(&op->bytes_done, src->logical_bytes);
    return false;
}

static enum orr_err fill_ahead(struct orri_source *src, struct orr_error *err)
{
    const struct orri_source_file *f = &src->files[src->file];
    const uint64_t end = range_end(f, src->range);
    if (src->ahead_len == 0)
        src->at = skip_hole(f, src->range, src->at, STORE_PAGE);
    if (src->ahead_len >= AHEAD_MIN || src->at + src->ahead_len >= end)
        return ORR_OK;
    memmove(src->ahead, src->ahead + src->ahead_from, src->ahead_len);
    src->ahead_from = 0;
    const uint64_t from = src->at + src->ahead_len;
    const uint64_t room = AHEAD_BYTES - src->ahead_len;
    const size_t n = (size_t)(end - from < room ? end - from : room);
    enum orr_err code = read_at(f, from, src->ahead + src->ahead_len, n, err);
    if (!code)
        src->ahead_len += n;
    return code;
}

/* The lock is held.  len 0: the range has no data left. */
static enum orr_err next_image(struct orri_source *src,
                               uint8_t *content,
                               struct orri_piece *piece,
                               struct orr_error *err)
{
    const uint64_t end = range_end(&src->files[src->file], src->range);
    while (piece->len == 0 && src->at < end) {
        enum orr_err code = fill_ahead(src, err);
        if (code)
            return code;
        if (src->at >= end)
            break;
        const struct orri_cut cut = orri_cut_image(src->ahead + src->ahead_from,
                                                   src->ahead_len,
                                                   src->at + src->ahead_len == end);
        piece->file = src->file;
        piece->offset = src->at + cut.zero;
        piece->len = cut.len;
        memcpy(content, src->ahead + src->ahead_from + cut.zero, cut.len);
        src->ahead_from += cut.zero + cut.len;
        src->ahead_len -= cut.zero + cut.len;
        src->at += cut.zero + cut.len;
    }
    return ORR_OK;
}

/* The lock is held. */
static void next_memory(struct orri_source *src, struct orri_piece *piece)
{
    const struct orri_source_file *f = &src->files[src->file];
    const uint64_t end = range_end(f, src->range);
    src->at = skip_hole(f, src->range, src->at, ORR_STORE_CHUNK_MAX);
    const uint64_t left = end - src->at;
    piece->file = src->file;
    piece->offset = src->at;
    piece->len = left < ORR_STORE_CHUNK_MAX ? (size_t)left : ORR_STORE_CHUNK_MAX;
    src->at += piece->len;
}

enum orr_err orri_source_next(struct orri_source *src,
                              struct orr_store_op *op,
                              uint8_t *content,
                              struct orri_piece *ret_piece,
                              struct orr_error *err)
{
    struct orri_piece piece = {0};
    enum orr_err code = ORR_OK;
    bool is_memory = false;
    pthread_mutex_lock(&src->lock);
    while (!code && piece.len == 0 && seek_range(src, op)) {
        is_memory = src->files[src->file].what->kind == ORR_STORE_MEMORY;
        if (is_memory)
            next_memory(src, &piece);
        else
            code = next_image(src, content, &piece, err);
    }
    pthread_mutex_unlock(&src->lock);
    if (!code && piece.len && is_memory)
        code = read_at(&src->files[piece.file], piece.offset, content, piece.len, err);
    *ret_piece = piece;
    return code;
}
