/* SPDX-License-Identifier: Apache-2.0
 * test_ledger_disk.c - a ledger on a file system without room: a small tmpfs, where the test may
 * mount one; else it is skipped and says so.
 */
#include "ledger_bed.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DISK_BYTES = 48 << 20, VALUE_BYTES = 64 << 10 };

static struct bed bed;
static bool has_disk;
static char value[VALUE_BYTES + 1];

static int setup(void **state)
{
    char options[64];
    (void)state;
    bed_init(&bed, BED_RAFT1);
    memset(value, 'v', VALUE_BYTES);
    snprintf(options, sizeof options, "size=%d", DISK_BYTES);
    assert_int_equal(mkdir(bed.hosts[0].dir, 0700), 0);
    has_disk = mount("tmpfs", bed.hosts[0].dir, "tmpfs", 0, options) == 0;
    if (!has_disk)
        print_message("skipped: no small file system: mount: %s\n", strerror(errno));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    bed_close_host(&bed, 0);
    if (has_disk)
        assert_int_equal(umount2(bed.hosts[0].dir, MNT_DETACH), 0);
    bed_fini(&bed);
    return 0;
}

static void filler(char *path, size_t cap)
{
    snprintf(path, cap, "%s/filler", bed.hosts[0].dir);
}

static void fill_disk(void)
{
    char path[512];
    ssize_t n;
    filler(path, sizeof path);
    const int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    while ((n = write(fd, value, VALUE_BYTES)) > 0)
        ;
    assert_int_equal(errno, ENOSPC);
    close(fd);
}

static void free_disk(void)
{
    char path[512];
    filler(path, sizeof path);
    assert_int_equal(unlink(path), 0);
}

static bool has_ticket_or_trouble(const struct orr_ledger_news *news, uint64_t ticket)
{
    return news->trouble.code != ORR_OK || news->ticket >= ticket;
}

static bool leads_without_trouble(const struct orr_ledger_news *news, uint64_t term)
{
    return news->trouble.code == ORR_OK && news->is_leading && news->term > term;
}

/* Append bursts until the disk is full; returns how many were reported. */
static uint64_t put_until_full(void)
{
    const uint64_t before = bed.hosts[0].told;
    for (unsigned n = 0; n < 2 * DISK_BYTES / VALUE_BYTES;) {
        uint64_t ticket = 0;
        for (unsigned end = n + 50; n < end; n++) {
            char key[32];
            snprintf(key, sizeof key, "k%u", n);
            ticket = bed_put(&bed, 0, key, value);
        }
        assert_true(bed_wait(&bed, 0, has_ticket_or_trouble, ticket));
        if (bed_news(&bed, 0).trouble.code != ORR_OK)
            return bed.hosts[0].told - before;
    }
    fail_msg("the disk does not get full");
    return 0;
}

static void
full_disk_is_told_and_nothing_is_acknowledged_until_there_is_room(void **state)
{
    (void)state;
    char key[32];
    if (!has_disk)
        skip();
    bed_open(&bed);
    bed_put_wait(&bed, 0, "before", "1");
    fill_disk();
    const uint64_t n = put_until_full();
    const struct orr_ledger_news news = bed_news(&bed, 0);
    assert_int_equal(news.trouble.code, ORR_EDISK);
    assert_non_null(strstr(news.trouble.text, bed.hosts[0].dir));
    assert_non_null(strstr(news.trouble.text, "make room"));
    assert_false(news.is_leading);
    assert_string_equal(bed_get(&bed, 0, "before"),
                        "1"); /* it can be read all the time */

    free_disk();
    assert_true(bed_wait(&bed, 0, leads_without_trouble, news.term - 1));
    bed_put_wait(&bed, 0, "after", "1");
    assert_string_equal(bed_get(&bed, 0, "after"), "1");
    for (uint64_t i = 0; i < n; i++) {
        snprintf(key, sizeof key, "k%llu", (unsigned long long)i);
        if (!bed_get(&bed, 0, key))
            fail_msg(
                "%s of %llu was reported and is not there", key, (unsigned long long)n);
    }
    bed_close_host(&bed, 0);
    bed_open(&bed);
    assert_string_equal(bed_get(&bed, 0, "after"), "1");
    assert_string_equal(bed_get(&bed, 0, "before"), "1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(full_disk_is_told_and_nothing_is_acknowledged_until_there_is_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
