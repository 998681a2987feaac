/* SPDX-License-Identifier: Apache-2.0
 * test_image_undo.c - what a killed CRIU leaves in a process is put back, and what the process has done itself since is not: a
 * process of our own is stopped and noted, then treated as CRIU does, or let go.
 */
#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image.h"
#include "orr_test.h"

enum { LAST = '8' };

struct subject {
    pid_t pid;
    int to, from;
    int dir; /* of the rank */
    char path[64];
};

/* Says '0', and for each byte that it gets what comes next, through one more file each time.  It waits at two places. */
_Noreturn static void live(int from, int to)
{
    char c;
    for (char i = '0'; i <= LAST; i++) {
        to = dup(to);
        bool is_well = to >= 0 && write(to, &i, 1) == 1 &&
                       (i % 2 ? recv(from, &c, 1, 0) : read(from, &c, 1)) == 1;
        if (!is_well)
            _exit(1);
    }
    _exit(0);
}

static char answer(struct subject *s)
{
    char c = '-';
    return read(s->from, &c, 1) == 1 ? c : '-';
}

static void ask(struct subject *s)
{
    assert_int_equal(write(s->to, "?", 1), 1);
}

/* Its state in /proc/<pid>/stat. */
static void await_state(struct subject *s, char want)
{
    char path[64], state = '-';
    for (int ms = 0; state != want; ms++) {
        snprintf(path, sizeof path, "/proc/%d/stat", (int)s->pid);
        FILE *file = fopen(path, "re");
        assert_non_null(file);
        assert_int_equal(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
        fclose(file);
        assert_true(ms < 20000);
        usleep(1000);
    }
}

/* Stopped where it waits to be asked. */
static void stop(struct subject *s)
{
    await_state(s, 'S');
    assert_int_equal(kill(s->pid, SIGSTOP), 0);
    await_state(s, 'T');
}

static int setup(void **state)
{
    static struct subject s;
    int to[2], from[2];
    snprintf(s.path, sizeof s.path, "/tmp/orr-undo-XXXXXX");
    assert_non_null(mkdtemp(s.path));
    s.dir = open(s.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(s.dir >= 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, to) | pipe(from), 0);
    s.pid = fork();
    assert_true(s.pid >= 0);
    if (s.pid == 0)
        live(to[0], from[1]);
    close(to[0]);
    close(from[1]);
    s.to = to[1];
    s.from = from[0];
    assert_int_equal(answer(&s), '0');
    stop(&s);
    orri_image_keep(s.pid, s.dir);
    assert_int_equal(faccessat(s.dir, ORRI_UNDO_FILE, F_OK, 0), 0);
    *state = &s;
    return 0;
}

static int teardown(void **state)
{
    struct subject *s = *state;
    int status;
    kill(s->pid, SIGKILL);
    waitpid(s->pid, &status, 0);
    close(s->to);
    close(s->from);
    close(s->dir);
    return rmdir(s->path);
}

static void goes_on_after(struct subject *s, char last)
{
    orri_image_undo(s->dir);
    assert_int_equal(kill(s->pid, SIGCONT), 0);
    for (char next = (char)(last + 1); next <= LAST; next++) {
        ask(s);
        assert_int_equal(answer(s), next);
    }
}

static void untouched_process_goes_on(void **state)
{
    goes_on_after(*state, '0');
}

/* Where its program is. */
static uint64_t code_of(pid_t pid)
{
    char path[64], line[512], rights[5];
    unsigned long long at = 0, found = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    while (!found && fgets(line, sizeof line, file))
        if (sscanf(line, "%llx-%*x %4s", &at, rights) == 2 && rights[2] == 'x')
            found = at;
    fclose(file);
    return found;
}

static void thread_in_a_call_of_criu_is_put_back(void **state)
{
    struct subject *s = *state;
    uint64_t at = code_of(s->pid);
    struct user_regs_struct regs;
    struct iovec io = {&regs, sizeof regs};
    int status;
    assert_int_equal(ptrace(PTRACE_SEIZE, s->pid, NULL, NULL), 0);
    assert_int_equal(ptrace(PTRACE_INTERRUPT, s->pid, NULL, NULL), 0);
    assert_int_equal(waitpid(s->pid, &status, __WALL), s->pid);
    /* syscall; int3, and the thread behind both */
    assert_int_equal(
        ptrace(PTRACE_POKEDATA, s->pid, at, 0xccccccccccccu << 16 | 0x050f), 0);
    assert_int_equal(ptrace(PTRACE_GETREGSET, s->pid, NT_PRSTATUS, &io), 0);
    regs.rip = at + 3;
    regs.rax = 0;
    regs.orig_rax = ~UINT64_C(0);
    assert_int_equal(ptrace(PTRACE_SETREGSET, s->pid, NT_PRSTATUS, &io), 0);
    assert_int_equal(ptrace(PTRACE_DETACH, s->pid, NULL, NULL), 0);
    await_state(s, 'T');
    goes_on_after(s, '0');
}

/* CRIU's code in it lets it go when it sees CRIU's end, a moment before the kernel stops it: what it has done since is its own. */
static void process_that_has_gone_on_is_left_where_it_is(void **state)
{
    struct subject *s = *state;
    assert_int_equal(kill(s->pid, SIGCONT), 0);
    ask(s);
    assert_int_equal(answer(s), '1');
    stop(s);
    goes_on_after(s, '1');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(untouched_process_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(
            thread_in_a_call_of_criu_is_put_back, setup, teardown),
        cmocka_unit_test_setup_teardown(
            process_that_has_gone_on_is_left_where_it_is, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
