/* SPDX-License-Identifier: Apache-2.0
 * host_config_region.c - the hosts of a region: the voters of its ledger, and where a
 * cluster looks for the one that leads.
 *
 * A host that is among the voters has its address and endpoint there, so that all of
 * them can have the same list.  A host that joins later knows no voters: the leader
 * tells it.
 */
#include "host_config.h"

#include <arpa/inet.h>

#define LEDGER "roles.region.ledger"

struct place {
    char path[ORR_YAML_PATH_MAX];
};

static struct place place_of(const char *list, uint32_t index, const char *field)
{
    struct place p;
    snprintf(p.path, sizeof p.path, "%s[%u].%s", list, (unsigned)index, field);
    return p;
}

/* IP:PORT, and without keys nobody but this machine may reach a ledger. */
static enum orr_err check_address(const struct orr_host_config *c,
                                  const char *path,
                                  struct orr_str address,
                                  struct orr_error *err)
{
    const char *colon = strrchr(address.ptr, ':');
    char ip[INET_ADDRSTRLEN] = "";
    struct in_addr parsed;
    char *end = NULL;
    bool has_digit = colon && colon[1] >= '0' && colon[1] <= '9';
    unsigned long port = has_digit ? strtoul(colon + 1, &end, 10) : 0;
    size_t len = colon ? (size_t)(colon - address.ptr) : sizeof ip;
    if (len < sizeof ip)
        memcpy(ip, address.ptr, len);
    if (!has_digit || *end || port < 1 || port > 65535 ||
        inet_pton(AF_INET, ip, &parsed) != 1)
        return orr_yaml_fail(c->yaml,
                             path,
                             err,
                             "%s: expected IP:PORT, such as 127.0.0.1:7402",
                             address.ptr);
    if (ntohl(parsed.s_addr) >> 24 != 127)
        return orr_yaml_fail(c->yaml,
                             path,
                             err,
                             "%s: without keys only loopback (127.0.0.1) may be used",
                             address.ptr);
    return ORR_OK;
}

/* What an earlier voter has already is written twice by mistake. */
static enum orr_err
check_unique(const struct orr_host_config *c, uint32_t index, struct orr_error *err)
{
    const struct orr_config_voter *v = &c->region_role.voters.at[index];
    for (uint32_t i = 0; i < index; i++) {
        const struct orr_config_voter *w = &c->region_role.voters.at[i];
        const char *field = orr_str_eq(v->host, w->host)           ? "host"
                            : orr_str_eq(v->address, w->address)   ? "address"
                            : orr_str_eq(v->endpoint, w->endpoint) ? "endpoint"
                                                                   : NULL;
        if (field)
            return orr_yaml_fail(c->yaml,
                                 place_of(LEDGER ".voters", index, field).path,
                                 err,
                                 "voter %u has it already; each has its own",
                                 (unsigned)i + 1);
    }
    return ORR_OK;
}

static enum orr_err check_voters(const struct orr_host_config *c, struct orr_error *err)
{
    uint32_t n = c->region_role.voters.n;
    if (n != 1 && n != 3 && n != 5)
        return orr_yaml_fail(
            c->yaml,
            LEDGER ".voters",
            err,
            "%u voters; write 1, 3 or 5: %s",
            (unsigned)n,
            n > 5 ? "each more makes every change slower, and 5 survive two losses"
                  : "an even number survives no more losses than one less");
    for (uint32_t i = 0; i < n; i++) {
        const struct orr_config_voter *v = &c->region_role.voters.at[i];
        enum orr_err rc = check_address(
            c, place_of(LEDGER ".voters", i, "address").path, v->address, err);
        if (rc == ORR_OK)
            rc = orri_config_endpoint(c,
                                      place_of(LEDGER ".voters", i, "endpoint").path,
                                      v->endpoint.ptr,
                                      err);
        if (rc == ORR_OK)
            rc = check_unique(c, i, err);
        if (rc != ORR_OK)
            return rc;
    }
    return ORR_OK;
}

/* This host's own address and endpoint, as its voter's record has them. */
static enum orr_err take_own(struct orr_host_config *c, struct orr_error *err)
{
    struct orr_config_region *r = &c->region_role;
    const struct orr_config_voter *own = NULL;
    for (uint32_t i = 0; i < r->voters.n && !own; i++)
        own = orr_str_eq(r->voters.at[i].host, c->host) ? &r->voters.at[i] : NULL;
    if (!own)
        return orr_yaml_fail(c->yaml,
                             LEDGER ".voters",
                             err,
                             "this host, %s, is not among them; add it, or write "
                             "`join: true` instead of voters",
                             c->host.ptr);
    if (r->address.len && !orr_str_eq(r->address, own->address))
        return orr_yaml_fail(c->yaml,
                             LEDGER ".address",
                             err,
                             "%s, but %s among the voters",
                             r->address.ptr,
                             own->address.ptr);
    if (r->endpoint.len && !orr_str_eq(r->endpoint, own->endpoint))
        return orr_yaml_fail(c->yaml,
                             LEDGER ".endpoint",
                             err,
                             "%s, but %s among the voters",
                             r->endpoint.ptr,
                             own->endpoint.ptr);
    r->address = own->address;
    r->endpoint = own->endpoint;
    return ORR_OK;
}

static enum orr_err check_join(const struct orr_host_config *c, struct orr_error *err)
{
    const struct orr_config_region *r = &c->region_role;
    if (r->voters.n)
        return orr_yaml_fail(c->yaml,
                             LEDGER ".voters",
                             err,
                             "not with `join: true`: the leader tells a host that "
                             "joins who votes; remove one of the two");
    if (!r->address.len)
        return orr_yaml_fail(c->yaml,
                             LEDGER ".address",
                             err,
                             "missing; IP:PORT where the other voters reach this host");
    if (!r->endpoint.len)
        return orr_yaml_fail(c->yaml,
                             LEDGER ".endpoint",
                             err,
                             "missing; where clients and clusters dial this host");
    return ORR_OK;
}

enum orr_err orri_config_ledger(struct orr_host_config *c, struct orr_error *err)
{
    struct orr_config_region *r = &c->region_role;
    enum orr_err rc = ORR_OK;
    if (r->is_joining)
        rc = check_join(c, err);
    else if (r->voters.n)
        rc = check_voters(c, err);
    if (rc == ORR_OK && r->voters.n)
        rc = take_own(c, err);
    if (rc == ORR_OK && r->address.len)
        rc = check_address(c, LEDGER ".address", r->address, err);
    if (rc == ORR_OK && !r->endpoint.len && c->listen.n)
        r->endpoint = c->listen.at[0].value;
    return rc == ORR_OK && r->endpoint.len
               ? orri_config_endpoint(c, LEDGER ".endpoint", r->endpoint.ptr, err)
               : rc;
}

/* ---- a cluster's region ---- */

/* Not written: the region runs here, and on its voters. */
static uint32_t default_regions(const struct orr_host_config *c,
                                struct orr_config_parent *at)
{
    const struct orr_config_region *r = &c->region_role;
    for (uint32_t i = 0; i < r->voters.n; i++)
        at[i] =
            (struct orr_config_parent){r->voters.at[i].host, r->voters.at[i].endpoint};
    if (r->voters.n == 0)
        at[0] = (struct orr_config_parent){c->host, {"", 0}};
    return r->voters.n ? r->voters.n : 1;
}

static enum orr_err check_region_host(const struct orr_host_config *c,
                                      struct orr_config_parent *at,
                                      uint32_t index,
                                      struct orr_error *err)
{
    struct place host = place_of("roles.cluster.regions", index, "host");
    struct place endpoint = place_of("roles.cluster.regions", index, "endpoint");
    for (uint32_t i = 0; i < index; i++)
        if (orr_str_eq(at[i].host, at[index].host))
            return orr_yaml_fail(
                c->yaml, host.path, err, "%s is listed already", at[index].host.ptr);
    if (!orr_str_eq(at[index].host, c->host))
        return orri_config_endpoint(c, endpoint.path, at[index].endpoint.ptr, err);
    if (!c->region_role.is_on)
        return orr_yaml_fail(c->yaml,
                             host.path,
                             err,
                             "%s is this host, and has no role region; add the role, "
                             "or leave it out",
                             c->host.ptr);
    at[index].endpoint = (struct orr_str){"", 0}; /* nobody dials himself */
    return ORR_OK;
}

enum orr_err orri_config_regions(struct orr_host_config *c, struct orr_error *err)
{
    uint32_t n = c->cluster.regions.n;
    struct orr_config_parent *at =
        orr_yaml_alloc(c->yaml, ORR_REGION_HOSTS_MAX * sizeof *at);
    if (!at)
        return orr_fail(err, ORR_ENOMEM, "roles.cluster.regions: out of memory");
    if (n == 0 && (!c->region_role.is_on || c->region_role.is_joining))
        return orr_yaml_fail(c->yaml,
                             "roles.cluster.regions",
                             err,
                             "the region %s; list its hosts: [{host: r1, endpoint: "
                             "\"tcp://...\"}]",
                             c->region_role.is_on ? "has other hosts, too"
                                                  : "does not run on this host");
    if (n)
        memcpy(at, c->cluster.regions.at, n * sizeof *at);
    else
        n = default_regions(c, at);
    for (uint32_t i = 0; i < n; i++) {
        enum orr_err rc = check_region_host(c, at, i, err);
        if (rc != ORR_OK)
            return rc;
    }
    c->cluster.regions.at = at;
    c->cluster.regions.n = n;
    return ORR_OK;
}
