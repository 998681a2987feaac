/* SPDX-License-Identifier: Apache-2.0
 * main.c - `workers`: a rank that is a launcher, and the processes that it starts use its device.
 *
 * The launcher itself calls neither CUDA nor NCCL. It asks its workers for one step after another; what they do in a step depends
 * on what all of them have answered in the steps before. At the end rank 0 prints a digest of all answers of its workers, the
 * same for the same world, seed and options.
 */
#include "fail.h"
#include "options.h"
#include "worker.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const char number_name[] = "WORKERS_NUMBER"; /* set: this is a worker */

struct options {
    struct worker_config worker;
    uint32_t steps, workers, log_every;
    struct digests digests;
};

struct child {
    pid_t pid;
    int sock; /* owned */
};

static void parse_options(struct options *o, int argc, char **argv)
{
    /* clang-format off */
    const struct option_spec specs[] = {
        {"steps", OPTION_NUMBER, &o->steps, 1, STEPS_MAX, "N  steps"},
        {"workers", OPTION_NUMBER, &o->workers, 1, WORKERS_MAX, "K  processes of each rank"},
        {"floats", OPTION_NUMBER, &o->worker.floats, 1024, 1 << 28, "M  in each of a worker's three buffers"},
        {"seed", OPTION_LONG, &o->worker.seed, 0, UINT64_MAX, "N  of the first values"},
        {"log-every", OPTION_NUMBER, &o->log_every, 1, UINT32_MAX, "K  print how far it is every K steps"},
        DIGESTS_OPTIONS(&o->digests),
    };
    /* clang-format on */
    options_parse(specs, sizeof specs / sizeof *specs, argc, argv);
}

/* This program once more, with the same options. */
static struct child start_worker(uint32_t number, char **argv)
{
    extern char **environ;
    posix_spawn_file_actions_t files;
    struct child child = {0};
    char text[16];
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        die("socketpair: %s", strerror(errno));
    snprintf(text, sizeof text, "%u", number);
    if (setenv(number_name, text, 1) != 0)
        die("setenv: %s", strerror(errno));
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, pair[1], WORKER_FD);
    int rc = posix_spawn(&child.pid, "/proc/self/exe", &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    if (rc != 0)
        die("cannot start worker %u: %s", number, strerror(rc));
    close(pair[1]);
    child.sock = pair[0];
    return child;
}

static uint64_t
run_steps(const struct options *o, const struct child *children, uint32_t rank)
{
    struct worker_ask ask = {.mix = o->worker.seed};
    for (ask.step = 1; ask.step <= o->steps; ask.step++) {
        uint64_t answers[WORKERS_MAX];
        for (uint32_t k = 0; k < o->workers; k++)
            socket_write(children[k].sock, &ask, sizeof ask);
        for (uint32_t k = 0; k < o->workers; k++)
            if (!socket_read(children[k].sock, &answers[k], sizeof answers[k]))
                die("worker %u has ended in step %u", k, ask.step);
        ask.mix = fnv1a(ask.mix, answers, o->workers * sizeof *answers);
        if (rank == 0 && ask.step % o->log_every == 0)
            printf("step=%u mix=%016llx\n", ask.step, (unsigned long long)ask.mix);
    }
    return ask.mix;
}

static void end_workers(const struct child *children, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        close(children[k].sock);
    for (uint32_t k = 0; k < n; k++) {
        int status = 0;
        if (waitpid(children[k].pid, &status, 0) != children[k].pid || status != 0)
            die("worker %u ended with status %#x", k, (unsigned)status);
    }
}

int main(int argc, char **argv)
{
    char err[MEET_ERR_MAX];
    static struct options o = {.worker = {.floats = 262144, .seed = 1},
                               .steps = 2000,
                               .workers = 2,
                               .log_every = 100,
                               .digests = {.every = 1}};
    struct meet meet;
    struct child children[WORKERS_MAX];
    const char *number = getenv(number_name);
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN); /* write says it */
    parse_options(&o, argc, argv);
    if (!meet_from_env(&meet, err))
        usage_error("%s", err);
    die_as_rank(meet.rank);
    if (number) {
        o.worker.number = (uint32_t)strtoul(number, NULL, 10);
        o.digests.rank = meet.rank * WORKERS_MAX + o.worker.number;
        worker_run(&o.worker, &meet, &o.digests);
        return 0;
    }
    for (uint32_t k = 0; k < o.workers; k++)
        children[k] = start_worker(k, argv);
    uint64_t digest = run_steps(&o, children, meet.rank);
    end_workers(children, o.workers);
    if (meet.rank == 0)
        printf("steps=%u digest=%016llx\n", o.steps, (unsigned long long)digest);
    if (fflush(stdout) != 0 || ferror(stdout))
        die("stdout: %s", strerror(errno));
    return 0;
}
