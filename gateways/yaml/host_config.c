/* SPDX-License-Identifier: Apache-2.0
 * host_config.c - the table of a host's configuration, its computed defaults, and what
 * may be listened on without keys.
 */
#include "host_config.h"

#include <arpa/inet.h>
#include <unistd.h>

enum { HOUR_MS = 3600000, UNIX_PATH_MAX = 107 };

static const char *const device_names[] = {"auto", "cuda", "emulated", "none", NULL};
static const char *const level_names[] = {"debug", "info", "warn", "error", NULL};

#define AT(member) offsetof(struct orr_host_config, member)
#define ROW(path, type, member, min, max, def, doc)                                    \
    {                                                                                  \
        path, ORR_YAML_##type, AT(member), 0, min, max, def, NULL, NULL, doc           \
    }
#define SECTION(path, member, doc) ROW(path, SECTION, member, 0, 0, "", doc)
#define ENDPOINT_MAX               255

/* clang-format off */
#define ROW_OF(record, path, type, member, min, max, doc)                              \
    {path, ORR_YAML_##type, offsetof(struct record, member), 0, min, max, NULL, NULL, NULL, doc}
static const struct orr_yaml_field voter_fields[] = {
    ROW_OF(orr_config_voter, "host", NAME, host, 1, 63, "name of the host"),
    ROW_OF(orr_config_voter, "address", TEXT, address, 1, 63, "IP:PORT of its ledger"),
    ROW_OF(orr_config_voter, "endpoint", TEXT, endpoint, 1, ENDPOINT_MAX, "where clients and clusters dial it"),
};
static const struct orr_yaml_field peer_fields[] = {
    ROW_OF(orr_config_peer, "name", NAME, name, 1, 63, "name of the other region"),
    {"host", ORR_YAML_NAME, offsetof(struct orr_config_peer, host), 0, 1, 63, "", NULL, NULL, "a host of it; default: named as the region"},
    ROW_OF(orr_config_peer, "endpoint", TEXT, endpoint, 1, ENDPOINT_MAX, "where that host listens"),
};
static const struct orr_yaml_field region_host_fields[] = {
    ROW_OF(orr_config_parent, "host", NAME, host, 1, 63, "name of the host"),
    ROW_OF(orr_config_parent, "endpoint", TEXT, endpoint, 1, ENDPOINT_MAX, "where it listens"),
};
/* clang-format on */
static const struct orr_yaml_table peer_table = {
    peer_fields, ORR_ARRAY_SIZE(peer_fields), sizeof(struct orr_config_peer)};
static const struct orr_yaml_table voter_table = {
    voter_fields, ORR_ARRAY_SIZE(voter_fields), sizeof(struct orr_config_voter)};
static const struct orr_yaml_table region_host_table = {
    region_host_fields,
    ORR_ARRAY_SIZE(region_host_fields),
    sizeof(struct orr_config_parent)};

/* clang-format off */
static const struct orr_yaml_field fields[] = {
    ROW("host", NAME, host, 1, 63, NULL, "name of this host, unique in the fleet"),
    ROW("region", NAME, region, 1, 63, NULL, "the region that it belongs to"),
    ROW("state", TEXT, state, 1, 4000, NULL, "directory of its state, absolute"),
    ROW("listen", TEXTS, listen, 0, 16, "", "ipc://PATH and tcp://127.0.0.1:PORT where others reach it"),

    SECTION("roles.region", region_role.is_on, "run the region actor"),
    ROW("roles.region.jobs_max", U32, region_role.jobs_max, 1, 100000000, "1000000", "live jobs; more are refused"),
    ROW("roles.region.finished_max", U32, region_role.finished_max, 1, 100000000, "10000", "ended jobs that are still shown"),
    ROW("roles.region.collect.every", DURATION, region_role.collect_every_ms, 1000, INT64_C(86400000) * 30, "10m", "how often stores remove what no checkpoint needs any more"),
    ROW("roles.region.collect.grace", DURATION, region_role.collect_grace_ms, 60000, INT64_C(86400000) * 365, "1h", "what is younger stays; longer than a checkpoint takes"),
    ROW("roles.region.ledger.address", TEXT, region_role.address, 1, 63, "", "IP:PORT of this host's ledger; default: as among the voters"),
    ROW("roles.region.ledger.endpoint", TEXT, region_role.endpoint, 1, ENDPOINT_MAX, "", "where clients and clusters dial this host; default: as among the voters, or the first of listen"),
    ROW("roles.region.ledger.join", BOOL, region_role.is_joining, 0, 0, "false", "this host waits for `orrery region add`; it starts no ledger of its own"),
    {"roles.region.ledger.voters", ORR_YAML_RECORDS, AT(region_role.voters), 0, 0, 16, "", NULL, &voter_table, "the 1, 3 or 5 hosts that the region starts with; default: this host alone"},

    SECTION("roles.cluster", cluster.is_on, "run a cluster actor"),
    ROW("roles.cluster.name", NAME, cluster.name, 1, 63, "", "default: the host's name"),
    ROW("roles.cluster.elastic", BOOL, cluster.is_elastic, 0, 0, "true", "jobs whose gpus.min and gpus.max differ grow by themselves where devices are free, and give back for jobs that wait"),
    {"roles.cluster.regions", ORR_YAML_RECORDS, AT(cluster.regions), 0, 0, ORR_REGION_HOSTS_MAX, "", NULL, &region_host_table, "every host of the region; default: this host and its voters"},

    SECTION("roles.node", node.is_on, "run a node actor for this machine"),
    ROW("roles.node.name", NAME, node.name, 1, 63, "", "default: the host's name"),
    ROW("roles.node.cluster.name", NAME, node.cluster, 1, 63, "", "default: the cluster of this host"),
    ROW("roles.node.cluster.host", NAME, node.parent.host, 1, 63, "", "host of the cluster actor; default: this host"),
    ROW("roles.node.cluster.endpoint", TEXT, node.parent.endpoint, 1, ENDPOINT_MAX, "", "where that host listens"),
    {"roles.node.devices.kind", ORR_YAML_ENUM, AT(node.device_kind), 0, 0, 3, "auto", device_names, NULL, "where devices come from"},
    ROW("roles.node.devices.count", U32, node.device_count, 0, 1024, "0", "how many emulated devices"),
    ROW("roles.node.devices.memory", SIZE, node.device_memory_bytes, 1 << 20, INT64_C(1) << 44, "1GiB", "memory of each emulated device"),
    ROW("roles.node.slots", U32, node.slots, 0, ORR_WORLD_MAX, "0", "ranks without a device that may run at once; 0: one per core"),
    ROW("roles.node.ranks_max", U32, node.ranks_max, 1, ORR_WORLD_MAX, "1024", "rank processes that it keeps account of"),
    {"roles.node.ports", ORR_YAML_U32, AT(node.port_min), AT(node.port_max), 1024, 65535, "20000..29999", NULL, NULL, "ports for MASTER_PORT"},
    ROW("roles.node.store.path", TEXT, node.store.path, 1, 3900, "", "directory of checkpoints, absolute; several nodes may share one; default: store in the state directory"),
    ROW("roles.node.store.quota", SIZE, node.store.quota_bytes, 0, INT64_MAX, "0", "most that the store may hold; 0: what the disk has"),
    ROW("roles.node.store.bandwidth", SIZE, node.store.bytes_per_s, 0, INT64_C(1) << 44, "0", "most that the store writes, sends or fetches a second; 0: no limit"),

    ROW("roles.node.overlay.address", TEXT, node.overlay.address, 1, 15, "", "IPv4 address of this machine at which VXLAN of other machines reaches the networks of ranks; default: these stay on the machine"),
    ROW("roles.node.overlay.port", U32, node.overlay.port, 1, 65535, "4789", "UDP port of VXLAN, the same on all machines"),

    ROW("softstate.redis", TEXT, softstate.redis, 1, ENDPOINT_MAX, "", "where Redis is: unix:///PATH or tcp://127.0.0.1:PORT; default: memory of this host"),
    ROW("softstate.user", NAME, softstate.user, 1, 63, "", "user of Redis's ACL"),
    ROW("softstate.password_file", TEXT, softstate.password_file, 1, 4000, "", "file with that user's password, absolute"),
    ROW("softstate.ttl", DURATION, softstate.ttl_ms, 2000, HOUR_MS, "15s", "after which Redis forgets what is not written again"),

    ROW("timing.heartbeat", DURATION, heartbeat_ms, 10, 60000, "500ms", "between signs of life"),
    ROW("timing.suspect", DURATION, suspect_ms, 20, HOUR_MS, "2s", "silence after which a node is `unknown`"),
    ROW("timing.lease", DURATION, lease_ms, 40, 24 * HOUR_MS, "30s", "silence after which its jobs may start elsewhere"),
    ROW("workers", U32, workers, 0, 256, "0", "threads; 0: one per core"),
    {"log.level", ORR_YAML_ENUM, AT(log_level), 0, 0, 3, "info", level_names, NULL, "least level that is logged"},
    {"peers", ORR_YAML_RECORDS, AT(peers), 0, 0, ORR_REGION_PEERS_MAX, "", NULL, &peer_table, "hosts of other regions, to which jobs may be migrated"},
};
/* clang-format on */

static const struct orr_yaml_table table = {
    fields, ORR_ARRAY_SIZE(fields), sizeof(struct orr_host_config)};

const struct orr_yaml_table *orr_host_config_table(void)
{
    return &table;
}

/* The port after the last colon is a whole number 1..65535. */
static bool has_port(const char *address)
{
    const char *colon = strrchr(address, ':');
    char *end;
    if (!colon || colon[1] < '0' || colon[1] > '9')
        return false;
    unsigned long port = strtoul(colon + 1, &end, 10);
    return *end == '\0' && port >= 1 && port <= 65535;
}

static bool is_loopback(const char *address)
{
    return strncmp(address, "127.", 4) == 0 ||
           strncmp(address, "localhost:", 10) == 0 ||
           strncmp(address, "[::1]:", 6) == 0;
}

enum orr_err orri_config_endpoint(const struct orr_host_config *c,
                                  const char *path,
                                  const char *endpoint,
                                  struct orr_error *err)
{
    if (strncmp(endpoint, "ipc://", 6) == 0) {
        if (endpoint[6] != '/')
            return orr_yaml_fail(c->yaml,
                                 path,
                                 err,
                                 "%s: write the absolute path: ipc:///...",
                                 endpoint);
        if (strlen(endpoint + 6) > UNIX_PATH_MAX)
            return orr_yaml_fail(c->yaml,
                                 path,
                                 err,
                                 "%s: longer than the %d bytes of a socket's path; "
                                 "use a shorter directory",
                                 endpoint,
                                 (int)UNIX_PATH_MAX);
        return ORR_OK;
    }
    if (strncmp(endpoint, "tcp://", 6) != 0 || !has_port(endpoint + 6))
        return orr_yaml_fail(c->yaml,
                             path,
                             err,
                             "%.200s: expected ipc:///PATH or tcp://HOST:PORT",
                             endpoint);
    return ORR_OK;
}

/* Without keys nobody is authenticated: then only this machine may knock. */
static enum orr_err check_listen(const struct orr_host_config *c,
                                 const char *path,
                                 const char *endpoint,
                                 struct orr_error *err)
{
    enum orr_err rc = orri_config_endpoint(c, path, endpoint, err);
    if (rc == ORR_OK && endpoint[0] == 't' && !is_loopback(endpoint + 6))
        return orr_yaml_fail(c->yaml,
                             path,
                             err,
                             "%s: without keys only ipc:// and loopback (127.0.0.1) "
                             "may be listened on",
                             endpoint);
    return rc;
}

static enum orr_err check_listens(const struct orr_host_config *c,
                                  struct orr_error *err)
{
    for (uint32_t i = 0; i < c->listen.n; i++) {
        enum orr_err rc = check_listen(c, "listen", c->listen.at[i].value.ptr, err);
        if (rc != ORR_OK)
            return rc;
    }
    if (c->region_role.is_on && c->listen.n == 0)
        return orr_yaml_fail(
            c->yaml, "listen", err, "a region needs an endpoint that clients reach");
    return ORR_OK;
}

/* The actor above runs here, or its host and endpoint must be known. */
static enum orr_err fill_parent(const struct orr_host_config *c,
                                struct orr_config_parent *parent,
                                bool is_here,
                                const char *path,
                                struct orr_error *err)
{
    char at[ORR_YAML_PATH_MAX];
    bool is_named_here = parent->host.len == 0 || orr_str_eq(parent->host, c->host);
    if (is_here && is_named_here) {
        parent->host = c->host;
        parent->endpoint = (struct orr_str){"", 0};
        return ORR_OK;
    }
    if (is_named_here)
        return orr_yaml_fail(c->yaml,
                             path,
                             err,
                             "does not run on this host; add `host:` and `endpoint:`");
    snprintf(at, sizeof at, "%s.endpoint", path);
    if (parent->endpoint.len == 0)
        return orr_yaml_fail(
            c->yaml, at, err, "missing; where host %s listens", parent->host.ptr);
    return orri_config_endpoint(c, at, parent->endpoint.ptr, err);
}

/* Where the networks of ranks meet those of other machines. */
static enum orr_err check_overlay(const struct orr_host_config *c,
                                  struct orr_error *err)
{
    const char *address = c->node.overlay.address.ptr;
    struct in_addr at;
    if (!c->node.overlay.address.len)
        return ORR_OK;
    bool is_ip = inet_pton(AF_INET, address, &at) == 1;
    uint32_t first = is_ip ? ntohl(at.s_addr) >> 24 : 0;
    if (first == 0 || first == IN_LOOPBACKNET || first >= 224)
        return orr_yaml_fail(c->yaml,
                             "roles.node.overlay.address",
                             err,
                             "%s: write an IPv4 address of this machine that the other "
                             "machines reach, such as 192.0.2.7",
                             address);
    return ORR_OK;
}

static enum orr_err fill_roles(struct orr_host_config *c, struct orr_error *err)
{
    enum orr_err rc = ORR_OK;
    if (!c->region_role.is_on && !c->cluster.is_on && !c->node.is_on)
        return orr_yaml_fail(
            c->yaml, "roles", err, "no role; add region, cluster or node");
    if (c->cluster.name.len == 0)
        c->cluster.name = c->host;
    if (c->node.name.len == 0)
        c->node.name = c->host;
    if (c->region_role.is_on)
        rc = orri_config_ledger(c, err);
    if (rc == ORR_OK && c->cluster.is_on)
        rc = orri_config_regions(c, err);
    if (rc != ORR_OK || !c->node.is_on)
        return rc;
    if (c->node.cluster.len == 0 && c->cluster.is_on)
        c->node.cluster = c->cluster.name;
    if (c->node.cluster.len == 0)
        return orr_yaml_fail(
            c->yaml, "roles.node.cluster.name", err, "missing; the cluster's name");
    bool is_here = c->cluster.is_on && orr_str_eq(c->node.cluster, c->cluster.name);
    if (c->node.device_kind == ORR_DEVICES_EMULATED && c->node.device_count == 0)
        return orr_yaml_fail(c->yaml,
                             "roles.node.devices.count",
                             err,
                             "how many emulated devices? write 1 or more");
    rc = orri_config_store(c, err);
    if (rc == ORR_OK)
        rc = check_overlay(c, err);
    return rc ? rc
              : fill_parent(c, &c->node.parent, is_here, "roles.node.cluster", err);
}

/* Redis has no TLS here: a socket of this machine, and a user with a password. */
static enum orr_err check_softstate(const struct orr_host_config *c,
                                    struct orr_error *err)
{
    const struct orr_config_softstate *s = &c->softstate;
    const char *redis = s->redis.ptr;
    if (s->redis.len == 0)
        return ORR_OK;
    bool is_unix = strncmp(redis, "unix:///", 8) == 0;
    bool is_tcp = strncmp(redis, "tcp://", 6) == 0 && is_loopback(redis + 6) &&
                  has_port(redis + 6);
    if (!is_tcp && (!is_unix || s->redis.len - 7 > UNIX_PATH_MAX))
        return orr_yaml_fail(c->yaml,
                             "softstate.redis",
                             err,
                             "%.150s: expected unix:///PATH (at most %d bytes) or "
                             "tcp://127.0.0.1:PORT",
                             redis,
                             (int)UNIX_PATH_MAX);
    if ((s->user.len == 0) != (s->password_file.len == 0))
        return orr_yaml_fail(
            c->yaml, "softstate.user", err, "user and password_file go together");
    if (is_tcp && s->user.len == 0)
        return orr_yaml_fail(c->yaml,
                             "softstate.user",
                             err,
                             "missing; anybody on this machine reaches a TCP port, so "
                             "give a user of Redis's ACL and its password_file");
    if (s->password_file.len && s->password_file.ptr[0] != '/')
        return orr_yaml_fail(
            c->yaml, "softstate.password_file", err, "write an absolute path");
    return ORR_OK;
}

static struct orr_str host_of(const struct orr_config_peer *peer)
{
    return peer->host.len ? peer->host : peer->name;
}

/* Of this region, as far as this file names them. */
static bool is_own_host(const struct orr_host_config *c, struct orr_str host)
{
    bool is_own = orr_str_eq(host, c->host);
    for (uint32_t i = 0; i < c->region_role.voters.n; i++)
        is_own = is_own || orr_str_eq(host, c->region_role.voters.at[i].host);
    for (uint32_t i = 0; i < c->cluster.regions.n; i++)
        is_own = is_own || orr_str_eq(host, c->cluster.regions.at[i].host);
    return is_own;
}

static enum orr_err check_peers(const struct orr_host_config *c, struct orr_error *err)
{
    for (uint32_t i = 0; i < c->peers.n; i++) {
        const struct orr_config_peer *peer = &c->peers.at[i];
        struct orr_str host = host_of(peer);
        uint32_t same = 0;
        while (!orr_str_eq(host_of(&c->peers.at[same]), host))
            same++;
        if (orr_str_eq(peer->name, c->region))
            return orr_yaml_fail(c->yaml,
                                 "peers",
                                 err,
                                 "%s is this region itself; name other regions",
                                 peer->name.ptr);
        if (same < i || is_own_host(c, host))
            return orr_yaml_fail(c->yaml,
                                 "peers",
                                 err,
                                 same < i ? "host %s is there twice; a name is one "
                                            "host's only, over all regions"
                                          : "host %s is of this region, too; a name is "
                                            "one host's only, over all regions",
                                 host.ptr);
        enum orr_err rc = orri_config_endpoint(c, "peers", peer->endpoint.ptr, err);
        if (rc != ORR_OK)
            return rc;
    }
    return ORR_OK;
}

static enum orr_err fill_rest(struct orr_host_config *c, struct orr_error *err)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (c->state.ptr[0] != '/')
        return orr_yaml_fail(c->yaml, "state", err, "write an absolute path");
    if (c->heartbeat_ms * 2 > c->suspect_ms || c->suspect_ms > c->lease_ms)
        return orr_yaml_fail(c->yaml,
                             "timing",
                             err,
                             "suspect must be at least two heartbeats, and lease no "
                             "shorter than suspect");
    if (c->heartbeat_ms * 16 >
        c->lease_ms) /* else no majority is heard (docs/fencing.md) */
        return orr_yaml_fail(c->yaml,
                             "timing",
                             err,
                             "lease must be at least 16 heartbeats, or no node could "
                             "ever be given up");
    if (c->workers == 0)
        c->workers = cores > 0 ? (uint32_t)cores : 1;
    if (c->node.slots == 0)
        c->node.slots = cores > 0 ? (uint32_t)cores : 1;
    enum orr_err rc = check_peers(c, err);
    if (rc == ORR_OK)
        rc = check_softstate(c, err);
    return rc == ORR_OK ? check_listens(c, err) : rc;
}

enum orr_err orr_config_parse(const char *file,
                              const char *text,
                              size_t len,
                              struct orr_host_config *ret_config,
                              struct orr_error *err)
{
    struct orr_host_config c;
    struct orr_yaml *yaml;
    enum orr_err rc = orr_yaml_bind(&table, file, text, len, &c, &yaml, err);
    if (rc != ORR_OK)
        return rc;
    c.yaml = yaml;
    rc = fill_roles(&c, err);
    if (rc == ORR_OK)
        rc = fill_rest(&c, err);
    if (rc != ORR_OK) {
        orr_yaml_free(yaml);
        return rc;
    }
    *ret_config = c;
    return ORR_OK;
}

enum orr_err orr_config_load(const char *path,
                             struct orr_host_config *ret_config,
                             struct orr_error *err)
{
    char *text;
    size_t len;
    enum orr_err rc = orr_yaml_load(path, &text, &len, err);
    if (rc != ORR_OK)
        return rc;
    rc = orr_config_parse(path, text, len, ret_config, err);
    free(text);
    return rc;
}

void orr_config_free(struct orr_host_config *config)
{
    orr_yaml_free(config->yaml);
    *config = (struct orr_host_config){0};
}
