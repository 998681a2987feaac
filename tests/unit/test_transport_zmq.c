/* SPDX-License-Identifier: Apache-2.0
 * test_transport_zmq.c - links between transports in one process: traffic, restarts,
 * refusals, limits. What hostile peers do is in test_transport_zmq_hostile.c.
 */
#include "fake_system.h"
#include "orr_test.h"
#include "transport_zmq.h"

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* No link ends because a machine is slow, but where a test wants to see that. */
enum { PATIENT_MS = 5000, IMPATIENT_MS = 400 };

struct host {
    struct orr_system system;
    struct orr_zmq *zmq;
    char endpoint[ORR_ENDPOINT_MAX];
};

static struct orr_error error;
static uint32_t heartbeat_ms = PATIENT_MS;

/* A host that listens at `listen` (NULL: nowhere) and dials `peer` (NULL: nobody). */
static void host_start(struct host *h,
                       const char *name,
                       uint32_t incarnation,
                       const char *listen,
                       const char *peer,
                       const char *at)
{
    fake_system_init(&h->system, name, incarnation);
    const struct orr_zmq_config config = {
        .system = &h->system,
        .host = name,
        .incarnation = incarnation,
        .build = "test",
        .heartbeat_ms = heartbeat_ms,
    };
    assert_int_equal(orr_zmq_new(&config, &h->zmq, &error), ORR_OK);
    h->system.transport = orr_zmq_transport(h->zmq);
    if (listen && orr_zmq_listen(h->zmq, listen, h->endpoint, &error) != ORR_OK)
        fail_msg("%s", error.text);
    if (peer && orr_zmq_dial(h->zmq, peer, at, &error) != ORR_OK)
        fail_msg("%s", error.text);
    assert_int_equal(orr_zmq_start(h->zmq, &error), ORR_OK);
}

static void host_stop(struct host *h)
{
    orr_zmq_stop(h->zmq);
    orr_zmq_free(h->zmq);
    fake_system_fini(&h->system);
}

static struct orr_zmq_stats stats(struct host *h)
{
    struct orr_zmq_stats s;
    orr_zmq_stats(h->zmq, &s);
    return s;
}

/* Wait until a link was refused; that is counted, and nobody is told. */
static void wait_refused(struct host *h)
{
    for (int left_ms = FAKE_WAIT_MS; stats(h).links_refused == 0; left_ms -= 5) {
        assert_true(left_ms > 0);
        usleep(5000);
    }
}

static void pair_start(struct host *parent, struct host *child, const char *listen)
{
    host_start(parent, "parent", 1, listen, NULL, NULL);
    host_start(child, "child", 7, NULL, "parent", parent->endpoint);
    assert_true(fake_wait(&parent->system, &parent->system.ups, 1));
    assert_true(fake_wait(&child->system, &child->system.ups, 1));
}

static void
ask_both_ways(struct host *a, const char *a_name, struct host *b, const char *b_name)
{
    uint64_t a_pongs = fake_get(&a->system, &a->system.pongs);
    uint64_t b_pongs = fake_get(&b->system, &b->system.pongs);
    assert_int_equal(fake_ping(&a->system, b_name, ORR_LANE_JOB, 1), ORR_OK);
    assert_int_equal(fake_ping(&b->system, a_name, ORR_LANE_JOB, 2), ORR_OK);
    assert_true(fake_wait(&a->system, &a->system.pongs, a_pongs + 1));
    assert_true(fake_wait(&b->system, &b->system.pongs, b_pongs + 1));
}

/* The child has no listener: the parent reaches it over the link that the child
 * dialled. */
static void hosts_over_tcp_answer_each_other(void **state)
{
    (void)state;
    struct host parent;
    struct host child;
    pair_start(&parent, &child, "tcp://127.0.0.1:*");
    assert_int_equal(fake_get(&parent.system, &parent.system.peer),
                     orr_hash(ORR_LIT("child")));
    assert_int_equal(fake_get(&parent.system, &parent.system.peer_incarnation), 7);
    ask_both_ways(&parent, "parent", &child, "child");
    assert_int_equal(fake_get(&parent.system, &parent.system.role), ORR_ROLE_HOST);
    host_stop(&child);
    host_stop(&parent);
}

static void temp_dir(char *dir, size_t cap)
{
    snprintf(dir, cap, "/tmp/orr-zmq-XXXXXX");
    assert_non_null(mkdtemp(dir));
}

/* With the sockets in it: libzmq leaves them, since another host may have bound the
 * path again. */
static void remove_dir(const char *dir)
{
    static const char *const names[] = {"p.sock", "a.sock", "b.sock"};
    char path[128];
    for (size_t i = 0; i < ORR_ARRAY_SIZE(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(dir), 0);
}

static void hosts_over_ipc_answer_each_other(void **state)
{
    (void)state;
    char dir[64];
    char endpoint[128];
    struct host parent;
    struct host child;
    temp_dir(dir, sizeof(dir));
    snprintf(endpoint, sizeof(endpoint), "ipc://%s/p.sock", dir);
    pair_start(&parent, &child, endpoint);
    ask_both_ways(&parent, "parent", &child, "child");
    host_stop(&child);
    host_stop(&parent);
    remove_dir(dir);
}

static void child_started_first_finds_its_parent(void **state)
{
    (void)state;
    char dir[64];
    char endpoint[128];
    struct host parent;
    struct host child;
    temp_dir(dir, sizeof(dir));
    snprintf(endpoint, sizeof(endpoint), "ipc://%s/p.sock", dir);
    host_start(&child, "child", 1, NULL, "parent", endpoint);
    assert_int_equal(fake_ping(&child.system, "parent", ORR_LANE_JOB, 0), ORR_EUNREACH);
    host_start(&parent, "parent", 1, endpoint, NULL, NULL);
    assert_true(fake_wait(&child.system, &child.system.ups, 1));
    assert_true(fake_wait(&parent.system, &parent.system.ups, 1));
    ask_both_ways(&parent, "parent", &child, "child");
    host_stop(&child);
    host_stop(&parent);
    remove_dir(dir);
}

static void many_messages_arrive_once_and_in_order(void **state)
{
    (void)state;
    enum { N = 200000 };
    struct host parent;
    struct host child;
    pair_start(&parent, &child, "tcp://127.0.0.1:*");
    for (uint64_t i = 0; i < N; i++) {
        enum orr_err rc;
        while ((rc = fake_ping(&child.system, "parent", ORR_LANE_JOB, i)) == ORR_EBUSY)
            assert_true(
                fake_wait(&parent.system,
                          &parent.system.messages,
                          fake_get(&parent.system, &parent.system.messages) + 1));
        assert_int_equal(rc, ORR_OK);
    }
    assert_true(fake_wait(&parent.system, &parent.system.messages, N));
    assert_int_equal(fake_get(&parent.system, &parent.system.messages), N);
    assert_int_equal(fake_get(&parent.system, &parent.system.unordered), 0);
    assert_true(stats(&child).frames_sent < N / 4); /* they share frames */
    host_stop(&child);
    host_stop(&parent);
}

static void item_of_the_largest_size_passes_and_a_larger_one_is_refused(void **state)
{
    (void)state;
    struct host parent;
    struct host child;
    pair_start(&parent, &child, "tcp://127.0.0.1:*");
    /* A ping whose body is followed by bytes of a newer version. */
    uint8_t *item = calloc(1, ORR_ITEM_MAX + 1u);
    uint8_t *ping;
    size_t len;
    const struct orr_msg_envelope envelope = {.msg = ORR_MSG_ping};
    assert_non_null(item);
    assert_int_equal(orr_wire_encode(&envelope,
                                     orr_msg_desc_ping(),
                                     &(struct orr_msg_ping){.nonce = 0},
                                     &ping,
                                     &len),
                     ORR_OK);
    memcpy(item, ping, len);
    struct orr_transport *t = child.system.transport;
    uint64_t host = orr_hash(ORR_LIT("parent"));
    assert_int_equal(t->ops->send(t, host, ORR_LANE_JOB, item, ORR_ITEM_MAX + 1u),
                     ORR_ENOSPC);
    assert_int_equal(t->ops->send(t, host, ORR_LANE_JOB, item, ORR_ITEM_MAX), ORR_OK);
    assert_true(fake_wait(&parent.system, &parent.system.messages, 1));
    assert_int_equal(fake_get(&parent.system, &parent.system.bytes), ORR_ITEM_MAX);
    free(ping);
    free(item);
    host_stop(&child);
    host_stop(&parent);
}

static void host_that_nobody_knows_is_unreachable(void **state)
{
    (void)state;
    struct host parent;
    struct host child;
    pair_start(&parent, &child, "tcp://127.0.0.1:*");
    assert_int_equal(fake_ping(&parent.system, "stranger", ORR_LANE_JOB, 0),
                     ORR_EUNREACH);
    host_stop(&child);
    host_stop(&parent);
}

static void restarted_peer_with_higher_incarnation_replaces_the_link(void **state)
{
    (void)state;
    struct host parent;
    struct host child;
    struct host again;
    pair_start(&parent, &child, "tcp://127.0.0.1:*");
    host_start(&again, "child", 8, NULL, "parent", parent.endpoint);
    assert_true(fake_wait(&parent.system, &parent.system.ups, 2));
    assert_int_equal(fake_get(&parent.system, &parent.system.downs), 1);
    assert_int_equal(fake_get(&parent.system, &parent.system.peer_incarnation), 8);
    assert_true(fake_wait(&again.system, &again.system.ups, 1));
    ask_both_ways(&parent, "parent", &again, "child");
    host_stop(&child);
    host_stop(&again);
    host_stop(&parent);
}

static void peer_with_lower_incarnation_is_refused(void **state)
{
    (void)state;
    struct host parent;
    struct host child;
    struct host old;
    pair_start(&parent, &child, "tcp://127.0.0.1:*");
    host_start(&old, "child", 6, NULL, "parent", parent.endpoint);
    wait_refused(&parent);
    ask_both_ways(&parent, "parent", &child, "child");
    assert_int_equal(fake_get(&parent.system, &parent.system.downs), 0);
    assert_int_equal(fake_get(&old.system, &old.system.ups), 0);
    host_stop(&old);
    host_stop(&child);
    host_stop(&parent);
}

/* A peer in its own process, to be killed. */
static pid_t fork_child(const char *endpoint)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        static struct host h;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        host_start(&h, "child", 3, NULL, "parent", endpoint);
        for (;;)
            pause();
    }
    return pid;
}

/* A port that nobody listens at, for a host that starts after its children were forked.
 */
static void
parent_with_forked_child(struct host *parent, char *dir, size_t cap, pid_t *ret_pid)
{
    char endpoint[128];
    temp_dir(dir, cap);
    snprintf(endpoint, sizeof(endpoint), "ipc://%s/p.sock", dir);
    *ret_pid = fork_child(endpoint); /* before this process has threads */
    host_start(parent, "parent", 1, endpoint, NULL, NULL);
    assert_true(fake_wait(&parent->system, &parent->system.ups, 1));
}

static void killed_peer_is_noticed_at_once(void **state)
{
    (void)state;
    struct host parent;
    char dir[64];
    pid_t pid;
    parent_with_forked_child(&parent, dir, sizeof(dir), &pid);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_true(fake_wait(&parent.system, &parent.system.downs, 1));
    assert_int_equal(fake_ping(&parent.system, "child", ORR_LANE_JOB, 0), ORR_EUNREACH);
    assert_int_equal(stats(&parent).links, 0);
    host_stop(&parent);
    remove_dir(dir);
}

static void frozen_peer_is_noticed_by_missed_beats_and_comes_back(void **state)
{
    (void)state;
    struct host parent;
    char dir[64];
    pid_t pid;
    heartbeat_ms = IMPATIENT_MS;
    parent_with_forked_child(&parent, dir, sizeof(dir), &pid);
    kill(pid, SIGSTOP);
    assert_true(fake_wait(&parent.system, &parent.system.downs, 1));
    kill(pid, SIGCONT);
    assert_true(fake_wait(&parent.system, &parent.system.ups, 2));
    heartbeat_ms = PATIENT_MS;
    /* It was told: what it says for the old link is no frame of somebody who says no hello. */
    assert_int_equal(stats(&parent).frames_refused, 0);
    assert_int_equal(stats(&parent).links_refused, 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    host_stop(&parent);
    remove_dir(dir);
}

static void restarted_listener_is_dialled_again(void **state)
{
    (void)state;
    struct host parent;
    struct host child;
    char endpoint[ORR_ENDPOINT_MAX];
    pair_start(&parent, &child, "tcp://127.0.0.1:*");
    memcpy(endpoint, parent.endpoint, sizeof(endpoint));
    host_stop(&parent);
    assert_true(fake_wait(&child.system, &child.system.downs, 1));
    assert_int_equal(fake_ping(&child.system, "parent", ORR_LANE_JOB, 0), ORR_EUNREACH);
    host_start(&parent, "parent", 2, endpoint, NULL, NULL);
    assert_true(fake_wait(&child.system, &child.system.ups, 2));
    assert_int_equal(fake_get(&child.system, &child.system.peer_incarnation), 2);
    assert_true(fake_wait(&parent.system, &parent.system.ups, 1));
    ask_both_ways(&parent, "parent", &child, "child");
    host_stop(&child);
    host_stop(&parent);
}

static void hosts_that_dial_each_other_keep_one_link(void **state)
{
    (void)state;
    char dir[64];
    char at_a[128];
    char at_b[128];
    struct host a;
    struct host b;
    temp_dir(dir, sizeof(dir));
    snprintf(at_a, sizeof(at_a), "ipc://%s/a.sock", dir);
    snprintf(at_b, sizeof(at_b), "ipc://%s/b.sock", dir);
    host_start(&a, "a", 1, at_a, "b", at_b);
    host_start(&b, "b", 1, at_b, "a", at_a);
    /* The second link may replace the first; then both sides must agree and stay. */
    for (uint64_t quiet = 0; quiet < 50;) {
        uint64_t ups =
            fake_get(&a.system, &a.system.ups) + fake_get(&b.system, &b.system.ups);
        usleep(20000);
        bool is_stable = ups == fake_get(&a.system, &a.system.ups) +
                                    fake_get(&b.system, &b.system.ups);
        quiet =
            is_stable && stats(&a).links == 1 && stats(&b).links == 1 ? quiet + 1 : 0;
        assert_true(ups < 20);
    }
    ask_both_ways(&a, "a", &b, "b");
    host_stop(&a);
    host_stop(&b);
    remove_dir(dir);
}

static void wait_links(struct host *h, uint64_t links)
{
    for (int left_ms = FAKE_WAIT_MS; stats(h).links != links; left_ms -= 5) {
        assert_true(left_ms > 0);
        usleep(5000);
    }
}

static void peer_that_is_undialled_is_let_go_and_can_be_dialled_again(void **state)
{
    (void)state;
    char dir[64];
    char at[128];
    struct host a;
    struct host b;
    temp_dir(dir, sizeof(dir));
    snprintf(at, sizeof(at), "ipc://%s/a.sock", dir);
    host_start(&a, "a", 1, at, NULL, NULL);
    host_start(&b, "b", 1, NULL, NULL, NULL);
    orr_zmq_undial(b.zmq, "a"); /* nothing to let go */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(orr_zmq_dial(b.zmq, "a", at, &error), ORR_OK);
        wait_links(&a, 1);
        orr_zmq_undial(b.zmq, "a");
        wait_links(&b, 0);
        wait_links(&a, 0);
    }
    for (int i = 0; i < 2 * ORR_ZMQ_DIALS_MAX; i++) { /* places are taken again */
        char name[16];
        snprintf(name, sizeof(name), "x%d", i);
        enum orr_err rc = ORR_ENOSPC;
        for (int left_ms = FAKE_WAIT_MS; rc == ORR_ENOSPC; left_ms -= 5) {
            rc = orr_zmq_dial(b.zmq, name, at, &error);
            assert_true(left_ms > 0);
            if (rc == ORR_ENOSPC)
                usleep(5000);
        }
        assert_int_equal(rc, ORR_OK);
        orr_zmq_undial(b.zmq, name);
    }
    host_stop(&a);
    host_stop(&b);
    remove_dir(dir);
}

static void listen_where_it_cannot_says_why(void **state)
{
    (void)state;
    struct host h;
    char long_path[200] = "ipc:///tmp/";
    memset(long_path + strlen(long_path), 'x', 150);
    const struct {
        const char *endpoint;
        enum orr_err code;
        const char *says;
    } cases[] = {
        {"tcp://0.0.0.0:*", ORR_EPERM, "without keys"},
        {"tcp://192.168.1.5:7000", ORR_EPERM, "127.0.0.1"},
        {"tcp://*:7000", ORR_EPERM, "without keys"},
        {"tcp://127.0.0.1", ORR_EINVAL, "HOST:PORT"},
        {"tcp://127.0.0.1:70000", ORR_EINVAL, "HOST:PORT"},
        {"tcp://127.0.0.1:7x", ORR_EINVAL, "HOST:PORT"},
        {"udp://127.0.0.1:7", ORR_EINVAL, "expected ipc://PATH"},
        {"", ORR_EINVAL, "expected ipc://PATH"},
        {"ipc://", ORR_EINVAL, "name a path"},
        {"ipc:///nonexistent/dir/x.sock", ORR_EINVAL, "make its folder"},
        {long_path, ORR_EINVAL, "107"},
    };
    host_start(&h, "h", 1, NULL, NULL, NULL);
    orr_zmq_stop(h.zmq);
    for (size_t i = 0; i < ORR_ARRAY_SIZE(cases); i++) {
        assert_int_equal(orr_zmq_listen(h.zmq, cases[i].endpoint, NULL, &error),
                         cases[i].code);
        if (!strstr(error.text, cases[i].says))
            fail_msg("%s: \"%s\" does not say \"%s\"",
                     cases[i].endpoint,
                     error.text,
                     cases[i].says);
    }
    host_stop(&h);
}

static void listen_at_a_live_path_is_refused_and_at_a_dead_one_works(void **state)
{
    (void)state;
    char dir[64];
    char path[100];
    char endpoint[128];
    struct host a;
    struct host b;
    temp_dir(dir, sizeof(dir));
    snprintf(path, sizeof(path), "%s/p.sock", dir);
    snprintf(endpoint, sizeof(endpoint), "ipc://%s", path);
    host_start(&a, "a", 1, endpoint, NULL, NULL);
    host_start(&b, "b", 1, NULL, NULL, NULL);
    orr_zmq_stop(b.zmq);
    assert_int_equal(orr_zmq_listen(b.zmq, endpoint, NULL, &error), ORR_EEXIST);
    assert_non_null(strstr(error.text, "listens there already"));
    host_stop(&b);
    host_stop(&a);
    assert_int_equal(access(path, F_OK),
                     0); /* the socket file is still there, and nobody listens */
    host_start(&a, "a", 2, endpoint, NULL, NULL);
    host_stop(&a);
    remove_dir(dir);
}

static void dial_twice_or_to_itself_is_refused(void **state)
{
    (void)state;
    struct host h;
    host_start(&h, "h", 1, NULL, "p", "tcp://127.0.0.1:9");
    assert_int_equal(orr_zmq_dial(h.zmq, "p", "tcp://127.0.0.1:10", &error),
                     ORR_EEXIST);
    assert_int_equal(orr_zmq_dial(h.zmq, "h", "tcp://127.0.0.1:10", &error),
                     ORR_EINVAL);
    assert_int_equal(orr_zmq_dial(h.zmq, "q", "tcp://127.0.0.1:*", &error), ORR_EINVAL);
    host_stop(&h);
}

static void endpoint_of_another_host_is_not_taken_for_the_one_dialled(void **state)
{
    (void)state;
    struct host parent;
    struct host child;
    host_start(&parent, "parent", 1, "tcp://127.0.0.1:*", NULL, NULL);
    host_start(&child, "child", 1, NULL, "uncle", parent.endpoint);
    wait_refused(&child);
    assert_int_equal(fake_get(&child.system, &child.system.ups), 0);
    host_stop(&child);
    host_stop(&parent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        /* these fork: first, while there is one thread */
        cmocka_unit_test(killed_peer_is_noticed_at_once),
        cmocka_unit_test(frozen_peer_is_noticed_by_missed_beats_and_comes_back),
        cmocka_unit_test(hosts_over_tcp_answer_each_other),
        cmocka_unit_test(hosts_over_ipc_answer_each_other),
        cmocka_unit_test(child_started_first_finds_its_parent),
        cmocka_unit_test(many_messages_arrive_once_and_in_order),
        cmocka_unit_test(item_of_the_largest_size_passes_and_a_larger_one_is_refused),
        cmocka_unit_test(host_that_nobody_knows_is_unreachable),
        cmocka_unit_test(restarted_peer_with_higher_incarnation_replaces_the_link),
        cmocka_unit_test(peer_with_lower_incarnation_is_refused),
        cmocka_unit_test(restarted_listener_is_dialled_again),
        cmocka_unit_test(hosts_that_dial_each_other_keep_one_link),
        cmocka_unit_test(peer_that_is_undialled_is_let_go_and_can_be_dialled_again),
        cmocka_unit_test(listen_where_it_cannot_says_why),
        cmocka_unit_test(listen_at_a_live_path_is_refused_and_at_a_dead_one_works),
        cmocka_unit_test(dial_twice_or_to_itself_is_refused),
        cmocka_unit_test(endpoint_of_another_host_is_not_taken_for_the_one_dialled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
