/* SPDX-License-Identifier: Apache-2.0
 * ledger_bed.c - ledgers to test (ledger_bed.h).
 */
#include "ledger_bed.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ftw.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

uint64_t bed_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- life ------------------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *ftw)
{
    (void)s, (void)flag, (void)ftw;
    return remove(path);
}

/* Free when asked; nobody else of this test takes it, since all are bound at once. */
static void pick_addresses(struct bed *bed)
{
    int fds[BED_MAX];
    for (unsigned i = 0; i < BED_MAX; i++) {
        struct sockaddr_in a = {.sin_family = AF_INET,
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t len = sizeof a;
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(fds[i], (struct sockaddr *)&a, sizeof a), 0);
        assert_int_equal(getsockname(fds[i], (struct sockaddr *)&a, &len), 0);
        snprintf(bed->hosts[i].address,
                 sizeof bed->hosts[i].address,
                 "127.0.0.1:%u",
                 ntohs(a.sin_port));
    }
    for (unsigned i = 0; i < BED_MAX; i++)
        close(fds[i]);
}

void bed_init(struct bed *bed, enum bed_kind kind)
{
    pthread_condattr_t attr;
    const char *tmp = getenv("TMPDIR");
    *bed = (struct bed){.kind = kind,
                        .n = kind == BED_RAFT3 ? 3 : 1,
                        .election_ms = 250,
                        .heartbeat_ms = 40};
    pthread_mutex_init(&bed->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&bed->told, &attr);
    pthread_condattr_destroy(&attr);
    snprintf(
        bed->root, sizeof bed->root, "%s/orrery-ledger.XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(bed->root));
    pick_addresses(bed);
    for (unsigned i = 0; i < BED_MAX; i++) {
        struct bed_host *h = &bed->hosts[i];
        snprintf(h->name, sizeof h->name, "h%u", i + 1);
        snprintf(h->endpoint, sizeof h->endpoint, "tcp://127.0.0.1:%u", 7000 + i);
        snprintf(h->dir, sizeof h->dir, "%s/h%u", bed->root, i + 1);
    }
}

void bed_fini(struct bed *bed)
{
    for (unsigned i = 0; i < BED_MAX; i++)
        bed_close_host(bed, i);
    nftw(bed->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    pthread_cond_destroy(&bed->told);
    pthread_mutex_destroy(&bed->lock);
}

struct sink_arg { /* of bed i; static, since a sink outlives its attach call */
    struct bed *bed;
    struct bed_host *host;
};
static struct sink_arg sink_args[BED_MAX];

static void on_news(void *arg, const struct orr_ledger_news *news)
{
    const struct sink_arg *a = arg;
    pthread_mutex_lock(&a->bed->lock);
    a->host->news = *news;
    if (news->ticket > a->host->told)
        a->host->told = news->ticket;
    pthread_cond_broadcast(&a->bed->told);
    pthread_mutex_unlock(&a->bed->lock);
}

enum orr_err
bed_open_host(struct bed *bed, unsigned i, bool is_joining, struct orr_error *err)
{
    struct bed_host *h = &bed->hosts[i];
    struct orr_ledger_raft_voter voters[BED_MAX];
    enum orr_err code;
    for (unsigned v = 0; v < BED_MAX; v++)
        voters[v] = (struct orr_ledger_raft_voter){
            bed->hosts[v].name, bed->hosts[v].address, bed->hosts[v].endpoint};
    if (bed->n == 1 && !is_joining && !bed->has_addresses)
        voters[0].address = "";
    const struct orr_ledger_raft_config config = {.dir = h->dir,
                                                  .self = voters[i],
                                                  .voters = voters,
                                                  .n_voters = is_joining ? 0 : bed->n,
                                                  .is_joining = is_joining,
                                                  .election_ms = bed->election_ms,
                                                  .heartbeat_ms = bed->heartbeat_ms,
                                                  .snapshot_log_bytes =
                                                      bed->snapshot_log_bytes};
    if (bed->kind == BED_MEM)
        code = orr_ledger_mem_open(h->name, &h->ledger);
    else
        code = orr_ledger_raft_open(&config, &h->ledger, err);
    if (code != ORR_OK)
        return code;
    memset(&h->news, 0, sizeof h->news);
    h->term = h->ticket = h->told = 0;
    sink_args[i] = (struct sink_arg){bed, h};
    h->ledger->ops->attach(
        h->ledger, &(struct orr_ledger_sink){.news = on_news, .arg = &sink_args[i]});
    return ORR_OK;
}

void bed_open(struct bed *bed)
{
    struct orr_error err;
    for (unsigned i = 0; i < bed->n; i++)
        if (!bed->hosts[i].ledger && bed_open_host(bed, i, false, &err) != ORR_OK)
            fail_msg("%s", err.text);
    (void)bed_leader(bed);
}

void bed_close_host(struct bed *bed, unsigned i)
{
    struct bed_host *h = &bed->hosts[i];
    if (!h->ledger)
        return;
    h->ledger->ops->attach(h->ledger, NULL);
    h->ledger->ops->close(h->ledger);
    h->ledger = NULL;
    memset(&h->news, 0, sizeof h->news);
}

/* ---- waiting ---------------------------------------------------------------------------------- */

/* Under the lock.  False when the deadline has passed. */
static bool wait_told(struct bed *bed, uint64_t deadline_ms)
{
    const struct timespec t = {.tv_sec = (time_t)(deadline_ms / 1000),
                               .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    return pthread_cond_timedwait(&bed->told, &bed->lock, &t) != ETIMEDOUT;
}

unsigned bed_leader_above(struct bed *bed, uint64_t term)
{
    const uint64_t deadline = bed_now_ms() + WAIT_MS;
    bool in_time = true;
    pthread_mutex_lock(&bed->lock);
    while (in_time) {
        unsigned best = BED_MAX;
        for (unsigned i = 0; i < BED_MAX; i++)
            if (bed->hosts[i].ledger && bed->hosts[i].news.is_leading &&
                bed->hosts[i].news.term > term &&
                (best == BED_MAX ||
                 bed->hosts[i].news.term > bed->hosts[best].news.term))
                best = i;
        if (best < BED_MAX) {
            pthread_mutex_unlock(&bed->lock);
            return best;
        }
        in_time = wait_told(bed, deadline);
    }
    pthread_mutex_unlock(&bed->lock);
    fail_msg("nobody leads after %d ms", WAIT_MS);
    return 0;
}

unsigned bed_leader(struct bed *bed)
{
    return bed_leader_above(bed, 0);
}

struct orr_ledger_news bed_news(struct bed *bed, unsigned i)
{
    pthread_mutex_lock(&bed->lock);
    const struct orr_ledger_news news = bed->hosts[i].news;
    pthread_mutex_unlock(&bed->lock);
    return news;
}

bool bed_wait(struct bed *bed, unsigned i, bed_is_f is, uint64_t arg)
{
    const uint64_t deadline = bed_now_ms() + WAIT_MS;
    bool in_time = true;
    pthread_mutex_lock(&bed->lock);
    while (in_time && !is(&bed->hosts[i].news, arg))
        in_time = wait_told(bed, deadline);
    pthread_mutex_unlock(&bed->lock);
    return in_time;
}

bool bed_wait_all(struct bed *bed, bool (*is)(const struct bed *bed))
{
    const uint64_t deadline = bed_now_ms() + WAIT_MS;
    bool in_time = true;
    pthread_mutex_lock(&bed->lock);
    while (in_time && !is(bed))
        in_time = wait_told(bed, deadline);
    pthread_mutex_unlock(&bed->lock);
    return in_time;
}

static bool has_ticket(const struct orr_ledger_news *news, uint64_t ticket)
{
    return news->ticket >= ticket;
}

bool bed_wait_ticket(struct bed *bed, unsigned i, uint64_t ticket)
{
    return bed_wait(bed, i, has_ticket, ticket);
}

/* ---- operation -------------------------------------------------------------------------------- */

uint64_t bed_put_all(struct bed *bed,
                     unsigned i,
                     const struct orr_rec_ledger_record *records,
                     uint32_t n)
{
    struct bed_host *h = &bed->hosts[i];
    const uint64_t term = bed_news(bed, i).term;
    if (term != h->term)
        h->ticket = 0;
    h->term = term;
    h->ticket++;
    const struct orr_msg_ledger_append msg = {
        .term = h->term, .ticket = h->ticket, .records = {records, n}};
    const size_t cap = orr_msg_encode_bound(orr_msg_desc_ledger_append(), &msg);
    uint8_t *entry = malloc(cap);
    size_t len;
    assert_non_null(entry);
    assert_int_equal(
        orr_msg_encode(orr_msg_desc_ledger_append(), &msg, entry, cap, &len), ORR_OK);
    h->ledger->ops->append(h->ledger, h->term, h->ticket, entry, len);
    free(entry);
    return h->ticket;
}

uint64_t bed_put(struct bed *bed, unsigned i, const char *key, const char *value)
{
    const struct orr_rec_ledger_record record = {
        .key = orr_str(key),
        .value = {(const uint8_t *)value, value ? (uint32_t)strlen(value) : 0},
        .is_gone = value == NULL};
    return bed_put_all(bed, i, &record, 1);
}

void bed_put_wait(struct bed *bed, unsigned i, const char *key, const char *value)
{
    const uint64_t ticket = bed_put(bed, i, key, value);
    if (!bed_wait_ticket(bed, i, ticket))
        fail_msg(
            "%s: ticket %llu is not durable in time", key, (unsigned long long)ticket);
}

struct search {
    const char *key;
    char value[4096];
    bool is_found;
    uint64_t last, committed;
};

static void search_page(void *arg, const struct orr_msg_ledger_page *page)
{
    struct search *s = arg;
    if (page->is_reset)
        s->is_found = false;
    for (uint32_t i = 0; i < page->records.n; i++) {
        const struct orr_rec_ledger_record *r = &page->records.at[i];
        if (!orr_str_eq(r->key, orr_str(s->key)))
            continue;
        s->is_found = !r->is_gone;
        orr_str_copy(s->value,
                     sizeof s->value,
                     (struct orr_str){(const char *)r->value.ptr, r->value.len});
    }
    s->last = page->last;
    s->committed = page->committed;
}

const char *bed_get(struct bed *bed, unsigned i, const char *key)
{
    static struct search s;
    struct orr_ledger *ledger = bed->hosts[i].ledger;
    struct orr_ledger_reader reader = {0};
    s = (struct search){.key = key};
    do
        assert_int_equal(ledger->ops->read(ledger, &reader, s.last, search_page, &s),
                         ORR_OK);
    while (s.last < s.committed);
    return s.is_found ? s.value : NULL;
}

/* ---- requests --------------------------------------------------------------------------------- */

struct asked {
    pthread_mutex_t lock;
    pthread_cond_t done;
    bool is_done;
    struct orr_error result;
};

static void on_done(void *arg, const struct orr_error *result)
{
    struct asked *a = arg;
    pthread_mutex_lock(&a->lock);
    a->result = *result;
    a->is_done = true;
    pthread_cond_signal(&a->done);
    pthread_mutex_unlock(&a->lock);
}

static struct orr_error wait_done(struct asked *a)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += 30;
    int rc = 0;
    pthread_mutex_lock(&a->lock);
    while (!a->is_done && rc == 0)
        rc = pthread_cond_timedwait(&a->done, &a->lock, &t);
    pthread_mutex_unlock(&a->lock);
    if (rc != 0)
        fail_msg("a request to the ledger was not answered");
    return a->result;
}

#define ASKED_INIT                                                                     \
    {                                                                                  \
        .lock = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER            \
    }

struct orr_error bed_add(struct bed *bed, unsigned i, unsigned whom)
{
    struct asked a = ASKED_INIT;
    struct orr_ledger *ledger = bed->hosts[i].ledger;
    const struct bed_host *h = &bed->hosts[whom];
    ledger->ops->voter_add(ledger,
                           orr_str(h->name),
                           orr_str(h->address),
                           orr_str(h->endpoint),
                           on_done,
                           &a);
    return wait_done(&a);
}

struct orr_error bed_remove(struct bed *bed, unsigned i, const char *host)
{
    struct asked a = ASKED_INIT;
    struct orr_ledger *ledger = bed->hosts[i].ledger;
    ledger->ops->voter_remove(ledger, orr_str(host), on_done, &a);
    return wait_done(&a);
}

struct orr_error bed_move(struct bed *bed, unsigned i, const char *host)
{
    struct asked a = ASKED_INIT;
    struct orr_ledger *ledger = bed->hosts[i].ledger;
    ledger->ops->leader_move(ledger, orr_str(host), on_done, &a);
    return wait_done(&a);
}

static bool has_committed(const struct orr_ledger_news *news, uint64_t index)
{
    return news->committed >= index;
}

void bed_expect_equal(struct bed *bed, unsigned a, unsigned b)
{
    struct orr_ledger_info x, y;
    const uint64_t deadline = bed_now_ms() + WAIT_MS;
    do {
        bed->hosts[a].ledger->ops->info(bed->hosts[a].ledger, &x);
        if (!bed_wait(bed, b, has_committed, x.news.committed))
            break;
        bed->hosts[b].ledger->ops->info(bed->hosts[b].ledger, &y);
    } while (x.news.committed != y.news.committed && bed_now_ms() < deadline);
    assert_int_equal(x.news.committed, y.news.committed);
    assert_int_equal(x.keys, y.keys);
    assert_int_equal(x.digest, y.digest);
}
