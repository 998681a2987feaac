/* SPDX-License-Identifier: Apache-2.0
 * image_probe.c - the helper's side of image_probe.h: the life of a rank, from launch to image to its end after the restore, with the
 * functions that keepers and hosts use.  A process of its own, since making namespaces wants a single thread.
 */
#include "image_probe.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image.h"
#include "keeper.h"

enum { STEP_MS_MAX = 10000, ALL_S_MAX = 40, LOOK_MS = 5, EXIT_OK = 42 };

struct probe {
    const char *dir, *criu, *init;
    char image[512], plugins[512];
    struct orri_launch launch;
    char *args[5];
    char *none[1];
    struct start s;
};

static char probe_arg[] = ORRI_PROBE_ARG;

static bool make_dir(const char *dir, const char *name, int *ret_fd)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (mkdir(path, 0700) != 0)
        return false;
    *ret_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *ret_fd >= 0;
}

/* A rank called `name`. */
static bool prepare(struct probe *p, const char *name, const char *restore_dir)
{
    char boot[ORRI_BOOT_MAX];
    struct orr_error err;
    orri_boot_id(boot);
    p->launch = (struct orri_launch){.restore_timeout_ms = STEP_MS_MAX,
                                     .overlay = (uint64_t)getpid() << 32 | 1,
                                     .wants_image = true,
                                     .has_nft = p->launch.has_nft,
                                     .lazy_bytes_min = p->launch.lazy_bytes_min};
    p->args[2] = (char *)(uintptr_t)p->init;
    p->args[3] = probe_arg;
    p->s = (struct start){.launch = &p->launch,
                          .key = name,
                          .workdir = "/",
                          .address = "10.255.255.1/30",
                          .hostname = "probe",
                          .underlay = "",
                          .restore_dir = restore_dir,
                          .why = "",
                          .criu = p->criu,
                          .init = p->init,
                          .plugins = p->plugins,
                          .peers = p->none,
                          .args = p->args + 2,
                          .env = p->none,
                          .keeper = getpid(),
                          .net_ns = -1,
                          .procs_fd = -1,
                          .report_fd = -1,
                          .gone_fd = -1};
    p->s.ranks_dir = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    p->s.lease = orri_lease_open(p->s.ranks_dir, boot, &err);
    return p->s.ranks_dir >= 0 && p->s.lease && make_dir(p->dir, name, &p->s.dir);
}

static bool wait_ready(int dir)
{
    for (int ms = 0; ms < STEP_MS_MAX; ms += LOOK_MS) {
        struct stat st;
        if (fstatat(dir, "stdout", &st, 0) == 0 && st.st_size > 0)
            return true;
        poll(NULL, 0, LOOK_MS);
    }
    return false;
}

static const char *why_not(const struct start *s, char *buf, size_t cap)
{
    if (s->step == STEP_RESTORE)
        snprintf(buf, cap, "%s", s->what);
    else
        snprintf(buf, cap, "no namespaces, %.100s: %s", s->what, strerror(s->error));
    return buf;
}

static bool make_image(struct probe *p, const char *name, char *why, size_t cap)
{
    struct orr_error err;
    uint64_t bytes;
    char path[600];
    if (!prepare(p, name, ""))
        return snprintf(why, cap, "cannot write %s", p->dir), false;
    if (orri_ns_start(&p->s) < 0)
        return why_not(&p->s, why, cap), false;
    snprintf(path, sizeof path, "%s/%s", p->dir, name);
    snprintf(p->image, sizeof p->image, "%s/image-%s", p->dir, name);
    const struct orri_dump dump = {.criu = {p->criu, p->plugins, p->launch.has_nft},
                                   .dir = p->image,
                                   .rank_dir = p->s.dir,
                                   .rank_path = path,
                                   .init = p->s.rank_env.init,
                                   .timeout_ms = STEP_MS_MAX,
                                   .stop_fd = -1};
    if (!wait_ready(p->s.dir))
        snprintf(why, cap, "the test program does not start");
    else if (orri_cgroup_freeze(p->s.rank_env.cgroup, true, STEP_MS_MAX) != 0)
        snprintf(why, cap, "the cgroup freezer does not work");
    else if (!orri_image_halt(getpid(), p->s.rank_env.cgroup))
        snprintf(why, cap, "stopping a process does not work");
    else if (orri_image_dump(&dump, &bytes, &err) == ORR_OK)
        return orri_ns_end(&p->s), true;
    else
        snprintf(why, cap, "%.250s", err.text);
    orri_ns_end(&p->s);
    return false;
}

static bool restore_image(
    struct probe *p, const char *name, uint64_t lazy_bytes_min, char *why, size_t cap)
{
    p->launch.lazy_bytes_min = lazy_bytes_min;
    if (!prepare(p, name, p->image))
        return snprintf(why, cap, "cannot write %s", p->dir), false;
    pid_t rank = orri_ns_restore(&p->s);
    int end = 0;
    if (rank > 0) {
        kill(rank, SIGUSR1);
        orri_image_resume(getpid(), p->s.lease);
        end = orri_ns_wait(&p->s, rank);
    } else {
        why_not(&p->s, why, cap);
    }
    orri_ns_end(&p->s);
    if (rank > 0 && end != EXIT_OK << 8)
        snprintf(why, cap, "restored, the test program has lost something");
    return rank > 0 && end == EXIT_OK << 8;
}

static void write_result(
    const char *dir, bool is_able, bool has_nft, bool has_lazy, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/result", dir);
    FILE *file = fopen(path, "we");
    if (!file)
        return;
    fprintf(file, "%d %d %d %s\n", is_able, has_nft, has_lazy, text);
    fclose(file);
}

int orri_probe_main(const char *dir, const char *criu, const char *init)
{
    struct probe p = {
        .dir = dir, .criu = criu, .init = init, .launch = {.has_nft = true}};
    char why[ORRI_ABILITY_TEXT_MAX] = "";
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_NAME, "orrery-probe");
    signal(SIGCHLD, SIG_DFL);
    alarm(ALL_S_MAX);
    snprintf(p.plugins, sizeof p.plugins, "%s/plugins", dir);
    mkdir(p.plugins, 0700);
    bool is_made = make_image(&p, "first", why, sizeof why);
    if (!is_made) { /* the kernel may lack what CRIU wants there: the link alone will do */
        p.launch.has_nft = false;
        is_made = make_image(&p, "first-skip", why, sizeof why);
    }
    bool is_able = is_made && restore_image(&p, "second", UINT64_MAX, why, sizeof why);
    bool has_lazy = is_able && restore_image(&p, "third", 0, why, sizeof why);
    write_result(dir,
                 is_able,
                 p.launch.has_nft,
                 has_lazy,
                 has_lazy  ? "one was made and restored"
                 : is_able ? "one was made and restored; large ones run once all their "
                             "memory was read, lazily does not work here"
                           : why);
    return 0;
}
