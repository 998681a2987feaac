/* SPDX-License-Identifier: Apache-2.0
 * soft.c - see soft.h.
 */
#include "soft.h"

struct row {
    char key[ORR_SOFT_KEY_MAX];
};

static struct orr_str key_of(const void *item)
{
    return orr_str(((const struct row *)item)->key);
}

enum orr_err soft_store_init(struct soft_store *store)
{
    *store = (struct soft_store){0};
    enum orr_err err = orr_pool_init(&store->rows, sizeof(struct row), SOFT_ROWS);
    if (err == ORR_OK)
        err = orr_map_init(&store->by_key, &store->rows, key_of);
    if (err != ORR_OK)
        orr_pool_fini(&store->rows);
    return err;
}

void soft_store_fini(struct soft_store *store)
{
    orr_map_fini(&store->by_key);
    orr_pool_fini(&store->rows);
    *store = (struct soft_store){0};
}

static void drop(struct soft_store *store, struct row *row)
{
    orr_map_remove(&store->by_key, row);
    orr_pool_give(&store->rows, row);
}

void soft_store_set_away(struct soft_store *store, bool is_away)
{
    for (struct row *row = NULL; (row = orr_pool_next(&store->rows, row)) != NULL;)
        drop(store, row);
    store->is_away = is_away;
}

bool soft_store_has(const struct soft_store *store,
                    enum orr_soft_kind kind,
                    const char *region,
                    const char *name,
                    const char *sub)
{
    struct orr_soft_key key =
        orr_soft_key(kind, orr_str(region), orr_str(name), orr_str(sub));
    return orr_map_find(&store->by_key, orr_str(key.text)) != NULL;
}

/* ---- the edge ---- */

struct sim_soft {
    struct soft_store *store; /* borrowed: the fleet's */
};

ORR_HANDLER(sim_soft, soft_put)
ORR_HANDLER(sim_soft, soft_gone)
ORR_HANDLER(sim_soft, soft_drop)

static enum orr_err sim_soft_init(struct orr_ctx *ctx, void *state, const void *args)
{
    (void)ctx;
    ((struct sim_soft *)state)->store = *(struct soft_store *const *)args;
    return ORR_OK;
}

static enum orr_err sim_soft_on_soft_put(struct orr_ctx *ctx,
                                         struct sim_soft *self,
                                         const struct orr_msg_soft_put *msg)
{
    (void)ctx;
    struct soft_store *store = self->store;
    if (store->is_away || msg->key.len >= ORR_SOFT_KEY_MAX ||
        orr_map_find(&store->by_key, msg->key))
        return ORR_OK;
    struct row *row = orr_pool_take(&store->rows);
    if (!row)
        return ORR_OK; /* refused, as a full Redis does */
    orr_str_copy(row->key, sizeof(row->key), msg->key);
    orr_map_add(&store->by_key, row);
    return ORR_OK;
}

static enum orr_err sim_soft_on_soft_gone(struct orr_ctx *ctx,
                                          struct sim_soft *self,
                                          const struct orr_msg_soft_gone *msg)
{
    (void)ctx;
    struct row *row = orr_map_find(&self->store->by_key, msg->key);
    if (row)
        drop(self->store, row);
    return ORR_OK;
}

static enum orr_err sim_soft_on_soft_drop(struct orr_ctx *ctx,
                                          struct sim_soft *self,
                                          const struct orr_msg_soft_drop *msg)
{
    (void)ctx;
    (void)self;
    (void)msg; /* this edge keeps no keys for anybody */
    return ORR_OK;
}

static const struct orr_handler handlers[] = {
    ORR_ON(sim_soft, soft_put, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_DROP_OLDEST),
    ORR_ON(sim_soft, soft_gone, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_DROP_OLDEST),
    ORR_ON(sim_soft, soft_drop, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_DROP_OLDEST),
};

const struct orr_actor_type sim_soft_type = {
    .name = "sim_soft",
    .state_size = sizeof(struct sim_soft),
    .args_size = sizeof(struct soft_store *),
    .init = sim_soft_init,
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
};
