/* SPDX-License-Identifier: Apache-2.0
 * role_rank.c - see role_rank.h.
 */
#include "role_rank.h"

#include "device/device_lib.h"
#include "rank/port/rank_edge.h"
#include "rank/port/rank_port.h"

#include <sys/stat.h>
#include <unistd.h>

void role_rank_run(const struct host *h, char *buf, size_t cap)
{
    const char *run = getenv("ORRERY_RUN"), *user = getenv("XDG_RUNTIME_DIR");
    if (run && *run)
        snprintf(buf, cap, "%s", run);
    else if (geteuid() == 0)
        snprintf(buf, cap, "/run/orrery/rank");
    else if (user && *user)
        snprintf(buf, cap, "%s/orrery/rank", user);
    else
        snprintf(buf, cap, "%s/run", h->config.state.ptr);
}

void role_rank_lib(char *buf, size_t cap)
{
    char *path = orr_device_lib("rank/liborrery-rank.so");
    bool is_there = path && strlen(path) < cap && access(path, R_OK) == 0;
    snprintf(buf, cap, "%s", is_there ? path : "");
    free(path);
}

/* The last part is the edge's to make, with its own mode. */
static void make_parent(const char *run)
{
    char parent[4096];
    snprintf(parent, sizeof parent, "%s", run);
    char *end = strrchr(parent, '/');
    if (end && end != parent) {
        *end = '\0';
        mkdir(parent, 0755); /* there already, or the edge says what is wrong */
    }
}

enum orr_err
role_rank_start(struct host *h, struct orr_addr node, struct orr_error *err)
{
    char run[4096];
    role_rank_run(h, run, sizeof run);
    make_parent(run);
    const struct orr_rank_edge_config config = {.run = run,
                                                .node = h->config.node.name.ptr,
                                                .arenas = h->images,
                                                .ranks_max = h->config.node.ranks_max};
    struct orr_error why;
    enum orr_err code = orr_rank_edge_open(&config, &h->rank_edge, &why);
    if (code) { /* jobs run all the same, and cannot be stopped */
        fprintf(stderr, "orrery: jobs on this node can only be killed: %s\n", why.text);
        h->rank_edge = NULL;
        return ORR_OK;
    }
    const struct orr_rank_port_args args = {
        h->rank_edge, h->system, orr_system_post, node};
    const struct orr_spawn spawn = {.type = &orr_rank_port_type,
                                    .args = &args,
                                    .path = "/edge/rank",
                                    .restart = ORR_PERMANENT};
    struct orr_addr addr;
    code = orr_system_spawn(h->system, &spawn, &addr);
    return code
               ? orr_fail(err, code, "/edge/rank: cannot start: %s", orr_err_text(code))
               : ORR_OK;
}

void role_rank_close(struct host *h)
{
    orr_rank_edge_close(h->rank_edge);
    h->rank_edge = NULL;
}
