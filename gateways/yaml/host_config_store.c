/* SPDX-License-Identifier: Apache-2.0
 * host_config_store.c - where a node keeps checkpoints.
 */
#include "host_config.h"

enum orr_err orri_config_store(struct orr_host_config *c, struct orr_error *err)
{
    static const char name[] = "/store";
    struct orr_config_store *s = &c->node.store;
    if (s->path.len)
        return s->path.ptr[0] == '/' ? ORR_OK
                                     : orr_yaml_fail(c->yaml,
                                                     "roles.node.store.path",
                                                     err,
                                                     "write an absolute path");
    char *path = orr_yaml_alloc(c->yaml, c->state.len + sizeof name);
    if (!path)
        return orr_fail(err, ORR_ENOMEM, "roles.node.store.path: out of memory");
    memcpy(path, c->state.ptr, c->state.len);
    memcpy(path + c->state.len, name, sizeof name);
    s->path = orr_str(path);
    return ORR_OK;
}
