/* SPDX-License-Identifier: Apache-2.0
 * test_ledger_ops.c - what every ledger promises: run on memory, one voter, three voters.
 */
#include "ledger_bed.h"

static struct bed bed;
static enum bed_kind kind;

static int setup(void **state)
{
    (void)state;
    bed_init(&bed, kind);
    bed_open(&bed);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    bed_fini(&bed);
    return 0;
}

static void entries_are_reported_in_order_and_read_back(void **state)
{
    (void)state;
    const unsigned l = bed_leader(&bed);
    for (int i = 0; i < 100; i++) {
        char key[32], value[32];
        snprintf(key, sizeof key, "job/r1-%d", i);
        snprintf(value, sizeof value, "value %d", i);
        assert_int_equal(bed_put(&bed, l, key, value), i + 1);
    }
    assert_true(bed_wait_ticket(&bed, l, 100));
    assert_string_equal(bed_get(&bed, l, "job/r1-0"), "value 0");
    assert_string_equal(bed_get(&bed, l, "job/r1-99"), "value 99");
    assert_null(bed_get(&bed, l, "job/r1-100"));
}

static void newest_value_wins_and_gone_is_gone(void **state)
{
    (void)state;
    const unsigned l = bed_leader(&bed);
    bed_put_wait(&bed, l, "a", "one");
    bed_put_wait(&bed, l, "b", "two");
    bed_put_wait(&bed, l, "a", "three");
    bed_put_wait(&bed, l, "b", NULL);
    assert_string_equal(bed_get(&bed, l, "a"), "three");
    assert_null(bed_get(&bed, l, "b"));
}

static void entry_of_several_records_is_whole(void **state)
{
    (void)state;
    const unsigned l = bed_leader(&bed);
    const uint8_t v[] = "v";
    const struct orr_rec_ledger_record records[] = {
        {.key = ORR_LIT("x"), .value = {v, 1}},
        {.key = ORR_LIT("y"), .value = {v, 1}},
        {.key = ORR_LIT("x"), .is_gone = true},
    };
    assert_true(bed_wait_ticket(&bed, l, bed_put_all(&bed, l, records, 3)));
    assert_null(bed_get(&bed, l, "x"));
    assert_string_equal(bed_get(&bed, l, "y"), "v");
}

static void entry_of_an_old_term_is_dropped(void **state)
{
    (void)state;
    const unsigned l = bed_leader(&bed);
    struct orr_ledger *ledger = bed.hosts[l].ledger;
    const struct orr_rec_ledger_record record = {.key = ORR_LIT("old")};
    const struct orr_msg_ledger_append msg = {
        .term = 0, .ticket = 1, .records = {&record, 1}};
    uint8_t entry[256];
    size_t len;
    assert_int_equal(
        orr_msg_encode(orr_msg_desc_ledger_append(), &msg, entry, sizeof entry, &len),
        ORR_OK);
    ledger->ops->append(ledger, 0, 1, entry, len);
    bed_put_wait(&bed, l, "new", "1");
    assert_null(bed_get(&bed, l, "old"));
    assert_string_equal(bed_get(&bed, l, "new"), "1");
}

/* A hole in the tickets: what follows it must not be reported, and whoever appends must hear
 * that its term is over. */
static void lost_entry_ends_the_term(void **state)
{
    (void)state;
    const unsigned l = bed_leader(&bed);
    bed_put_wait(&bed, l, "a", "1");
    const uint64_t term = bed_news(&bed, l).term;
    bed.hosts[l].ticket++; /* one is lost */
    (void)bed_put(&bed, l, "b", "1");
    const unsigned next = bed_leader_above(&bed, term);
    assert_null(bed_get(&bed, next, "b"));
    bed_put_wait(&bed, next, "c", "1");
}

struct pages {
    unsigned n, n_records, n_reset;
    size_t bytes_max;
    uint64_t last, committed;
};

static void count_page(void *arg, const struct orr_msg_ledger_page *page)
{
    struct pages *p = arg;
    size_t bytes = 0;
    for (uint32_t i = 0; i < page->records.n; i++)
        bytes += page->records.at[i].key.len + page->records.at[i].value.len;
    p->n++;
    p->n_records += page->records.n;
    p->n_reset += page->is_reset;
    p->bytes_max = bytes > p->bytes_max ? bytes : p->bytes_max;
    p->last = page->last;
    p->committed = page->committed;
}

static void pages_are_bounded_and_complete(void **state)
{
    (void)state;
    const unsigned l = bed_leader(&bed);
    struct orr_ledger *ledger = bed.hosts[l].ledger;
    static char value[3001];
    memset(value, 'v', sizeof value - 1);
    uint64_t ticket = 0;
    for (int i = 0; i < 500; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        ticket = bed_put(&bed, l, key, value);
    }
    assert_true(bed_wait_ticket(&bed, l, ticket));
    struct pages p = {0};
    struct orr_ledger_reader reader = {0};
    do
        assert_int_equal(ledger->ops->read(ledger, &reader, p.last, count_page, &p),
                         ORR_OK);
    while (p.last < p.committed);
    assert_true(p.n_records >= 500 && p.n_records < 500 + BED_MAX + 1); /* and voters */
    assert_true(p.n >= 3 && p.n_reset == 0);
    assert_true(p.bytes_max <= ORR_LEDGER_PAGE_BYTES);
    const unsigned before = p.n_records; /* nothing new: an empty page */
    assert_int_equal(ledger->ops->read(ledger, &reader, p.last, count_page, &p),
                     ORR_OK);
    assert_true(p.n_records == before && p.last == p.committed);
}

static void info_tells_keys_and_leader(void **state)
{
    (void)state;
    const unsigned l = bed_leader(&bed);
    struct orr_ledger_info before, after;
    bed_put_wait(&bed, l, "warm", "up"); /* the records of voters are in as well */
    bed.hosts[l].ledger->ops->info(bed.hosts[l].ledger, &before);
    bed_put_wait(&bed, l, "key", "value");
    bed.hosts[l].ledger->ops->info(bed.hosts[l].ledger, &after);
    assert_true(after.news.is_leading && after.news.trouble.code == ORR_OK);
    assert_string_equal(after.news.leader, bed.hosts[l].name);
    assert_int_equal(after.keys, before.keys + 1);
    assert_true(after.digest != before.digest &&
                after.image_bytes > before.image_bytes);
    assert_int_equal(after.n_voters, bed.n);
    for (uint32_t i = 0; i < after.n_voters; i++)
        assert_true(after.voters[i].is_voting);
    bed_put_wait(&bed, l, "key", NULL);
    bed.hosts[l].ledger->ops->info(bed.hosts[l].ledger, &after);
    assert_int_equal(after.keys, before.keys);
    assert_int_equal(after.digest, before.digest);
}

static void detached_sink_is_not_called(void **state)
{
    (void)state;
    const unsigned l = bed_leader(&bed);
    struct orr_ledger *ledger = bed.hosts[l].ledger;
    const uint64_t ticket = bed_news(&bed, l).ticket;
    struct orr_ledger_info info;
    ledger->ops->attach(ledger, NULL);
    (void)bed_put(&bed, l, "unheard", "1");
    const uint64_t deadline = bed_now_ms() + WAIT_MS;
    do
        ledger->ops->info(ledger, &info);
    while (info.news.ticket == ticket && bed_now_ms() < deadline);
    assert_int_equal(info.news.ticket, ticket + 1);
    assert_int_equal(bed_news(&bed, l).ticket, ticket);
}

int main(void)
{
    static const char *const names[] = {"memory", "one voter", "three voters"};
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(entries_are_reported_in_order_and_read_back),
        T(newest_value_wins_and_gone_is_gone),
        T(entry_of_several_records_is_whole),
        T(entry_of_an_old_term_is_dropped),
        T(lost_entry_ends_the_term),
        T(pages_are_bounded_and_complete),
        T(info_tells_keys_and_leader),
        T(detached_sink_is_not_called),
    };
    int failed = 0;
    for (kind = BED_MEM; kind <= BED_RAFT3; kind++)
        failed += cmocka_run_group_tests_name(names[kind], tests, NULL, NULL);
    return failed;
}
