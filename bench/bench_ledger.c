/* SPDX-License-Identifier: Apache-2.0
 * bench_ledger.c - durable entries per second: one at a time and 256 in flight, one voter and
 * three (in one process, over loopback), against write and fdatasync of the same bytes; and for
 * how long a million keys hold up the ledger's thread.
 *
 * usage: bench_ledger [directory]; prints JSON lines.
 */
#include "bench.h"
#include "image.h"
#include "ledger_raft.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    VOTERS = 3,
    ROUNDS = 3,
    VALUE_BYTES = 256,
    WAIT_S = 60,
    IMAGE_KEYS = 1000000,
    IMAGE_VALUE = 300
};

struct bench {
    struct orr_ledger *voters[VOTERS];
    unsigned n;
    unsigned leader;
    pthread_mutex_t lock; /* guards news */
    pthread_cond_t told;
    struct orr_ledger_news news[VOTERS];
    uint64_t ticket;
};

struct sink_arg {
    struct bench *bench;
    unsigned i;
};

/* ---- ledgers ---------------------------------------------------------------------------------- */

static void on_news(void *arg, const struct orr_ledger_news *news)
{
    const struct sink_arg *a = arg;
    pthread_mutex_lock(&a->bench->lock);
    a->bench->news[a->i] = *news;
    pthread_cond_signal(&a->bench->told);
    pthread_mutex_unlock(&a->bench->lock);
}

/* Under the lock. */
static void wait_news(struct bench *b)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += WAIT_S;
    if (pthread_cond_timedwait(&b->told, &b->lock, &t) != 0)
        die("ledger", "the ledger does not answer");
}

static void free_addresses(char addresses[VOTERS][32])
{
    int fds[VOTERS];
    for (unsigned i = 0; i < VOTERS; i++) {
        struct sockaddr_in a = {.sin_family = AF_INET,
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t len = sizeof a;
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (bind(fds[i], (struct sockaddr *)&a, sizeof a) != 0 ||
            getsockname(fds[i], (struct sockaddr *)&a, &len) != 0)
            die("ledger", "no free port");
        snprintf(addresses[i], 32, "127.0.0.1:%u", ntohs(a.sin_port));
    }
    for (unsigned i = 0; i < VOTERS; i++)
        close(fds[i]);
}

static void open_voters(struct bench *b, const char *root, const char *name, unsigned n)
{
    static struct sink_arg args[VOTERS];
    static const char *const names[VOTERS] = {"v1", "v2", "v3"};
    char addresses[VOTERS][32];
    struct orr_ledger_raft_voter voters[VOTERS];
    free_addresses(addresses);
    *b = (struct bench){.n = n,
                        .leader = VOTERS,
                        .lock = PTHREAD_MUTEX_INITIALIZER,
                        .told = PTHREAD_COND_INITIALIZER};
    for (unsigned i = 0; i < n; i++)
        voters[i] =
            (struct orr_ledger_raft_voter){names[i], n > 1 ? addresses[i] : "", ""};
    for (unsigned i = 0; i < n; i++) {
        char dir[640];
        struct orr_error err;
        snprintf(dir, sizeof dir, "%s/%s-%s", root, name, names[i]);
        const struct orr_ledger_raft_config config = {
            .dir = dir, .self = voters[i], .voters = voters, .n_voters = n};
        if (orr_ledger_raft_open(&config, &b->voters[i], &err) != ORR_OK)
            die("ledger", err.text);
        args[i] = (struct sink_arg){b, i};
        b->voters[i]->ops->attach(
            b->voters[i], &(struct orr_ledger_sink){.news = on_news, .arg = &args[i]});
    }
    pthread_mutex_lock(&b->lock);
    while (b->leader == VOTERS) {
        for (unsigned i = 0; i < n; i++)
            if (b->news[i].is_leading)
                b->leader = i;
        if (b->leader == VOTERS)
            wait_news(b);
    }
    pthread_mutex_unlock(&b->lock);
}

static void close_voters(struct bench *b)
{
    for (unsigned i = 0; i < b->n; i++) {
        b->voters[i]->ops->attach(b->voters[i], NULL);
        b->voters[i]->ops->close(b->voters[i]);
    }
}

static size_t make_entry(uint8_t *entry, size_t cap, uint64_t term, uint64_t ticket)
{
    static const uint8_t value[VALUE_BYTES] = {1};
    char key[32];
    size_t len;
    snprintf(key, sizeof key, "job/eu1-%u", (unsigned)(ticket % 10000));
    const struct orr_rec_ledger_record record = {.key = orr_str(key),
                                                 .value = {value, sizeof value}};
    const struct orr_msg_ledger_append msg = {
        .term = term, .ticket = ticket, .records = {&record, 1}};
    if (orr_msg_encode(orr_msg_desc_ledger_append(), &msg, entry, cap, &len) != ORR_OK)
        die("ledger", "an entry does not fit");
    return len;
}

static double entries_per_s(struct bench *b, unsigned n, unsigned in_flight)
{
    struct orr_ledger *ledger = b->voters[b->leader];
    const struct orr_ledger_news *news = &b->news[b->leader];
    const uint64_t end = b->ticket + n, begun_in = news->term;
    const double start = now_s();
    for (;;) {
        uint8_t entry[1024];
        pthread_mutex_lock(&b->lock);
        while (b->ticket - news->ticket >= in_flight ||
               (b->ticket == end && news->ticket < end)) {
            if (!news->is_leading || news->term != begun_in)
                die("ledger", "leadership was lost");
            wait_news(b);
        }
        const uint64_t term = news->term;
        pthread_mutex_unlock(&b->lock);
        if (b->ticket == end)
            return n / (now_s() - start);
        b->ticket++;
        const size_t len = make_entry(entry, sizeof entry, term, b->ticket);
        ledger->ops->append(ledger, term, b->ticket, entry, len);
    }
}

/* ---- the peer --------------------------------------------------------------------------------- */

static double writes_per_s(const char *root, unsigned n, unsigned at_once)
{
    static uint8_t bytes[256 * 1024];
    char path[640];
    const size_t len = make_entry(bytes, sizeof bytes, 1, 1) * at_once;
    snprintf(path, sizeof path, "%s/plain", root);
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const double start = now_s();
    for (unsigned i = 0; i < n; i += at_once)
        if (write(fd, bytes, len) != (ssize_t)len || fdatasync(fd) != 0)
            die("ledger", "write and fdatasync fail");
    const double took = now_s() - start;
    close(fd);
    unlink(path);
    return n / took;
}

static void
bench_voters(const char *root, unsigned n, unsigned in_flight, unsigned entries)
{
    struct bench b;
    double values[ROUNDS], peers[ROUNDS];
    char name[64], peer[96];
    snprintf(name, sizeof name, "ledger_%uvoter_%uinflight", n, in_flight);
    open_voters(&b, root, name, n);
    (void)entries_per_s(&b, in_flight * 4, in_flight);
    for (unsigned i = 0; i < ROUNDS;
         i++) { /* side by side: the disk is not always as fast */
        peers[i] = writes_per_s(root, entries, in_flight);
        values[i] = entries_per_s(&b, entries, in_flight);
    }
    close_voters(&b);
    snprintf(peer, sizeof peer, "write+fdatasync of %u entries at a time", in_flight);
    print(name, median(values, ROUNDS), "entries/s", peer, median(peers, ROUNDS));
}

/* ---- a million keys --------------------------------------------------------------------------- */

static struct orr_image *make_image(const struct orr_image_config *config)
{
    static const uint8_t value[IMAGE_VALUE] = {1};
    struct orr_image *image;
    if (orr_image_new(config, &image) != ORR_OK)
        die("ledger", "out of memory");
    for (uint64_t i = 1; i <= IMAGE_KEYS; i++) {
        char key[32];
        uint8_t entry[1024];
        size_t len;
        uint64_t term, ticket;
        snprintf(key, sizeof key, "job/eu1-%llu", (unsigned long long)i);
        const struct orr_rec_ledger_record record = {.key = orr_str(key),
                                                     .value = {value, sizeof value}};
        const struct orr_msg_ledger_append msg = {.records = {&record, 1}};
        if (orr_msg_encode(
                orr_msg_desc_ledger_append(), &msg, entry, sizeof entry, &len) ||
            orr_image_apply(image, i, entry, len, &term, &ticket))
            die("ledger", "an entry does not apply");
    }
    return image;
}

static void bench_image(void)
{
    const struct orr_image_config config = {.gone_max = 0};
    struct orr_image *image = make_image(&config), *again;
    struct orr_image_frozen *frozen;
    uint8_t *bytes;
    size_t len;
    const uint64_t memory = orr_image_stats(image).bytes;
    double t = now_s();
    if (orr_image_freeze(image, &frozen) != ORR_OK)
        die("ledger", "out of memory");
    print("ledger_1m_keys_freeze", (now_s() - t) * 1e3, "ms", "election timeout", 600);
    t = now_s();
    if (orr_image_encode(frozen, &bytes, &len) != ORR_OK)
        die("ledger", "out of memory");
    print("ledger_1m_keys_encode_aside",
          (now_s() - t) * 1e3,
          "ms",
          "election timeout",
          600);
    orr_image_thaw(image, frozen);
    orr_image_free(image);
    t = now_s();
    if (orr_image_decode(&config, bytes, len, &again) != ORR_OK)
        die("ledger", "the snapshot does not decode");
    print("ledger_1m_keys_restore", (now_s() - t) * 1e3, "ms", "election timeout", 600);
    print("ledger_1m_keys_memory",
          (double)memory / IMAGE_KEYS,
          "B/key",
          "bytes of the values",
          IMAGE_VALUE);
    free(bytes);
    orr_image_free(again);
}

static int
remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

int main(int argc, char **argv)
{
    char root[512];
    snprintf(root, sizeof root, "%s/orrery-bench.XXXXXX", argc > 1 ? argv[1] : "/tmp");
    if (!mkdtemp(root))
        die("ledger", "no directory");
    bench_voters(root, 1, 1, 1000);
    bench_voters(root, 1, 256, 50000);
    bench_voters(root, 3, 1, 1000);
    bench_voters(root, 3, 256, 50000);
    nftw(root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    bench_image();
    return 0;
}
