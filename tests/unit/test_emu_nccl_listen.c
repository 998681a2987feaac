/* SPDX-License-Identifier: Apache-2.0
 * test_emu_nccl_listen.c - a root that starts removes the sockets of dead ones, and does not touch those that live: a knock on
 * the door of a process that is stopped just then would stay in its backlog, and CRIU refuses to save that.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "orr_test.h"

#include "rendezvous.h"

static const struct timespec long_ago[2] = {{.tv_sec = 1}, {.tv_sec = 1}};

struct root {
    char path[sizeof(((struct orri_id *)0)->path)];
    int fd;
};

static void root_start(struct root *r)
{
    assert_int_equal(orri_listen(r->path, sizeof r->path, &r->fd), 0);
    assert_int_equal(utimensat(AT_FDCWD, r->path, long_ago, 0), 0);
}

static void root_stop(struct root *r)
{
    close(r->fd);
    unlink(r->path);
}

static void living_root_is_left_in_peace(void **state)
{
    struct root old, new;

    (void)state;
    root_start(&old);
    root_start(&new);
    assert_int_equal(access(old.path, F_OK), 0);
    assert_int_equal(accept4(old.fd, NULL, NULL, SOCK_CLOEXEC), -1);
    assert_int_equal(errno, EAGAIN);
    root_stop(&new);
    root_stop(&old);
}

static void dead_roots_socket_is_removed(void **state)
{
    struct root dead, new;

    (void)state;
    root_start(&dead);
    close(dead.fd);
    root_start(&new);
    assert_int_equal(access(dead.path, F_OK), -1);
    root_stop(&new);
}

/* It may be between bind and listen, or about to bind. */
static void new_one_is_nobodys_business(void **state)
{
    struct root other, new;

    (void)state;
    assert_int_equal(orri_listen(other.path, sizeof other.path, &other.fd), 0);
    close(other.fd);
    root_start(&new);
    assert_int_equal(access(other.path, F_OK), 0);
    unlink(other.path);
    root_stop(&new);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(living_root_is_left_in_peace),
        cmocka_unit_test(dead_roots_socket_is_removed),
        cmocka_unit_test(new_one_is_nobodys_business),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
