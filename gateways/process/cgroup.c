/* SPDX-License-Identifier: Apache-2.0
 * cgroup.c - cgroup.h.  v2 is told from v1 by its cgroup.freeze.
 */
#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rank_files.h"

enum { LOOK_AGAIN_MS = 2 };

/* ---- where
 * ---------------------------------------------------------------------------------- */

/* The mount point of a hierarchy: a file system type and, for v1, one of its options. */
static bool
find_mount(const char *type, const char *option, char path[ORRI_CGROUP_PATH_MAX])
{
    FILE *file = fopen("/proc/self/mounts", "re");
    char line[1024], *rest;
    bool is_found = false;
    while (file && !is_found && fgets(line, sizeof line, file)) {
        char *device = strtok_r(line, " ", &rest), *at = strtok_r(NULL, " ", &rest);
        char *kind = strtok_r(NULL, " ", &rest), *options = strtok_r(NULL, " ", &rest);
        bool is_type = device && options && strcmp(kind, type) == 0;
        for (char *o = is_type && option ? strtok_r(options, ",", &rest) : NULL;
             o && !is_found;
             o = strtok_r(NULL, ",", &rest))
            is_found = strcmp(o, option) == 0;
        is_found = is_found || (is_type && !option);
        if (is_found && strlen(at) < ORRI_CGROUP_PATH_MAX)
            strcpy(path, at);
    }
    if (file)
        fclose(file);
    return is_found;
}

/* Our own group in the hierarchy with that controller ("" for v2). */
static bool find_own(const char *controller, char path[ORRI_CGROUP_PATH_MAX])
{
    FILE *file = fopen("/proc/self/cgroup", "re");
    char line[1024], *rest;
    bool is_found = false;
    while (file && !is_found && fgets(line, sizeof line, file)) {
        char *names = strchr(line, ':');
        char *own = names ? strchr(names + 1, ':') : NULL;
        if (!own || strlen(own) >= ORRI_CGROUP_PATH_MAX)
            continue;
        *own++ = '\0';
        own[strcspn(own, "\n")] = '\0';
        is_found = !*controller && !names[1];
        for (char *n = *controller ? strtok_r(names + 1, ",", &rest) : NULL;
             n && !is_found;
             n = strtok_r(NULL, ",", &rest))
            is_found = strcmp(n, controller) == 0;
        if (is_found)
            strcpy(path, own);
    }
    if (file)
        fclose(file);
    return is_found;
}

static bool find_base(bool is_v2, char path[ORRI_CGROUP_PATH_MAX])
{
    char own[ORRI_CGROUP_PATH_MAX], mount[ORRI_CGROUP_PATH_MAX];
    if (!find_mount(is_v2 ? "cgroup2" : "cgroup", is_v2 ? NULL : "freezer", mount) ||
        !find_own(is_v2 ? "" : "freezer", own))
        return false;
    int n = snprintf(
        path, ORRI_CGROUP_PATH_MAX, "%s%s", mount, strcmp(own, "/") == 0 ? "" : own);
    return n < ORRI_CGROUP_PATH_MAX && access(path, W_OK) == 0;
}

bool orri_cgroup_path(const char *name, char path[ORRI_CGROUP_PATH_MAX])
{
    char base[ORRI_CGROUP_PATH_MAX];
    if (!find_base(true, base) && !find_base(false, base))
        return false;
    return snprintf(path, ORRI_CGROUP_PATH_MAX, "%s/%s", base, name) <
           ORRI_CGROUP_PATH_MAX;
}

/* ---- its files
 * ------------------------------------------------------------------------------ */

static int open_file(const char *path, const char *name, int flags)
{
    char file[ORRI_CGROUP_PATH_MAX + 32];
    snprintf(file, sizeof file, "%s/%s", path, name);
    int fd = open(file, flags | O_CLOEXEC);
    return fd >= 0 ? fd : -errno;
}

static int write_file(const char *path, const char *name, const char *text)
{
    int fd = open_file(path, name, O_WRONLY);
    if (fd < 0)
        return -fd;
    int rc = write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : errno;
    close(fd);
    return rc;
}

static bool read_file(const char *path, const char *name, char *buf, size_t cap)
{
    int fd = open_file(path, name, O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, buf, cap - 1) : -1;
    if (fd >= 0)
        close(fd);
    buf[n > 0 ? n : 0] = '\0';
    return n >= 0;
}

int orri_cgroup_make(const char *path)
{
    return mkdir(path, 0755) == 0 || errno == EEXIST ? 0 : errno;
}

int orri_cgroup_procs(const char *path)
{
    return open_file(path, "cgroup.procs", O_WRONLY);
}

int orri_cgroup_join(const char *path, pid_t pid)
{
    char text[16];
    snprintf(text, sizeof text, "%d", (int)pid);
    return write_file(path, "cgroup.procs", text);
}

/* ---- freezing
 * ------------------------------------------------------------------------------- */

static bool is_v2(const char *path)
{
    char file[ORRI_CGROUP_PATH_MAX + 32];
    snprintf(file, sizeof file, "%s/cgroup.freeze", path);
    return access(file, F_OK) == 0;
}

bool orri_cgroup_is_frozen(const char *path)
{
    char text[256];
    if (is_v2(path))
        return read_file(path, "cgroup.events", text, sizeof text) &&
               strstr(text, "frozen 1");
    return read_file(path, "freezer.state", text, sizeof text) &&
           strncmp(text, "FROZEN", 6) == 0;
}

int orri_cgroup_freeze(const char *path, bool is_frozen, uint64_t timeout_ms)
{
    uint64_t deadline_ms = orri_mono_ms() + timeout_ms;
    int rc = is_v2(path)
                 ? write_file(path, "cgroup.freeze", is_frozen ? "1" : "0")
                 : write_file(path, "freezer.state", is_frozen ? "FROZEN" : "THAWED");
    while (rc == 0 && orri_cgroup_is_frozen(path) != is_frozen) {
        if (orri_mono_ms() >= deadline_ms)
            rc = ETIMEDOUT;
        poll(NULL, 0, LOOK_AGAIN_MS);
    }
    return rc;
}

/* ---- the end
 * ------------------------------------------------------------------------------- */

/* All that are in it; how many. */
static int kill_members(const char *path)
{
    char buf[8192], *at = buf, *end;
    int n = 0;
    if (!read_file(path, "cgroup.procs", buf, sizeof buf))
        return 0;
    for (long pid; pid = strtol(at, &end, 10), end != at; at = end, n++) {
        if (*end == '\n' && pid > 0)
            kill((pid_t)pid, SIGKILL);
    }
    return n;
}

void orri_cgroup_let_die(const char *path)
{
    if (!is_v2(path))
        (void)write_file(path, "freezer.state", "THAWED");
}

int orri_cgroup_kill(const char *path, uint64_t timeout_ms)
{
    uint64_t deadline_ms = orri_mono_ms() + timeout_ms;
    if (is_v2(path))
        (void)write_file(path, "cgroup.kill", "1"); /* Linux 5.14; all at once */
    while (kill_members(path) > 0) {
        orri_cgroup_let_die(path);
        if (orri_mono_ms() >= deadline_ms)
            return ETIMEDOUT;
        poll(NULL, 0, LOOK_AGAIN_MS);
    }
    return 0;
}

int orri_cgroup_remove(const char *path, uint64_t timeout_ms)
{
    uint64_t deadline_ms = orri_mono_ms() + timeout_ms;
    while (rmdir(path) != 0) {
        if (errno == ENOENT)
            return 0;
        if (errno != EBUSY || orri_mono_ms() >= deadline_ms)
            return errno;
        poll(NULL, 0, LOOK_AGAIN_MS); /* the last one is still dying */
    }
    return 0;
}
