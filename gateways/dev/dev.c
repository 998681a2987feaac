/* SPDX-License-Identifier: Apache-2.0
 * dev.c - the verbs `orrery dev up|status|down`.
 *
 * `up` is idempotent: on a folder that holds a fleet it starts the hosts that do not
 * run, with the shape that was given at first.  It returns when the region sees every
 * node up, or names the host that did not come.
 */
#include "dev.h"

#include "dev_redis.h"
#include "fleet.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_UNREACHABLE = 3,
    UP_TIMEOUT_MS = 60000,
    STOP_GRACE_MS = 5000,
    SOFTSTATE_LINE_MAX = 300,
};

static const char usage[] =
    "usage: orrery dev up     --state DIR [--regions R] [--replicas 1|3|5] "
    "[--clusters C] [--nodes N]\n"
    "                         [--gpus G] [--memory SIZE] [--slots S] [--heartbeat MS] "
    "[--suspect MS] [--lease MS]\n"
    "                         [--softstate auto|memory]\n"
    "       orrery dev status --state DIR [-o table|json]\n"
    "       orrery dev down   --state DIR\n"
    "A whole fleet on this machine: R regions (1) of C clusters (1) of N nodes (1) "
    "with G emulated GPUs (2);\n"
    "with --replicas each region runs on 3 or 5 hosts, and survives the loss of 1 or "
    "2.\n"
    "ORRERY_STATE=DIR points every other verb at it, and stands in for --state here.\n";

struct options {
    struct fleet fleet;
    bool has_shape; /* a shape option was given */
    bool is_json;
    bool is_memory; /* --softstate memory */
};

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static bool parse_number(const char *text, unsigned *ret_value)
{
    char *end;
    errno = 0;
    unsigned long v = strtoul(text, &end, 10);
    if (errno || end == text || *end || v > UINT_MAX || text[0] == '-')
        return false;
    *ret_value = (unsigned)v;
    return true;
}

/* The fleet's folder must not depend on where a host is started from. */
static enum orr_err set_dir(struct fleet *f, const char *dir, struct orr_error *err)
{
    char cwd[PATH_MAX];
    if (!dir || !*dir)
        return orr_fail(
            err, ORR_EINVAL, "dev: which fleet? give --state DIR or set ORRERY_STATE");
    if (dir[0] == '/')
        snprintf(f->dir, sizeof f->dir, "%s", dir);
    else if (!getcwd(cwd, sizeof cwd) ||
             snprintf(f->dir, sizeof f->dir, "%s/%s", cwd, dir) >= (int)sizeof f->dir)
        return orr_fail(
            err, ORR_EINVAL, "--state: cannot make %s an absolute path", dir);
    for (size_t n = strlen(f->dir); n > 1 && f->dir[n - 1] == '/'; n--)
        f->dir[n - 1] = '\0';
    return ORR_OK;
}

static enum orr_err
parse(int argc, char **argv, struct options *o, struct orr_error *err)
{
    struct fleet *f = &o->fleet;
    const char *dir = getenv("ORRERY_STATE");
    unsigned *numbers[] = {&f->regions,
                           &f->clusters,
                           &f->nodes,
                           &f->gpus,
                           &f->slots,
                           &f->heartbeat_ms,
                           &f->suspect_ms,
                           &f->lease_ms,
                           &f->replicas};
    static const struct option longs[] = {{"regions", 1, NULL, 0},
                                          {"clusters", 1, NULL, 1},
                                          {"nodes", 1, NULL, 2},
                                          {"gpus", 1, NULL, 3},
                                          {"slots", 1, NULL, 4},
                                          {"heartbeat", 1, NULL, 5},
                                          {"suspect", 1, NULL, 6},
                                          {"lease", 1, NULL, 7},
                                          {"replicas", 1, NULL, 8},
                                          {"memory", 1, NULL, 'm'},
                                          {"state", 1, NULL, 's'},
                                          {"output", 1, NULL, 'o'},
                                          {"softstate", 1, NULL, 'r'},
                                          {NULL, 0, NULL, 0}};
    int c;
    optind = 1;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":o:", longs, NULL)) >= 0) {
        if (c == '?' || c == ':')
            return orr_fail(err,
                            ORR_EINVAL,
                            "dev: %s: %s",
                            argv[optind - 1],
                            c == ':' ? "needs a value" : "unknown option");
        if (c == 's')
            dir = optarg;
        else if (c == 'm')
            snprintf(f->memory, sizeof f->memory, "%s", optarg);
        else if (c == 'o' && strcmp(optarg, "json") != 0 &&
                 strcmp(optarg, "table") != 0)
            return orr_fail(err, ORR_EINVAL, "-o: %s: give table or json", optarg);
        else if (c == 'o')
            o->is_json = strcmp(optarg, "json") == 0;
        else if (c == 'r' && strcmp(optarg, "auto") != 0 &&
                 strcmp(optarg, "memory") != 0)
            return orr_fail(
                err, ORR_EINVAL, "--softstate: %s: give auto or memory", optarg);
        else if (c == 'r')
            o->is_memory = strcmp(optarg, "memory") == 0;
        else if (!parse_number(optarg, numbers[c]))
            return orr_fail(err,
                            ORR_EINVAL,
                            "--%s: %s: give a whole number",
                            longs[c].name,
                            optarg);
        o->has_shape |= c < 9 || c == 'm';
    }
    if (optind < argc)
        return orr_fail(err, ORR_EINVAL, "dev: %s: not understood", argv[optind]);
    return set_dir(f, dir, err);
}

/* ---- up ---- */

static bool is_same_shape(const struct fleet *a, const struct fleet *b)
{
    return a->regions == b->regions && a->replicas == b->replicas &&
           a->clusters == b->clusters && a->nodes == b->nodes && a->gpus == b->gpus &&
           a->slots == b->slots && a->lease_ms == b->lease_ms &&
           a->suspect_ms == b->suspect_ms && a->heartbeat_ms == b->heartbeat_ms &&
           strcmp(a->memory, b->memory) == 0;
}

static enum orr_err make_fleet(const struct options *o, struct orr_error *err)
{
    bool has_redis = false;
    enum orr_err code =
        o->is_memory ? ORR_OK : dev_redis_write(&o->fleet, &has_redis, err);
    if (!code && !has_redis)
        printf("soft state is kept in memory%s\n",
               o->is_memory ? "" : ": redis-server is not installed");
    return code ? code : fleet_write(&o->fleet, err);
}

static enum orr_err prepare(struct options *o, struct orr_error *err)
{
    struct fleet found;
    enum orr_err code = fleet_read(o->fleet.dir, &found, err);
    if (code == ORR_OK && o->has_shape && !is_same_shape(&found, &o->fleet))
        return orr_fail(err,
                        ORR_EEXIST,
                        "dev: %s holds a fleet of another shape; take it down and "
                        "remove the folder, "
                        "or leave the shape options out to start it as it is",
                        o->fleet.dir);
    if (code == ORR_OK)
        o->fleet = found;
    return code == ORR_ENOENT ? make_fleet(o, err) : code;
}

static enum orr_err start_missing(const struct fleet *f, struct orr_error *err)
{
    for (unsigned i = 0; i < fleet_size(f); i++) {
        struct fleet_host h = fleet_host_at(f, i);
        if (fleet_host_pid(f, &h))
            continue;
        enum orr_err code = fleet_host_start(f, &h, err);
        if (code)
            return code;
    }
    return ORR_OK;
}

static enum orr_err start_all(struct options *o, struct orr_error *err)
{
    int lock = -1;
    enum orr_err code = fleet_lock(&o->fleet, UP_TIMEOUT_MS, &lock, err);
    if (code)
        return code;
    code = prepare(o, err);
    if (!code)
        code = dev_redis_start(&o->fleet, err);
    if (!code)
        code = start_missing(&o->fleet, err);
    close(lock);
    return code;
}

static enum orr_err
wait_ready(const struct options *o, uint64_t deadline_ms, struct orr_error *err)
{
    enum orr_err code = ORR_OK;
    for (unsigned r = 0; !code && r < o->fleet.regions; r++) {
        uint64_t now = now_ms();
        code = fleet_region_wait(
            &o->fleet, r, deadline_ms > now ? deadline_ms - now : 0, err);
    }
    return code;
}

/* A host that was killed just now may still have looked alive, and is started the second
 * time; one that ends by itself does so again. */
static enum orr_err up(struct options *o, struct orr_error *err)
{
    uint64_t deadline_ms = now_ms() + UP_TIMEOUT_MS;
    enum orr_err code = fleet_check(&o->fleet, err);
    for (int i = 0; i < 2 && (!code || code == ORR_EGONE); i++) {
        code = start_all(o, err);
        if (!code)
            code = wait_ready(o, deadline_ms, err);
        if (!code)
            break;
    }
    if (!code)
        printf("%u hosts are up in %s\n", fleet_size(&o->fleet), o->fleet.dir);
    return code;
}

/* ---- status, down ---- */

/* A text of ours or of Redis's, as a JSON string. */
static void print_quoted(const char *text)
{
    putchar('"');
    for (; *text; text++)
        if ((unsigned char)*text < 0x20)
            putchar(' ');
        else
            printf("%s%c", *text == '"' || *text == '\\' ? "\\" : "", *text);
    putchar('"');
}

/* Redis, if the fleet has one, and what each region's host says of its soft state. */
static void status_softstate(const struct options *o)
{
    bool has_redis = dev_redis_is_there(&o->fleet);
    int pid = has_redis ? dev_redis_pid(&o->fleet) : 0;
    if (o->is_json && has_redis)
        printf(",{\"host\":\"redis\",\"role\":\"redis\",\"parent\":\"\",\"pid\":%d}",
               pid);
    else if (has_redis && pid)
        printf("%-8s %-8s %-8s %d\n", "redis", "redis", "", pid);
    else if (has_redis)
        printf("%-8s %-8s %-8s stopped\n", "redis", "redis", "");
    for (unsigned r = 0; !o->is_json && r < o->fleet.regions; r++) {
        struct fleet_host h = fleet_host_at(&o->fleet, r);
        char line[SOFTSTATE_LINE_MAX];
        if (!fleet_host_pid(&o->fleet, &h))
            continue;
        dev_softstate_line(&o->fleet, &h, line, sizeof line);
        printf("soft state of %s: %s\n", h.region, line);
    }
    if (o->is_json)
        printf("]\n");
}

static enum orr_err status(struct options *o, struct orr_error *err)
{
    static const char *const roles[] = {"region", "cluster", "node"};
    enum orr_err code = fleet_read(o->fleet.dir, &o->fleet, err);
    if (code)
        return code;
    if (!o->is_json)
        printf("%-8s %-8s %-8s %s\n", "HOST", "ROLE", "PARENT", "PID");
    for (unsigned i = 0; i < fleet_size(&o->fleet); i++) {
        struct fleet_host h = fleet_host_at(&o->fleet, i);
        int pid = fleet_host_pid(&o->fleet, &h);
        bool leads = pid && h.role == FLEET_REGION && fleet_host_leads(&o->fleet, &h);
        char state[32] = "stopped";
        if (pid)
            snprintf(state, sizeof state, "%d%s", pid, leads ? "  leads" : "");
        if (o->is_json) {
            char line[SOFTSTATE_LINE_MAX];
            printf("%s{\"host\":\"%s\",\"role\":\"%s\",\"parent\":\"%s\",\"pid\":%d,"
                   "\"leads\":%s",
                   i ? "," : "[",
                   h.name,
                   roles[h.role],
                   h.parent,
                   pid,
                   leads ? "true" : "false");
            if (h.role == FLEET_REGION && pid) {
                dev_softstate_line(&o->fleet, &h, line, sizeof line);
                printf(",\"softstate\":");
                print_quoted(line);
            }
            putchar('}');
        } else
            printf("%-8s %-8s %-8s %s\n", h.name, roles[h.role], h.parent, state);
    }
    status_softstate(o);
    return ORR_OK;
}

/* Regions first, so that nothing is placed any more; the nodes' ranks at last. */
static enum orr_err down(struct options *o, struct orr_error *err)
{
    enum orr_err code = fleet_read(o->fleet.dir, &o->fleet, err), first = ORR_OK;
    int lock = -1;
    if (!code)
        code = fleet_lock(&o->fleet, UP_TIMEOUT_MS, &lock, err);
    if (code)
        return code;
    for (unsigned i = 0; i < fleet_size(&o->fleet); i++) {
        struct fleet_host h = fleet_host_at(&o->fleet, i);
        fleet_host_stop(&o->fleet, &h, STOP_GRACE_MS);
        if (h.role != FLEET_NODE)
            continue;
        struct orr_error *detail = first ? NULL : err;
        code = fleet_host_wipe(&o->fleet, &h, detail);
        first = first ? first : code;
    }
    dev_redis_stop(&o->fleet, STOP_GRACE_MS);
    close(lock);
    if (!first)
        printf("%u hosts are down in %s\n", fleet_size(&o->fleet), o->fleet.dir);
    return first;
}

int orr_dev_main(int argc, char **argv)
{
    static const struct {
        const char *name;
        enum orr_err (*run)(struct options *, struct orr_error *);
    } verbs[] = {{"up", up}, {"status", status}, {"down", down}};
    struct options o = {.fleet = {.regions = 1,
                                  .replicas = 1,
                                  .clusters = 1,
                                  .nodes = 1,
                                  .gpus = 2,
                                  .slots = 64,
                                  .lease_ms = 30000,
                                  .suspect_ms = 2000,
                                  .heartbeat_ms = 500,
                                  .memory = "1GiB"}};
    struct orr_error err = {.code = ORR_OK};
    for (size_t i = 0; argc > 1 && i < ORR_ARRAY_SIZE(verbs); i++) {
        if (strcmp(argv[1], verbs[i].name) != 0)
            continue;
        enum orr_err code = parse(argc - 1, argv + 1, &o, &err);
        if (!code)
            code = verbs[i].run(&o, &err);
        if (code)
            fprintf(stderr, "orrery: %s\n", err.text);
        return code == ORR_OK         ? 0
               : code == ORR_EINVAL   ? EXIT_USAGE
               : code == ORR_ENOENT   ? EXIT_USAGE
               : code == ORR_ETIMEOUT ? EXIT_UNREACHABLE
                                      : EXIT_FAILED;
    }
    if (argc > 1)
        fprintf(stderr, "orrery: dev: %s: unknown verb\n", argv[1]);
    fputs(usage, stderr);
    return EXIT_USAGE;
}
