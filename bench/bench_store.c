/* SPDX-License-Identifier: Apache-2.0
 * bench_store.c - the checkpoint store against the least of what it is made of, measured in the same run:
 * memcpy, the hash in all threads, and write + fsync of files of a chunk's size to the same directory.
 * Usage: bench_store DIR [MiB]; DIR decides which disk.
 */
#include "bench.h"
#include "store_impl.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MIB = 1 << 20, ROUNDS = 3, STATES = 8, STATE_MIB = 64 };

static size_t bytes = (size_t)256 * MIB;
static char dir[512];
static uint8_t *source; /* of a memfd: memory, as device state is */
static int memfd;
static struct orr_error err;

#define OK(call)                                                                       \
    do {                                                                               \
        if ((call) != ORR_OK)                                                          \
            die(#call, err.text);                                                      \
    } while (0)

static int
remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void remove_tree(const char *path)
{
    (void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    sync();
}

/* What does not compress, as trained weights do not. */
static void fill(uint8_t *at, size_t len, uint64_t seed)
{
    uint64_t x = seed * 2654435761u + 1;
    for (size_t i = 0; i + 8 <= len; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(at + i, &x, 8);
    }
}

static struct orr_store *open_store(const char *name)
{
    char path[600];
    struct orr_store *s;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    const struct orr_store_config config = {.path = path};
    OK(orr_store_open(&config, &s, &err));
    return s;
}

/* ---- limits ---- */

static double memcpy_rate(void)
{
    double rate[ROUNDS];
    uint8_t *to = malloc(bytes);
    if (!to)
        die("memcpy", "out of memory");
    memset(to, 1, bytes);
    for (int i = 0; i < ROUNDS; i++) {
        const double began = now_s();
        memcpy(to, source, bytes);
        __asm__ volatile("" ::"r"(to) : "memory");
        rate[i] = (double)bytes / (now_s() - began);
    }
    free(to);
    return median(rate, ROUNDS);
}

static atomic_size_t next_piece;

static enum orr_err hash_pieces(struct orri_team *team, struct orr_error *ignored)
{
    struct orr_store_hash hash;
    (void)team, (void)ignored;
    for (size_t at; (at = atomic_fetch_add(&next_piece, MIB)) < bytes;)
        orri_hash(&hash, source + at, MIB);
    return ORR_OK;
}

static double hash_rate(struct orr_store *s)
{
    double rate[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        struct orri_team team = {.store = s, .work = hash_pieces};
        next_piece = 0;
        const double began = now_s();
        OK(orri_team_run(&team, &err));
        rate[i] = (double)bytes / (now_s() - began);
    }
    return median(rate, ROUNDS);
}

/* One thread a core writes files of 64 MiB and syncs each once: the best that this disk and its filesystem do. */
static enum orr_err write_pieces(struct orri_team *team, struct orr_error *ignored)
{
    const size_t step = (size_t)64 * MIB;
    (void)team, (void)ignored;
    for (size_t at; (at = atomic_fetch_add(&next_piece, step)) < bytes;) {
        char path[600];
        snprintf(path, sizeof path, "%s/raw.%zu", dir, at);
        const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        for (size_t done = 0; fd >= 0 && done < step && at + done < bytes; done += MIB)
            if (write(fd, source + at + done, MIB) != MIB)
                die(path, strerror(errno));
        if (fd < 0 || fsync(fd) != 0)
            die(path, strerror(errno));
        close(fd);
        unlink(path);
    }
    return ORR_OK;
}

static double disk_rate_once(struct orr_store *s)
{
    struct orri_team team = {.store = s, .work = write_pieces};
    next_piece = 0;
    const double began = now_s();
    OK(orri_team_run(&team, &err));
    return (double)bytes / (now_s() - began);
}

/* ---- put and get ---- */

static struct orr_store_put_stats
put(struct orr_store *s, const char *path, enum orr_store_kind kind, double *ret_s)
{
    struct orr_store_put_stats stats;
    const struct orr_store_file file = {.name = "state", .path = path, .kind = kind};
    const double began = now_s();
    OK(orr_store_put(s, &file, 1, NULL, &stats, &err));
    if (ret_s)
        *ret_s = now_s() - began;
    return stats;
}

static double least(double a, double b)
{
    return a < b ? a : b;
}

/* Disks are moody: what the disk can do is measured beside each put. */
static void bench_bandwidth(const char *memfd_path, enum orr_store_kind kind)
{
    const char *what = kind == ORR_STORE_IMAGE ? "store_put_image" : "store_put";
    double put_rate[ROUNDS], get_rate[ROUNDS], disk[ROUNDS];
    struct orr_store *s = open_store("limits");
    const double copy = memcpy_rate(), hash = hash_rate(s);
    orr_store_close(s);
    for (int i = 0; i < ROUNDS; i++) {
        double took;
        char name[32], path[600];
        snprintf(name, sizeof name, "put.%d", i);
        snprintf(path, sizeof path, "%s/%s", dir, name);
        s = open_store(name);
        sync();
        disk[i] = disk_rate_once(s);
        const struct orr_store_put_stats stats = put(s, memfd_path, kind, &took);
        put_rate[i] = (double)bytes / took;
        const int to = memfd_create("to", MFD_CLOEXEC);
        char to_path[64];
        snprintf(to_path, sizeof to_path, "/proc/self/fd/%d", to);
        const struct orr_store_target target = {"state", to_path};
        const double began = now_s();
        OK(orr_store_get(s, &stats.part, NULL, &target, 1, NULL, NULL, &err));
        get_rate[i] = (double)bytes / (now_s() - began);
        close(to);
        orr_store_close(s);
        remove_tree(path);
    }
    const double wrote = median(disk, ROUNDS);
    print(what,
          median(put_rate, ROUNDS) / 1e6,
          "MB/s",
          "least of memcpy, hash, disk",
          least(least(copy, hash), wrote) / 1e6);
    if (kind == ORR_STORE_IMAGE)
        return;
    print("store_put_memcpy", copy / 1e6, "MB/s", "disk", wrote / 1e6);
    print("store_put_hash", hash / 1e6, "MB/s", "disk", wrote / 1e6);
    print("store_get",
          median(get_rate, ROUNDS) / 1e6,
          "MB/s",
          "least of memcpy, hash",
          least(copy, hash) / 1e6);
}

/* ---- dedup ---- */

static uint64_t used(struct orr_store *s)
{
    struct orr_store_usage usage;
    OK(orr_store_stat(s, &usage, &err));
    return usage.bytes;
}

static void bench_dedup(void)
{
    struct orr_store *s = open_store("dedup");
    uint64_t one = 0;
    char path[600];
    snprintf(path, sizeof path, "%s/state", dir);
    for (int i = 0; i < STATES; i++) {
        const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        for (size_t at = 0; fd >= 0 && at < (size_t)STATE_MIB * MIB; at += MIB)
            if (write(fd, source + at, MIB) != MIB)
                die(path, strerror(errno));
        close(fd);
        (void)put(s, path, ORR_STORE_MEMORY, NULL);
        one = i == 0 ? used(s) : one;
    }
    print("store_8_equal_states",
          (double)used(s) / MIB,
          "MiB",
          "one state",
          (double)one / MIB);
    orr_store_close(s);
    snprintf(path, sizeof path, "%s/dedup", dir);
    remove_tree(path);
}

/* An image in which one page in 1,000 has changed, and 3 pages were put in near the front: what a process that
 * idles does to its image. */
static void bench_increment(void)
{
    enum { IMAGE_MIB = 128, PAGE = 4096, SHIFT = 3 };
    const size_t len = (size_t)IMAGE_MIB * MIB;
    struct orr_store *s = open_store("increment");
    char path[600];
    uint8_t *image = malloc(len + SHIFT * PAGE);
    if (!image)
        die("increment", "out of memory");
    memcpy(image, source, len);
    snprintf(path, sizeof path, "%s/image", dir);
    for (int i = 0; i < 2; i++) {
        const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (fd < 0 || write(fd, image, len + (i ? SHIFT * PAGE : 0)) < 0)
            die(path, strerror(errno));
        close(fd);
        const struct orr_store_put_stats stats = put(s, path, ORR_STORE_IMAGE, NULL);
        if (i)
            print("store_image_increment",
                  (double)stats.new_bytes / MIB,
                  "MiB",
                  "image",
                  (double)IMAGE_MIB);
        memmove(image + (16 + SHIFT) * PAGE, image + 16 * PAGE, len - 16 * PAGE);
        fill(image + 16 * PAGE, SHIFT * PAGE, 77);
        for (size_t page = 500; page < len / PAGE; page += 1000)
            fill(image + page * PAGE, 512, page);
    }
    free(image);
    orr_store_close(s);
}

int main(int argc, char **argv)
{
    char memfd_path[64];
    if (argc < 2 || argc > 3)
        die("usage", "bench_store DIR [MiB]");
    if (argc == 3)
        bytes = (size_t)strtoul(argv[2], NULL, 10) * MIB;
    if (bytes < (size_t)128 * MIB)
        die("MiB", "at least 128");
    snprintf(dir, sizeof dir, "%s/orr-bench-store-XXXXXX", argv[1]);
    memfd = memfd_create("source", MFD_CLOEXEC);
    if (!mkdtemp(dir) || memfd < 0 || ftruncate(memfd, (off_t)bytes) != 0)
        die(dir, strerror(errno));
    source = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    if (source == MAP_FAILED)
        die("mmap", strerror(errno));
    fill(source, bytes, 1);
    snprintf(memfd_path, sizeof memfd_path, "/proc/self/fd/%d", memfd);
    bench_bandwidth(memfd_path, ORR_STORE_MEMORY);
    bench_bandwidth(memfd_path, ORR_STORE_IMAGE);
    bench_dedup();
    bench_increment();
    remove_tree(dir);
    return 0;
}
