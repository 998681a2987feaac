/* SPDX-License-Identifier: Apache-2.0
 * test_ledger_model.c - the model of the replicated log keeps Raft's promises under crashes, partitions and failing disks:
 * what a leader called committed is in every image at the end, and images are equal.  One history is asserted by the model.
 */
#include "ledger_model.h"

#include "orr_test.h"

enum { REPLICAS = 5, STEPS = 6000, STEP_MS = 5, APPENDS = 4096 };

struct append {
    uint64_t term, ticket;
    uint32_t at;
    bool is_committed;
};

static uint64_t stream;
static uint32_t sides[REPLICAS];
static bool is_up[REPLICAS];
static struct append appends[APPENDS];
static uint32_t n_appends;
static struct orr_rec_ledger_record page[APPENDS];

static uint32_t pick(uint32_t n)
{
    uint64_t x = stream += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((x ^ (x >> 31)) % n);
}

static bool reaches(void *arg, uint32_t from, uint32_t to)
{
    (void)arg;
    return sides[from] == sides[to];
}

static void append(struct ledger *ledger, uint32_t at, uint64_t now)
{
    struct ledger_view view;
    char key[16];
    ledger_view(ledger, at, &view);
    uint64_t ticket = 1;
    for (uint32_t i = 0; i < n_appends; i++)
        if (appends[i].at == at && appends[i].term == view.term)
            ticket = appends[i].ticket + 1;
    if (!is_up[at] || !view.is_leading || n_appends == APPENDS)
        return;
    snprintf(key, sizeof(key), "k/%u", n_appends);
    const struct orr_rec_ledger_record record = {.key = orr_str(key),
                                                 .value = {(const uint8_t *)key, 3}};
    const struct orr_msg_ledger_append msg = {
        .term = view.term, .ticket = ticket, .records = {&record, 1}};
    appends[n_appends++] =
        (struct append){.term = view.term, .ticket = ticket, .at = at};
    ledger_append(ledger, at, &msg, now);
}

static void look(const struct ledger *ledger)
{
    for (uint32_t i = 0; i < n_appends; i++) {
        struct ledger_view view;
        ledger_view(ledger, appends[i].at, &view);
        if (is_up[appends[i].at] && view.term == appends[i].term &&
            view.ticket >= appends[i].ticket)
            appends[i].is_committed = true;
    }
}

static void fault(struct ledger *ledger, uint64_t now)
{
    uint32_t at = pick(REPLICAS);
    switch (pick(6)) {
    case 0:
        if (is_up[at])
            ledger_crash(ledger, at);
        else
            ledger_start(ledger, at, now);
        is_up[at] = !is_up[at];
        break;
    case 1:
        sides[at] = pick(2);
        break;
    case 2:
        ledger_disk_set(ledger, at, pick(2), now);
        break;
    default:
        if (!is_up[at])
            ledger_start(ledger, at, now);
        is_up[at] = true;
        sides[at] = 0;
        break;
    }
}

static void heal(struct ledger *ledger, uint64_t now)
{
    for (uint32_t i = 0; i < REPLICAS; i++) {
        sides[i] = 0;
        ledger_disk_set(ledger, i, true, now);
        if (!is_up[i])
            ledger_start(ledger, i, now);
        is_up[i] = true;
    }
}

static void check_images(const struct ledger *ledger)
{
    struct orr_msg_ledger_page all;
    const struct image *image = ledger_image(ledger, 0);
    uint32_t n_committed = 0;
    image_page(image, 0, false, APPENDS, page, APPENDS, &all);
    assert_int_equal(all.last, image->committed);
    for (uint32_t i = 0; i < n_appends; i++) {
        char key[16];
        snprintf(key, sizeof(key), "k/%u", i);
        uint32_t at = 0;
        while (at < all.records.n && !orr_str_eq(page[at].key, orr_str(key)))
            at++;
        if (appends[i].is_committed)
            assert_true(at < all.records.n);
        n_committed += appends[i].is_committed;
    }
    assert_true(n_committed > 20 && n_committed <= all.records.n);
    for (uint32_t i = 1; i < REPLICAS; i++) {
        assert_int_equal(ledger_image(ledger, i)->committed, image->committed);
        assert_int_equal(ledger_image(ledger, i)->digest, image->digest);
    }
}

static void what_was_committed_stays(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        const struct ledger_config config = {
            .seed = seed, .n_replicas = REPLICAS, .reaches = reaches};
        struct ledger *ledger;
        stream = seed;
        n_appends = 0;
        memset(sides, 0, sizeof(sides));
        memset(is_up, 0, sizeof(is_up));
        assert_int_equal(ledger_new(&config, &ledger), ORR_OK);
        heal(ledger, 0);
        uint64_t now = 0;
        for (uint32_t i = 0; i < STEPS; i++, now += STEP_MS) {
            ledger_step(ledger, now);
            look(ledger);
            if (pick(20) == 0)
                append(ledger, pick(REPLICAS), now);
            if (i < STEPS * 3 / 4 && pick(40) == 0)
                fault(ledger, now);
            if (i == STEPS * 3 / 4)
                heal(ledger, now);
        }
        for (uint64_t end = now + 1000; now < end; now += STEP_MS)
            ledger_step(ledger, now); /* nothing new: everybody catches up */
        look(ledger);
        check_images(ledger);
        ledger_free(ledger);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_committed_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
