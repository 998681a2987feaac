/* SPDX-License-Identifier: Apache-2.0
 * test_process_image.c - ranks with namespaces of their own: frozen, saved as an image by the real CRIU, and gone on with on another
 * node (another state directory).  Without root or CRIU the tests say so and are skipped.
 */
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "orr_test.h"

#include "process_fixture.h"

struct two { /* nodes */
    struct fixture *a, *b;
    uint64_t overlay;
};

static struct orr_process_launch launch_of(struct two *t,
                                           struct orr_process_id id,
                                           const char *address,
                                           struct orr_rec_text *args,
                                           const char *const *argv)
{
    uint32_t n = 0;
    for (; argv && argv[n]; n++)
        args[n].value = orr_str(argv[n]);
    return (struct orr_process_launch){.id = id,
                                       .device = 1,
                                       .command = {args, n},
                                       .workdir = ORR_LIT("/tmp"),
                                       .wants_image = true,
                                       .overlay = t->overlay,
                                       .address = orr_str(address),
                                       .hostname = ORR_LIT("rank-host")};
}

static struct told start(struct two *t,
                         struct fixture *f,
                         struct orr_process_id id,
                         const char *address,
                         const char *const *argv)
{
    struct orr_rec_text args[16];
    struct orr_process_launch launch = launch_of(t, id, address, args, argv);
    if (f->process->ops->launch(f->process, &launch, &f->err) != ORR_OK)
        fail_msg("%s", f->err.text);
    return fixture_wait_id(f, id, ORR_RANK_RUNNING);
}

static void restore(struct two *t,
                    struct fixture *f,
                    struct orr_process_id id,
                    const char *address,
                    const char *dir)
{
    struct orr_process_launch launch = launch_of(t, id, address, NULL, NULL);
    launch.restore_dir = orr_str(dir);
    if (f->process->ops->launch(f->process, &launch, &f->err) != ORR_OK)
        fail_msg("%s", f->err.text);
}

static int setup(void **state)
{
    struct two *t = calloc(1, sizeof *t);
    void *a, *b;
    assert_non_null(t);
    fixture_setup(&a);
    fixture_setup(&b);
    t->a = a;
    t->b = b;
    t->overlay = (uint64_t)getpid();
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct two *t = *state;
    void *a = t->a, *b = t->b;
    fixture_teardown(&a);
    fixture_teardown(&b);
    free(t);
    return 0;
}

static void counting_rank_goes_on_on_another_node(void **state)
{
    struct two *t = *state;
    char dir[100];
    struct orr_process_id first = {ORR_LIT("r1-a"), 1, 0},
                          second = {ORR_LIT("r1-a"), 2, 0};
    start(t,
          t->a,
          first,
          "",
          (const char *const[]){"sh",
                                "-c",
                                "i=0; while [ $i -lt 100 ]; do echo $i; i=$((i+1)); "
                                "sleep 0.02; done; exit 7",
                                NULL});
    fixture_wait_log(t->a, "r1-a", "20\n");
    snprintf(dir, sizeof dir, "%s/image", t->a->dir);
    struct finished image = fixture_image(t->a, first, dir, false);
    if (image.code != ORR_OK)
        fail_msg("%s", image.text);
    assert_int_equal(fixture_wait(t->a, "r1-a", ORR_RANK_EXITED).signal, SIGKILL);
    restore(t, t->b, second, "", dir);
    struct told told = fixture_wait_id(t->b, second, ORR_RANK_EXITED);
    assert_int_equal(told.exit_code, 7);
}

#define IMAGE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    int exit_code;
    if (fixture_dispatch(argc, argv, &exit_code))
        return exit_code;
    const struct CMUnitTest tests[] = {
        IMAGE_TEST(counting_rank_goes_on_on_another_node),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
