/* SPDX-License-Identifier: Apache-2.0
 * test_ledger_recover.c - a ledger on disk after stops, kill -9, torn and damaged files.
 */
#include "ledger_bed.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct bed bed;

static int setup(void **state)
{
    (void)state;
    bed_init(&bed, BED_RAFT1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    bed_fini(&bed);
    return 0;
}

static void put_many(unsigned n, const char *prefix)
{
    uint64_t ticket = 0;
    for (unsigned i = 0; i < n; i++) {
        char key[64];
        snprintf(key, sizeof key, "%s%u", prefix, i);
        ticket = bed_put(&bed, 0, key, key);
    }
    assert_true(bed_wait_ticket(&bed, 0, ticket));
}

static void expect_many(unsigned n, const char *prefix)
{
    char key[64];
    snprintf(key, sizeof key, "%s%u", prefix, n - 1);
    assert_string_equal(bed_get(&bed, 0, key), key);
    snprintf(key, sizeof key, "%s0", prefix);
    assert_string_equal(bed_get(&bed, 0, key), key);
}

/* ---- stops ------------------------------------------------------------------------------------ */

static void everything_is_there_after_a_stop_in_a_new_term(void **state)
{
    (void)state;
    bed_open(&bed);
    put_many(300, "k");
    const struct orr_ledger_news before = bed_news(&bed, 0);
    bed_close_host(&bed, 0);
    bed_open(&bed);
    const struct orr_ledger_news after = bed_news(&bed, 0);
    assert_true(after.term > before.term);
    assert_int_equal(after.ticket, 0); /* those of an earlier term are not this one's */
    expect_many(300, "k");
    put_many(10, "later");
    assert_int_equal(bed_news(&bed, 0).ticket, 10);
}

static unsigned count_files(const char *prefix)
{
    unsigned n = 0;
    DIR *d = opendir(bed.hosts[0].dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += strncmp(e->d_name, prefix, strlen(prefix)) == 0;
    closedir(d);
    return n;
}

static void snapshots_replace_the_log(void **state)
{
    (void)state;
    struct orr_ledger_info before, after;
    bed.snapshot_log_bytes = 256 << 10;
    bed_open(&bed);
    for (int round = 0; round < 20; round++)
        put_many(500, "k"); /* the same keys: the log outgrows the image */
    const uint64_t deadline = bed_now_ms() + WAIT_MS;
    while (count_files("snapshot-") < 2 && bed_now_ms() < deadline)
        bed_put_wait(
            &bed, 0, "one", "more"); /* each is an event with a deadline of its own */
    assert_true(count_files("snapshot-") >= 2);
    bed.hosts[0].ledger->ops->info(bed.hosts[0].ledger, &before);
    bed_close_host(&bed, 0);
    bed_open(&bed);
    expect_many(500, "k");
    bed.hosts[0].ledger->ops->info(bed.hosts[0].ledger, &after);
    assert_int_equal(after.digest, before.digest);
    assert_int_equal(after.keys, before.keys);
}

/* ---- kill -9 ---------------------------------------------------------------------------------- */

/* The child: append as fast as it can, and write each ticket that is reported to fd. */
struct crash_child {
    int fd;
    uint64_t told;
};
static struct crash_child child;
static uint64_t window; /* how many wait to be reported */

static void child_news(void *arg, const struct orr_ledger_news *news)
{
    struct crash_child *c = arg;
    if (!news->is_leading || news->ticket <= c->told)
        return;
    c->told = news->ticket;
    if (write(c->fd, &c->told, sizeof c->told) != sizeof c->told)
        _exit(3);
}

static void run_child(int fd, unsigned round)
{
    struct orr_ledger_info info = {.keys = 0};
    struct orr_ledger *ledger;
    struct orr_error err;
    const struct orr_ledger_raft_config config = {.dir = bed.hosts[0].dir,
                                                  .self = {bed.hosts[0].name, "", ""},
                                                  .snapshot_log_bytes = 1 << 20};
    child.fd = fd;
    if (orr_ledger_raft_open(&config, &ledger, &err) != ORR_OK) {
        fprintf(stderr, "%s\n", err.text);
        _exit(2);
    }
    ledger->ops->attach(ledger,
                        &(struct orr_ledger_sink){.news = child_news, .arg = &child});
    while (!info.news.is_leading)
        ledger->ops->info(ledger, &info);
    for (uint64_t ticket = 1;; ticket++) {
        char key[32], value[64];
        uint8_t entry[256];
        size_t len;
        snprintf(key, sizeof key, "r%u/%llu", round, (unsigned long long)ticket);
        snprintf(value, sizeof value, "value of %s", key);
        const struct orr_rec_ledger_record record = {
            .key = orr_str(key),
            .value = {(const uint8_t *)value, (uint32_t)strlen(value)}};
        const struct orr_msg_ledger_append msg = {
            .term = info.news.term, .ticket = ticket, .records = {&record, 1}};
        if (orr_msg_encode(
                orr_msg_desc_ledger_append(), &msg, entry, sizeof entry, &len) !=
            ORR_OK)
            _exit(4);
        ledger->ops->append(ledger, info.news.term, ticket, entry, len);
        while (ticket - info.news.ticket >= window)
            ledger->ops->info(ledger, &info);
    }
}

/* Kill it once it has reported so many; the newest ticket that was reported. */
static uint64_t crash_once(unsigned round, uint64_t until)
{
    int fds[2];
    uint64_t told = 0, next;
    assert_int_equal(pipe(fds), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(fds[0]);
        alarm(30);
        run_child(fds[1], round);
    }
    close(fds[1]);
    while (told < until && read(fds[0], &next, sizeof next) == sizeof next)
        told = next;
    kill(pid, SIGKILL);
    while (read(fds[0], &next, sizeof next) == sizeof next)
        told = next; /* what it said before it died */
    close(fds[0]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("the child ended by itself: %d", WEXITSTATUS(status));
    assert_true(told >= until);
    return told;
}

struct check {
    unsigned round;
    uint64_t n, n_seen, last, committed;
    uint8_t *seen; /* owned: of each ticket */
};

static void check_page(void *arg, const struct orr_msg_ledger_page *page)
{
    struct check *c = arg;
    for (uint32_t i = 0; i < page->records.n; i++) {
        const struct orr_rec_ledger_record *r = &page->records.at[i];
        char key[64], value[128];
        unsigned round;
        unsigned long long ticket;
        orr_str_copy(key, sizeof key, r->key);
        if (sscanf(key, "r%u/%llu", &round, &ticket) != 2 || round != c->round ||
            ticket > c->n)
            continue;
        snprintf(value, sizeof value, "value of %s", key);
        assert_true(
            orr_str_eq((struct orr_str){(const char *)r->value.ptr, r->value.len},
                       orr_str(value)));
        assert_int_equal(c->seen[ticket], 0);
        c->seen[ticket] = 1;
        c->n_seen++;
    }
    c->last = page->last;
    c->committed = page->committed;
}

static void expect_tickets(unsigned round, uint64_t n)
{
    struct check c = {.round = round, .n = n, .seen = calloc(1, n + 1)};
    struct orr_ledger_reader reader = {0};
    do
        assert_int_equal(bed.hosts[0].ledger->ops->read(
                             bed.hosts[0].ledger, &reader, c.last, check_page, &c),
                         ORR_OK);
    while (c.last < c.committed);
    free(c.seen);
    if (c.n_seen != n)
        fail_msg("round %u: %llu of %llu acknowledged entries are there",
                 round,
                 (unsigned long long)c.n_seen,
                 (unsigned long long)n);
}

static void what_was_reported_survives_kill_9(void **state)
{
    (void)state;
    uint64_t told[5];
    window = 2000;
    for (unsigned round = 0; round < ORR_ARRAY_SIZE(told); round++)
        told[round] = crash_once(round, 2000 + 1500 * round);
    bed_open(&bed);
    for (unsigned round = 0; round < ORR_ARRAY_SIZE(told); round++)
        expect_tickets(round, told[round]);
}

/* ---- torn and damaged files ------------------------------------------------------------------- */

/* The newest file with that prefix (by name) that is not all zeros. */
static void find_file(const char *prefix, const char *suffix, char *path, size_t cap)
{
    char best[NAME_MAX + 1] = "";
    DIR *d = opendir(bed.hosts[0].dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        const size_t len = strlen(e->d_name), end = strlen(suffix);
        if (strncmp(e->d_name, prefix, strlen(prefix)) == 0 && len > end &&
            strcmp(e->d_name + len - end, suffix) == 0 &&
            (!best[0] || strcmp(e->d_name, best) < 0))
            snprintf(best, sizeof best, "%s", e->d_name);
    }
    closedir(d);
    if (!best[0])
        fail_msg("no file %s...%s", prefix, suffix);
    snprintf(path, cap, "%s/%s", bed.hosts[0].dir, best);
}

static off_t data_end(const char *path)
{
    static uint8_t buf[16 << 20];
    const int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, buf, sizeof buf);
    close(fd);
    while (n > 0 && buf[n - 1] == 0)
        n--;
    return n;
}

static void garble(const char *path, off_t at, size_t len)
{
    uint8_t junk[256];
    memset(junk, 0xa5, sizeof junk);
    const int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, junk, len, at), len);
    close(fd);
}

/* Leaves an open segment of many writes behind, as a crash does; returns how many were
 * reported. */
static uint64_t crash_and_find_open(char *path, size_t cap)
{
    window = 2;
    const uint64_t told = crash_once(0, 200);
    find_file("open-", "", path, cap);
    return told;
}

static void torn_tail_is_cut_off(void **state)
{
    (void)state;
    char path[1024];
    const uint64_t told = crash_and_find_open(path, sizeof path);
    garble(path, data_end(path) + 16, 100); /* a write of which only the end arrived */
    bed_open(&bed);
    expect_tickets(0, told);
    put_many(10, "later");
    bed_close_host(&bed, 0);
    bed_open(&bed);
    expect_tickets(0, told);
    expect_many(10, "later");
}

static void truncated_segment_is_read_as_far_as_it_goes(void **state)
{
    (void)state;
    char path[1024];
    (void)crash_and_find_open(path, sizeof path);
    assert_int_equal(truncate(path, data_end(path) - 21), 0);
    bed_open(&bed);
    assert_string_equal(bed_get(&bed, 0, "r0/1"), "value of r0/1");
    put_many(10, "later");
}

static void expect_refused(const char *path)
{
    struct orr_error err = {.code = ORR_OK};
    assert_int_equal(bed_open_host(&bed, 0, false, &err), ORR_EDISK);
    if (!strstr(err.text, path))
        fail_msg("the error does not name %s: %s", path, err.text);
}

static void damage_before_the_last_entry_is_refused(void **state)
{
    (void)state;
    char path[1024];
    (void)crash_and_find_open(path, sizeof path);
    garble(path, data_end(path) / 2, 64);
    expect_refused(path);
}

static void damaged_closed_segment_is_refused(void **state)
{
    (void)state;
    char path[1024];
    bed_open(&bed);
    put_many(300, "k");
    bed_close_host(&bed, 0);
    find_file("0000000000000002-", "", path, sizeof path);
    garble(path, data_end(path) - 40, 8);
    expect_refused(path);
}

static void make_snapshot(void)
{
    bed.snapshot_log_bytes = 64 << 10;
    bed_open(&bed);
    const uint64_t deadline = bed_now_ms() + WAIT_MS;
    while (count_files("snapshot-") < 2 && bed_now_ms() < deadline)
        put_many(300, "k");
    bed_close_host(&bed, 0);
}

/* Of every snapshot: libraft reads the newest. */
static void garble_snapshots(bool is_meta, off_t at)
{
    DIR *d = opendir(bed.hosts[0].dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", bed.hosts[0].dir, e->d_name);
        if (strncmp(e->d_name, "snapshot-", 9) == 0 &&
            (strstr(e->d_name, ".meta") != NULL) == is_meta)
            garble(path, at, 4);
    }
    closedir(d);
}

static void damaged_snapshot_is_refused(void **state)
{
    (void)state;
    make_snapshot();
    garble_snapshots(false, 1000);
    expect_refused("/snapshot-");
}

static void damaged_description_of_a_snapshot_is_refused(void **state)
{
    (void)state;
    make_snapshot();
    garble_snapshots(true, 20);
    expect_refused(".meta");
}

static void first_start_that_was_cut_off_begins_again(void **state)
{
    (void)state;
    char path[1024];
    bed_open(&bed);
    bed_close_host(&bed, 0);
    DIR *d = opendir(bed.hosts[0].dir);
    for (struct dirent *e; (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", bed.hosts[0].dir, e->d_name);
        if (e->d_name[0] != '.' && strcmp(e->d_name, "metadata1") != 0)
            assert_int_equal(unlink(path), 0);
    }
    closedir(d);
    bed_open(&bed);
    put_many(3, "k");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(everything_is_there_after_a_stop_in_a_new_term),
        T(snapshots_replace_the_log),
        T(what_was_reported_survives_kill_9),
        T(torn_tail_is_cut_off),
        T(truncated_segment_is_read_as_far_as_it_goes),
        T(damage_before_the_last_entry_is_refused),
        T(damaged_closed_segment_is_refused),
        T(damaged_snapshot_is_refused),
        T(damaged_description_of_a_snapshot_is_refused),
        T(first_start_that_was_cut_off_begins_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
