/* SPDX-License-Identifier: Apache-2.0
 * test_process_machines.c - ranks on different machines: network namespaces that are joined by links, with a process edge in each.
 * Without root, CRIU or ip(8) the tests say so and are skipped.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <unistd.h>

#include "orr_test.h"

#include "image_fixture.h"

static void shell(const char *fmt, ...) ORR_PRINTF(1, 2);
static void shell(const char *fmt, ...)
{
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (system(text) != 0)
        fail_msg("%s", text);
}

static int open_ns(void)
{
    int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

/* What this thread starts from here on is on that machine: also threads that an edge makes when it is asked for something. */
static void enter(int machine)
{
    assert_int_equal(setns(machine, CLONE_NEWNET), 0);
}

static int new_machine(void)
{
    assert_int_equal(unshare(CLONE_NEWNET), 0);
    return open_ns();
}

/* peers: with commas between. */
static void start_on(struct two *t,
                     struct fixture *f,
                     struct orr_process_launch launch,
                     const char *underlay,
                     const char *peers)
{
    const char *comma = strchr(peers, ',');
    const struct orr_rec_text list[] = {{{peers, (uint32_t)strcspn(peers, ",")}},
                                        {orr_str(comma ? comma + 1 : "")}};
    launch.overlay = t->overlay;
    launch.underlay = orr_str(underlay);
    launch.peers = (struct orr_list_text){list, comma ? 2 : 1};
    if (f->process->ops->launch(f->process, &launch, &f->err) != ORR_OK)
        fail_msg("%s", f->err.text);
    struct told told = fixture_wait_id(f, launch.id, ORR_RANK_RUNNING);
    assert_string_equal(told.why, "");
}

static void connection_between_machines_lives_through_a_move(void **state)
{
    struct two *t = *state;
    struct orr_rec_text args[16];
    const char *const server[] = {RANK_PROGRAM, "server", "-", t->a->dir, NULL};
    const char *const client[] = {RANK_PROGRAM, "client", "10.77.0.1", t->a->dir, NULL};
    int own = open_ns();
    fixture_close(t->a);
    fixture_close(t->b);
    int first = new_machine(), second = new_machine();
    shell("ip link add u2 type veth peer name u1 netns /proc/%d/fd/%d && ip addr add "
          "192.0.2.2/24 dev u2 && "
          "ip link set u2 up && ip link set lo up",
          (int)getpid(),
          first);
    fixture_open(t->b);
    enter(first);
    shell("ip addr add 192.0.2.1/24 dev u1 && ip link set u1 up && ip link set lo up");
    fixture_open(t->a);
    start_on(t,
             t->a,
             image_launch_of(t, server1, SERVER, args, server),
             "192.0.2.1",
             "192.0.2.2");
    start_on(t,
             t->b,
             image_launch_of(t, client1, CLIENT, args, client),
             "192.0.2.2",
             "192.0.2.1");
    unsigned long n = image_wait_progress(t->b, client1, 0);
    image_ok(t->a, server1, image_dir(t, "s"), false);
    fixture_wait_id(t->a, server1, ORR_RANK_EXITED);
    struct orr_process_launch again = image_launch_of(t, server2, SERVER, args, NULL);
    again.restore_dir = orr_str(image_dir(t, "s"));
    start_on(t, t->b, again, "192.0.2.2", "192.0.2.1");
    image_wait_progress(t->b, client1, n);
    image_stop_pair(t);
    image_check_ends(t->b, server2, t->b, client1);
    enter(own);
    close(own);
    close(first);
    close(second);
}

/* Also where /sys is of another network namespace than the host's: it is of whoever mounted it. */
static void rank_that_ends_leaves_the_network_to_the_others(void **state)
{
    struct two *t = *state;
    const struct orr_process_id third = {ORR_LIT("r1-c"), 1, 0};
    int own = open_ns();
    fixture_close(t->a);
    fixture_close(t->b);
    int machine = new_machine();
    fixture_open(t->a);
    fixture_open(t->b);
    image_start_pair(t, t->a, t->b);
    image_start(
        t, t->a, third, "10.77.0.3/16", (const char *const[]){"sleep", "1000", NULL});
    assert_int_equal(
        t->a->process->ops->signal(t->a->process, &third, SIGKILL, &t->a->err), ORR_OK);
    fixture_wait_id(t->a, third, ORR_RANK_EXITED);
    image_wait_progress(t->b, client1, image_wait_progress(t->b, client1, 0));
    image_stop_pair(t);
    image_check_ends(t->a, server1, t->b, client1);
    enter(own);
    close(own);
    close(machine);
}

static void network_is_widened_while_ranks_run(void **state)
{
    struct two *t = *state;
    const struct orr_rec_text peers[] = {{ORR_LIT("192.0.2.9:4790")}};
    struct orr_process_network network = {.overlay = t->overlay,
                                          .underlay = ORR_LIT("192.0.2.1:4790"),
                                          .peers = {peers, 1}};
    struct orr_process *process;
    int own = open_ns();
    fixture_close(t->a);
    fixture_close(t->b);
    int machine = new_machine();
    fixture_open(t->a);
    fixture_open(t->b);
    process = t->a->process;
    image_start_pair(t, t->a, t->b);
    unsigned long n = image_wait_progress(t->b, client1, 0);
    for (int i = 0; i < 2; i++) /* harmless when it is so */
        if (process->ops->widen(process, &server1, &network, &t->a->err) != ORR_OK)
            fail_msg("%s", t->a->err.text);
    image_wait_progress(t->b, client1, n);
    network.underlay = ORR_LIT("nonsense");
    assert_int_equal(process->ops->widen(process, &server1, &network, &t->a->err),
                     ORR_EIO);
    assert_non_null(strstr(t->a->err.text, "underlay address"));
    assert_int_equal(process->ops->widen(process, &server2, &network, &t->a->err),
                     ORR_ENOENT);
    image_stop_pair(t);
    image_check_ends(t->a, server1, t->b, client1);
    enter(own);
    close(own);
    close(machine);
}

/* ---- a rank that only listens ---- */

#define LISTEN                                                                         \
    "import socket\n"                                                                  \
    "c = socket.create_server(('10.77.0.1', 5000)).accept()[0]\n"                      \
    "while True: print(c.recv(4096).decode(), end='', flush=True)"
#define TALK                                                                           \
    "import socket, time, itertools\n"                                                 \
    "def dial():\n"                                                                    \
    "    while True:\n"                                                                \
    "        try: return socket.create_connection(('10.77.0.1', 5000))\n"              \
    "        except OSError: time.sleep(0.02)\n"                                       \
    "c = dial()\n"                                                                     \
    "for i in itertools.count(): c.sendall(b'%d\\n' % i); time.sleep(0.01)"

/* `c` is the switch, and a machine. */
static void wire(int a, int b, int c)
{
    enter(c);
    shell("ip link set lo up && ip link add sw type bridge && "
          "ip addr add 192.0.2.3/24 dev sw && ip link set sw up");
    const int machines[] = {a, b};
    for (int i = 0; i < 2; i++) {
        enter(c);
        shell("ip link add p%d type veth peer name u netns /proc/%d/fd/%d && "
              "ip link set p%d master sw up",
              i,
              (int)getpid(),
              machines[i],
              i);
        enter(machines[i]);
        shell(
            "ip addr add 192.0.2.%d/24 dev u && ip link set u up && ip link set lo up",
            i + 1);
    }
}

/* From machine a to b, frozen, and thawed there: what it hears from the one on c was not acknowledged when it left, and it has
 * nothing to say itself, so it is found only if it says where it is. */
static void move_listener(struct two *t, int a, int b)
{
    struct orr_process_launch again = image_launch_of(t, server1, SERVER, NULL, NULL);
    unsigned long n = image_wait_progress(t->a, server1, 0);
    enter(a);
    image_freeze_ok(t->a, server1, true);
    image_ok(t->a, server1, image_dir(t, "l"), true);
    again.restore_dir = orr_str(image_dir(t, "l"));
    again.stays_frozen = true;
    start_on(t, t->b, again, "192.0.2.2:4790", "192.0.2.1:4790,192.0.2.3:4790");
    assert_int_equal(
        t->a->process->ops->signal(t->a->process, &server1, SIGKILL, &t->a->err),
        ORR_OK);
    fixture_wait_id(t->a, server1, ORR_RANK_EXITED);
    enter(b);
    image_freeze_ok(t->b, server1, false);
    image_wait_progress(t->b, server1, n);
}

static void rank_that_came_frozen_is_found_by_other_machines(void **state)
{
    struct two *t = *state;
    struct orr_rec_text args[16];
    const char *const listen[] = {"/usr/bin/python3", "-c", LISTEN, NULL};
    const char *const talk[] = {"/usr/bin/python3", "-c", TALK, NULL};
    void *third;
    int own = open_ns();
    fixture_close(t->a);
    fixture_close(t->b);
    int a = new_machine(), b = new_machine(), c = new_machine();
    wire(a, b, c);
    enter(a);
    fixture_open(t->a);
    enter(b);
    fixture_open(t->b);
    enter(c);
    fixture_setup(&third);
    start_on(t,
             t->a,
             image_launch_of(t, server1, SERVER, args, listen),
             "192.0.2.1:4790",
             "192.0.2.2:4790,192.0.2.3:4790");
    start_on(t,
             third,
             image_launch_of(t, client1, CLIENT, args, talk),
             "192.0.2.3:4790",
             "192.0.2.1:4790,192.0.2.2:4790");
    move_listener(t, a, b);
    enter(own);
    fixture_teardown(&third);
    close(own);
    close(a);
    close(b);
    close(c);
}

/* ---- more than one job ---- */

static struct told start_of(struct two *t, uint64_t overlay, struct orr_process_id id)
{
    const struct orr_rec_text args[] = {{ORR_LIT("sleep")}, {ORR_LIT("1000")}},
                              peers[] = {{ORR_LIT("192.0.2.9:4790")}};
    const struct orr_process_launch launch = {.id = id,
                                              .command = {args, 2},
                                              .wants_image = true,
                                              .overlay = overlay,
                                              .address = ORR_LIT(SERVER),
                                              .underlay = ORR_LIT("192.0.2.1:4790"),
                                              .peers = {peers, 1}};
    if (t->a->process->ops->launch(t->a->process, &launch, &t->a->err) != ORR_OK)
        fail_msg("%s", t->a->err.text);
    return fixture_wait_id(
        t->a, id, id.generation == 3 ? ORR_RANK_LOST : ORR_RANK_RUNNING);
}

/* A rank of a job on several machines that cannot have its network does not start on the machine's: its peers would look for it in vain. */
static void networks_share_a_port_but_no_identifier(void **state)
{
    struct two *t = *state;
    const struct orr_process_id ids[] = {
        {ORR_LIT("r1-d"), 1, 0}, {ORR_LIT("r1-d"), 2, 0}, {ORR_LIT("r1-d"), 3, 0}};
    int own = open_ns();
    fixture_close(t->a);
    int machine = new_machine();
    shell("ip link set lo up && ip addr add 192.0.2.1/24 dev lo");
    fixture_open(t->a);
    assert_string_equal(start_of(t, 7, ids[0]).why, "");
    assert_string_equal(start_of(t, 8, ids[1]).why, "");
    struct told told = start_of(t, 7 + (UINT64_C(1) << 40), ids[2]);
    assert_non_null(strstr(told.reason, "network identifier"));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            t->a->process->ops->signal(t->a->process, &ids[i], SIGKILL, &t->a->err),
            ORR_OK);
        fixture_wait_id(t->a, ids[i], ORR_RANK_EXITED);
    }
    enter(own);
    close(own);
    close(machine);
}

static const char *why_skip(void)
{
    const char *why = image_why_skip();
    return why ? why : system("ip -V >/dev/null 2>&1") != 0 ? "needs ip(8)" : NULL;
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        IMAGE_TEST(connection_between_machines_lives_through_a_move),
        IMAGE_TEST(rank_that_came_frozen_is_found_by_other_machines),
        IMAGE_TEST(rank_that_ends_leaves_the_network_to_the_others),
        IMAGE_TEST(network_is_widened_while_ranks_run),
        IMAGE_TEST(networks_share_a_port_but_no_identifier),
    };
    return image_main(argc, argv, tests, ORR_ARRAY_SIZE(tests), why_skip);
}
