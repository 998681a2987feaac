/* SPDX-License-Identifier: Apache-2.0
 * test_process_image.c - ranks with namespaces of their own: frozen, saved as an image by the real CRIU, and gone on with on another
 * node (another state directory).  Without root or CRIU the tests say so and are skipped.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "orr_test.h"

#include "process_fixture.h"
#include "rank_files.h"

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

static void name_prefix(struct fixture *f, char prefix[ORRI_RANK_NAME_MAX])
{
    char path[100];
    snprintf(path, sizeof path, "%s/ranks", f->dir);
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    orri_rank_name(dir, "", prefix);
    close(dir);
}

/* Bridges, and cgroups that begin so. */
static bool is_clean(struct two *t, const char *prefix)
{
    char path[ORRI_CGROUP_PATH_MAX], bridge[64];
    const struct orri_overlay_plan plan = {
        .id = t->overlay, .rank = "", .address = "x", .underlay = ""};
    snprintf(
        bridge, sizeof bridge, "/sys/class/net/%s", orri_overlay_names(&plan).bridge);
    assert_true(orri_cgroup_path("", path));
    bool is_clean = access(bridge, F_OK) != 0;
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir && (entry = readdir(dir)))
        is_clean = is_clean && strncmp(entry->d_name, prefix, strlen(prefix)) != 0;
    closedir(dir);
    return is_clean;
}

static int teardown(void **state)
{
    struct two *t = *state;
    void *a = t->a, *b = t->b;
    char of_a[ORRI_RANK_NAME_MAX], of_b[ORRI_RANK_NAME_MAX];
    name_prefix(t->a, of_a);
    name_prefix(t->b, of_b);
    fixture_teardown(&a);
    fixture_teardown(&b);
    int ms = 0;
    while ((!is_clean(t, of_a) || !is_clean(t, of_b)) &&
           ms++ < 5000) /* keepers come to their end */
        usleep(1000);
    free(t);
    if (ms < 5000)
        return 0;
    print_error("a bridge or a cgroup is left behind\n");
    return -1;
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

/* ---- two ranks that talk
 * ------------------------------------------------------------------------ */

static const struct orr_process_id server1 = {{"r1-t", 4}, 1, 0},
                                   client1 = {{"r1-t", 4}, 1, 1},
                                   server2 = {{"r1-t", 4}, 2, 0},
                                   client2 = {{"r1-t", 4}, 2, 1};
#define SERVER "10.77.0.1/16"
#define CLIENT "10.77.0.2/16"

static char *read_log(struct fixture *f, struct orr_process_id id, const char *name)
{
    char path[300];
    size_t cap = 4 << 20;
    char *text = malloc(cap);
    snprintf(path,
             sizeof path,
             "%s/ranks/%s.%lu.%u/%s",
             f->dir,
             id.job.ptr,
             (unsigned long)id.generation,
             id.rank,
             name);
    FILE *file = fopen(path, "re");
    size_t n = file && text ? fread(text, 1, cap - 1, file) : 0;
    assert_non_null(text);
    text[n] = '\0';
    if (file)
        fclose(file);
    return text;
}

/* How many lines, which must be 0, 1, 2, ... */
static unsigned long count_lines(const char *text)
{
    unsigned long n = 0;
    char *end;
    for (const char *at = text; *at; at = end + 1, n++) {
        unsigned long value = strtoul(at, &end, 10);
        if (*end == '\0')
            return n; /* being written */
        if (value != n || *end != '\n')
            fail_msg("line %lu: %.20s", n, at);
    }
    return n;
}

/* Until that many more were printed than there were. */
static unsigned long
wait_progress(struct fixture *f, struct orr_process_id id, unsigned long from)
{
    unsigned long n = 0;
    for (int i = 0; i < 10000; i++) {
        char *text = read_log(f, id, "stdout"), *errors = read_log(f, id, "stderr");
        n = count_lines(text);
        if (*errors)
            fail_msg("%s", errors);
        free(text);
        free(errors);
        if (n >= from + 20)
            return n;
        usleep(2000);
    }
    fail_msg("%lu lines, no more than before", n);
    return 0;
}

static void start_pair(struct two *t, struct fixture *server, struct fixture *client)
{
    start(t,
          server,
          server1,
          SERVER,
          (const char *const[]){RANK_PROGRAM, "server", "-", t->a->dir, NULL});
    start(t,
          client,
          client1,
          CLIENT,
          (const char *const[]){RANK_PROGRAM, "client", "10.77.0.1", t->a->dir, NULL});
    wait_progress(server, server1, 0);
    wait_progress(client, client1, 0);
}

static void stop_pair(struct two *t)
{
    char path[100];
    snprintf(path, sizeof path, "%s/stop", t->a->dir);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fclose(file);
}

static const char *image_dir(struct two *t, const char *name)
{
    static char dirs[4][100];
    static int next;
    char *dir = dirs[next++ % 4];
    snprintf(dir, sizeof dirs[0], "%s/%s", t->a->dir, name);
    return dir;
}

static void image_ok(struct fixture *f,
                     struct orr_process_id id,
                     const char *dir,
                     bool leave_running)
{
    struct finished image = fixture_image(f, id, dir, leave_running);
    if (image.code != ORR_OK)
        fail_msg("%s", image.text);
    print_message("image: %lu KiB, %lu ms, %lu ms of them paused\n",
                  (unsigned long)image.bytes >> 10,
                  (unsigned long)image.took_ms,
                  (unsigned long)image.paused_ms);
}

static void freeze_ok(struct fixture *f, struct orr_process_id id, bool is_frozen)
{
    struct finished result = fixture_freeze(f, id, is_frozen);
    if (result.code != ORR_OK)
        fail_msg("%s", result.text);
}

static void check_ends(struct fixture *server,
                       struct orr_process_id server_id,
                       struct fixture *client,
                       struct orr_process_id client_id)
{
    struct told s = fixture_wait_id(server, server_id, ORR_RANK_EXITED);
    struct told c = fixture_wait_id(client, client_id, ORR_RANK_EXITED);
    assert_string_equal(c.reason, "killed by signal 12 (SIGUSR2)");
    assert_string_equal(s.reason, "exit code 7");
    char *said = read_log(server, server_id, "stdout"),
         *heard = read_log(client, client_id, "stdout");
    assert_int_equal(count_lines(said), count_lines(heard));
    free(said);
    free(heard);
}

static void both_ends_of_a_connection_move(void **state)
{
    struct two *t = *state;
    start_pair(t, t->a, t->a);
    freeze_ok(t->a, server1, true);
    freeze_ok(t->a, client1, true);
    image_ok(t->a, server1, image_dir(t, "s"), false);
    image_ok(t->a, client1, image_dir(t, "c"), false);
    fixture_wait_id(t->a, server1, ORR_RANK_EXITED);
    fixture_wait_id(t->a, client1, ORR_RANK_EXITED);
    char *said = read_log(t->a, server1, "stdout");
    unsigned long n = count_lines(said);
    free(said);
    restore(t, t->b, server2, SERVER, image_dir(t, "s"));
    restore(t, t->b, client2, CLIENT, image_dir(t, "c"));
    wait_progress(t->b, server2, n);
    wait_progress(t->b, client2, n);
    stop_pair(t);
    check_ends(t->b, server2, t->b, client2);
}

static void one_end_of_a_connection_moves(void **state)
{
    struct two *t = *state;
    start_pair(t, t->a, t->a);
    image_ok(t->a, server1, image_dir(t, "s"), false);
    fixture_wait_id(t->a, server1, ORR_RANK_EXITED);
    char *said = read_log(t->a, server1, "stdout");
    unsigned long n = count_lines(said);
    free(said);
    restore(t, t->b, server2, SERVER, image_dir(t, "s"));
    wait_progress(t->b, server2, n);
    stop_pair(t);
    check_ends(t->b, server2, t->a, client1);
}

static void image_of_a_running_rank_leaves_it_running(void **state)
{
    struct two *t = *state;
    start_pair(t, t->a, t->a);
    unsigned long n = 0;
    for (int i = 0; i < 3; i++) {
        char name[8];
        snprintf(name, sizeof name, "s%d", i);
        image_ok(t->a, server1, image_dir(t, name), true);
        n = wait_progress(t->a, client1, n);
    }
    stop_pair(t);
    check_ends(t->a, server1, t->a, client1);
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
            launch_of(t,
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
        launch_of(t, one, CLIENT, args, (const char *const[]){"./no-such", NULL});
    assert_int_equal(t->a->process->ops->launch(t->a->process, &launch, &t->a->err),
                     ORR_OK);
    assert_string_equal(fixture_wait_id(t->a, one, ORR_RANK_FAILED).reason,
                        "cannot execute ./no-such: No such file or directory");
}

static void rank_has_its_own_names_and_level(void **state)
{
    struct two *t = *state;
    assert_true(fixture_ability(t->a));
    struct told told = start(
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
    struct told told =
        start(t, t->a, one, "10.77.0.2", (const char *const[]){"sleep", "1000", NULL});
    assert_int_equal(told.level, ORR_LEVEL_INPLACE);
    assert_string_equal(told.why,
                        "cannot make namespaces of its own, address: Invalid argument");
    struct finished image = fixture_image(t->a, one, image_dir(t, "s"), true);
    assert_int_equal(image.code, ORR_ENOSYS);
    assert_non_null(strstr(image.text, "Invalid argument"));
}

/* ---- freezing
 * ------------------------------------------------------------------------------------ */

static bool makes_progress(struct fixture *f, struct orr_process_id id)
{
    char *before = read_log(f, id, "stdout"), *after = NULL;
    bool is_more = false;
    for (int i = 0; i < 100 && !is_more; i++) {
        usleep(2000);
        free(after);
        after = read_log(f, id, "stdout");
        is_more = strlen(after) > strlen(before);
    }
    free(before);
    free(after);
    return is_more;
}

#define COUNT "i=0; while :; do echo $i; i=$((i+1)); sleep 0.005; done"

static void frozen_rank_stands_still_until_it_is_thawed(struct two *t, bool wants_image)
{
    if (wants_image)
        start(t, t->a, one, CLIENT, (const char *const[]){"sh", "-c", COUNT, NULL});
    else
        assert_int_equal(fixture_sh(t->a, "r1-a", COUNT), ORR_OK);
    fixture_wait(t->a, "r1-a", ORR_RANK_RUNNING);
    fixture_wait_log(t->a, "r1-a", "10\n");
    for (int i = 0; i < 3; i++) {
        freeze_ok(t->a, one, true);
        assert_false(makes_progress(t->a, one));
        freeze_ok(t->a, one, false);
        assert_true(makes_progress(t->a, one));
    }
    freeze_ok(t->a,
              one,
              true); /* the next host knows it, and one that is frozen can be killed */
    fixture_close(t->a);
    fixture_open(t->a);
    fixture_wait(t->a, "r1-a", ORR_RANK_RUNNING);
    assert_false(makes_progress(t->a, one));
    assert_int_equal(
        t->a->process->ops->signal(t->a->process, &one, SIGCONT, &t->a->err), ORR_OK);
    assert_false(makes_progress(t->a, one));
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
    start(t,
          t->a,
          one,
          CLIENT,
          (const char *const[]){"sh", "-c", "(setsid sh -c '" COUNT "') & wait", NULL});
    fixture_wait_log(t->a, "r1-a", "10\n");
    freeze_ok(t->a, one, true);
    p->ops->lease_set(p, 1, 0);
    usleep(20000); /* the keeper may be late; frozen or not, nothing runs */
    freeze_ok(t->a, one, false);
    while (makes_progress(t->a, one))
        ; /* until the keeper has looked; the test's own limit ends it */
    assert_false(makes_progress(t->a, one));
    p->ops->lease_set(p, 60000, 0);
    assert_false(makes_progress(t->a, one));
    assert_int_equal(p->ops->signal(p, &one, SIGCONT, &t->a->err), ORR_OK);
    assert_true(makes_progress(t->a, one));
}

/* ---- what goes wrong
 * ----------------------------------------------------------------------------- */

static void image_that_fails_leaves_the_rank_unharmed(void **state)
{
    struct two *t = *state;
    const char *dir = image_dir(t, "full");
    assert_int_equal(mkdir(dir, 0700), 0);
    start_pair(t, t->a, t->a);
    assert_int_equal(mount("none", dir, "tmpfs", 0, "size=64k"), 0);
    for (int i = 0; i < 2; i++) { /* of a running one, and of a frozen one */
        struct finished image = fixture_image(t->a, server1, dir, i == 0);
        print_message("%s\n", image.text);
        assert_int_equal(image.code, ORR_EIO);
        unlink(image_dir(t, "full/dump.log"));
        if (i == 0)
            wait_progress(t->a, server1, wait_progress(t->a, client1, 0));
        freeze_ok(t->a, server1, i == 0);
    }
    assert_int_equal(umount(dir), 0);
    wait_progress(t->a, server1, wait_progress(t->a, client1, 0));
    assert_int_equal(fixture_image(t->a, server1, t->a->dir, true).code, ORR_EEXIST);
    stop_pair(t);
    check_ends(t->a, server1, t->a, client1);
}

static bool read_stat(pid_t pid, char comm[32], pid_t *ret_parent)
{
    char path[64], buf[256];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    bool is_read = file && fgets(buf, sizeof buf, file) &&
                   sscanf(buf, "%*d (%31[^)]) %*c %d", comm, ret_parent) == 2;
    if (file)
        fclose(file);
    return is_read;
}

static bool is_below(pid_t pid, pid_t ancestor)
{
    char comm[32];
    for (int i = 0; i < 16 && pid > 1; i++) {
        if (pid == ancestor)
            return true;
        if (!read_stat(pid, comm, &pid))
            return false;
    }
    return false;
}

/* A process of ours called so; waits for it, and answers 0 when there is none. */
static pid_t wait_process(const char *name)
{
    pid_t found = 0;
    for (int i = 0; i < 2000 && !found; i++) {
        DIR *proc = opendir("/proc");
        struct dirent *entry;
        while (!found && (entry = readdir(proc))) {
            char comm[32];
            pid_t pid = (pid_t)atoi(entry->d_name), parent;
            if (pid > 0 && read_stat(pid, comm, &parent) && strcmp(comm, name) == 0 &&
                is_below(pid, getpid()))
                found = pid;
        }
        closedir(proc);
        if (!found)
            usleep(500);
    }
    return found;
}

static uint32_t state_of(struct fixture *f, struct orr_process_id id)
{
    static struct told all[FIXTURE_RANKS_MAX];
    uint32_t n = fixture_found(f, all);
    for (uint32_t i = 0; i < n; i++) {
        if (orr_str_eq(orr_str(all[i].job), id.job) &&
            all[i].generation == id.generation && all[i].rank == id.rank)
            return all[i].state;
    }
    return ORR_RANK_STARTING;
}

/* False: the server has died. */
static bool pair_goes_on(struct two *t)
{
    for (int i = 0; i < 100; i++) {
        if (makes_progress(t->a, client1))
            return true;
        if (state_of(t->a, server1) == ORR_RANK_EXITED) {
            print_message("%s\n",
                          fixture_wait_id(t->a, server1, ORR_RANK_EXITED).reason);
            return false;
        }
    }
    fail_msg("neither progress nor an end");
    return false;
}

static void go_on_from(struct two *t, const char *server, const char *client)
{
    (void)t->a->process->ops->signal(
        t->a->process, &client1, SIGKILL, &t->a->err); /* it may be gone, too */
    fixture_wait_id(t->a, client1, ORR_RANK_EXITED);
    restore(t, t->b, server2, SERVER, server);
    restore(t, t->b, client2, CLIENT, client);
    wait_progress(t->b, client2, wait_progress(t->b, server2, 0));
    stop_pair(t);
    check_ends(t->b, server2, t->b, client2);
}

static void image_pair(struct two *t, const char *server, const char *client)
{
    freeze_ok(t->a, server1, true);
    freeze_ok(t->a, client1, true);
    image_ok(t->a, server1, server, true);
    image_ok(t->a, client1, client, true);
    freeze_ok(t->a, server1, false);
    freeze_ok(t->a, client1, false);
}

/* After ever more of its work.  The rank goes on; where it was caught in the middle of what cannot be undone, all of the job goes on
 * from the images that were made before. */
static void criu_killed_in_a_dump_costs_the_image_only(void **state)
{
    struct two *t = *state;
    char server[100], client[100];
    int n_killed = 0;
    bool is_alive = true;
    start_pair(t, t->a, t->a);
    snprintf(server, sizeof server, "%s", image_dir(t, "s"));
    snprintf(client, sizeof client, "%s", image_dir(t, "c"));
    image_pair(t, server, client);
    for (unsigned ms = 0; ms < 80 && is_alive; ms += 8) {
        uint64_t tag;
        char name[16];
        snprintf(name, sizeof name, "k%u", ms);
        assert_int_equal(
            fixture_image_begin(t->a, server1, image_dir(t, name), true, &tag), ORR_OK);
        pid_t criu = wait_process("criu");
        usleep(ms * 1000);
        if (criu)
            kill(criu, SIGKILL);
        n_killed += fixture_finish(t->a, tag).code != ORR_OK;
        is_alive = pair_goes_on(t);
    }
    print_message("%d dumps were killed, the rank %s\n",
                  n_killed,
                  is_alive ? "lives" : "died of it");
    if (!is_alive) {
        go_on_from(t, server, client);
        return;
    }
    assert_true(n_killed > 3);
    stop_pair(t);
    check_ends(t->a, server1, t->a, client1);
}

static void process_killed_in_a_restore_costs_the_attempt_only(void **state)
{
    struct two *t = *state;
    struct orr_process_id id = {ORR_LIT("r1-a"), 1, 0};
    const char *dir = image_dir(t, "i");
    start(t, t->a, id, CLIENT, (const char *const[]){"sh", "-c", COUNT, NULL});
    fixture_wait_log(t->a, "r1-a", "10\n");
    image_ok(t->a, id, dir, false);
    fixture_wait_id(t->a, id, ORR_RANK_EXITED);
    for (unsigned i = 0; i < 6; i++) {
        id.generation++;
        restore(t, t->b, id, CLIENT, dir);
        pid_t victim = wait_process("criu");
        usleep(i / 2 * 15000);
        if (victim && i % 2)
            victim = fixture_parent(victim); /* the keeper */
        assert_true(victim > 0);
        kill(victim, SIGKILL);
        struct told told = fixture_wait_id(t->b, id, ORR_RANK_LOST);
        print_message("%s\n", told.reason);
    }
    id.generation++;
    restore(t, t->b, id, CLIENT, dir);
    fixture_wait_id(t->b, id, ORR_RANK_RUNNING);
    wait_progress(t->b, id, 10);
}

/* Started as `--imager STATE IMAGE`: a host that makes an image of the server, and waits for its death. */
static int imager_main(char **argv)
{
    struct fixture *f = calloc(1, sizeof *f);
    uint64_t tag;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    orr_str_copy(f->dir, sizeof f->dir, orr_str(argv[2]));
    fixture_open(f);
    fixture_wait_id(f, server1, ORR_RANK_RUNNING);
    if (fixture_image_begin(f, server1, argv[3], true, &tag) != ORR_OK)
        return 1;
    for (;;)
        pause();
}

static void host_killed_in_a_dump_is_mended_by_the_next_one(void **state)
{
    struct two *t = *state;
    char server[100], client[100];
    bool is_alive = true;
    start_pair(t, t->a, t->a);
    snprintf(server, sizeof server, "%s", image_dir(t, "s"));
    snprintf(client, sizeof client, "%s", image_dir(t, "c"));
    image_pair(t, server, client);
    for (unsigned i = 0; i < 3 && is_alive; i++) {
        char name[16];
        snprintf(name, sizeof name, "h%u", i);
        fixture_close(t->a);
        pid_t host = fork();
        if (host == 0) {
            execl("/proc/self/exe",
                  "imager",
                  "--imager",
                  t->a->dir,
                  image_dir(t, name),
                  NULL);
            _exit(1);
        }
        assert_true(wait_process("criu") > 0);
        usleep(i * 20000);
        kill(host, SIGKILL);
        assert_int_equal(waitpid(host, NULL, 0), host);
        fixture_open(t->a);
        fixture_wait_id(t->a, client1, ORR_RANK_RUNNING);
        is_alive = pair_goes_on(t);
    }
    if (!is_alive) {
        go_on_from(t, server, client);
        return;
    }
    stop_pair(t);
    check_ends(t->a, server1, t->a, client1);
}

#define IMAGE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    int exit_code;
    if (fixture_dispatch(argc, argv, &exit_code))
        return exit_code;
    if (argc == 4 && strcmp(argv[1], "--imager") == 0)
        return imager_main(argv);
    if (argc > 1) /* a pattern of names */
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        IMAGE_TEST(counting_rank_goes_on_on_another_node),
        IMAGE_TEST(both_ends_of_a_connection_move),
        IMAGE_TEST(one_end_of_a_connection_moves),
        IMAGE_TEST(image_of_a_running_rank_leaves_it_running),
        IMAGE_TEST(end_of_a_rank_with_namespaces_is_exact),
        IMAGE_TEST(program_that_is_not_there_fails_with_its_name),
        IMAGE_TEST(rank_has_its_own_names_and_level),
        IMAGE_TEST(address_that_is_none_leaves_the_rank_without_namespaces),
        IMAGE_TEST(freeze_works_with_namespaces),
        IMAGE_TEST(freeze_works_without_namespaces),
        IMAGE_TEST(thaw_does_not_thaw_what_the_lease_froze),
        IMAGE_TEST(image_that_fails_leaves_the_rank_unharmed),
        IMAGE_TEST(criu_killed_in_a_dump_costs_the_image_only),
        IMAGE_TEST(process_killed_in_a_restore_costs_the_attempt_only),
        IMAGE_TEST(host_killed_in_a_dump_is_mended_by_the_next_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
