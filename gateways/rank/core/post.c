/* SPDX-License-Identifier: Apache-2.0
 * post.c - what processes of a job tell each other between stops (part.h): by way of the node and the job's actor, which keeps it.
 *
 * The program's threads put what they tell, and what they wait for, into tables here; the link's thread sends both.  It asks again, with
 * growing pauses, until all that is awaited has come, and with each of the first askings tells again what was told last: a message
 * may be lost with a host.
 */
#include "core.h"

#include <time.h>

#include "link.h"

enum {
    TOLD_MAX = 256, /* the newest */
    TELLS = 3,      /* how often each is told */
    ASK_MIN_MS = 2,
    ASK_MAX_MS = 500,
    TELL_AGAIN_MS = 1000,
    SEND_MS = 5000,
};

struct told {
    uint64_t name;
    uint8_t data[ORRI_POST_BYTES];
    uint32_t times;
};

struct awaited {
    uint64_t name;
    uint8_t data[ORRI_POST_BYTES];
    bool is_used, is_here;
};

static struct {
    pthread_mutex_t lock; /* guards all */
    pthread_cond_t came;
    struct told told[TOLD_MAX]; /* a ring */
    uint32_t n_told;            /* all so far */
    struct awaited awaited[ORRI_POSTS_AWAITED_MAX];
    uint32_t n_awaited; /* those that are used and not here */
    bool is_fresh;      /* something new is to be said at once */
    uint64_t ask_ms, pause_ms, tell_ms;
} self = {.lock = PTHREAD_MUTEX_INITIALIZER};
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_clock(void)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&self.came, &attr);
    pthread_condattr_destroy(&attr);
}

static struct awaited *find_awaited(uint64_t name)
{
    for (uint32_t i = 0; i < ORRI_POSTS_AWAITED_MAX; i++)
        if (self.awaited[i].is_used && self.awaited[i].name == name)
            return &self.awaited[i];
    return NULL;
}

static void arrive(uint64_t name, const uint8_t *data)
{
    struct awaited *a = find_awaited(name);
    if (!a || a->is_here)
        return;
    memcpy(a->data, data, sizeof a->data);
    a->is_here = true;
    self.n_awaited--;
    pthread_cond_broadcast(&self.came);
}

bool orri_post(uint64_t name, const uint8_t *data)
{
    if (!atomic_load(&orri_core.is_active))
        return false;
    pthread_once(&once, make_clock);
    pthread_mutex_lock(&self.lock);
    struct told *t = &self.told[self.n_told++ % TOLD_MAX];
    *t = (struct told){.name = name};
    memcpy(t->data, data, sizeof t->data);
    arrive(name, data);
    self.is_fresh = true;
    pthread_mutex_unlock(&self.lock);
    orri_link_wake();
    return true;
}

/* What this process itself has told needs no asking. */
static const struct told *find_told(uint64_t name)
{
    uint32_t n = self.n_told < TOLD_MAX ? self.n_told : TOLD_MAX;
    for (uint32_t i = 0; i < n; i++)
        if (self.told[i].name == name)
            return &self.told[i];
    return NULL;
}

static struct awaited *add_awaited(uint64_t name)
{
    const struct told *own = find_told(name);
    for (uint32_t i = 0; i < ORRI_POSTS_AWAITED_MAX; i++) {
        struct awaited *a = &self.awaited[i];
        if (a->is_used)
            continue;
        *a = (struct awaited){.name = name, .is_used = true};
        self.n_awaited++;
        if (own)
            arrive(name, own->data);
        return a;
    }
    return NULL;
}

static bool are_here(struct awaited *const *list, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!list[i]->is_here)
            return false;
    return true;
}

static bool await_all(struct awaited *const *list, uint32_t n, uint64_t deadline_ms)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ms / 1000),
                             .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    int rc = 0;
    while (!are_here(list, n) && rc == 0)
        rc = pthread_cond_timedwait(&self.came, &self.lock, &until);
    return are_here(list, n);
}

bool orri_await_posts(const uint64_t *names,
                      uint32_t n,
                      uint8_t (*ret_data)[ORRI_POST_BYTES],
                      uint64_t deadline_ms)
{
    struct awaited **list = calloc(n ? n : 1, sizeof(struct awaited *));
    uint32_t added = 0;
    bool is_done = false;
    if (!list || !atomic_load(&orri_core.is_active)) {
        free(list);
        return false;
    }
    pthread_once(&once, make_clock);
    pthread_mutex_lock(&self.lock);
    while (added < n && (list[added] = add_awaited(names[added])))
        added++;
    self.is_fresh = true;
    self.pause_ms = ASK_MIN_MS;
    pthread_mutex_unlock(&self.lock);
    orri_link_wake();
    pthread_mutex_lock(&self.lock);
    is_done = added == n && await_all(list, n, deadline_ms);
    for (uint32_t i = 0; i < added; i++) {
        if (is_done)
            memcpy(ret_data[i], list[i]->data, sizeof ret_data[i]);
        self.n_awaited -= !list[i]->is_here;
        list[i]->is_used = false;
    }
    pthread_mutex_unlock(&self.lock);
    free(list);
    return is_done;
}

/* ---- the link's thread -------------------------------------------------------------------- */

static bool send_list(struct orr_rec_comm_id *list, uint32_t *n)
{
    struct orr_msg_rank_posts msg = {.posts = {list, *n}};
    bool ok =
        *n == 0 ||
        orri_link_send(orr_msg_desc_rank_posts(), &msg, -1, orri_mono_ms() + SEND_MS);
    *n = 0;
    return ok;
}

/* One list of what is told and what is asked for, in as many packets as it takes.  The data stay where they are meanwhile: a name is
 * overwritten only after TOLD_MAX newer ones. */
static void say_all(bool tells, bool asks)
{
    static struct orr_rec_comm_id list[ORRI_PACKET_IDS];
    uint32_t n = 0, kept = self.n_told < TOLD_MAX ? self.n_told : TOLD_MAX;
    for (uint32_t i = 0; tells && i < kept; i++) {
        struct told *t = &self.told[i];
        if (t->times == TELLS)
            continue;
        t->times++;
        list[n++] =
            (struct orr_rec_comm_id){.comm = t->name, .id = {t->data, sizeof t->data}};
        if (n == ORRI_PACKET_IDS && !send_list(list, &n))
            return;
    }
    for (uint32_t i = 0; asks && i < ORRI_POSTS_AWAITED_MAX; i++) {
        if (!self.awaited[i].is_used || self.awaited[i].is_here)
            continue;
        list[n++] = (struct orr_rec_comm_id){.comm = self.awaited[i].name};
        if (n == ORRI_PACKET_IDS && !send_list(list, &n))
            return;
    }
    send_list(list, &n);
}

static bool has_to_tell(void)
{
    uint32_t kept = self.n_told < TOLD_MAX ? self.n_told : TOLD_MAX;
    for (uint32_t i = 0; i < kept; i++)
        if (self.told[i].times < TELLS)
            return true;
    return false;
}

uint64_t orri_posts_say(uint64_t now_ms)
{
    uint64_t due_ms = UINT64_MAX;
    pthread_mutex_lock(&self.lock);
    bool tells = has_to_tell() && (self.is_fresh || now_ms >= self.tell_ms);
    bool asks = self.n_awaited > 0 && (self.is_fresh || now_ms >= self.ask_ms);
    self.is_fresh = false;
    if (tells)
        self.tell_ms = now_ms + TELL_AGAIN_MS;
    if (asks) {
        self.ask_ms = now_ms + self.pause_ms;
        self.pause_ms = self.pause_ms * 2 < ASK_MAX_MS ? self.pause_ms * 2 : ASK_MAX_MS;
    }
    if (tells || asks)
        say_all(tells, asks);
    if (has_to_tell())
        due_ms = self.tell_ms;
    if (self.n_awaited > 0 && self.ask_ms < due_ms)
        due_ms = self.ask_ms;
    pthread_mutex_unlock(&self.lock);
    return due_ms;
}

void orri_posts_take(const struct orr_msg_rank_posts *msg)
{
    pthread_mutex_lock(&self.lock);
    for (uint32_t i = 0; i < msg->posts.n; i++)
        if (msg->posts.at[i].id.len == ORRI_POST_BYTES)
            arrive(msg->posts.at[i].comm, msg->posts.at[i].id.ptr);
    pthread_mutex_unlock(&self.lock);
}
