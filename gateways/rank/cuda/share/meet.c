/* SPDX-License-Identifier: Apache-2.0
 * meet.c - see meet.h: the board's file and its locks.  The sockets: hand.c.
 */
#include "meet.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../gate.h"

enum { FD_MIN = 300, COME_MS = 10000, VERSION = 1, PAGE = 4096, TRY_NS = 5000000 };
enum { LOCK_BYTE, LIFE_BYTE }; /* in the board's file */

/* The file: this, then the board. */
struct head {
    uint64_t piece_bytes, job; /* who it is for: a hash */
    uint32_t version, n_contents;
    uint8_t uuid[16];
    struct orri_nh_key key;
};

struct orri_place orri_place;
static pthread_mutex_t threads =
    PTHREAD_MUTEX_INITIALIZER; /* a file's lock is the process' */

static const size_t head_bytes = (sizeof(struct head) + PAGE - 1) / PAGE * PAGE;

static bool failed(char *why, size_t bytes, const char *what)
{
    snprintf(why, bytes, "%s: %s", what, strerror(errno));
    return false;
}

/* ---- the lock ----------------------------------------------------------------------------------- */

static struct flock at_byte(int at, short type)
{
    return (struct flock){
        .l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
}

static void lock_file(struct orri_meet *m)
{
    struct flock l = at_byte(LOCK_BYTE, F_WRLCK);
    pthread_mutex_lock(&threads);
    while (fcntl(m->board_fd, F_SETLKW, &l) != 0 && errno == EINTR)
        ;
}

static uint64_t alive(const struct orri_meet *m)
{
    uint64_t members = orri_board_members(m->board);
    for (uint32_t i = 0; i < ORRI_MEMBERS_MAX; i++) {
        struct flock l = at_byte(LIFE_BYTE + (int)i, F_WRLCK);
        if (i != m->me && members >> i & 1 && fcntl(m->board_fd, F_GETLK, &l) == 0 &&
            l.l_type == F_UNLCK)
            members &= ~((uint64_t)1 << i);
    }
    return members;
}

void orri_meet_lock(struct orri_meet *m)
{
    lock_file(m);
    m->moved = atomic_load(&m->board->moved);
    if (m->board->is_torn)
        orri_board_repair(m->board, alive(m));
    orri_board_begin(m->board);
}

void orri_meet_unlock(struct orri_meet *m)
{
    struct flock l = at_byte(LOCK_BYTE, F_UNLCK);
    bool has_moved = atomic_load(&m->board->moved) != m->moved;
    orri_board_end(m->board);
    fcntl(m->board_fd, F_SETLK, &l);
    pthread_mutex_unlock(&threads);
    if (has_moved)
        syscall(SYS_futex, &m->board->moved, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

void orri_meet_wait(struct orri_meet *m, uint32_t seen, uint32_t ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    syscall(SYS_futex, &m->board->moved, FUTEX_WAIT, seen, &t, NULL, 0);
}

void orri_meet_look(struct orri_meet *m)
{
    orri_meet_lock(m);
    uint64_t there = alive(m);
    if (there != orri_board_members(m->board))
        orri_board_repair(m->board, there);
    orri_meet_unlock(m);
}

void orri_meet_go(struct orri_meet *m)
{
    struct flock life = at_byte(LIFE_BYTE + (int)m->me, F_UNLCK);
    orri_meet_lock(m);
    orri_board_repair(m->board, orri_board_members(m->board) & ~((uint64_t)1 << m->me));
    fcntl(m->board_fd, F_SETLK, &life);
    orri_meet_unlock(m);
}

/* ---- the backup --------------------------------------------------------------------------------- */

uint8_t *orri_meet_content(const struct orri_meet *m, uint32_t content)
{
    return m->backup + (uint64_t)(content - ORRI_CONTENT) * m->piece_bytes;
}

bool orri_meet_reserve(struct orri_meet *m, uint32_t content)
{
    int rc;
    do
        rc = fallocate(m->backup_fd,
                       0,
                       (off_t)((uint64_t)(content - ORRI_CONTENT) * m->piece_bytes),
                       (off_t)m->piece_bytes);
    while (rc != 0 && errno == EINTR);
    return rc == 0;
}

/* ---- coming ------------------------------------------------------------------------------------- */

static uint64_t fnv(uint64_t hash, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static uint64_t fnv_text(uint64_t hash, const char *variable)
{
    const char *text = getenv(variable);
    return fnv(hash, text ? text : "", text ? strlen(text) + 1 : 1);
}

static uint64_t job_now(void)
{
    uint64_t hash = fnv_text(UINT64_C(0xcbf29ce484222325), "ORRERY_JOB");
    return fnv_text(hash, "ORRERY_GENERATION");
}

/* Beside the socket of the node's link, which all ranks of a node can reach. */
static bool find_place(const uint8_t uuid[16])
{
    const char *dir = getenv("ORRERY_MEMORY_DIR"), *link = getenv("ORRERY_RANK_LINK");
    const char *slash = link ? strrchr(link, '/') : NULL;
    const char *from = dir ? dir : slash ? link : "/tmp";
    int len = dir || !slash ? (int)strlen(from) : (int)(slash - link);
    int n = snprintf(orri_place.dir, sizeof orri_place.dir, "%.*s", len, from);
    uint64_t hash = fnv(job_now(), uuid, 16);
    orri_place.key = (uint32_t)(hash ^ hash >> 32);
    return n > 0 && (size_t)n < sizeof orri_place.dir - 24; /* room for a name */
}

/* Only one comes at a time.  -1: not in time. */
static int lock_place(void)
{
    char path[sizeof orri_place.dir + 16];
    uint64_t deadline_ms = orri_cuda_now_ms() + COME_MS;
    const struct timespec pause = {.tv_nsec = TRY_NS};
    snprintf(path, sizeof path, "%s/m%08x", orri_place.dir, orri_place.key);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (orri_cuda_now_ms() >= deadline_ms) {
            close(fd);
            errno = ETIMEDOUT;
            return -1;
        }
        nanosleep(&pause, NULL);
    }
    return fd;
}

/* ORRERY_MEMORY_BACKUP, or half of the machine's memory. */
static uint64_t backup_bytes(void)
{
    const char *text = getenv("ORRERY_MEMORY_BACKUP");
    if (text && *text)
        return strtoull(text, NULL, 10);
    return (uint64_t)sysconf(_SC_PHYS_PAGES) / 2 * (uint64_t)sysconf(_SC_PAGESIZE);
}

static bool fill_random(void *to, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        ssize_t n = getrandom((uint8_t *)to + at, bytes - at, 0);
        if (n < 0 && errno != EINTR)
            return false;
        at += n > 0 ? (size_t)n : 0;
    }
    return true;
}

static bool
init_board(struct head *h, const uint8_t uuid[16], uint64_t piece, uint32_t n)
{
    void *zeros = calloc(1, piece);
    if (!zeros || !fill_random(&h->key, sizeof h->key)) {
        free(zeros);
        return false;
    }
    struct orri_hash zero = orri_nh(&h->key, zeros, piece);
    free(zeros);
    h->piece_bytes = piece;
    h->job = job_now();
    h->version = VERSION;
    h->n_contents = n;
    memcpy(h->uuid, uuid, sizeof h->uuid);
    orri_board_init((struct orri_board *)((uint8_t *)h + head_bytes), n, &zero);
    return true;
}

static bool make(const uint8_t uuid[16], uint64_t piece, int fds[2])
{
    uint64_t n = backup_bytes() / piece;
    n = n < ORRI_CONTENTS_LEAST ? ORRI_CONTENTS_LEAST : n;
    n = n > (uint64_t)2 * ORRI_SLOTS_MAX ? (uint64_t)2 * ORRI_SLOTS_MAX : n;
    size_t bytes = head_bytes + orri_board_bytes((uint32_t)n);
    fds[0] = memfd_create("orrery-turns", MFD_CLOEXEC);
    fds[1] = memfd_create("orrery-backup", MFD_CLOEXEC);
    if (fds[0] < 0 || fds[1] < 0 || ftruncate(fds[0], (off_t)bytes) != 0 ||
        ftruncate(fds[1], (off_t)(n * piece)) != 0)
        return false;
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
    if (at == MAP_FAILED)
        return false;
    bool ok = init_board(at, uuid, piece, (uint32_t)n);
    munmap(at, bytes);
    return ok;
}

/* Out of the way of the program's, before anything is locked. */
static bool move_up(int *fd)
{
    int high = fcntl(*fd, F_DUPFD_CLOEXEC, FD_MIN);
    close(*fd);
    *fd = high;
    return high >= 0;
}

static void *map_shared(int fd, uint64_t *ret_bytes)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return MAP_FAILED;
    *ret_bytes = (uint64_t)st.st_size;
    void *at = mmap(NULL,
                    (size_t)st.st_size,
                    PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_NORESERVE,
                    fd,
                    0);
    if (at != MAP_FAILED)
        madvise(at, (size_t)st.st_size, MADV_DONTFORK);
    return at;
}

static bool
map_both(struct orri_meet *m, const uint8_t uuid[16], char *why, size_t bytes)
{
    uint64_t board = 0, backup = 0;
    m->head = map_shared(m->board_fd, &board);
    void *at = map_shared(m->backup_fd, &backup);
    if (m->head == MAP_FAILED || at == MAP_FAILED)
        return failed(why, bytes, "cannot map what ranks of the device share");
    const struct head *h = m->head;
    if (board < head_bytes || h->version != VERSION ||
        h->piece_bytes != m->piece_bytes || h->job != job_now() ||
        memcmp(h->uuid, uuid, sizeof h->uuid) != 0 ||
        backup < (uint64_t)h->n_contents * h->piece_bytes) {
        snprintf(why,
                 bytes,
                 "%s/m%08x* belongs to another job or version: remove it",
                 orri_place.dir,
                 orri_place.key);
        return false;
    }
    m->key = h->key;
    m->backup = at;
    m->board = (struct orri_board *)((uint8_t *)m->head + head_bytes);
    return true;
}

/* A place on the board, with the life of this process, and a name to ask it by. */
static bool join(struct orri_meet *m, char *why, size_t bytes)
{
    const char *rank = getenv("RANK");
    uint32_t nonce = 0;
    m->me = ORRI_MEMBERS_MAX;
    m->listen_fd = orri_hand_listen(&orri_place, &nonce);
    if (m->listen_fd < 0)
        return failed(why, bytes, "cannot listen for ranks of the device");
    orri_meet_look(m);
    orri_meet_lock(m);
    bool ok = orri_board_join(
        m->board, rank ? (uint32_t)strtoul(rank, NULL, 10) : 0, nonce, &m->me);
    struct flock life = at_byte(LIFE_BYTE + (int)m->me, F_WRLCK);
    if (ok && fcntl(m->board_fd, F_SETLK, &life) != 0)
        ok = false;
    orri_meet_unlock(m);
    if (!ok)
        snprintf(why, bytes, "more than %d ranks on one device", ORRI_MEMBERS_MAX);
    return ok;
}

bool orri_meet_come(struct orri_meet *m,
                    const uint8_t uuid[16],
                    uint64_t piece_bytes,
                    int (*give)(uint32_t slot),
                    char *why,
                    size_t why_bytes)
{
    int fds[2] = {-1, -1}, place = -1;
    *m = (struct orri_meet){.piece_bytes = piece_bytes, .give = give};
    if (piece_bytes % ORRI_NH_BLOCK_BYTES ||
        piece_bytes > (uint64_t)ORRI_NH_BLOCKS_MAX * ORRI_NH_BLOCK_BYTES) {
        snprintf(why, why_bytes, "the device's granules are not of 2 MiB or less");
        return false;
    }
    if (!find_place(uuid)) {
        snprintf(
            why, why_bytes, "the directory of ORRERY_RANK_LINK has too long a name");
        return false;
    }
    place = lock_place();
    if (place < 0)
        return failed(why, why_bytes, "cannot lock the place where ranks meet");
    bool ok = orri_hand_find(&orri_place, fds) || make(uuid, piece_bytes, fds) ||
              failed(why, why_bytes, "no memory for ranks of the device to share");
    ok = ok && move_up(&fds[0]) && move_up(&fds[1]);
    m->board_fd = fds[0];
    m->backup_fd = fds[1];
    ok = ok && map_both(m, uuid, why, why_bytes) && join(m, why, why_bytes);
    if (ok && !orri_hand_serve(m))
        ok = failed(why, why_bytes, "no thread for ranks of the device");
    close(place);
    return ok;
}
