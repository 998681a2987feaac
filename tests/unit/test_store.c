/* SPDX-License-Identifier: Apache-2.0
 * test_store.c - the store in one process: what goes in comes out, once; damage is found and mended.
 */
#include "orr_test.h"

#include "store_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MIB = 1 << 20 };

static char dir[64];
static char work_dir[80];
static struct orr_store *store;
static struct orr_error err;

#define OK(call)                                                                       \
    do {                                                                               \
        if ((call) != ORR_OK)                                                          \
            fail_msg("%s: %s", #call, err.text);                                       \
    } while (0)

static int
remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void open_store(uint64_t quota)
{
    char path[80];
    snprintf(path, sizeof path, "%s/store", dir);
    const struct orr_store_config config = {
        .path = path, .quota_bytes = quota, .threads = 2};
    OK(orr_store_open(&config, &store, &err));
}

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/orr-store-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(work_dir, sizeof work_dir, "%s/work", dir);
    assert_int_equal(mkdir(work_dir, 0755), 0);
    open_store(0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    orri_store_fault = NULL;
    orr_store_close(store);
    return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- files ---- */

static uint64_t random_state;

static void fill_random(uint8_t *at, size_t len, uint64_t seed)
{
    random_state = seed * 2654435761u + 1;
    for (size_t i = 0; i + 8 <= len; i += 8) {
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        memcpy(at + i, &random_state, 8);
    }
}

static const char *file_path(const char *name)
{
    static char path[4][160];
    static unsigned turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", work_dir, name);
    return p;
}

static void write_file(const char *name, const uint8_t *data, size_t len)
{
    const int fd = open(file_path(name), O_WRONLY | O_CREAT | O_TRUNC, 0640);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), (ssize_t)len);
    close(fd);
}

static uint8_t *read_file(const char *path, size_t *ret_len)
{
    struct stat st;
    const int fd = open(path, O_RDONLY);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    uint8_t *data = malloc((size_t)st.st_size + 1);
    assert_int_equal(read(fd, data, (size_t)st.st_size), st.st_size);
    close(fd);
    *ret_len = (size_t)st.st_size;
    return data;
}

static void assert_file(const char *path, const uint8_t *data, size_t len)
{
    size_t got_len;
    uint8_t *got = read_file(path, &got_len);
    assert_int_equal(got_len, len);
    assert_memory_equal(got, data, len);
    free(got);
}

static struct orr_store_put_stats put_one(const char *name, enum orr_store_kind kind)
{
    struct orr_store_put_stats stats;
    const struct orr_store_file file = {
        .name = name, .path = file_path(name), .kind = kind};
    OK(orr_store_put(store, &file, 1, NULL, &stats, &err));
    return stats;
}

static void assert_gets(const struct orr_store_hash *part,
                        const char *name,
                        const uint8_t *data,
                        size_t len)
{
    const struct orr_store_target target = {name, file_path("got")};
    struct orr_store_report report;
    OK(orr_store_get(store, part, NULL, &target, 1, NULL, &report, &err));
    assert_file(target.path, data, len);
}

/* The path of the n-th chunk file, in no certain order. */
static void chunk_path(unsigned n, char path[256])
{
    for (unsigned i = 0; i < STORE_SHARDS; i++) {
        char shard[128];
        snprintf(shard, sizeof shard, "%s/store/chunks/%02x", dir, i);
        DIR *d = opendir(shard);
        assert_non_null(d);
        for (struct dirent *e; (e = readdir(d));)
            if (e->d_name[0] != '.' && n-- == 0) {
                snprintf(path, 256, "%s/%.70s", shard, e->d_name);
                closedir(d);
                return;
            }
        closedir(d);
    }
    fail_msg("not so many chunks");
}

static void flip(const char *path, off_t at)
{
    uint8_t byte;
    const int fd = open(path, O_RDWR);
    assert_true(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

/* ---- what goes in comes out ---- */

static void memory_comes_back_with_its_holes(void **state)
{
    (void)state;
    const size_t len = 5 * MIB + 12345;
    uint8_t *data = calloc(1, len);
    fill_random(data, MIB, 1);
    fill_random(data + 3 * MIB, 2 * MIB + 12345, 2);
    write_file("a", data, len);
    const struct orr_store_put_stats s = put_one("a", ORR_STORE_MEMORY);
    assert_int_equal(s.logical_bytes, len);
    assert_int_equal(s.data_bytes, 3 * MIB + 12345);
    assert_int_equal(s.chunks, 4);
    assert_int_equal(s.new_chunks, 4);
    assert_gets(&s.part, "a", data, len);
    struct stat st;
    assert_int_equal(stat(file_path("got"), &st), 0);
    assert_true((size_t)st.st_blocks * 512 < 4 * (size_t)MIB); /* the hole is one */
    assert_int_equal(st.st_mode & 07777, 0640);
    free(data);
}

static void an_empty_and_a_zero_file_cost_nothing(void **state)
{
    (void)state;
    uint8_t *zero = calloc(1, 3 * MIB + 5);
    write_file("z", zero, 3 * MIB + 5);
    write_file("e", zero, 0);
    struct orr_store_put_stats s;
    const struct orr_store_file files[] = {
        {.name = "z", .path = file_path("z"), .kind = ORR_STORE_IMAGE},
        {.name = "e", .path = file_path("e"), .kind = ORR_STORE_MEMORY}};
    OK(orr_store_put(store, files, 2, NULL, &s, &err));
    assert_int_equal(s.chunks, 0);
    assert_gets(&s.part, "z", zero, 3 * MIB + 5);
    assert_gets(&s.part, "e", zero, 0);
    free(zero);
}

static void equal_content_is_kept_once_and_has_one_name(void **state)
{
    (void)state;
    uint8_t *data = malloc(4 * MIB);
    fill_random(data, 4 * MIB, 3);
    write_file("a", data, 4 * MIB);
    const struct orr_store_put_stats first = put_one("a", ORR_STORE_MEMORY);
    const struct orr_store_put_stats again = put_one("a", ORR_STORE_MEMORY);
    assert_memory_equal(&first.part, &again.part, sizeof first.part);
    assert_int_equal(again.new_bytes, 0);
    write_file("b", data, 4 * MIB);
    const struct orr_store_put_stats other = put_one("b", ORR_STORE_MEMORY);
    assert_memory_not_equal(&first.part, &other.part, sizeof first.part);
    assert_int_equal(other.new_bytes, 0);
    free(data);
}

/* Pages that moved by whole pages are found again; a few that changed cost little. */
static void an_image_that_shifts_is_found_again(void **state)
{
    (void)state;
    const size_t len = 32 * MIB;
    uint8_t *data = malloc(len);
    fill_random(data, len, 4);
    write_file("pages", data, len);
    const struct orr_store_put_stats first = put_one("pages", ORR_STORE_IMAGE);
    assert_int_equal(first.new_bytes, len);
    memmove(data + 7 * STORE_PAGE, data, len - 7 * STORE_PAGE);
    fill_random(data, 7 * STORE_PAGE, 5);
    fill_random(data + 20 * MIB, STORE_PAGE, 6);
    write_file("pages", data, len);
    const struct orr_store_put_stats next = put_one("pages", ORR_STORE_IMAGE);
    assert_true(next.new_bytes > 0 && next.new_bytes < len / 20);
    assert_gets(&next.part, "pages", data, len);
    free(data);
}

static void what_compresses_is_compressed(void **state)
{
    (void)state;
    uint8_t *data = malloc(4 * MIB);
    for (size_t i = 0; i < 4 * MIB; i++)
        data[i] = (uint8_t)(i / 4096 + i % 7 + 1);
    write_file("text", data, 4 * MIB);
    const struct orr_store_put_stats s = put_one("text", ORR_STORE_MEMORY);
    assert_int_equal(s.zstd_chunks, s.new_chunks);
    assert_true(s.written_bytes < s.new_bytes / 4);
    assert_gets(&s.part, "text", data, 4 * MIB);
    free(data);
}

static void a_memfd_is_read_and_written_in_place_and_ranges_bound_it(void **state)
{
    (void)state;
    const size_t len = 4 * MIB;
    uint8_t *data = malloc(len);
    fill_random(data, len, 7);
    const int from = memfd_create("from", MFD_CLOEXEC),
              to = memfd_create("to", MFD_CLOEXEC);
    char from_path[64], to_path[64];
    snprintf(from_path, sizeof from_path, "/proc/self/fd/%d", from);
    snprintf(to_path, sizeof to_path, "/proc/self/fd/%d", to);
    assert_int_equal(write(from, data, len), (ssize_t)len);
    assert_int_equal(write(to, data, 100), 100); /* what was there must go */
    const struct orr_store_range ranges[] = {{STORE_PAGE, MIB + 8}, {2 * MIB, 512}};
    const struct orr_store_file file = {.name = "arena",
                                        .path = from_path,
                                        .kind = ORR_STORE_MEMORY,
                                        .ranges = ranges,
                                        .n_ranges = 2};
    struct orr_store_put_stats s;
    OK(orr_store_put(store, &file, 1, NULL, &s, &err));
    assert_int_equal(s.chunks, 3);
    assert_int_equal(s.data_bytes, MIB + 8 + 512);
    const struct orr_store_target target = {"arena", to_path};
    OK(orr_store_get(store, &s.part, NULL, &target, 1, NULL, NULL, &err));
    memset(data, 0, STORE_PAGE);
    memset(data + STORE_PAGE + MIB + 8, 0, MIB - STORE_PAGE - 8);
    memset(data + 2 * MIB + 512, 0, 2 * MIB - 512);
    assert_file(to_path, data, len);
    close(from);
    close(to);
    free(data);
}

static void what_cannot_be_put_is_refused_with_its_name(void **state)
{
    (void)state;
    struct orr_store_put_stats s;
    uint8_t byte = 1;
    write_file("a", &byte, 1);
    const struct orr_store_file a = {.name = "a", .path = file_path("a")};
    const struct orr_store_range far = {0, 2};
    struct orr_store_file bad[] = {
        {.name = "../a", .path = a.path},
        {.name = "a", .path = "/proc"},
        {.name = "a", .path = a.path, .ranges = &far, .n_ranges = 1}};
    for (size_t i = 0; i < ORR_ARRAY_SIZE(bad); i++)
        assert_int_equal(orr_store_put(store, &bad[i], 1, NULL, &s, &err), ORR_EINVAL);
    const struct orr_store_file twice[] = {a, a};
    assert_int_equal(orr_store_put(store, twice, 2, NULL, &s, &err), ORR_EINVAL);
    const struct orr_store_file gone = {.name = "a", .path = "/nonexistent"};
    assert_int_equal(orr_store_put(store, &gone, 1, NULL, &s, &err), ORR_ENOENT);
}

/* ---- damage ---- */

static void a_flipped_bit_is_named_set_aside_and_mended_by_the_next_put(void **state)
{
    (void)state;
    uint8_t *data = malloc(3 * MIB);
    struct orr_store_report report;
    char path[256];
    fill_random(data, 3 * MIB, 8);
    write_file("a", data, 3 * MIB);
    const struct orr_store_put_stats s = put_one("a", ORR_STORE_MEMORY);
    OK(orr_store_verify(store, &s.part, NULL, &report, &err));
    assert_int_equal(report.chunks, 3);
    chunk_path(1, path);
    flip(path, 1000);
    assert_int_equal(orr_store_verify(store, &s.part, NULL, &report, &err), ORR_EIO);
    assert_int_equal(report.n_damages, 1);
    assert_int_equal(report.damages[0].trouble, ORR_STORE_DAMAGED);
    assert_int_equal(report.damages[0].offset, report.damages[0].index * MIB);
    assert_string_equal(report.damages[0].file, "a");
    assert_non_null(strstr(err.text, "file a: chunk"));
    const struct orr_store_target target = {"a", file_path("got")};
    assert_int_equal(
        orr_store_get(store, &s.part, NULL, &target, 1, NULL, &report, &err), ORR_EIO);
    assert_int_equal(report.damages[0].trouble, ORR_STORE_MISSING);
    assert_int_equal(access(target.path, F_OK), -1);
    const struct orr_store_put_stats again = put_one("a", ORR_STORE_MEMORY);
    assert_int_equal(again.new_chunks, 1);
    assert_gets(&s.part, "a", data, 3 * MIB);
    free(data);
}

static void a_torn_chunk_is_noticed_by_a_put_that_meets_it(void **state)
{
    (void)state;
    uint8_t *data = malloc(2 * MIB);
    char path[256];
    fill_random(data, 2 * MIB, 9);
    write_file("a", data, 2 * MIB);
    const struct orr_store_put_stats s = put_one("a", ORR_STORE_MEMORY);
    chunk_path(0, path);
    assert_int_equal(truncate(path, 4711), 0);
    assert_int_equal(put_one("a", ORR_STORE_MEMORY).new_chunks, 1);
    assert_gets(&s.part, "a", data, 2 * MIB);
    free(data);
}

/* Small chunks share a file: one that is damaged, or lost with all in it, is mended by the next put. */
static void a_damaged_pack_is_mended_by_the_next_put(void **state)
{
    (void)state;
    uint8_t *data = malloc(2 * MIB);
    struct orr_store_report report;
    char command[200];
    fill_random(data, 2 * MIB, 15);
    write_file("pages", data, 2 * MIB);
    const struct orr_store_put_stats s = put_one("pages", ORR_STORE_IMAGE);
    snprintf(command,
             sizeof command,
             "printf X | dd of=$(ls %s/store/packs/* | head -n 1) bs=1 seek=100000 "
             "conv=notrunc status=none",
             dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(orr_store_verify(store, &s.part, NULL, &report, &err), ORR_EIO);
    assert_int_equal(report.n_damages, 1);
    assert_int_equal(report.damages[0].trouble, ORR_STORE_DAMAGED);
    assert_int_equal(put_one("pages", ORR_STORE_IMAGE).new_chunks, 1);
    assert_gets(&s.part, "pages", data, 2 * MIB);
    snprintf(command, sizeof command, "rm %s/store/packs/*", dir);
    assert_int_equal(system(command), 0);
    assert_true(put_one("pages", ORR_STORE_IMAGE).new_chunks > s.chunks / 2);
    assert_gets(&s.part, "pages", data, 2 * MIB);
    free(data);
}

static void a_damaged_part_is_named(void **state)
{
    (void)state;
    uint8_t data[100] = {1, 2, 3};
    char path[256], hex[ORR_STORE_HEX_BYTES];
    struct orr_store_report report;
    struct orr_store_gc_stats gc;
    write_file("a", data, sizeof data);
    const struct orr_store_put_stats s = put_one("a", ORR_STORE_MEMORY);
    orr_store_hex(&s.part, hex);
    snprintf(path, sizeof path, "%s/store/parts/%s", dir, hex);
    flip(path, 20);
    assert_int_equal(orr_store_verify(store, &s.part, NULL, &report, &err), ORR_EIO);
    assert_true(report.is_part_bad);
    assert_non_null(strstr(err.text, hex));
    assert_int_equal(orr_store_gc(store, &s.part, 1, 0, NULL, &gc, &err), ORR_EIO);
    (void)put_one("a", ORR_STORE_MEMORY); /* writes the part anew */
    OK(orr_store_verify(store, &s.part, NULL, &report, &err));
}

/* ---- room ---- */

static void the_quota_refuses_and_leaves_what_was_there(void **state)
{
    (void)state;
    uint8_t *data = malloc(8 * MIB);
    struct orr_store_put_stats s;
    struct orr_store_usage before, after;
    orr_store_close(store);
    open_store(6 * MIB);
    fill_random(data, 8 * MIB, 10);
    write_file("a", data, 4 * MIB);
    const struct orr_store_put_stats kept = put_one("a", ORR_STORE_MEMORY);
    OK(orr_store_stat(store, &before, &err));
    write_file("b", data + 4, 8 * MIB - 4);
    const struct orr_store_file b = {
        .name = "b", .path = file_path("b"), .kind = ORR_STORE_MEMORY};
    assert_int_equal(orr_store_put(store, &b, 1, NULL, &s, &err), ORR_ENOSPC);
    assert_non_null(strstr(err.text, "quota"));
    OK(orr_store_stat(store, &after, &err));
    assert_int_equal(after.bytes, before.bytes);
    assert_int_equal(after.chunks, before.chunks);
    assert_gets(&kept.part, "a", data, 4 * MIB);
    free(data);
}

/* ---- collection ---- */

static void gc_keeps_roots_and_what_is_young(void **state)
{
    (void)state;
    uint8_t *data = malloc(6 * MIB);
    struct orr_store_gc_stats gc;
    struct orr_store_usage usage;
    fill_random(data, 6 * MIB, 11);
    write_file("a", data, 4 * MIB);
    const struct orr_store_put_stats a = put_one("a", ORR_STORE_MEMORY);
    write_file("b", data + 2 * MIB, 4 * MIB);
    const struct orr_store_put_stats b = put_one("b", ORR_STORE_MEMORY);
    assert_int_equal(b.new_chunks, 2);
    OK(orr_store_gc(store, NULL, 0, 3600000, NULL, &gc, &err));
    assert_int_equal(gc.parts_removed + gc.chunks_removed, 0);
    OK(orr_store_gc(store, &b.part, 1, 0, NULL, &gc, &err));
    assert_int_equal(gc.parts_removed, 1);
    assert_int_equal(gc.chunks_removed, 2);
    assert_true(gc.bytes_removed > 2 * MIB);
    assert_gets(&b.part, "b", data + 2 * MIB, 4 * MIB);
    assert_int_equal(orr_store_verify(store, &a.part, NULL, NULL, &err), ORR_ENOENT);
    OK(orr_store_rm(store, &b.part, &err));
    assert_int_equal(orr_store_rm(store, &b.part, &err), ORR_ENOENT);
    OK(orr_store_gc(store, &b.part, 1, 0, NULL, &gc, &err));
    assert_int_equal(gc.roots_elsewhere, 1);
    OK(orr_store_stat(store, &usage, &err));
    assert_int_equal(usage.chunks + usage.parts + usage.bytes, 0);
    free(data);
}

/* ---- stopping ---- */

static void a_cancelled_call_leaves_nothing(void **state)
{
    (void)state;
    uint8_t *data = malloc(4 * MIB);
    struct orr_store_op op = {.is_cancelled = true};
    struct orr_store_put_stats s;
    struct orr_store_usage usage;
    fill_random(data, 4 * MIB, 12);
    write_file("a", data, 4 * MIB);
    const struct orr_store_file a = {
        .name = "a", .path = file_path("a"), .kind = ORR_STORE_MEMORY};
    assert_int_equal(orr_store_put(store, &a, 1, &op, &s, &err), ORR_ESTATE);
    OK(orr_store_stat(store, &usage, &err));
    assert_int_equal(usage.bytes, 0);
    s = put_one("a", ORR_STORE_MEMORY);
    const struct orr_store_target target = {"a", file_path("got")};
    assert_int_equal(orr_store_get(store, &s.part, NULL, &target, 1, &op, NULL, &err),
                     ORR_ESTATE);
    assert_int_equal(access(target.path, F_OK), -1);
    free(data);
}

static void bandwidth_is_capped(void **state)
{
    (void)state;
    uint8_t *data = malloc(4 * MIB);
    struct orr_store *slow;
    char path[80];
    snprintf(path, sizeof path, "%s/slow", dir);
    const struct orr_store_config config = {
        .path = path, .bytes_per_s = 8 * MIB, .threads = 2};
    OK(orr_store_open(&config, &slow, &err));
    fill_random(data, 4 * MIB, 13);
    write_file("a", data, 4 * MIB);
    const struct orr_store_file a = {
        .name = "a", .path = file_path("a"), .kind = ORR_STORE_MEMORY};
    struct orr_store_put_stats s;
    const double began_s = orri_now_s();
    OK(orr_store_put(slow, &a, 1, NULL, &s, &err));
    assert_true(orri_now_s() - began_s >
                0.2); /* 4 MiB less a quarter second's 2, at 8 a second */
    orr_store_close(slow);
    free(data);
}

/* ---- transfers ---- */

static struct orr_store *open_peer(void)
{
    struct orr_store *peer;
    char path[80];
    snprintf(path, sizeof path, "%s/peer", dir);
    const struct orr_store_config config = {.path = path, .threads = 2};
    OK(orr_store_open(&config, &peer, &err));
    return peer;
}

static size_t
read_object(enum orr_store_object kind, const struct orr_store_hash *hash, uint8_t *buf)
{
    size_t len;
    uint64_t size;
    OK(orr_store_object_read(
        store, kind, hash, 0, buf, ORR_STORE_OBJECT_MAX, &len, &size, &err));
    assert_int_equal(len, size);
    return len;
}

static void a_broken_transfer_goes_on_where_it_was(void **state)
{
    (void)state;
    uint8_t *data = malloc(4 * MIB), *buf = malloc(ORR_STORE_OBJECT_MAX);
    struct orr_store *peer = open_peer(), *from = store;
    struct orr_store_fetch *fetch;
    const struct orr_store_hash *missing;
    size_t n, len;
    fill_random(data, 4 * MIB, 14);
    write_file("a", data, 4 * MIB);
    const struct orr_store_put_stats s = put_one("a", ORR_STORE_MEMORY);
    OK(orr_store_fetch_begin(peer, &s.part, &fetch, &err));
    assert_int_equal(orr_store_fetch_missing(fetch, &missing, &n, &err), ORR_ENOENT);
    len = read_object(ORR_STORE_PART, &s.part, buf);
    buf[len - 1] ^= 1;
    assert_int_equal(orr_store_fetch_part(fetch, buf, len, &err), ORR_EPROTO);
    buf[len - 1] ^= 1;
    OK(orr_store_fetch_part(fetch, buf, len, &err));
    OK(orr_store_fetch_missing(fetch, &missing, &n, &err));
    assert_int_equal(n, 4);
    len = read_object(ORR_STORE_CHUNK, &missing[0], buf);
    assert_int_equal(orr_store_fetch_chunk(fetch, &missing[1], buf, len, &err),
                     ORR_EPROTO);
    OK(orr_store_fetch_chunk(fetch, &missing[0], buf, len, &err));
    OK(orr_store_fetch_end(fetch, false, &err));
    OK(orr_store_fetch_begin(peer, &s.part, &fetch, &err));
    len = read_object(ORR_STORE_PART, &s.part, buf);
    OK(orr_store_fetch_part(fetch, buf, len, &err));
    OK(orr_store_fetch_missing(fetch, &missing, &n, &err));
    assert_int_equal(n, 3);
    for (size_t i = 0; i < n; i++) {
        len = read_object(ORR_STORE_CHUNK, &missing[i], buf);
        OK(orr_store_fetch_chunk(fetch, &missing[i], buf, len, &err));
    }
    OK(orr_store_fetch_end(fetch, true, &err));
    store = peer;
    assert_gets(&s.part, "a", data, 4 * MIB);
    store = from;
    orr_store_close(peer);
    free(data);
    free(buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(memory_comes_back_with_its_holes),
        T(an_empty_and_a_zero_file_cost_nothing),
        T(equal_content_is_kept_once_and_has_one_name),
        T(an_image_that_shifts_is_found_again),
        T(what_compresses_is_compressed),
        T(a_memfd_is_read_and_written_in_place_and_ranges_bound_it),
        T(what_cannot_be_put_is_refused_with_its_name),
        T(a_flipped_bit_is_named_set_aside_and_mended_by_the_next_put),
        T(a_torn_chunk_is_noticed_by_a_put_that_meets_it),
        T(a_damaged_pack_is_mended_by_the_next_put),
        T(a_damaged_part_is_named),
        T(the_quota_refuses_and_leaves_what_was_there),
        T(gc_keeps_roots_and_what_is_young),
        T(a_cancelled_call_leaves_nothing),
        T(bandwidth_is_capped),
        T(a_broken_transfer_goes_on_where_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
