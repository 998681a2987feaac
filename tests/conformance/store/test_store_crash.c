/* SPDX-License-Identifier: Apache-2.0
 * test_store_crash.c - kill -9 before every call that changes the directory, and every such call failing once: the
 * earlier part is whole, no part is there that is not, and the store goes on.
 */
#include "store_bed.h"

#include <errno.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

enum { EARLIER = 3 * MIB, NEWER = 2 * MIB + 200000, IMAGE = 300000, STEPS_MAX = 2000 };

static struct bed bed;
static struct orr_store_hash earlier;
static struct orr_error err;

#define OK(call)                                                                       \
    do {                                                                               \
        if ((call) != ORR_OK)                                                          \
            fail_msg("%s: %s", #call, err.text);                                       \
    } while (0)

static int setup(void **state)
{
    (void)state;
    bed_init(&bed);
    bed_write(&bed, "earlier", EARLIER, 1);
    bed_write(&bed, "newer", NEWER, 2);
    bed_write(&bed, "image", IMAGE, 3);
    struct orr_store *s = bed_open(&bed, 1);
    assert_int_equal(bed_put(s, &bed, "earlier", ORR_STORE_MEMORY, &earlier), ORR_OK);
    orr_store_close(s);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    bed_fini(&bed);
    return 0;
}

struct parts {
    struct orr_store_hash at[16];
    unsigned n;
};

static void
add_part(void *arg, const struct orr_store_hash *part, uint64_t changed_unix_ms)
{
    struct parts *p = arg;
    assert_true(p->n < ORR_ARRAY_SIZE(p->at) && changed_unix_ms > 0);
    p->at[p->n++] = *part;
}

/* What must hold after anything. */
static void assert_sound(struct orr_store *s)
{
    struct parts parts = {.n = 0};
    bool has_earlier = false;
    OK(orr_store_parts(s, add_part, &parts, &err));
    for (unsigned i = 0; i < parts.n; i++) {
        OK(orr_store_verify(s, &parts.at[i], NULL, NULL, &err));
        has_earlier |= memcmp(&parts.at[i], &earlier, sizeof earlier) == 0;
    }
    assert_true(has_earlier);
    const struct orr_store_target target = {"earlier", bed_path(&bed, "back")};
    OK(orr_store_get(s, &earlier, NULL, &target, 1, NULL, NULL, &err));
    assert_true(bed_has(&bed, "back", EARLIER, 1));
}

static void collect(struct orr_store *s)
{
    struct orr_store_gc_stats gc;
    OK(orr_store_gc(s, &earlier, 1, 0, NULL, &gc, &err));
}

/* ---- what the child does ---- */

static enum orr_err put_two(struct orr_store *s, struct orr_store_put_stats *stats)
{
    const struct orr_store_file files[] = {
        {.name = "newer", .path = bed_path(&bed, "newer"), .kind = ORR_STORE_MEMORY},
        {.name = "image", .path = bed_path(&bed, "image"), .kind = ORR_STORE_IMAGE}};
    return orr_store_put(s, files, 2, NULL, stats, &err);
}

static int child_puts(void *arg)
{
    struct orr_store_put_stats stats;
    struct orr_store *s = bed_open(&bed, 1);
    (void)arg;
    const enum orr_err code = put_two(s, &stats);
    orr_store_close(s);
    return (int)code;
}

static int child_collects(void *arg)
{
    struct orr_store_gc_stats gc;
    struct orr_store *s = bed_open(&bed, 1);
    (void)arg;
    const enum orr_err code = orr_store_gc(s, &earlier, 1, 0, NULL, &gc, &err);
    orr_store_close(s);
    return (int)code;
}

static int child_gets(void *arg)
{
    struct orr_store *s = bed_open(&bed, 1);
    const enum orr_err code =
        orr_store_get(s, &earlier, arg, NULL, 0, NULL, NULL, &err);
    orr_store_close(s);
    return (int)code;
}

static int child_fetches(void *arg)
{
    uint8_t *buf = malloc(ORR_STORE_OBJECT_MAX);
    struct orr_store *from = arg, *s = bed_open(&bed, 1);
    struct orr_store_fetch *fetch;
    struct orr_store_put_stats stats;
    const struct orr_store_hash *missing;
    size_t n, len;
    uint64_t size;
    orri_store_fault_f fault = orri_store_fault;
    orri_store_fault = NULL;
    enum orr_err code = put_two(from, &stats); /* there already: names the part */
    orri_store_fault = fault;
    if (!code)
        code = orr_store_fetch_begin(s, &stats.part, &fetch, &err);
    if (code)
        return code;
    code = orr_store_object_read(from,
                                 ORR_STORE_PART,
                                 &stats.part,
                                 0,
                                 buf,
                                 ORR_STORE_OBJECT_MAX,
                                 &len,
                                 &size,
                                 &err);
    if (!code)
        code = orr_store_fetch_part(fetch, buf, len, &err);
    if (!code)
        code = orr_store_fetch_missing(fetch, &missing, &n, &err);
    for (size_t i = 0; !code && i < n; i++) {
        code = orr_store_object_read(from,
                                     ORR_STORE_CHUNK,
                                     &missing[i],
                                     0,
                                     buf,
                                     ORR_STORE_OBJECT_MAX,
                                     &len,
                                     &size,
                                     &err);
        if (!code)
            code = orr_store_fetch_chunk(fetch, &missing[i], buf, len, &err);
    }
    const enum orr_err end = orr_store_fetch_end(fetch, !code, &err);
    orr_store_close(s);
    free(buf);
    return (int)(code ? code : end);
}

/* ---- killed ---- */

/* After each death: sound, and a collection clears away what the dead one left. */
static void assert_recovers(void)
{
    struct orr_store *s = bed_open(&bed, 2);
    assert_sound(s);
    collect(s);
    assert_int_equal(bed_count(&bed, "tmp"), 0);
    assert_int_equal(bed_count(&bed, "leases"), 0);
    assert_int_equal(bed_count(&bed, "parts"), 1);
    assert_int_equal(bed_count(&bed, "chunks"), 3);
    assert_int_equal(bed_count(&bed, "packs"), 0);
    assert_sound(s);
    orr_store_close(s);
}

static void a_put_that_is_killed_anywhere_leaves_what_was_there(void **state)
{
    (void)state;
    int status = 0;
    unsigned nth = 1;
    while (bed_kill_at(nth, child_puts, NULL, &status)) {
        assert_recovers();
        assert_true(++nth < STEPS_MAX);
    }
    assert_int_equal(status, ORR_OK);
    assert_true(nth > 40); /* there were that many places to die at */
    struct orr_store *s = bed_open(&bed, 2);
    assert_int_equal(bed_count(&bed, "parts"), 2);
    assert_sound(s);
    orr_store_close(s);
}

static int child_makes(void *arg)
{
    orr_store_close(bed_open(arg, 1));
    return 0;
}

static void a_store_whose_making_was_killed_is_made_by_the_next(void **state)
{
    (void)state;
    struct bed fresh = bed;
    int status = 0;
    unsigned nth = 1;
    snprintf(fresh.store, sizeof fresh.store, "%s/fresh", bed.dir);
    while (bed_kill_at(nth % 40, child_makes, &fresh, &status))
        assert_true(++nth < STEPS_MAX);
    assert_int_equal(status, 0);
    assert_true(nth > 8);
    struct orr_store *s = bed_open(&fresh, 1);
    struct orr_store_hash part;
    assert_int_equal(bed_put(s, &bed, "newer", ORR_STORE_MEMORY, &part), ORR_OK);
    orr_store_close(s);
}

static void a_fetch_that_is_killed_anywhere_leaves_what_was_there(void **state)
{
    (void)state;
    int status = 0;
    unsigned nth = 1;
    struct orr_store_put_stats stats;
    struct bed other = bed;
    snprintf(other.store, sizeof other.store, "%s/other", bed.dir);
    struct orr_store *from = bed_open(&other, 1);
    OK(put_two(from, &stats));
    while (bed_kill_at(nth, child_fetches, from, &status)) {
        assert_recovers();
        assert_true(++nth < STEPS_MAX);
    }
    assert_int_equal(status, ORR_OK);
    assert_true(nth > 40);
    struct orr_store *s = bed_open(&bed, 2);
    OK(orr_store_verify(s, &stats.part, NULL, NULL, &err));
    orr_store_close(s);
    orr_store_close(from);
}

static void
a_collection_that_is_killed_anywhere_takes_nothing_that_is_live(void **state)
{
    (void)state;
    int status = 0;
    unsigned nth = 1, last = UINT32_MAX;
    struct orr_store *s = bed_open(&bed, 2);
    struct orr_store_put_stats stats;
    OK(put_two(s, &stats)); /* garbage, for `earlier` is the only root */
    while (bed_kill_at(nth, child_collects, NULL, &status)) {
        const unsigned left = bed_count(&bed, "chunks");
        assert_true(left <= last);
        last = left;
        assert_sound(s);
        /* Each goes a step further than all before it, since what those removed is gone. */
        OK(put_two(s, &stats));
        assert_sound(s);
        last = UINT32_MAX;
        assert_true(++nth < STEPS_MAX);
    }
    assert_int_equal(status, ORR_OK);
    assert_int_equal(bed_count(&bed, "chunks"), 3);
    assert_sound(s);
    orr_store_close(s);
}

static void a_get_that_is_killed_anywhere_leaves_nothing_that_looks_whole(void **state)
{
    (void)state;
    int status = 0;
    unsigned nth = 1;
    char to[96];
    snprintf(to, sizeof to, "%s/out", bed.dir);
    while (bed_kill_at(nth, child_gets, to, &status)) {
        assert_true(access(bed_path(&bed, "out/earlier"), F_OK) != 0);
        assert_true(++nth < STEPS_MAX);
    }
    assert_int_equal(status, ORR_OK);
    assert_true(nth > 4);
    assert_true(bed_has(&bed, "out/earlier", EARLIER, 1));
}

/* ---- failing ---- */

static void a_call_that_fails_anywhere_fails_the_put_and_undoes_it(void **state)
{
    static const int whys[] = {ENOSPC, EIO};
    struct orr_store *s = bed_open(&bed, 2);
    struct orr_store_put_stats stats;
    (void)state;
    for (size_t w = 0; w < ORR_ARRAY_SIZE(whys); w++)
        for (unsigned nth = 1;; nth++) {
            struct orr_store_usage usage;
            bed_fail_at(nth, whys[w]);
            const enum orr_err code = put_two(s, &stats);
            const bool has_failed = bed_has_failed();
            bed_fail_at(0, 0);
            assert_sound(s);
            if (!has_failed) {
                assert_int_equal(code, ORR_OK);
                break;
            }
            assert_true(code == ORR_OK || code == ORR_EDISK);
            OK(orr_store_stat(s, &usage, &err));
            if (code &&
                usage.parts == 1) /* else the last sync failed, and the part stays */
            {
                assert_int_equal(usage.chunks, 3);
                assert_int_equal(bed_count(&bed, "packs"), 0);
            }
            collect(s);
            assert_true(nth < STEPS_MAX);
        }
    orr_store_close(s);
}

/* ---- order: what a machine that loses its power relies on ---- */

static struct {
    char call[16], name[STORE_NAME];
} calls[512];
static atomic_uint n_calls;

static int record_call(const char *call, const char *name)
{
    const unsigned i = atomic_fetch_add(&n_calls, 1);
    assert_true(i < ORR_ARRAY_SIZE(calls));
    snprintf(calls[i].call, sizeof calls[i].call, "%s", call);
    snprintf(calls[i].name, sizeof calls[i].name, "%s", name);
    return 0;
}

static unsigned first_call(const char *call, const char *name)
{
    for (unsigned i = 0; i < n_calls; i++)
        if (strcmp(calls[i].call, call) == 0 &&
            (!name || strcmp(calls[i].name, name) == 0))
            return i;
    return UINT32_MAX;
}

static unsigned last_call(const char *call, const char *name)
{
    unsigned found = 0;
    for (unsigned i = 0; i < n_calls; i++)
        if (strcmp(calls[i].call, call) == 0 &&
            (!name || strcmp(calls[i].name, name) == 0))
            found = i;
    return found;
}

static void chunks_are_on_disk_before_names_and_names_before_the_part(void **state)
{
    char hex[ORR_STORE_HEX_BYTES];
    struct orr_store_put_stats stats;
    struct orr_store *s = bed_open(&bed, 1);
    (void)state;
    n_calls = 0;
    orri_store_fault = record_call;
    OK(put_two(s, &stats));
    orri_store_fault = NULL;
    orr_store_hex(&stats.part, hex);
    const unsigned part = first_call("rename", hex);
    const unsigned name = first_call("rename_new", NULL);
    assert_true(part != UINT32_MAX && name != UINT32_MAX);
    unsigned n_shards = 0;
    for (unsigned i = name; i < part; i++)
        n_shards += strcmp(calls[i].call, "sync") == 0 && strlen(calls[i].name) == 2;
    assert_true(first_call("sync", "chunk") < name); /* one batch here */
    assert_true(first_call("sync", "pack") < first_call("sync", "packs"));
    assert_true(first_call("sync", "packs") < first_call("symlink", NULL));
    assert_true(last_call("symlink", NULL) < first_call("write", calls[part - 2].name));
    assert_true(last_call("rename_new", NULL) <
                first_call("write", calls[part - 2].name));
    assert_true(n_shards >= 4); /* each directory with a new name */
    assert_string_equal(calls[part - 1].call, "sync"); /* the part's bytes */
    assert_string_equal(calls[part + 1].call, "sync"); /* and its name */
    assert_string_equal(calls[part + 1].name, "parts");
    orr_store_close(s);
}

/* ---- a disk that is full ---- */

static void a_full_disk_is_told_and_leaves_what_was_there(void **state)
{
    struct bed small = bed;
    struct orr_store_hash kept, part;
    char mounted[96];
    (void)state;
    snprintf(mounted, sizeof mounted, "%s/small", bed.dir);
    snprintf(small.store, sizeof small.store, "%s/small/store", bed.dir);
    assert_int_equal(mkdir(mounted, 0700), 0);
    if (mount("tmpfs", mounted, "tmpfs", 0, "size=6m") != 0) {
        print_message("skipped: cannot mount a small tmpfs here: %s\n",
                      strerror(errno));
        skip();
    }
    struct orr_store *s = bed_open(&small, 2);
    bed_write(&bed, "big", 16 * MIB, 4);
    bed_write(&bed, "fits", 2 * MIB, 5);
    const enum orr_err first = bed_put(s, &bed, "earlier", ORR_STORE_MEMORY, &kept);
    struct orr_store_put_stats stats;
    const struct orr_store_file big = {
        .name = "big", .path = bed_path(&bed, "big"), .kind = ORR_STORE_MEMORY};
    const enum orr_err full = orr_store_put(s, &big, 1, NULL, &stats, &err);
    char text[sizeof err.text];
    memcpy(text, err.text, sizeof text);
    const enum orr_err whole = orr_store_verify(s, &kept, NULL, NULL, &err);
    const enum orr_err then = bed_put(s, &bed, "fits", ORR_STORE_MEMORY, &part);
    orr_store_close(s);
    assert_int_equal(umount(mounted), 0);
    assert_int_equal(first, ORR_OK);
    assert_int_equal(full, ORR_EDISK);
    assert_non_null(strstr(text, "orrery checkpoint rm"));
    assert_int_equal(whole, ORR_OK);
    assert_int_equal(then, ORR_OK); /* what the failed one had written is gone */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(a_put_that_is_killed_anywhere_leaves_what_was_there),
        T(a_store_whose_making_was_killed_is_made_by_the_next),
        T(a_fetch_that_is_killed_anywhere_leaves_what_was_there),
        T(a_collection_that_is_killed_anywhere_takes_nothing_that_is_live),
        T(a_get_that_is_killed_anywhere_leaves_nothing_that_looks_whole),
        T(a_call_that_fails_anywhere_fails_the_put_and_undoes_it),
        T(chunks_are_on_disk_before_names_and_names_before_the_part),
        T(a_full_disk_is_told_and_leaves_what_was_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
