/* SPDX-License-Identifier: Apache-2.0
 * test_process_lazy.c - ranks that run before their memory is there (lazy.h), with the real CRIU: a heap of which each word is known.
 *
 * What has to happen while memory is on its way happens while the program that brings it is frozen.  Without root or CRIU, or where
 * lazy restore does not work, the tests say so and are skipped.
 */
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "orr_test.h"

#include "image_fixture.h"
#include "rank_files.h"

#define MIB "256"

static const struct orr_process_id held = {{"r1-h", 4}, 1, 0};

static int open_rank(struct fixture *f, struct orr_process_id id)
{
    char path[200];
    snprintf(path,
             sizeof path,
             "%s/ranks/%s.%lu.%u",
             f->dir,
             id.job.ptr,
             (unsigned long)id.generation,
             id.rank);
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(dir >= 0);
    return dir;
}

static bool is_coming(struct fixture *f, struct orr_process_id id)
{
    int dir = open_rank(f, id);
    bool is_set = orri_mark_get(dir, ORRI_MARK_LAZY);
    close(dir);
    return is_set;
}

static void wait_there(struct fixture *f, struct orr_process_id id)
{
    for (int i = 0; is_coming(f, id); i++) {
        if (i == 20000)
            fail_msg("its memory does not come");
        usleep(1000);
    }
}

static pid_t bringer(struct fixture *f, struct orr_process_id id)
{
    struct orri_env env;
    int dir = open_rank(f, id);
    assert_int_equal(orri_env_read(dir, &env), ORRI_READ_OK);
    close(dir);
    return env.lazy;
}

static void make_image(struct two *t)
{
    image_start(t,
                t->a,
                held,
                SERVER,
                (const char *const[]){RANK_PROGRAM, "heap", MIB, t->a->dir, NULL});
    image_wait_progress(t->a, held, 0);
    image_ok(t->a, held, image_dir(t, "first"), false);
    fixture_wait_id(t->a, held, ORR_RANK_EXITED);
}

/* On the second node. */
static struct told restore(struct two *t, struct orr_process_id id, const char *image)
{
    image_restore(t, t->b, id, SERVER, image_dir(t, image));
    return fixture_wait_id(t->b, id, ORR_RANK_RUNNING);
}

static void slow_group(char path[ORRI_CGROUP_PATH_MAX])
{
    char name[32];
    snprintf(name, sizeof name, "orr-lazy-test-%d", (int)getpid());
    assert_true(orri_cgroup_path(name, path));
    assert_int_equal(orri_cgroup_make(path), 0);
}

/* Restored, and most of its memory is still to come; as often as it takes to be quick enough. */
static struct orr_process_id restore_and_hold(struct two *t, const char *group)
{
    struct orr_process_id id = held;
    for (int i = 0; i < 10; i++) {
        id.generation++;
        restore(t, id, "first");
        pid_t pid = bringer(t->b, id);
        assert_true(pid > 0);
        if (orri_cgroup_join(group, pid) == 0 &&
            orri_cgroup_freeze(group, true, 5000) == 0 && is_coming(t->b, id))
            return id;
        orri_cgroup_freeze(group, false, 5000);
        t->b->process->ops->signal(t->b->process, &id, SIGKILL, &t->b->err);
        fixture_wait_id(t->b, id, ORR_RANK_EXITED);
    }
    fail_msg("its memory is there before one can look");
    return id;
}

static void let_go(const char *group)
{
    assert_int_equal(orri_cgroup_freeze(group, false, 5000), 0);
    assert_int_equal(orri_cgroup_remove(group, 20000), 0);
}

/* All its memory is what it was. */
static void check_end(struct two *t, struct orr_process_id id)
{
    image_stop_pair(t);
    struct told told = fixture_wait_id(t->b, id, ORR_RANK_EXITED);
    assert_string_equal(told.reason, "exit code 7");
}

static void memory_that_comes_later_is_what_it_was(void **state)
{
    struct two *t = *state;
    struct orr_process_id id = held;
    char remove[300];
    make_image(t);
    id.generation = 2;
    restore(t, id, "first");
    assert_true(bringer(t->b, id) > 0);
    snprintf(remove, sizeof remove, "rm -r %s", image_dir(t, "first"));
    assert_int_equal(system(remove), 0); /* its names are not needed any more */
    check_end(t, id);
}

static void rank_that_loses_its_memory_is_lost_and_never_sees_zeros(void **state)
{
    struct two *t = *state;
    char group[ORRI_CGROUP_PATH_MAX];
    make_image(t);
    slow_group(group);
    struct orr_process_id id = restore_and_hold(t, group);
    kill(bringer(t->b, id), SIGKILL);
    image_stop_pair(t); /* it reads all of it now */
    let_go(group);
    struct told told = fixture_wait_id(t->b, id, ORR_RANK_LOST);
    assert_string_equal(told.reason,
                        "the program that brings its memory (criu lazy-pages) was "
                        "killed by signal 9 before all was there");
    char *errors = image_read_log(t->b, id, "stderr");
    assert_string_equal(errors, "");
    free(errors);
}

static void image_waits_for_the_memory_and_has_it_all(void **state)
{
    struct two *t = *state;
    char group[ORRI_CGROUP_PATH_MAX];
    make_image(t);
    slow_group(group);
    struct orr_process_id id = restore_and_hold(t, group);
    const struct orr_process_image early = {.dir = orr_str(image_dir(t, "early")),
                                            .leave_running = true,
                                            .timeout_ms = 200};
    uint64_t tag = ++t->b->n_tags;
    assert_int_equal(
        t->b->process->ops->image(t->b->process, &id, &early, tag, &t->b->err), ORR_OK);
    struct finished refused = fixture_finish(t->b, tag);
    assert_int_equal(refused.code, ORR_ETIMEOUT);
    assert_non_null(strstr(refused.text, "its memory is not all there yet"));
    assert_int_equal(fixture_image_begin(t->b, id, image_dir(t, "second"), false, &tag),
                     ORR_OK);
    let_go(group);
    struct finished image = fixture_finish(t->b, tag);
    if (image.code != ORR_OK)
        fail_msg("%s", image.text);
    fixture_wait_id(t->b, id, ORR_RANK_EXITED);
    id.generation = 50;
    restore(t, id, "second");
    check_end(t, id);
}

static void next_host_finds_a_rank_whose_memory_still_comes(void **state)
{
    struct two *t = *state;
    char group[ORRI_CGROUP_PATH_MAX];
    make_image(t);
    slow_group(group);
    struct orr_process_id id = restore_and_hold(t, group);
    fixture_close(t->b);
    fixture_open(t->b);
    fixture_wait_id(t->b, id, ORR_RANK_RUNNING);
    assert_true(is_coming(t->b, id));
    let_go(group);
    wait_there(t->b, id);
    image_ok(t->b, id, image_dir(t, "second"), true);
    check_end(t, id);
}

static void rank_whose_keeper_dies_takes_the_bringer_along(void **state)
{
    struct two *t = *state;
    char group[ORRI_CGROUP_PATH_MAX];
    make_image(t);
    slow_group(group);
    struct orr_process_id id = restore_and_hold(t, group);
    struct orri_meta meta;
    int dir = open_rank(t->b, id);
    assert_int_equal(orri_meta_read(dir, &meta), ORRI_READ_OK);
    close(dir);
    pid_t pid = bringer(t->b, id);
    kill(meta.keeper, SIGKILL);
    fixture_wait_id(t->b, id, ORR_RANK_LOST);
    let_go(group);
    fixture_wait_gone(pid);
}

static const char *lazy_why_skip(void)
{
    void *state;
    const char *why = image_why_skip();
    if (why)
        return why;
    image_setup(&state);
    struct two *t = state;
    bool is_so = fixture_ability(t->a) && !strstr(t->a->ability, "lazily");
    image_teardown(&state);
    return is_so ? NULL : "lazy restore does not work here";
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        IMAGE_TEST(memory_that_comes_later_is_what_it_was),
        IMAGE_TEST(rank_that_loses_its_memory_is_lost_and_never_sees_zeros),
        IMAGE_TEST(image_waits_for_the_memory_and_has_it_all),
        IMAGE_TEST(next_host_finds_a_rank_whose_memory_still_comes),
        IMAGE_TEST(rank_whose_keeper_dies_takes_the_bringer_along),
    };
    return image_main(argc, argv, tests, ORR_ARRAY_SIZE(tests), lazy_why_skip);
}
