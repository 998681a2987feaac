/* SPDX-License-Identifier: Apache-2.0
 * image_ability.c - the host's side of image_probe.h: look whether somebody has tried already, else have it tried, and remember.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "edge.h"
#include "image_probe.h"

enum { LOCK_MS_MAX = 60000, PROBE_MS_MAX = 50000, LOOK_MS = 20, VERSION_MS_MAX = 5000 };

/* ---- what somebody found out
 * ------------------------------------------------------------------ */

/* Of this boot, this CRIU and this init. */
static uint64_t make_key(const struct orri_edge *edge)
{
    char text[256];
    struct stat criu = {.st_size = 0}, init = {.st_size = 0};
    stat(edge->criu, &criu);
    stat(edge->init, &init);
    int n = snprintf(text,
                     sizeof text,
                     "%s %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRIu64,
                     edge->boot,
                     (int64_t)criu.st_size,
                     (int64_t)criu.st_mtime,
                     (int64_t)init.st_size,
                     (int64_t)init.st_mtime,
                     (uint64_t)criu.st_ino);
    return orr_hash((struct orr_str){text, (uint32_t)n});
}

static void make_path(const struct orri_edge *edge, char *path, size_t cap)
{
    bool has_run = mkdir("/run/orrery", 0755) == 0 || errno == EEXIST;
    uint64_t key = make_key(edge);
    if (has_run && access("/run/orrery", W_OK) == 0)
        snprintf(path, cap, "/run/orrery/images-%016" PRIx64, key);
    else
        snprintf(path, cap, "%s/images-%016" PRIx64, edge->state_path, key);
}

/* "1 1 1 text", and the version in a second line. */
static bool read_result(const char *path, struct orri_ability *ret)
{
    char line[ORRI_ABILITY_TEXT_MAX + 8], version[sizeof ret->version] = "";
    FILE *file = fopen(path, "re");
    bool is_read = file && fgets(line, sizeof line, file);
    if (is_read && fgets(version, sizeof version, file)) {
        version[strcspn(version, "\n")] = '\0';
        memcpy(ret->version, version, sizeof version);
    }
    if (file)
        fclose(file);
    if (!is_read || strlen(line) < 7 || line[1] != ' ' || line[3] != ' ' ||
        line[5] != ' ')
        return false;
    line[strcspn(line, "\n")] = '\0';
    ret->is_able = line[0] == '1';
    ret->has_nft = line[2] == '1';
    ret->has_lazy = line[4] == '1';
    orr_str_copy(ret->text, sizeof ret->text, orr_str(line + 6));
    return true;
}

static void write_result(const char *path, const struct orri_ability *a)
{
    char tmp[600];
    snprintf(tmp, sizeof tmp, "%.500s.%d", path, (int)getpid());
    FILE *file = fopen(tmp, "we");
    if (!file)
        return;
    fprintf(file,
            "%d %d %d %s\n%s\n",
            a->is_able,
            a->has_nft,
            a->has_lazy,
            a->text,
            a->version);
    if (fclose(file) != 0 || rename(tmp, path) != 0)
        unlink(tmp);
}

/* ---- programs
 * -------------------------------------------------------------------------------- */

static bool is_stopping(const struct orri_edge *edge, int ms)
{
    struct pollfd stop = {.fd = edge->work.stop_fd, .events = POLLIN};
    return poll(&stop, 1, ms) > 0;
}

/* Run it to its end; false: not in time, or it could not be started. */
static bool run(struct orri_edge *edge, char *const argv[], int out, uint32_t ms)
{
    extern char **environ;
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none;
    pid_t pid;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDWR, 0);
    posix_spawn_file_actions_adddup2(&files, out >= 0 ? out : 0, 1);
    posix_spawn_file_actions_adddup2(&files, 0, 2);
    posix_spawn_file_actions_addclosefrom_np(&files, 3);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigmask(&attr, &none);
    int rc = posix_spawn(&pid, argv[0], &files, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    if (rc != 0)
        return false;
    struct pollfd ends[] = {{.fd = pidfd_open(pid, 0), .events = POLLIN},
                            {.fd = edge->work.stop_fd, .events = POLLIN}};
    bool has_ended = poll(ends, 2, (int)ms) > 0 && ends[0].revents;
    if (!has_ended)
        kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(ends[0].fd);
    return has_ended;
}

static void read_version(struct orri_edge *edge, struct orri_ability *a)
{
    char text[256];
    int out = memfd_create("version", MFD_CLOEXEC);
    char *argv[] = {edge->criu, (char[]){"--version"}, NULL};
    ssize_t n = out >= 0 && run(edge, argv, out, VERSION_MS_MAX)
                    ? pread(out, text, sizeof text - 1, 0)
                    : 0;
    if (out >= 0)
        close(out);
    text[n > 0 ? n : 0] = '\0';
    char *at = strstr(text, "Version: ");
    if (at)
        snprintf(
            a->version, sizeof a->version, "%.*s", (int)strcspn(at + 9, "\n"), at + 9);
}

/* ---- trying it
 * ------------------------------------------------------------------------------- */

static void remove_dir(const char *path, int depth)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    char below[1024];
    while (dir && (entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        if (entry->d_type == DT_DIR && depth > 0)
            remove_dir(below, depth - 1);
        else
            unlink(below);
    }
    if (dir)
        closedir(dir);
    rmdir(path);
}

static const char *const ranks[] = {"first", "first-skip", "second", "third"};

/* What a helper that did not come to its end has left. */
static void clean(const char *dir)
{
    char path[600];
    for (size_t i = 0; i < ORR_ARRAY_SIZE(ranks); i++) {
        snprintf(path, sizeof path, "%.500s/%s", dir, ranks[i]);
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
            continue;
        orri_env_end(fd);
        close(fd);
    }
    remove_dir(dir, 2);
}

/* False: no answer, which says more of this moment than of the machine. */
static bool try_it(struct orri_edge *edge, struct orri_ability *a)
{
    char dir[600], result[700];
    snprintf(dir, sizeof dir, "%.500s/probe", edge->state_path);
    snprintf(result, sizeof result, "%s/result", dir);
    clean(dir);
    char *real = mkdir(dir, 0700) == 0 ? realpath(dir, NULL) : NULL;
    char *argv[] = {(char[]){"/proc/self/exe"},
                    (char[]){ORR_SPAWNER_ARG},
                    (char[]){ORRI_PROBE_ARG},
                    real,
                    edge->criu,
                    edge->init,
                    NULL};
    bool has_ended = real && run(edge, argv, -1, PROBE_MS_MAX);
    bool is_answered = has_ended && read_result(result, a);
    if (!is_answered)
        orr_str_copy(
            a->text, sizeof a->text, ORR_LIT("the self-test did not come to its end"));
    clean(dir);
    free(real);
    return is_answered;
}

static void find_out(struct orri_edge *edge, struct orri_ability *a)
{
    char path[600], lock_path[700];
    if (geteuid() != 0 || !*edge->criu || !*edge->init) {
        orr_str_copy(a->text,
                     sizeof a->text,
                     geteuid() != 0 ? ORR_LIT("needs root")
                     : !*edge->criu ? ORR_LIT("no criu here; `make criu` builds one")
                                    : ORR_LIT("no orrery-init beside this program"));
        return;
    }
    make_path(edge, path, sizeof path);
    if (read_result(path, a))
        return;
    snprintf(lock_path, sizeof lock_path, "%s.lock", path);
    int lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    for (int ms = 0;
         lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) != 0 && ms < LOCK_MS_MAX;
         ms += LOOK_MS) {
        if (is_stopping(edge, LOOK_MS))
            break;
    }
    if (!is_stopping(edge, 0) &&
        !read_result(path, a)) { /* another host may have tried meanwhile */
        read_version(edge, a);
        if (try_it(edge, a) && !is_stopping(edge, 0))
            write_result(path, a);
    }
    if (lock >= 0)
        close(lock);
}

static void *probe_run(void *arg)
{
    struct orri_edge *edge = arg;
    struct orri_ability a = {.is_known = true, .has_nft = true};
    pthread_setname_np(pthread_self(), "orr-ability");
    find_out(edge, &a);
    pthread_mutex_lock(&edge->lock);
    edge->ability = a;
    pthread_mutex_unlock(&edge->lock);
    orri_edge_wake(edge);
    return NULL;
}

int orri_probe_start(struct orri_edge *edge)
{
    int rc = pthread_create(&edge->probe, NULL, probe_run, edge);
    edge->has_probe = rc == 0;
    return rc;
}

void orri_probe_stop(struct orri_edge *edge)
{
    if (edge->has_probe)
        pthread_join(edge->probe, NULL);
    edge->has_probe = false;
}
