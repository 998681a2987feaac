/* SPDX-License-Identifier: Apache-2.0
 * store_bed.c - store_bed.h.
 */
#include "store_bed.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static int
remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

void bed_init(struct bed *bed)
{
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(bed->dir, sizeof bed->dir, "%s/orr-store-XXXXXX", base);
    assert_non_null(mkdtemp(bed->dir));
    snprintf(bed->store, sizeof bed->store, "%s/store", bed->dir);
}

void bed_fini(struct bed *bed)
{
    orri_store_fault = NULL;
    assert_int_equal(nftw(bed->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

struct orr_store *bed_open(const struct bed *bed, unsigned threads)
{
    struct orr_store *s;
    struct orr_error err;
    const struct orr_store_config config = {.path = bed->store, .threads = threads};
    if (orr_store_open(&config, &s, &err) != ORR_OK)
        fail_msg("%s", err.text);
    return s;
}

const char *bed_path(const struct bed *bed, const char *name)
{
    static char path[4][160];
    static unsigned turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", bed->dir, name);
    return p;
}

static uint8_t *content(size_t len, uint64_t seed)
{
    uint8_t *data = calloc(1, len + 8);
    uint64_t x = seed * 2654435761u + 1;
    assert_non_null(data);
    for (size_t i = 0; i < len; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(data + i, &x, 8);
    }
    return data;
}

void bed_write(const struct bed *bed, const char *name, size_t len, uint64_t seed)
{
    uint8_t *data = content(len, seed);
    const int fd = open(bed_path(bed, name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0 && write(fd, data, len) == (ssize_t)len);
    close(fd);
    free(data);
}

bool bed_has(const struct bed *bed, const char *name, size_t len, uint64_t seed)
{
    uint8_t *want = content(len, seed), *got = malloc(len + 1);
    const int fd = open(bed_path(bed, name), O_RDONLY);
    const bool is_same = fd >= 0 && read(fd, got, len + 1) == (ssize_t)len &&
                         memcmp(got, want, len) == 0;
    if (fd >= 0)
        close(fd);
    free(want);
    free(got);
    return is_same;
}

enum orr_err bed_put(struct orr_store *s,
                     const struct bed *bed,
                     const char *name,
                     enum orr_store_kind kind,
                     struct orr_store_hash *ret_part)
{
    struct orr_store_put_stats stats;
    struct orr_error err;
    const struct orr_store_file file = {
        .name = name, .path = bed_path(bed, name), .kind = kind};
    const enum orr_err code = orr_store_put(s, &file, 1, NULL, &stats, &err);
    if (code == ORR_OK)
        *ret_part = stats.part;
    return code;
}

/* ---- the directory ---- */

static unsigned n_files;

static int age_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    struct timespec t[2] = {st->st_atim, st->st_mtim};
    (void)ftw;
    t[1].tv_sec -= 24 * 3600;
    if ((flag == FTW_F || flag == FTW_SL) &&
        utimensat(AT_FDCWD, path, t, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? 0 : -1;
    n_files += flag == FTW_F || flag == FTW_SL;
    return 0;
}

static int count_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)path, (void)st, (void)ftw;
    n_files += flag == FTW_F || flag == FTW_SL;
    return 0;
}

void bed_age(const struct bed *bed)
{
    char path[128];
    snprintf(path, sizeof path, "%s/chunks", bed->store);
    assert_int_equal(nftw(path, age_one, 16, FTW_PHYS), 0);
    snprintf(path, sizeof path, "%s/packs", bed->store);
    assert_int_equal(nftw(path, age_one, 16, FTW_PHYS), 0);
    snprintf(path, sizeof path, "%s/parts", bed->store);
    assert_int_equal(nftw(path, age_one, 16, FTW_PHYS), 0);
}

unsigned bed_count(const struct bed *bed, const char *name)
{
    char path[128];
    n_files = 0;
    snprintf(path, sizeof path, "%s/%s", bed->store, name);
    assert_int_equal(nftw(path, count_one, 16, FTW_PHYS), 0);
    return n_files;
}

/* ---- faults ---- */

static atomic_uint n_calls;
static unsigned fatal_call, failing_call;
static int fail_why;

static int count_call(const char *call, const char *name)
{
    (void)call, (void)name;
    const unsigned n = atomic_fetch_add(&n_calls, 1) + 1;
    if (n == fatal_call)
        raise(SIGKILL);
    return n == failing_call ? fail_why : 0;
}

bool bed_kill_at(unsigned nth, int (*work)(void *arg), void *arg, int *ret_status)
{
    int status;
    fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        atomic_store(&n_calls, 0);
        fatal_call = nth;
        orri_store_fault = count_call;
        _exit(work(arg));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return true;
    assert_true(WIFEXITED(status));
    *ret_status = WEXITSTATUS(status);
    return false;
}

void bed_fail_at(unsigned nth, int why)
{
    atomic_store(&n_calls, 0);
    failing_call = nth;
    fail_why = why;
    orri_store_fault = nth ? count_call : NULL;
}

bool bed_has_failed(void)
{
    return atomic_load(&n_calls) >= failing_call;
}
