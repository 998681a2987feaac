/* SPDX-License-Identifier: Apache-2.0
 * launch.c - checking a launch and queueing it, as the packet that its keeper will read (spawner.h).
 */
#include "edge.h"
#include "image.h"

#include <fcntl.h>
#include <unistd.h>

static const char *const inherited[] = {"PATH", "HOME", "USER", "LANG"};

struct texts { /* the packet that is being built */
    char *at;  /* NULL: only counting */
    size_t len;
};

static void put(struct texts *t, struct orr_str s, bool is_end)
{
    if (t->at && s.len)
        memcpy(t->at + t->len, s.ptr, s.len);
    t->len += s.len;
    if (is_end) {
        if (t->at)
            t->at[t->len] = '\0';
        t->len++;
    }
}

static bool has_name(struct orr_list_env_var env, struct orr_str name)
{
    for (uint32_t i = 0; i < env.n; i++) {
        if (orr_str_eq(env.at[i].name, name))
            return true;
    }
    return false;
}

static uint32_t put_env(struct texts *t, struct orr_list_env_var env)
{
    uint32_t n = env.n;
    for (uint32_t i = 0; i < env.n; i++) {
        put(t, env.at[i].name, false);
        put(t, ORR_LIT("="), false);
        put(t, env.at[i].value, true);
    }
    for (size_t i = 0; i < ORR_ARRAY_SIZE(inherited); i++) {
        const char *value = getenv(inherited[i]);
        if (!value || has_name(env, orr_str(inherited[i])))
            continue;
        put(t, orr_str(inherited[i]), false);
        put(t, ORR_LIT("="), false);
        put(t, orr_str(value), true);
        n++;
    }
    return n;
}

static void put_paths(struct texts *t, const struct orri_edge *edge, const char *why)
{
    put(t, orr_str(why), true);
    put(t, orr_str(edge->criu), true);
    put(t, orr_str(edge->init), true);
    put(t, orr_str(edge->plugins), true);
}

/* Both passes, counting and copying, must see the same: nothing of Orrery changes its
 * environment after start. */
static size_t put_launch(struct texts *t,
                         const struct orri_edge *edge,
                         const char *why,
                         const char *key,
                         const struct orr_process_launch *l,
                         uint32_t *ret_n_env)
{
    t->len = sizeof(struct orri_launch);
    put(t, orr_str(key), true);
    put(t, l->workdir.len ? l->workdir : ORR_LIT("/"), true);
    put(t, l->address, true);
    put(t, l->hostname, true);
    put(t, l->underlay, true);
    put(t, l->restore_dir, true);
    put_paths(t, edge, why);
    for (uint32_t i = 0; i < l->peers.n; i++)
        put(t, l->peers.at[i].value, true);
    for (uint32_t i = 0; i < l->command.n; i++)
        put(t, l->command.at[i].value, true);
    *ret_n_env = put_env(t, l->env);
    return t->len;
}

static bool has_nul(struct orr_str s)
{
    return s.len && memchr(s.ptr, '\0', s.len);
}

static enum orr_err check_surroundings(const struct orr_process_launch *l,
                                       struct orr_error *err)
{
    const struct orr_str texts[] = {
        l->address, l->hostname, l->underlay, l->restore_dir};
    for (size_t i = 0; i < ORR_ARRAY_SIZE(texts); i++) {
        if (has_nul(texts[i]))
            return orr_fail(err,
                            ORR_EINVAL,
                            "address, hostname, underlay, restore_dir: has a NUL byte");
    }
    for (uint32_t i = 0; i < l->peers.n; i++) {
        if (has_nul(l->peers.at[i].value))
            return orr_fail(err, ORR_EINVAL, "peers: %u has a NUL byte", i);
    }
    if (l->address.len >= ORRI_ADDRESS_MAX)
        return orr_fail(
            err, ORR_EINVAL, "address: longer than any; such as 10.77.0.5/16");
    if (l->restore_dir.len && l->restore_dir.ptr[0] != '/')
        return orr_fail(err, ORR_EINVAL, "restore_dir: must be an absolute path");
    return ORR_OK;
}

static enum orr_err check_launch(const struct orr_process_launch *l,
                                 struct orr_error *err)
{
    if (l->restore_dir.len == 0 &&
        (l->command.n == 0 || l->command.at[0].value.len == 0))
        return orr_fail(err, ORR_EINVAL, "command: empty; name a program");
    for (uint32_t i = 0; i < l->command.n; i++) {
        if (has_nul(l->command.at[i].value))
            return orr_fail(err, ORR_EINVAL, "command: argument %u has a NUL byte", i);
    }
    for (uint32_t i = 0; i < l->env.n; i++) {
        struct orr_str name = l->env.at[i].name;
        if (name.len == 0 || memchr(name.ptr, '=', name.len) || has_nul(name) ||
            has_nul(l->env.at[i].value))
            return orr_fail(err,
                            ORR_EINVAL,
                            "env: \"%.*s\": a name is not empty and has no '=', "
                            "nothing has a NUL byte",
                            ORR_STR_ARGS(name));
    }
    if (has_nul(l->workdir) || (l->workdir.len && l->workdir.ptr[0] != '/'))
        return orr_fail(err,
                        ORR_EINVAL,
                        "workdir: \"%.*s\": must be an absolute path",
                        ORR_STR_ARGS(l->workdir));
    return check_surroundings(l, err);
}

/* What was shown not to work is not tried. */
static bool has_ability(struct orri_edge *edge, char why[ORRI_REASON_MAX])
{
    pthread_mutex_lock(&edge->lock);
    bool is_able = edge->ability.is_able || !edge->ability.is_known;
    orr_str_copy(why, ORRI_REASON_MAX, orr_str(is_able ? "" : edge->ability.text));
    pthread_mutex_unlock(&edge->lock);
    return is_able;
}

static enum orr_err make_packet(struct orri_edge *edge,
                                const char *key,
                                const struct orr_process_launch *l,
                                struct orri_launch **ret_packet,
                                size_t *ret_bytes,
                                struct orr_error *err)
{
    uint32_t n_env;
    struct texts t = {.at = NULL};
    char why[ORRI_REASON_MAX] = "";
    bool wants_image = (l->wants_image || l->restore_dir.len) && has_ability(edge, why);
    size_t bytes = put_launch(&t, edge, why, key, l, &n_env);
    if (bytes > ORRI_LAUNCH_BYTES_MAX)
        return orr_fail(err,
                        ORR_EINVAL,
                        "command and env: %zu bytes together, at most %d are passed on",
                        bytes,
                        ORRI_LAUNCH_BYTES_MAX);
    t.at = malloc(bytes);
    if (!t.at)
        return orr_fail(err, ORR_ENOMEM, "launch of %s: out of memory", key);
    put_launch(&t, edge, why, key, l, &n_env);
    struct orri_launch *packet = (struct orri_launch *)(void *)t.at;
    *packet = (struct orri_launch){
        .core_bytes_max = edge->config.core_bytes_max,
        .files_max = edge->config.files_max,
        .start_timeout_ms = edge->config.start_timeout_ms,
        .device = l->device,
        .n_args = l->command.n,
        .n_env = n_env,
        .n_peers = l->peers.n,
        .restore_timeout_ms = edge->config.restore_timeout_ms,
        .overlay = l->overlay,
        .wants_image = wants_image,
        .stays_frozen = l->stays_frozen && l->restore_dir.len,
        .has_nft = edge->ability.has_nft,
        .lazy_bytes_min =
            edge->ability.has_lazy ? edge->config.lazy_bytes_min : UINT64_MAX,
    };
    *ret_packet = packet;
    *ret_bytes = bytes;
    return ORR_OK;
}

/* Under lock. */
static enum orr_err add_launch(struct orri_edge *edge,
                               const char *key,
                               const struct orr_process_launch *l,
                               struct orri_launch *packet,
                               size_t bytes,
                               char **take_devices,
                               struct orr_error *err)
{
    struct orri_rank *old = orri_rank_table_find(&edge->table, key);
    if (old && old->is_forgotten && l->stays_frozen) {
        if (!orri_logs_drop(edge, old))
            return orr_fail(
                err, ORR_EBUSY, "rank %s: what it was before is still kept", key);
    } else if (old) {
        return orr_fail(err, ORR_EEXIST, "rank %s: was launched before", key);
    }
    if (edge->launches.n + edge->sent.n >= edge->config.launches_max)
        return orr_fail(err,
                        ORR_EBUSY,
                        "%u launches wait already; try again",
                        edge->config.launches_max);
    if (edge->table.n - edge->logs.n - edge->forgets.n >= edge->config.ranks_max)
        return orr_fail(err,
                        ORR_ENOSPC,
                        "%u ranks are known here already, the limit; forget ended ones",
                        edge->config.ranks_max);
    struct orri_rank *rank = orri_rank_table_add(&edge->table, key);
    if (!rank)
        return orr_fail(err, ORR_ENOMEM, "rank %s: out of memory", key);
    rank->launch = packet;
    rank->launch_bytes = bytes;
    rank->devices = *take_devices;
    *take_devices = NULL;
    rank->is_restore = l->restore_dir.len > 0;
    rank->is_frozen = l->stays_frozen && l->restore_dir.len;
    rank->start_timeout_ms = l->restore_dir.len ? edge->config.restore_timeout_ms
                                                : edge->config.start_timeout_ms;
    rank->device = l->device;
    rank->changed_unix_ms = orri_unix_ms();
    orri_rank_queue_push(&edge->launches, rank);
    return ORR_OK;
}

static char *read_devices(const struct orr_process_launch *l)
{
    char *path =
        l->restore_dir.len ? strndup(l->restore_dir.ptr, l->restore_dir.len) : NULL;
    int dir = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    char *devices = dir < 0 ? NULL : orri_image_devices(dir);
    if (dir >= 0)
        close(dir);
    free(path);
    return devices;
}

enum orr_err orri_edge_launch(struct orr_process *process,
                              const struct orr_process_launch *l,
                              struct orr_error *err)
{
    struct orri_edge *edge = (struct orri_edge *)process;
    char key[ORRI_KEY_MAX];
    struct orri_launch *packet = NULL;
    size_t bytes = 0;
    enum orr_err rc = orri_key_make(&l->id, key, err);
    if (rc == ORR_OK)
        rc = check_launch(l, err);
    if (rc == ORR_OK)
        rc = make_packet(edge, key, l, &packet, &bytes, err);
    if (rc != ORR_OK)
        return rc;
    char *devices = read_devices(l);
    pthread_mutex_lock(&edge->lock);
    rc = add_launch(edge, key, l, packet, bytes, &devices, err);
    pthread_mutex_unlock(&edge->lock);
    free(devices);
    if (rc == ORR_OK)
        orri_edge_wake(edge);
    else
        free(packet);
    return rc;
}
