/* SPDX-License-Identifier: Apache-2.0
 * image_rank.c - a program to make images of: image_rank server|client ADDRESS DIR.
 *
 * Client and server play ping-pong over one TCP connection, with counted messages, and print each.  Beside that each of them counts
 * through a pipe between two threads, through a socketpair with a child process, in a file, in a file that was unlinked, and by a
 * timer.  image_rank heap MIB DIR holds memory, and looks at it before it exits with 7.  Whatever is lost, repeated or out of order ends it with 99 and a word on stderr.  When DIR/stop is there the client closes
 * the connection and dies of SIGUSR2, and the server exits with 7.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { PORT = 5000, PAUSE_US = 2000, TICK_MS = 5 };

static int numbers[2], child_socket, data_file, ghost_file;

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    fflush(stderr);
    _exit(99);
}

static void expect(int is_so, const char *what)
{
    if (!is_so)
        fail(what);
}

static void *write_numbers(void *arg)
{
    (void)arg;
    for (uint64_t i = 0;; i++) {
        expect(write(numbers[1], &i, sizeof i) == sizeof i, "pipe: write");
        usleep(PAUSE_US);
    }
    return NULL;
}

static void *read_numbers(void *arg)
{
    (void)arg;
    for (uint64_t i = 0, n;; i++)
        expect(read(numbers[0], &n, sizeof n) == sizeof n && n == i, "pipe: number");
    return NULL;
}

static void *use_child(void *arg)
{
    (void)arg;
    for (uint64_t i = 0, n;; i++) {
        expect(write(child_socket, &i, sizeof i) == sizeof i, "child: write");
        expect(read(child_socket, &n, sizeof n) == sizeof n && n == i + 1,
               "child: number");
        usleep(PAUSE_US);
    }
    return NULL;
}

static void *use_timer(void *arg)
{
    (void)arg;
    int fd = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec t = {{0, TICK_MS * 1000000}, {0, TICK_MS * 1000000}};
    expect(timerfd_settime(fd, 0, &t, NULL) == 0, "timer");
    for (uint64_t ticks, i = 0;; i++) {
        expect(read(fd, &ticks, sizeof ticks) == sizeof ticks, "timer: read");
        expect(dprintf(data_file, "%lu\n", (unsigned long)i) > 0, "file: write");
        uint64_t before = 0;
        expect(pread(ghost_file, &before, sizeof before, 0) == (i ? 8 : 0) &&
                   before == i,
               "unlinked file");
        before = i + 1;
        expect(pwrite(ghost_file, &before, sizeof before, 0) == sizeof before,
               "unlinked file: write");
    }
    return NULL;
}

static void start_child(void)
{
    int pair[2];
    expect(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
    pid_t pid = fork();
    if (pid == 0) {
        close(pair[0]);
        for (uint64_t n; read(pair[1], &n, sizeof n) == sizeof n;) {
            n++;
            expect(write(pair[1], &n, sizeof n) == sizeof n, "parent: write");
        }
        _exit(0);
    }
    close(pair[1]);
    child_socket = pair[0];
}

static void start_all(const char *role, const char *dir)
{
    static void *(*const lives[])(void *) = {
        write_numbers, read_numbers, use_child, use_timer};
    char path[256];
    pthread_t thread;
    start_child();
    expect(pipe(numbers) == 0, "pipe");
    snprintf(path, sizeof path, "%s/%s.data", dir, role);
    data_file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    snprintf(path, sizeof path, "%s/%s.ghost", dir, role);
    ghost_file = open(path, O_RDWR | O_CREAT, 0644);
    expect(data_file >= 0 && ghost_file >= 0 && unlink(path) == 0, "files");
    for (int i = 0; i < 4; i++)
        expect(pthread_create(&thread, NULL, lives[i], NULL) == 0, "thread");
}

static void serve(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    expect(bind(fd, (struct sockaddr *)&any, sizeof any) == 0 && listen(fd, 4) == 0,
           "listen");
    int peer = accept(fd, NULL, NULL);
    expect(peer >= 0, "accept");
    for (uint64_t i = 0, n; recv(peer, &n, sizeof n, MSG_WAITALL) != 0; i++) {
        expect(n == i, "tcp: number");
        expect(send(peer, &n, sizeof n, 0) == sizeof n, "tcp: send");
        printf("%lu\n", (unsigned long)n);
    }
    exit(7);
}

static int dial(const char *address)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    inet_pton(AF_INET, address, &to.sin_addr);
    for (int i = 0; i < 2000; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0)
            return fd;
        close(fd);
        poll(NULL, 0, 10);
    }
    fail("connect");
    return -1;
}

static void call(const char *address, const char *dir)
{
    char stop[256];
    int fd = dial(address);
    snprintf(stop, sizeof stop, "%s/stop", dir);
    for (uint64_t i = 0, n; access(stop, F_OK) != 0; i++) {
        expect(send(fd, &i, sizeof i, 0) == sizeof i, "tcp: send");
        expect(recv(fd, &n, sizeof n, MSG_WAITALL) == sizeof n && n == i,
               "tcp: number");
        printf("%lu\n", (unsigned long)n);
        usleep(PAUSE_US);
    }
    close(fd);
    raise(SIGUSR2);
}

/* Memory of which each word says where it is. */
static void hold(size_t mib, const char *dir)
{
    size_t n = (mib << 20) / sizeof(uint64_t);
    volatile uint64_t *heap = malloc(n * sizeof *heap);
    char stop[256];
    expect(heap != NULL, "memory");
    for (size_t i = 0; i < n; i++)
        heap[i] = i * 0x9e3779b97f4a7c15u + 1;
    snprintf(stop, sizeof stop, "%s/stop", dir);
    for (unsigned long i = 0; access(stop, F_OK) != 0; i++) {
        printf("%lu\n", i);
        usleep(PAUSE_US);
    }
    for (size_t i = 0; i < n; i++)
        expect(heap[i] == i * 0x9e3779b97f4a7c15u + 1, "memory is not what it was");
    exit(7);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (strcmp(argv[1], "heap") == 0)
        hold(strtoul(argv[2], NULL, 10), argv[3]);
    signal(SIGPIPE, SIG_IGN);
    start_all(argv[1], argv[3]);
    if (strcmp(argv[1], "server") == 0)
        serve();
    call(argv[2], argv[3]);
    return 98;
}
