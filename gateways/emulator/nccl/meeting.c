/* SPDX-License-Identifier: Apache-2.0
 * meeting.c - who has come to which meeting, and what they are told (meeting.h).
 *
 * The tables are bounded: guests by their array, with a short deadline until they have
 * said hello; invitations by dropping the oldest that nobody has answered.
 */
#include "meeting.h"
#include "segment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

struct meeting {
    struct meeting *next;
    uint8_t cookie[16];
    uint64_t deadline_ms; /* from the first hello; 0 before */
    int nranks, come;
    struct orri_guest *
        *place; /* owned, nranks: who has come; NULL before the first hello */
};

struct orri_guest orri_guests[ORRI_GUESTS_MAX];
static struct meeting *meetings; /* newest first */
static int nmeetings;

static void guest_drop(struct orri_guest *g)
{
    close(g->fd);
    g->fd = -1;
    g->meeting = NULL;
}

static void guest_answer(struct orri_guest *g, ncclResult_t result, const char *text)
{
    struct orri_answer a = {.magic = ORRI_HELLO_MAGIC, .result = (int32_t)result};

    snprintf(a.why.text, sizeof a.why.text, "%s", text);
    send(g->fd, &a, sizeof a, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static bool is_of_this_process(const struct orri_guest *g)
{
    struct ucred peer;
    socklen_t len = sizeof peer;

    return getsockopt(g->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
           peer.pid == getpid();
}

/* This process' own rank comes last: what it hears may be its end, and then nobody would tell the others. */
static void meeting_end(struct meeting *m, ncclResult_t result, const char *text)
{
    for (int i = 0; i < 2 * ORRI_GUESTS_MAX; i++) {
        struct orri_guest *g = &orri_guests[i % ORRI_GUESTS_MAX];
        if (g->fd < 0 || g->meeting != m ||
            (i < ORRI_GUESTS_MAX && is_of_this_process(g)))
            continue;
        if (result != ncclSuccess)
            guest_answer(g, result, text);
        guest_drop(g);
    }
    for (struct meeting **at = &meetings; *at; at = &(*at)->next) {
        if (*at == m) {
            *at = m->next;
            nmeetings--;
            break;
        }
    }
    free(m->place);
    free(m);
}

static struct meeting *meeting_find(const uint8_t cookie[16])
{
    for (struct meeting *m = meetings; m; m = m->next)
        if (memcmp(m->cookie, cookie, 16) == 0)
            return m;
    return NULL;
}

/* "1, 5-7": the ranks that have not come. */
static void missing_ranks(const struct meeting *m, char *text, size_t size)
{
    size_t at = 0;

    text[0] = '\0';
    for (int r = 0; r < m->nranks && at + 24 < size; r++) {
        int last = r;
        if (m->place[r])
            continue;
        while (last + 1 < m->nranks && !m->place[last + 1])
            last++;
        at += (size_t)snprintf(text + at, size - at, at ? ", %d" : "%d", r);
        if (last > r)
            at += (size_t)snprintf(text + at, size - at, "-%d", last);
        r = last;
    }
}

/* The answer that all wait for, and what they share. */
static void guest_share(struct orri_guest *g, const int fds[ORRI_FDS])
{
    struct orri_answer a = {.magic = ORRI_HELLO_MAGIC, .result = ncclSuccess};
    union {
        char bytes[CMSG_SPACE(sizeof(int) * ORRI_FDS)];
        struct cmsghdr header;
    } control = {.bytes = {0}};
    struct iovec iov = {.iov_base = &a, .iov_len = sizeof a};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * ORRI_FDS);
    memcpy(CMSG_DATA(c), fds, sizeof(int) * ORRI_FDS);
    sendmsg(g->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Fills ring[2r], ring[2r + 1]: the ends of rank r. On error those made are there, the others -1. */
static int open_ring(int nranks, int *ring)
{
    for (int r = 0; r < nranks; r++) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
            return -errno;
        ring[2 * r + 1] = pair[0];
        ring[2 * ((r + 1) % nranks)] = pair[1];
    }
    return 0;
}

static bool may_share(void)
{
    const char *allowed = getenv("ORRERY_EMULATOR_NCCL_SHARED_DEVICES");

    return allowed && strcmp(allowed, "1") == 0;
}

/* In the real library's words. */
static bool has_duplicate(const struct meeting *m, char *text, size_t size)
{
    static const uint8_t unknown[16];

    for (int a = 0; a < m->nranks && !may_share(); a++)
        for (int b = a + 1; b < m->nranks; b++) {
            const uint8_t *device = m->place[a]->hello.device;
            if (memcmp(device, unknown, 16) == 0 ||
                memcmp(device, m->place[b]->hello.device, 16) != 0)
                continue;
            snprintf(text,
                     size,
                     "Duplicate GPU detected : rank %d and rank %d both on CUDA device "
                     "%02x%02x%02x%02x",
                     a,
                     b,
                     device[0],
                     device[1],
                     device[2],
                     device[3]);
            return true;
        }
    return false;
}

/* All are here: make what they share, and give it to them. Whoever has died meanwhile is noticed by its ring ends. */
static void meeting_complete(struct meeting *m)
{
    int ring[2 * ORRI_RANKS_MAX], segment = memfd_create("orrery-nccl", MFD_CLOEXEC);
    char text[128] = "";
    int err = 0;

    if (has_duplicate(m, text, sizeof text)) {
        if (segment >= 0)
            close(segment);
        meeting_end(m, ncclInvalidUsage, text);
        return;
    }
    memset(ring, -1, sizeof ring);
    if (segment < 0 || ftruncate(segment, (off_t)orri_segment_bytes(m->nranks)) < 0)
        err = -errno;
    if (!err)
        err = open_ring(m->nranks, ring);
    for (int r = 0; r < m->nranks && !err; r++)
        guest_share(m->place[r],
                    (const int[ORRI_FDS]){segment, ring[2 * r], ring[2 * r + 1]});
    if (err)
        snprintf(text, sizeof text, "no memory to share: %s", strerror(-err));
    for (int i = 0; i < 2 * m->nranks; i++)
        if (ring[i] >= 0)
            close(ring[i]);
    if (segment >= 0)
        close(segment);
    meeting_end(m, err ? ncclSystemError : ncclSuccess, text);
}

static void meeting_start(struct meeting *m, int nranks)
{
    m->place = calloc((size_t)nranks, sizeof(*m->place));
    if (!m->place)
        return;
    m->nranks = nranks;
    m->deadline_ms = orri_now_ms() + orri_timeout_ms();
}

static void refuse(struct orri_guest *g, ncclResult_t result, const char *text)
{
    guest_answer(g, result, text);
    guest_drop(g);
}

static void guest_joins(struct orri_guest *g)
{
    const struct orri_hello *h = &g->hello;
    struct meeting *m = meeting_find(h->cookie);
    char text[160];

    if (!m) {
        refuse(g,
               ncclInvalidUsage,
               "the unique id is used up: make one for each communicator");
        return;
    }
    if (!m->place)
        meeting_start(m, h->nranks);
    if (!m->place) {
        refuse(g, ncclSystemError, "out of memory");
        return;
    }
    if (m->nranks != h->nranks) {
        snprintf(text,
                 sizeof text,
                 "rank %d says that there are %d ranks, others say %d",
                 h->rank,
                 h->nranks,
                 m->nranks);
        refuse(g, ncclInvalidArgument, text);
        return;
    }
    if (m->place[h->rank]) {
        snprintf(text,
                 sizeof text,
                 "rank %d of %d came twice: give each its own number",
                 h->rank,
                 h->nranks);
        refuse(g, ncclInvalidUsage, text);
        return;
    }
    m->place[h->rank] = g;
    g->meeting = m;
    if (++m->come == m->nranks)
        meeting_complete(m);
}

/* A rank that waited is gone. */
static void guest_left(struct orri_guest *g)
{
    struct meeting *m = g->meeting;
    int rank = g->hello.rank;
    char text[96];

    guest_drop(g);
    if (!m)
        return;
    snprintf(text, sizeof text, "rank %d gave up or died during the rendezvous", rank);
    meeting_end(m, ncclRemoteError, text);
}

static bool hello_is_sane(const struct orri_hello *h)
{
    return h->magic == ORRI_HELLO_MAGIC && h->version == ORRI_HELLO_VERSION &&
           h->nranks > 0 && h->nranks <= ORRI_RANKS_MAX && h->rank >= 0 &&
           h->rank < h->nranks;
}

void orri_guest_read(struct orri_guest *g)
{
    ssize_t n;

    if (g->meeting) { /* nothing more is expected */
        guest_left(g);
        return;
    }
    n = recv(g->fd, &g->hello, sizeof g->hello, MSG_DONTWAIT | MSG_TRUNC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n != (ssize_t)sizeof g->hello || !hello_is_sane(&g->hello))
        guest_drop(g);
    else
        guest_joins(g);
}

void orri_guests_drop(void)
{
    for (int i = 0; i < ORRI_GUESTS_MAX; i++)
        if (orri_guests[i].fd >= 0)
            guest_drop(&orri_guests[i]);
}

int orri_meetings_count(void)
{
    return nmeetings;
}

struct orri_guest *orri_guest_free(void)
{
    for (int i = 0; i < ORRI_GUESTS_MAX; i++)
        if (orri_guests[i].fd < 0)
            return &orri_guests[i];
    return NULL;
}

int orri_meetings_expire(void)
{
    uint64_t now = orri_now_ms(), next = UINT64_MAX;
    char missing[96], text[200];

    for (struct meeting *m = meetings, *after; m; m = after) {
        after = m->next;
        if (m->deadline_ms && m->deadline_ms <= now) {
            missing_ranks(m, missing, sizeof missing);
            snprintf(
                text,
                sizeof text,
                "after %u ms these of %d ranks have not called ncclCommInitRank: %s",
                orri_timeout_ms(),
                m->nranks,
                missing);
            meeting_end(m, ncclSystemError, text);
        } else if (m->deadline_ms && m->deadline_ms < next) {
            next = m->deadline_ms;
        }
    }
    for (int i = 0; i < ORRI_GUESTS_MAX; i++) {
        struct orri_guest *g = &orri_guests[i];
        if (g->fd < 0 || g->meeting)
            continue;
        if (g->hello_by_ms <= now)
            guest_drop(g);
        else if (g->hello_by_ms < next)
            next = g->hello_by_ms;
    }
    return next == UINT64_MAX ? -1 : (int)(next - now);
}

void orri_meetings_init(void)
{
    meetings = NULL;
    nmeetings = 0;
    for (int i = 0; i < ORRI_GUESTS_MAX; i++)
        orri_guests[i] = (struct orri_guest){.fd = -1};
}

bool orri_meeting_add(const uint8_t cookie[16])
{
    struct meeting *m = calloc(1, sizeof *m), *oldest = NULL;

    if (!m)
        return false;
    for (struct meeting *i = meetings; i; i = i->next)
        if (!i->place)
            oldest = i;
    if (nmeetings >= ORRI_MEETINGS_MAX && oldest)
        meeting_end(oldest, ncclSuccess, "");
    memcpy(m->cookie, cookie, sizeof m->cookie);
    m->next = meetings;
    meetings = m;
    nmeetings++;
    return true;
}
