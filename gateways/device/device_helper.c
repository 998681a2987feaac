/* SPDX-License-Identifier: Apache-2.0
 * device_helper.c - the host's side of device_helper.h: one thread that starts the process, hands requests over, and sees to it that
 * each of them is answered.
 */
#include "device_helper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    GRACE_MS = 5000
}; /* the helper keeps the deadlines itself; this long after one it counts as hanging */

enum pending_state { PENDING_FREE, PENDING_NEW, PENDING_SENT };

struct pending {
    enum pending_state state;
    uint64_t give_up_ms;
    struct orr_device_request request;
};

struct orr_device_helper {
    char *driver; /* owned */
    char **env;   /* owned, with its texts; "NAME=value", NULL at the end */
    size_t n_env;
    orr_device_done_f done;
    void *arg;
    pthread_t thread;
    int wake;             /* eventfd */
    int sock;             /* -1: no process; the thread's alone */
    pthread_mutex_t lock; /* guards what follows */
    pid_t pid;
    bool is_closing;
    struct pending pending[ORRI_HELPER_REQUESTS_MAX];
};

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- the process ------------------------------------------------------------------------- */

/* The host's environment, ours in its place. */
static char **merged_env(const struct orr_device_helper *h)
{
    extern char **environ;
    size_t n = 0;
    while (environ[n])
        n++;
    char **env = calloc(n + h->n_env + 1, sizeof *env);
    size_t kept = 0;
    for (size_t i = 0; env && i < n; i++) {
        size_t name = strcspn(environ[i], "=") + 1;
        bool is_ours = false;
        for (size_t k = 0; k < h->n_env; k++)
            is_ours |= strncmp(environ[i], h->env[k], name) == 0;
        if (!is_ours)
            env[kept++] = environ[i];
    }
    for (size_t k = 0; env && k < h->n_env; k++)
        env[kept++] = h->env[k];
    return env;
}

static int start_program(struct orr_device_helper *h, int sock, pid_t *ret_pid)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t all, none;
    char *argv[] = {
        (char[]){"orrery"}, (char[]){ORR_DEVICE_HELPER_ARG}, h->driver, NULL};
    char **env = merged_env(h);
    if (!env)
        return ENOMEM;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDWR, 0);
    posix_spawn_file_actions_adddup2(&files, sock, ORRI_HELPER_FD);
    posix_spawn_file_actions_addclosefrom_np(&files, ORRI_HELPER_FD + 1);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(
        &attr,
        (short)(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID));
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setsigmask(&attr, &none);
    int rc = posix_spawn(ret_pid, "/proc/self/exe", &files, &attr, argv, env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    free(env);
    return rc;
}

static int start(struct orr_device_helper *h)
{
    int pair[2];
    pid_t pid = 0;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return errno;
    int rc = start_program(h, pair[1], &pid);
    close(pair[1]);
    if (rc != 0) {
        close(pair[0]);
        return rc;
    }
    pthread_mutex_lock(&h->lock);
    h->pid = pid;
    pthread_mutex_unlock(&h->lock);
    h->sock = pair[0];
    return 0;
}

/* ---- requests ---------------------------------------------------------------------------- */

static void finish(struct orr_device_helper *h,
                   struct pending *p,
                   const struct orr_device_result *r)
{
    pthread_mutex_lock(&h->lock);
    p->state = PENDING_FREE;
    pthread_mutex_unlock(&h->lock);
    h->done(h->arg, r);
}

static void fail_pending(struct orr_device_helper *h,
                         struct pending *p,
                         enum orr_err code,
                         const char *text)
{
    struct orr_device_result r = {.ticket = p->request.ticket, .code = code};
    orr_str_copy(r.text, sizeof r.text, orr_str(text));
    finish(h, p, &r);
}

/* It has ended, or it is ended now; all that it was asked has failed. */
static void stop(struct orr_device_helper *h, enum orr_err code, const char *why)
{
    int status = 0;
    char text[200];
    if (h->sock < 0)
        return;
    close(h->sock);
    h->sock = -1;
    kill(h->pid, SIGKILL); /* not reaped before, so the number is still its own */
    while (waitpid(h->pid, &status, 0) < 0 && errno == EINTR)
        ;
    pthread_mutex_lock(&h->lock);
    h->pid = 0;
    pthread_mutex_unlock(&h->lock);
    if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
        snprintf(text,
                 sizeof text,
                 "the GPU driver crashed (signal %d); it is started anew with the next "
                 "request",
                 WTERMSIG(status));
    else
        snprintf(text, sizeof text, "%s", why);
    for (size_t i = 0; i < ORRI_HELPER_REQUESTS_MAX; i++)
        if (h->pending[i].state == PENDING_SENT)
            fail_pending(h, &h->pending[i], code, text);
}

static const char ended[] =
    "the device helper has ended; it is started anew with the next request";

static void
set_state(struct orr_device_helper *h, struct pending *p, enum pending_state state)
{
    pthread_mutex_lock(&h->lock);
    p->state = state;
    pthread_mutex_unlock(&h->lock);
}

/* 0, or an errno: EPIPE the process has ended, and never had it. */
static int hand_over(struct orr_device_helper *h, const struct pending *p)
{
    int rc = h->sock < 0 ? start(h) : 0;
    if (rc != 0)
        return rc;
    ssize_t n =
        send(h->sock, &p->request, sizeof p->request, MSG_NOSIGNAL | MSG_DONTWAIT);
    return n == (ssize_t)sizeof p->request ? 0 : errno;
}

static void send_new(struct orr_device_helper *h)
{
    for (size_t i = 0; i < ORRI_HELPER_REQUESTS_MAX; i++) {
        struct pending *p = &h->pending[i];
        pthread_mutex_lock(&h->lock);
        bool is_new = p->state == PENDING_NEW;
        pthread_mutex_unlock(&h->lock);
        if (!is_new)
            continue;
        int rc = hand_over(h, p);
        if (rc == EPIPE || rc == ECONNRESET) {
            stop(h, ORR_EIO, ended); /* what it had has failed; this one it had not */
            rc = hand_over(h, p);
        }
        set_state(h, p, PENDING_SENT);
        if (rc == EAGAIN)
            fail_pending(h, p, ORR_EBUSY, "the device helper has too much to do");
        else if (rc != 0)
            fail_pending(h, p, ORR_EIO, "cannot start the device helper");
    }
}

static void take_answer(struct orr_device_helper *h)
{
    struct orr_device_result r;
    ssize_t n = recv(h->sock, &r, sizeof r, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n != (ssize_t)sizeof r) {
        stop(h, ORR_EIO, ended);
        return;
    }
    r.text[sizeof r.text - 1] = '\0';
    for (size_t i = 0; i < ORRI_HELPER_REQUESTS_MAX; i++)
        if (h->pending[i].state == PENDING_SENT &&
            h->pending[i].request.ticket == r.ticket) {
            finish(h, &h->pending[i], &r);
            return;
        }
}

/* Until the next one must be given up; -1: none waits. */
static int ms_to_wait(struct orr_device_helper *h)
{
    uint64_t first = UINT64_MAX, now = now_ms();
    for (size_t i = 0; i < ORRI_HELPER_REQUESTS_MAX; i++)
        if (h->pending[i].state == PENDING_SENT && h->pending[i].give_up_ms < first)
            first = h->pending[i].give_up_ms;
    if (first == UINT64_MAX)
        return -1;
    return first > now ? (int)(first - now < INT32_MAX ? first - now : INT32_MAX) : 0;
}

static void *run(void *arg)
{
    struct orr_device_helper *h = arg;
    for (;;) {
        struct pollfd fds[2] = {{.fd = h->wake, .events = POLLIN},
                                {.fd = h->sock, .events = POLLIN}};
        int wait = ms_to_wait(h), n = poll(fds, 2, wait);
        uint64_t count;
        if (n > 0 && fds[0].revents && read(h->wake, &count, sizeof count) < 0)
            continue;
        pthread_mutex_lock(&h->lock);
        bool is_closing = h->is_closing;
        pthread_mutex_unlock(&h->lock);
        if (is_closing)
            break;
        if (n > 0 && fds[1].revents)
            take_answer(h);
        if (wait >= 0 && ms_to_wait(h) == 0)
            stop(h,
                 ORR_ETIMEOUT,
                 "the GPU driver does not answer; the device helper was ended");
        send_new(h);
    }
    stop(h, ORR_EGONE, "the host stops");
    for (size_t i = 0; i < ORRI_HELPER_REQUESTS_MAX; i++)
        if (h->pending[i].state == PENDING_NEW)
            fail_pending(h, &h->pending[i], ORR_EGONE, "the host stops");
    return NULL;
}

enum orr_err orr_device_helper_ask(struct orr_device_helper *h,
                                   const struct orr_device_request *request,
                                   struct orr_error *err)
{
    const uint64_t one = 1;
    size_t i = 0;
    pthread_mutex_lock(&h->lock);
    while (i < ORRI_HELPER_REQUESTS_MAX && h->pending[i].state != PENDING_FREE)
        i++;
    bool is_taken = i < ORRI_HELPER_REQUESTS_MAX && !h->is_closing;
    if (is_taken)
        h->pending[i] = (struct pending){
            PENDING_NEW, now_ms() + request->timeout_ms + GRACE_MS, *request};
    pthread_mutex_unlock(&h->lock);
    if (!is_taken)
        return orr_fail(err,
                        ORR_EBUSY,
                        "%d requests wait for the GPU driver; try again later",
                        ORRI_HELPER_REQUESTS_MAX);
    return write(h->wake, &one, sizeof one) == (ssize_t)sizeof one
               ? ORR_OK
               : orr_fail(err, ORR_EIO, "eventfd: %s", strerror(errno));
}

/* ---- life -------------------------------------------------------------------------------- */

static void discard(struct orr_device_helper *h)
{
    for (size_t i = 0; h->env && i < h->n_env; i++)
        free(h->env[i]);
    free(h->env);
    free(h->driver);
    if (h->wake >= 0)
        close(h->wake);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static bool copy_env(struct orr_device_helper *h, struct orr_list_env_var env)
{
    h->env = calloc(env.n + 1, sizeof *h->env);
    for (uint32_t i = 0; h->env && i < env.n; i++, h->n_env++)
        if (asprintf(&h->env[i],
                     "%.*s=%.*s",
                     ORR_STR_ARGS(env.at[i].name),
                     ORR_STR_ARGS(env.at[i].value)) < 0) {
            h->env[i] = NULL;
            return false;
        }
    return h->env != NULL;
}

enum orr_err orr_device_helper_new(const struct orr_device_helper_config *config,
                                   struct orr_device_helper **ret_helper,
                                   struct orr_error *err)
{
    struct orr_device_helper *h = calloc(1, sizeof *h);
    if (!h)
        return orr_fail(err, ORR_ENOMEM, "device helper: out of memory");
    pthread_mutex_init(&h->lock, NULL);
    h->sock = -1;
    h->done = config->done;
    h->arg = config->arg;
    h->driver = strdup(config->driver);
    h->wake = eventfd(0, EFD_CLOEXEC);
    bool ok = h->driver && h->wake >= 0 && copy_env(h, config->env) &&
              pthread_create(&h->thread, NULL, run, h) == 0;
    if (!ok) {
        discard(h);
        return orr_fail(err, ORR_EIO, "device helper: cannot start its thread");
    }
    *ret_helper = h;
    return ORR_OK;
}

void orr_device_helper_free(struct orr_device_helper *h)
{
    const uint64_t one = 1;
    if (!h)
        return;
    pthread_mutex_lock(&h->lock);
    h->is_closing = true;
    pthread_mutex_unlock(&h->lock);
    if (write(h->wake, &one, sizeof one) < 0)
        abort(); /* our bug: an eventfd takes one more */
    pthread_join(h->thread, NULL);
    discard(h);
}
