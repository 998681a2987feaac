/* SPDX-License-Identifier: Apache-2.0
 * test_device_helper.c - processes on emulated devices are suspended and resumed by the helper; it is killed, and hangs, meanwhile.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "device_emulated.h"
#include "device_helper.h"
#include "orr_test.h"
#include "orrery/gpu_abi.h"

enum { BYTES = 4 << 20, WAIT_MS = 20000, SHORT_MS = 200 };

static const char *driver_dir;
static char dir[64];
static struct orr_device *device;
static pid_t victim;
static int ask_fd, answer_fd;
static bool sees_two; /* the victim, which uses the first */

/* ---- the victim --------------------------------------------------------------------------- */

static void sleep_in_stream(void *unused)
{
    const struct timespec long_enough = {.tv_sec = 1};
    (void)unused;
    nanosleep(&long_enough, NULL); /* the work that the driver must wait for */
}

/* 'c': is the memory as it was. 'b': begin work that takes a second. */
static int victim_main(void)
{
    static unsigned char copy[BYTES];
    CUcontext ctx;
    CUdeviceptr p;
    char order;
    if (cuInit(0) || cuDevicePrimaryCtxRetain(&ctx, 0) || cuCtxSetCurrent(ctx) ||
        cuMemAlloc(&p, BYTES) || cuMemsetD8(p, 0x5a, BYTES) || cuCtxSynchronize())
        return 1;
    for (order = 'y'; write(1, &order, 1) == 1 && read(0, &order, 1) == 1;) {
        bool ok = order == 'b'
                      ? cuLaunchHostFunc(NULL, sleep_in_stream, NULL) == CUDA_SUCCESS
                      : cuMemcpyDtoH(copy, p, BYTES) == CUDA_SUCCESS;
        for (size_t i = 0; order == 'c' && ok && i < BYTES; i++)
            ok = copy[i] == 0x5a;
        order = ok ? 'y' : 'n';
    }
    return 0;
}

static bool answers(int ms)
{
    char c = 'n';
    struct pollfd p = {.fd = answer_fd, .events = POLLIN};
    return poll(&p, 1, ms) == 1 && read(answer_fd, &c, 1) == 1 && c == 'y';
}

static void tell(char order)
{
    assert_int_equal(write(ask_fd, &order, 1), 1);
}

static void start_victim(void)
{
    extern char **environ;
    int in[2], out[2];
    char *argv[] = {(char[]){"victim"}, (char[]){"--victim"}, NULL};
    posix_spawn_file_actions_t files;
    struct orr_list_env_var env = device->ops->rank_env(device);
    char value[4096];
    assert_int_equal(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC), 0);
    orr_str_copy(value, sizeof value, env.at[0].value);
    setenv("ORRERY_EMULATOR_DEVICES", value, 1);
    setenv("CUDA_VISIBLE_DEVICES", sees_two ? "0,1" : "0", 1);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, in[0], 0);
    posix_spawn_file_actions_adddup2(&files, out[1], 1);
    assert_int_equal(
        posix_spawn(&victim, "/proc/self/exe", &files, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&files);
    unsetenv("ORRERY_EMULATOR_DEVICES"); /* the helper must get it from the device */
    unsetenv("CUDA_VISIBLE_DEVICES");
    close(in[0]);
    close(out[1]);
    ask_fd = in[1];
    answer_fd = out[0];
    assert_true(answers(WAIT_MS));
}

/* ---- asking ----------------------------------------------------------------------------------- */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t n;
    struct orr_device_result last;
} told = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void done(void *arg, const struct orr_device_result *result)
{
    (void)arg;
    pthread_mutex_lock(&told.lock);
    told.n++;
    told.last = *result;
    pthread_cond_signal(&told.changed);
    pthread_mutex_unlock(&told.lock);
}

static void send_request(struct orr_device_request q)
{
    static uint64_t n_tickets;
    struct orr_error err;
    q.ticket = ++n_tickets;
    told.n = 0;
    assert_int_equal(device->ops->ask(device, &q, &err), ORR_OK);
}

static struct orr_device_result wait_result(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MS / 1000;
    pthread_mutex_lock(&told.lock);
    while (!told.n)
        assert_int_equal(pthread_cond_timedwait(&told.changed, &told.lock, &until), 0);
    struct orr_device_result r = told.last;
    pthread_mutex_unlock(&told.lock);
    return r;
}

static struct orr_device_result ask(enum orr_device_op op, uint32_t timeout_ms)
{
    send_request((struct orr_device_request){
        .op = op, .pid = (uint32_t)victim, .timeout_ms = timeout_ms});
    return wait_result();
}

static void expect_ok(struct orr_device_result r)
{
    if (r.code != ORR_OK)
        fail_msg("%s: %s", orr_err_name(r.code), r.text);
}

static void expect_usage(uint64_t bytes, uint32_t processes)
{
    struct orr_device_result r = ask(ORR_DEVICE_USAGE, WAIT_MS);
    expect_ok(r);
    assert_int_equal(r.bytes, bytes);
    assert_int_equal(r.processes, processes);
}

/* The one child of ours that is not the victim. */
static pid_t helper_pid(void)
{
    char name[64];
    long pid, found = 0;
    snprintf(name, sizeof name, "/proc/self/task/%d/children", getpid());
    FILE *f = fopen(name, "re");
    assert_non_null(f);
    while (fscanf(f, "%ld", &pid) == 1)
        found = pid != victim ? pid : found;
    fclose(f);
    if (found)
        return (pid_t)found;
    DIR *tasks = opendir("/proc/self/task"); /* started by another thread of ours */
    for (struct dirent *e; tasks && (e = readdir(tasks));) {
        snprintf(name, sizeof name, "/proc/self/task/%.20s/children", e->d_name);
        f = fopen(name, "re");
        while (f && fscanf(f, "%ld", &pid) == 1)
            found = pid != victim ? pid : found;
        if (f)
            fclose(f);
    }
    closedir(tasks);
    assert_true(found > 0);
    return (pid_t)found;
}

static int set_up(void **state)
{
    struct orr_error err;
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/orr-helper-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    const struct orr_device_emulated_config config = {
        .state_dir = dir, .n = 2, .memory_bytes = 16 << 20, .driver_dir = driver_dir};
    if (orr_device_emulated_open(&config, &device, &err) != ORR_OK)
        return -1;
    device->ops->attach(device, done, NULL);
    start_victim();
    return 0;
}

static int set_up_two(void **state)
{
    sees_two = true;
    return set_up(state);
}

static int tear_down(void **state)
{
    (void)state;
    sees_two = false;
    close(ask_fd);
    close(answer_fd);
    kill(victim, SIGKILL);
    waitpid(victim, NULL, 0);
    device->ops->close(device);
    enum orr_err rc = orr_device_emulated_remove(dir, NULL);
    rmdir(dir);
    return rc == ORR_OK ? 0 : -1;
}

/* ---- tests --------------------------------------------------------------------------------------- */

static void suspended_process_frees_the_device_and_comes_back(void **state)
{
    (void)state;
    expect_usage(BYTES, 1);
    expect_ok(ask(ORR_DEVICE_SUSPEND, WAIT_MS));
    expect_ok(ask(ORR_DEVICE_SUSPEND, WAIT_MS)); /* it is already */
    expect_usage(0, 0);
    tell('c');
    assert_false(answers(SHORT_MS));
    expect_ok(ask(ORR_DEVICE_RESUME, WAIT_MS));
    assert_true(answers(WAIT_MS));
    expect_ok(ask(ORR_DEVICE_RESUME, WAIT_MS));
    expect_usage(BYTES, 1);
}

static void process_moves_to_another_device(void **state)
{
    struct orr_device_list list;
    struct orr_error err;
    struct orr_device_request q = {
        .op = ORR_DEVICE_RESUME, .pid = (uint32_t)victim, .timeout_ms = WAIT_MS};
    (void)state;
    assert_int_equal(device->ops->probe(device, &list, &err), ORR_OK);
    expect_ok(ask(ORR_DEVICE_SUSPEND, WAIT_MS));
    orr_str_copy(q.from, sizeof q.from, orr_str(list.at[0].uuid));
    orr_str_copy(q.to, sizeof q.to, ORR_LIT("GPU-what"));
    send_request(q);
    assert_int_equal(wait_result().code, ORR_EINVAL);
    orr_str_copy(q.to, sizeof q.to, orr_str(list.at[1].uuid));
    if (sees_two) {
        send_request(q); /* of one only */
        assert_int_not_equal(wait_result().code, ORR_OK);
        snprintf(q.from, sizeof q.from, "%s,%s", list.at[0].uuid, list.at[1].uuid);
        snprintf(q.to, sizeof q.to, "%s,%s", list.at[1].uuid, list.at[0].uuid);
    }
    send_request(q);
    expect_ok(wait_result());
    expect_usage(0, 0); /* of device 0, which it may see */
    send_request((struct orr_device_request){
        .op = ORR_DEVICE_USAGE, .index = 1, .timeout_ms = WAIT_MS});
    assert_int_equal(wait_result().bytes, BYTES);
    tell('c');
    assert_true(answers(WAIT_MS));
}

static void process_without_devices_needs_nothing(void **state)
{
    (void)state;
    struct orr_device_request q = {
        .op = ORR_DEVICE_SUSPEND, .pid = (uint32_t)getpid(), .timeout_ms = WAIT_MS};
    send_request(q);
    expect_ok(wait_result());
    q.op = ORR_DEVICE_RESUME;
    send_request(q);
    expect_ok(wait_result());
}

static void busy_process_runs_on_after_the_deadline(void **state)
{
    (void)state;
    expect_ok(ask(ORR_DEVICE_RESUME, WAIT_MS)); /* the helper is there */
    tell('b');
    assert_true(answers(WAIT_MS));
    assert_int_equal(ask(ORR_DEVICE_SUSPEND, SHORT_MS).code, ORR_ETIMEOUT);
    tell('c');
    assert_true(answers(WAIT_MS));
    expect_usage(BYTES, 1);
    struct orr_device_result r; /* the thread that came too late may still be undoing */
    do
        r = ask(ORR_DEVICE_SUSPEND, WAIT_MS);
    while (r.code == ORR_EBUSY);
    expect_ok(r);
    expect_ok(ask(ORR_DEVICE_RESUME, WAIT_MS));
}

/* It works on a request: in a thread of its own. */
static void wait_at_work(pid_t helper)
{
    char path[64];
    struct stat st;
    snprintf(path, sizeof path, "/proc/%d/task", (int)helper);
    for (int ms = 0; ms < WAIT_MS; ms++) {
        assert_int_equal(stat(path, &st), 0);
        if (st.st_nlink > 3) /* ., .. and the first */
            return;
        poll(NULL, 0, 1);
    }
    fail_msg("the helper has not begun");
}

/* With all of its threads: its files are closed. */
static bool is_dead(pid_t pid)
{
    char path[64], text[64], state = 'Z';
    struct stat st;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    if (stat(path, &st) == 0 && st.st_nlink > 3)
        return false;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (f && fgets(text, sizeof text, f))
        sscanf(text, "%*d (%*[^)]) %c", &state);
    if (f)
        fclose(f);
    return state == 'Z';
}

static void request_that_a_dead_helper_never_had_is_done_by_the_next(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        expect_ok(ask(ORR_DEVICE_RESUME, WAIT_MS));
        const pid_t first = helper_pid();
        assert_int_equal(kill(first, SIGKILL), 0);
        while (!is_dead(first))
            poll(NULL, 0, 1);
        expect_ok(ask(ORR_DEVICE_SUSPEND, WAIT_MS));
    }
    expect_ok(ask(ORR_DEVICE_RESUME, WAIT_MS));
    tell('c');
    assert_true(answers(WAIT_MS));
}

static void killed_helper_fails_its_requests_and_is_replaced(void **state)
{
    (void)state;
    expect_ok(ask(ORR_DEVICE_RESUME, WAIT_MS));
    tell('b');
    assert_true(answers(WAIT_MS));
    const pid_t first = helper_pid();
    send_request((struct orr_device_request){
        .op = ORR_DEVICE_SUSPEND, .pid = (uint32_t)victim, .timeout_ms = WAIT_MS});
    wait_at_work(first); /* what it has not got yet goes to the next one */
    assert_int_equal(kill(first, SIGABRT), 0);
    struct orr_device_result r = wait_result();
    assert_int_equal(r.code, ORR_EIO);
    assert_non_null(strstr(r.text, "crashed (signal 6)"));
    do /* the driver in the victim still waits for the work: it is locked, or not yet */
        r = ask(ORR_DEVICE_RESUME, WAIT_MS);
    while (r.code != ORR_OK);
    assert_int_not_equal(helper_pid(), first);
    do
        r = ask(ORR_DEVICE_SUSPEND, WAIT_MS);
    while (r.code == ORR_ESTATE);
    expect_ok(r);
    expect_ok(ask(ORR_DEVICE_RESUME, WAIT_MS));
    tell('c');
    assert_true(answers(WAIT_MS));
}

static void hanging_helper_is_ended(void **state)
{
    (void)state;
    expect_ok(ask(ORR_DEVICE_RESUME, WAIT_MS));
    assert_int_equal(kill(helper_pid(), SIGSTOP), 0);
    assert_int_equal(ask(ORR_DEVICE_RESUME, SHORT_MS).code, ORR_ETIMEOUT);
    expect_ok(ask(ORR_DEVICE_SUSPEND, WAIT_MS));
    expect_ok(ask(ORR_DEVICE_RESUME, WAIT_MS));
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], ORR_DEVICE_HELPER_ARG) == 0)
        return orr_device_helper_main(argc, argv);
    if (argc == 2 && strcmp(argv[1], "--victim") == 0)
        return victim_main();
    driver_dir = argc > 1 ? argv[1] : ".";
    signal(SIGPIPE, SIG_IGN);
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(suspended_process_frees_the_device_and_comes_back),
        CASE(process_moves_to_another_device),
        /* The driver wants to hear of every device that it can see. */
        cmocka_unit_test_setup_teardown(
            process_moves_to_another_device, set_up_two, tear_down),
        CASE(process_without_devices_needs_nothing),
        CASE(busy_process_runs_on_after_the_deadline),
        CASE(request_that_a_dead_helper_never_had_is_done_by_the_next),
        CASE(killed_helper_fails_its_requests_and_is_replaced),
        CASE(hanging_helper_is_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
