/* SPDX-License-Identifier: Apache-2.0
 * test_process_image.c - ranks with namespaces of their own: frozen, saved as an image by the real CRIU, and gone on with on another
 * node (another state directory).  Without root or CRIU the tests say so and are skipped.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "orr_test.h"

#include "image_fixture.h"

static void counting_rank_goes_on_on_another_node(void **state)
{
    struct two *t = *state;
    char dir[100];
    struct orr_process_id first = {ORR_LIT("r1-a"), 1, 0},
                          second = {ORR_LIT("r1-a"), 2, 0};
    image_start(
        t,
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
    image_restore(t, t->b, second, "", dir);
    struct told told = fixture_wait_id(t->b, second, ORR_RANK_EXITED);
    assert_int_equal(told.exit_code, 7);
}

static void both_ends_of_a_connection_move(void **state)
{
    struct two *t = *state;
    image_start_pair(t, t->a, t->a);
    image_freeze_ok(t->a, server1, true);
    image_freeze_ok(t->a, client1, true);
    image_ok(t->a, server1, image_dir(t, "s"), false);
    image_ok(t->a, client1, image_dir(t, "c"), false);
    fixture_wait_id(t->a, server1, ORR_RANK_EXITED);
    fixture_wait_id(t->a, client1, ORR_RANK_EXITED);
    char *said = image_read_log(t->a, server1, "stdout");
    unsigned long n = image_count_lines(said);
    free(said);
    image_restore(t, t->b, server2, SERVER, image_dir(t, "s"));
    image_restore(t, t->b, client2, CLIENT, image_dir(t, "c"));
    image_wait_progress(t->b, server2, n);
    image_wait_progress(t->b, client2, n);
    image_stop_pair(t);
    image_check_ends(t->b, server2, t->b, client2);
}

static void one_end_of_a_connection_moves(void **state)
{
    struct two *t = *state;
    image_start_pair(t, t->a, t->a);
    image_ok(t->a, server1, image_dir(t, "s"), false);
    fixture_wait_id(t->a, server1, ORR_RANK_EXITED);
    char *said = image_read_log(t->a, server1, "stdout");
    unsigned long n = image_count_lines(said);
    free(said);
    image_restore(t, t->b, server2, SERVER, image_dir(t, "s"));
    image_wait_progress(t->b, server2, n);
    image_stop_pair(t);
    image_check_ends(t->b, server2, t->a, client1);
}

static void image_of_a_running_rank_leaves_it_running(void **state)
{
    struct two *t = *state;
    image_start_pair(t, t->a, t->a);
    unsigned long n = 0;
    for (int i = 0; i < 3; i++) {
        char name[8];
        snprintf(name, sizeof name, "s%d", i);
        image_ok(t->a, server1, image_dir(t, name), true);
        n = image_wait_progress(t->a, client1, n);
    }
    image_stop_pair(t);
    image_check_ends(t->a, server1, t->a, client1);
}

/* A caller that has gone before its call was taken: CRIU cannot save that. */
static void call_and_go(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    close(fd);
}

static void frozen_rank_takes_the_calls_of_those_who_have_gone(void **state)
{
    struct two *t = *state;
    struct orr_process_id id = {ORR_LIT("r1-a"), 1, 0};
    char path[100], script[400];
    snprintf(path, sizeof path, "%s/door", t->a->dir);
    snprintf(script,
             sizeof script,
             "import socket, itertools\n"
             "s = socket.socket(socket.AF_UNIX)\n"
             "s.bind('%s')\n"
             "s.listen(9)\n"
             "for i in itertools.count():\n"
             "    print(i, flush=True)\n"
             "    s.accept()\n",
             path);
    image_start(t, t->a, id, "", (const char *const[]){"python3", "-c", script, NULL});
    fixture_wait_log(t->a, "r1-a", "0\n");
    image_freeze_ok(t->a, id, true);
    call_and_go(path);
    image_ok(t->a, id, image_dir(t, "s"), true);
    fixture_wait_log(t->a, "r1-a", "1\n");
    call_and_go(path); /* and is frozen still */
    assert_false(image_makes_progress(t->a, id));
    image_freeze_ok(t->a, id, false);
    fixture_wait_log(t->a, "r1-a", "2\n");
}

/* ---- ends
 * ------------------------------------------------------------------------------------------ */

static const struct orr_process_id one = {{"r1-a", 4}, 1, 0};

static void end_of_a_rank_with_namespaces_is_exact(void **state)
{
    struct two *t = *state;
    static const struct {
        const char *script, *reason;
    } ends[] = {
        {"exit 255", "exit code 255"},
        {"kill -KILL $$; sleep 10", "killed by signal 9 (SIGKILL)"},
        {"kill -SEGV $$; sleep 10", "killed by signal 11 (SIGSEGV)"},
        {"sleep 1000 & setsid sleep 1000 & exit 3", "exit code 3"},
        {"exec python3 -c 'import threading,os,ctypes,time; "
         "threading.Thread(target=lambda:(time.sleep(.1),os._exit(9))).start();"
         "ctypes.CDLL(None).pthread_exit(None)'",
         "exit code 9"},
    };
    for (size_t i = 0; i < ORR_ARRAY_SIZE(ends); i++) {
        struct orr_process_id id = {ORR_LIT("r1-e"), 1, (uint32_t)i};
        struct orr_rec_text args[4];
        struct orr_process_launch launch =
            image_launch_of(t,
                            id,
                            CLIENT,
                            args,
                            (const char *const[]){"sh", "-c", ends[i].script, NULL});
        assert_int_equal(t->a->process->ops->launch(t->a->process, &launch, &t->a->err),
                         ORR_OK);
        assert_string_equal(fixture_wait_id(t->a, id, ORR_RANK_EXITED).reason,
                            ends[i].reason);
    }
}

static void program_that_is_not_there_fails_with_its_name(void **state)
{
    struct two *t = *state;
    struct orr_rec_text args[4];
    struct orr_process_launch launch =
        image_launch_of(t, one, CLIENT, args, (const char *const[]){"./no-such", NULL});
    assert_int_equal(t->a->process->ops->launch(t->a->process, &launch, &t->a->err),
                     ORR_OK);
    assert_string_equal(fixture_wait_id(t->a, one, ORR_RANK_FAILED).reason,
                        "cannot execute ./no-such: No such file or directory");
}

static void rank_has_its_own_names_and_level(void **state)
{
    struct two *t = *state;
    assert_true(fixture_ability(t->a));
    struct told told = image_start(
        t,
        t->a,
        one,
        CLIENT,
        (const char *const[]){
            "sh", "-c", "hostname; echo $$; cat /proc/net/fib_trie; sleep 1000", NULL});
    fixture_wait_log(t->a, "r1-a", "10.77.0.2");
    assert_int_equal(told.level, ORR_LEVEL_IMAGE);
    assert_int_equal(strncmp(fixture_log(t->a, "r1-a", 1), "rank-host\n2\n", 12), 0);
    assert_int_equal(kill((pid_t)told.pid, 0), 0); /* the rank's, as seen from here */
}

static void address_that_is_none_leaves_the_rank_without_namespaces(void **state)
{
    struct two *t = *state;
    struct told told = image_start(
        t, t->a, one, "10.77.0.2", (const char *const[]){"sleep", "1000", NULL});
    assert_int_equal(told.level, ORR_LEVEL_INPLACE);
    assert_string_equal(told.why,
                        "cannot make namespaces of its own, address: Invalid argument");
    struct finished image = fixture_image(t->a, one, image_dir(t, "s"), true);
    assert_int_equal(image.code, ORR_ENOSYS);
    assert_non_null(strstr(image.text, "Invalid argument"));
}

/* ---- freezing
 * ------------------------------------------------------------------------------------ */

static void frozen_rank_stands_still_until_it_is_thawed(struct two *t, bool wants_image)
{
    if (wants_image)
        image_start(
            t, t->a, one, CLIENT, (const char *const[]){"sh", "-c", COUNT, NULL});
    else
        assert_int_equal(fixture_sh(t->a, "r1-a", COUNT), ORR_OK);
    fixture_wait(t->a, "r1-a", ORR_RANK_RUNNING);
    fixture_wait_log(t->a, "r1-a", "10\n");
    for (int i = 0; i < 3; i++) {
        image_freeze_ok(t->a, one, true);
        assert_false(image_makes_progress(t->a, one));
        image_freeze_ok(t->a, one, false);
        assert_true(image_makes_progress(t->a, one));
    }
    image_freeze_ok(
        t->a,
        one,
        true); /* the next host knows it, and one that is frozen can be killed */
    fixture_close(t->a);
    fixture_open(t->a);
    fixture_wait(t->a, "r1-a", ORR_RANK_RUNNING);
    assert_false(image_makes_progress(t->a, one));
    assert_int_equal(
        t->a->process->ops->signal(t->a->process, &one, SIGCONT, &t->a->err), ORR_OK);
    assert_false(image_makes_progress(t->a, one));
    assert_int_equal(
        t->a->process->ops->signal(t->a->process, &one, SIGKILL, &t->a->err), ORR_OK);
    assert_int_equal(fixture_wait(t->a, "r1-a", ORR_RANK_EXITED).signal, SIGKILL);
}

static void freeze_works_with_namespaces(void **state)
{
    frozen_rank_stands_still_until_it_is_thawed(*state, true);
}

static void freeze_works_without_namespaces(void **state)
{
    frozen_rank_stands_still_until_it_is_thawed(*state, false);
}

static void thaw_does_not_thaw_what_the_lease_froze(void **state)
{
    struct two *t = *state;
    struct orr_process *p = t->a->process;
    image_start(
        t,
        t->a,
        one,
        CLIENT,
        (const char *const[]){"sh", "-c", "(setsid sh -c '" COUNT "') & wait", NULL});
    fixture_wait_log(t->a, "r1-a", "10\n");
    image_freeze_ok(t->a, one, true);
    p->ops->lease_set(p, 1, 0);
    usleep(20000); /* the keeper may be late; frozen or not, nothing runs */
    image_freeze_ok(t->a, one, false);
    while (image_makes_progress(t->a, one))
        ; /* until the keeper has looked; the test's own limit ends it */
    assert_false(image_makes_progress(t->a, one));
    p->ops->lease_set(p, 60000, 0);
    assert_false(image_makes_progress(t->a, one));
    assert_int_equal(p->ops->signal(p, &one, SIGCONT, &t->a->err), ORR_OK);
    assert_true(image_makes_progress(t->a, one));
}

/* ---- a rank that changes node while its job waits ---- */

static enum orr_err join(struct two *t, struct fixture *f, const char *dir)
{
    struct orr_process_launch launch = image_launch_of(t, server1, SERVER, NULL, NULL);
    launch.restore_dir = orr_str(dir);
    launch.stays_frozen = true;
    return f->process->ops->launch(f->process, &launch, &f->err);
}

/* The copy at `to` stands still until it is thawed, and the one at `from` until it is killed; nobody sees its end. */
static void move_server(struct two *t, struct fixture *from, struct fixture *to)
{
    const char *dir = image_dir(t, from == t->a ? "there" : "back");
    unsigned long n = image_wait_progress(t->a, client1, 0);
    image_freeze_ok(from, server1, true);
    image_ok(from, server1, dir, true);
    enum orr_err rc = join(t, to, dir);
    while (rc == ORR_EBUSY) { /* what it was here before is moved to the logs */
        usleep(1000);
        rc = join(t, to, dir);
    }
    if (rc != ORR_OK)
        fail_msg("%s", to->err.text);
    fixture_wait_id(to, server1, ORR_RANK_RUNNING);
    assert_false(image_makes_progress(to, server1));
    fixture_close(to); /* the next host knows it */
    fixture_open(to);
    fixture_wait_id(to, server1, ORR_RANK_RUNNING);
    assert_false(image_makes_progress(to, server1));
    assert_int_equal(
        from->process->ops->signal(from->process, &server1, SIGKILL, &from->err),
        ORR_OK);
    fixture_wait_id(from, server1, ORR_RANK_EXITED);
    image_freeze_ok(to, server1, false);
    image_wait_progress(t->a, client1, n);
}

static void rank_joins_frozen_and_comes_back(void **state)
{
    struct two *t = *state;
    image_start_pair(t, t->a, t->a);
    move_server(t, t->a, t->b);
    assert_int_equal(join(t, t->a, image_dir(t, "there")), ORR_EEXIST);
    assert_int_equal(t->a->process->ops->forget(t->a->process, &server1, &t->a->err),
                     ORR_OK);
    move_server(t, t->b, t->a);
    image_stop_pair(t);
    image_check_ends(t->a, server1, t->a, client1);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        IMAGE_TEST(counting_rank_goes_on_on_another_node),
        IMAGE_TEST(both_ends_of_a_connection_move),
        IMAGE_TEST(one_end_of_a_connection_moves),
        IMAGE_TEST(rank_joins_frozen_and_comes_back),
        IMAGE_TEST(image_of_a_running_rank_leaves_it_running),
        IMAGE_TEST(frozen_rank_takes_the_calls_of_those_who_have_gone),
        IMAGE_TEST(end_of_a_rank_with_namespaces_is_exact),
        IMAGE_TEST(program_that_is_not_there_fails_with_its_name),
        IMAGE_TEST(rank_has_its_own_names_and_level),
        IMAGE_TEST(address_that_is_none_leaves_the_rank_without_namespaces),
        IMAGE_TEST(freeze_works_with_namespaces),
        IMAGE_TEST(freeze_works_without_namespaces),
        IMAGE_TEST(thaw_does_not_thaw_what_the_lease_froze),
    };
    return image_main(argc, argv, tests, ORR_ARRAY_SIZE(tests), image_why_skip);
}
