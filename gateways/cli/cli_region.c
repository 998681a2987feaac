/* SPDX-License-Identifier: Apache-2.0
 * cli_region.c - where the region is, as the user said; signals and clocks of a verb.
 */
#include "cli.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t interrupts;

static void on_signal(int signal)
{
    (void)signal;
    interrupts++;
}

void orri_cli_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    interrupts = 0;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_DFL); /* a reader that has gone ends us without a word */
}

unsigned orri_cli_interrupts(void)
{
    return (unsigned)interrupts;
}

uint64_t orri_cli_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void orri_cli_sleep(uint64_t ms)
{
    struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
    orri_cli_check_reader();
}

void orri_cli_check_reader(void)
{
    struct pollfd out = {.fd = STDOUT_FILENO};
    if (poll(&out, 1, 0) == 1 && (out.revents & POLLERR))
        raise(SIGPIPE);
}

/* The first line of DIR/name. */
static bool read_line(const char *dir, const char *name, char *buf, size_t cap)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "re");
    bool is_read = f && fgets(buf, (int)cap, f) != NULL;
    if (f)
        fclose(f);
    if (is_read)
        buf[strcspn(buf, "\r\n")] = '\0';
    return is_read && buf[0];
}

static enum orr_err
locate_fleet(struct orri_cli *cli, const char *dir, struct orr_error *err)
{
    char name[ORR_NAME_MAX], endpoints[ORR_REGION_HOSTS_MAX * 256];
    if (!read_line(dir, "endpoint", endpoints, sizeof endpoints))
        return orr_fail(err,
                        ORR_EUNREACH,
                        "ORRERY_STATE=%s: no fleet there; start one with `orrery dev "
                        "up --state %s`",
                        dir,
                        dir);
    if (!cli->value[OPT_REGION_NAME] && read_line(dir, "region", name, sizeof name))
        snprintf(cli->region_path, sizeof cli->region_path, "/%s", name);
    return orri_endpoints_parse(cli, endpoints, err);
}

enum orr_err orri_cli_locate(struct orri_cli *cli, struct orr_error *err)
{
    const char *endpoint = cli->value[OPT_REGION];
    const char *dir = getenv("ORRERY_STATE");
    if (cli->value[OPT_REGION_NAME])
        snprintf(cli->region_path,
                 sizeof cli->region_path,
                 "/%.63s",
                 cli->value[OPT_REGION_NAME]);
    if (!endpoint)
        endpoint = getenv("ORRERY_REGION");
    if (endpoint && *endpoint)
        return orri_endpoints_parse(cli, endpoint, err);
    if (dir && *dir)
        return locate_fleet(cli, dir, err);
    return orr_fail(err,
                    ORR_EINVAL,
                    "which region? set ORRERY_STATE=DIR of `orrery dev up`, or "
                    "ORRERY_REGION or --region to the endpoints of its hosts");
}
