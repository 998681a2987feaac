/* SPDX-License-Identifier: Apache-2.0
 * store_pool.h - the threads that do what /edge/store is asked for.
 *
 * A request is copied, waits in a bounded queue and is answered by the thread that did it.  One thread puts
 * (a put uses all cores, and puts one after the other find each other's chunks), a few get and verify, one
 * collects, two read for peers.  They are started when they are first needed.
 */
#ifndef ORR_STORE_POOL_H
#define ORR_STORE_POOL_H

#include "orrery/actor.h"
#include "store.h"

enum { ORR_STORE_PIECE_MAX = ORR_STORE_OBJECT_MAX / 4, ORR_STORE_ID_MAX = 128 };

struct orr_system;
struct orr_store_pool;

struct orr_store_pool_config {
    struct orr_store *store;   /* borrowed: closed after the pool is freed */
    struct orr_system *system; /* borrowed: freed after the pool */
    /* orr_system_post, orr_system_reply */
    enum orr_err (*post)(struct orr_system *system,
                         struct orr_addr from,
                         struct orr_addr to,
                         const struct orr_msg_desc *desc,
                         const void *msg);
    enum orr_err (*reply)(struct orr_system *system,
                          struct orr_addr from,
                          const struct orr_request *request,
                          const struct orr_msg_desc *desc,
                          const void *msg);
    struct orr_addr links; /* takes link_want and link_drop */
    const char *path;      /* of the store, for store_stat; borrowed */
    uint64_t
        bytes_per_s; /* cap on what is read for peers, and on what is fetched; 0: none */
};

/* Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err
orr_store_pool_new(const struct orr_store_pool_config *config,
                   struct orr_store_pool **ret_pool);
/* Cancels what is under way and waits for it.  The system must have stopped. */
void orr_store_pool_free(struct orr_store_pool *pool);

/* ---- for the port; any thread ---- */

/* From now on `self` speaks for the pool; none: what is under way is cancelled, and nobody is told. */
void orr_store_pool_attach(struct orr_store_pool *pool, struct orr_addr self);

/* Take a request.  Errors: ORR_EBUSY too many wait, ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_store_pool_submit(struct orr_store_pool *pool,
                                                 const struct orr_request *request,
                                                 struct orr_str id,
                                                 const struct orr_msg_desc *desc,
                                                 const void *msg);
/* Cancel the calls with this id; how many there were. */
unsigned orr_store_pool_cancel(struct orr_store_pool *pool, struct orr_str id);
/* Cancel those whose askers have given up. */
void orr_store_pool_expire(struct orr_store_pool *pool, uint64_t now_ms);

/* What a call's slot wants of a peer: fills msg, whose hash lives in hash.  false: nothing any more. */
bool orr_store_pool_wanted(struct orr_store_pool *pool,
                           uint64_t call,
                           uint32_t slot,
                           uint64_t *ret_host,
                           struct orr_store_hash *hash,
                           struct orr_msg_store_read *msg);
/* The answer; code not ORR_OK: there is none. */
void orr_store_pool_answer(struct orr_store_pool *pool,
                           uint64_t call,
                           uint32_t slot,
                           enum orr_err code,
                           const struct orr_msg_store_data *data);

#endif
