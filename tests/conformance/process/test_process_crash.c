/* SPDX-License-Identifier: Apache-2.0
 * test_process_crash.c - hosts, spawners and keepers are killed, files are torn: what
 * runs, runs on, and what is told is true.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "orr_test.h"

#include "process_fixture.h"
#include "rank_files.h"

/* ---- a host that can be killed
 * ----------------------------------------------------------------------- */

/* Started as `--host DIR`: launches ranks r1-0.. with the scripts that follow, says so,
 * and waits for its death. */
static int host_main(int argc, char **argv)
{
    struct orr_process *process;
    struct orr_error err;
    struct orr_process_linux_config config = {.state_dir = argv[2]};
    if (orr_process_linux_open(&config, &process, &err) != ORR_OK)
        return 1;
    for (int i = 3; i < argc; i++) {
        char job[16];
        snprintf(job, sizeof job, "r1-%d", i - 3);
        const struct orr_rec_text args[] = {
            {ORR_LIT("sh")}, {ORR_LIT("-c")}, {orr_str(argv[i])}};
        struct orr_process_launch launch = {
            .id = {orr_str(job), 1, 0}, .device = (uint32_t)i, .command = {args, 3}};
        if (process->ops->launch(process, &launch, &err) != ORR_OK)
            return 1;
    }
    if (write(1, "up\n", 3) != 3)
        return 1;
    for (;;)
        pause();
}

struct host {
    pid_t pid;
    int out;
};

static struct host start_host(const char *dir, const char *const *scripts)
{
    int pipe_fds[2];
    char text[3];
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        const char *argv[16] = {"host", "--host", dir};
        for (int i = 0; scripts[i]; i++)
            argv[3 + i] = scripts[i];
        dup2(pipe_fds[1], 1);
        execv("/proc/self/exe", (char *const *)(uintptr_t)argv);
        _exit(1);
    }
    close(pipe_fds[1]);
    assert_int_equal(read(pipe_fds[0], text, 3), 3);
    return (struct host){pid, pipe_fds[0]};
}

static void kill_host(struct host host)
{
    assert_int_equal(kill(host.pid, SIGKILL), 0);
    assert_int_equal(waitpid(host.pid, NULL, 0), host.pid);
    close(host.out);
}

static bool is_started(const char *dir, const char *job)
{
    char path[200];
    snprintf(path, sizeof path, "%s/ranks/%s.1.0/meta", dir, job);
    return access(path, F_OK) == 0;
}

static void wait_file(const char *path)
{
    for (int i = 0; i < 20000; i++) {
        if (access(path, F_OK) == 0)
            return;
        usleep(1000);
    }
    fail_msg("%s never came", path);
}

static void ranks_outlive_a_killed_host_and_are_adopted(void **state)
{
    struct fixture *f = *state;
    char go[100], script[200], status[200];
    fixture_close(f);
    snprintf(go, sizeof go, "%s/go", f->dir);
    snprintf(script,
             sizeof script,
             "echo up; while [ ! -e %s ]; do sleep 0.01; done; echo oops >&2; exit 7",
             go);
    struct host host =
        start_host(f->dir, (const char *const[]){script, "exit 6", "sleep 1000", NULL});
    snprintf(status, sizeof status, "%s/ranks/r1-1.1.0/status", f->dir);
    wait_file(status);
    while (!is_started(f->dir, "r1-0") || !is_started(f->dir, "r1-2"))
        usleep(1000);
    kill_host(host);

    fixture_open(f);
    struct told waiting = fixture_wait(f, "r1-0", ORR_RANK_RUNNING);
    assert_int_equal(waiting.device, 3);
    assert_int_equal(kill((pid_t)waiting.pid, 0), 0);
    assert_int_equal(fixture_wait(f, "r1-1", ORR_RANK_EXITED).exit_code, 6);
    struct told sleeping = fixture_wait(f, "r1-2", ORR_RANK_RUNNING);
    struct orr_process_id id = {ORR_LIT("r1-2"), 1, 0};
    assert_int_equal(f->process->ops->signal(f->process, &id, SIGTERM, &f->err),
                     ORR_OK);
    sleeping = fixture_wait(f, "r1-2", ORR_RANK_EXITED);
    assert_int_equal(sleeping.signal, SIGTERM);

    assert_int_equal(close(open(go, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)), 0);
    struct told t = fixture_wait(f, "r1-0", ORR_RANK_EXITED);
    assert_int_equal(t.exit_code, 7);
    assert_string_equal(t.tail, "oops\n");
    assert_string_equal(fixture_log(f, "r1-0", 1), "up\n");
    unlink(go);
}

/* Kill the host while its launches are on their way: each of them either runs, or is told to be
 * lost and is never started any more. */
static void launches_of_a_killed_host_happen_wholly_or_not_at_all(void **state)
{
    struct fixture *f = *state;
    static const char *const sleeps[] = {
        "sleep 1000", "sleep 1000", "sleep 1000", "sleep 1000", "sleep 1000", NULL};
    static struct told found[FIXTURE_RANKS_MAX];
    fixture_close(f);
    kill_host(start_host(f->dir, sleeps));
    fixture_open(f);
    uint32_t n = fixture_found(f, found);
    for (uint32_t i = 0; i < n; i++) {
        struct orr_process_id id = {orr_str(found[i].job), 1, 0};
        if (found[i].state == ORR_RANK_STARTING) /* its keeper had begun */
            found[i] = fixture_wait_id(f, id, ORR_RANK_RUNNING);
        if (found[i].state == ORR_RANK_RUNNING)
            continue;
        assert_int_equal(found[i].state, ORR_RANK_LOST);
        assert_false(is_started(f->dir, found[i].job));
    }
    assert_int_equal(fixture_found(f, found), n);
}

/* Play the keeper that is between its start and the meta file while the host is replaced. */
static void rank_found_while_it_starts_gets_the_signal_sent_to_it(void **state)
{
    struct fixture *f = *state;
    char path[100];
    int status;
    struct orr_process_id id = {ORR_LIT("r1-a"), 1, 0};
    fixture_close(f);
    snprintf(path, sizeof path, "%s/ranks/r1-a.1.0", f->dir);
    assert_int_equal(mkdir(path, 0755), 0);
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(orri_dir_lock(dir));
    pid_t rank = fork();
    if (rank == 0)
        for (;;)
            pause();
    setpgid(rank, rank);
    fixture_open(f);
    fixture_wait(f, "r1-a", ORR_RANK_STARTING);
    assert_int_equal(f->process->ops->signal(f->process, &id, SIGTERM, &f->err),
                     ORR_OK);

    struct orri_meta meta = {
        .keeper = getpid(), .rank = rank, .rank_start = orri_proc_start(rank)};
    orri_boot_id(meta.boot);
    assert_int_equal(orri_meta_write(dir, &meta), 0);
    assert_int_equal(fixture_wait(f, "r1-a", ORR_RANK_RUNNING).pid, rank);
    assert_int_equal(waitpid(rank, &status, 0), rank);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);

    fixture_close(f);
    struct orri_status end = {.state = ORR_RANK_EXITED, .signal = SIGTERM};
    assert_int_equal(orri_status_write(dir, &end), 0);
    close(dir);
    fixture_open(f);
    fixture_wait(f, "r1-a", ORR_RANK_EXITED);
}

static void second_host_on_a_state_directory_is_refused(void **state)
{
    struct fixture *f = *state;
    struct orr_process *second;
    assert_int_equal(orr_process_linux_open(&f->config, &second, &f->err), ORR_EEXIST);
    assert_non_null(strstr(f->err.text, f->dir));
}

/* ---- keeper and spawner
 * ------------------------------------------------------------------------------- */

static void killed_keeper_takes_its_rank_along_and_that_is_lost(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(fixture_sh(f, "r1-a", "sleep 1000 & echo $!; wait"), ORR_OK);
    struct told t = fixture_wait(f, "r1-a", ORR_RANK_RUNNING);
    fixture_wait_log(f, "r1-a", "\n");
    pid_t child = (pid_t)atoi(fixture_log(f, "r1-a", 1)), rank = (pid_t)t.pid;
    assert_int_equal(kill(fixture_parent(rank), SIGKILL), 0);
    t = fixture_wait(f, "r1-a", ORR_RANK_LOST);
    assert_string_equal(t.reason, "its keeper died before it recorded the end");
    fixture_wait_gone(rank);
    fixture_wait_gone(child);
}

static void keeper_killed_while_no_host_looks_is_lost(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(fixture_sh(f, "r1-a", "sleep 1000"), ORR_OK);
    pid_t rank = (pid_t)fixture_wait(f, "r1-a", ORR_RANK_RUNNING).pid;
    fixture_close(f);
    assert_int_equal(kill(fixture_parent(rank), SIGKILL), 0);
    fixture_wait_gone(rank);
    fixture_open(f);
    fixture_wait(f, "r1-a", ORR_RANK_LOST);
}

static void killed_spawner_is_replaced_and_ranks_run_on(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(fixture_sh(f, "r1-a", "echo up; sleep 1000"), ORR_OK);
    pid_t rank = (pid_t)fixture_wait(f, "r1-a", ORR_RANK_RUNNING).pid;
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(kill(fixture_spawner(), SIGKILL), 0);
        struct orr_process_id id = {ORR_LIT("r1-b"), 1, i};
        assert_int_equal(
            fixture_launch(f, id, "/", (const char *const[]){"true", NULL}), ORR_OK);
        assert_int_equal(fixture_wait_id(f, id, ORR_RANK_EXITED).exit_code, 0);
    }
    assert_int_equal(kill(rank, 0), 0);
    assert_int_equal(kill(rank, SIGKILL), 0);
    assert_int_equal(fixture_wait(f, "r1-a", ORR_RANK_EXITED).signal, SIGKILL);
}

static void spawner_killed_among_launches_loses_none(void **state)
{
    struct fixture *f = *state;
    pid_t spawner = fixture_spawner();
    for (uint32_t i = 0; i < 100; i++) {
        struct orr_process_id id = {ORR_LIT("r1-b"), 1, i};
        assert_int_equal(
            fixture_launch(f, id, "/", (const char *const[]){"true", NULL}), ORR_OK);
        if (i == 50)
            kill(spawner, SIGKILL);
    }
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(fixture_wait_id(f,
                                         (struct orr_process_id){ORR_LIT("r1-b"), 1, i},
                                         ORR_RANK_EXITED)
                             .exit_code,
                         0);
}

static void launch_that_waits_is_found_as_starting(void **state)
{
    struct fixture *f = *state;
    pid_t spawner = fixture_spawner();
    assert_int_equal(kill(spawner, SIGSTOP), 0);
    f->process->ops->attach(f->process, NULL);
    assert_int_equal(fixture_sh(f, "r1-a", "exit 2"), ORR_OK);
    fixture_attach(f);
    fixture_wait(f, "r1-a", ORR_RANK_STARTING);
    assert_int_equal(kill(spawner, SIGCONT), 0);
    assert_int_equal(fixture_wait(f, "r1-a", ORR_RANK_EXITED).exit_code, 2);
}

static void launch_that_was_given_up_never_happens(void **state)
{
    struct fixture *f = *state;
    char log[100];
    fixture_close(f);
    f->config.start_timeout_ms = 1;
    fixture_open(f);
    pid_t spawner = fixture_spawner();
    assert_int_equal(kill(spawner, SIGSTOP), 0);
    assert_int_equal(fixture_sh(f, "r1-late", "exit 0"), ORR_OK);
    assert_non_null(strstr(fixture_wait(f, "r1-late", ORR_RANK_FAILED).reason,
                           "did not start within"));
    assert_int_equal(kill(spawner, SIGCONT), 0);
    /* Launches are taken in order: when this one has ended, the first was taken, too. */
    assert_int_equal(fixture_sh(f, "r1-next", "sleep 0.1"), ORR_OK);
    fixture_wait(f, "r1-next", ORR_RANK_EXITED);
    snprintf(log, sizeof log, "%s/ranks/r1-late.1.0/stdout", f->dir);
    assert_int_not_equal(access(log, F_OK), 0);
    fixture_wait(f, "r1-late", ORR_RANK_FAILED);
}

/* ---- torn and foreign files
 * ----------------------------------------------------------------------------- */

static void
put_file(struct fixture *f, const char *key, const char *name, const char *text)
{
    char path[200];
    snprintf(path, sizeof path, "%s/ranks/%s", f->dir, key);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/ranks/%s/%s", f->dir, key, name);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void torn_files_are_lost_ranks_with_a_reason(void **state)
{
    struct fixture *f = *state;
    char boot[ORRI_BOOT_MAX], meta[300];
    fixture_close(f);
    orri_boot_id(boot);
    put_file(
        f, "r1-status.1.0", "status", "state=2\nexit_code=0\nsignal=0\nended_unix");
    put_file(f, "r1-empty.1.0", "meta", "");
    put_file(f,
             "r1-extra.1.0",
             "status",
             "state=2\nexit_code=0\nsignal=0\nended_unix_ms=1\nreason=x\nmore=1\n");
    put_file(f, "r1-none.1.0", "meta.tmp", "keeper=");
    put_file(
        f,
        "r1-boot.1.0",
        "meta",
        "keeper=1\nrank=1\nrank_start=1\ndevice=0\nstarted_unix_ms=1\nboot=another\n");
    snprintf(meta,
             sizeof meta,
             "keeper=%d\nrank=%d\nrank_start=1\ndevice=0\nstarted_unix_ms=1\nboot=%s\n",
             (int)getpid(),
             (int)getpid(),
             boot);
    put_file(f,
             "r1-reused.1.0",
             "meta",
             meta); /* the pids are ours now: nothing may be killed */
    put_file(f,
             "r1-good.1.0",
             "status",
             "state=2\nexit_code=9\nsignal=0\nended_unix_ms=1\nreason=exit code 9\n");
    put_file(f, "not-a-rank", "meta", "x");
    fixture_open(f);
    assert_non_null(strstr(fixture_wait(f, "r1-status", ORR_RANK_LOST).reason, "torn"));
    assert_non_null(strstr(fixture_wait(f, "r1-empty", ORR_RANK_LOST).reason, "torn"));
    assert_non_null(strstr(fixture_wait(f, "r1-extra", ORR_RANK_LOST).reason, "torn"));
    assert_non_null(
        strstr(fixture_wait(f, "r1-none", ORR_RANK_LOST).reason, "interrupted"));
    assert_non_null(
        strstr(fixture_wait(f, "r1-boot", ORR_RANK_LOST).reason, "restarted"));
    fixture_wait(f, "r1-reused", ORR_RANK_LOST);
    assert_int_equal(fixture_wait(f, "r1-good", ORR_RANK_EXITED).exit_code, 9);
    fixture_close(f);
    f->n_told = 0;
    fixture_open(f); /* what was decided is on disk */
    assert_non_null(
        strstr(fixture_wait(f, "r1-boot", ORR_RANK_LOST).reason, "restarted"));
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "--host") == 0)
        return host_main(argc, argv);
    static const struct CMUnitTest tests[] = {
        FIXTURE_TEST(ranks_outlive_a_killed_host_and_are_adopted),
        FIXTURE_TEST(launches_of_a_killed_host_happen_wholly_or_not_at_all),
        FIXTURE_TEST(rank_found_while_it_starts_gets_the_signal_sent_to_it),
        FIXTURE_TEST(second_host_on_a_state_directory_is_refused),
        FIXTURE_TEST(killed_keeper_takes_its_rank_along_and_that_is_lost),
        FIXTURE_TEST(keeper_killed_while_no_host_looks_is_lost),
        FIXTURE_TEST(killed_spawner_is_replaced_and_ranks_run_on),
        FIXTURE_TEST(spawner_killed_among_launches_loses_none),
        FIXTURE_TEST(launch_that_waits_is_found_as_starting),
        FIXTURE_TEST(launch_that_was_given_up_never_happens),
        FIXTURE_TEST(torn_files_are_lost_ranks_with_a_reason),
    };
    return fixture_main(argc, argv, tests, ORR_ARRAY_SIZE(tests));
}
