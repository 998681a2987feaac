/* SPDX-License-Identifier: Apache-2.0
 * test_ledger_voters.c - several voters: who leads, who comes, who goes, who catches up.
 */
#include "ledger_bed.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

static struct bed bed;

static int setup(void **state)
{
    (void)state;
    bed_init(&bed, BED_RAFT3);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    bed_fini(&bed);
    return 0;
}

static void put_many(unsigned at, unsigned n, const char *prefix)
{
    uint64_t ticket = 0;
    for (unsigned i = 0; i < n; i++) {
        char key[64];
        snprintf(key, sizeof key, "%s%u", prefix, i);
        ticket = bed_put(&bed, at, key, key);
    }
    assert_true(bed_wait_ticket(&bed, at, ticket));
}

static bool has_leader(const struct orr_ledger_news *news, uint64_t arg)
{
    (void)arg;
    return news->leader[0] != '\0' && !news->is_leading;
}

static void all_have_the_same_image_and_know_who_leads(void **state)
{
    (void)state;
    bed_open(&bed);
    const unsigned l = bed_leader(&bed);
    put_many(l, 500, "k");
    for (unsigned i = 0; i < 3; i++) {
        if (i == l)
            continue;
        assert_true(bed_wait(&bed, i, has_leader, 0));
        assert_string_equal(bed_news(&bed, i).leader, bed.hosts[l].name);
        bed_expect_equal(&bed, l, i);
        assert_string_equal(bed_get(&bed, i, "k499"), "k499");
    }
}

static void others_go_on_when_the_leader_stops(void **state)
{
    (void)state;
    bed_open(&bed);
    const unsigned first = bed_leader(&bed);
    put_many(first, 100, "one");
    const uint64_t term = bed_news(&bed, first).term;
    bed_close_host(&bed, first);
    const unsigned second = bed_leader(&bed);
    assert_true(second != first && bed_news(&bed, second).term > term);
    assert_string_equal(bed_get(&bed, second, "one99"), "one99");
    put_many(second, 100, "two");
    bed_open(&bed); /* it comes back and reads what it missed */
    bed_expect_equal(&bed, bed_leader(&bed), first);
    assert_string_equal(bed_get(&bed, first, "two99"), "two99");
}

static void minority_does_not_report_anything(void **state)
{
    (void)state;
    bed_open(&bed);
    const unsigned l = bed_leader(&bed);
    put_many(l, 10, "k");
    const uint64_t ticket = bed_news(&bed, l).ticket, term = bed_news(&bed, l).term;
    for (unsigned i = 0; i < 3; i++)
        if (i != l)
            bed_close_host(&bed, i);
    (void)bed_put(&bed, l, "alone", "1");
    const uint64_t deadline = bed_now_ms() + WAIT_MS;
    while (bed_news(&bed, l).is_leading && bed_now_ms() < deadline)
        assert_false(bed_news(&bed, l).term == term &&
                     bed_news(&bed, l).ticket > ticket);
    assert_false(bed_news(&bed, l).is_leading); /* it steps down by itself */
    assert_int_equal(bed_news(&bed, l).ticket, 0);
    assert_null(bed_get(&bed, l, "alone"));
    bed_open(&bed);
    put_many(bed_leader(&bed), 10, "again");
}

static bool both_follow_the_third(const struct bed *b)
{
    return strcmp(b->hosts[0].news.leader, "h3") == 0 &&
           strcmp(b->hosts[1].news.leader, "h3") == 0;
}

static bool one_of_ours_or_the_third_leads(const struct bed *b)
{
    return b->hosts[0].news.is_leading || b->hosts[1].news.is_leading ||
           both_follow_the_third(b);
}

/* The leader lives in a child, which is stopped like a machine that hangs. */
static void others_elect_when_the_leader_hangs(void **state)
{
    (void)state;
    int pipe_fds[2];
    bed.election_ms = bed.heartbeat_ms = 0; /* as in production */
    assert_int_equal(pipe(pipe_fds), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct orr_error err;
        char byte;
        alarm(60);
        close(pipe_fds[1]);
        if (bed_open_host(&bed, 2, false, &err) != ORR_OK) {
            fprintf(stderr, "the voter in the child: %s\n", err.text);
            _exit(2);
        }
        _exit(read(pipe_fds[0], &byte, 1) == 0 ? 0 : 3); /* until the test ends */
    }
    close(pipe_fds[0]);
    struct orr_error err;
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(bed_open_host(&bed, i, false, &err), ORR_OK);
    do { /* whoever of ours leads hands over, until the child does */
        for (unsigned i = 0; i < 2; i++)
            if (bed_news(&bed, i).is_leading)
                (void)bed_move(&bed, i, "h3");
        if (!bed_wait_all(&bed, one_of_ours_or_the_third_leads))
            fail_msg("nobody leads");
        if (waitpid(pid, NULL, WNOHANG) != 0)
            fail_msg("the voter in the child has ended");
    } while (bed_news(&bed, 0).is_leading || bed_news(&bed, 1).is_leading);
    const uint64_t term = bed_news(&bed, 0).term;
    kill(pid, SIGSTOP);
    const uint64_t stopped = bed_now_ms();
    const unsigned next = bed_leader_above(&bed, term);
    print_message("a new leader after %llu ms\n",
                  (unsigned long long)(bed_now_ms() - stopped));
    assert_true(bed_now_ms() - stopped < 15000); /* 5 s on a machine that has time */
    put_many(next, 50, "k");
    kill(pid, SIGCONT);
    put_many(next, 50, "l");
    close(pipe_fds[1]);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void leadership_moves_when_asked(void **state)
{
    (void)state;
    bed_open(&bed);
    const unsigned l = bed_leader(&bed), to = (l + 1) % 3;
    put_many(l, 100, "k");
    const uint64_t term = bed_news(&bed, l).term;
    assert_int_equal(bed_move(&bed, l, bed.hosts[l].name).code,
                     ORR_OK); /* it leads already */
    assert_int_equal(bed_move(&bed, l, "nobody").code, ORR_EINVAL);
    struct orr_error err = bed_move(&bed, l, bed.hosts[to].name);
    if (err.code != ORR_OK)
        fail_msg("%s", err.text);
    assert_int_equal(bed_leader_above(&bed, term), to);
    err = bed_move(&bed, l, "");
    assert_int_equal(err.code, ORR_ENOTLEADER);
    put_many(to, 100, "l");
    err = bed_move(&bed, to, "");
    assert_int_equal(err.code, ORR_OK);
}

static void host_joins_and_leaves(void **state)
{
    (void)state;
    struct orr_error err;
    struct orr_ledger_info info;
    bed_open(&bed);
    const unsigned l = bed_leader(&bed);
    put_many(l, 500, "k");
    assert_int_equal(bed_open_host(&bed, 3, true, &err), ORR_OK);
    err = bed_add(&bed, l, 3);
    if (err.code != ORR_OK)
        fail_msg("%s", err.text);
    bed_expect_equal(&bed, l, 3);
    assert_int_equal(bed_add(&bed, l, 3).code, ORR_OK); /* again: nothing to do */
    bed.hosts[l].ledger->ops->info(bed.hosts[l].ledger, &info);
    assert_int_equal(info.n_voters, 4);
    for (uint32_t i = 0; i < 4; i++)
        assert_true(info.voters[i].is_voting && info.voters[i].endpoint[0]);

    err = bed_remove(&bed, l, "h4");
    if (err.code != ORR_OK)
        fail_msg("%s", err.text);
    assert_int_equal(bed_remove(&bed, l, "h4").code, ORR_ENOENT);
    bed_put_wait(&bed, l, "after", "1");
    bed.hosts[l].ledger->ops->info(bed.hosts[l].ledger, &info);
    assert_int_equal(info.n_voters, 3);
}

static void leader_can_remove_itself(void **state)
{
    (void)state;
    bed_open(&bed);
    const unsigned l = bed_leader(&bed);
    put_many(l, 50, "k");
    const uint64_t term = bed_news(&bed, l).term;
    const struct orr_error err = bed_remove(&bed, l, bed.hosts[l].name);
    if (err.code != ORR_OK)
        fail_msg("%s", err.text);
    const unsigned next = bed_leader_above(&bed, term);
    assert_true(next != l);
    put_many(next, 50, "l");
    assert_string_equal(bed_get(&bed, next, "k49"), "k49");
}

static void address_off_loopback_is_refused(void **state)
{
    (void)state;
    bed_open(&bed);
    const unsigned l = bed_leader(&bed);
    snprintf(bed.hosts[3].address, sizeof bed.hosts[3].address, "10.1.2.3:7000");
    const struct orr_error err = bed_add(&bed, l, 3);
    assert_int_equal(err.code, ORR_EINVAL);
    assert_non_null(strstr(err.text, "loopback"));
    put_many(l, 10, "k");
}

static void late_voter_gets_a_snapshot(void **state)
{
    (void)state;
    bed.snapshot_log_bytes = 64 << 10;
    bed_open(&bed);
    const unsigned l = bed_leader(&bed), late = (l + 1) % 3;
    bed_close_host(&bed, late);
    for (int round = 0; round < 30; round++)
        put_many(l, 300, "k");
    bed_open(&bed);
    bed_expect_equal(&bed, bed_leader(&bed), late);
    assert_string_equal(bed_get(&bed, late, "k299"), "k299");
    put_many(bed_leader(&bed), 10, "l");
    bed_expect_equal(&bed, bed_leader(&bed), late);
}

static void only_voter_gets_an_address_and_company(void **state)
{
    (void)state;
    struct orr_error err;
    bed.n = 1;
    bed_open(&bed);
    put_many(0, 100, "k");
    err = bed_add(&bed, 0, 3);
    assert_int_equal(err.code, ORR_EINVAL);
    assert_non_null(strstr(err.text, "ledger.address"));
    assert_int_equal(bed_remove(&bed, 0, "h1").code,
                     ORR_EINVAL); /* the last one stays */
    bed_close_host(&bed, 0);
    bed.has_addresses = true;
    bed_open(&bed);
    assert_int_equal(bed_open_host(&bed, 3, true, &err), ORR_OK);
    err = bed_add(&bed, 0, 3);
    if (err.code != ORR_OK)
        fail_msg("%s", err.text);
    bed_expect_equal(&bed, 0, 3);
    const uint64_t term = bed_news(&bed, 0).term;
    err = bed_move(&bed, 0, "h4"); /* it knows the new address of the first */
    if (err.code != ORR_OK)
        fail_msg("%s", err.text);
    assert_int_equal(bed_leader_above(&bed, term), 3);
    put_many(3, 100, "l");
    bed_expect_equal(&bed, 3, 0);
    assert_string_equal(bed_get(&bed, 0, "l99"), "l99");
}

static atomic_uint n_answered, n_busy;

static void count_answer(void *arg, const struct orr_error *result)
{
    (void)arg;
    n_answered++;
    n_busy += result->code == ORR_EBUSY;
}

/* Behind a change that does not come to an end: the host that is added is not there. */
static void requests_that_wait_are_bounded(void **state)
{
    (void)state;
    enum { BATCHES = 6, EACH = 32 };
    bed.n = 1;
    bed.has_addresses = true;
    bed_open(&bed);
    put_many(0, 10, "k");
    struct orr_ledger *ledger = bed.hosts[0].ledger;
    const struct bed_host *away = &bed.hosts[3];
    n_answered = n_busy = 0;
    ledger->ops->voter_add(ledger,
                           orr_str(away->name),
                           orr_str(away->address),
                           orr_str(away->endpoint),
                           count_answer,
                           NULL);
    for (unsigned batch = 0; batch < BATCHES; batch++) {
        for (unsigned i = 0; i < EACH; i++)
            ledger->ops->voter_remove(ledger, ORR_LIT("nobody"), count_answer, NULL);
        bed_put_wait(&bed, 0, "turn", "1"); /* the ledger has taken them up */
    }
    assert_true(n_busy >= (BATCHES - 2) * EACH);
    bed_close_host(&bed, 0);
    assert_int_equal(n_answered, 1 + BATCHES * EACH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(others_elect_when_the_leader_hangs), /* first: it forks before there are threads */
        T(all_have_the_same_image_and_know_who_leads),
        T(others_go_on_when_the_leader_stops),
        T(minority_does_not_report_anything),
        T(leadership_moves_when_asked),
        T(host_joins_and_leaves),
        T(leader_can_remove_itself),
        T(address_off_loopback_is_refused),
        T(late_voter_gets_a_snapshot),
        T(only_voter_gets_an_address_and_company),
        T(requests_that_wait_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
