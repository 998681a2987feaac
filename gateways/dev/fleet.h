/* SPDX-License-Identifier: Apache-2.0
 * fleet.h - the shape of a development fleet and the folder that holds it.
 *
 * DIR/fleet           its shape, as written by the first `dev up`
 * DIR/endpoint        where the hosts of the first region answer, one line with commas;
 * DIR/region          and its name; the CLI reads both through ORRERY_STATE
 * DIR/<host>/         state of one host: host.yaml, host.log, pid, sock, and what the
 *                     host keeps
 *
 * Hosts are named r1.., c1.., n1.. through the whole fleet; the replicas of a region
 * r1-1, r1-2, ...  They talk over ipc sockets in DIR, so a fleet needs no port (but for
 * replicated ledgers: fleet_ledger.c) and several stand side by side.
 */
#ifndef ORR_FLEET_H
#define ORR_FLEET_H

#include "orrery/base.h"

enum {
    FLEET_HOSTS_MAX = 512,
    FLEET_PATH_MAX = 4096,
    FLEET_NAME_MAX = 24,
    FLEET_REPLICAS_MAX = 5,
    FLEET_ADDRESS_MAX = 32,      /* IP:PORT with its NUL */
    FLEET_SOCKET_PATH_MAX = 107, /* sun_path without its NUL */
};

struct fleet {
    char dir[FLEET_PATH_MAX]; /* absolute */
    unsigned regions;
    unsigned replicas; /* hosts of each region: 1, 3 or 5 */
    unsigned clusters; /* in each region */
    unsigned nodes;    /* in each cluster */
    unsigned gpus;     /* in each node */
    unsigned slots;    /* in each node */
    unsigned lease_ms; /* timing of all hosts */
    unsigned suspect_ms;
    unsigned heartbeat_ms;
    char memory[16]; /* of each device, such as 1GiB */
};

enum fleet_role { FLEET_REGION, FLEET_CLUSTER, FLEET_NODE };

struct fleet_host {
    enum fleet_role role;
    char name[FLEET_NAME_MAX];
    char parent
        [FLEET_NAME_MAX]; /* its region or cluster's host; "" for a region's host */
    char region[FLEET_NAME_MAX];
};

unsigned fleet_size(const struct fleet *fleet);

/* The i-th host: regions first (one's replicas side by side), then clusters, then nodes. */
struct fleet_host fleet_host_at(const struct fleet *fleet, unsigned i);

/* Check the shape and the length of the socket paths.  Errors: ORR_EINVAL, err says
 * which option. */
ORR_NODISCARD enum orr_err fleet_check(const struct fleet *fleet,
                                       struct orr_error *err);

/* Errors: ORR_ENOENT no fleet in dir, ORR_EIO. */
ORR_NODISCARD enum orr_err
fleet_read(const char *dir, struct fleet *ret_fleet, struct orr_error *err);

/* Make all folders and files of the fleet in DIR, which is there.  Errors: ORR_EIO. */
ORR_NODISCARD enum orr_err fleet_write(const struct fleet *fleet,
                                       struct orr_error *err);

/* Make DIR and keep it to ourselves until ret_lock is closed; waits for others up to
 * timeout_ms.  Two that start the hosts at once would each take the other's for lost.
 * Errors: ORR_EIO, ORR_EBUSY. */
ORR_NODISCARD enum orr_err fleet_lock(const struct fleet *fleet,
                                      unsigned timeout_ms,
                                      int *ret_lock,
                                      struct orr_error *err);

/* A TCP address on loopback that nobody uses, for a ledger (fleet_ledger.c).  Errors:
 * ORR_EIO. */
ORR_NODISCARD enum orr_err fleet_ledger_address(char address[FLEET_ADDRESS_MAX],
                                                struct orr_error *err);

/* ---- what its regions answer (fleet_region.c) ---- */

/* Wait until the region has a leader that sees all of its nodes.  Errors: ORR_EGONE a
 * host has ended, ORR_ETIMEOUT. */
ORR_NODISCARD enum orr_err fleet_region_wait(const struct fleet *fleet,
                                             unsigned region,
                                             uint64_t timeout_ms,
                                             struct orr_error *err);

/* Does this host lead its region, by its own word? */
bool fleet_host_leads(const struct fleet *fleet, const struct fleet_host *host);

/* ---- its processes (fleet_host.c) ---- */

/* Pid of the running host process, 0 if it does not run.  Never a stranger that got the
 * same pid. */
int fleet_host_pid(const struct fleet *fleet, const struct fleet_host *host);

/* Start the host process, detached.  Errors: ORR_EIO. */
ORR_NODISCARD enum orr_err fleet_host_start(const struct fleet *fleet,
                                            const struct fleet_host *host,
                                            struct orr_error *err);

/* Start any program of the fleet, known by DIR/<host>/pid from then on; its output goes to
 * DIR/<host>/host.log.  Errors: ORR_EIO. */
ORR_NODISCARD enum orr_err fleet_process_start(const struct fleet *fleet,
                                               const struct fleet_host *host,
                                               const char *program,
                                               char *const args[],
                                               struct orr_error *err);

/* The last lines of its log, for an error report. */
void fleet_host_log_tail(const struct fleet *fleet,
                         const struct fleet_host *host,
                         char *buf,
                         size_t cap);

/* TERM, then KILL after grace_ms; returns when it is gone. */
void fleet_host_stop(const struct fleet *fleet,
                     const struct fleet_host *host,
                     unsigned grace_ms);

/* End the ranks that the node host left behind and remove its device files.  Errors:
 * ORR_EIO. */
ORR_NODISCARD enum orr_err fleet_host_wipe(const struct fleet *fleet,
                                           const struct fleet_host *host,
                                           struct orr_error *err);

#endif
