/* SPDX-License-Identifier: Apache-2.0
 * roles.h - what a host consists of, and how each role is put together.
 *
 * Order matters at both ends: edges are opened before the actors that use them are
 * spawned, and closed after the system has stopped and before it is freed.
 */
#ifndef ORR_ROLES_H
#define ORR_ROLES_H

#include "log.h"
#include "orrery/config.h"
#include "system.h"
#include "transport_zmq.h"

struct orr_device;
struct orr_device_watch;
struct orr_events;
struct orr_ledger;
struct orr_process;
struct orr_rank_edge;
struct orr_softstate;
struct orr_store;
struct orr_store_pool;

struct host {
    struct orr_host_config config; /* owned */
    struct orr_log log;            /* where actors and transport write */
    int lock_fd;                   /* owned: the state directory's lock; -1 none */
    uint32_t incarnation;
    bool is_alone; /* the region's other voters are gone for good */
    char region_path[ORR_NAME_MAX + 1]; /* of the region role: /<region> */
    struct orr_system *system;          /* owned */
    struct orr_zmq *zmq;                /* owned */
    struct orr_events *events;          /* owned; of the region role */
    struct orr_ledger *ledger;          /* owned; of the region role */
    struct orr_process *process;        /* owned; of the node role */
    struct orr_device *device;          /* owned; of the node role */
    struct orr_device_watch *watch;     /* owned; of device */
    struct orr_rank_edge *rank_edge;    /* owned; of the node role */
    struct orr_softstate *softstate;    /* owned */
    char images[128];        /* of the node role: where images lie for a while */
    struct orr_store *store; /* owned; of the node role */
    struct orr_store_pool *store_pool; /* owned; of the node role */
};

/* Open the edges of each configured role and spawn its actors.  Errors: as the edges';
 * err names the role's field. */
ORR_NODISCARD enum orr_err roles_start(struct host *host, struct orr_error *err);

/* Of the node role: remove the directory of images on their way to and from the store. */
void roles_remove_images(const struct host *host);

/* Close the edges; the system must have stopped.  Ranks run on. */
void roles_close(struct host *host);

/* End every rank that lives in the state directory and remove the emulated devices: the
 * machine is as before the first start. The host must not run.  Errors: ORR_EIO,
 * ORR_ETIMEOUT a rank did not end. */
ORR_NODISCARD enum orr_err roles_wipe(struct host *host, struct orr_error *err);

#endif
