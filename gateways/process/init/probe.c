/* SPDX-License-Identifier: Apache-2.0
 * probe.c - what the self-test makes an image of: a UNIX and a TCP pair, both with a byte under way.  Says "ready", waits for SIGUSR1,
 * and exits with 42 if all came through.
 */
#include "probe.h"

#include <arpa/inet.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int make_tcp_pair(int pair[2])
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof addr) != 0 ||
        listen(fd, 1) != 0 || getsockname(fd, (struct sockaddr *)&addr, &len) != 0)
        return -1;
    pair[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (pair[0] < 0 || connect(pair[0], (struct sockaddr *)&addr, sizeof addr) != 0)
        return -1;
    pair[1] = accept(fd, NULL, NULL);
    close(fd);
    return pair[1] < 0 ? -1 : 0;
}

static int is_through(int fd, char sent)
{
    char c = 0;
    return recv(fd, &c, 1, 0) == 1 && c == sent;
}

int probe_main(void)
{
    int local[2], tcp[2], sig;
    sigset_t go;
    sigemptyset(&go);
    sigaddset(&go, SIGUSR1);
    sigprocmask(SIG_BLOCK, &go, NULL);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, local) != 0 || make_tcp_pair(tcp) != 0 ||
        send(local[0], "a", 1, 0) != 1 || send(tcp[0], "b", 1, 0) != 1 ||
        write(1, "ready\n", 6) != 6)
        return 1;
    if (sigwait(&go, &sig) != 0 || !is_through(local[1], 'a') ||
        !is_through(tcp[1], 'b'))
        return 1;
    if (send(local[1], "c", 1, 0) != 1 || send(tcp[1], "d", 1, 0) != 1)
        return 1;
    return is_through(local[0], 'c') && is_through(tcp[0], 'd') ? 42 : 1;
}
