/* SPDX-License-Identifier: Apache-2.0
 * test_tcp.c - the tcp example notices whatever happens to its bytes: two ranks, each a
 * process, whose only connection goes through this one.
 */
#include "fail.h"
#include "orr_test.h"
#include "record.h"
#include "traffic.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STEPS = 50, WAIT_MS = 20000, ODD_BYTE = 9001 };

static const struct traffic_config config = {
    .steps = STEPS, .window = 4, .bytes = 1024, .work = 1, .log_every = STEPS + 1};

/* ---- records ---- */

static void record_that_is_the_next_one_is_taken(void **state)
{
    (void)state;
    struct record_stream sent = {.from = 3, .to = 5}, received = sent;
    char err[RECORD_ERR_MAX];
    for (uint32_t n = 0; n < 3; n++) {
        struct record_header h = record_next(&sent, "payload", n);
        assert_null(record_refuses(&received, &h, 8, err));
        assert_null(record_take(&received, &h, "payload", err));
    }
    assert_true(received.offset == 3 * sizeof(struct record_header) + 3);
    assert_int_equal(received.sequence, 3);
}

static void record_that_is_not_the_next_one_is_refused(void **state)
{
    (void)state;
    struct record_stream sent = {.from = 3, .to = 5}, received = sent;
    char err[RECORD_ERR_MAX];
    struct record_header first = record_next(&sent, "a", 1);
    struct record_header second = record_next(&sent, "b", 1);
    assert_non_null(record_refuses(&received, &second, 8, err)); /* lost */
    assert_non_null(strstr(err, "want record 0 at byte 0 from rank 3, got"));
    assert_non_null(strstr(err, "record 1 at byte 41"));
    assert_null(record_take(&received, &first, "a", err));
    assert_non_null(record_refuses(&received, &first, 8, err));  /* repeated */
    assert_non_null(record_refuses(&received, &second, 0, err)); /* too long */
    assert_non_null(record_take(&received, &second, "c", err));  /* changed */
    assert_non_null(strstr(err, "another checksum"));
    second.to = 4;
    assert_non_null(record_refuses(&received, &second, 8, err)); /* another's */
}

/* ---- two ranks, and what is between them ---- */

enum tampering { TAMPER_NONE, LOSE, REPEAT, CHANGE, SWAP, CUT };

struct child {
    pid_t pid;
    int link, errors; /* its connection, and its stderr */
};

static void be_rank(uint32_t rank, int fd, int errors)
{
    static struct traffic t;
    static struct digests none = {.every = 1};
    struct mesh mesh = {.rank = rank, .world = 2, .fds = {-1, -1}};
    mesh.fds[1 - rank] = fd;
    dup2(errors, STDERR_FILENO);
    die_as_rank(rank);
    traffic_init(&t, &config, &mesh);
    traffic_run(&t, &none);
    dprintf(STDERR_FILENO, "digest=%llx", (unsigned long long)t.digest);
    _exit(0);
}

static struct child start_rank(uint32_t rank)
{
    int link[2], errors[2];
    assert_int_equal(
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, link), 0);
    assert_int_equal(pipe(errors), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(link[0]);
        be_rank(rank, link[1], errors[1]);
    }
    close(link[1]);
    close(errors[1]);
    return (struct child){pid, link[0], errors[0]};
}

/* Bytes [from, from + n) of the stream; returns how many they are then. */
static size_t tamper(enum tampering how, size_t from, uint8_t *bytes, size_t n)
{
    if (how == TAMPER_NONE || ODD_BYTE < from || ODD_BYTE >= from + n)
        return n;
    uint8_t *odd = bytes + (ODD_BYTE - from);
    size_t behind = n - (ODD_BYTE - from);
    switch (how) {
    case LOSE:
        memmove(odd, odd + 1, behind - 1);
        return n - 1;
    case REPEAT:
        memmove(odd + 1, odd, behind);
        return n + 1;
    case CHANGE:
        *odd ^= 1;
        return n;
    case SWAP: /* with another value before it */
        for (uint8_t *other = odd; other-- > bytes;)
            if (*other != *odd) {
                uint8_t byte = *other;
                *other = *odd;
                *odd = byte;
                break;
            }
        return n;
    case CUT:
        return 0;
    case TAMPER_NONE:
        break;
    }
    return n;
}

/* All that has come at `from` goes to `to`. False at its end. */
static bool forward(int from, int to, enum tampering how, size_t *at)
{
    uint8_t bytes[65536 + 1];
    ssize_t n = recv(from, bytes, sizeof bytes - 1, 0);
    if (n < 0 && errno == EAGAIN)
        return true;
    if (n <= 0)
        return false;
    size_t len = tamper(how, *at, bytes, (size_t)n);
    *at += (size_t)n;
    for (size_t sent = 0; sent < len;) {
        struct pollfd p = {.fd = to, .events = POLLOUT};
        if (poll(&p, 1, WAIT_MS) != 1)
            return false;
        ssize_t more = send(to, bytes + sent, len - sent, MSG_NOSIGNAL);
        if (more < 0 && errno != EAGAIN)
            return false;
        sent += more > 0 ? (size_t)more : 0;
    }
    return len > 0;
}

/* What goes from rank 0 to rank 1 is tampered with; ends when either rank does. */
static void stand_between(struct child *c, enum tampering how)
{
    size_t at[2] = {0, 0};
    for (bool more = true; more;) {
        struct pollfd p[] = {{c[0].link, POLLIN, 0}, {c[1].link, POLLIN, 0}};
        assert_true(poll(p, 2, WAIT_MS) > 0);
        if (p[0].revents)
            more = forward(c[0].link, c[1].link, how, &at[0]);
        if (p[1].revents && more)
            more = forward(c[1].link, c[0].link, TAMPER_NONE, &at[1]);
    }
    shutdown(c[0].link, SHUT_RDWR);
    shutdown(c[1].link, SHUT_RDWR);
}

static int finish(struct child *c, char said[256])
{
    int status;
    size_t used = 0;
    ssize_t n;
    while ((n = read(c->errors, said + used, 255 - used)) > 0)
        used += (size_t)n;
    said[used] = '\0';
    assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
    close(c->errors);
    close(c->link);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int run(enum tampering how, char said[2][256])
{
    struct child c[2] = {start_rank(0), start_rank(1)};
    stand_between(c, how);
    int codes[2] = {finish(&c[0], said[0]), finish(&c[1], said[1])};
    if (how == TAMPER_NONE)
        assert_int_equal(codes[0], 0);
    return codes[1];
}

static void stream_that_is_whole_ends_with_one_digest(void **state)
{
    (void)state;
    char said[2][256], again[2][256];
    assert_int_equal(run(TAMPER_NONE, said), 0);
    assert_int_equal(run(TAMPER_NONE, again), 0);
    assert_non_null(strstr(said[0], "digest="));
    assert_string_equal(said[0], said[1]);
    assert_string_equal(said[0], again[0]);
}

static void stream_that_is_tampered_with_ends_the_program(void **state)
{
    (void)state;
    static const struct {
        enum tampering how;
        const char *want;
    } cases[] = {
        {LOSE, "from rank 0"},
        {REPEAT, "from rank 0"},
        {CHANGE, "from rank 0"},
        {SWAP, "from rank 0"},
        {CUT, "connection to rank 0: "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char said[2][256];
        int code = run(cases[i].how, said);
        if (code != 1 || !strstr(said[1], cases[i].want))
            fail_msg("case %zu: code %d, said '%s'", i, code, said[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(record_that_is_the_next_one_is_taken),
        cmocka_unit_test(record_that_is_not_the_next_one_is_refused),
        cmocka_unit_test(stream_that_is_whole_ends_with_one_digest),
        cmocka_unit_test(stream_that_is_tampered_with_ends_the_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
