/* SPDX-License-Identifier: Apache-2.0
 * fleet.c - names, folders and files of a development fleet: see fleet.h.
 */
#include "fleet.h"

#include "dev_redis.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOCK_PAUSE_MS = 10, REGIONS_MAX = 16 };

struct ledgers { /* addresses of all region hosts, in the fleet's order */
    char at[REGIONS_MAX * FLEET_REPLICAS_MAX][FLEET_ADDRESS_MAX];
};

unsigned fleet_size(const struct fleet *f)
{
    return f->regions * (f->replicas + f->clusters * (1 + f->nodes));
}

struct fleet_host fleet_host_at(const struct fleet *f, unsigned i)
{
    unsigned all_clusters = f->regions * f->clusters;
    unsigned all_regions = f->regions * f->replicas;
    struct fleet_host h = {0};
    unsigned region;
    if (i < all_regions) {
        region = i / f->replicas;
        h.role = FLEET_REGION;
        if (f->replicas == 1)
            snprintf(h.name, sizeof h.name, "r%u", region + 1);
        else
            snprintf(h.name, sizeof h.name, "r%u-%u", region + 1, i % f->replicas + 1);
    } else if (i < all_regions + all_clusters) {
        unsigned c = i - all_regions;
        region = c / f->clusters;
        h.role = FLEET_CLUSTER;
        snprintf(h.name, sizeof h.name, "c%u", c + 1);
        snprintf(h.parent, sizeof h.parent, "r%u", region + 1);
    } else {
        unsigned n = i - all_regions - all_clusters;
        region = n / (f->nodes * f->clusters);
        h.role = FLEET_NODE;
        snprintf(h.name, sizeof h.name, "n%u", n + 1);
        snprintf(h.parent, sizeof h.parent, "c%u", n / f->nodes + 1);
    }
    snprintf(h.region, sizeof h.region, "r%u", region + 1);
    return h;
}

enum orr_err fleet_check(const struct fleet *f, struct orr_error *err)
{
    const struct {
        const char *option;
        unsigned value, min, max;
    } ranges[] = {
        {"--regions", f->regions, 1, REGIONS_MAX},
        {"--replicas", f->replicas, 1, FLEET_REPLICAS_MAX},
        {"--clusters", f->clusters, 1, 64},
        {"--nodes", f->nodes, 1, 256},
        {"--gpus", f->gpus, 0, 64},
        {"--slots", f->slots, 1, 4096},
        {"--lease", f->lease_ms, 500, 3600000},
        {"--suspect", f->suspect_ms, 200, 3600000},
        {"--heartbeat", f->heartbeat_ms, 20, 60000},
    };
    for (size_t i = 0; i < ORR_ARRAY_SIZE(ranges); i++)
        if (ranges[i].value < ranges[i].min || ranges[i].value > ranges[i].max)
            return orr_fail(err,
                            ORR_EINVAL,
                            "%s: %u is out of range; give %u to %u",
                            ranges[i].option,
                            ranges[i].value,
                            ranges[i].min,
                            ranges[i].max);
    if (f->replicas % 2 == 0)
        return orr_fail(err,
                        ORR_EINVAL,
                        "--replicas: %u survive no more losses than %u; give 1, 3 or 5",
                        f->replicas,
                        f->replicas - 1);
    if (fleet_size(f) > FLEET_HOSTS_MAX)
        return orr_fail(err,
                        ORR_EINVAL,
                        "--nodes: %u hosts in all; at most %d fit one machine",
                        fleet_size(f),
                        FLEET_HOSTS_MAX);
    if (f->heartbeat_ms * 2 > f->suspect_ms || f->suspect_ms >= f->lease_ms ||
        f->heartbeat_ms * 16 > f->lease_ms)
        return orr_fail(
            err,
            ORR_EINVAL,
            "--lease: need 2 x heartbeat (%u ms) <= suspect (%u ms) < lease (%u ms), "
            "and 16 heartbeats in a lease",
            f->heartbeat_ms,
            f->suspect_ms,
            f->lease_ms);
    if (strlen(f->dir) + sizeof "/r16-5/sock" > FLEET_SOCKET_PATH_MAX)
        return orr_fail(
            err,
            ORR_EINVAL,
            "--state: %s is too long for the sockets in it (a UNIX socket's path has "
            "at most %d bytes); choose a shorter path",
            f->dir,
            FLEET_SOCKET_PATH_MAX);
    if (strpbrk(f->dir, "\"\\\n"))
        return orr_fail(
            err,
            ORR_EINVAL,
            "--state: quotes, backslashes and newlines are not supported in %s",
            f->dir);
    return ORR_OK;
}

enum orr_err fleet_lock(const struct fleet *f,
                        unsigned timeout_ms,
                        int *ret_lock,
                        struct orr_error *err)
{
    if (mkdir(f->dir, 0755) != 0 && errno != EEXIST)
        return orr_fail(
            err, ORR_EIO, "--state: cannot make %s: %s", f->dir, strerror(errno));
    int fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return orr_fail(
            err, ORR_EIO, "--state: cannot open %s: %s", f->dir, strerror(errno));
    for (unsigned waited_ms = 0; flock(fd, LOCK_EX | LOCK_NB) != 0;
         waited_ms += LOCK_PAUSE_MS) {
        if (waited_ms >= timeout_ms) {
            close(fd);
            return orr_fail(err,
                            ORR_EBUSY,
                            "--state: another `orrery dev` works on %s; wait for it",
                            f->dir);
        }
        usleep(LOCK_PAUSE_MS * 1000);
    }
    *ret_lock = fd;
    return ORR_OK;
}

static void path_of(const struct fleet *f, const char *name, char path[FLEET_PATH_MAX])
{
    snprintf(path, FLEET_PATH_MAX, "%.*s/%s", FLEET_PATH_MAX - 64, f->dir, name);
}

/* Write a whole file through a temporary name, so that a reader never sees half of it.
 */
static enum orr_err write_file(const struct fleet *f,
                               const char *name,
                               const char *text,
                               struct orr_error *err)
{
    char path[FLEET_PATH_MAX], tmp[FLEET_PATH_MAX + 8];
    path_of(f, name, path);
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    FILE *out = fopen(tmp, "we");
    if (!out)
        return orr_fail(err, ORR_EIO, "cannot write %s: %s", tmp, strerror(errno));
    bool is_bad = fputs(text, out) < 0;
    is_bad |= fclose(out) != 0;
    if (is_bad || rename(tmp, path) != 0) {
        int why = errno;
        unlink(tmp);
        return orr_fail(err, ORR_EIO, "cannot write %s: %s", path, strerror(why));
    }
    return ORR_OK;
}

static void append(char *text, size_t cap, const char *fmt, ...) ORR_PRINTF(3, 4);

static void append(char *text, size_t cap, const char *fmt, ...)
{
    size_t len = strlen(text);
    va_list args;
    va_start(args, fmt);
    vsnprintf(text + len, cap - len, fmt, args);
    va_end(args);
}

/* One host of a list: {host: r1-2, endpoint: "ipc://..."}; more comes before the end. */
static void append_host(const struct fleet *f,
                        const struct fleet_host *h,
                        const char *more,
                        char *text,
                        size_t cap)
{
    append(text,
           cap,
           "      %s- {host: %s, endpoint: \"ipc://%s/%s/sock\"%s}\n",
           h->role == FLEET_REGION && *more ? "  " : "",
           h->name,
           f->dir,
           h->name,
           more);
}

/* The first host of a region in the fleet's order. */
static unsigned first_of(const struct fleet *f, const char *region)
{
    unsigned i = 0;
    while (strcmp(fleet_host_at(f, i).region, region) != 0)
        i += f->replicas;
    return i;
}

static void append_region(const struct fleet *f,
                          const struct fleet_host *h,
                          const struct ledgers *ledgers,
                          char *text,
                          size_t cap)
{
    unsigned first = first_of(f, h->region);
    append(text,
           cap,
           "roles:\n  region:%s\n",
           f->replicas > 1 ? "\n    ledger:\n      voters:" : " {}");
    for (unsigned i = first; f->replicas > 1 && i < first + f->replicas; i++) {
        struct fleet_host voter = fleet_host_at(f, i);
        char address[FLEET_ADDRESS_MAX + 16];
        snprintf(address, sizeof address, ", address: \"%s\"", ledgers->at[i]);
        append_host(f, &voter, address, text, cap);
    }
    if (f->regions > 1)
        append(text, cap, "peers:\n");
    for (unsigned i = 0; i < f->regions * f->replicas; i++) {
        struct fleet_host peer = fleet_host_at(f, i);
        if (strcmp(peer.region, h->region) != 0)
            append(text,
                   cap,
                   "  - {name: %s, host: %s, endpoint: \"ipc://%s/%s/sock\"}\n",
                   peer.region,
                   peer.name,
                   f->dir,
                   peer.name);
    }
}

static void append_cluster(const struct fleet *f,
                           const struct fleet_host *h,
                           char *text,
                           size_t cap)
{
    unsigned first = first_of(f, h->region);
    append(text, cap, "roles:\n  cluster:\n    name: %s\n    regions:\n", h->name);
    for (unsigned i = first; i < first + f->replicas; i++) {
        struct fleet_host region = fleet_host_at(f, i);
        append_host(f, &region, "", text, cap);
    }
}

/* The same file an operator writes: configs/ has them with comments. */
static enum orr_err write_host(const struct fleet *f,
                               const struct fleet_host *h,
                               const struct ledgers *ledgers,
                               struct orr_error *err)
{
    char name[64], text[4 * FLEET_PATH_MAX] = "";
    path_of(f, h->name, text);
    if (mkdir(text, 0755) != 0 && errno != EEXIST)
        return orr_fail(err, ORR_EIO, "cannot make %s: %s", text, strerror(errno));
    text[0] = '\0';
    append(text,
           sizeof text,
           "host: %s\nregion: %s\nstate: \"%s/%s\"\nlisten: [\"ipc://%s/%s/sock\"]\n",
           h->name,
           h->region,
           f->dir,
           h->name,
           f->dir,
           h->name);
    if (h->role == FLEET_REGION)
        append_region(f, h, ledgers, text, sizeof text);
    else if (h->role == FLEET_CLUSTER)
        append_cluster(f, h, text, sizeof text);
    else
        append(
            text,
            sizeof text,
            "roles:\n  node:\n    name: %s\n    cluster: {name: %s, host: %s, "
            "endpoint: \"ipc://%s/%s/sock\"}\n"
            "    devices: {kind: %s, count: %u, memory: %s}\n    slots: %u\n"
            "    store: {path: \"%s/%s/store\"}\n", /* one for all nodes of a cluster */
            h->name,
            h->parent,
            h->parent,
            f->dir,
            h->parent,
            f->gpus ? "emulated" : "none",
            f->gpus,
            f->memory,
            f->slots,
            f->dir,
            h->parent);
    append(text,
           sizeof text,
           "timing: {heartbeat: %ums, suspect: %ums, lease: %ums}\n",
           f->heartbeat_ms,
           f->suspect_ms,
           f->lease_ms);
    dev_redis_host_yaml(f, text + strlen(text), sizeof text - strlen(text));
    snprintf(name, sizeof name, "%s/host.yaml", h->name);
    return write_file(f, name, text, err);
}

enum orr_err fleet_write(const struct fleet *f, struct orr_error *err)
{
    char text[FLEET_REPLICAS_MAX * (FLEET_SOCKET_PATH_MAX + 8)] = "";
    struct ledgers ledgers;
    enum orr_err code = ORR_OK;
    for (unsigned i = 0; !code && f->replicas > 1 && i < f->regions * f->replicas; i++)
        code = fleet_ledger_address(ledgers.at[i], err);
    for (unsigned i = 0; !code && i < fleet_size(f); i++) {
        struct fleet_host h = fleet_host_at(f, i);
        code = write_host(f, &h, &ledgers, err);
    }
    if (code)
        return code;
    for (unsigned i = 0; i < f->replicas; i++) {
        struct fleet_host h = fleet_host_at(f, i);
        append(text, sizeof text, "%sipc://%s/%s/sock", i ? "," : "", f->dir, h.name);
    }
    append(text, sizeof text, "\n");
    code = write_file(f, "endpoint", text, err);
    if (!code)
        code = write_file(f, "region", "r1\n", err);
    if (code)
        return code;
    snprintf(
        text,
        sizeof text,
        "regions=%u\nreplicas=%u\nclusters=%u\nnodes=%u\ngpus=%u\nslots=%u\nlease_ms=%"
        "u\nsuspect_ms=%u\n"
        "heartbeat_ms=%u\nmemory=%s\n",
        f->regions,
        f->replicas,
        f->clusters,
        f->nodes,
        f->gpus,
        f->slots,
        f->lease_ms,
        f->suspect_ms,
        f->heartbeat_ms,
        f->memory);
    return write_file(
        f, "fleet", text, err); /* last: a fleet that can be read is complete */
}

enum orr_err fleet_read(const char *dir, struct fleet *ret_fleet, struct orr_error *err)
{
    struct fleet f = {0};
    char path[FLEET_PATH_MAX];
    snprintf(f.dir, sizeof f.dir, "%s", dir);
    path_of(&f, "fleet", path);
    FILE *in = fopen(path, "re");
    if (!in)
        return orr_fail(err,
                        errno == ENOENT ? ORR_ENOENT : ORR_EIO,
                        "%s: %s; `orrery dev up --state %s` makes a fleet",
                        path,
                        strerror(errno),
                        dir);
    int n = fscanf(in,
                   "regions=%u replicas=%u clusters=%u nodes=%u gpus=%u slots=%u "
                   "lease_ms=%u suspect_ms=%u "
                   "heartbeat_ms=%u memory=%15s",
                   &f.regions,
                   &f.replicas,
                   &f.clusters,
                   &f.nodes,
                   &f.gpus,
                   &f.slots,
                   &f.lease_ms,
                   &f.suspect_ms,
                   &f.heartbeat_ms,
                   f.memory);
    fclose(in);
    if (n != 10)
        return orr_fail(err,
                        ORR_EIO,
                        "%s: damaged; remove %s and run `orrery dev up` again",
                        path,
                        dir);
    *ret_fleet = f;
    return fleet_check(ret_fleet, err);
}
