/* SPDX-License-Identifier: Apache-2.0
 * image_fixture.c - image_fixture.h.
 */
#include "image_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "orr_test.h"

#include "rank_files.h"

enum { LEFT_MS = 5000 };

const struct orr_process_id server1 = {{"r1-t", 4}, 1, 0},
                            client1 = {{"r1-t", 4}, 1, 1},
                            server2 = {{"r1-t", 4}, 2, 0},
                            client2 = {{"r1-t", 4}, 2, 1};

struct orr_process_launch image_launch_of(struct two *t,
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

struct told image_start(struct two *t,
                        struct fixture *f,
                        struct orr_process_id id,
                        const char *address,
                        const char *const *argv)
{
    struct orr_rec_text args[16];
    struct orr_process_launch launch = image_launch_of(t, id, address, args, argv);
    if (f->process->ops->launch(f->process, &launch, &f->err) != ORR_OK)
        fail_msg("%s", f->err.text);
    return fixture_wait_id(f, id, ORR_RANK_RUNNING);
}

void image_restore(struct two *t,
                   struct fixture *f,
                   struct orr_process_id id,
                   const char *address,
                   const char *dir)
{
    struct orr_process_launch launch = image_launch_of(t, id, address, NULL, NULL);
    launch.restore_dir = orr_str(dir);
    if (f->process->ops->launch(f->process, &launch, &f->err) != ORR_OK)
        fail_msg("%s", f->err.text);
}

const char *image_why_skip(void)
{
    const char *criu = getenv("ORRERY_CRIU");
    if (geteuid() != 0)
        return "needs root";
    if (!criu || access(criu, X_OK) != 0)
        return "no criu: `make criu` builds one, and build/criu/why-not says why not";
    return NULL;
}

int image_main(int argc,
               char **argv,
               const struct CMUnitTest *tests,
               size_t n,
               const char *(*why_skip)(void))
{
    int exit_code;
    if (fixture_dispatch(argc, argv, &exit_code))
        return exit_code;
    const char *why = why_skip();
    if (!why)
        return fixture_main(argc, argv, tests, n);
    printf("skipped: %s\n", why);
    return 77;
}

int image_setup(void **state)
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

/* What there is of bridges, and of cgroups that begin so: its name, or empty. */
static void find_left(struct two *t, const char *prefix, char left[NAME_MAX + 1])
{
    char path[ORRI_CGROUP_PATH_MAX], bridge[64];
    const struct orri_overlay_plan plan = {
        .id = t->overlay, .rank = "", .address = "x", .underlay = ""};
    const struct orri_overlay names = orri_overlay_names(&plan);
    snprintf(bridge, sizeof bridge, "/sys/class/net/%s", names.bridge);
    assert_true(orri_cgroup_path("", path));
    snprintf(left, NAME_MAX + 1, "%s", access(bridge, F_OK) == 0 ? names.bridge : "");
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir && !*left && (entry = readdir(dir)))
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0)
            snprintf(left, NAME_MAX + 1, "%s", entry->d_name);
    closedir(dir);
}

int image_teardown(void **state)
{
    struct two *t = *state;
    void *a = t->a, *b = t->b;
    char of_a[ORRI_RANK_NAME_MAX], of_b[ORRI_RANK_NAME_MAX];
    name_prefix(t->a, of_a);
    name_prefix(t->b, of_b);
    fixture_teardown(&a);
    fixture_teardown(&b);
    char left[NAME_MAX + 1];
    for (int ms = 0; ms < LEFT_MS; ms++, usleep(1000)) { /* keepers come to their end */
        find_left(t, of_a, left);
        if (!*left)
            find_left(t, of_b, left);
        if (!*left)
            break;
    }
    free(t);
    if (!*left)
        return 0;
    print_error("%s is left behind\n", left);
    return -1;
}

/* ---- two ranks that talk
 * ------------------------------------------------------------------------ */

char *image_read_log(struct fixture *f, struct orr_process_id id, const char *name)
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
unsigned long image_count_lines(const char *text)
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
unsigned long
image_wait_progress(struct fixture *f, struct orr_process_id id, unsigned long from)
{
    unsigned long n = 0;
    for (int i = 0; i < 10000; i++) {
        char *text = image_read_log(f, id, "stdout"),
             *errors = image_read_log(f, id, "stderr");
        n = image_count_lines(text);
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

void image_start_pair(struct two *t, struct fixture *server, struct fixture *client)
{
    image_start(t,
                server,
                server1,
                SERVER,
                (const char *const[]){RANK_PROGRAM, "server", "-", t->a->dir, NULL});
    image_start(
        t,
        client,
        client1,
        CLIENT,
        (const char *const[]){RANK_PROGRAM, "client", "10.77.0.1", t->a->dir, NULL});
    image_wait_progress(server, server1, 0);
    image_wait_progress(client, client1, 0);
}

void image_stop_pair(struct two *t)
{
    char path[100];
    snprintf(path, sizeof path, "%s/stop", t->a->dir);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fclose(file);
}

const char *image_dir(struct two *t, const char *name)
{
    static char dirs[4][100];
    static int next;
    char *dir = dirs[next++ % 4];
    snprintf(dir, sizeof dirs[0], "%s/%s", t->a->dir, name);
    return dir;
}

void image_ok(struct fixture *f,
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

void image_freeze_ok(struct fixture *f, struct orr_process_id id, bool is_frozen)
{
    struct finished result = fixture_freeze(f, id, is_frozen);
    if (result.code != ORR_OK)
        fail_msg("%s", result.text);
}

void image_check_ends(struct fixture *server,
                      struct orr_process_id server_id,
                      struct fixture *client,
                      struct orr_process_id client_id)
{
    struct told s = fixture_wait_id(server, server_id, ORR_RANK_EXITED);
    struct told c = fixture_wait_id(client, client_id, ORR_RANK_EXITED);
    assert_string_equal(c.reason, "killed by signal 12 (SIGUSR2)");
    assert_string_equal(s.reason, "exit code 7");
    char *said = image_read_log(server, server_id, "stdout"),
         *heard = image_read_log(client, client_id, "stdout");
    assert_int_equal(image_count_lines(said), image_count_lines(heard));
    free(said);
    free(heard);
}

bool image_makes_progress(struct fixture *f, struct orr_process_id id)
{
    char *before = image_read_log(f, id, "stdout"), *after = NULL;
    bool is_more = false;
    for (int i = 0; i < 100 && !is_more; i++) {
        usleep(2000);
        free(after);
        after = image_read_log(f, id, "stdout");
        is_more = strlen(after) > strlen(before);
    }
    free(before);
    free(after);
    return is_more;
}
