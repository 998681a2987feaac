/* SPDX-License-Identifier: Apache-2.0
 * image_setup.c - where CRIU and the init are, what a rank leaves behind, and the level it has (edge.h).
 */
#include <errno.h>
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
