/* SPDX-License-Identifier: Apache-2.0
 * test_state_dir.c - one host per state directory, and incarnations that only grow.
 */
#include "orr_test.h"
#include "state_dir.h"

#include <sys/wait.h>
#include <unistd.h>

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/orr-state-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

static void second_host_is_refused_and_told_who_holds_it(void **state)
{
    struct orr_error err;
    int lock, other;
    char pid[16];
    (void)state;
    assert_int_equal(state_dir_open(dir, &lock, &err), ORR_OK);
    assert_int_equal(state_dir_open(dir, &other, &err), ORR_EEXIST);
    snprintf(pid, sizeof pid, "pid %d)", (int)getpid());
    assert_non_null(strstr(err.text, pid));
    close(lock);
    assert_int_equal(state_dir_open(dir, &lock, &err), ORR_OK);
    close(lock);
}

static void lock_ends_with_its_process(void **state)
{
    struct orr_error err;
    int lock, status;
    (void)state;
    pid_t child = fork();
    if (child == 0)
        _exit(state_dir_open(dir, &lock, &err)); /* without closing */
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(state_dir_open(dir, &lock, &err), ORR_OK);
    close(lock);
}

static void incarnation_grows_by_one(void **state)
{
    struct orr_error err;
    uint32_t n;
    (void)state;
    for (uint32_t i = 1; i <= 3; i++) {
        assert_int_equal(state_dir_next_incarnation(dir, &n, &err), ORR_OK);
        assert_int_equal(n, i);
    }
}

static void damaged_counter_is_refused(void **state)
{
    static const char *const damaged[] = {
        "", "12", "x\n", "0\n", "4294967295\n", "12 13\n"};
    struct orr_error err;
    uint32_t n = 77;
    char file[128];
    (void)state;
    snprintf(file, sizeof file, "%s/incarnation", dir);
    for (size_t i = 0; i < ORR_ARRAY_SIZE(damaged); i++) {
        FILE *out = fopen(file, "w");
        assert_non_null(out);
        fputs(damaged[i], out);
        fclose(out);
        assert_int_equal(state_dir_next_incarnation(dir, &n, &err), ORR_EIO);
        assert_non_null(strstr(err.text, "damaged"));
        assert_int_equal(n, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            second_host_is_refused_and_told_who_holds_it, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(
            lock_ends_with_its_process, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(incarnation_grows_by_one, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(
            damaged_counter_is_refused, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
