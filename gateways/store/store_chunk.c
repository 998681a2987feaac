/* SPDX-License-Identifier: Apache-2.0
 * store_chunk.c - one chunk: its hash, its file, and whether zstd pays for it.
 *
 * A chunk's file, little endian: "ORCK", u32 codec (0 none, 1 zstd), u32 length of the content, u32
 * length of what follows.  The name is the hash of the content, so that a head that lies is found out.
 */
#include "store_impl.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <sys/file.h>
#include <unistd.h>
#include <zstd.h>

enum {
    CODEC_NONE = 0,
    CODEC_ZSTD = 1,
    LEVEL = 1,
    SAMPLES = 3,
    SAMPLE_BYTES = 8 << 10,
    SAMPLED_MIN = 2 * SAMPLES * SAMPLE_BYTES, /* smaller ones are their own sample */
};

static const double hash_bytes_per_s =
    0.9e9; /* of one core; only to weigh zstd against */
static const double ratio_max = 0.9;
static const double ratio_unknown_max = 0.6; /* while the disk's rate is not known */

static const char magic[4] = {'O', 'R', 'C', 'K'};

void orri_hash(struct orr_store_hash *ret_hash, const void *data, size_t len)
{
    crypto_generichash(ret_hash->at, ORR_STORE_HASH_BYTES, data, len, NULL, 0);
}

enum orr_err orri_codec_init(struct orri_codec *c)
{
    *c = (struct orri_codec){.zstd = ZSTD_createCCtx(),
                             .unzstd = ZSTD_createDCtx(),
                             .buf = malloc(ORR_STORE_OBJECT_MAX)};
    if (c->zstd && c->unzstd && c->buf)
        return ORR_OK;
    orri_codec_fini(c);
    return ORR_ENOMEM;
}

void orri_codec_fini(struct orri_codec *c)
{
    ZSTD_freeCCtx(c->zstd);
    ZSTD_freeDCtx(c->unzstd);
    free(c->buf);
    *c = (struct orri_codec){0};
}

/* ---- pack ---- */

static size_t
compress(struct orri_codec *c, const uint8_t *data, size_t len, size_t cap)
{
    const size_t n = ZSTD_compressCCtx(c->zstd, c->buf, cap, data, len, LEVEL);
    return ZSTD_isError(n) ? SIZE_MAX : n;
}

/* A chunk is compressed when a sample shrinks, and when hashing and compressing in all threads keep
 * up with the disk, so that zstd never makes a put slower. */
static bool
pays(const struct orr_store *s, struct orri_codec *c, const uint8_t *data, size_t len)
{
    size_t in = 0, out = 0;
    if (len < SAMPLED_MIN)
        return true;
    const double began_s = orri_now_s();
    for (size_t i = 0; i < SAMPLES; i++) {
        const size_t at = (len - SAMPLE_BYTES) / (SAMPLES - 1) * i;
        const size_t n = compress(c, data + at, SAMPLE_BYTES, ORR_STORE_OBJECT_MAX);
        in += SAMPLE_BYTES;
        out += n < SAMPLE_BYTES ? n : SAMPLE_BYTES;
    }
    const double took_s = orri_now_s() - began_s + 1e-9;
    const double ratio = (double)out / (double)in;
    const double s_per_byte = 1 / hash_bytes_per_s + took_s / (double)in;
    double disk = (double)atomic_load_explicit(&s->disk_rate, memory_order_relaxed);
    if (s->rate.bytes_per_s && (disk == 0 || disk > (double)s->rate.bytes_per_s))
        disk = (double)s->rate.bytes_per_s;
    if (disk == 0)
        return ratio <= ratio_unknown_max;
    return ratio <= ratio_max && s->threads / s_per_byte >= disk;
}

static void put_head(uint8_t *head, uint32_t codec, size_t raw, size_t stored)
{
    const uint32_t fields[3] = {
        htole32(codec), htole32((uint32_t)raw), htole32((uint32_t)stored)};
    memcpy(head, magic, sizeof magic);
    memcpy(head + sizeof magic, fields, sizeof fields);
}

void orri_chunk_pack(const struct orr_store *s,
                     struct orri_codec *c,
                     const uint8_t *data,
                     size_t len,
                     struct orri_packed *ret_packed)
{
    *ret_packed = (struct orri_packed){.data = data, .len = len};
    if (pays(s, c, data, len)) {
        const size_t n = compress(c, data, len, len);
        if (n < len - len / 10) {
            ret_packed->data = c->buf;
            ret_packed->len = n;
            ret_packed->is_zstd = true;
        }
    }
    put_head(ret_packed->head,
             ret_packed->is_zstd ? CODEC_ZSTD : CODEC_NONE,
             len,
             ret_packed->len);
}

/* ---- unpack ---- */

struct head {
    uint32_t codec, raw, stored;
};

static bool get_head(const uint8_t *at, uint64_t file_len, struct head *ret_head)
{
    struct head h;
    if (file_len < STORE_HEAD_BYTES || file_len > ORR_STORE_OBJECT_MAX ||
        memcmp(at, magic, sizeof magic) != 0)
        return false;
    memcpy(&h, at + sizeof magic, sizeof h);
    h = (struct head){le32toh(h.codec), le32toh(h.raw), le32toh(h.stored)};
    *ret_head = h;
    return h.codec <= CODEC_ZSTD && h.raw > 0 && h.raw <= ORR_STORE_CHUNK_MAX &&
           h.stored == file_len - STORE_HEAD_BYTES &&
           (h.codec == CODEC_ZSTD || h.stored == h.raw);
}

bool orri_chunk_unpack(struct orri_codec *c,
                       const struct orr_store_hash *hash,
                       const uint8_t *file,
                       size_t file_len,
                       uint8_t *content,
                       size_t *ret_len)
{
    struct head h;
    struct orr_store_hash got;
    if (!get_head(file, file_len, &h))
        return false;
    const uint8_t *data = file + STORE_HEAD_BYTES;
    if (h.codec == CODEC_NONE)
        memcpy(content, data, h.raw);
    else if (ZSTD_decompressDCtx(
                 c->unzstd, content, ORR_STORE_CHUNK_MAX, data, h.stored) != h.raw)
        return false;
    orri_hash(&got, content, h.raw);
    *ret_len = h.raw;
    return memcmp(&got, hash, sizeof got) == 0;
}

/* ---- in the directory ---- */

/* Move the name out of the way, unless another has taken its place since it was read. */
static void set_aside(struct orr_store *s, int dir, const char *name, ino_t read)
{
    struct stat now;
    char to[STORE_NAME];
    const int lock = orri_lock_open(s);
    if (lock < 0)
        return;
    if (orri_lock(lock, LOCK_EX) &&
        fstatat(dir, name, &now, AT_SYMLINK_NOFOLLOW) == 0 && now.st_ino == read) {
        snprintf(to, sizeof to, "%.16s.%llu", name, (unsigned long long)read);
        (void)orri_io_rename(dir, name, s->damaged, to);
    }
    close(lock);
}

static int read_all(const struct orri_place *p, uint8_t *buf)
{
    for (size_t len = 0; len < p->len;) {
        const ssize_t n =
            pread(p->fd, buf + len, p->len - len, (off_t)(p->offset + len));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        if (n == 0)
            return EBADMSG;
        len += (size_t)n;
    }
    return 0;
}

int orri_chunk_read(struct orr_store *s,
                    struct orri_codec *c,
                    const struct orr_store_hash *hash,
                    uint8_t *content,
                    size_t *ret_len)
{
    char name[STORE_NAME];
    struct orri_place p = {.fd = -1};
    struct stat st;
    const int dir = orri_chunk_place(s, hash, name);
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno;
    int why = orri_chunk_open(s, hash, &p);
    if (why == 0 && p.len > ORR_STORE_OBJECT_MAX)
        why = EBADMSG;
    if (why == 0)
        why = read_all(&p, c->buf);
    if (why == 0 &&
        !orri_chunk_unpack(c, hash, c->buf, (size_t)p.len, content, ret_len))
        why = EBADMSG;
    if (p.fd >= 0)
        close(p.fd);
    if (why == EIO ||
        why == EBADMSG) { /* a sector that cannot be read is damage, too */
        set_aside(s, dir, name, st.st_ino);
        why = EBADMSG;
    }
    return why;
}

bool orri_chunk_meet(struct orr_store *s,
                     int lock,
                     const struct orr_store_hash *hash,
                     size_t raw_len)
{
    char name[STORE_NAME];
    uint8_t bytes[STORE_HEAD_BYTES];
    struct orri_place p;
    struct head h;
    struct stat st;
    const int dir = orri_chunk_place(s, hash, name);
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0) /* the usual case: no lock */
        return false;
    if (!orri_lock(lock, LOCK_SH))
        return false;
    bool is_here = orri_chunk_open(s, hash, &p) == 0;
    if (is_here) {
        is_here = pread(p.fd, bytes, sizeof bytes, (off_t)p.offset) ==
                      (ssize_t)sizeof bytes &&
                  get_head(bytes, p.len, &h) && (raw_len == 0 || raw_len == h.raw) &&
                  orri_io_touch(dir, name) == 0;
        close(p.fd);
    }
    (void)flock(lock, LOCK_UN);
    return is_here;
}
