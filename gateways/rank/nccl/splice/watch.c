/* SPDX-License-Identifier: Apache-2.0
 * watch.c - what happens to the ranks of a device when one of them, or a rank elsewhere, dies, fails, or aborts (splice.h).
 *
 * PROMISE    Where an operation has ended in the stream of a rank that has not aborted, its result is right.  All others stay, as
 *            NCCL's kernels do, until their own rank aborts; ncclCommGetAsyncError tells.
 * BROKEN     A rank that aborts lets its own streams go: from then on what it copies, combines and tells is garbage.  So first it
 *            sets the word `broken` of each other rank of the device, and each looks at its own before it tells anything and before the
 *            program's work goes on.  What somebody read that was garbage was written after that word: the look, which comes after
 *            the reading, sees it.  Each has a row of words to wait at, so that one can be let go and the others not.
 * VOTE       Leaders of other devices may have been sent garbage before: NCCL read a slot that a rank which had been let go wrote
 *            over, or a leader's own stream was let go.  So at the end of an operation the leaders gather each other's two words, read after all
 *            that they sent was: `broken`, and `left`, which a leader sets before it lets itself go.
 * PAGE       Host memory that the ranks of the device share says who is well, and why not: so that questions cost nothing, and one
 *            that aborts is not held by another that tells later.  Each holds a lock of one byte of its file: who does not has died.
 */
#include "splice.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { RANKS_MAX = 1024, FD_MIN = 300, POLL_NS = 1000000, TELLING_MS = 2000 };

/* ABSENT -> HERE -> TELLING -> BROKEN; from any to LEFT.  Bits 8 to 15: enum orri_lost; above: who, by the number on the device. */
enum state { ABSENT, HERE, TELLING, BROKEN, LEFT };

struct orri_wellness {
    _Atomic uint32_t state[RANKS_MAX];
};

static enum state state_of(uint32_t word)
{
    return (enum state)(word & 0xff);
}

static int mine_of(const struct orri_splice *s)
{
    return s->map.local_of[s->map.me];
}

static int here_of(const struct orri_splice *s)
{
    return s->map.count[s->map.device];
}

/* ---- coming and going ------------------------------------------------------------------------- */

ncclResult_t orri_watch_make(struct orri_splice *s)
{
    s->page_fd = memfd_create("orrery-splice", MFD_CLOEXEC);
    if (s->page_fd >= 0 && ftruncate(s->page_fd, sizeof *s->page) == 0)
        return ncclSuccess;
    return orri_nccl_fail(ncclSystemError,
                          "no memory for the ranks of a device to share: %s",
                          strerror(errno));
}

static bool lock_byte(int fd, int at)
{
    struct flock lock = {.l_type = F_WRLCK, .l_start = at, .l_len = 1};

    return fcntl(fd, F_SETLK, &lock) == 0;
}

ncclResult_t orri_watch_come(struct orri_splice *s)
{
    uint32_t absent = ABSENT;
    int high = fcntl(s->page_fd, F_DUPFD_CLOEXEC, FD_MIN);
    void *at;

    if (here_of(s) > RANKS_MAX)
        return orri_nccl_fail(
            ncclInvalidUsage, "more than %d ranks on one device", (int)RANKS_MAX);
    if (high >=
        0) { /* out of the way of the program's; before the lock: a close undoes it */
        close(s->page_fd);
        s->page_fd = high;
    }
    at = mmap(NULL, sizeof *s->page, PROT_READ | PROT_WRITE, MAP_SHARED, s->page_fd, 0);
    if (at == MAP_FAILED)
        return orri_nccl_fail(ncclSystemError,
                              "cannot map what ranks of a device share: %s",
                              strerror(errno));
    s->page = at;
    s->owner = getpid();
    if (!lock_byte(s->page_fd, mine_of(s)))
        return orri_nccl_fail(ncclSystemError,
                              "cannot lock what ranks of a device share: %s",
                              strerror(errno));
    atomic_compare_exchange_strong(&s->page->state[mine_of(s)], &absent, HERE);
    return ncclSuccess;
}

void orri_watch_exit(struct orri_splice *s)
{
    if (s->owner == getpid()) /* not a child of it */
        atomic_store(&s->page->state[mine_of(s)], LEFT);
}

void orri_watch_end(struct orri_splice *s)
{
    if (s->page) {
        atomic_store(&s->page->state[mine_of(s)], LEFT); /* before its lock is gone */
        munmap(s->page, sizeof *s->page);
    }
    s->page = NULL;
    if (s->page_fd >= 0)
        close(s->page_fd);
    s->page_fd = -1;
}

/* ---- telling ----------------------------------------------------------------------------------- */

/* Writes that wait for nothing. */
static void write_aside(struct orri_splice *s, void (*add)(struct orri_words *w))
{
    CUcontext before = NULL;
    struct orri_words w = {.s = s, .stream = s->side};

    pthread_mutex_lock(&s->side_lock);
    orri_cu.CtxGetCurrent(&before);
    orri_cu.CtxSetCurrent(s->ctx);
    add(&w);
    orri_words_flush(&w);
    orri_cu.StreamSynchronize(s->side);
    orri_cu.CtxSetCurrent(before);
    pthread_mutex_unlock(&s->side_lock);
}

static void add_broken(struct orri_words *w)
{
    struct orri_splice *s = w->s;

    for (int i = 0; i < here_of(s); i++)
        if (state_of(atomic_load(&s->page->state[i])) == TELLING)
            orri_words_write(w, orri_flag_broken(&s->layout, i), 1);
}

/* One that has not come is told, too. */
static void move(struct orri_splice *s, int i, uint32_t to)
{
    uint32_t seen = atomic_load(&s->page->state[i]);

    while (state_of(seen) < state_of(to) &&
           !atomic_compare_exchange_weak(&s->page->state[i], &seen, to))
        ;
}

void orri_watch_tell(struct orri_splice *s, enum orri_lost why, int culprit)
{
    uint32_t what = (uint32_t)why << 8 | (uint32_t)culprit << 16;
    bool is_any = false;

    if (!s->page)
        return;
    for (int i = 0; i < here_of(s); i++) {
        enum state state = state_of(atomic_load(&s->page->state[i]));
        if ((i == mine_of(s) && why == ORRI_LOST_ABORTED) || state > TELLING)
            continue;
        move(s, i, TELLING | what);
        is_any = true;
    }
    if (is_any) /* also of those whom another was about to tell: it may have died */
        write_aside(s, add_broken);
    for (int i = 0; i < here_of(s) && is_any; i++) {
        uint32_t seen = atomic_load(&s->page->state[i]);
        if (state_of(seen) == TELLING)
            atomic_compare_exchange_strong(
                &s->page->state[i], &seen, (seen & ~UINT32_C(0xff)) | BROKEN);
    }
}

ncclResult_t orri_watch_state(struct orri_splice *s)
{
    static const char *const texts[] = {
        [ORRI_LOST_ABORTED] = "has aborted the communicator",
        [ORRI_LOST_DIED] = "has died",
        [ORRI_LOST_FAILED] = "has failed in a call of the communicator",
        [ORRI_LOST_REMOTE] = "has lost a rank of another device",
    };
    uint32_t word = s->page ? atomic_load(&s->page->state[mine_of(s)]) : HERE;
    int culprit = (int)(word >> 16);

    if (state_of(word) < TELLING)
        return ncclSuccess;
    if (state_of(word) == LEFT)
        return orri_nccl_fail(ncclInvalidUsage, "the communicator is aborted");
    return orri_nccl_fail(ncclRemoteError,
                          "rank %d of %d, which shares the device, %s: abort the "
                          "communicator and make a new one",
                          s->map.members[culprit < here_of(s) ? culprit : 0],
                          s->map.n,
                          texts[word >> 8 & 3]);
}

/* ---- looking ----------------------------------------------------------------------------------- */

static ncclResult_t state_of_real(ncclComm_t comm)
{
    ncclResult_t state = ncclSuccess, result;

    if (!comm)
        return ncclSuccess;
    result = REAL(CommGetAsyncError, comm, &state);
    result = result == ncclSuccess ? state : result;
    return result == ncclInProgress ? ncclSuccess : result;
}

ncclResult_t orri_watch_ask(struct orri_splice *s, ncclComm_t real)
{
    ncclResult_t state = state_of_real(real);

    for (int r = 0; r < s->map.n && state == ncclSuccess; r++)
        state = state_of_real(atomic_load(&s->far[r].comm));
    if (state == ncclSuccess)
        return orri_watch_state(s);
    orri_watch_tell(s, ORRI_LOST_REMOTE, mine_of(s));
    orri_self.is_ours = false; /* the text is the real library's */
    return state;
}

/* Nobody holds its lock, and it has not left. */
static bool has_died(struct orri_splice *s, int i)
{
    struct flock lock = {.l_type = F_WRLCK, .l_start = i, .l_len = 1};
    enum state state = state_of(atomic_load(&s->page->state[i]));

    if (state == LEFT || state == ABSENT || i == mine_of(s))
        return false;
    return fcntl(s->page_fd, F_GETLK, &lock) == 0 && lock.l_type == F_UNLCK &&
           state_of(atomic_load(&s->page->state[i])) != LEFT;
}

/* Of a leader: what the others said last. */
static bool has_bad_vote(struct orri_splice *s)
{
    uint32_t votes[2 * RANKS_MAX] = {0};
    int n = s->map.ndevices;
    bool is_bad = false;
    CUcontext before = NULL;

    if (n == 1 || n > RANKS_MAX || !orri_splice_is_leader(s))
        return false;
    pthread_mutex_lock(&s->side_lock);
    orri_cu.CtxGetCurrent(&before);
    orri_cu.CtxSetCurrent(s->ctx);
    if (orri_cu.MemcpyDtoHAsync(votes,
                                s->base + orri_flag_vote(&s->layout, 0),
                                (size_t)n * 2 * sizeof votes[0],
                                s->side) == CUDA_SUCCESS &&
        orri_cu.StreamSynchronize(s->side) == CUDA_SUCCESS)
        for (int d = 0; d < n; d++)
            is_bad |= d != s->map.device && (votes[2 * d] || votes[2 * d + 1]);
    orri_cu.CtxSetCurrent(before);
    pthread_mutex_unlock(&s->side_lock);
    return is_bad;
}

ncclResult_t orri_watch_look(struct orri_splice *s, ncclComm_t real)
{
    ncclResult_t state = orri_watch_ask(s, real);

    if (state != ncclSuccess || !s->page)
        return state;
    for (int i = 0; i < here_of(s); i++)
        if (has_died(s, i))
            orri_watch_tell(s, ORRI_LOST_DIED, i);
    if (has_bad_vote(s))
        orri_watch_tell(s, ORRI_LOST_REMOTE, mine_of(s));
    return orri_watch_state(s);
}

/* ---- the own abort ------------------------------------------------------------------------------- */

static void add_left(struct orri_words *w)
{
    orri_words_write(w, orri_flag_left(&w->s->layout, mine_of(w->s)), 1);
}

/* One who tells this rank just now has done it: or what it writes would hold this rank's streams later. */
static void await_told(struct orri_splice *s)
{
    const struct timespec pause = {.tv_nsec = POLL_NS};
    uint64_t deadline_ms = orri_nccl_now_ms() + TELLING_MS;

    while (state_of(atomic_load(&s->page->state[mine_of(s)])) == TELLING &&
           orri_nccl_now_ms() < deadline_ms)
        nanosleep(&pause, NULL);
    atomic_store(&s->page->state[mine_of(s)], LEFT);
}

void orri_watch_leave(struct orri_splice *s)
{
    if (!s->page)
        return;
    orri_watch_tell(s, ORRI_LOST_ABORTED, mine_of(s));
    await_told(s);
    write_aside(s, add_left);
}

/* Far ahead of all that this rank waits for; the votes of others as if all were well. */
static void add_release(struct orri_words *w)
{
    struct orri_splice *s = w->s;
    const struct orri_layout *l = &s->layout;
    uint32_t ahead = s->step + (UINT32_C(1) << 30), pieces = UINT32_C(1) << 30;
    int mine = mine_of(s);

    orri_words_write(w, orri_flag_done(l, mine), ahead);
    for (int i = 0; i < here_of(s); i++) {
        orri_words_write(w, orri_flag_ready(l, mine, i), ahead);
        orri_words_write(w, orri_flag_taken(l, mine, i), ahead);
        orri_words_write(w, orri_flag_sent(l, i, mine), pieces);
        orri_words_write(w, orri_flag_got(l, mine, i), pieces);
    }
    orri_words_write(w, orri_flag_broken(l, mine), 0);
    for (int d = 0; orri_splice_is_leader(s) && d < s->map.ndevices; d++) {
        orri_words_write(w, orri_flag_vote(l, d), 0);
        orri_words_write(w, orri_flag_vote(l, d) + sizeof(uint32_t), 0);
    }
}

void orri_watch_release(struct orri_splice *s)
{
    write_aside(s, add_release);
}
