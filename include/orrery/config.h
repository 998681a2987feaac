/* SPDX-License-Identifier: Apache-2.0
 * config.h - the configuration of one host: which roles it runs, and where the others
 * are.
 *
 * A host runs any set of the roles region, cluster and node.  Every text is terminated
 * and lives until orr_config_free. Fields with their defaults: `orrery explain
 * --host`, or the commented files in configs/.
 */
#ifndef ORR_CONFIG_H
#define ORR_CONFIG_H

#include "orrery/ids.h"
#include "orrery/msg.h"
#include "orrery/yaml.h"

enum orr_device_kind {
    ORR_DEVICES_AUTO,     /* what the driver finds; none where there is no driver */
    ORR_DEVICES_CUDA,     /* what the driver finds; no driver is an error */
    ORR_DEVICES_EMULATED, /* devices.count of them, on host memory */
    ORR_DEVICES_NONE,
};

/* Where an actor above runs: the host's name and an endpoint to dial; the endpoint is
 * empty when it is this host. */
struct orr_config_parent {
    struct orr_str host;
    struct orr_str endpoint;
};

struct orr_config_voter { /* a host that keeps a copy of the region's ledger */
    struct orr_str host;
    struct orr_str address;  /* IP:PORT of its ledger */
    struct orr_str endpoint; /* where clients and clusters dial it */
};

struct orr_config_region {
    bool is_on;
    uint32_t jobs_max;         /* live jobs; then submits are refused */
    uint32_t finished_max;     /* ended jobs that are still shown */
    uint64_t collect_every_ms; /* stores are told what checkpoints need */
    uint64_t collect_grace_ms; /* what is younger stays there */
    struct orr_str address;  /* IP:PORT of this host's ledger; empty: the only voter */
    struct orr_str endpoint; /* where clients and clusters dial this host */
    bool is_joining;         /* made to be added to a region that exists: it starts no
                                ledger of its own */
    struct { /* of the first start, this host among them; empty: this host alone */
        const struct orr_config_voter *at;
        uint32_t n; /* 0, 1, 3 or 5 */
    } voters;
};

struct orr_config_cluster {
    bool is_on;
    struct orr_str name;
    bool is_elastic;
    struct { /* every host of the region, one of which leads; never empty */
        const struct orr_config_parent *at;
        uint32_t n; /* at most ORR_REGION_HOSTS_MAX */
    } regions;
};

struct orr_config_store { /* where a node keeps checkpoints */
    struct orr_str path;  /* absolute; default: STATE/store */
    uint64_t quota_bytes; /* 0: none */
    uint64_t
        bytes_per_s; /* cap on writing, on sending to peers and on fetching; 0: none */
};

struct orr_config_overlay { /* networks of ranks over several machines */
    struct orr_str address; /* IPv4, of this machine; empty: they stay on it */
    uint32_t port;          /* UDP */
};

struct orr_config_node {
    bool is_on;
    struct orr_str name;
    struct orr_str cluster;
    struct orr_config_parent parent; /* of the cluster */
    uint32_t device_kind;            /* enum orr_device_kind */
    uint32_t device_count;           /* of emulated devices */
    uint64_t device_memory_bytes;    /* of each emulated device */
    uint32_t slots;                  /* ranks without a device that may run at once */
    uint32_t ranks_max; /* rank processes, running and ended but not forgotten */
    uint32_t port_min, port_max; /* for MASTER_PORT */
    struct orr_config_store store;
    struct orr_config_overlay overlay;
};

struct orr_config_softstate { /* what readers that only look see */
    struct orr_str redis; /* unix:///PATH or tcp://127.0.0.1:PORT; empty: in memory */
    struct orr_str user;  /* of Redis's ACL; empty: none */
    struct orr_str password_file;
    uint64_t ttl_ms;
};

struct orr_config_peer { /* a host of another region */
    struct orr_str name; /* of the region */
    struct orr_str host; /* default: named as its region */
    struct orr_str endpoint;
};

struct orr_host_config {
    struct orr_yaml *yaml; /* owned: all texts */
    struct orr_str host;
    struct orr_str region; /* the region that it belongs to */
    struct orr_str state;  /* directory, absolute */
    struct orr_list_text listen;
    struct orr_config_region region_role;
    struct orr_config_cluster cluster;
    struct orr_config_node node;
    struct orr_config_softstate softstate;
    uint64_t heartbeat_ms;
    uint64_t suspect_ms;
    uint64_t lease_ms;
    uint32_t workers;   /* threads */
    uint32_t log_level; /* enum orr_log_level */
    struct {
        const struct orr_config_peer *at;
        uint32_t n;
    } peers;
};

const struct orr_yaml_table *orr_host_config_table(void);

/* Read, fill and check.  Errors: ORR_ENOENT, ORR_EIO, ORR_EINVAL (err says
 * file:line:column, field, remedy), ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_config_load(const char *path,
                                           struct orr_host_config *ret_config,
                                           struct orr_error *err);
ORR_NODISCARD enum orr_err orr_config_parse(const char *file,
                                            const char *text,
                                            size_t len,
                                            struct orr_host_config *ret_config,
                                            struct orr_error *err);
void orr_config_free(struct orr_host_config *config);

#endif
