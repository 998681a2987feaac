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
#include <unistd.h>

/* A rank's place in a meeting. */
struct place {
    int ring[2]; /* owned until taken, else -1 */
    bool has_come, is_done;
};

struct meeting {
    struct meeting *next;
    uint8_t cookie[16];
    uint64_t deadline_ms; /* from the first hello; 0 before */
    int nranks, come, done;
    int segment;         /* owned; -1 until all have come */
    struct place *place; /* owned, nranks; NULL before the first hello */
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

static void meeting_end(struct meeting *m, ncclResult_t result, const char *text)
{
    for (int i = 0; i < ORRI_GUESTS_MAX; i++) {
        struct orri_guest *g = &orri_guests[i];
        if (g->fd < 0 || g->meeting != m)
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
    for (int r = 0; m->place && r < m->nranks; r++)
        for (int side = 0; side < 2; side++)
            if (m->place[r].ring[side] >= 0)
                close(m->place[r].ring[side]);
    if (m->segment >= 0)
        close(m->segment);
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
        if (m->place[r].has_come)
            continue;
        while (last + 1 < m->nranks && !m->place[last + 1].has_come)
            last++;
        at += (size_t)snprintf(text + at, size - at, at ? ", %d" : "%d", r);
        if (last > r)
            at += (size_t)snprintf(text + at, size - at, "-%d", last);
        r = last;
    }
}

/* The rank has its share, or will never take it. */
static void place_done(struct meeting *m, int rank)
{
    struct place *p = &m->place[rank];

    if (p->is_done)
        return;
    p->is_done = true;
    for (int side = 0; side < 2; side++) {
        close(p->ring[side]);
        p->ring[side] = -1;
    }
    if (++m->done == m->nranks)
        meeting_end(m, ncclSuccess, "");
}

static int open_ring(struct meeting *m)
{
    for (int r = 0; r < m->nranks; r++) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
            return -errno;
        m->place[r].ring[1] = pair[0];
        m->place[(r + 1) % m->nranks].ring[0] = pair[1];
    }
    return 0;
}

/* All are here: make what they share. */
static void meeting_complete(struct meeting *m)
{
    char text[128];
    int err = 0;

    m->segment = memfd_create("orrery-nccl", MFD_CLOEXEC);
    if (m->segment < 0 ||
        ftruncate(m->segment, (off_t)orri_segment_bytes(m->nranks)) < 0)
        err = -errno;
    if (!err)
        err = open_ring(m);
    if (err) {
        snprintf(text, sizeof text, "no memory to share: %s", strerror(-err));
        meeting_end(m, ncclSystemError, text);
        return;
    }
    for (int i = 0; i < ORRI_GUESTS_MAX; i++)
        if (orri_guests[i].fd >= 0 && orri_guests[i].meeting == m)
            guest_answer(&orri_guests[i], ncclSuccess, "");
}

static void meeting_start(struct meeting *m, int nranks)
{
    struct place *place = calloc((size_t)nranks, sizeof *place);

    if (!place)
        return;
    for (int r = 0; r < nranks; r++)
        place[r].ring[0] = place[r].ring[1] = -1;
    m->place = place;
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

    if (!m || m->segment >= 0) {
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
    if (m->place[h->rank].has_come) {
        snprintf(text,
                 sizeof text,
                 "rank %d of %d came twice: give each its own number",
                 h->rank,
                 h->nranks);
        refuse(g, ncclInvalidUsage, text);
        return;
    }
    m->place[h->rank].has_come = true;
    g->meeting = m;
    if (++m->come == m->nranks)
        meeting_complete(m);
}

static void guest_takes(struct orri_guest *g)
{
    struct meeting *m = meeting_find(g->hello.cookie);
    struct place *p = m && m->segment >= 0 ? &m->place[g->hello.rank] : NULL;
    union {
        char bytes[CMSG_SPACE(sizeof(int) * ORRI_FDS)];
        struct cmsghdr header;
    } control = {.bytes = {0}};
    char byte = 'S';
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};

    if (p && !p->is_done && g->hello.nranks == m->nranks) {
        int fds[ORRI_FDS] = {m->segment, p->ring[0], p->ring[1]};
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fds);
        memcpy(CMSG_DATA(c), fds, sizeof fds);
        sendmsg(g->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        place_done(m, g->hello.rank);
    }
    guest_drop(g);
}

/* A rank that waited is gone, or has taken its share and hangs up. */
static void guest_left(struct orri_guest *g)
{
    struct meeting *m = g->meeting;
    int rank = g->hello.rank;
    char text[96];

    guest_drop(g);
    if (!m)
        return;
    if (m->segment >= 0) {
        place_done(m, rank);
        return;
    }
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

    if (g->meeting || g->got == sizeof g->hello) { /* nothing more is expected */
        guest_left(g);
        return;
    }
    n = recv(g->fd, (char *)&g->hello + g->got, sizeof g->hello - g->got, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        guest_drop(g);
        return;
    }
    g->got += (size_t)n;
    if (g->got < sizeof g->hello)
        return;
    if (!hello_is_sane(&g->hello))
        guest_drop(g);
    else if (g->is_local)
        guest_takes(g);
    else
        guest_joins(g);
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
                m->segment < 0 ? missing : "none");
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
    m->segment = -1;
    m->next = meetings;
    meetings = m;
    nmeetings++;
    return true;
}
