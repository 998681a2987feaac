/* SPDX-License-Identifier: Apache-2.0
 * test_process_image_faults.c - CRIU, keepers and hosts are killed while they make and restore images, and disks are full: the rank or
 * its earlier image goes on.  Without root or CRIU the tests say so and are skipped.
 */
#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "orr_test.h"

#include "image_fixture.h"

enum { DUMPS = 10 }; /* that are killed, each after more of its time */

/* ---- what goes wrong
 * ----------------------------------------------------------------------------- */

/* As if they had run for a minute since CRIU failed on them.  One of which an image was made after that has no mark. */
static void age_marks(struct fixture *f)
{
    char pattern[200];
    const struct timespec then[2] = {{.tv_sec = time(NULL) - 60},
                                     {.tv_sec = time(NULL) - 60}};
    glob_t found = {0};
    snprintf(pattern, sizeof pattern, "%s/*/*/hurt", f->dir);
    int rc = glob(pattern, 0, NULL, &found);
    assert_true(rc == 0 || rc == GLOB_NOMATCH);
    for (size_t i = 0; i < found.gl_pathc; i++)
        assert_int_equal(utimensat(AT_FDCWD, found.gl_pathv[i], then, 0), 0);
    globfree(&found);
}

static void image_that_fails_leaves_the_rank_unharmed(void **state)
{
    struct two *t = *state;
    const char *dir = image_dir(t, "full");
    assert_int_equal(mkdir(dir, 0700), 0);
    image_start_pair(t, t->a, t->a);
    assert_int_equal(mount("none", dir, "tmpfs", 0, "size=64k"), 0);
    for (int i = 0; i < 2; i++) { /* of a running one, and of a frozen one */
        struct finished image = fixture_image(t->a, server1, dir, i == 0);
        print_message("%s\n", image.text);
        assert_int_equal(image.code, ORR_EIO);
        unlink(image_dir(t, "full/dump.log"));
        if (i == 0)
            image_wait_progress(t->a, server1, image_wait_progress(t->a, client1, 0));
        image_freeze_ok(t->a, server1, i == 0);
    }
    assert_int_equal(umount(dir), 0);
    image_wait_progress(t->a, server1, image_wait_progress(t->a, client1, 0));
    assert_int_equal(fixture_image(t->a, server1, t->a->dir, true).code, ORR_EEXIST);
    age_marks(t->a);
    image_stop_pair(t);
    image_check_ends(t->a, server1, t->a, client1);
}

/* Soon after CRIU has failed on it, its sudden death is laid at CRIU's door; later it is its own. */
static void rank_that_ran_on_after_a_failed_image_dies_its_own_death(void **state)
{
    struct two *t = *state;
    struct orr_process_id id = {ORR_LIT("r1-a"), 0, 0};
    const char *dir = image_dir(t, "full");
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(mount("none", dir, "tmpfs", 0, "size=64k"), 0);
    for (int has_run = 0; has_run < 3; has_run++) {
        id.generation++;
        image_start(
            t, t->a, id, CLIENT, (const char *const[]){"sh", "-c", COUNT, NULL});
        assert_int_equal(fixture_image(t->a, id, dir, true).code, ORR_EIO);
        unlink(image_dir(t, "full/dump.log"));
        if (has_run)
            age_marks(t->a);
        if (has_run == 2) { /* but it stood still: what it has shows from now on */
            image_freeze_ok(t->a, id, true);
            image_freeze_ok(t->a, id, false);
        }
        assert_int_equal(
            t->a->process->ops->signal(t->a->process, &id, SIGSEGV, &t->a->err),
            ORR_OK);
        struct told told =
            fixture_wait_id(t->a, id, has_run == 1 ? ORR_RANK_EXITED : ORR_RANK_LOST);
        assert_int_equal(told.signal, SIGSEGV);
    }
    assert_int_equal(umount(dir), 0);
}

/* Makes it jump to nowhere, as one that CRIU has left in the middle. */
static void crash(pid_t pid)
{
    struct user_regs_struct regs;
    struct iovec io = {&regs, sizeof regs};
    int status;
    assert_int_equal(ptrace(PTRACE_SEIZE, pid, NULL, NULL), 0);
    assert_int_equal(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), 0);
    assert_int_equal(waitpid(pid, &status, __WALL), pid);
    assert_int_equal(ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &io), 0);
    regs.rip = 0;
    regs.orig_rax = ~UINT64_C(0);
    assert_int_equal(ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &io), 0);
    assert_int_equal(ptrace(PTRACE_DETACH, pid, NULL, NULL), 0);
}

static pid_t pid_of(struct fixture *f, struct orr_process_id id)
{
    static struct told all[FIXTURE_RANKS_MAX];
    uint32_t n = fixture_found(f, all);
    for (uint32_t i = 0; i < n; i++)
        if (orr_str_eq(orr_str(all[i].job), id.job) &&
            all[i].generation == id.generation && all[i].rank == id.rank)
            return (pid_t)all[i].pid;
    fail_msg("it is not found");
    return 0;
}

/* The kernel kills the rank with it, a while after the image has failed: no SIGKILL that anybody asked for. */
static void rank_whose_init_dies_of_a_failed_image_is_lost(void **state)
{
    struct two *t = *state;
    struct orr_process_id id = {ORR_LIT("r1-a"), 1, 0};
    const char *dir = image_dir(t, "full");
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(mount("none", dir, "tmpfs", 0, "size=64k"), 0);
    image_start(t, t->a, id, CLIENT, (const char *const[]){"sh", "-c", COUNT, NULL});
    assert_int_equal(fixture_image(t->a, id, dir, true).code, ORR_EIO);
    crash(fixture_parent(pid_of(t->a, id)));
    assert_int_equal(fixture_wait_id(t->a, id, ORR_RANK_LOST).signal, SIGKILL);
    assert_int_equal(umount(dir), 0);
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
static bool
goes_on(struct fixture *f, struct orr_process_id server, struct orr_process_id client)
{
    for (int i = 0; i < 100; i++) {
        if (image_makes_progress(f, client))
            return true;
        enum orr_rank_state state = state_of(f, server);
        if (state == ORR_RANK_EXITED || state == ORR_RANK_LOST) {
            struct told told = fixture_wait_id(f, server, state);
            print_message("%s %s\n", told.reason, told.tail);
            return false;
        }
    }
    fail_msg("neither progress nor an end");
    return false;
}

static bool pair_goes_on(struct two *t)
{
    return goes_on(t->a, server1, client1);
}

static void go_on_from(struct two *t, const char *server, const char *client)
{
    (void)t->a->process->ops->signal(
        t->a->process, &client1, SIGKILL, &t->a->err); /* it may be gone, too */
    fixture_wait_id(t->a, client1, ORR_RANK_EXITED);
    image_restore(t, t->b, server2, SERVER, server);
    image_restore(t, t->b, client2, CLIENT, client);
    image_wait_progress(t->b, client2, image_wait_progress(t->b, server2, 0));
    image_stop_pair(t);
    image_check_ends(t->b, server2, t->b, client2);
}

static void image_pair(struct two *t, const char *server, const char *client)
{
    image_freeze_ok(t->a, server1, true);
    image_freeze_ok(t->a, client1, true);
    image_ok(t->a, server1, server, true);
    image_ok(t->a, client1, client, true);
    image_freeze_ok(t->a, server1, false);
    image_freeze_ok(t->a, client1, false);
}

static unsigned time_of_dump(struct two *t, struct orr_process_id id)
{
    struct timespec from, to;
    uint64_t tag;
    clock_gettime(CLOCK_MONOTONIC, &from);
    assert_int_equal(fixture_image_begin(t->a, id, image_dir(t, "whole"), true, &tag),
                     ORR_OK);
    (void)wait_process("criu");
    assert_int_equal(fixture_finish(t->a, tag).code, ORR_OK);
    clock_gettime(CLOCK_MONOTONIC, &to);
    return (unsigned)((to.tv_sec - from.tv_sec) * 1000000 +
                      (to.tv_nsec - from.tv_nsec) / 1000);
}

/* After ever more of its work.  The rank goes on; where it was caught in the middle of what cannot be undone, all of the job goes on
 * from the images that were made before. */
static void criu_killed_in_a_dump_costs_the_image_only(void **state)
{
    struct two *t = *state;
    char server[100], client[100];
    int n_killed = 0;
    bool is_alive = true;
    image_start_pair(t, t->a, t->a);
    snprintf(server, sizeof server, "%s", image_dir(t, "s"));
    snprintf(client, sizeof client, "%s", image_dir(t, "c"));
    image_pair(t, server, client);
    unsigned dump_us = time_of_dump(t, server1);
    for (unsigned i = 0; i < DUMPS && is_alive; i++) {
        uint64_t tag;
        char name[16];
        snprintf(name, sizeof name, "k%u", i);
        assert_int_equal(
            fixture_image_begin(t->a, server1, image_dir(t, name), true, &tag), ORR_OK);
        pid_t criu = wait_process("criu");
        unsigned after_us = dump_us * i / DUMPS;
        usleep(after_us);
        if (criu)
            kill(criu, SIGKILL);
        bool is_killed = fixture_finish(t->a, tag).code != ORR_OK;
        dump_us = is_killed ? dump_us : after_us; /* the machine was slower then */
        n_killed += is_killed;
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
    age_marks(t->a);
    image_stop_pair(t);
    image_check_ends(t->a, server1, t->a, client1);
}

/* A server and a client with more than one thread and process each, of a generation of their own. */
static void start_generation(struct two *t,
                             struct orr_process_id *server,
                             struct orr_process_id *client)
{
    server->generation = ++client->generation;
    image_start(t,
                t->a,
                *server,
                SERVER,
                (const char *const[]){RANK_PROGRAM, "server", "-", t->a->dir, NULL});
    image_start(
        t,
        t->a,
        *client,
        CLIENT,
        (const char *const[]){RANK_PROGRAM, "client", "10.77.0.1", t->a->dir, NULL});
    image_wait_progress(t->a, *client, 0);
}

/* The last line of CRIU's log: what it was at. */
static const char *last_words(const char *dir)
{
    static char text[8192];
    char path[160];
    snprintf(path, sizeof path, "%s/dump.log", dir);
    FILE *file = fopen(path, "re");
    size_t n = 0;
    if (file && fseek(file, -(long)(sizeof text - 1), SEEK_END) != 0)
        rewind(file); /* a short one */
    n = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file)
        fclose(file);
    while (n > 0 && text[n - 1] == '\n')
        n--;
    text[n] = '\0';
    const char *line = strrchr(text, '\n');
    return line ? line + 1 : text;
}

/* KILLS=n: how many of n kills, at any moment of a dump, cost the rank, too; docs/images.md has what this printed. */
static void rank_outlives_a_criu_that_is_killed_at_any_moment(void **state)
{
    struct two *t = *state;
    const char *text = getenv("KILLS");
    unsigned kills = text ? (unsigned)atoi(text) : 10, n_killed = 0, n_dead = 0,
             dump_us = 0;
    struct orr_process_id server = server1, client = client1;
    uint64_t tag;
    char name[32];
    bool is_alive = false;
    srandom((unsigned)getpid());
    for (unsigned i = 0; i < kills; i++) {
        if (!is_alive)
            start_generation(t, &server, &client);
        if (dump_us == 0)
            dump_us = time_of_dump(t, server);
        snprintf(name, sizeof name, "n%u", i);
        assert_int_equal(
            fixture_image_begin(t->a, server, image_dir(t, name), true, &tag), ORR_OK);
        pid_t criu = wait_process("criu");
        unsigned after_us = (unsigned)random() % (dump_us + 1);
        usleep(after_us);
        if (criu)
            kill(criu, SIGKILL);
        bool is_killed = fixture_finish(t->a, tag).code != ORR_OK;
        is_alive = goes_on(t->a, server, client);
        if (text)
            print_message("%s: killed after %u of %u us, %s: %s\n",
                          is_alive ? "alive" : "dead",
                          after_us,
                          dump_us,
                          is_killed ? "in" : "too late",
                          last_words(image_dir(t, name)));
        dump_us = is_killed ? dump_us : after_us; /* the machine was slower then */
        n_killed += is_killed;
        n_dead += !is_alive;
        if (!is_alive) {
            (void)t->a->process->ops->signal(
                t->a->process, &client, SIGKILL, &t->a->err);
            fixture_wait_id(t->a, client, ORR_RANK_EXITED);
        }
    }
    print_message(
        "%u of %u dumps were killed, %u ranks died of it\n", n_killed, kills, n_dead);
    assert_true(n_killed > kills / 5);
    assert_true(n_dead <= n_killed / 2); /* a few do: docs/images.md */
    if (is_alive)
        image_stop_pair(t);
}

static void process_killed_in_a_restore_costs_the_attempt_only(void **state)
{
    struct two *t = *state;
    struct orr_process_id id = {ORR_LIT("r1-a"), 1, 0};
    const char *dir = image_dir(t, "i");
    uint32_t n_lost = 0;
    image_start(t, t->a, id, CLIENT, (const char *const[]){"sh", "-c", COUNT, NULL});
    fixture_wait_log(t->a, "r1-a", "10\n");
    image_ok(t->a, id, dir, false);
    fixture_wait_id(t->a, id, ORR_RANK_EXITED);
    for (unsigned i = 0; i < 6; i++) {
        id.generation++;
        image_restore(t, t->b, id, CLIENT, dir);
        pid_t victim = wait_process("criu");
        assert_true(victim > 0);
        if (i % 2)
            victim = fixture_parent(victim); /* the keeper */
        usleep(i / 2 * 15000);
        kill(victim, SIGKILL);
        uint32_t now = ORR_RANK_STARTING;
        for (int ms = 0; ms < 20000 && now == ORR_RANK_STARTING; ms++, usleep(1000))
            now = state_of(t->b, id);
        n_lost += now == ORR_RANK_LOST;
        if (now == ORR_RANK_RUNNING) /* too late */
            (void)t->b->process->ops->signal(t->b->process, &id, SIGKILL, &t->b->err);
    }
    assert_true(n_lost > 1);
    id.generation++;
    image_restore(t, t->b, id, CLIENT, dir);
    fixture_wait_id(t->b, id, ORR_RANK_RUNNING);
    image_wait_progress(t->b, id, 10);
}

/* A CRIU that has made half of the rank that is in dir, and gets no further: its text, and where it says which process that is.  What
 * the host tries CRIU with, it restores. */
static void
half_made(struct two *t, const char *dir, char *path, size_t cap, char *pid_path)
{
    snprintf(path, cap, "%s/criu", t->b->dir);
    snprintf(pid_path, cap, "%s/half", t->b->dir);
    FILE *out = fopen(path, "we");
    assert_non_null(out);
    fprintf(out,
            "#!/bin/sh\n"
            "case \"$*\" in restore*\" %s \"*) ;; *) exec %s \"$@\" ;; esac\n"
            "sleep 1000 &\n"
            "echo $! >%s.tmp; mv %s.tmp %s\n"
            "wait\n",
            dir,
            getenv("ORRERY_CRIU"),
            pid_path,
            pid_path,
            pid_path);
    assert_int_equal(fchmod(fileno(out), 0755), 0);
    assert_int_equal(fclose(out), 0);
}

static pid_t read_half(const char *path)
{
    int pid = 0;
    for (int ms = 0; ms < 20000 && !pid; ms++, usleep(1000)) {
        FILE *in = fopen(path, "re");
        if (in && fscanf(in, "%d", &pid) != 1)
            pid = 0;
        if (in)
            fclose(in);
    }
    assert_true(pid > 0);
    unlink(path);
    return pid;
}

/* Whoever looks after its ranks then: the host that was there, or the next. */
static void half_of_a_rank_ends_with_its_keeper(void **state)
{
    struct two *t = *state;
    struct orr_process_id id = {ORR_LIT("r1-a"), 1, 0};
    char criu[100], half[100];
    const char *dir = image_dir(t, "i");
    image_start(t, t->a, id, CLIENT, (const char *const[]){"sh", "-c", COUNT, NULL});
    fixture_wait_log(t->a, "r1-a", "10\n");
    image_ok(t->a, id, dir, false);
    fixture_wait_id(t->a, id, ORR_RANK_EXITED);
    half_made(t, dir, criu, sizeof criu, half);
    fixture_close(t->b);
    t->b->config.criu = criu;
    fixture_open(t->b);
    for (int is_host_gone = 0; is_host_gone < 2; is_host_gone++) {
        id.generation++;
        image_restore(t, t->b, id, CLIENT, dir);
        pid_t pid = read_half(half);
        pid_t keeper = fixture_parent(fixture_parent(pid));
        if (is_host_gone)
            fixture_close(t->b);
        assert_int_equal(kill(keeper, SIGKILL), 0);
        if (is_host_gone)
            fixture_open(t->b);
        fixture_wait_id(t->b, id, ORR_RANK_LOST);
        fixture_wait_gone(pid);
    }
    unlink(criu);
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
    image_start_pair(t, t->a, t->a);
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
    age_marks(t->a);
    image_stop_pair(t);
    image_check_ends(t->a, server1, t->a, client1);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--imager") == 0)
        return imager_main(argv);
    static const struct CMUnitTest tests[] = {
        IMAGE_TEST(image_that_fails_leaves_the_rank_unharmed),
        IMAGE_TEST(rank_that_ran_on_after_a_failed_image_dies_its_own_death),
        IMAGE_TEST(rank_whose_init_dies_of_a_failed_image_is_lost),
        IMAGE_TEST(criu_killed_in_a_dump_costs_the_image_only),
        IMAGE_TEST(rank_outlives_a_criu_that_is_killed_at_any_moment),
        IMAGE_TEST(process_killed_in_a_restore_costs_the_attempt_only),
        IMAGE_TEST(half_of_a_rank_ends_with_its_keeper),
        IMAGE_TEST(host_killed_in_a_dump_is_mended_by_the_next_one),
    };
    return image_main(argc, argv, tests, ORR_ARRAY_SIZE(tests), image_why_skip);
}
