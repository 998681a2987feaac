/* SPDX-License-Identifier: Apache-2.0
 * role_softstate.c - role_softstate.h.
 */
#include "role_softstate.h"

#include "softstate/softstate_port.h"

#include <time.h>

/* A region has a line for each job; another host for each of its nodes. */
enum { KEYS_REGION_MAX = 65536, KEYS_MAX = 4096 };

static struct orr_str roles_of(const struct orr_host_config *c)
{
    static const char *const words[] = {"",
                                        "region",
                                        "cluster",
                                        "region cluster",
                                        "node",
                                        "region node",
                                        "cluster node",
                                        "region cluster node"};
    return orr_str(words[(c->region_role.is_on ? 1 : 0) + (c->cluster.is_on ? 2 : 0) +
                         (c->node.is_on ? 4 : 0)]);
}

static enum orr_err open_edge(struct host *h, struct orr_error *err)
{
    const struct orr_host_config *c = &h->config;
    const struct orr_softstate_config config = {
        .region = c->region.ptr,
        .host = c->host.ptr,
        .keys_max = c->region_role.is_on ? KEYS_REGION_MAX : KEYS_MAX,
        .ttl_ms = c->softstate.ttl_ms,
        .redis = c->softstate.redis.ptr,
        .user = c->softstate.user.ptr,
        .password_file = c->softstate.password_file.ptr};
    return c->softstate.redis.len
               ? orr_softstate_redis_open(&config, &h->softstate, err)
               : orr_softstate_mem_open(&config, &h->softstate, err);
}

enum orr_err role_softstate_start(struct host *h, struct orr_error *err)
{
    const struct orr_host_config *c = &h->config;
    struct timespec now;
    struct orr_addr addr;
    enum orr_err code = open_edge(h, err);
    if (code)
        return code;
    clock_gettime(CLOCK_REALTIME, &now);
    const struct orr_softstate_port_args args = {
        .softstate = h->softstate,
        .host = {.region = c->region,
                 .host = c->host,
                 .roles = roles_of(c),
                 .endpoint = c->listen.n ? c->listen.at[0].value : (struct orr_str){0},
                 .incarnation = h->incarnation,
                 .build = orr_str(ORR_VERSION),
                 .started_unix_ms =
                     (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000}};
    const struct orr_spawn spawn = {.type = &orr_softstate_port_type,
                                    .args = &args,
                                    .path = "/edge/softstate",
                                    .restart = ORR_PERMANENT};
    code = orr_system_spawn(h->system, &spawn, &addr);
    return code
               ? orr_fail(
                     err, code, "/edge/softstate: cannot start: %s", orr_err_text(code))
               : ORR_OK;
}

void role_softstate_close(struct host *h)
{
    if (h->softstate)
        h->softstate->ops->close(h->softstate);
    h->softstate = NULL;
}
