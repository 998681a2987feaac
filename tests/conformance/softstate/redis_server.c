/* SPDX-License-Identifier: Apache-2.0
 * redis_server.c - redis_server.h.
 */
#include "redis_server.h"

#include "orr_test.h"

#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { START_MS = 20000 };

uint64_t test_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void test_pause(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *out = fopen(path, "we");
    assert_non_null(out);
    fputs(text, out);
    assert_int_equal(fclose(out), 0);
}

bool redis_server_init(struct redis_server *s)
{
    char conf[512];
    *s = (struct redis_server){.pid = 0};
    if (system("command -v redis-server >/dev/null") != 0)
        return false;
    snprintf(s->dir, sizeof s->dir, "/tmp/orr-soft-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    snprintf(s->socket, sizeof s->socket, "%s/sock", s->dir);
    snprintf(s->address, sizeof s->address, "unix://%s", s->socket);
    snprintf(s->password_file, sizeof s->password_file, "%s/password", s->dir);
    snprintf(s->reader_file, sizeof s->reader_file, "%s/reader", s->dir);
    write_file(s->dir, "password", "not-a-secret\n");
    write_file(s->dir, "reader", "for-readers\n");
    write_file(s->dir,
               "users.acl",
               "user default off\n"
               "user admin on >admin ~* &* +@all\n"
               "user orrery on >not-a-secret ~orrery:* resetchannels -@all +auth +set "
               "+del +getrange\n"
               "user reader on >for-readers ~orrery:* resetchannels -@all +auth +scan "
               "+getrange\n");
    snprintf(conf,
             sizeof conf,
             "port 0\nunixsocket %s\nunixsocketperm 700\naclfile %s/users.acl\n"
             "dir %s\nsave \"\"\nappendonly no\ndatabases 1\nmaxmemory 64mb\n"
             "maxmemory-policy noeviction\nlogfile %s/log\n",
             s->socket,
             s->dir,
             s->dir,
             s->dir);
    write_file(s->dir, "redis.conf", conf);
    return true;
}

static redisContext *connect_admin(const struct redis_server *s)
{
    const struct timeval patience = {.tv_sec = 5};
    redisContext *c = redisConnectUnixWithTimeout(s->socket, patience);
    redisReply *reply = NULL;
    bool is_in = c && !c->err && redisSetTimeout(c, patience) == REDIS_OK &&
                 (reply = redisCommand(c, "AUTH admin admin")) != NULL &&
                 reply->type == REDIS_REPLY_STATUS;
    freeReplyObject(reply);
    if (is_in)
        return c;
    if (c)
        redisFree(c);
    return NULL;
}

void redis_server_start(struct redis_server *s)
{
    char conf[96];
    snprintf(conf, sizeof conf, "%s/redis.conf", s->dir);
    s->pid = fork();
    assert_true(s->pid >= 0);
    if (s->pid == 0) { /* a test that fails or crashes leaves none behind */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp("redis-server", "redis-server", conf, (char *)NULL);
        _exit(127);
    }
    redisContext *c = NULL;
    for (uint64_t end = test_now_ms() + START_MS; !c && test_now_ms() < end;) {
        c = connect_admin(s);
        if (!c)
            test_pause();
    }
    assert_non_null(c);
    redisFree(c);
}

void redis_server_kill(struct redis_server *s)
{
    if (s->pid > 0) {
        kill(s->pid, SIGKILL);
        waitpid(s->pid, NULL, 0);
    }
    s->pid = 0;
}

void redis_server_fini(struct redis_server *s)
{
    static const char *const names[] = {
        "password", "reader", "users.acl", "redis.conf", "sock", "log"};
    redis_server_kill(s);
    for (size_t i = 0; s->dir[0] && i < ORR_ARRAY_SIZE(names); i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", s->dir, names[i]);
        unlink(path);
    }
    if (s->dir[0])
        assert_int_equal(rmdir(s->dir), 0);
}

static redisReply *ask(const struct redis_server *s, const char *fmt, va_list args)
{
    redisContext *c = connect_admin(s);
    assert_non_null(c);
    redisReply *reply = redisvCommand(c, fmt, args);
    assert_non_null(reply);
    redisFree(c);
    return reply;
}

redisReply *redis_server_ask(const struct redis_server *s, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    redisReply *reply = ask(s, fmt, args);
    va_end(args);
    return reply;
}

long long redis_server_number(const struct redis_server *s, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    redisReply *reply = ask(s, fmt, args);
    va_end(args);
    long long n = reply->type == REDIS_REPLY_INTEGER ? reply->integer : -100;
    freeReplyObject(reply);
    return n;
}

bool redis_server_has(const struct redis_server *s, const char *key, const char *value)
{
    redisReply *reply = redis_server_ask(s, "GET %s", key);
    bool has = reply->type == REDIS_REPLY_STRING && reply->len == strlen(value) &&
               memcmp(reply->str, value, reply->len) == 0;
    freeReplyObject(reply);
    return has;
}
