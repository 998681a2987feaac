/* SPDX-License-Identifier: Apache-2.0
 * test_device_ops.c - the device op table on all implementations, and the watch over it.  The real driver is asked where
 * there is one; its misbehaviour comes from fake_driver.c, whose path is the argument.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "orr_test.h"

#include "device_cuda.h"
#include "device_emulated.h"
#include "device_file.h"
#include "device_watch.h"

static const char *fake_driver;

/* ---- what holds for every implementation ------------------------------------------------------------ */

static void
check_probe(struct orr_device *device, uint32_t n, struct orr_device_list *list)
{
    struct orr_error err;
    if (device->ops->probe(device, list, &err) != ORR_OK)
        fail_msg("%s", err.text);
    assert_int_equal(list->n, n);
    for (uint32_t i = 0; i < n; i++) {
        const struct orr_device_info *at = &list->at[i];
        assert_int_equal(at->index, i);
        assert_int_equal(strlen(at->uuid), 40);
        assert_int_equal(strncmp(at->uuid, "GPU-", 4), 0);
        assert_true(at->type[0] && !strchr(at->type, ' '));
        assert_true(at->memory_bytes > 0);
        assert_true(at->is_healthy || at->trouble[0]);
        for (uint32_t j = 0; j < i; j++)
            assert_string_not_equal(at->uuid, list->at[j].uuid);
    }
    struct orr_list_env_var env = device->ops->rank_env(device);
    for (uint32_t i = 0; i < env.n; i++)
        assert_true(env.at[i].name.len && env.at[i].value.len);
}

/* ---- emulated --------------------------------------------------------------------------------------- */

struct emulated {
    char dir[64], state[80], files[80];
    struct orr_device_emulated_config config;
    struct orr_device *device;
    struct orr_error err;
    struct orr_device_list list;
};

static void reopen(struct emulated *e)
{
    if (e->device)
        e->device->ops->close(e->device);
    e->device = NULL;
    if (orr_device_emulated_open(&e->config, &e->device, &e->err) != ORR_OK)
        fail_msg("%s", e->err.text);
    check_probe(e->device, e->config.n, &e->list);
}

static int setup(void **state)
{
    struct emulated *e = calloc(1, sizeof *e);
    strcpy(e->dir, "/tmp/orr-device-XXXXXX");
    assert_non_null(mkdtemp(e->dir));
    snprintf(e->state, sizeof e->state, "%s/state", e->dir);
    snprintf(e->files, sizeof e->files, "%s/files", e->dir);
    assert_int_equal(mkdir(e->state, 0755), 0);
    assert_int_equal(mkdir(e->files, 0755), 0);
    e->config = (struct orr_device_emulated_config){.state_dir = e->state,
                                                    .n = 2,
                                                    .memory_bytes = 1 << 20,
                                                    .file_dir = e->files,
                                                    .driver_dir = "/opt/emulator"};
    reopen(e);
    *state = e;
    return 0;
}

static int teardown(void **state)
{
    struct emulated *e = *state;
    if (e->device)
        e->device->ops->close(e->device);
    assert_int_equal(orr_device_emulated_remove(e->state, NULL), ORR_OK);
    assert_int_equal(rmdir(e->state), 0); /* nothing may be left in either */
    assert_int_equal(rmdir(e->files), 0);
    rmdir(e->dir);
    free(e);
    return 0;
}

/* The path of device i, from the environment that ranks get. */
static const char *path_of(struct emulated *e, uint32_t i)
{
    static char buf[512];
    struct orr_list_env_var env = e->device->ops->rank_env(e->device);
    assert_true(orr_str_eq(env.at[0].name, ORR_LIT("ORRERY_EMULATOR_DEVICES")));
    orr_str_copy(buf, sizeof buf, env.at[0].value);
    char *path = strtok(buf, ":");
    while (i-- > 0)
        path = strtok(NULL, ":");
    assert_non_null(path);
    return path;
}

static void emulated_devices_are_there_and_reachable(void **state)
{
    struct emulated *e = *state;
    struct orr_list_env_var env = e->device->ops->rank_env(e->device);
    struct emu_device_info info;
    assert_string_equal(e->list.at[1].type, "emulated");
    assert_int_equal(e->list.at[1].memory_bytes, 1 << 20);
    assert_true(e->list.at[0].is_healthy && e->list.at[1].is_healthy);
    assert_true(orr_str_eq(env.at[1].name, ORR_LIT("LD_LIBRARY_PATH")));
    assert_true(orr_str_eq(env.at[1].value, ORR_LIT("/opt/emulator")));
    assert_int_equal(emu_device_file_info(path_of(e, 1), &info, NULL), 0);
    char uuid[48];
    orr_device_uuid_text(info.uuid, uuid);
    assert_string_equal(uuid, e->list.at[1].uuid);
}

static void emulated_devices_outlive_the_host(void **state)
{
    struct emulated *e = *state;
    struct orr_device_list first = e->list;
    struct stat before, after;
    assert_int_equal(stat(path_of(e, 0), &before), 0);
    reopen(e);
    assert_int_equal(stat(path_of(e, 0), &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_string_equal(e->list.at[0].uuid, first.at[0].uuid);
    assert_int_equal(unlink(path_of(e, 1)), 0); /* as a restart of the machine does */
    reopen(e);
    assert_string_equal(e->list.at[1].uuid, first.at[1].uuid);
    e->config.n = 3;
    reopen(e);
    assert_string_equal(e->list.at[0].uuid, first.at[0].uuid);
}

static void emulated_device_without_its_file_is_not_healthy(void **state)
{
    struct emulated *e = *state;
    assert_int_equal(unlink(path_of(e, 0)), 0);
    check_probe(e->device, 2, &e->list);
    assert_false(e->list.at[0].is_healthy);
    assert_non_null(strstr(e->list.at[0].trouble, path_of(e, 0)));
    assert_true(e->list.at[1].is_healthy);
}

static void emulated_device_in_use_keeps_its_size(void **state)
{
    struct emulated *e = *state;
    struct emu_device_file *user;
    struct orr_device *other;
    assert_int_equal(emu_device_file_open(path_of(e, 0), &user, NULL), 0);
    e->config.memory_bytes = 2 << 20;
    assert_int_equal(orr_device_emulated_open(&e->config, &other, &e->err), ORR_ESTATE);
    assert_non_null(strstr(e->err.text, path_of(e, 0)));
    emu_device_file_close(user);
    reopen(e);
    assert_int_equal(e->list.at[0].memory_bytes, 2 << 20);
}

static void emulated_fleets_run_side_by_side(void **state)
{
    struct emulated *e = *state;
    char second[90], path[512];
    snprintf(second, sizeof second, "%s/state2", e->dir);
    assert_int_equal(mkdir(second, 0755), 0);
    strcpy(path, path_of(e, 0));
    struct orr_device *mine = e->device;
    e->device = NULL;
    e->config.state_dir = second;
    reopen(e);
    assert_string_not_equal(path_of(e, 0), path);
    assert_int_equal(orr_device_emulated_remove(second, &e->err), ORR_OK);
    assert_int_equal(orr_device_emulated_remove(second, &e->err), ORR_OK);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(rmdir(second), 0);
    mine->ops->close(mine);
}

static void emulated_config_and_damage_are_refused(void **state)
{
    struct emulated *e = *state;
    struct orr_device *other;
    struct orr_device_emulated_config bad = e->config;
    bad.n = ORR_DEVICES_MAX + 1;
    assert_int_equal(orr_device_emulated_open(&bad, &other, &e->err), ORR_EINVAL);
    bad = e->config;
    bad.state_dir = "/no/such";
    assert_int_equal(orr_device_emulated_open(&bad, &other, &e->err), ORR_EIO);
    char list[128], keep[128];
    snprintf(list, sizeof list, "%s/emulated_devices", e->state);
    snprintf(keep, sizeof keep, "%s/keep", e->dir);
    assert_int_equal(rename(list, keep), 0);
    FILE *file = fopen(list, "we");
    fputs("GPU-0123 /tmp/x", file);
    fclose(file);
    assert_int_equal(orr_device_emulated_open(&e->config, &other, &e->err), ORR_EIO);
    assert_non_null(strstr(e->err.text, "line 1"));
    assert_int_equal(rename(keep, list), 0);
}

/* ---- the driver ------------------------------------------------------------------------------------- */

static struct orr_device *
open_cuda(const char *driver, const char *mode, uint32_t timeout_ms)
{
    struct orr_device *device;
    struct orr_device_cuda_config config = {.driver = driver, .timeout_ms = timeout_ms};
    setenv("FAKE_DRIVER", mode, 1);
    assert_int_equal(orr_device_cuda_open(&config, &device, NULL), ORR_OK);
    return device;
}

static void driver_devices_are_listed(void **state)
{
    (void)state;
    struct orr_device_list list;
    struct orr_device *device = open_cuda(fake_driver, "ok", 0);
    check_probe(device, 2, &list);
    assert_string_equal(list.at[0].type, "H100");
    assert_string_equal(list.at[1].type, "NVIDIA-GeForce-RTX-9090");
    assert_string_equal(list.at[0].uuid, "GPU-a0a0a0a0-a0a0-a0a0-a0a0-a0a0a0a0a0a0");
    assert_int_equal(list.at[1].memory_bytes, 2ull << 30);
    device->ops->close(device);
}

static void driver_trouble_is_an_error_with_a_remedy(void **state)
{
    static const struct {
        const char *mode;
        enum orr_err code;
        const char *text;
    } cases[] = {
        {"refuse", ORR_ENODEV, "sees no GPU"},
        {"none", ORR_ENODEV, "lists no device"},
        {"crash", ORR_EIO, "crashed (signal 6)"},
        {"hang", ORR_ETIMEOUT, "within 1500 ms"},
        {"midway", ORR_EIO, "a reason (214)"},
    };
    (void)state;
    struct orr_device_list list;
    struct orr_error err;
    for (size_t i = 0; i < ORR_ARRAY_SIZE(cases); i++) {
        struct orr_device *device = open_cuda(fake_driver, cases[i].mode, 1500);
        enum orr_err rc = device->ops->probe(device, &list, &err);
        if (rc != cases[i].code || !strstr(err.text, cases[i].text))
            fail_msg("%s: %s: %s", cases[i].mode, orr_err_name(rc), err.text);
        device->ops->close(device);
    }
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
}

static void driver_that_is_absent_means_no_devices(void **state)
{
    (void)state;
    struct orr_device_list list;
    struct orr_error err;
    struct orr_device *device = open_cuda("/no/such/libcuda.so.1", "ok", 0);
    assert_int_equal(device->ops->probe(device, &list, &err), ORR_ENODEV);
    assert_non_null(strstr(err.text, "/no/such/libcuda.so.1"));
    assert_non_null(strstr(err.text, "install it"));
    device->ops->close(device);
}

static void driver_of_this_machine_lists_its_devices(void **state)
{
    (void)state;
    struct orr_device_list list;
    struct orr_error err;
    struct orr_device *device = open_cuda(NULL, "ok", 0);
    if (device->ops->probe(device, &list, &err) == ORR_OK) {
        check_probe(device, list.n, &list);
        for (uint32_t i = 0; i < list.n; i++)
            print_message("device %u: %s %s, %lu bytes %s\n",
                          i,
                          list.at[i].uuid,
                          list.at[i].type,
                          (unsigned long)list.at[i].memory_bytes,
                          list.at[i].trouble);
        device->ops->close(device);
        return;
    }
    device->ops->close(device);
    assert_int_equal(err.code, ORR_ENODEV);
    print_message("skipped: %s\n", err.text);
    skip();
}

static void type_is_the_short_name(void **state)
{
    static const char *const cases[][2] = {
        {"NVIDIA H100 80GB HBM3", "H100"},
        {"NVIDIA A100-SXM4-80GB", "A100"},
        {"NVIDIA H200", "H200"},
        {"NVIDIA GH200 480GB", "NVIDIA-GH200-480GB"},
        {"Tesla T4", "Tesla-T4"},
        {"", "unknown"},
    };
    (void)state;
    for (size_t i = 0; i < ORR_ARRAY_SIZE(cases); i++) {
        char type[64];
        orr_device_type_of(cases[i][0], type, sizeof type);
        assert_string_equal(type, cases[i][1]);
    }
}

/* ---- the watch -------------------------------------------------------------------------------------- */

struct told {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int n_refusals, n_found;
    uint32_t n_devices, n_env;
    bool has_why;
    char troubles[4][256];
    bool is_healthy[4];
};

static enum orr_err refuse(struct told *t)
{
    return t->n_refusals > 0 ? (t->n_refusals--, ORR_EBUSY) : ORR_OK;
}

static void store(struct told *t, const struct orr_rec_device_row *row)
{
    t->is_healthy[row->index] = row->is_healthy;
    orr_str_copy(t->troubles[row->index], sizeof t->troubles[0], row->trouble);
}

static enum orr_err on_found(void *arg,
                             struct orr_list_device_row devices,
                             struct orr_list_env_var rank_env,
                             const char *why)
{
    struct told *t = arg;
    pthread_mutex_lock(&t->lock);
    enum orr_err rc = refuse(t);
    if (rc == ORR_OK) {
        t->n_found++;
        t->n_devices = devices.n;
        t->n_env = rank_env.n;
        t->has_why = why != NULL;
        for (uint32_t i = 0; i < devices.n; i++)
            store(t, &devices.at[i]);
    }
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
    return rc;
}

static enum orr_err on_health(void *arg, const struct orr_rec_device_row *row)
{
    struct told *t = arg;
    pthread_mutex_lock(&t->lock);
    enum orr_err rc = refuse(t);
    if (rc == ORR_OK)
        store(t, row);
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
    return rc;
}

/* Wait until *what is value; the test fails after 20 s.  Call with the lock held. */
#define WAIT_FOR(t, condition)                                                         \
    do {                                                                               \
        struct timespec until_;                                                        \
        clock_gettime(CLOCK_REALTIME, &until_);                                        \
        until_.tv_sec += 20;                                                           \
        int rc_ = 0;                                                                   \
        while (!(condition) && rc_ == 0)                                               \
            rc_ = pthread_cond_timedwait(&(t)->changed, &(t)->lock, &until_);          \
        if (rc_ != 0)                                                                  \
            fail_msg("never came: %s", #condition);                                    \
    } while (0)

static void watch_tells_what_is_found_and_what_changes(void **state)
{
    struct emulated *e = *state;
    struct orr_device_watch *watch;
    char kept[100];
    struct told t = {.lock = PTHREAD_MUTEX_INITIALIZER,
                     .changed = PTHREAD_COND_INITIALIZER,
                     .n_refusals = 2};
    snprintf(kept, sizeof kept, "%s/kept", e->dir);
    assert_int_equal(orr_device_watch_new(e->device, 10, &watch, &e->err), ORR_OK);
    orr_device_watch_attach(watch, &(struct orr_device_sink){on_found, on_health, &t});
    pthread_mutex_lock(&t.lock);
    WAIT_FOR(&t, t.n_found == 1);
    assert_true(t.n_devices == 2 && t.n_env >= 2 && !t.has_why && t.is_healthy[1]);
    t.n_refusals = 2;
    pthread_mutex_unlock(&t.lock);
    assert_int_equal(rename(path_of(e, 1), kept), 0);
    pthread_mutex_lock(&t.lock);
    WAIT_FOR(&t, !t.is_healthy[1]);
    assert_non_null(strstr(t.troubles[1], path_of(e, 1)));
    pthread_mutex_unlock(&t.lock);
    assert_int_equal(rename(kept, path_of(e, 1)), 0);
    pthread_mutex_lock(&t.lock);
    WAIT_FOR(&t, t.is_healthy[1]);
    assert_string_equal(t.troubles[1], "");
    pthread_mutex_unlock(&t.lock);
    orr_device_watch_attach(watch, &(struct orr_device_sink){on_found, on_health, &t});
    pthread_mutex_lock(&t.lock);
    WAIT_FOR(&t, t.n_found == 2);
    pthread_mutex_unlock(&t.lock);
    orr_device_watch_free(watch);
}

/* An op table whose second device comes and goes. */
enum { SCRIPT_BOTH, SCRIPT_FIRST, SCRIPT_FAIL };
static _Atomic int script;

static enum orr_err scripted_probe(struct orr_device *device,
                                   struct orr_device_list *ret_list,
                                   struct orr_error *err)
{
    (void)device;
    int now = script;
    if (now == SCRIPT_FAIL)
        return orr_fail(err, ORR_EIO, "the driver is angry");
    ret_list->n = now == SCRIPT_BOTH ? 2 : 1;
    for (uint32_t i = 0; i < ret_list->n; i++) {
        ret_list->at[i] =
            (struct orr_device_info){.index = i, .memory_bytes = 1, .is_healthy = true};
        snprintf(ret_list->at[i].uuid, sizeof ret_list->at[i].uuid, "GPU-%u", i);
    }
    return ORR_OK;
}

static struct orr_list_env_var scripted_rank_env(struct orr_device *device)
{
    (void)device;
    return (struct orr_list_env_var){NULL, 0};
}

static void watch_tells_devices_that_fall_off_and_come_back(void **state)
{
    (void)state;
    struct orr_device_watch *watch;
    struct told t = {.lock = PTHREAD_MUTEX_INITIALIZER,
                     .changed = PTHREAD_COND_INITIALIZER};
    const struct orr_device_ops ops = {.probe = scripted_probe,
                                       .rank_env = scripted_rank_env};
    struct orr_device device = {&ops};
    script = SCRIPT_BOTH;
    assert_int_equal(orr_device_watch_new(&device, 10, &watch, NULL), ORR_OK);
    orr_device_watch_attach(watch, &(struct orr_device_sink){on_found, on_health, &t});
    pthread_mutex_lock(&t.lock);
    WAIT_FOR(&t, t.n_found == 1 && t.is_healthy[1]);
    script = SCRIPT_FIRST;
    WAIT_FOR(&t, !t.is_healthy[1]);
    assert_true(t.is_healthy[0] && strstr(t.troubles[1], "fallen off"));
    script = SCRIPT_FAIL;
    WAIT_FOR(&t, !t.is_healthy[0] && strstr(t.troubles[1], "angry"));
    script = SCRIPT_BOTH;
    WAIT_FOR(&t, t.is_healthy[0] && t.is_healthy[1]);
    pthread_mutex_unlock(&t.lock);
    orr_device_watch_free(watch);
}

static void watch_without_devices_tells_why(void **state)
{
    (void)state;
    struct orr_device_watch *watch;
    struct told t = {.lock = PTHREAD_MUTEX_INITIALIZER,
                     .changed = PTHREAD_COND_INITIALIZER};
    struct orr_device *device = open_cuda("/no/such/libcuda.so.1", "ok", 0);
    assert_int_equal(orr_device_watch_new(device, 60000, &watch, NULL), ORR_OK);
    orr_device_watch_attach(watch, &(struct orr_device_sink){on_found, on_health, &t});
    pthread_mutex_lock(&t.lock);
    WAIT_FOR(&t, t.n_found == 1);
    assert_true(t.n_devices == 0 && t.has_why);
    pthread_mutex_unlock(&t.lock);
    orr_device_watch_free(watch);
    device->ops->close(device);
}

#define EMULATED_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], ORR_DEVICE_PROBE_ARG) == 0)
        return orr_device_probe_main(argc, argv);
    if (argc != 2)
        return 2;
    fake_driver = argv[1];
    const struct CMUnitTest tests[] = {
        EMULATED_TEST(emulated_devices_are_there_and_reachable),
        EMULATED_TEST(emulated_devices_outlive_the_host),
        EMULATED_TEST(emulated_device_without_its_file_is_not_healthy),
        EMULATED_TEST(emulated_device_in_use_keeps_its_size),
        EMULATED_TEST(emulated_fleets_run_side_by_side),
        EMULATED_TEST(emulated_config_and_damage_are_refused),
        cmocka_unit_test(driver_devices_are_listed),
        cmocka_unit_test(driver_trouble_is_an_error_with_a_remedy),
        cmocka_unit_test(driver_that_is_absent_means_no_devices),
        cmocka_unit_test(driver_of_this_machine_lists_its_devices),
        cmocka_unit_test(type_is_the_short_name),
        EMULATED_TEST(watch_tells_what_is_found_and_what_changes),
        cmocka_unit_test(watch_tells_devices_that_fall_off_and_come_back),
        cmocka_unit_test(watch_without_devices_tells_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
