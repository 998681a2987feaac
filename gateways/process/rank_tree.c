/* SPDX-License-Identifier: Apache-2.0
 * rank_tree.c - rank_tree.h, from /proc/<pid>/task/<tid>/children.
 */
#include "rank_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cgroup.h"
#include "rank_files.h"

enum {
    DEPTH_MAX = 64,
    CHILDREN_BYTES_MAX = 4096, /* of one thread that are looked at in one pass */
    PASSES_MAX = 50,
    PASS_PAUSE_MS = 1,
};

struct walk {
    void (*call)(void *arg, pid_t pid);
    void *arg;
    uint32_t n;
};

static size_t read_text(const char *path, char *buf, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, buf, cap - 1) : 0;
    if (fd >= 0)
        close(fd);
    buf[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

static void walk_children(struct walk *w, pid_t pid, int depth)
{
    char path[64], buf[CHILDREN_BYTES_MAX];
    struct dirent *entry;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *dir = depth < DEPTH_MAX ? opendir(path) : NULL;
    while (dir && (entry = readdir(dir))) {
        int tid = atoi(entry->d_name);
        if (tid <= 0)
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, tid);
        read_text(path, buf, sizeof buf);
        char *at = buf, *end;
        for (long child; child = strtol(at, &end, 10), end != at && *end == ' ';
             at = end) {
            w->n++;
            w->call(w->arg, (pid_t)child);
            walk_children(w, (pid_t)child, depth + 1);
        }
    }
    if (dir)
        closedir(dir);
}

uint32_t orri_tree_each(pid_t keeper, void (*call)(void *arg, pid_t pid), void *arg)
{
    struct walk w = {call, arg, 0};
    walk_children(&w, keeper, 0);
    return w.n;
}

pid_t orri_tree_child(pid_t parent)
{
    char path[64], buf[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)parent, (int)parent);
    read_text(path, buf, sizeof buf);
    return (pid_t)atoi(buf);
}

static void send_signal(void *arg, pid_t pid)
{
    kill(pid, *(int *)arg);
}

void orri_tree_signal(pid_t keeper, int sig)
{
    orri_tree_each(keeper, send_signal, &sig);
}

/* ---- until nothing changes
 * --------------------------------------------------------------------- */

static char state_of(pid_t pid)
{
    char path[32], buf[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    read_text(path, buf, sizeof buf);
    char *end = strrchr(buf, ')');
    return end && end[1] ? end[2] : 'X';
}

static void stop_one(void *arg, pid_t pid)
{
    uint32_t *n_running = arg;
    char state = state_of(pid);
    if (strchr("TtZXx", state))
        return;
    kill(pid, SIGSTOP);
    if (state !=
        'D') /* that one stops before it returns to its program, as the parent in a vfork */
        (*n_running)++;
}

bool orri_tree_stop(pid_t keeper, uint64_t timeout_ms)
{
    uint64_t deadline_ms = orri_mono_ms() + timeout_ms;
    for (;;) {
        uint32_t n_running = 0;
        orri_tree_each(keeper, stop_one, &n_running);
        if (n_running == 0)
            return true;
        if (orri_mono_ms() >= deadline_ms)
            return false;
        poll(NULL, 0, PASS_PAUSE_MS);
    }
}

/* What a thread is blocked in: no program stays in these three otherwise. */
static bool is_in_vfork(const char *syscall)
{
    long nr = strtol(syscall, NULL, 10);
#ifdef SYS_vfork
    if (nr == SYS_vfork)
        return true;
#endif
    return nr == SYS_clone || nr == SYS_clone3;
}

static void look_for_vfork(void *arg, pid_t pid)
{
    char path[64], buf[256];
    struct dirent *entry;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    while (dir && (entry = readdir(dir))) {
        int tid = atoi(entry->d_name);
        snprintf(path, sizeof path, "/proc/%d/task/%d/syscall", (int)pid, tid);
        if (tid > 0 && read_text(path, buf, sizeof buf) > 0 && is_in_vfork(buf))
            *(bool *)arg = true;
    }
    if (dir)
        closedir(dir);
}

bool orri_tree_has_vfork(pid_t keeper)
{
    bool has_vfork = false;
    orri_tree_each(keeper, look_for_vfork, &has_vfork);
    return has_vfork;
}

struct join {
    const char *cgroup;
    uint32_t n_new;
};

static bool is_in(pid_t pid, const char *cgroup)
{
    char path[32], buf[4096];
    const char *name = strrchr(cgroup, '/');
    snprintf(path, sizeof path, "/proc/%d/cgroup", (int)pid);
    read_text(path, buf, sizeof buf);
    const char *at = strstr(buf, name);
    return at && at[strlen(name)] == '\n';
}

static void join_one(void *arg, pid_t pid)
{
    struct join *j = arg;
    if (!is_in(pid, j->cgroup) && orri_cgroup_join(j->cgroup, pid) == 0)
        j->n_new++;
}

bool orri_tree_join(pid_t keeper, const char *cgroup)
{
    for (int i = 0; i < PASSES_MAX; i++) {
        struct join j = {cgroup, 0};
        orri_tree_each(keeper, join_one, &j);
        if (j.n_new == 0)
            return true;
    }
    return false; /* it forks faster than we look */
}
