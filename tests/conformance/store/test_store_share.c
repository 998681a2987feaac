/* SPDX-License-Identifier: Apache-2.0
 * test_store_share.c - several processes share one directory: writers of the same content, and collections that
 * take garbage away while writers make it live again.
 */
#include "store_bed.h"

#include <sys/wait.h>
#include <unistd.h>

enum { WRITERS = 4, ROUNDS = 25, LEN = 3 * MIB + 5000, YOUNG_MS = 60000 };

static struct bed bed;
static struct orr_error err;

static int setup(void **state)
{
    (void)state;
    bed_init(&bed);
    bed_write(&bed, "a", LEN, 1);
    bed_write(&bed, "b", LEN, 2);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    bed_fini(&bed);
    return 0;
}

/* ---- children ---- */

static pid_t start(int (*work)(int n), int n)
{
    fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(work(n));
    return pid;
}

static void assert_ends_well(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int say(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, err.text);
    return 1;
}

/* Put both files, one after the other, and read them back. */
static int child_puts(int n)
{
    struct orr_store *s = bed_open(&bed, 2);
    struct orr_store_hash part;
    for (int i = 0; i < 2; i++) {
        const char *name = (i + n) % 2 ? "a" : "b";
        const enum orr_store_kind kind = n / 2 % 2 ? ORR_STORE_IMAGE : ORR_STORE_MEMORY;
        if (bed_put(s, &bed, name, kind, &part) != ORR_OK)
            return say("put");
        if (orr_store_verify(s, &part, NULL, NULL, &err) != ORR_OK)
            return say("verify");
    }
    orr_store_close(s);
    return 0;
}

/* Collect what is old: of what the round began with, all. */
static int child_collects(int n)
{
    struct orr_store *s = bed_open(&bed, 2);
    struct orr_store_gc_stats gc;
    (void)n;
    for (int i = 0; i < 3; i++)
        if (orr_store_gc(s, NULL, 0, YOUNG_MS, NULL, &gc, &err) != ORR_OK)
            return say("gc");
    orr_store_close(s);
    return 0;
}

/* ---- tests ---- */

static void writers_of_the_same_content_share_it(void **state)
{
    (void)state;
    struct orr_store *s = bed_open(&bed, 2);
    struct orr_store_usage usage;
    pid_t pids[WRITERS];
    for (int i = 0; i < WRITERS; i++)
        pids[i] = start(child_puts, i % 2);
    for (int i = 0; i < WRITERS; i++)
        assert_ends_well(pids[i]);
    assert_int_equal(orr_store_stat(s, &usage, &err), ORR_OK);
    assert_int_equal(usage.parts, 2);
    assert_int_equal(usage.chunks, 2 * 4);
    assert_int_equal(bed_count(&bed, "tmp"), 0);
    assert_int_equal(bed_count(&bed, "leases"), 0);
    orr_store_close(s);
}

/* All that is there is a day old and nobody's when the round begins: writers meet it, and collections want it. */
static void a_collection_takes_nothing_that_a_writer_has_met(void **state)
{
    (void)state;
    orr_store_close(bed_open(&bed, 1));
    for (int round = 0; round < ROUNDS; round++) {
        pid_t pids[WRITERS + 2];
        bed_age(&bed);
        for (int i = 0; i < WRITERS + 2; i++)
            pids[i] = start(i < WRITERS ? child_puts : child_collects, i);
        for (int i = 0; i < WRITERS + 2; i++)
            assert_ends_well(pids[i]);
    }
}

/* Between a collection's look at a chunk and its removal, a writer meets it: the removal looks again. */
static struct orr_store *other;
static int lock;
static bool is_met;

static int meet_before_unlink(const char *call, const char *name)
{
    struct orr_store_hash part;
    if (strcmp(call, "touch") == 0 || is_met || strcmp(call, "sync") != 0 ||
        strcmp(name, "parts") != 0)
        return 0;
    is_met = true; /* marking is done, sweeping of chunks is about to begin */
    orri_store_fault = NULL;
    assert_int_equal(bed_put(other, &bed, "a", ORR_STORE_MEMORY, &part), ORR_OK);
    orri_store_fault = meet_before_unlink;
    return 0;
}

static void what_is_met_after_marking_stays(void **state)
{
    (void)state;
    struct orr_store *s = bed_open(&bed, 2);
    struct orr_store_gc_stats gc;
    struct orr_store_hash a, b;
    assert_int_equal(bed_put(s, &bed, "a", ORR_STORE_MEMORY, &a), ORR_OK);
    assert_int_equal(bed_put(s, &bed, "b", ORR_STORE_MEMORY, &b), ORR_OK);
    bed_age(&bed);
    other = bed_open(&bed, 2);
    is_met = false;
    orri_store_fault = meet_before_unlink;
    assert_int_equal(orr_store_gc(s, NULL, 0, YOUNG_MS, NULL, &gc, &err), ORR_OK);
    orri_store_fault = NULL;
    assert_true(is_met);
    assert_int_equal(gc.chunks_removed, 4);
    assert_int_equal(orr_store_verify(s, &a, NULL, NULL, &err), ORR_OK);
    assert_int_equal(orr_store_verify(s, &b, NULL, NULL, &err), ORR_ENOENT);
    orr_store_close(other);
    orr_store_close(s);
}

static void the_last_look_and_the_removal_are_one(void **state)
{
    (void)state;
    struct orr_store *s = bed_open(&bed, 1);
    struct orr_store_hash part;
    struct timespec now, tomorrow;
    assert_int_equal(bed_put(s, &bed, "a", ORR_STORE_MEMORY, &part), ORR_OK);
    bed_age(&bed);
    lock = orri_lock_open(s);
    char hex[ORR_STORE_HEX_BYTES];
    orr_store_hex(&part, hex);
    clock_gettime(CLOCK_REALTIME, &now);
    now.tv_sec -= 3600;
    assert_int_equal(orri_io_touch(s->parts, hex),
                     0); /* met: its time is later than the cutoff */
    assert_int_equal(orri_remove_old(lock, s->parts, hex, &now, false), 0);
    clock_gettime(CLOCK_REALTIME, &tomorrow);
    tomorrow.tv_sec += 86400;
    assert_int_equal(orri_remove_old(lock, s->parts, hex, &tomorrow, false), 1);
    close(lock);
    orr_store_close(s);
}

/* A put that is under way holds a collection off what it has met, however long it takes. */
static atomic_bool is_collected;

static int collect_meanwhile(const char *call, const char *name)
{
    struct orr_store_gc_stats gc;
    (void)name;
    if (strcmp(call, "rename_new") != 0 || atomic_exchange(&is_collected, true))
        return 0;
    bed_age(&bed); /* as if the put had begun a day ago: its lease says so, too */
    char command[200];
    snprintf(command, sizeof command, "touch -d '25 hours ago' %s/leases/*", bed.store);
    assert_int_equal(system(command), 0);
    const orri_store_fault_f fault = orri_store_fault;
    orri_store_fault = NULL;
    assert_int_equal(orr_store_gc(other, NULL, 0, 1000, NULL, &gc, &err), ORR_OK);
    orri_store_fault = fault;
    assert_int_equal(gc.chunks_removed, 0);
    return 0;
}

static void a_long_put_keeps_what_it_met(void **state)
{
    (void)state;
    struct orr_store *s = bed_open(&bed, 1);
    struct orr_store_hash first, part;
    other = bed_open(&bed, 1);
    assert_int_equal(bed_put(s, &bed, "a", ORR_STORE_MEMORY, &first), ORR_OK);
    bed_write(&bed, "both", LEN, 1);
    char command[400];
    snprintf(command, sizeof command, "cat %s/b >> %s/both", bed.dir, bed.dir);
    assert_int_equal(system(command), 0);
    is_collected = false;
    orri_store_fault = collect_meanwhile;
    assert_int_equal(bed_put(s, &bed, "both", ORR_STORE_MEMORY, &part), ORR_OK);
    orri_store_fault = NULL;
    assert_true(is_collected);
    assert_int_equal(orr_store_verify(s, &part, NULL, NULL, &err), ORR_OK);
    orr_store_close(other);
    orr_store_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(writers_of_the_same_content_share_it),
        T(a_collection_takes_nothing_that_a_writer_has_met),
        T(what_is_met_after_marking_stays),
        T(the_last_look_and_the_removal_are_one),
        T(a_long_put_keeps_what_it_met),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
