/* SPDX-License-Identifier: Apache-2.0
 * role_store.c - role_store.h.
 */
#include "role_store.h"

#include "store/store_port.h"

static enum orr_err open_store(struct host *h, struct orr_error *err)
{
    const struct orr_config_store *c = &h->config.node.store;
    const struct orr_store_config store = {.path = c->path.ptr,
                                           .quota_bytes = c->quota_bytes,
                                           .bytes_per_s = c->bytes_per_s};
    struct orr_error why;
    enum orr_err code = orr_store_open(&store, &h->store, &why);
    if (code)
        return orr_fail(err, code, "roles.node.store.path: %s", why.text);
    const struct orr_store_pool_config pool = {
        .store = h->store,
        .system = h->system,
        .post = orr_system_post,
        .reply = orr_system_reply,
        .links = orr_addr_named(h->config.host, ORR_LIT("/edge/links")),
        .path = c->path.ptr,
        .bytes_per_s = c->bytes_per_s};
    code = orr_store_pool_new(&pool, &h->store_pool);
    return code ? orr_fail(err, code, "roles.node.store: %s", orr_err_text(code))
                : ORR_OK;
}

enum orr_err role_store_start(struct host *h, struct orr_error *err)
{
    struct orr_addr addr;
    enum orr_err code = open_store(h, err);
    if (code)
        return code;
    const struct orr_store_port_args args = {h->store_pool};
    const struct orr_spawn spawn = {.type = &orr_store_port_type,
                                    .args = &args,
                                    .path = "/edge/store",
                                    .restart = ORR_PERMANENT};
    code = orr_system_spawn(h->system, &spawn, &addr);
    return code ? orr_fail(
                      err, code, "/edge/store: cannot start: %s", orr_err_text(code))
                : ORR_OK;
}

void role_store_close(struct host *h)
{
    orr_store_pool_free(h->store_pool);
    orr_store_close(h->store);
    h->store_pool = NULL;
    h->store = NULL;
}
