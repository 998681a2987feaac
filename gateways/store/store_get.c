/* SPDX-License-Identifier: Apache-2.0
 * store_get.c - from a part to files, and the same without files: verify.
 *
 * All files are made under names of their own beside where they belong; the names change when every
 * chunk of every file was verified and written.  What is written in place (/proc/self/fd/N) is its
 * owner's, who knows from the result whether it is whole.
 */
#include "store_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

struct out {
    const struct orr_part_file *file; /* borrowed: from the part */
    char *path;                       /* owned: NULL when only verifying */
    char *tmp;                        /* owned: NULL when written in place */
    int fd;                           /* owned */
};

struct get {
    struct orr_part part;
    struct out *outs; /* owned */
    size_t n_outs;
    uint64_t n_chunks;
    atomic_uint_fast64_t next; /* chunk of all outs' chunks */
    pthread_mutex_t lock;      /* guards all below */
    struct orr_store_report report;
};

/* ---- what was asked for ---- */

static enum orr_err add_out(struct get *g,
                            const struct orr_part_file *file,
                            const char *dir,
                            const char *path,
                            struct orr_error *err)
{
    struct out *o = &g->outs[g->n_outs++];
    *o = (struct out){.file = file, .fd = -1};
    g->n_chunks += file->n_chunks;
    if (dir && asprintf(&o->path, "%s/%s", dir, file->name) < 0)
        o->path = NULL;
    else if (path)
        o->path = strdup(path);
    return (dir || path) && !o->path ? orr_fail(err, ORR_ENOMEM, "store: out of memory")
                                     : ORR_OK;
}

static const struct orr_part_file *find(const struct orr_part *part, const char *name)
{
    for (uint32_t i = 0; i < part->n_files; i++)
        if (strcmp(part->files[i].name, name) == 0)
            return &part->files[i];
    return NULL;
}

static bool
is_targeted(const struct orr_store_target *targets, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(targets[i].name, name) == 0)
            return true;
    return false;
}

/* The targets, and all others when there is a directory for them or nothing is written at all. */
static enum orr_err choose(struct get *g,
                           const char *dir,
                           const struct orr_store_target *targets,
                           size_t n_targets,
                           struct orr_error *err)
{
    enum orr_err code = ORR_OK;
    g->outs = calloc(n_targets + g->part.n_files + 1, sizeof *g->outs);
    if (!g->outs)
        return orr_fail(err, ORR_ENOMEM, "store: out of memory");
    for (size_t i = 0; !code && i < n_targets; i++) {
        const struct orr_part_file *f = find(&g->part, targets[i].name);
        code =
            f ? add_out(g, f, NULL, targets[i].path, err)
              : orr_fail(
                    err, ORR_ENOENT, "store: the part has no file %s", targets[i].name);
    }
    if (dir && !code && mkdir(dir, 0700) != 0 && errno != EEXIST)
        return orri_io_fail(err, "cannot make", dir);
    for (uint32_t i = 0; !code && (dir || n_targets == 0) && i < g->part.n_files; i++)
        if (!is_targeted(targets, n_targets, g->part.files[i].name))
            code = add_out(g, &g->part.files[i], dir, NULL, err);
    return code;
}

/* ---- files ---- */

static bool is_in_place(const char *path)
{
    return strncmp(path, "/proc/", 6) == 0;
}

/* Right length, and zero all over, without letting go of pages that somebody has mapped. */
static int clear_in_place(int fd, uint64_t bytes)
{
    if (ftruncate(fd, (off_t)bytes) != 0)
        return -1;
    if (bytes == 0 ||
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes) == 0)
        return 0;
    return ftruncate(fd, 0) || ftruncate(fd, (off_t)bytes) ? -1 : 0;
}

static enum orr_err open_out(struct out *o, struct orr_error *err)
{
    uint64_t number = 0;
    if (is_in_place(o->path)) {
        o->fd = open(o->path, O_RDWR | O_CLOEXEC);
        return o->fd < 0 || clear_in_place(o->fd, o->file->bytes) != 0
                   ? orri_io_fail(err, "cannot write to", o->path)
                   : ORR_OK;
    }
    if (getrandom(&number, sizeof number, 0) != sizeof number ||
        asprintf(&o->tmp, "%s.%llx.part", o->path, (unsigned long long)number) < 0) {
        o->tmp = NULL;
        return orr_fail(err, ORR_ENOMEM, "store: out of memory");
    }
    if (orri_io_fault("get_create", o->tmp) == 0)
        o->fd = open(o->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (o->fd >= 0 && ftruncate(o->fd, (off_t)o->file->bytes) == 0)
        return ORR_OK;
    return orri_io_fail(err, "cannot make", o->tmp);
}

static enum orr_err finish_outs(struct get *g, struct orr_error *err)
{
    for (size_t i = 0; i < g->n_outs; i++)
        if (g->outs[i].tmp && fchmod(g->outs[i].fd, g->outs[i].file->mode) != 0)
            return orri_io_fail(err, "cannot set the mode of", g->outs[i].path);
    for (size_t i = 0; i < g->n_outs; i++) {
        struct out *o = &g->outs[i];
        if (o->tmp &&
            (orri_io_fault("get_rename", o->path) || rename(o->tmp, o->path) != 0))
            return orri_io_fail(err, "cannot name", o->path);
        free(o->tmp);
        o->tmp = NULL;
    }
    return ORR_OK;
}

static void close_outs(struct get *g)
{
    for (size_t i = 0; i < g->n_outs; i++) {
        struct out *o = &g->outs[i];
        if (o->fd >= 0)
            close(o->fd);
        if (o->tmp)
            (void)unlink(o->tmp);
        free(o->tmp);
        free(o->path);
    }
    free(g->outs);
}

/* ---- a thread ---- */

static const struct orr_part_chunk *
chunk_at(const struct get *g, uint64_t n, struct out **ret_out, uint64_t *ret_index)
{
    size_t i = 0;
    while (n >= g->outs[i].file->n_chunks)
        n -= g->outs[i++].file->n_chunks;
    *ret_out = &g->outs[i];
    *ret_index = n;
    return &g->outs[i].file->chunks[n];
}

static void note_damage(struct get *g,
                        const struct out *o,
                        uint64_t index,
                        const struct orr_part_chunk *chunk,
                        enum orr_store_trouble trouble)
{
    pthread_mutex_lock(&g->lock);
    if (g->report.n_damages < ORR_STORE_DAMAGES_MAX) {
        struct orr_store_damage *d = &g->report.damages[g->report.n_damages];
        *d = (struct orr_store_damage){.trouble = trouble,
                                       .chunk = chunk->hash,
                                       .index = index,
                                       .offset = chunk->offset};
        snprintf(d->file, sizeof d->file, "%s", o->file->name);
    }
    g->report.n_damages++;
    pthread_mutex_unlock(&g->lock);
}

static enum orr_err write_out(const struct out *o,
                              uint64_t at,
                              const uint8_t *data,
                              size_t len,
                              struct orr_error *err)
{
    while (len && o->fd >= 0) {
        const ssize_t n = orri_io_fault("get_write", o->path)
                              ? -1
                              : pwrite(o->fd, data, len, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return orri_io_fail(err, "cannot write to", o->tmp ? o->tmp : o->path);
        data += n;
        at += (uint64_t)n;
        len -= (size_t)n;
    }
    return ORR_OK;
}

static enum orr_err get_chunk(struct orri_team *team,
                              struct orri_codec *codec,
                              uint8_t *content,
                              uint64_t n,
                              struct orr_error *err)
{
    struct get *g = team->arg;
    struct out *o;
    uint64_t index;
    size_t len = 0;
    const struct orr_part_chunk *chunk = chunk_at(g, n, &o, &index);
    int why = orri_chunk_read(team->store, codec, &chunk->hash, content, &len);
    if (why == 0 && len != chunk->len)
        why = EBADMSG;
    if (why == ENOENT || why == EBADMSG) {
        note_damage(
            g, o, index, chunk, why == ENOENT ? ORR_STORE_MISSING : ORR_STORE_DAMAGED);
        return ORR_OK; /* all damage is to be known */
    }
    errno = why;
    if (why)
        return orri_io_fail(err, "cannot read a chunk of", o->file->name);
    if (team->op)
        atomic_fetch_add_explicit(&team->op->bytes_done, len, memory_order_relaxed);
    return write_out(o, chunk->offset, content, len, err);
}

static enum orr_err work(struct orri_team *team, struct orr_error *err)
{
    struct get *g = team->arg;
    struct orri_codec codec = {0};
    uint8_t *content = malloc(ORR_STORE_CHUNK_MAX);
    enum orr_err code = ORR_OK;
    if (!content || orri_codec_init(&codec) != ORR_OK)
        code = orr_fail(err, ORR_ENOMEM, "store: out of memory");
    while (!code && !orri_team_is_over(team)) {
        const uint64_t n = atomic_fetch_add(&g->next, 1);
        if (n >= g->n_chunks)
            break;
        code = get_chunk(team, &codec, content, n, err);
    }
    orri_codec_fini(&codec);
    free(content);
    return code;
}

/* ---- the whole ---- */

static enum orr_err fail_damaged(const struct get *g,
                                 const struct orr_store_hash *part,
                                 struct orr_error *err)
{
    char hex[ORR_STORE_HEX_BYTES];
    const struct orr_store_damage *d = &g->report.damages[0];
    orr_store_hex(part, hex);
    return orr_fail(
        err,
        ORR_EIO,
        "store: file %s: chunk %llu at offset %llu is %s, %llu bad in all of part %s; "
        "fetch it from another store, put the same content again, or use an earlier "
        "checkpoint",
        d->file,
        (unsigned long long)d->index,
        (unsigned long long)d->offset,
        d->trouble == ORR_STORE_MISSING ? "missing" : "damaged",
        (unsigned long long)g->report.n_damages,
        hex);
}

static enum orr_err run(struct orr_store *s,
                        struct get *g,
                        const struct orr_store_hash *part,
                        struct orr_store_op *op,
                        struct orr_error *err)
{
    struct orri_team team = {.store = s, .op = op, .work = work, .arg = g};
    enum orr_err code = ORR_OK;
    uint64_t bytes = 0;
    for (size_t i = 0; !code && i < g->n_outs; i++) {
        const struct orr_part_file *f = g->outs[i].file;
        for (uint64_t k = 0; k < f->n_chunks; k++)
            bytes += f->chunks[k].len;
        if (g->outs[i].path)
            code = open_out(&g->outs[i], err);
    }
    if (op)
        atomic_store(&op->bytes_total, bytes);
    if (!code)
        code = orri_team_run(&team, err);
    g->report.files = g->n_outs;
    g->report.chunks = g->n_chunks;
    g->report.bytes = bytes;
    if (!code && g->report.n_damages)
        code = fail_damaged(g, part, err);
    return code ? code : finish_outs(g, err);
}

enum orr_err orr_store_get(struct orr_store *s,
                           const struct orr_store_hash *part,
                           const char *dir,
                           const struct orr_store_target *targets,
                           size_t n_targets,
                           struct orr_store_op *op,
                           struct orr_store_report *ret_report,
                           struct orr_error *err)
{
    struct get g = {.n_chunks = 0};
    enum orr_err code = orri_part_read(s, part, &g.part, err);
    g.report.is_part_bad = code == ORR_ENOENT || code == ORR_EIO;
    if (!code) {
        pthread_mutex_init(&g.lock, NULL);
        code = choose(&g, dir, targets, n_targets, err);
        if (!code)
            code = run(s, &g, part, op, err);
        close_outs(&g);
        pthread_mutex_destroy(&g.lock);
        orr_part_fini(&g.part);
    }
    if (ret_report)
        *ret_report = g.report;
    return code;
}

enum orr_err orr_store_verify(struct orr_store *s,
                              const struct orr_store_hash *part,
                              struct orr_store_op *op,
                              struct orr_store_report *ret_report,
                              struct orr_error *err)
{
    return orr_store_get(s, part, NULL, NULL, 0, op, ret_report, err);
}
