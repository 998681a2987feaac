/* SPDX-License-Identifier: Apache-2.0
 * page.c - the clocks of this process and the page that shows them (page.h).
 *
 * The clocks stay at one address for the life of the process: parts keep pointers to them.  What lies there is a memfd that the
 * node reads, or, while the process is stopped, memory of its own, so that an image of it names nothing outside.  The two are
 * swapped by mremap onto the place, which is one step for all who read there; nobody counts meanwhile.
 * Look-ups take no lock: the table of places only gains entries, each stored (release) after its clock is complete.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core.h"

#ifndef F_ADD_SEALS
#error "memfd seals are needed"
#endif

enum { BUCKETS = 2 * ORRI_CLOCKS_MAX, FD_MIN = 300 };

static struct orri_page *page;            /* owned: mapped */
static int page_fd = -1;                  /* owned */
static _Atomic uint32_t buckets[BUCKETS]; /* place + 1; 0: empty */

int orri_page_fd(void)
{
    return page_fd;
}

/* Out of the way of programs that expect small numbers for their own files. */
static int move_high(int fd)
{
    int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, FD_MIN);
    if (high < 0)
        return fd;
    close(fd);
    return high;
}

/* A node reads the page with pread; the seals keep its size. */
static struct orri_page *map_shown(int *ret_fd)
{
    int fd = move_high(memfd_create("orrery-clocks", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    void *at = MAP_FAILED;
    if (fd < 0)
        return NULL;
    if (ftruncate(fd, sizeof *page) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0)
        at = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        close(fd);
        return NULL;
    }
    *ret_fd = fd;
    return at;
}

static struct orri_page *map_own(void)
{
    void *at = mmap(NULL,
                    sizeof *page,
                    PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                    -1,
                    0);
    return at == MAP_FAILED ? NULL : at;
}

static uint32_t n_shown(void)
{
    return atomic_load_explicit(&page->n, memory_order_acquire);
}

bool orri_page_make(void)
{
    if (page)
        return true;
    page = map_shown(&page_fd);
    if (!page)
        page = map_own(); /* counted, but the node cannot look on */
    if (!page)
        return false;
    page->magic = ORRI_PAGE_MAGIC;
    page->version = ORR_RANK_PROTOCOL;
    return true;
}

/* Move `with` to where the page is. */
static bool replace(struct orri_page *with)
{
    if (!with)
        return false;
    memcpy(with, page, offsetof(struct orri_page, clocks[n_shown()]));
    if (mremap(with, sizeof *page, sizeof *page, MREMAP_MAYMOVE | MREMAP_FIXED, page) ==
        page)
        return true;
    munmap(with, sizeof *page);
    return false;
}

bool orri_page_detach(void)
{
    if (page_fd < 0)
        return true;
    if (!replace(map_own()))
        return false;
    close(page_fd);
    page_fd = -1;
    return true;
}

bool orri_page_attach(void)
{
    int fd = -1;
    if (page_fd >= 0 || !page)
        return true;
    struct orri_page *shown = map_shown(&fd);
    if (!replace(shown)) {
        if (shown)
            close(fd);
        return false;
    }
    page_fd = fd;
    return true;
}

/* The child's counts are its own.  When that fails, its parent's page must not be touched: nothing is counted then. */
void orri_page_in_child(void)
{
    if (page && !orri_page_detach())
        page = NULL;
}

/* ---- the clocks --------------------------------------------------------------------------- */

static uint32_t bucket_of(uint64_t comm, uint32_t me, uint32_t kind, uint32_t peer)
{
    uint64_t h = comm ^ ((uint64_t)me << 40) ^ ((uint64_t)kind << 32) ^ peer;
    h *= UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(h >> 40) % BUCKETS;
}

static struct orri_clock *
find(uint64_t comm, uint32_t me, uint32_t kind, uint32_t peer, uint32_t *ret_bucket)
{
    for (uint32_t b = bucket_of(comm, me, kind, peer);; b = (b + 1) % BUCKETS) {
        /* pairs with the release in add */
        uint32_t at = atomic_load_explicit(&buckets[b], memory_order_acquire);
        struct orri_clock *clock = at ? &page->clocks[at - 1] : NULL;
        *ret_bucket = b;
        if (!clock || (clock->comm == comm && clock->me == me && clock->kind == kind &&
                       clock->peer == peer))
            return clock;
    }
}

/* Under the lock. */
static struct orri_clock *
add(uint64_t comm, uint32_t me, uint32_t n, uint32_t kind, uint32_t peer)
{
    uint32_t bucket, at = n_shown();
    struct orri_clock *clock = find(comm, me, kind, peer, &bucket);
    if (clock || at == ORRI_CLOCKS_MAX)
        return clock;
    clock = &page->clocks[at];
    clock->comm = comm;
    clock->kind = kind;
    clock->me = me;
    clock->peer = peer;
    clock->n = n;
    orri_core.gate.clocks = page->clocks;
    orri_gate_add_clock(&orri_core.gate);
    /* pairs with the node's look at n, and with the acquire in find */
    atomic_store_explicit(&page->n, at + 1, memory_order_release);
    atomic_store_explicit(&buckets[bucket], at + 1, memory_order_release);
    return clock;
}

struct orri_clock *orri_clock_get(
    uint64_t comm, uint32_t me, uint32_t n, enum orr_clock_kind kind, uint32_t peer)
{
    uint32_t bucket;
    if (!atomic_load_explicit(&orri_core.is_active, memory_order_acquire) || !page)
        return NULL;
    if (kind == ORR_CLOCK_COLLECTIVE)
        peer = 0;
    struct orri_clock *clock = find(comm, me, kind, peer, &bucket);
    if (clock)
        return clock;
    pthread_mutex_lock(&orri_core.lock);
    clock = add(comm, me, n, kind, peer);
    bool is_closed = orri_core.gate.mode != ORRI_GATE_OPEN;
    pthread_mutex_unlock(&orri_core.lock);
    if (is_closed)
        orri_gate_tell_moved();
    if (!clock)
        orri_rank_limit("uses more than 16384 communicators and pairs of ranks",
                        "uses more than 16384 communicators and pairs of ranks");
    return clock;
}

void orri_clock_over(uint64_t comm, uint32_t me)
{
    if (!atomic_load_explicit(&orri_core.is_active, memory_order_acquire) || !page)
        return;
    pthread_mutex_lock(&orri_core.lock);
    for (uint32_t i = 0; i < n_shown(); i++)
        if (page->clocks[i].comm == comm && page->clocks[i].me == me)
            page->clocks[i].is_over = 1;
    pthread_mutex_unlock(&orri_core.lock);
    orri_link_wake();
}
