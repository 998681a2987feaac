/* SPDX-License-Identifier: Apache-2.0
 * test_process_files.c - names, meta and status files of ranks: what is written is read again, and whatever was cut or changed
 * is torn, never something else.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "orr_test.h"

#include "rank_files.h"

/* ---- names ---------------------------------------------------------------------------------- */

static void key_is_read_again_also_with_dots_in_the_job(void **state)
{
    (void)state;
    static const char *const jobs[] = {"r1-7kq3", "a.b-c_d", "a.1", "x"};
    for (size_t i = 0; i < ORR_ARRAY_SIZE(jobs); i++) {
        struct orr_process_id id = {orr_str(jobs[i]), UINT64_MAX, UINT32_MAX}, again;
        char key[ORRI_KEY_MAX];
        assert_int_equal(orri_key_make(&id, key, NULL), ORR_OK);
        assert_true(orri_key_parse(key, &again));
        assert_true(orr_str_eq(again.job, id.job));
        assert_true(again.generation == id.generation && again.rank == id.rank);
    }
}

static void key_that_we_never_made_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        ".",
        "..",
        "a",
        "a.1",
        "a.1.",
        "a..1",
        "a.1.x",
        "a.-1.0",
        "a. 1.0",
        "a.01.0",
        ".1.0",
        "a/b.1.0",
        "a.1.4294967296",
        "..a.1.0",
        "a..b.1.0",
        "a.18446744073709551616.0",
    };
    for (size_t i = 0; i < ORR_ARRAY_SIZE(bad); i++) {
        struct orr_process_id id;
        if (orri_key_parse(bad[i], &id))
            fail_msg("\"%s\" was taken", bad[i]);
    }
}

/* ---- files ---------------------------------------------------------------------------------- */

static char dir_path[64];
static int dir;

static int setup(void **state)
{
    (void)state;
    strcpy(dir_path, "/tmp/orr-files-XXXXXX");
    assert_non_null(mkdtemp(dir_path));
    dir = open(dir_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return dir < 0;
}

static int teardown(void **state)
{
    (void)state;
    close(dir);
    assert_int_equal(orri_dir_remove(AT_FDCWD, dir_path), 0);
    assert_int_equal(access(dir_path, F_OK), -1);
    return 0;
}

/* A file that stayed made the next visit of a restored rank lose its logs. */
static void directory_is_removed_with_whatever_is_in_it(void **state)
{
    (void)state;
    static const char *const files[] = {"stdout", "devices", "stats-dump", ".hidden"};
    assert_int_equal(mkdirat(dir, "rank", 0755), 0);
    int rank = openat(dir, "rank", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < ORR_ARRAY_SIZE(files); i++) {
        int fd = openat(rank, files[i], O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        assert_true(fd >= 0);
        close(fd);
    }
    close(rank);
    assert_int_equal(orri_dir_remove(dir, "rank"), 0);
    assert_int_equal(faccessat(dir, "rank", F_OK, 0), -1);
    assert_int_equal(orri_dir_remove(dir, "rank"), 0); /* it is gone already */
}

static const struct orri_status example = {
    .state = ORR_RANK_EXITED,
    .exit_code = 255,
    .signal = 0,
    .ended_unix_ms = 1700000000000,
    .reason = "cannot execute a = b\nc",
};

static void status_is_read_again_on_one_line(void **state)
{
    (void)state;
    struct orri_status again;
    assert_int_equal(orri_status_read(dir, &again), ORRI_READ_ABSENT);
    assert_int_equal(orri_status_write(dir, &example), 0);
    assert_int_equal(orri_status_read(dir, &again), ORRI_READ_OK);
    assert_int_equal(again.exit_code, 255);
    assert_int_equal(again.ended_unix_ms, example.ended_unix_ms);
    assert_string_equal(again.reason, "cannot execute a = b c");
}

static void meta_is_read_again(void **state)
{
    (void)state;
    struct orri_meta meta = {.keeper = 1,
                             .rank = INT32_MAX,
                             .rank_start = UINT64_MAX,
                             .device = ORR_NO_DEVICE,
                             .started_unix_ms = 5};
    struct orri_meta again;
    orri_boot_id(meta.boot);
    assert_true(meta.boot[0]);
    assert_int_equal(orri_meta_read(dir, &again), ORRI_READ_ABSENT);
    assert_int_equal(orri_meta_write(dir, &meta), 0);
    assert_int_equal(orri_meta_read(dir, &again), ORRI_READ_OK);
    assert_true(again.rank == INT32_MAX && again.rank_start == UINT64_MAX &&
                again.device == ORR_NO_DEVICE);
    assert_string_equal(again.boot, meta.boot);
}

static size_t slurp(char *buf, size_t cap)
{
    int fd = openat(dir, "status", O_RDONLY | O_CLOEXEC);
    ssize_t n = read(fd, buf, cap);
    close(fd);
    return (size_t)n;
}

static enum orri_read read_as(const char *text, size_t len)
{
    struct orri_status status;
    int fd = openat(dir, "status", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, text, len), len);
    close(fd);
    return orri_status_read(dir, &status);
}

static void status_cut_anywhere_is_torn(void **state)
{
    (void)state;
    char text[1024];
    assert_int_equal(orri_status_write(dir, &example), 0);
    size_t len = slurp(text, sizeof text - 2);
    for (size_t i = 0; i < len; i++)
        assert_int_equal(read_as(text, i), ORRI_READ_TORN);
    assert_int_equal(read_as(text, len), ORRI_READ_OK);
    text[len] = '\n';
    assert_int_equal(read_as(text, len + 1), ORRI_READ_TORN);
}

static void status_out_of_range_is_torn(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "state=1\nexit_code=0\nsignal=0\nended_unix_ms=1\nreason=\n", /* running is no end */
        "state=9\nexit_code=0\nsignal=0\nended_unix_ms=1\nreason=\n",
        "state=2\nexit_code=256\nsignal=0\nended_unix_ms=1\nreason=\n",
        "state=2\nexit_code=-1\nsignal=0\nended_unix_ms=1\nreason=\n",
        "state=2\nexit_code=0\nsignal=65\nended_unix_ms=1\nreason=\n",
        "state=2\nexit_code=0\nsignal=0\nended_unix_ms=99999999999999999999\nreason=\n",
        "state=2\nsignal=0\nexit_code=0\nended_unix_ms=1\nreason=\n",
        "state=2\nexit_code=\nsignal=0\nended_unix_ms=1\nreason=\n",
    };
    for (size_t i = 0; i < ORR_ARRAY_SIZE(bad); i++)
        assert_int_equal(read_as(bad[i], strlen(bad[i])), ORRI_READ_TORN);
}

enum { FULL_DISK_UNTRIED = 77 };

/* On a disk of our own, filled after the reservation; the exit status. */
static int write_status_on_full_disk(void)
{
    static const char junk[4096];
    struct orri_status again;
    if (unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", dir_path, "tmpfs", 0, "size=64k") != 0)
        return FULL_DISK_UNTRIED;
    int full = open(dir_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (full < 0 || orri_status_reserve(full) != 0)
        return 1;
    int fd = openat(full, "stdout", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    while (write(fd, junk, sizeof junk) > 0)
        ;
    if (orri_meta_write(full, &(struct orri_meta){.keeper = 1}) != ENOSPC)
        return 2;
    return orri_status_write(full, &example) != 0 ||
           orri_status_read(full, &again) != ORRI_READ_OK;
}

static void status_with_room_reserved_is_written_on_a_full_disk(void **state)
{
    int status;
    (void)state;
    pid_t pid = fork();
    if (pid == 0)
        _exit(write_status_on_full_disk());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == FULL_DISK_UNTRIED)
        skip(); /* only root may mount one */
    assert_int_equal(status, 0);
}

static void proc_start_tells_processes_apart(void **state)
{
    (void)state;
    assert_true(orri_proc_start(getpid()) > 0);
    assert_int_equal(orri_proc_start(getpid()), orri_proc_start(getpid()));
    assert_int_equal(orri_proc_start(INT32_MAX), 0);
}

#define FILES_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(key_is_read_again_also_with_dots_in_the_job),
        cmocka_unit_test(key_that_we_never_made_is_refused),
        FILES_TEST(directory_is_removed_with_whatever_is_in_it),
        FILES_TEST(status_is_read_again_on_one_line),
        FILES_TEST(meta_is_read_again),
        FILES_TEST(status_cut_anywhere_is_torn),
        FILES_TEST(status_out_of_range_is_torn),
        FILES_TEST(status_with_room_reserved_is_written_on_a_full_disk),
        cmocka_unit_test(proc_start_tells_processes_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
