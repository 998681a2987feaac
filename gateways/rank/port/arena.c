/* SPDX-License-Identifier: Apache-2.0
 * arena.c - the device memory of stopped processes, in host memory.
 *
 * A process that gives its arena up makes it as a nameless file in a directory of this host's (a tmpfs).  It gets a name there,
 *
 *   arena-<job>-<generation>-<rank>-<process>
 *
 * before the process is told that it may let go; so it outlives this host, and the next life finds it by that name.  The name goes
 * when the process has its memory back, or its generation is over; what a dead host left of ranks that are dead, too, is swept.
 * The file itself stays for as long as somebody may read it: the store, through this process' descriptor, is slower than a job
 * that goes on at once.  An arena that is no such file (a memfd) has no name and ends with this host.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "edge.h"

static const char prefix[] = "arena-", fresh_suffix[] = ".new";

void orri_arenas_open(struct orr_rank_edge *edge, const char *dir)
{
    edge->arenas_fd = -1;
    if (!dir || !dir[0] || strlen(dir) >= sizeof edge->arenas)
        return;
    strcpy(edge->arenas, dir);
    edge->arenas_fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* ---- names -------------------------------------------------------------------------------- */

/* Without the process; false: this one can have no name. */
static bool rank_prefix(const struct orr_rank_edge *edge,
                        const struct orri_rank *rank,
                        char *name,
                        size_t cap)
{
    const struct orri_gen *gen = rank->gen;
    snprintf(name,
             cap,
             "%s%s-%llu-%u-",
             prefix,
             gen->job,
             (unsigned long long)gen->generation,
             rank->rank);
    return edge->arenas_fd >= 0 && !strchr(name, '/');
}

/* The process in a name of the rank's; false: it is another's. */
static bool
process_of(const char *name, const char *rank_prefix_text, uint32_t *ret_process)
{
    size_t len = strlen(rank_prefix_text);
    char *end = NULL;
    if (strncmp(name, rank_prefix_text, len) != 0 || name[len] < '0' || name[len] > '9')
        return false;
    *ret_process = (uint32_t)strtoul(name + len, &end, 10);
    return *end == '\0';
}

static void unlink_name(struct orr_rank_edge *edge, struct orri_proc *proc)
{
    if (proc->arena_name[0] && edge->arenas_fd >= 0)
        unlinkat(edge->arenas_fd, proc->arena_name, 0);
    proc->arena_name[0] = '\0';
}

static bool make_name(const struct orr_rank_edge *edge, struct orri_proc *proc)
{
    char name[ORRI_ARENA_NAME_MAX];
    if (!rank_prefix(edge, proc->rank, name, sizeof name))
        return false;
    int n = snprintf(
        proc->arena_name, sizeof proc->arena_name, "%s%u", name, proc->process);
    if (n < (int)sizeof proc->arena_name)
        return true;
    proc->arena_name[0] = '\0';
    return false;
}

/* ---- one that a process sent -------------------------------------------------------------- */

static bool is_named(const struct orr_rank_edge *edge, const char *name, int fd)
{
    struct stat there, here;
    return fstatat(edge->arenas_fd, name, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
           fstat(fd, &here) == 0 && there.st_dev == here.st_dev &&
           there.st_ino == here.st_ino;
}

/* The name may still be that of an earlier stop. */
static bool give_name(const struct orr_rank_edge *edge, const char *name, int fd)
{
    char path[32], fresh[ORRI_ARENA_NAME_MAX + sizeof fresh_suffix];
    if (is_named(edge, name, fd))
        return true;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    snprintf(fresh, sizeof fresh, "%s%s", name, fresh_suffix);
    unlinkat(edge->arenas_fd, fresh, 0);
    if (linkat(AT_FDCWD, path, edge->arenas_fd, fresh, AT_SYMLINK_FOLLOW) != 0)
        return false;
    if (renameat(edge->arenas_fd, fresh, edge->arenas_fd, name) == 0)
        return true;
    unlinkat(edge->arenas_fd, fresh, 0);
    return false;
}

void orri_arena_take(struct orr_rank_edge *edge, struct orri_proc *proc, int *fd)
{
    if (proc->arena_fd >= 0)
        close(proc->arena_fd);
    proc->arena_fd = *fd;
    *fd = -1;
    if (make_name(edge, proc) && !give_name(edge, proc->arena_name, proc->arena_fd))
        unlink_name(edge, proc);
}

/* ---- one for a process that is to come ---------------------------------------------------- */

/* A write that does not fit would be a fault in the process. */
static int make_file(struct orr_rank_edge *edge, struct orri_proc *proc)
{
    struct statvfs room;
    if (!make_name(edge, proc))
        return -1;
    unlinkat(edge->arenas_fd, proc->arena_name, 0);
    bool is_small = fstatvfs(edge->arenas_fd, &room) == 0 && room.f_blocks != 0 &&
                    room.f_bavail * room.f_frsize < proc->arena_bytes;
    int fd = is_small ? -1
                      : openat(edge->arenas_fd,
                               proc->arena_name,
                               O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                               0600);
    if (fd < 0)
        proc->arena_name[0] = '\0';
    return fd;
}

enum orr_err orri_arena_make(struct orr_rank_edge *edge,
                             struct orri_proc *proc,
                             struct orr_error *err)
{
    proc->arena_fd = make_file(edge, proc);
    if (proc->arena_fd < 0)
        proc->arena_fd = memfd_create("orrery-arena", MFD_CLOEXEC);
    if (proc->arena_fd < 0 || ftruncate(proc->arena_fd, (off_t)proc->arena_bytes) != 0)
        return orr_fail(err,
                        ORR_ENOMEM,
                        "cannot make an arena of %llu bytes: %s",
                        (unsigned long long)proc->arena_bytes,
                        strerror(errno));
    return ORR_OK;
}

/* ---- those of an earlier life ------------------------------------------------------------- */

static DIR *list_arenas(const struct orr_rank_edge *edge)
{
    int fd = edge->arenas_fd < 0
                 ? -1
                 : openat(edge->arenas_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    if (fd >= 0 && !list)
        close(fd);
    return list;
}

static void reopen(struct orr_rank_edge *edge,
                   struct orri_rank *rank,
                   const char *name,
                   uint32_t process)
{
    struct stat st;
    int fd = openat(edge->arenas_fd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    bool is_arena = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    struct orri_proc *proc = is_arena ? orri_proc_new(rank) : NULL;
    if (!proc) {
        if (fd >= 0)
            close(fd);
        return;
    }
    proc->process = process;
    proc->is_expected = proc->is_stopped = true;
    proc->arena_fd = fd;
    proc->arena_bytes = (uint64_t)st.st_size;
    orr_str_copy(proc->arena_name, sizeof proc->arena_name, orr_str(name));
}

void orri_arenas_find(struct orr_rank_edge *edge, struct orri_rank *rank)
{
    char name[ORRI_ARENA_NAME_MAX];
    uint32_t process;
    DIR *list = rank_prefix(edge, rank, name, sizeof name) ? list_arenas(edge) : NULL;
    if (!list)
        return;
    for (struct dirent *e; (e = readdir(list)) != NULL;)
        if (process_of(e->d_name, name, &process))
            reopen(edge, rank, e->d_name, process);
    closedir(list);
}

static bool is_expected(const struct orr_rank_edge *edge, const char *arena)
{
    char name[ORRI_ARENA_NAME_MAX];
    uint32_t process;
    for (const struct orri_gen *gen = edge->gens; gen; gen = gen->next)
        for (const struct orri_rank *rank = gen->ranks; rank; rank = rank->next)
            if (rank_prefix(edge, rank, name, sizeof name) &&
                process_of(arena, name, &process))
                return true;
    return false;
}

void orri_arenas_sweep(struct orr_rank_edge *edge)
{
    DIR *list = list_arenas(edge);
    if (!list)
        return;
    for (struct dirent *e; (e = readdir(list)) != NULL;)
        if (strncmp(e->d_name, prefix, strlen(prefix)) == 0 &&
            !is_expected(edge, e->d_name))
            unlinkat(
                edge->arenas_fd, e->d_name, 0); /* an image is a directory: it stays */
    closedir(list);
}

/* ---- ends --------------------------------------------------------------------------------- */

void orri_arena_drop(struct orr_rank_edge *edge, struct orri_proc *proc)
{
    if (!edge->is_closing)
        unlink_name(edge, proc);
    if (proc->arena_fd >= 0)
        close(proc->arena_fd);
    proc->arena_fd = -1;
    proc->arena_bytes = 0;
}

void orri_arena_release(struct orr_rank_edge *edge, struct orri_proc *proc)
{
    struct orri_gen *gen = proc->rank->gen;
    bool is_read = proc->arena_fd >= 0 && gen->cut > gen->dropped_cut;
    struct orri_kept *kept = is_read ? malloc(sizeof *kept) : NULL;
    if (kept) {
        *kept = (struct orri_kept){gen->kept, proc->arena_fd, gen->cut};
        gen->kept = kept;
        proc->arena_fd = -1;
    }
    orri_arena_drop(edge, proc);
}

void orri_arenas_dropped(struct orri_gen *gen, uint64_t cut)
{
    struct orri_kept **at = &gen->kept;
    if (cut > gen->dropped_cut)
        gen->dropped_cut = cut;
    while (*at) {
        struct orri_kept *kept = *at;
        if (kept->cut > cut) {
            at = &kept->next;
            continue;
        }
        *at = kept->next;
        close(kept->fd);
        free(kept);
    }
}
