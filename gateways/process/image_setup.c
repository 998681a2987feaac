/* SPDX-License-Identifier: Apache-2.0
 * image_setup.c - where CRIU and the init are, what a rank leaves behind, the level it has, and its network while it runs (edge.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "edge.h"

enum { KILL_MS_MAX = 2000 };

uint32_t orri_rank_level(const struct orri_edge *edge, const struct orri_rank *rank)
{
    return rank->is_image && edge->ability.is_able ? ORR_LEVEL_IMAGE
                                                   : ORR_LEVEL_INPLACE;
}

void orri_env_end(int dir)
{
    struct orri_env env;
    if (orri_env_read(dir, &env) != ORRI_READ_OK)
        return;
    if (*env.cgroup && orri_cgroup_kill(env.cgroup, KILL_MS_MAX) == 0)
        (void)orri_cgroup_remove(env.cgroup, KILL_MS_MAX);
    if (env.lazy > 0 && orri_proc_start(env.lazy) == env.lazy_start)
        kill(env.lazy, SIGKILL); /* nobody is left who would see zeros */
    orri_overlay_remove(&env.overlay);
}

/* ---- its network
 * ----------------------------------------------------------------------------- */

enum orr_err orri_edge_widen(struct orr_process *process,
                             const struct orr_process_id *id,
                             const struct orr_process_network *network,
                             struct orr_error *err)
{
    struct orri_edge *edge = (struct orri_edge *)process;
    char key[ORRI_KEY_MAX], texts[1 + ORR_MACHINES_MAX][ORR_MACHINE_MAX];
    const char *peers[ORR_MACHINES_MAX], *step;
    struct orri_env env = {.is_image = false};
    enum orr_err rc = orri_key_make(id, key, err);
    if (rc != ORR_OK)
        return rc;
    if (network->peers.n > ORR_MACHINES_MAX)
        return orr_fail(err, ORR_EINVAL, "peers: %u are too many", network->peers.n);
    orr_str_copy(texts[0], sizeof texts[0], network->underlay);
    for (uint32_t i = 0; i < network->peers.n; i++) {
        peers[i] = texts[1 + i];
        orr_str_copy(texts[1 + i], sizeof texts[0], network->peers.at[i].value);
    }
    int dir = openat(edge->ranks_dir, key, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool is_known = dir >= 0 && orri_env_read(dir, &env) == ORRI_READ_OK;
    if (dir >= 0)
        close(dir);
    if (!is_known || !*env.overlay.link)
        return orr_fail(err,
                        is_known ? ORR_ESTATE : ORR_ENOENT,
                        "rank %s: has no network here",
                        key);
    const struct orri_overlay_plan plan = {.id = network->overlay,
                                           .underlay = texts[0],
                                           .peers = peers,
                                           .n_peers = network->peers.n};
    int error = orri_overlay_widen(&plan, &env.overlay, &step);
    return error ? orr_fail(err,
                            ORR_EIO,
                            "rank %s: its network cannot reach other machines: %s: %s",
                            key,
                            step,
                            strerror(error))
                 : ORR_OK;
}

/* ---- programs
 * -------------------------------------------------------------------------------- */

/* In the directory of this program, or relative to it. */
static char *beside(const char *name)
{
    char self[PATH_MAX], *path = NULL;
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    if (asprintf(&path, "%s/%s", dirname(self), name) < 0)
        return NULL;
    if (access(path, X_OK) == 0)
        return path;
    free(path);
    return NULL;
}

static char *in_path(const char *name)
{
    const char *at = getenv("PATH");
    while (at && *at) {
        int len = (int)strcspn(at, ":");
        char *path = NULL;
        if (asprintf(&path, "%.*s/%s", len, at, name) >= 0 && access(path, X_OK) == 0)
            return path;
        free(path);
        at += len + (at[len] == ':');
    }
    return NULL;
}

static char *find(const char *given, const char *variable)
{
    const char *path = given ? given : getenv(variable);
    return path ? strdup(path) : NULL;
}

enum orr_err orri_image_setup(struct orri_edge *edge,
                              const struct orr_process_linux_config *config)
{
    edge->criu = find(config->criu, "ORRERY_CRIU");
    edge->init = find(config->init, "ORRERY_INIT");
    if (!edge->criu)
        edge->criu = beside("criu");
    if (!edge->criu)
        edge->criu = beside("../../criu/criu"); /* where `make criu` puts it */
    if (!edge->criu)
        edge->criu = in_path("criu");
    if (!edge->criu)
        edge->criu = strdup("");
    if (!edge->init)
        edge->init = beside("orrery-init");
    if (!edge->init)
        edge->init = strdup("");
    edge->ability.has_nft = true;
    if (asprintf(&edge->plugins, "%s/no-plugins", edge->state_path) < 0)
        edge->plugins = NULL;
    else
        (void)mkdir(edge->plugins, 0755);
    return edge->criu && edge->init && edge->plugins ? ORR_OK : ORR_ENOMEM;
}
