/* SPDX-License-Identifier: Apache-2.0
 * store_pool_impl.h - what the files of the pool share.
 */
#ifndef ORR_STORE_POOL_IMPL_H
#define ORR_STORE_POOL_IMPL_H

#include "store_impl.h"
#include "store_pool.h"

enum { POOL_SLOTS = 8, POOL_LINKS = 16 };
enum pool_lane { LANE_PUT, LANE_GET, LANE_COLLECT, LANE_SERVE, LANE_MAX_ };

enum slot_state { SLOT_FREE, SLOT_WANTED, SLOT_ASKED, SLOT_DONE };

/* A whole object that is being fetched piece by piece.  Its thread owns what the state does not give to
 * the actor: WANTED and ASKED are the actor's. */
struct pool_slot {
    enum slot_state state;
    bool is_part;
    struct orr_store_hash hash;
    uint64_t host;
    uint64_t offset; /* of the piece */
    enum orr_err code;
    uint64_t size; /* of the whole object, as the peer says */
    size_t len;    /* of the piece that has come */
    uint8_t piece[ORR_STORE_PIECE_MAX];
};

struct pool_call {
    struct pool_call *next; /* owned by the queue, or among those under way */
    uint64_t number;
    enum pool_lane lane;
    const struct orr_msg_desc *desc;
    void *msg; /* owned: a copy */
    struct orr_request request;
    char id[ORR_STORE_ID_MAX];
    struct orr_store_op op;
    struct pool_slot *slots; /* owned: POOL_SLOTS of them while it fetches, else NULL */
};

struct pool_queue {
    struct pool_call *first, *last; /* owned */
    unsigned n, n_threads, n_idle;
    pthread_cond_t filled;
};

struct orr_store_pool {
    struct orr_store_pool_config config;
    struct orri_rate serve_rate, fetch_rate;
    pthread_mutex_t lock; /* guards all below, and the slots */
    pthread_cond_t answered;
    struct {
        uint64_t host; /* 0: free */
        unsigned n;    /* transfers that want the link */
    } links[POOL_LINKS];
    struct orr_addr self; /* the actor's; none: nobody is told */
    struct pool_queue queues[LANE_MAX_];
    struct pool_call *running; /* owned by their threads */
    uint64_t next_number;
    pthread_t threads[16];
    unsigned n_threads;
    bool is_stopping;
};

/* Do it and answer it (store_calls.c). */
void pool_call_run(struct orr_store_pool *pool, struct pool_call *call);

void pool_reply(struct orr_store_pool *pool,
                const struct pool_call *call,
                const struct orr_msg_desc *desc,
                const void *msg);
/* To another actor of this host, from the port; none: to the port itself.  Errors: as orr_system_post. */
enum orr_err pool_post(struct orr_store_pool *pool,
                       struct orr_addr to,
                       const struct orr_msg_desc *desc,
                       const void *msg);
/* The calls under way, as rows that point into *ret_block (owned by the caller). */
unsigned pool_rows(struct orr_store_pool *pool,
                   struct orr_rec_store_call **ret_rows,
                   void **ret_block);

struct pool_fetched {
    uint64_t bytes, chunks;
};
/* Fetch what the store lacks of a part from the peers, in their order (store_transfer.c).
 * Errors: ORR_EUNREACH, ORR_ENOENT no peer has all of it, and what the store says. */
ORR_NODISCARD enum orr_err pool_transfer(struct orr_store_pool *pool,
                                         struct pool_call *call,
                                         const struct orr_store_hash *part,
                                         struct orr_list_store_peer peers,
                                         struct pool_fetched *fetched,
                                         struct orr_error *err);

#endif
