/* SPDX-License-Identifier: Apache-2.0
 * chaos_rank.c - a rank that leaves evidence: when it started, that it lives, when it stopped.
 *
 * Usage: chaos_rank DIR SECONDS.  Appends to DIR/JOB.GENERATION.RANK.PID lines `start T`, `beat T` each 50 ms, `stop T`; T is
 * CLOCK_MONOTONIC in seconds, one clock for the machine, so checker.py can tell whether two generations ever lived at once.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t is_stopped;

static void on_term(int signal)
{
    (void)signal;
    is_stopped = 1;
}

static double note(int fd, const char *what)
{
    char line[64];
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    int len = snprintf(line,
                       sizeof line,
                       "%s %lld.%06ld\n",
                       what,
                       (long long)t.tv_sec,
                       t.tv_nsec / 1000);
    if (write(fd, line, (size_t)len) != len)
        _exit(3);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static const char *need(const char *name)
{
    const char *value = getenv(name);
    if (!value) {
        fprintf(stderr, "chaos_rank: %s is not set; a node runs this\n", name);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv)
{
    char path[4096];
    const struct timespec pause = {.tv_nsec = 50000000};
    const struct sigaction action = {.sa_handler = on_term};
    if (argc != 3) {
        fprintf(stderr, "usage: chaos_rank DIR SECONDS\n");
        return 2;
    }
    sigaction(SIGTERM, &action, NULL);
    snprintf(path,
             sizeof path,
             "%s/%s.%s.%s.%d",
             argv[1],
             need("ORRERY_JOB"),
             need("ORRERY_GENERATION"),
             need("RANK"),
             (int)getpid());
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) {
        perror(path);
        return 2;
    }
    double end = note(fd, "start") + atof(argv[2]);
    while (!is_stopped && note(fd, "beat") < end)
        nanosleep(&pause, NULL);
    note(fd, "stop");
    return is_stopped ? 128 + SIGTERM : 0;
}
