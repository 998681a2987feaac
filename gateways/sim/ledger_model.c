/* SPDX-License-Identifier: Apache-2.0
 * ledger_model.c - see ledger_model.h.
 */
#include "ledger_model.h"

enum {
    DELAY_MIN_MS = 1, /* from one replica to another and back */
    DELAY_MAX_MS = 6,
    SYNC_MAX_MS = 4,
    SYNC_SLOW_MS = 60, /* one in SYNC_SLOW_OF */
    SYNC_SLOW_OF = 50,
    HEARTBEAT_MS = 50,
    ELECT_MS = 300, /* to twice that */
    ELECT_ALONE_MS = 10,
    SNAPSHOT_GAP =
        200, /* a replica that is further behind gets the image, not the log */
    BATCH_MAX = 8,
    SNAPSHOT_EVERY = 32, /* entries: what a restarted replica knows to be committed */
};

struct entry {
    uint64_t term;
    uint64_t ticket;                    /* 0: a new leader's first, without records */
    struct orr_msg_ledger_append *body; /* owned; NULL: none */
};

struct replica {
    bool is_up;
    bool has_disk;
    /* on disk */
    uint64_t term; /* also its vote: it votes once in each, for whoever brought it */
    uint64_t snapshot;
    struct entry **log; /* owned; entries are the ledger's */
    uint64_t n, cap;
    uint64_t synced; /* entries of log that are on disk */
    /* in memory */
    bool is_leader;
    uint32_t leader;
    uint64_t sync_ms; /* the disk is done; UINT64_MAX: idle */
    uint64_t syncing; /* with this many entries */
    uint64_t
        elect_ms;   /* time to stand for election, or as leader to count who is there */
    uint64_t first; /* leader: index of its first entry */
    uint64_t ticket; /* leader: of the last entry taken */
    uint64_t match[LEDGER_REPLICAS_MAX];
    uint64_t heard_ms[LEDGER_REPLICAS_MAX];
    uint64_t send_ms[LEDGER_REPLICAS_MAX];
    bool is_caught_up;
    struct image image; /* image.committed: its commit index */
};

struct ledger {
    struct ledger_config config;
    uint64_t random;
    struct replica replicas[LEDGER_REPLICAS_MAX];
    struct entry **entries; /* owned; all that ever were */
    uint64_t n_entries, cap_entries;
    struct entry **history; /* owned; the committed ones */
    uint64_t n_history, cap_history;
    uint64_t *digests; /* owned; of the image after each of history */
    uint64_t n_digests, cap_digests;
};

/* A stream for each moment: a run in which one fault is left out is the same but for what follows from it. */
static uint64_t pick(struct ledger *ledger, uint64_t n)
{
    uint64_t x = ledger->random += 0x9e3779b97f4a7c15u; /* splitmix64 */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (x ^ (x >> 31)) % n;
}

static void push(struct entry ***list, uint64_t *n, uint64_t *cap, struct entry *entry)
{
    if (*n == *cap) {
        *cap = *cap ? *cap * 2 : 64;
        *list = realloc(*list, *cap * sizeof(struct entry *));
        ORR_ASSERT(*list);
    }
    (*list)[(*n)++] = entry;
}

static bool is_majority(const struct ledger *ledger, uint32_t n)
{
    return n * 2 > ledger->config.n_replicas;
}

static bool reaches(const struct ledger *ledger, uint32_t from, uint32_t to)
{
    return ledger->replicas[from].is_up && ledger->replicas[to].is_up &&
           (from == to || !ledger->config.reaches ||
            ledger->config.reaches(ledger->config.arg, from, to));
}

static void rest(struct ledger *ledger, struct replica *r, uint64_t now)
{
    uint64_t wait = ledger->config.n_replicas > 1 ? ELECT_MS : ELECT_ALONE_MS;
    r->elect_ms = now + wait + pick(ledger, wait);
}

static void follow(struct ledger *ledger, struct replica *r, uint64_t now)
{
    r->is_leader = false;
    r->leader = ORR_NO_REPLICA;
    for (uint32_t i = 0; i < LEDGER_REPLICAS_MAX; i++)
        r->send_ms[i] = UINT64_MAX;
    rest(ledger, r, now);
}

/* ---- disk and image ---- */

static void sync_soon(struct ledger *ledger, struct replica *r, uint64_t now)
{
    if (!r->has_disk || r->sync_ms != UINT64_MAX || r->synced >= r->n)
        return;
    uint64_t slow = pick(ledger, SYNC_SLOW_OF) == 0 ? SYNC_SLOW_MS : SYNC_MAX_MS;
    r->syncing = r->n;
    r->sync_ms = now + 1 + pick(ledger, slow);
}

/* The same at every replica. */
static void note_digest(struct ledger *ledger, uint64_t at, uint64_t digest)
{
    if (at == ledger->cap_digests) {
        ledger->cap_digests = at ? at * 2 : 64;
        ledger->digests =
            realloc(ledger->digests, ledger->cap_digests * sizeof(*ledger->digests));
        ORR_ASSERT(ledger->digests);
    }
    if (at + 1 == ledger->n_history && at == ledger->n_digests)
        ledger->digests[ledger->n_digests++] = digest;
    ORR_ASSERT(ledger->digests[at] == digest);
}

static void commit_to(struct ledger *ledger, struct replica *r, uint64_t index)
{
    static const struct orr_list_ledger_record none = {NULL, 0};
    while (r->image.committed < index) {
        uint64_t at = r->image.committed;
        struct entry *entry = r->log[at];
        if (at == ledger->n_history)
            push(&ledger->history, &ledger->n_history, &ledger->cap_history, entry);
        ORR_ASSERT(ledger->history[at] == entry); /* one history */
        image_apply(&r->image, at + 1, entry->body ? &entry->body->records : &none);
        note_digest(ledger, at, r->image.digest);
    }
    uint64_t safe = r->image.committed < r->synced ? r->image.committed : r->synced;
    r->snapshot = safe / SNAPSHOT_EVERY * SNAPSHOT_EVERY;
}

static void truncate_to(struct replica *r, uint64_t n)
{
    ORR_ASSERT(n >= r->image.committed);
    r->n = n;
    r->synced = r->synced < n ? r->synced : n;
    r->syncing = r->syncing < n ? r->syncing : n;
}

/* ---- leading ---- */

static void add(struct ledger *ledger, struct replica *r, struct entry entry)
{
    struct entry *kept = malloc(sizeof(*kept));
    ORR_ASSERT(kept);
    *kept = entry;
    push(&ledger->entries, &ledger->n_entries, &ledger->cap_entries, kept);
    push(&r->log, &r->n, &r->cap, kept);
}

static void send_soon(struct ledger *ledger, struct replica *r, uint64_t now)
{
    for (uint32_t to = 0; to < ledger->config.n_replicas; to++) {
        uint64_t due =
            now + DELAY_MIN_MS + pick(ledger, DELAY_MAX_MS - DELAY_MIN_MS + 1);
        if (&ledger->replicas[to] != r && r->send_ms[to] > due)
            r->send_ms[to] = due;
    }
}

static void lead(struct ledger *ledger, uint32_t self, uint64_t now)
{
    struct replica *r = &ledger->replicas[self];
    r->is_leader = true;
    r->leader = self;
    r->ticket = 0;
    add(ledger, r, (struct entry){.term = r->term});
    r->first = r->n;
    for (uint32_t i = 0; i < ledger->config.n_replicas; i++) {
        r->match[i] = 0;
        r->heard_ms[i] = now;
    }
    rest(ledger, r, now);
    sync_soon(ledger, r, now);
    send_soon(ledger, r, now);
}

static void advance(struct ledger *ledger, uint32_t self)
{
    struct replica *r = &ledger->replicas[self];
    r->match[self] = r->synced;
    for (uint64_t index = r->n; index > r->image.committed; index--) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < ledger->config.n_replicas; i++)
            n += r->match[i] >= index;
        if (r->log[index - 1]->term != r->term)
            return; /* an earlier term's entries are committed by one of its own */
        if (is_majority(ledger, n)) {
            commit_to(ledger, r, index);
            return;
        }
    }
}

/* The follower's log becomes the leader's, as far as it is sent. */
static uint64_t take_entries(struct ledger *ledger,
                             const struct replica *from,
                             struct replica *to,
                             uint64_t now)
{
    uint64_t common = from->n < to->n ? from->n : to->n;
    while (common > 0 && from->log[common - 1] != to->log[common - 1])
        common--;
    if (common < to->n && common < from->n)
        truncate_to(to, common);
    bool is_far_behind = from->n - common > SNAPSHOT_GAP;
    uint64_t n = is_far_behind ? from->n : to->n + 1 + pick(ledger, BATCH_MAX);
    to->is_caught_up = to->is_caught_up && !is_far_behind;
    if (to->has_disk && to->n == common)
        while (to->n < from->n && to->n < n)
            push(&to->log, &to->n, &to->cap, from->log[to->n]);
    sync_soon(ledger, to, now);
    return to->n < from->n ? to->n : from->n;
}

static void send_to(struct ledger *ledger, uint32_t self, uint32_t peer, uint64_t now)
{
    struct replica *r = &ledger->replicas[self];
    struct replica *to = &ledger->replicas[peer];
    r->send_ms[peer] = now + HEARTBEAT_MS;
    if (!reaches(ledger, self, peer) || !reaches(ledger, peer, self))
        return;
    if (to->term > r->term) {
        r->term = to->term;
        follow(ledger, r, now);
        return;
    }
    if (to->term < r->term || to->is_leader || to->leader != self) {
        ORR_ASSERT(to->term < r->term || !to->is_leader); /* one leader in a term */
        to->term = r->term;
        follow(ledger, to, now);
        to->leader = self;
    }
    rest(ledger, to, now);
    uint64_t same = take_entries(ledger, r, to, now);
    r->heard_ms[peer] = now;
    r->match[peer] = to->synced < same ? to->synced : same;
    uint64_t known =
        r->image.committed < r->match[peer] ? r->image.committed : r->match[peer];
    commit_to(ledger, to, known);
    if (!to->is_caught_up && to->n == r->n && to->image.committed > 0) {
        to->image.forgotten = to->image.committed; /* its readers start over */
        to->is_caught_up = true;
    }
    advance(ledger, self);
    if (r->match[peer] < r->n || to->image.committed < r->image.committed)
        r->send_ms[peer] =
            now + DELAY_MIN_MS + pick(ledger, DELAY_MAX_MS - DELAY_MIN_MS + 1);
}

/* ---- elections ---- */

static bool is_up_to_date(const struct replica *mine, const struct replica *theirs)
{
    uint64_t mine_last = mine->n ? mine->log[mine->n - 1]->term : 0;
    uint64_t their_last = theirs->n ? theirs->log[theirs->n - 1]->term : 0;
    return mine_last != their_last ? mine_last > their_last : mine->n >= theirs->n;
}

static void stand(struct ledger *ledger, uint32_t self, uint64_t now)
{
    struct replica *r = &ledger->replicas[self];
    uint64_t term = r->term + 1;
    uint64_t highest = term;
    uint32_t n_votes = 0;
    for (uint32_t i = 0; i < ledger->config.n_replicas; i++) {
        struct replica *voter = &ledger->replicas[i];
        if (!reaches(ledger, self, i) || !reaches(ledger, i, self) || !voter->has_disk)
            continue;
        highest = voter->term > highest ? voter->term : highest;
        if (voter->term >= term)
            continue;
        voter->term = term;
        if (voter->is_leader || i == self)
            follow(ledger, voter, now);
        if (!is_up_to_date(r, voter))
            continue;
        n_votes++;
        rest(ledger, voter, now);
    }
    r->term = highest;
    if (highest == term && is_majority(ledger, n_votes))
        lead(ledger, self, now);
}

/* A leader that has not heard a majority of late, or cannot write, does not lead any more. */
static void look_around(struct ledger *ledger, uint32_t self, uint64_t now)
{
    struct replica *r = &ledger->replicas[self];
    uint32_t n = 0;
    r->heard_ms[self] = now;
    for (uint32_t i = 0; i < ledger->config.n_replicas; i++)
        n += now - r->heard_ms[i] < ELECT_MS;
    if (!r->has_disk || !is_majority(ledger, n))
        follow(ledger, r, now);
    else
        r->elect_ms = now + ELECT_MS / 2;
}

/* ---- from outside ---- */

void ledger_append(struct ledger *ledger,
                   uint32_t replica,
                   const struct orr_msg_ledger_append *msg,
                   uint64_t now)
{
    struct replica *r = &ledger->replicas[replica];
    if (!r->is_up || !r->is_leader || msg->term != r->term)
        return;
    if (msg->ticket != r->ticket + 1) { /* entries were lost on their way */
        follow(ledger, r, now);
        return;
    }
    const struct orr_msg_desc *desc = orr_msg_desc_ledger_append();
    struct entry entry = {.term = r->term,
                          .ticket = msg->ticket,
                          .body = malloc(orr_msg_size(desc, msg))};
    ORR_ASSERT(entry.body);
    orr_msg_copy(desc, msg, entry.body);
    r->ticket++;
    add(ledger, r, entry);
    sync_soon(ledger, r, now);
    send_soon(ledger, r, now);
}

static void step_replica(struct ledger *ledger, uint32_t self, uint64_t now)
{
    struct replica *r = &ledger->replicas[self];
    if (r->sync_ms <= now) {
        r->sync_ms = UINT64_MAX;
        r->synced = r->syncing > r->synced ? r->syncing : r->synced;
        sync_soon(ledger, r, now);
        if (r->is_leader)
            advance(ledger, self);
    }
    for (uint32_t to = 0; to < ledger->config.n_replicas; to++)
        if (r->is_leader && r->send_ms[to] <= now)
            send_to(ledger, self, to, now);
    if (r->elect_ms > now)
        return;
    if (r->is_leader) {
        look_around(ledger, self, now);
        return;
    }
    r->leader = ORR_NO_REPLICA;
    rest(ledger, r, now);
    if (r->has_disk)
        stand(ledger, self, now);
}

void ledger_step(struct ledger *ledger, uint64_t now)
{
    ledger->random = ledger->config.seed + now * 0xd1342543de82ef95u;
    for (uint32_t i = 0; i < ledger->config.n_replicas; i++)
        if (ledger->replicas[i].is_up)
            step_replica(ledger, i, now);
}

uint64_t ledger_next_ms(const struct ledger *ledger)
{
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < ledger->config.n_replicas; i++) {
        const struct replica *r = &ledger->replicas[i];
        if (!r->is_up)
            continue;
        next = r->sync_ms < next ? r->sync_ms : next;
        next = r->elect_ms < next ? r->elect_ms : next;
        for (uint32_t to = 0; to < ledger->config.n_replicas; to++)
            next = r->send_ms[to] < next ? r->send_ms[to] : next;
    }
    return next;
}

void ledger_start(struct ledger *ledger, uint32_t replica, uint64_t now)
{
    struct replica *r = &ledger->replicas[replica];
    ORR_ASSERT(!r->is_up);
    r->is_up = true;
    follow(ledger, r, now);
    commit_to(ledger, r, r->snapshot);
}

/* What was not synced may have reached the disk, up to some entry. */
static void tear(struct ledger *ledger, struct replica *r)
{
    r->n = r->synced + pick(ledger, r->n - r->synced + 1);
    r->synced = r->n;
    r->sync_ms = UINT64_MAX;
    r->syncing = 0;
}

void ledger_crash(struct ledger *ledger, uint32_t replica)
{
    struct replica *r = &ledger->replicas[replica];
    if (!r->is_up)
        return;
    r->is_up = false;
    r->is_leader = false;
    tear(ledger, r);
    image_fini(&r->image);
}

void ledger_disk_set(struct ledger *ledger, uint32_t replica, bool works, uint64_t now)
{
    struct replica *r = &ledger->replicas[replica];
    if (works == r->has_disk)
        return;
    r->has_disk = works;
    r->sync_ms = UINT64_MAX;
    if (works && r->is_up)
        sync_soon(ledger, r, now);
}

void ledger_view(const struct ledger *ledger,
                 uint32_t replica,
                 struct ledger_view *ret_view)
{
    const struct replica *r = &ledger->replicas[replica];
    uint64_t committed = r->image.committed;
    bool is_leading = r->is_leader && committed >= r->first;
    *ret_view = (struct ledger_view){
        .term = r->term,
        .is_leading = is_leading,
        .leader = r->leader,
        .committed = committed,
        .ticket = is_leading ? r->log[committed - 1]->ticket : 0,
        .trouble = r->has_disk ? ORR_OK : ORR_EDISK,
    };
}

const struct image *ledger_image(const struct ledger *ledger, uint32_t replica)
{
    return &ledger->replicas[replica].image;
}

const uint64_t *ledger_digests(const struct ledger *ledger)
{
    return ledger->digests;
}

enum orr_err ledger_new(const struct ledger_config *config, struct ledger **ret_ledger)
{
    ORR_ASSERT(config->n_replicas >= 1 && config->n_replicas <= LEDGER_REPLICAS_MAX);
    struct ledger *ledger = calloc(1, sizeof(*ledger));
    if (!ledger)
        return ORR_ENOMEM;
    ledger->config = *config;
    ledger->random = config->seed;
    for (uint32_t i = 0; i < config->n_replicas; i++) {
        ledger->replicas[i].has_disk = true;
        ledger->replicas[i].is_caught_up = true;
        ledger->replicas[i].sync_ms = UINT64_MAX;
    }
    *ret_ledger = ledger;
    return ORR_OK;
}

void ledger_free(struct ledger *ledger)
{
    if (!ledger)
        return;
    for (uint32_t i = 0; i < ledger->config.n_replicas; i++) {
        image_fini(&ledger->replicas[i].image);
        free(ledger->replicas[i].log);
    }
    for (uint64_t i = 0; i < ledger->n_entries; i++) {
        free(ledger->entries[i]->body);
        free(ledger->entries[i]);
    }
    free(ledger->entries);
    free(ledger->history);
    free(ledger->digests);
    free(ledger);
}
