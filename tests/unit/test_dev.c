/* SPDX-License-Identifier: Apache-2.0
 * test_dev.c - names and files of a development fleet, and that its processes are never
 * mistaken for others.
 */
#include "dev.h"
#include "fleet.h"
#include "orr_test.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct fleet small(const char *dir)
{
    struct fleet f = {.regions = 2,
                      .replicas = 1,
                      .clusters = 2,
                      .nodes = 3,
                      .gpus = 2,
                      .slots = 4,
                      .lease_ms = 5000,
                      .suspect_ms = 1000,
                      .heartbeat_ms = 200,
                      .memory = "64MiB"};
    snprintf(f.dir, sizeof f.dir, "%s", dir);
    return f;
}

static void hosts_are_numbered_through_the_fleet(void **state)
{
    (void)state;
    struct fleet f = small("/tmp/x");
    assert_int_equal(fleet_size(&f), 2 + 4 + 12);
    struct fleet_host c3 = fleet_host_at(&f, 2 + 2), n12 = fleet_host_at(&f, 17),
                      n4 = fleet_host_at(&f, 9);
    assert_string_equal(c3.name, "c3");
    assert_string_equal(c3.parent, "r2");
    assert_string_equal(n12.name, "n12");
    assert_string_equal(n12.parent, "c4");
    assert_string_equal(n12.region, "r2");
    assert_string_equal(n4.parent, "c2");
    assert_string_equal(n4.region, "r1");
}

static void replicas_of_a_region_are_hosts_side_by_side(void **state)
{
    (void)state;
    struct fleet f = small("/tmp/x");
    f.replicas = 3;
    assert_int_equal(fleet_size(&f), 6 + 4 + 12);
    struct fleet_host r2_3 = fleet_host_at(&f, 5), c4 = fleet_host_at(&f, 9);
    assert_string_equal(r2_3.name, "r2-3");
    assert_string_equal(r2_3.region, "r2");
    assert_int_equal(r2_3.role, FLEET_REGION);
    assert_string_equal(c4.name, "c4");
    assert_string_equal(c4.parent, "r2");
    assert_string_equal(fleet_host_at(&f, 10).name, "n1");
}

static void bad_shapes_name_the_option(void **state)
{
    (void)state;
    struct orr_error err;
    struct fleet f = small("/tmp/x");
    assert_int_equal(fleet_check(&f, &err), ORR_OK);
    f.nodes = 0;
    assert_int_equal(fleet_check(&f, &err), ORR_EINVAL);
    assert_non_null(strstr(err.text, "--nodes"));
    f = small("/tmp/x");
    f.replicas = 2;
    assert_int_equal(fleet_check(&f, &err), ORR_EINVAL);
    assert_non_null(strstr(err.text, "--replicas: 2 survive no more losses than 1"));
    f = small("/tmp/x");
    f.lease_ms = 900;
    assert_int_equal(fleet_check(&f, &err), ORR_EINVAL);
    assert_non_null(strstr(err.text, "--lease"));
    f.lease_ms = 3000;
    assert_int_equal(fleet_check(&f, &err), ORR_EINVAL);
    assert_non_null(strstr(err.text, "--lease"));
    f = small("/tmp/"
              "a-path-that-is-much-too-long-for-a-unix-socket-because-sun-path-has-"
              "only-one-hundred-and-eight-bytes");
    assert_int_equal(fleet_check(&f, &err), ORR_EINVAL);
    assert_non_null(strstr(err.text, "--state"));
}

static void fleet_is_read_as_it_was_written(void **state)
{
    char dir[] = "/tmp/orr-dev-XXXXXX", path[256], command[64];
    struct orr_error err;
    struct fleet found;
    struct stat st;
    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(fleet_read(dir, &found, &err), ORR_ENOENT);
    struct fleet f = small(dir);
    assert_int_equal(fleet_write(&f, &err), ORR_OK);
    assert_int_equal(fleet_read(dir, &found, &err), ORR_OK);
    assert_int_equal(found.nodes, 3);
    assert_string_equal(found.memory, "64MiB");
    snprintf(path, sizeof path, "%s/n12/host.yaml", dir);
    assert_int_equal(stat(path, &st), 0);
    snprintf(path, sizeof path, "%s/fleet", dir);
    assert_int_equal(truncate(path, 20), 0);
    assert_int_equal(fleet_read(dir, &found, &err), ORR_EIO);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

static char *text_of(const char *dir, const char *name)
{
    static char text[4096];
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *in = fopen(path, "r");
    assert_non_null(in);
    text[fread(text, 1, sizeof text - 1, in)] = '\0';
    fclose(in);
    return text;
}

/* The host configuration itself is read by test_config; here: who is told of whom. */
static void replicas_are_told_of_each_other(void **state)
{
    char dir[] = "/tmp/orr-dev-XXXXXX", command[64], wanted[600], voters[3][512];
    struct orr_error err;
    (void)state;
    assert_non_null(mkdtemp(dir));
    struct fleet f = small(dir);
    f.replicas = 3;
    assert_int_equal(fleet_write(&f, &err), ORR_OK);
    snprintf(wanted,
             sizeof wanted,
             "ipc://%s/r1-1/sock,ipc://%s/r1-2/sock,ipc://%s/r1-3/sock\n",
             dir,
             dir,
             dir);
    assert_string_equal(text_of(dir, "endpoint"), wanted);
    assert_string_equal(text_of(dir, "region"), "r1\n");
    for (int i = 0; i < 3; i++) { /* the same list, of its own region, on each */
        char name[32];
        snprintf(name, sizeof name, "r2-%d/host.yaml", i + 1);
        char *text = text_of(dir, name), *at = strstr(text, "voters:");
        assert_non_null(at);
        assert_non_null(strstr(text, "region: r2\n"));
        *strstr(at, "peers:") = '\0';
        snprintf(voters[i], sizeof voters[i], "%s", at);
        assert_string_equal(voters[i], voters[0]);
    }
    assert_non_null(strstr(voters[0], "- {host: r2-3, endpoint: \"ipc://"));
    assert_null(strstr(voters[0], "r1-"));
    char *text = text_of(dir, "c3/host.yaml");
    assert_non_null(strstr(text, "r2-1/sock"));
    assert_non_null(strstr(text, "r2-3/sock"));
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

static void ledger_addresses_are_free_and_its_own(void **state)
{
    char a[FLEET_ADDRESS_MAX], b[FLEET_ADDRESS_MAX];
    struct orr_error err;
    (void)state;
    assert_int_equal(fleet_ledger_address(a, &err), ORR_OK);
    assert_int_equal(fleet_ledger_address(b, &err), ORR_OK);
    assert_string_not_equal(a, b);
    assert_memory_equal(a, "127.", 4);
    assert_true(atoi(strrchr(a, ':') + 1) >= 10000);
}

static void stranger_with_the_pid_is_not_the_host(void **state)
{
    char dir[] = "/tmp/orr-dev-XXXXXX", path[256], command[64];
    struct orr_error err;
    (void)state;
    assert_non_null(mkdtemp(dir));
    struct fleet f = small(dir);
    struct fleet_host h = fleet_host_at(&f, 0);
    assert_int_equal(fleet_write(&f, &err), ORR_OK);
    assert_int_equal(fleet_host_pid(&f, &h), 0);
    pid_t stranger = fork();
    if (stranger == 0) {
        pause();
        _exit(0);
    }
    snprintf(path, sizeof path, "%s/r1/pid", dir);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fprintf(out, "%d 1\n", (int)stranger);
    fclose(out);
    assert_int_equal(fleet_host_pid(&f, &h), 0);
    fleet_host_stop(&f, &h, 1000);
    assert_int_equal(kill(stranger, 0), 0); /* untouched */
    kill(stranger, SIGKILL);
    waitpid(stranger, NULL, 0);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

static int run_dev(const char *verb, const char *option, const char *value)
{
    char *argv[] = {"dev", (char *)verb, (char *)option, (char *)value, NULL};
    return orr_dev_main(option ? 4 : 2, argv);
}

static void bad_options_are_usage_errors(void **state)
{
    (void)state;
    unsetenv("ORRERY_STATE");
    assert_int_equal(run_dev("upp", NULL, NULL), 2);
    assert_int_equal(run_dev("up", NULL, NULL), 2); /* no folder */
    setenv("ORRERY_STATE", "/tmp/orr-dev-none", 1);
    assert_int_equal(run_dev("up", "--nodes", "many"), 2);
    assert_int_equal(run_dev("up", "--nodes", "-1"), 2);
    assert_int_equal(run_dev("up", "--knots", "1"), 2);
    assert_int_equal(run_dev("status", "-o", "xml"), 2);
    assert_int_equal(run_dev("down", NULL, NULL), 2); /* no fleet there */
    unsetenv("ORRERY_STATE");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_are_numbered_through_the_fleet),
        cmocka_unit_test(replicas_of_a_region_are_hosts_side_by_side),
        cmocka_unit_test(replicas_are_told_of_each_other),
        cmocka_unit_test(ledger_addresses_are_free_and_its_own),
        cmocka_unit_test(bad_shapes_name_the_option),
        cmocka_unit_test(fleet_is_read_as_it_was_written),
        cmocka_unit_test(stranger_with_the_pid_is_not_the_host),
        cmocka_unit_test(bad_options_are_usage_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
