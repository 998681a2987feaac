/* SPDX-License-Identifier: Apache-2.0
 * test_process_ops.c - what every implementation of the process op table must do:
 * launch, end, forget, logs, ports.
 */
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "orr_test.h"

#include "process_fixture.h"

static enum orr_err forget(struct fixture *f, const char *job)
{
    struct orr_process_id id = {orr_str(job), 1, 0};
    return f->process->ops->forget(f->process, &id, &f->err);
}

/* ---- launch and end
 * ------------------------------------------------------------------------------ */

static void launch_program_exits_zero(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(fixture_sh(f, "r1-a", "exit 0"), ORR_OK);
    struct told t = fixture_wait(f, "r1-a", ORR_RANK_EXITED);
    assert_int_equal(t.exit_code, 0);
    assert_int_equal(t.signal, 0);
    assert_int_equal(t.device, 3);
    assert_string_equal(t.reason, "exit code 0");
}

static void launch_failing_program_tells_code_and_stderr_tail(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(
        fixture_sh(f, "r1-a", "echo out; echo first >&2; echo last words >&2; exit 3"),
        ORR_OK);
    struct told t = fixture_wait(f, "r1-a", ORR_RANK_EXITED);
    assert_int_equal(t.exit_code, 3);
    assert_string_equal(t.reason, "exit code 3");
    assert_string_equal(t.tail, "first\nlast words\n");
    assert_string_equal(fixture_log(f, "r1-a", 1), "out\n");
}

static void launch_long_stderr_tail_is_bounded_and_starts_at_a_line(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(fixture_sh(f,
                                "r1-a",
                                "i=0; while [ $i -lt 1000 ]; do echo line $i >&2; "
                                "i=$((i+1)); done; exit 1"),
                     ORR_OK);
    struct told t = fixture_wait(f, "r1-a", ORR_RANK_EXITED);
    assert_true(strlen(t.tail) > ORR_TAIL_MAX - 20 && strlen(t.tail) <= ORR_TAIL_MAX);
    assert_int_equal(strncmp(t.tail, "line ", 5), 0);
    assert_non_null(strstr(t.tail, "line 999\n"));
}

static void launch_unknown_program_fails_with_its_name(void **state)
{
    struct fixture *f = *state;
    struct orr_process_id id = {ORR_LIT("r1-a"), 1, 0};
    assert_int_equal(
        fixture_launch(f, id, "/tmp", (const char *const[]){"./no-such", NULL}),
        ORR_OK);
    struct told t = fixture_wait(f, "r1-a", ORR_RANK_FAILED);
    assert_string_equal(t.reason,
                        "cannot execute ./no-such: No such file or directory");
}

static void launch_missing_workdir_fails_with_its_name(void **state)
{
    struct fixture *f = *state;
    struct orr_process_id id = {ORR_LIT("r1-a"), 1, 0};
    assert_int_equal(
        fixture_launch(f, id, "/no/such", (const char *const[]){"true", NULL}), ORR_OK);
    struct told t = fixture_wait(f, "r1-a", ORR_RANK_FAILED);
    assert_string_equal(t.reason,
                        "cannot enter workdir /no/such: No such file or directory");
}

static void launch_on_a_broken_machine_is_lost_and_not_failed(void **state)
{
    struct fixture *f = *state;
    char ranks[sizeof f->dir + 8];
    snprintf(ranks, sizeof ranks, "%s/ranks", f->dir);
    assert_int_equal(rmdir(ranks), 0);
    assert_int_equal(fixture_sh(f, "r1-a", "exit 0"), ORR_OK);
    struct told told = fixture_wait(f, "r1-a", ORR_RANK_LOST);
    assert_non_null(strstr(told.reason, ranks));
}

static void launch_environment_is_as_given(void **state)
{
    struct fixture *f = *state;
    setenv("ORRERY_SECRET", "of the host", 1);
    assert_int_equal(
        fixture_sh(f, "r1-a", "env; pwd; echo fds: $(ls /proc/self/fd); ulimit -c"),
        ORR_OK);
    fixture_wait(f, "r1-a", ORR_RANK_EXITED);
    const char *log = fixture_log(f, "r1-a", 1);
    assert_non_null(strstr(log, "ORRERY_TEST=a value\n"));
    assert_non_null(strstr(log, "PATH="));
    assert_null(strstr(log, "ORRERY_SECRET"));
    const char *home = strstr(log, "HOME=");
    assert_true(home && strncmp(home, "HOME=/given\n", 12) == 0 &&
                !strstr(home + 1, "HOME="));
    assert_non_null(strstr(log, "/tmp\n"));
    assert_non_null(strstr(log, "fds: 0 1 2 3\n")); /* 3 is ls's own */
    assert_non_null(strstr(log, "\n0\n"));
    unsetenv("ORRERY_SECRET");
}

static void launch_bad_values_are_refused_by_field(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {
        "", "a/b", "..", "a..b", ".a", "a b", "a\n", "\xc3\xa9"};
    for (size_t i = 0; i < ORR_ARRAY_SIZE(bad); i++) {
        assert_int_equal(fixture_sh(f, bad[i], "true"), ORR_EINVAL);
        assert_int_equal(strncmp(f->err.text, "job: ", 5), 0);
    }
    char big[200];
    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    assert_int_equal(fixture_sh(f, big, "true"), ORR_EINVAL);
    struct orr_process_id id = {ORR_LIT("r1-a"), 1, 0};
    assert_int_equal(
        fixture_launch(f, id, "relative", (const char *const[]){"true", NULL}),
        ORR_EINVAL);
    assert_non_null(strstr(f->err.text, "workdir"));
    assert_int_equal(fixture_launch(f, id, "/", (const char *const[]){NULL}),
                     ORR_EINVAL);
    assert_non_null(strstr(f->err.text, "command"));
    char *huge = malloc(200000);
    memset(huge, 'x', 199999);
    huge[199999] = '\0';
    assert_int_equal(
        fixture_launch(f, id, "/", (const char *const[]){"true", huge, NULL}),
        ORR_EINVAL);
    free(huge);
    assert_int_equal(fixture_sh(f, "r1-a", "true"),
                     ORR_OK); /* nothing of it was kept */
}

static void launch_twice_is_refused(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(fixture_sh(f, "r1-a", "true"), ORR_OK);
    assert_int_equal(fixture_sh(f, "r1-a", "true"), ORR_EEXIST);
    fixture_wait(f, "r1-a", ORR_RANK_EXITED);
    assert_int_equal(fixture_sh(f, "r1-a", "true"), ORR_EEXIST);
}

static void launch_beyond_the_limits_is_refused(void **state)
{
    struct fixture *f = *state;
    fixture_close(f);
    f->config.ranks_max = 2;
    fixture_open(f);
    assert_int_equal(fixture_sh(f, "r1-a", "true"), ORR_OK);
    assert_int_equal(fixture_sh(f, "r1-b", "true"), ORR_OK);
    assert_int_equal(fixture_sh(f, "r1-c", "true"), ORR_ENOSPC);
    fixture_wait(f, "r1-a", ORR_RANK_EXITED);
    assert_int_equal(forget(f, "r1-a"), ORR_OK);
    assert_int_equal(fixture_sh(f, "r1-c", "true"), ORR_OK);
}

static void launches_that_wait_are_bounded(void **state)
{
    struct fixture *f = *state;
    fixture_close(f);
    f->config.launches_max = 2;
    fixture_open(f);
    pid_t spawner = fixture_spawner();
    assert_int_equal(kill(spawner, SIGSTOP), 0);
    assert_int_equal(fixture_sh(f, "r1-a", "true"), ORR_OK);
    assert_int_equal(fixture_sh(f, "r1-b", "true"), ORR_OK);
    assert_int_equal(fixture_sh(f, "r1-c", "true"), ORR_EBUSY);
    assert_int_equal(kill(spawner, SIGCONT), 0);
    fixture_wait(f, "r1-b", ORR_RANK_EXITED);
    assert_int_equal(fixture_sh(f, "r1-c", "true"), ORR_OK);
}

static int count_fds(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static void launch_many_leaves_no_descriptors_and_no_zombies(void **state)
{
    struct fixture *f = *state;
    char children[64], buf[256] = "";
    pid_t spawner = fixture_spawner();
    (void)fixture_ability(f); /* finding out opens some, too */
    int before = count_fds();
    for (uint32_t i = 0; i < 200; i++) {
        struct orr_process_id id = {ORR_LIT("r1-many"), 1, i};
        assert_int_equal(
            fixture_launch(f, id, "/", (const char *const[]){"/bin/true", NULL}),
            ORR_OK);
    }
    for (uint32_t i = 0; i < 200; i++) {
        struct told t = fixture_wait_id(
            f, (struct orr_process_id){ORR_LIT("r1-many"), 1, i}, ORR_RANK_EXITED);
        assert_int_equal(t.exit_code, 0);
    }
    assert_int_equal(count_fds(), before);
    snprintf(children,
             sizeof children,
             "/proc/%d/task/%d/children",
             (int)spawner,
             (int)spawner);
    FILE *file = fopen(children, "re");
    assert_non_null(file);
    assert_null(fgets(buf, sizeof buf, file));
    fclose(file);
}

static void end_of_rank_ends_its_stragglers(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(fixture_sh(f,
                                "r1-a",
                                "sleep 1000 & echo a $!; setsid sleep 1000 & echo b "
                                "$!; sleep 0.05; exit 0"),
                     ORR_OK);
    fixture_wait(f, "r1-a", ORR_RANK_EXITED);
    int in_group, in_session;
    assert_int_equal(
        sscanf(fixture_log(f, "r1-a", 1), "a %d b %d", &in_group, &in_session), 2);
    assert_int_equal(kill(in_group, 0),
                     -1); /* at once: the end is told after they are gone */
    assert_int_equal(kill(in_session, 0), -1);
}

/* ---- forget and logs
 * ------------------------------------------------------------------------------- */

static void forget_running_rank_is_refused(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(fixture_sh(f, "r1-a", "sleep 1000"), ORR_OK);
    fixture_wait(f, "r1-a", ORR_RANK_RUNNING);
    assert_int_equal(forget(f, "r1-a"), ORR_ESTATE);
    assert_int_equal(forget(f, "r1-unknown"), ORR_OK);
    assert_int_equal(fixture_signal(f, "r1-a", SIGKILL), ORR_OK);
    fixture_wait(f, "r1-a", ORR_RANK_EXITED);
    assert_int_equal(forget(f, "r1-a"), ORR_OK);
    assert_int_equal(forget(f, "r1-a"), ORR_OK);
    assert_int_equal(fixture_signal(f, "r1-a", SIGKILL), ORR_ENOENT);
}

static struct orr_process_log
read_log(struct fixture *f, uint64_t generation, uint64_t offset, char *buf, size_t cap)
{
    struct orr_process_log log = {0};
    struct orr_process_id id = {ORR_LIT("r1-a"), generation, 0};
    if (f->process->ops->log_read(
            f->process, &id, 1, offset, (uint8_t *)buf, cap, &log, &f->err) != ORR_OK)
        fail_msg("%s", f->err.text);
    return log;
}

static void log_read_pages_and_tells_the_end(void **state)
{
    struct fixture *f = *state;
    char buf[64];
    struct orr_process_id second = {ORR_LIT("r1-a"), 2, 0};
    assert_int_equal(fixture_sh(f, "r1-a", "echo one"), ORR_OK);
    assert_int_equal(
        fixture_launch(
            f,
            second,
            "/",
            (const char *const[]){"sh", "-c", "echo 0123456789; sleep 1000", NULL}),
        ORR_OK);
    fixture_wait(f, "r1-a", ORR_RANK_EXITED);
    fixture_wait_id(f, second, ORR_RANK_RUNNING);
    while (read_log(f, 0, 0, buf, sizeof buf).len < 11)
        usleep(1000);
    struct orr_process_log log = read_log(f, 0, 4, buf, 3);
    assert_int_equal(log.generation, 2);
    assert_int_equal(log.len, 3);
    assert_memory_equal(buf, "456", 3);
    assert_false(read_log(f, 2, 11, buf, sizeof buf).is_final);
    f->process->ops->signal(f->process, &second, SIGKILL, NULL);
    fixture_wait_id(f, second, ORR_RANK_EXITED);
    assert_true(read_log(f, 2, 11, buf, sizeof buf).is_final);
    assert_false(read_log(f, 2, 0, buf, 4).is_final);
    assert_int_equal(read_log(f, 1, 0, buf, sizeof buf).len, 4);
}

static void run_and_forget(struct fixture *f, const char *job)
{
    assert_int_equal(fixture_sh(f, job, "echo $ORRERY_TEST"), ORR_OK);
    fixture_wait(f, job, ORR_RANK_EXITED);
    assert_int_equal(forget(f, job), ORR_OK);
}

/* Forgetting is done by the edge's own thread. */
static void wait_aged_out(struct fixture *f, const char *job)
{
    char buf[64];
    struct orr_process_log log;
    struct orr_process_id id = {orr_str(job), 1, 0};
    for (int i = 0; i < 20000; i++) {
        enum orr_err rc = f->process->ops->log_read(
            f->process, &id, 1, 0, (uint8_t *)buf, sizeof buf, &log, &f->err);
        if (rc == ORR_ENOENT)
            return;
        usleep(1000);
    }
    fail_msg("the logs of %s are still there", job);
}

static void logs_outlive_forget_until_they_are_too_many(void **state)
{
    struct fixture *f = *state;
    fixture_close(f);
    f->config.logs_max = 2;
    fixture_open(f);
    run_and_forget(f, "r1-a");
    run_and_forget(f, "r1-b");
    run_and_forget(f, "r1-c");
    wait_aged_out(f, "r1-a");
    assert_string_equal(fixture_log(f, "r1-b", 1), "a value\n");
    fixture_close(f);
    f->n_told = 0;
    fixture_open(f); /* the rest is found again, and is nothing to tell about */
    assert_string_equal(fixture_log(f, "r1-c", 1), "a value\n");
    run_and_forget(f, "r1-d");
    wait_aged_out(f, "r1-b");
    assert_int_equal(f->n_told, 1);
}

static void logs_outlive_forget_until_they_are_too_large(void **state)
{
    struct fixture *f = *state;
    fixture_close(f);
    f->config.log_bytes_max = 2 * strlen("a value\n");
    fixture_open(f);
    run_and_forget(f, "r1-a");
    run_and_forget(f, "r1-b");
    run_and_forget(f, "r1-c");
    wait_aged_out(f, "r1-a");
    assert_string_equal(fixture_log(f, "r1-b", 1), "a value\n");
}

/* ---- ports and the sink
 * ------------------------------------------------------------------------------ */

static void ports_are_free_and_different(void **state)
{
    struct fixture *f = *state;
    const char *addr;
    uint32_t port;
    bool seen[8] = {false};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in taken = {.sin_family = AF_INET,
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    uint16_t base = 25000;
    do { /* eight ports of which we hold the first; others may run this test, too */
        taken.sin_port = htons(base = (uint16_t)(base + 8));
    } while (bind(fd, (struct sockaddr *)&taken, sizeof taken) != 0);
    fixture_close(f);
    f->config.port_min = base;
    f->config.port_max = (uint16_t)(base + 7);
    fixture_open(f);
    int n = 0;
    while (n < 8 &&
           f->process->ops->port_reserve(f->process, &addr, &port, &f->err) == ORR_OK) {
        assert_true(port > base && port <= base + 7u && !seen[port - base]);
        assert_string_equal(addr, "127.0.0.1");
        seen[port - base] = true;
        n++;
    }
    assert_true(n >= 1 && n <= 7);
    assert_int_equal(f->err.code, ORR_ENOSPC);
    close(fd);
}

static void ports_last_for_a_burst_of_launches(void **state)
{
    struct fixture *f = *state;
    const char *addr;
    uint32_t port;
    static bool seen[65536];
    for (int i = 0; i < 3000; i++) {
        enum orr_err rc =
            f->process->ops->port_reserve(f->process, &addr, &port, &f->err);
        assert_int_equal(rc, ORR_OK);
        assert_false(seen[port]);
        seen[port] = true;
    }
}

static void busy_sink_is_told_later(void **state)
{
    struct fixture *f = *state;
    pthread_mutex_lock(&f->lock);
    f->n_refusals = 5;
    pthread_mutex_unlock(&f->lock);
    assert_int_equal(fixture_sh(f, "r1-a", "exit 4"), ORR_OK);
    assert_int_equal(fixture_wait(f, "r1-a", ORR_RANK_EXITED).exit_code, 4);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        FIXTURE_TEST(launch_program_exits_zero),
        FIXTURE_TEST(launch_failing_program_tells_code_and_stderr_tail),
        FIXTURE_TEST(launch_long_stderr_tail_is_bounded_and_starts_at_a_line),
        FIXTURE_TEST(launch_unknown_program_fails_with_its_name),
        FIXTURE_TEST(launch_missing_workdir_fails_with_its_name),
        FIXTURE_TEST(launch_on_a_broken_machine_is_lost_and_not_failed),
        FIXTURE_TEST(launch_environment_is_as_given),
        FIXTURE_TEST(launch_bad_values_are_refused_by_field),
        FIXTURE_TEST(launch_twice_is_refused),
        FIXTURE_TEST(launch_beyond_the_limits_is_refused),
        FIXTURE_TEST(launches_that_wait_are_bounded),
        FIXTURE_TEST(launch_many_leaves_no_descriptors_and_no_zombies),
        FIXTURE_TEST(end_of_rank_ends_its_stragglers),
        FIXTURE_TEST(forget_running_rank_is_refused),
        FIXTURE_TEST(log_read_pages_and_tells_the_end),
        FIXTURE_TEST(logs_outlive_forget_until_they_are_too_many),
        FIXTURE_TEST(logs_outlive_forget_until_they_are_too_large),
        FIXTURE_TEST(ports_are_free_and_different),
        FIXTURE_TEST(ports_last_for_a_burst_of_launches),
        FIXTURE_TEST(busy_sink_is_told_later),
    };
    return fixture_main(argc, argv, tests, ORR_ARRAY_SIZE(tests));
}
