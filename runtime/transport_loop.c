/* SPDX-License-Identifier: Apache-2.0
 * transport_loop.c - see transport_loop.h.
 *
 * What is on its way is a binary heap ordered by (time, number): the same calls give the same order.  Two small hash tables
 * find members by host and contacts by pair of hosts; a contact is made by the first message that arrives and ends when
 * either side is told so.
 */
#include "transport_loop.h"

#include "memory.h"

#include <pthread.h>

struct member {
    struct orr_transport transport; /* first: the system's */
    struct orr_loop *loop;          /* borrowed: outlives its members */
    struct orr_system *system;      /* borrowed: until it leaves; NULL: away */
    uint64_t host;
    uint32_t starts; /* how often it joined */
    unsigned role;
    struct member *next;
};

struct contact { /* one of them has heard of the other; a < b */
    uint64_t a, b;
    uint32_t starts_a, starts_b;
    struct contact *next;
};

struct item {
    uint64_t due_ms;
    uint64_t number;
    struct member *from;
    struct member *to;
    uint32_t from_starts;
    uint32_t to_starts;
    size_t len;
    uint8_t *data; /* owned; NULL: the notice that `from` is down */
};

enum { BUCKETS = 4096 };

struct orr_loop {
    struct orr_loop_config config;
    pthread_mutex_t lock; /* guards the heap and the tables */
    struct item *heap;    /* owned */
    uint32_t n;
    uint32_t cap;
    uint64_t number;
    struct member *members[BUCKETS];   /* owned */
    struct contact *contacts[BUCKETS]; /* owned */
};

/* ---- heap; lock held ---- */

static bool is_before(const struct item *x, const struct item *y)
{
    return x->due_ms != y->due_ms ? x->due_ms < y->due_ms : x->number < y->number;
}

static enum orr_err push(struct orr_loop *loop, struct item item)
{
    if (loop->n == loop->config.messages_max)
        return ORR_EBUSY;
    if (loop->n == loop->cap) {
        uint32_t cap = loop->cap ? loop->cap * 2 : 64;
        struct item *heap = realloc(loop->heap, cap * sizeof(*heap));
        if (!heap)
            return ORR_ENOMEM;
        loop->heap = heap;
        loop->cap = cap;
    }
    item.number = ++loop->number;
    uint32_t at = loop->n++;
    for (; at > 0 && is_before(&item, &loop->heap[(at - 1) / 2]); at = (at - 1) / 2)
        loop->heap[at] = loop->heap[(at - 1) / 2];
    loop->heap[at] = item;
    return ORR_OK;
}

static struct item pop(struct orr_loop *loop)
{
    struct item first = loop->heap[0];
    struct item last = loop->heap[--loop->n];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= loop->n)
            break;
        if (child + 1 < loop->n &&
            is_before(&loop->heap[child + 1], &loop->heap[child]))
            child++;
        if (!is_before(&loop->heap[child], &last))
            break;
        loop->heap[at] = loop->heap[child];
        at = child;
    }
    if (loop->n)
        loop->heap[at] = last;
    return first;
}

/* ---- members and contacts; lock held ---- */

static struct member *find_member(struct orr_loop *loop, uint64_t host)
{
    struct member *member = loop->members[host % BUCKETS];
    while (member && member->host != host)
        member = member->next;
    return member;
}

static struct contact **find_contact(struct orr_loop *loop, uint64_t a, uint64_t b)
{
    struct contact **at = &loop->contacts[(a * 31 ^ b) % BUCKETS];
    while (*at && ((*at)->a != a || (*at)->b != b))
        at = &(*at)->next;
    return at;
}

/* Note that the two are in contact; true when they were not, or not in these lives. */
static bool touch(struct orr_loop *loop, const struct member *x, const struct member *y)
{
    const struct member *a = x->host < y->host ? x : y;
    const struct member *b = a == x ? y : x;
    struct contact **at = find_contact(loop, a->host, b->host);
    struct contact *contact = *at;
    if (contact && contact->starts_a == a->starts && contact->starts_b == b->starts)
        return false;
    if (!contact && !(contact = *at = orri_zalloc(sizeof(*contact))))
        return true; /* no memory to remember it: peer_up again next time */
    contact->a = a->host;
    contact->b = b->host;
    contact->starts_a = a->starts;
    contact->starts_b = b->starts;
    return true;
}

static uint64_t now_of(const struct orr_loop *loop)
{
    return loop->config.now_ms ? loop->config.now_ms(loop->config.arg) : 0;
}

/* `to` will notice that `from` is down. */
static void notify(struct orr_loop *loop, struct member *from, struct member *to)
{
    struct item item = {.due_ms = now_of(loop) + loop->config.detect_ms,
                        .from = from,
                        .to = to,
                        .from_starts = from->starts,
                        .to_starts = to->starts};
    enum orr_err err = push(loop, item);
    ORR_ASSERT(err == ORR_OK || err == ORR_EBUSY || err == ORR_ENOMEM);
}

static enum orr_err
queue_copy(struct orr_loop *loop, struct item item, const uint8_t *data, size_t len)
{
    item.data = orri_alloc(len ? len : 1);
    if (!item.data)
        return ORR_ENOMEM;
    memcpy(item.data, data, len);
    item.len = len;
    enum orr_err err = push(loop, item);
    if (err != ORR_OK)
        free(item.data);
    return err;
}

static enum orr_err loop_send(struct orr_transport *self,
                              uint64_t peer_host,
                              enum orr_lane lane,
                              const uint8_t *data,
                              size_t len)
{
    (void)lane;
    struct member *from = (struct member *)self;
    struct orr_loop *loop = from->loop;
    enum orr_err err = ORR_EUNREACH;
    pthread_mutex_lock(&loop->lock);
    struct member *to = find_member(loop, peer_host);
    if (to && !to->system) {
        notify(loop, to, from); /* as a dial that nobody answers */
        err = ORR_OK;
    } else if (to) {
        uint64_t due[ORR_LOOP_COPIES] = {now_of(loop)};
        unsigned copies = 1;
        if (loop->config.policy)
            copies = loop->config.policy(loop->config.arg, from->host, peer_host, due);
        struct item item = {.from = from,
                            .to = to,
                            .from_starts = from->starts,
                            .to_starts = to->starts};
        err = ORR_OK;
        for (unsigned i = 0; i < copies && err == ORR_OK; i++) {
            item.due_ms = due[i];
            err = queue_copy(loop, item, data, len);
        }
    }
    pthread_mutex_unlock(&loop->lock);
    return err;
}

static const struct orr_transport_ops loop_ops = {.send = loop_send};

enum orr_err orr_loop_new(const struct orr_loop_config *config,
                          struct orr_loop **ret_loop)
{
    struct orr_loop *loop = orri_zalloc(sizeof(*loop));
    if (!loop)
        return ORR_ENOMEM;
    loop->config = *config;
    if (!loop->config.messages_max)
        loop->config.messages_max = 1u << 20;
    pthread_mutex_init(&loop->lock, NULL);
    *ret_loop = loop;
    return ORR_OK;
}

void orr_loop_free(struct orr_loop *loop)
{
    if (!loop)
        return;
    while (loop->n)
        free(loop->heap[--loop->n].data);
    for (unsigned i = 0; i < BUCKETS; i++) {
        while (loop->members[i]) {
            struct member *member = loop->members[i];
            loop->members[i] = member->next;
            free(member);
        }
        while (loop->contacts[i]) {
            struct contact *contact = loop->contacts[i];
            loop->contacts[i] = contact->next;
            free(contact);
        }
    }
    free(loop->heap);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

enum orr_err
orr_loop_join(struct orr_loop *loop, struct orr_system *system, unsigned role)
{
    uint64_t host = orr_system_host(system);
    enum orr_err err = ORR_OK;
    pthread_mutex_lock(&loop->lock);
    struct member *member = find_member(loop, host);
    if (member && member->system) {
        err = ORR_EEXIST;
    } else if (!member && !(member = orri_zalloc(sizeof(*member)))) {
        err = ORR_ENOMEM;
    } else {
        if (!member->loop) {
            member->next = loop->members[host % BUCKETS];
            loop->members[host % BUCKETS] = member;
        }
        member->transport.ops = &loop_ops;
        member->loop = loop;
        member->system = system;
        member->host = host;
        member->role = role;
        member->starts++;
        orr_system_set_transport(system, &member->transport);
    }
    pthread_mutex_unlock(&loop->lock);
    return err;
}

/* End a contact: each side that is there will notice. */
static void end_contact(struct orr_loop *loop, struct contact **at)
{
    struct contact *contact = *at;
    *at = contact->next;
    struct member *a = find_member(loop, contact->a);
    struct member *b = find_member(loop, contact->b);
    if (a->system)
        notify(loop, b, a);
    if (b->system)
        notify(loop, a, b);
    free(contact);
}

void orr_loop_leave(struct orr_loop *loop, uint64_t host)
{
    pthread_mutex_lock(&loop->lock);
    struct member *member = find_member(loop, host);
    if (member && member->system) {
        member->system = NULL;
        for (unsigned i = 0; i < BUCKETS; i++)
            for (struct contact **at = &loop->contacts[i]; *at;) {
                if ((*at)->a == host || (*at)->b == host)
                    end_contact(loop, at);
                else
                    at = &(*at)->next;
            }
    }
    pthread_mutex_unlock(&loop->lock);
}

void orr_loop_break(struct orr_loop *loop, uint64_t a, uint64_t b)
{
    pthread_mutex_lock(&loop->lock);
    struct contact **at = find_contact(loop, a < b ? a : b, a < b ? b : a);
    if (*at)
        end_contact(loop, at);
    pthread_mutex_unlock(&loop->lock);
}

bool orr_loop_step(struct orr_loop *loop, uint64_t *ret_host)
{
    pthread_mutex_lock(&loop->lock);
    if (loop->n == 0 || loop->heap[0].due_ms > now_of(loop)) {
        pthread_mutex_unlock(&loop->lock);
        return false;
    }
    struct item item = pop(loop);
    struct member *to = item.to;
    struct orr_system *system = to->starts == item.to_starts ? to->system : NULL;
    bool is_new = system && item.data && touch(loop, item.from, to);
    pthread_mutex_unlock(&loop->lock);
    if (ret_host)
        *ret_host = to->host;
    if (system && item.data) {
        if (is_new)
            orr_system_peer_up(system, item.from->host, item.from_starts);
        (void)orr_system_receive(
            system, item.from->host, item.from->role, item.data, item.len);
    } else if (system) {
        orr_system_peer_down(system, item.from->host);
    }
    free(item.data);
    return true;
}

uint64_t orr_loop_next_due_ms(const struct orr_loop *loop)
{
    return loop->n ? loop->heap[0].due_ms : UINT64_MAX;
}
