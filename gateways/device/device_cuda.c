/* SPDX-License-Identifier: Apache-2.0
 * device_cuda.c - device_cuda.h: starting the probe process, reading its lines within the deadline.
 */
#include "device_cuda.h"

#include "device_helper.h"
#include "device_lib.h"
#include "device_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { OUTPUT_BYTES_MAX = 64 << 10, DEATH_MS_MAX = 2000 };

struct device_cuda {
    struct orr_device base;
    char driver[256];
    uint32_t timeout_ms;
    pid_t stuck;   /* a probe that even SIGKILL has not ended yet, or 0 */
    char *preload; /* owned; NULL: ranks reach the driver directly */
    struct orr_rec_env_var env[2];
    struct orr_device_done_sink sink;
    struct orr_device_helper *helper; /* owned */
};

/* ---- names ------------------------------------------------------------------------------------ */

void orr_device_type_of(const char *name, char *type, size_t cap)
{
    static const char *const known[] = {"H100", "H200", "A100"};
    for (const char *at = name; *at;) { /* whole words: a GH200 is no H200 */
        size_t len = strcspn(at, " -");
        for (size_t i = 0; i < ORR_ARRAY_SIZE(known); i++) {
            if (strlen(known[i]) == len && memcmp(at, known[i], len) == 0) {
                orr_str_copy(type, cap, orr_str(known[i]));
                return;
            }
        }
        at += len + strspn(at + len, " -");
    }
    orr_str_copy(type, cap, orr_str(*name ? name : "unknown"));
    for (char *c = type; *c; c++) {
        if (*c == ' ')
            *c = '-';
    }
}

/* ---- the process ------------------------------------------------------------------------------ */

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int start_probe(struct device_cuda *device, pid_t *ret_pid, int *ret_output)
{
    extern char **environ;
    int output[2];
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t all, none;
    char *argv[] = {
        (char[]){"orrery"}, (char[]){ORR_DEVICE_PROBE_ARG}, device->driver, NULL};
    if (pipe2(output, O_CLOEXEC) != 0)
        return errno;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, output[1], 1);
    posix_spawn_file_actions_addclosefrom_np(&files, 3);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr,
                             (short)(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK));
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setsigmask(&attr, &none);
    int rc = posix_spawn(ret_pid, "/proc/self/exe", &files, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    close(output[1]);
    if (rc != 0)
        close(output[0]);
    *ret_output = output[0];
    return rc;
}

/* Until the end of the stream; false when the deadline passed first. */
static bool read_output(int fd, uint64_t deadline_ms, char *buf, size_t cap)
{
    size_t len = 0;
    for (;;) {
        uint64_t now = now_ms();
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        buf[len] = '\0';
        if (now >= deadline_ms)
            return false;
        if (poll(&wait, 1, (int)(deadline_ms - now)) <= 0)
            continue;
        ssize_t n = len < cap - 1 ? read(fd, buf + len, cap - 1 - len) : 0;
        if (n == 0)
            return true;
        if (n > 0)
            len += (size_t)n;
    }
}

/* ---- its lines -------------------------------------------------------------------------------- */

static bool parse_device(const char *line, struct orr_device_list *list)
{
    struct orr_device_info *info = &list->at[list->n];
    int is_healthy, at = 0;
    if (list->n == ORR_DEVICES_MAX)
        return false;
    *info = (struct orr_device_info){.index = list->n};
    if (sscanf(line,
               "device %47s %" SCNu64 " %d %63s %n",
               info->uuid,
               &info->memory_bytes,
               &is_healthy,
               info->type,
               &at) != 4)
        return false;
    info->is_healthy = is_healthy != 0;
    orr_str_copy(info->trouble, sizeof info->trouble, orr_str(line + at));
    list->n++;
    return true;
}

static enum orr_err
parse_output(char *text, struct orr_device_list *list, struct orr_error *err)
{
    char *rest = NULL;
    list->n = 0;
    for (char *line = strtok_r(text, "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest)) {
        int code, at = 0;
        if (strcmp(line, "end") == 0)
            return list->n ? ORR_OK
                           : orr_fail(err,
                                      ORR_ENODEV,
                                      "the GPU driver lists no device; see nvidia-smi");
        if (sscanf(line, "error %d %n", &code, &at) == 1 && code > 0 &&
            code < ORR_ERR_MAX_)
            return orr_fail(err, (enum orr_err)code, "%s", line + at);
        if (!parse_device(line, list))
            return orr_fail(err,
                            ORR_EIO,
                            "the GPU probe wrote a line that it should not: %.100s",
                            line);
    }
    return orr_fail(
        err, ORR_EIO, "the GPU probe ended before it had listed all devices");
}

/* End a probe.  A driver can hold its process in the kernel beyond SIGKILL: then it is left alone, and there is no other
 * probe until it has gone. */
static bool end_probe(struct device_cuda *device, pid_t pid, int *ret_status)
{
    int pidfd = pidfd_open(pid, 0);
    struct pollfd wait = {.fd = pidfd, .events = POLLIN};
    kill(pid, SIGKILL);
    bool has_ended = pidfd < 0 || poll(&wait, 1, DEATH_MS_MAX) > 0;
    if (pidfd >= 0)
        close(pidfd);
    device->stuck = has_ended ? 0 : pid;
    return has_ended && waitpid(pid, ret_status, 0) == pid;
}

static enum orr_err cuda_probe(struct orr_device *base,
                               struct orr_device_list *ret_list,
                               struct orr_error *err)
{
    struct device_cuda *device = (struct device_cuda *)base;
    pid_t pid;
    int fd, status = 0;
    if (device->stuck && !end_probe(device, device->stuck, &status))
        return orr_fail(
            err,
            ORR_ETIMEOUT,
            "the GPU driver holds process %d since the last probe; restart the machine",
            (int)device->stuck);
    char *output = malloc(OUTPUT_BYTES_MAX);
    int error = output ? start_probe(device, &pid, &fd) : ENOMEM;
    if (error) {
        free(output);
        return orr_fail(
            err, ORR_EIO, "cannot start the GPU probe: %s", strerror(error));
    }
    bool is_in_time =
        read_output(fd, now_ms() + device->timeout_ms, output, OUTPUT_BYTES_MAX);
    close(fd);
    bool has_ended = end_probe(device, pid, &status);
    enum orr_err rc;
    if (!is_in_time || !has_ended)
        rc = orr_fail(err,
                      ORR_ETIMEOUT,
                      "the GPU driver did not answer within %u ms; see the kernel's "
                      "log for Xid errors",
                      device->timeout_ms);
    else if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
        rc = orr_fail(
            err,
            ORR_EIO,
            "the GPU driver crashed (signal %d) while it was asked for its devices",
            WTERMSIG(status));
    else
        rc = parse_output(output, ret_list, err);
    free(output);
    return rc;
}

/* ---- the op table ------------------------------------------------------------------------------ */

static struct orr_list_env_var cuda_rank_env(struct orr_device *base)
{
    struct device_cuda *device = (struct device_cuda *)base;
    return (struct orr_list_env_var){device->env, device->preload ? 2 : 1};
}

static void cuda_attach(struct orr_device *base, orr_device_done_f done, void *arg)
{
    orr_device_sink_set(&((struct device_cuda *)base)->sink, done, arg);
}

static enum orr_err cuda_ask(struct orr_device *base,
                             const struct orr_device_request *request,
                             struct orr_error *err)
{
    return orr_device_helper_ask(((struct device_cuda *)base)->helper, request, err);
}

static void cuda_close(struct orr_device *base)
{
    orr_device_helper_free(((struct device_cuda *)base)->helper);
    free(((struct device_cuda *)base)->preload);
    free(base);
}

static const struct orr_device_ops cuda_ops = {
    .probe = cuda_probe,
    .rank_env = cuda_rank_env,
    .attach = cuda_attach,
    .ask = cuda_ask,
    .close = cuda_close,
};

enum orr_err orr_device_cuda_open(const struct orr_device_cuda_config *config,
                                  struct orr_device **ret_device,
                                  struct orr_error *err)
{
    const char *driver = config->driver ? config->driver : "libcuda.so.1";
    struct device_cuda *device = calloc(1, sizeof *device);
    if (!device)
        return orr_fail(err, ORR_ENOMEM, "GPU driver: out of memory");
    if (strlen(driver) >= sizeof device->driver) {
        free(device);
        return orr_fail(err, ORR_EINVAL, "driver: %.60s...: too long", driver);
    }
    device->base.ops = &cuda_ops;
    device->timeout_ms = config->timeout_ms ? config->timeout_ms : 60000;
    device->preload = orr_device_preload();
    device->env[1] = (struct orr_rec_env_var){
        ORR_LIT("LD_PRELOAD"), orr_str(device->preload ? device->preload : "")};
    device->env[0] =
        (struct orr_rec_env_var){ORR_LIT("CUDA_DEVICE_ORDER"), ORR_LIT("PCI_BUS_ID")};
    orr_str_copy(device->driver, sizeof device->driver, orr_str(driver));
    pthread_mutex_init(&device->sink.lock, NULL);
    const struct orr_device_helper_config helper = {
        .driver = device->driver, .done = orr_device_sink_tell, .arg = &device->sink};
    enum orr_err rc = orr_device_helper_new(&helper, &device->helper, err);
    if (rc != ORR_OK) {
        cuda_close(&device->base);
        return rc;
    }
    *ret_device = &device->base;
    return ORR_OK;
}
