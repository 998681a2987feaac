/* SPDX-License-Identifier: Apache-2.0
 * test_process_signals.c - what every implementation of the process op table must do with signals, leases and what is kept
 * about both.
 */
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "orr_test.h"

#include "process_fixture.h"

/* ---- signals
 * ---------------------------------------------------------------------------------------
 */

static void signal_reaches_the_whole_group(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(
        fixture_sh(
            f, "r1-a", "trap 'echo got it; exit 5' TERM; echo up; sleep 1000 & wait"),
        ORR_OK);
    fixture_wait(f, "r1-a", ORR_RANK_RUNNING);
    fixture_wait_log(f, "r1-a", "up");
    assert_int_equal(fixture_signal(f, "r1-a", SIGTERM), ORR_OK);
    struct told t = fixture_wait(f, "r1-a", ORR_RANK_EXITED);
    assert_int_equal(t.exit_code, 5);
    assert_true(t.is_told);
    assert_int_equal(fixture_signal(f, "r1-a", SIGTERM), ORR_EGONE);
    assert_int_equal(fixture_signal(f, "r1-b", SIGTERM), ORR_ENOENT);
    assert_int_equal(fixture_signal(f, "r1-a", 0), ORR_EINVAL);
}

static void signal_before_the_start_is_not_lost(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(fixture_sh(f, "r1-a", "sleep 1000"), ORR_OK);
    assert_int_equal(fixture_signal(f, "r1-a", SIGKILL), ORR_OK);
    struct told t = fixture_wait(f, "r1-a", ORR_RANK_EXITED);
    assert_int_equal(t.signal, SIGKILL);
    assert_true(t.is_told);
}

static void killed_rank_is_told_with_its_signal(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(fixture_sh(f, "r1-a", "sleep 1000"), ORR_OK);
    struct told t = fixture_wait(f, "r1-a", ORR_RANK_RUNNING);
    assert_int_equal(kill((pid_t)t.pid, SIGKILL), 0);
    t = fixture_wait(f, "r1-a", ORR_RANK_EXITED);
    assert_int_equal(t.signal, SIGKILL);
    assert_string_equal(t.reason, "killed by signal 9 (SIGKILL)");
    assert_false(t.is_told); /* by us */
}

/* Not even where its host dies in between. */
static void end_that_was_asked_for_is_never_the_programs(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(
        fixture_sh(
            f,
            "r1-a",
            "trap 'sleep 0.2; exit 0' TERM; echo up; while :; do sleep 0.01; done"),
        ORR_OK);
    assert_int_equal(fixture_sh(f, "r1-b", "exit 3"), ORR_OK);
    fixture_wait(f, "r1-a", ORR_RANK_RUNNING);
    fixture_wait_log(f, "r1-a", "up");
    assert_false(fixture_wait(f, "r1-b", ORR_RANK_EXITED).is_told);
    assert_int_equal(fixture_signal(f, "r1-b", SIGTERM), ORR_EGONE);
    assert_int_equal(fixture_signal(f, "r1-a", SIGCONT), ORR_OK);
    assert_int_equal(fixture_signal(f, "r1-a", SIGTERM), ORR_OK);
    fixture_close(f);
    f->n_told = 0;
    fixture_open(f);
    fixture_attach(f);
    struct told t = fixture_wait(f, "r1-a", ORR_RANK_EXITED);
    assert_int_equal(t.exit_code, 0);
    assert_true(t.is_told);
    assert_false(fixture_wait(f, "r1-b", ORR_RANK_EXITED).is_told);
}

static void wait_state(uint32_t pid, char want)
{
    char path[64], text[512];
    char state = 0;
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    for (int i = 0; i < 20000 && state != want; i++) {
        FILE *in = fopen(path, "re");
        size_t n = in ? fread(text, 1, sizeof text - 1, in) : 0;
        if (in)
            fclose(in);
        text[n] = '\0';
        const char *end = strrchr(text, ')');
        state = end ? end[2] : 0;
        if (state != want)
            usleep(1000);
    }
    assert_int_equal(state, want);
}

/* By the keeper alone: the host does nothing, and may be gone. */
static void rank_is_frozen_when_the_lease_ends_and_thawed_by_cont(void **state)
{
    struct fixture *f = *state;
    uint64_t silent_ms = 0;
    assert_false(f->process->ops->lease_get(f->process, &silent_ms));
    f->process->ops->lease_set(f->process, 400, 1000);
    assert_int_equal(fixture_sh(f, "r1-a", "exec sleep 1000"), ORR_OK);
    struct told t = fixture_wait(f, "r1-a", ORR_RANK_RUNNING);
    wait_state(t.pid, 'T');
    fixture_close(f);
    fixture_open(f);
    fixture_attach(f);
    fixture_wait(f, "r1-a", ORR_RANK_RUNNING);
    assert_true(f->process->ops->lease_get(f->process, &silent_ms));
    assert_true(silent_ms >= 1400 && silent_ms < 60000);
    wait_state(t.pid, 'T');
    assert_int_equal(fixture_signal(f, "r1-a", SIGCONT), ORR_EBUSY); /* it came late */
    wait_state(t.pid, 'T');
    f->process->ops->lease_set(f->process, UINT64_MAX, 0);
    assert_int_equal(fixture_signal(f, "r1-a", SIGCONT), ORR_OK);
    wait_state(t.pid, 'S');
    f->process->ops->lease_set(f->process, 100, 0); /* and once more */
    wait_state(t.pid, 'T');
    assert_int_equal(fixture_signal(f, "r1-a", SIGKILL), ORR_OK);
    fixture_wait(f, "r1-a", ORR_RANK_EXITED);
}

/* Renewed while the keeper is still making sure that all stand still: what it stops after the renewal must go on, too. */
static void lease_renewed_while_the_rank_is_being_frozen(void **state)
{
    struct fixture *f = *state;
    f->process->ops->lease_set(f->process, UINT64_MAX, 0);
    assert_int_equal(fixture_sh(f, "r1-a", "exec sleep 1000"), ORR_OK);
    struct told t = fixture_wait(f, "r1-a", ORR_RANK_RUNNING);
    for (int i = 0; i < 20; i++) {
        f->process->ops->lease_set(f->process, 1, 0);
        wait_state(t.pid, 'T');
        f->process->ops->lease_set(f->process, UINT64_MAX, 0);
        assert_int_equal(fixture_signal(f, "r1-a", SIGCONT), ORR_OK);
        wait_state(t.pid, 'S');
    }
}

static void rank_does_not_start_when_the_lease_is_over(void **state)
{
    struct fixture *f = *state;
    f->process->ops->lease_set(f->process, 0, 1000);
    assert_int_equal(fixture_sh(f, "r1-a", "echo ran"), ORR_OK);
    struct told t = fixture_wait(f, "r1-a", ORR_RANK_LOST);
    assert_non_null(strstr(t.reason, "lease"));
    f->process->ops->lease_set(f->process, UINT64_MAX, 0);
    assert_int_equal(fixture_sh(f, "r1-b", "echo ran"), ORR_OK);
    fixture_wait(f, "r1-b", ORR_RANK_EXITED);
}

/* It would run whatever the cluster says. */
static void rank_does_not_start_without_a_lease(void **state)
{
    struct fixture *f = *state;
    char path[128];
    snprintf(path, sizeof path, "%s/lease", f->config.state_dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(fixture_sh(f, "r1-a", "echo ran"), ORR_OK);
    struct told t = fixture_wait(f, "r1-a", ORR_RANK_LOST);
    assert_non_null(strstr(t.reason, "lease"));
}

static void note_is_found_by_the_next_host(void **state)
{
    struct fixture *f = *state;
    struct orr_error err;
    char text[16] = "";
    assert_int_equal(f->process->ops->note_get(f->process, text, sizeof text), 0);
    const struct orr_bytes note = {(const uint8_t *)"n1 n2", 5};
    assert_int_equal(f->process->ops->note_put(f->process, note, &err), ORR_OK);
    fixture_close(f);
    fixture_open(f);
    assert_int_equal(f->process->ops->note_get(f->process, text, sizeof text), 5);
    assert_memory_equal(text, "n1 n2", 5);
    const struct orr_bytes large = {note.ptr, 1 << 30};
    assert_int_equal(f->process->ops->note_put(f->process, large, &err), ORR_ENOSPC);
}

static void stop_is_found_by_the_next_host(void **state)
{
    struct fixture *f = *state;
    struct orr_error err;
    const struct orr_process_id id = {ORR_LIT("r1-a"), 1, 0},
                                none = {ORR_LIT("x"), 1, 0};
    const struct orr_process_stop stop = {
        .cut = 9, .step = ORR_CUT_QUIESCE, .device = 3};
    assert_int_equal(fixture_sh(f, "r1-a", "sleep 1000"), ORR_OK);
    fixture_wait(f, "r1-a", ORR_RANK_RUNNING);
    assert_int_equal(f->process->ops->stop_note(f->process, &id, &stop, &err), ORR_OK);
    assert_int_equal(f->process->ops->stop_note(f->process, &none, &stop, &err),
                     ORR_ENOENT);
    assert_int_equal(fixture_freeze(f, id, true).code, ORR_OK);
    fixture_close(f);
    f->n_told = 0; /* what follows is of the next host */
    fixture_open(f);
    fixture_attach(f);
    struct told t = fixture_wait(f, "r1-a", ORR_RANK_RUNNING);
    assert_int_equal(t.cut, 9);
    assert_int_equal(t.cut_step, ORR_CUT_QUIESCE);
    assert_int_equal(t.device, 3);
    assert_true(t.is_frozen);
    assert_int_equal(fixture_signal(f, "r1-a", SIGKILL), ORR_OK);
    fixture_wait(f, "r1-a", ORR_RANK_EXITED);
    assert_int_equal(f->process->ops->stop_note(f->process, &id, &stop, &err),
                     ORR_EGONE);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        FIXTURE_TEST(signal_reaches_the_whole_group),
        FIXTURE_TEST(signal_before_the_start_is_not_lost),
        FIXTURE_TEST(killed_rank_is_told_with_its_signal),
        FIXTURE_TEST(end_that_was_asked_for_is_never_the_programs),
        FIXTURE_TEST(rank_is_frozen_when_the_lease_ends_and_thawed_by_cont),
        FIXTURE_TEST(lease_renewed_while_the_rank_is_being_frozen),
        FIXTURE_TEST(rank_does_not_start_when_the_lease_is_over),
        FIXTURE_TEST(rank_does_not_start_without_a_lease),
        FIXTURE_TEST(note_is_found_by_the_next_host),
        FIXTURE_TEST(stop_is_found_by_the_next_host),
    };
    return fixture_main(argc, argv, tests, ORR_ARRAY_SIZE(tests));
}
