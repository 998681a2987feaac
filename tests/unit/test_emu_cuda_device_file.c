/* SPDX-License-Identifier: Apache-2.0
 * test_emu_cuda_device_file.c - capacity and sharing between processes, and what a killed
 * user leaves behind: nothing.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device_file.h"
#include "orr_test.h"

enum { PAGES = 16 };
static const uint8_t uuid[16] = {
    0xab, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static char dir[64], path[96];

static int set_up(void **state)
{
    struct emu_error error;
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/orr-devfile-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/gpu", dir);
    return emu_device_file_create(
        path, uuid, "Emulated", PAGES * EMU_PAGE_BYTES, &error);
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

static struct emu_device_file *opened(void)
{
    struct emu_device_file *file = NULL;
    struct emu_error error = {{0}};
    if (emu_device_file_open(path, &file, &error) != 0)
        print_error("%s\n", error.text);
    assert_non_null(file);
    return file;
}

static uint64_t free_pages(void)
{
    struct emu_device_info info;
    assert_int_equal(emu_device_file_info(path, &info, NULL), 0);
    return info.free_bytes / EMU_PAGE_BYTES;
}

/* A child that holds n pages, says so with a byte, and waits to be killed. */
static pid_t holder(size_t n)
{
    int pipes[2];
    char byte = 0;
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct emu_device_file *file;
        uint32_t pages[PAGES];
        bool ok = emu_device_file_open(path, &file, NULL) == 0 &&
                  emu_device_file_take(file, n, pages, NULL) == 0;
        byte = ok ? 'y' : 'n';
        if (write(pipes[1], &byte, 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(pipes[1]);
    assert_int_equal(read(pipes[0], &byte, 1), 1);
    close(pipes[0]);
    assert_int_equal(byte, 'y');
    return pid;
}

static void kill_and_reap(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void create_existing_fails(void **state)
{
    struct emu_error error = {{0}};
    (void)state;
    assert_int_equal(emu_device_file_create(path, uuid, "x", EMU_PAGE_BYTES, &error),
                     -EEXIST);
    assert_non_null(strstr(error.text, path));
    assert_int_equal(emu_device_file_create("/nowhere/gpu", uuid, "x", 0, &error),
                     -EINVAL);
    assert_int_equal(emu_device_file_remove("/nowhere/gpu", &error), -ENOENT);
}

static void info_tells_identity(void **state)
{
    struct emu_device_info info;
    struct emu_device_file *file = opened();
    (void)state;
    emu_device_file_add_busy(file, 42);
    assert_int_equal(emu_device_file_info(path, &info, NULL), 0);
    assert_string_equal(info.name, "Emulated");
    assert_memory_equal(info.uuid, uuid, 16);
    assert_int_equal(info.memory_bytes, PAGES * EMU_PAGE_BYTES);
    assert_int_equal(info.busy_ns, 42);
    assert_int_equal(info.n_processes, 1);
    assert_int_equal(info.pids[0], getpid());
    emu_device_file_close(file);
}

static void open_wrong_file_is_refused(void **state)
{
    char other[128];
    struct emu_device_file *file;
    struct emu_error error = {{0}};
    (void)state;
    snprintf(other, sizeof other, "%s/other", dir);
    FILE *f = fopen(other, "w");
    assert_non_null(f);
    for (int i = 0; i < 5000; i++)
        fputc(i & 255, f);
    fclose(f);
    assert_int_equal(emu_device_file_open(other, &file, &error), -EINVAL);
    assert_non_null(strstr(error.text, "not a device file"));
    assert_int_equal(truncate(other, 3), 0);
    assert_int_equal(emu_device_file_open(other, &file, &error), -EINVAL);
    assert_int_equal(truncate(path, 100000), 0); /* a device cut short */
    assert_int_equal(emu_device_file_open(path, &file, &error), -EINVAL);
    unlink(other);
}

static void take_beyond_capacity_takes_nothing(void **state)
{
    struct emu_device_file *file = opened();
    uint32_t pages[PAGES + 1];
    (void)state;
    assert_int_equal(emu_device_file_take(file, PAGES + 1, pages, NULL), -ENOMEM);
    assert_int_equal(emu_device_file_take(file, 10, pages, NULL), 0);
    assert_int_equal(emu_device_file_take(file, PAGES - 9, pages + 10, NULL), -ENOMEM);
    assert_int_equal(free_pages(), PAGES - 10);
    assert_int_equal(emu_device_file_take(file, PAGES - 10, pages + 10, NULL), 0);
    emu_device_file_drop(file, PAGES, pages);
    assert_int_equal(free_pages(), PAGES);
    emu_device_file_close(file);
}

static void capacity_is_shared_between_processes(void **state)
{
    struct emu_device_file *file = opened();
    uint32_t pages[PAGES];
    (void)state;
    pid_t pid = holder(12);
    assert_int_equal(emu_device_file_take(file, 5, pages, NULL), -ENOMEM);
    struct emu_device_info info;
    emu_device_file_get_info(file, &info);
    assert_int_equal(info.n_processes, 2);
    for (unsigned i = 0; i < 2; i++) /* we only look */
        assert_int_equal(info.holds[i], info.pids[i] == pid);
    assert_int_equal(emu_device_file_take(file, 4, pages, NULL), 0);
    kill_and_reap(pid);
    emu_device_file_get_info(file, &info);
    assert_true(info.n_processes == 1 && info.holds[0]);
    emu_device_file_close(file);
}

static void killed_user_loses_its_pages(void **state)
{
    struct emu_device_file *file = opened();
    struct emu_device_info info;
    uint32_t pages[PAGES];
    (void)state;
    kill_and_reap(holder(PAGES));
    assert_int_equal(emu_device_file_take(file, PAGES, pages, NULL), 0);
    emu_device_file_get_info(file, &info);
    assert_int_equal(info.n_processes, 1);
    emu_device_file_close(file);
    kill_and_reap(holder(PAGES));
    assert_int_equal(free_pages(), PAGES); /* a look is enough to notice */
}

static void freed_pages_come_back_zeroed(void **state)
{
    struct emu_device_file *file = opened();
    uint32_t pages[PAGES];
    (void)state;
    char *at = mmap(
        NULL, PAGES * EMU_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(at, MAP_FAILED);
    assert_int_equal(emu_device_file_take(file, PAGES, pages, NULL), 0);
    assert_int_equal(emu_device_file_map(file, at, PAGES, pages), 0);
    memset(at, 0x5a, PAGES * EMU_PAGE_BYTES);
    emu_device_file_drop(file, PAGES, pages);
    assert_int_equal(emu_device_file_take(file, PAGES, pages, NULL), 0);
    assert_int_equal(emu_device_file_map(file, at, PAGES, pages), 0);
    for (size_t i = 0; i < PAGES * EMU_PAGE_BYTES; i++)
        if (at[i] != 0)
            fail_msg("byte %zu is %d", i, at[i]);
    munmap(at, PAGES * EMU_PAGE_BYTES);
    emu_device_file_close(file);
}

static void scattered_pages_map_in_order(void **state)
{
    struct emu_device_file *file = opened();
    uint32_t pages[PAGES], odd[PAGES / 2];
    (void)state;
    char *at = mmap(
        NULL, PAGES * EMU_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_int_equal(emu_device_file_take(file, PAGES, pages, NULL), 0);
    for (int i = 0; i < PAGES / 2; i++)
        odd[i] = pages[PAGES - 1 - 2 * i];
    assert_int_equal(emu_device_file_map(file, at, PAGES / 2, odd), 0);
    for (int i = 0; i < PAGES / 2; i++)
        at[i * EMU_PAGE_BYTES] = (char)(i + 1);
    assert_int_equal(emu_device_file_map(file, at, PAGES, pages), 0);
    for (int i = 0; i < PAGES / 2; i++)
        assert_int_equal(at[(PAGES - 1 - 2 * i) * EMU_PAGE_BYTES], i + 1);
    munmap(at, PAGES * EMU_PAGE_BYTES);
    emu_device_file_close(file);
}

static void shared_page_lives_until_the_last_holder(void **state)
{
    struct emu_device_file *a = opened(), *b = opened();
    uint32_t pages[2], serials[2], stale[2];
    (void)state;
    assert_int_equal(emu_device_file_take(a, 2, pages, serials), 0);
    assert_int_equal(emu_device_file_share(b, 2, pages, serials), 0);
    assert_int_equal(emu_device_file_share(b, 2, pages, serials), 0); /* twice */
    emu_device_file_drop(a, 2, pages);
    emu_device_file_drop(b, 2, pages);
    assert_int_equal(free_pages(), PAGES - 2);
    emu_device_file_drop(b, 2, pages);
    assert_int_equal(free_pages(), PAGES);
    assert_int_equal(emu_device_file_share(b, 2, pages, serials), -ESTALE);
    memcpy(stale, serials, sizeof stale);
    for (int i = 0; i < PAGES; i += 2) /* until the same pages are in use again */
        assert_int_equal(emu_device_file_take(a, 2, pages, serials), 0);
    assert_int_equal(emu_device_file_share(b, 2, pages, stale), -ESTALE);
    emu_device_file_close(a);
    emu_device_file_close(b);
}

static void users_are_limited(void **state)
{
    struct emu_device_file *files[EMU_DEVICE_USERS_MAX], *more;
    struct emu_error error;
    (void)state;
    for (int i = 0; i < EMU_DEVICE_USERS_MAX; i++)
        files[i] = opened();
    assert_int_equal(emu_device_file_open(path, &more, &error), -EBUSY);
    emu_device_file_close(files[7]);
    assert_int_equal(emu_device_file_open(path, &files[7], &error), 0);
    for (int i = 0; i < EMU_DEVICE_USERS_MAX; i++)
        emu_device_file_close(files[i]);
}

/* ---- each user in a PID namespace of its own: all of them are process 1, thread 1 ---- */

/* Take a page, write, look whether it stays ours, let go: for ever, or until somebody else writes to it. */
static int use_pages(unsigned char id)
{
    struct emu_device_file *file = NULL;
    uint32_t page;
    unsigned char *at =
        mmap(NULL, EMU_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    while (emu_device_file_open(path, &file, NULL) != 0)
        ;
    for (;;) {
        if (emu_device_file_take(file, 1, &page, NULL) != 0)
            continue;
        if (emu_device_file_map(file, at, 1, &page) != 0 || at[7] != 0)
            return 1; /* not zeroed: it is somebody's */
        at[7] = id;
        sched_yield();
        if (at[7] != id)
            return 1;
        emu_device_file_drop(file, 1, &page);
    }
}

/* The process between us and the user: when it is killed, so is the user. */
static pid_t namespaced(unsigned char id, int alarm_fd)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    int life[2]; /* ends with this process */
    if (unshare(CLONE_NEWPID) != 0 || pipe(life) != 0)
        _exit(0);
    pid = fork();
    if (pid == 0) {
        struct pollfd parent = {.fd = life[0], .events = POLLIN};
        close(life[1]);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(poll(&parent, 1, 0) == 0 ? use_pages(id) : 0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
        (void)!write(alarm_fd, "x", 1);
    _exit(0);
}

static void users_in_pid_namespaces_keep_apart(void **state)
{
    enum { USERS = 6, KILLS = 800, LIFE_MS = 1 };
    pid_t pids[USERS];
    int alarm_fds[2];
    (void)state;
    if (geteuid() != 0) {
        print_message("skipped: PID namespaces need root\n");
        return;
    }
    assert_int_equal(pipe(alarm_fds), 0);
    for (int i = 0; i < USERS; i++)
        pids[i] = namespaced((unsigned char)(i + 1), alarm_fds[1]);
    struct pollfd alarm = {.fd = alarm_fds[0], .events = POLLIN};
    int is_raised = 0;
    for (int n = 0; n < KILLS && !is_raised; n++) {
        is_raised = poll(&alarm, 1, LIFE_MS);
        kill_and_reap(pids[n % USERS]);
        pids[n % USERS] = namespaced((unsigned char)(n % 250 + 1), alarm_fds[1]);
    }
    for (int i = 0; i < USERS; i++)
        kill_and_reap(pids[i]);
    close(alarm_fds[0]);
    close(alarm_fds[1]);
    assert_int_equal(is_raised, 0);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(create_existing_fails),
        CASE(info_tells_identity),
        CASE(open_wrong_file_is_refused),
        CASE(take_beyond_capacity_takes_nothing),
        CASE(capacity_is_shared_between_processes),
        CASE(killed_user_loses_its_pages),
        CASE(freed_pages_come_back_zeroed),
        CASE(scattered_pages_map_in_order),
        CASE(shared_page_lives_until_the_last_holder),
        CASE(users_are_limited),
        CASE(users_in_pid_namespaces_keep_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
