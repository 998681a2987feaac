/* SPDX-License-Identifier: Apache-2.0
 * roles.c - region, cluster and node, each put together from its edges and its actor: see roles.h.
 */
#include "roles.h"

#include "cluster/cluster.h"
#include "events/events.h"
#include "job/job.h"
#include "links.h"
#include "node/node.h"
#include "process/image_drop.h"
#include "process/process_linux.h"
#include "process/process_port.h"
#include "region/region.h"
#include "role_devices.h"
#include "role_ledger.h"
#include "role_rank.h"
#include "role_softstate.h"
#include "role_store.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    EVENTS_KEPT_MAX = 1 << 16,
    EVENTS_KEPT_BYTES = 32 << 20,
    DEVICE_PERIOD_MS = 10000
};

struct path {
    char text[3 * ORR_NAME_MAX + 4];
};

static struct path path_of(const char *region, const char *cluster, const char *node)
{
    struct path p;
    snprintf(p.text,
             sizeof p.text,
             "/%s%s%s%s%s",
             region,
             cluster ? "/" : "",
             cluster ? cluster : "",
             node ? "/" : "",
             node ? node : "");
    return p;
}

static enum orr_err spawn(struct host *h,
                          const struct orr_actor_type *type,
                          const void *args,
                          const char *path,
                          struct orr_error *err)
{
    const struct orr_spawn s = {
        .type = type, .args = args, .path = path, .restart = ORR_PERMANENT};
    struct orr_addr addr;
    enum orr_err code = orr_system_spawn(h->system, &s, &addr);
    return code ? orr_fail(err, code, "%s: cannot start: %s", path, orr_err_text(code))
                : ORR_OK;
}

/* The parent's host is dialled unless it is this one. */
static enum orr_err
dial(struct host *h, const struct orr_config_parent *parent, struct orr_error *err)
{
    return parent->endpoint.len
               ? orr_zmq_dial(h->zmq, parent->host.ptr, parent->endpoint.ptr, err)
               : ORR_OK;
}

/* The hosts of other regions; one of them leads there. */
static enum orr_err
dial_peers(struct host *h, struct orr_region_args *args, struct orr_error *err)
{
    enum orr_err code = ORR_OK;
    for (uint32_t i = 0; !code && i < h->config.peers.n; i++) {
        const struct orr_config_peer *p = &h->config.peers.at[i];
        struct orr_region_peer *to = &args->peers[args->n_peers++];
        struct orr_str host = p->host.len ? p->host : p->name;
        orr_str_copy(to->region, sizeof to->region, p->name);
        orr_str_copy(to->host, sizeof to->host, host);
        orr_str_copy(to->endpoint, sizeof to->endpoint, p->endpoint);
        code = orr_zmq_dial(h->zmq, host.ptr, p->endpoint.ptr, err);
    }
    return code;
}

static enum orr_err start_region(struct host *h, struct orr_error *err)
{
    const struct orr_host_config *c = &h->config;
    struct orr_region_args args = {.build = ORR_VERSION,
                                   .has_softstate = true,
                                   .jobs_max = c->region_role.jobs_max,
                                   .finished_max = c->region_role.finished_max,
                                   .collect_every_ms = c->region_role.collect_every_ms,
                                   .collect_grace_ms = c->region_role.collect_grace_ms,
                                   .suspect_ms = (uint32_t)c->suspect_ms};
    snprintf(h->region_path, sizeof h->region_path, "/%s", c->region.ptr);
    enum orr_err code =
        orr_events_new(EVENTS_KEPT_MAX, EVENTS_KEPT_BYTES, &h->events, err);
    if (code)
        return code;
    const struct orr_events_args events = {h->events};
    orr_str_copy(args.region, sizeof args.region, c->region);
    orr_str_copy(args.host, sizeof args.host, c->host);
    if (!code)
        code = dial_peers(h, &args, err);
    if (!code)
        code = spawn(h, &orr_events_actor, &events, "/edge/events", err);
    if (!code)
        code = role_ledger_start(h, err);
    return code ? code : spawn(h, &orr_region_type, &args, h->region_path, err);
}

static enum orr_err start_cluster(struct host *h, struct orr_error *err)
{
    const struct orr_host_config *c = &h->config;
    struct orr_cluster_args args = {.job_type = &orr_job_type,
                                    .heartbeat_ms = (uint32_t)c->heartbeat_ms,
                                    .suspect_ms = (uint32_t)c->suspect_ms,
                                    .lease_ms = (uint32_t)c->lease_ms,
                                    .is_rigid = !c->cluster.is_elastic,
                                    .has_softstate = true};
    struct path path = path_of(c->region.ptr, c->cluster.name.ptr, NULL);
    orr_str_copy(args.region, sizeof args.region, c->region);
    orr_str_copy(args.cluster, sizeof args.cluster, c->cluster.name);
    enum orr_err code = ORR_OK;
    for (uint32_t i = 0; !code && i < c->cluster.regions.n; i++) {
        orr_str_copy(args.region_hosts[i],
                     sizeof args.region_hosts[i],
                     c->cluster.regions.at[i].host);
        code = dial(h, &c->cluster.regions.at[i], err);
    }
    return code ? code : spawn(h, &orr_cluster_type, &args, path.text, err);
}

static enum orr_err open_process(struct host *h, struct orr_error *err)
{
    const struct orr_config_node *n = &h->config.node;
    const struct orr_process_linux_config config = {
        .state_dir = h->config.state.ptr,
        .ranks_max = n->ranks_max,
        .port_min = (uint16_t)n->port_min,
        .port_max = (uint16_t)n->port_max,
        .addr = n->overlay.address.len ? n->overlay.address.ptr : NULL};
    return orr_process_linux_open(&config, &h->process, err);
}

static void say_no_devices(void *arg, const char *why)
{
    (void)arg;
    fprintf(stderr, "orrery: this node offers no devices: %s\n", why);
}

/* Memory, where there is some for it: a job stands still while its image is written. */
static void images_dir(const struct host *h, char *buf, size_t cap)
{
    const char *shm = "/dev/shm", *state = h->config.state.ptr;
    char *real = realpath(state, NULL);
    if (access(shm, W_OK) == 0)
        snprintf(buf,
                 cap,
                 "%s/orrery-images-%016" PRIx64,
                 shm,
                 orr_hash(orr_str(real ? real : state)));
    else
        snprintf(buf, cap, "%s/images", state);
    free(real);
}

/* Half of the machine's memory may hold what was on the devices of stopped ranks. */
static struct orr_node_args node_args(const struct host *h)
{
    const struct orr_host_config *c = &h->config;
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    struct orr_node_args args = {.memory_bytes = (uint64_t)pages * (uint64_t)page_bytes,
                                 .slots = c->node.slots,
                                 .ranks_max = c->node.ranks_max,
                                 .heartbeat_ms = (uint32_t)c->heartbeat_ms,
                                 .has_softstate = true,
                                 .has_stops = true};
    args.stop_bytes_max = args.memory_bytes / 2;
    role_rank_run(h, args.run_dir, sizeof args.run_dir);
    images_dir(h, args.images_dir, sizeof args.images_dir);
    role_rank_lib(args.rank_lib, sizeof args.rank_lib);
    orr_str_copy(args.region, sizeof args.region, c->region);
    orr_str_copy(args.cluster, sizeof args.cluster, c->node.cluster);
    orr_str_copy(args.node, sizeof args.node, c->node.name);
    orr_str_copy(args.cluster_host, sizeof args.cluster_host, c->node.parent.host);
    orr_str_copy(args.host, sizeof args.host, c->host);
    orr_str_copy(
        args.endpoint, sizeof args.endpoint, orr_str(orr_zmq_endpoint(h->zmq)));
    if (c->node.overlay.address.len) {
        snprintf(args.machine,
                 sizeof args.machine,
                 "%s:%u",
                 c->node.overlay.address.ptr,
                 c->node.overlay.port);
        orr_overlay_try(
            args.machine, args.machine_trouble, sizeof args.machine_trouble);
    }
    return args;
}

/* What the node's actor works with on this machine. */
static enum orr_err
open_node_edges(struct host *h, const struct orr_node_args *args, struct orr_error *err)
{
    enum orr_err code = open_process(h, err);
    if (!code)
        code = orr_images_open(args->images_dir, err);
    if (!code)
        code = role_devices_open(&h->config.node, h->config.state.ptr, &h->device, err);
    if (!code)
        code = orr_device_watch_new(h->device, DEVICE_PERIOD_MS, &h->watch, err);
    return code;
}

static enum orr_err start_node_edges(struct host *h,
                                     struct orr_addr node,
                                     const char *images,
                                     struct orr_error *err)
{
    const struct orr_process_port_args process = {
        h->process, h->system, orr_system_post, node, images};
    const struct orr_device_port_args device = {.watch = h->watch,
                                                .device = h->device,
                                                .system = h->system,
                                                .post = orr_system_post,
                                                .node = node,
                                                .no_devices = say_no_devices};
    enum orr_err code =
        spawn(h, &orr_process_port_type, &process, "/edge/process", err);
    return code ? code : spawn(h, &orr_device_port_type, &device, "/edge/device", err);
}

static enum orr_err start_node(struct host *h, struct orr_error *err)
{
    const struct orr_host_config *c = &h->config;
    const struct path path =
        path_of(c->region.ptr, c->node.cluster.ptr, c->node.name.ptr);
    const struct orr_addr node = orr_addr_named(c->host, orr_str(path.text));
    const struct host_links_args links = {h->zmq};
    const struct orr_node_args args = node_args(h);
    orr_str_copy(h->images, sizeof h->images, orr_str(args.images_dir));
    if (args.machine_trouble[0])
        fprintf(stderr,
                "orrery: ranks of node %s cannot reach those on other machines: %s\n",
                args.node,
                args.machine_trouble);
    if (!args.endpoint[0])
        fprintf(stderr,
                "orrery: node %s listens nowhere: when its cluster's host is down, no "
                "peer can vouch for it, and its ranks "
                "freeze after three quarters of a lease; give it a `listen:`\n",
                args.node);
    enum orr_err code = open_node_edges(h, &args, err);
    if (!code)
        code = dial(h, &c->node.parent, err);
    if (!code)
        code = spawn(h, &host_links_type, &links, "/edge/links", err);
    if (!code)
        code = role_store_start(h, err);
    if (!code)
        code = role_rank_start(h, node, err);
    if (!code)
        code = spawn(h, &orr_node_type, &args, path.text, err);
    return code ? code : start_node_edges(h, node, h->images, err);
}

void roles_remove_images(const struct host *h)
{
    char dir[sizeof h->images];
    images_dir(h, dir, sizeof dir);
    struct orr_error why;
    if (orr_images_remove(dir, &why) != ORR_OK)
        fprintf(stderr, "orrery: %s\n", why.text);
}

enum orr_err roles_start(struct host *h, struct orr_error *err)
{
    enum orr_err code = role_softstate_start(h, err);
    if (!code && h->config.region_role.is_on)
        code = start_region(h, err);
    if (!code && h->config.cluster.is_on)
        code = start_cluster(h, err);
    if (!code && h->config.node.is_on)
        code = start_node(h, err);
    return code;
}

void roles_close(struct host *h)
{
    orr_device_watch_free(h->watch);
    if (h->process)
        h->process->ops->close(h->process);
    if (h->device)
        h->device->ops->close(h->device);
    role_ledger_close(h->ledger);
    orr_events_free(h->events);
    role_softstate_close(h);
    role_store_close(h);
    role_rank_close(h);
    h->watch = NULL;
    h->process = NULL;
    h->device = NULL;
    h->ledger = NULL;
    h->events = NULL;
}
