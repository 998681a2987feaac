/* SPDX-License-Identifier: Apache-2.0
 * image_undo.c - what CRIU changes in processes while it makes an image, put back when it was killed in the middle (image.h).
 *
 * To look into a process CRIU runs code in it: it overwrites the first bytes of an executable mapping with a system call, gives the
 * thread other registers, maps a program of its own, opens a socket, blocks signals.  When it is killed, the kernel detaches it, and
 * since all of the rank is stopped by SIGSTOP meanwhile (orri_image_halt), each thread stops wherever it is.  Were it let go from
 * there, it would run into CRIU's breakpoint (SIGTRAP), into code that is half there (SIGSEGV), or, in pid 1 of its namespace, take
 * the whole rank with it (SIGKILL).
 *
 * As nothing of the rank runs between the halt and the end of CRIU, its state before is its state after: it is noted in the rank's
 * directory, so that the next host has it, too, when this one was killed, and written back by ptrace.  A thread that had been in a call
 * that is restarted by a timer (nanosleep, poll) finds EINTR, as after CRIU itself.
 * CRIU's code in a process sees CRIU's end when the kernel closes CRIU's files, which is a moment before it detaches the threads: that
 * process' first thread may be let go by it, whole, and run its program until it is stopped.  What it has done then is its own, and is
 * left as it is (GONE_ON): put back it would do it twice.
 * What cannot be put back: a thread that took CRIU's breakpoint between the kernel's report of it and CRIU's look at it.
 * Source: ptrace(2), CRIU 4.2 compel/src/lib/infect.c.  x86-64.
 */
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image.h"
#include "rank_tree.h"

enum {
    STOP_MS = 2000,
    HEAD_BYTES = 16,      /* CRIU writes 8 */
    XSTATE_BYTES = 16384, /* of a thread, at most */
    THREADS_MAX = 4096,
    MAPS_MAX = 65536,
    FDS_MAX = 65536,
    PROCESSES_MAX = 4096,
    LINE_BYTES = 4400, /* of /proc/<pid>/maps */
    VDSO_BYTES = 16384,
    STEPS_MAX = 8,
    ERESTART_RESTARTBLOCK = 516, /* the kernel's own; never seen by programs */
};
#define USER_LIMIT UINT64_C(0x800000000000)
#define CRIU_NAME  "memfd:CRIUMFD" /* the file that its code is mapped from */

/* A thread, when CRIU is dead. */
enum whereabouts {
    AS_BEFORE, /* or about to repeat the call that it was in */
    IN_CRIU,   /* in what CRIU wrote or mapped */
    GONE_ON,
};

struct map {
    uint64_t at, end;
    bool is_code;
    bool is_criu;             /* by its name */
    uint8_t head[HEAD_BYTES]; /* of code */
};

struct thread {
    pid_t tid;
    uint32_t xstate_bytes;
    uint64_t blocked; /* signals */
    struct user_regs_struct regs;
    uint8_t xstate[XSTATE_BYTES]; /* last: only so many are written */
};

struct process {
    pid_t pid;
    uint64_t start;
    uint32_t n_threads, n_maps, n_fds;
    pid_t *threads;   /* owned */
    struct map *maps; /* owned */
    int *fds;         /* owned */
    uint64_t vdso;    /* 0: none */
};

/* ---- /proc
 * ------------------------------------------------------------------------------------- */

static bool grow(void **list, size_t item, uint32_t n, uint32_t max)
{
    bool is_full = n != 0 && (n & (n - 1)) != 0; /* room for the next power of two */
    void *more = is_full ? *list : NULL;
    if (n >= max)
        return false;
    if (!is_full)
        more = realloc(*list, item * (n ? 2 * (size_t)n : 1));
    if (!more)
        return false;
    *list = more;
    return true;
}

/* Numbers that a directory of /proc/<pid> has as names. */
static bool
read_numbers(pid_t pid, const char *what, uint32_t max, int **at, uint32_t *n)
{
    char path[64];
    struct dirent *entry;
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, what);
    DIR *dir = opendir(path);
    bool is_ok = dir != NULL;
    while (is_ok && (entry = readdir(dir))) {
        if (entry->d_name[0] == '.')
            continue;
        is_ok = grow((void **)at, sizeof **at, *n, max);
        if (is_ok)
            (*at)[(*n)++] = atoi(entry->d_name);
    }
    if (dir)
        closedir(dir);
    return is_ok;
}

static int open_memory(pid_t pid)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/mem", (int)pid);
    return open(path, O_RDWR | O_CLOEXEC);
}

static bool read_maps(struct process *p)
{
    char path[32], line[LINE_BYTES];
    snprintf(path, sizeof path, "/proc/%d/maps", (int)p->pid);
    FILE *file = fopen(path, "re");
    int memory = open_memory(p->pid);
    bool is_ok = file && memory >= 0;
    while (is_ok && fgets(line, sizeof line, file)) {
        struct map m = {.at = 0};
        char rights[5] = "";
        unsigned long long at, end;
        if (sscanf(line, "%llx-%llx %4s", &at, &end, rights) != 3 || end > USER_LIMIT)
            continue;
        m.at = at;
        m.end = end;
        m.is_code = rights[2] == 'x' &&
                    pread(memory, m.head, HEAD_BYTES, (off_t)at) == HEAD_BYTES;
        m.is_criu = strstr(line, CRIU_NAME) != NULL;
        if (strstr(line, "[vdso]"))
            p->vdso = at;
        is_ok = grow((void **)&p->maps, sizeof m, p->n_maps, MAPS_MAX);
        if (is_ok)
            p->maps[p->n_maps++] = m;
    }
    if (file)
        fclose(file);
    if (memory >= 0)
        close(memory);
    return is_ok;
}

static void process_fini(struct process *p)
{
    free(p->threads);
    free(p->maps);
    free(p->fds);
    *p = (struct process){.pid = 0};
}

static bool process_read(struct process *p, pid_t pid)
{
    *p = (struct process){.pid = pid, .start = orri_proc_start(pid)};
    bool is_ok = read_numbers(pid, "task", THREADS_MAX, &p->threads, &p->n_threads) &&
                 read_numbers(pid, "fd", FDS_MAX, &p->fds, &p->n_fds) && read_maps(p);
    if (!is_ok)
        process_fini(p);
    return is_ok;
}

/* ---- ptrace
 * ------------------------------------------------------------------------------------ */

/* It has stopped; for what, *ret_status says. */
static bool await_stop(pid_t tid, int *ret_status)
{
    uint64_t deadline_ms = orri_mono_ms() + STOP_MS;
    for (;;) {
        pid_t got = waitpid(tid, ret_status, __WALL | WNOHANG);
        if (got == tid)
            return WIFSTOPPED(*ret_status);
        if (got < 0 || orri_mono_ms() >= deadline_ms)
            return false;
        poll(NULL, 0, 1);
    }
}

static bool attach(pid_t tid)
{
    int status;
    if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) != 0)
        return false;
    if (ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) == 0 && await_stop(tid, &status))
        return true;
    ptrace(PTRACE_DETACH, tid, NULL, NULL);
    return false;
}

static bool get_thread(pid_t tid, struct thread *t)
{
    struct iovec regs = {&t->regs, sizeof t->regs};
    struct iovec xstate = {t->xstate, sizeof t->xstate};
    t->tid = tid;
    bool is_got = ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &regs) == 0 &&
                  ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &xstate) == 0 &&
                  ptrace(PTRACE_GETSIGMASK, tid, sizeof t->blocked, &t->blocked) == 0;
    t->xstate_bytes = (uint32_t)xstate.iov_len;
    return is_got;
}

static void set_thread(struct thread *t)
{
    struct iovec regs = {&t->regs, sizeof t->regs};
    struct iovec xstate = {t->xstate, t->xstate_bytes};
    ptrace(PTRACE_SETREGSET, t->tid, NT_PRSTATUS, &regs);
    ptrace(PTRACE_SETREGSET, t->tid, NT_X86_XSTATE, &xstate);
    ptrace(PTRACE_SETSIGMASK, t->tid, sizeof t->blocked, &t->blocked);
}

/* CRIU's breakpoint, or what its half-written code did, not delivered yet: it comes now, and goes no further. */
static void drop_faults(pid_t tid)
{
    static const int faults[] = {SIGTRAP, SIGSEGV, SIGILL, SIGBUS};
    uint64_t others = ~UINT64_C(0), pending = 0;
    siginfo_t queued[8];
    struct __ptrace_peeksiginfo_args peek = {.nr = 8};
    long n = ptrace(PTRACE_PEEKSIGINFO, tid, &peek, queued);
    int status;
    for (size_t i = 0; i < ORR_ARRAY_SIZE(faults); i++)
        others &= ~(UINT64_C(1) << (faults[i] - 1));
    for (long i = 0; i < n; i++)
        if (queued[i].si_code > 0) /* the kernel's */
            pending |= ~others & UINT64_C(1) << (queued[i].si_signo - 1);
    if (pending == 0 || ptrace(PTRACE_SETSIGMASK, tid, sizeof others, &others) != 0)
        return;
    for (int i = 0; i < STEPS_MAX && pending; i++) {
        if (ptrace(PTRACE_CONT, tid, NULL, NULL) != 0 || !await_stop(tid, &status))
            return;
        if (status >> 16 == 0)
            pending &= ~(UINT64_C(1) << (WSTOPSIG(status) - 1));
    }
}

/* One system call of the thread's own, which is attached and has all signals blocked. */
static void call(pid_t tid, uint64_t syscall_at, long nr, uint64_t a, uint64_t b)
{
    struct user_regs_struct regs;
    struct iovec io = {&regs, sizeof regs};
    int status;
    if (ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &io) != 0)
        return;
    regs.rip = syscall_at;
    regs.rax = (uint64_t)nr;
    regs.orig_rax = ~UINT64_C(0);
    regs.rdi = a;
    regs.rsi = b;
    if (ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &io) != 0)
        return;
    for (int i = 0; i < STEPS_MAX; i++) {
        if (ptrace(PTRACE_SINGLESTEP, tid, NULL, NULL) != 0 ||
            !await_stop(tid, &status) ||
            (status >> 16 == 0 && WSTOPSIG(status) == SIGTRAP))
            return; /* it is done, when it was not merely told that its group is stopped */
    }
}

/* ---- back
 * -------------------------------------------------------------------------------------- */

/* In the vDSO, which every process has. */
static uint64_t find_syscall(const struct process *p)
{
    static const uint8_t code[] = {0x0f, 0x05};
    uint8_t text[VDSO_BYTES];
    int memory = p->vdso ? open_memory(p->pid) : -1;
    ssize_t n = memory < 0 ? -1 : pread(memory, text, sizeof text, (off_t)p->vdso);
    if (memory >= 0)
        close(memory);
    const uint8_t *at = n > 0 ? memmem(text, (size_t)n, code, sizeof code) : NULL;
    return at ? p->vdso + (uint64_t)(at - text) : 0;
}

static bool has_fd(const struct process *p, int fd)
{
    for (uint32_t i = 0; i < p->n_fds; i++)
        if (p->fds[i] == fd)
            return true;
    return false;
}

static bool has_map(const struct process *p, const struct map *m)
{
    for (uint32_t i = 0; i < p->n_maps; i++)
        if (p->maps[i].at < m->end && m->at < p->maps[i].end)
            return true;
    return false;
}

static void restore_code(const struct process *p)
{
    uint8_t now[HEAD_BYTES];
    int memory = open_memory(p->pid);
    for (uint32_t i = 0; memory >= 0 && i < p->n_maps; i++) {
        const struct map *m = &p->maps[i];
        if (m->is_code && pread(memory, now, HEAD_BYTES, (off_t)m->at) == HEAD_BYTES &&
            memcmp(now, m->head, HEAD_BYTES) != 0 &&
            pwrite(memory, m->head, HEAD_BYTES, (off_t)m->at) != HEAD_BYTES)
            break;
    }
    if (memory >= 0)
        close(memory);
}

static enum whereabouts look(const struct process *was,
                             const struct user_regs_struct *before,
                             const struct user_regs_struct *now)
{
    bool is_there = now->rip == before->rip || now->rip + 2 == before->rip;
    /* CRIU gives back all registers at once; those that a system call returns in, or destroys, tell nothing */
    bool is_same =
        now->rbx == before->rbx && now->rbp == before->rbp && now->rsp == before->rsp &&
        now->r12 == before->r12 && now->r13 == before->r13 && now->r14 == before->r14 &&
        now->r15 == before->r15 && now->rdi == before->rdi && now->rsi == before->rsi &&
        now->rdx == before->rdx && now->r10 == before->r10 && now->r8 == before->r8 &&
        now->r9 == before->r9;
    if (is_there)
        return is_same ? AS_BEFORE : GONE_ON;
    for (uint32_t i = 0; i < was->n_maps; i++) {
        const struct map *m = &was->maps[i];
        if (m->at <= now->rip && now->rip < m->end)
            return m->is_code && now->rip - m->at < HEAD_BYTES ? IN_CRIU : GONE_ON;
    }
    return IN_CRIU;
}

static bool is_criu_fd(pid_t pid, int fd)
{
    char path[64], link[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
    ssize_t n = readlink(path, link, sizeof link - 1);
    link[n > 0 ? n : 0] = '\0';
    return strstr(link, CRIU_NAME) != NULL;
}

/* Files and mappings that it had not.  Where it may have run since, what is surely CRIU's. */
static void
drop_new(const struct process *was, const struct process *now, pid_t tid, bool is_all)
{
    static const uint64_t all = ~UINT64_C(0);
    uint64_t at = find_syscall(now);
    if (!at || ptrace(PTRACE_SETSIGMASK, tid, sizeof all, &all) != 0)
        return;
    for (uint32_t i = 0; i < now->n_fds; i++)
        if (!has_fd(was, now->fds[i]) && (is_all || is_criu_fd(now->pid, now->fds[i])))
            call(tid, at, SYS_close, (uint64_t)now->fds[i], 0);
    for (uint32_t i = 0; i < now->n_maps; i++)
        if (!has_map(was, &now->maps[i]) && (is_all || now->maps[i].is_criu))
            call(tid,
                 at,
                 SYS_munmap,
                 now->maps[i].at,
                 now->maps[i].end - now->maps[i].at);
}

static bool
is_changed(const struct process *was, const struct process *now, bool is_all)
{
    for (uint32_t i = 0; i < now->n_fds; i++)
        if (!has_fd(was, now->fds[i]) && (is_all || is_criu_fd(now->pid, now->fds[i])))
            return true;
    for (uint32_t i = 0; i < now->n_maps; i++)
        if (!has_map(was, &now->maps[i]) && (is_all || now->maps[i].is_criu))
            return true;
    return false;
}

/* True when the thread had to make system calls for it. */
static bool restore_process(const struct process *was, pid_t tid, bool is_all)
{
    struct process now;
    if (!process_read(&now, was->pid))
        return false;
    bool has_new = is_changed(was, &now, is_all);
    if (has_new)
        drop_new(was, &now, tid, is_all);
    process_fini(&now);
    return has_new;
}

/* The thread as it was; its process, too, when it is the first.  now: room for one. */
static void restore_thread(const struct process *was,
                           struct thread *t,
                           bool is_first,
                           struct thread *now)
{
    if (!attach(t->tid))
        return;
    drop_faults(t->tid);
    bool is_known = get_thread(t->tid, now);
    enum whereabouts where = is_known ? look(was, &t->regs, &now->regs) : IN_CRIU;
    bool has_called = false;
    if (is_first)
        restore_code(was);
    if (is_first && where != GONE_ON)
        has_called = restore_process(was, t->tid, where == IN_CRIU);
    if (where == AS_BEFORE && !has_called) { /* but for the signals */
        memcpy(t->xstate, now->xstate, now->xstate_bytes);
        t->xstate_bytes = now->xstate_bytes;
        t->regs = now->regs;
    } else if (t->regs.rax == (uint64_t)-ERESTART_RESTARTBLOCK) {
        t->regs.rax = (uint64_t)-EINTR;
    }
    if (where != GONE_ON)
        set_thread(t);
    ptrace(PTRACE_DETACH, t->tid, NULL, NULL);
}

/* ---- the note
 * ---------------------------------------------------------------------------------- */

static bool put(FILE *file, const void *at, size_t size, size_t n)
{
    return n == 0 || fwrite(at, size, n, file) == n;
}

static bool get(FILE *file, void *at, size_t size, size_t n)
{
    return n == 0 || fread(at, size, n, file) == n;
}

struct notes {
    FILE *file;
    struct thread *thread; /* room for one */
    uint32_t n;
    bool is_ok;
};

static bool note_threads(struct notes *notes, const struct process *p)
{
    struct thread *t = notes->thread;
    bool is_ok = true;
    for (uint32_t i = 0; i < p->n_threads && is_ok; i++) {
        is_ok = attach(p->threads[i]);
        if (!is_ok)
            break;
        is_ok = get_thread(p->threads[i], t);
        ptrace(PTRACE_DETACH, p->threads[i], NULL, NULL);
        is_ok =
            is_ok &&
            put(notes->file, t, offsetof(struct thread, xstate) + t->xstate_bytes, 1);
    }
    return is_ok;
}

static void note_process(void *arg, pid_t pid)
{
    struct notes *notes = arg;
    struct process p;
    if (!notes->is_ok || !process_read(&p, pid))
        return; /* a zombie has nothing */
    notes->is_ok = notes->n++ < PROCESSES_MAX && put(notes->file, &p, sizeof p, 1) &&
                   put(notes->file, p.fds, sizeof *p.fds, p.n_fds) &&
                   put(notes->file, p.maps, sizeof *p.maps, p.n_maps) &&
                   note_threads(notes, &p);
    process_fini(&p);
}

void orri_image_keep(pid_t init, int rank_dir)
{
    const struct process end = {.pid = 0};
    int fd = openat(
        rank_dir, ORRI_UNDO_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct notes notes = {.file = fd < 0 ? NULL : fdopen(fd, "w"),
                          .thread = malloc(sizeof *notes.thread),
                          .is_ok = true};
    if (notes.file && notes.thread) {
        note_process(&notes, init);
        orri_tree_each(init, note_process, &notes);
        notes.is_ok = notes.is_ok && put(notes.file, &end, sizeof end, 1);
    }
    free(notes.thread);
    if (fd >= 0 && !notes.file)
        close(fd);
    bool is_kept = notes.file && fclose(notes.file) == 0 && notes.is_ok;
    if (!is_kept) /* not by halves */
        unlinkat(rank_dir, ORRI_UNDO_FILE, 0);
}

static bool read_process(FILE *file, struct process *p)
{
    if (!get(file, p, sizeof *p, 1) || p->pid == 0 || p->n_fds > FDS_MAX ||
        p->n_maps > MAPS_MAX || p->n_threads > THREADS_MAX) {
        *p = (struct process){.pid = 0};
        return false;
    }
    p->threads = NULL;
    p->fds = calloc(p->n_fds + 1, sizeof *p->fds);
    p->maps = calloc(p->n_maps + 1, sizeof *p->maps);
    return p->fds && p->maps && get(file, p->fds, sizeof *p->fds, p->n_fds) &&
           get(file, p->maps, sizeof *p->maps, p->n_maps);
}

static bool read_threads(FILE *file, const struct process *p, struct thread *room)
{
    bool is_it = orri_proc_start(p->pid) == p->start;
    for (uint32_t i = 0; i < p->n_threads; i++) {
        struct thread *t = &room[0];
        if (!get(file, t, offsetof(struct thread, xstate), 1) ||
            t->xstate_bytes > XSTATE_BYTES || !get(file, t->xstate, t->xstate_bytes, 1))
            return false;
        if (is_it)
            restore_thread(p, t, i == 0, &room[1]);
    }
    return true;
}

void orri_image_undo(int rank_dir)
{
    int fd = openat(rank_dir, ORRI_UNDO_FILE, O_RDONLY | O_CLOEXEC);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    struct thread *room = malloc(2 * sizeof *room);
    struct process p = {.pid = 0};
    while (file && room && read_process(file, &p) && read_threads(file, &p, room))
        process_fini(&p);
    process_fini(&p);
    free(room);
    if (file)
        fclose(file);
    else if (fd >= 0)
        close(fd);
    unlinkat(rank_dir, ORRI_UNDO_FILE, 0);
}
