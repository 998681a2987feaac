/* SPDX-License-Identifier: Apache-2.0
 * dev_redis.c - dev_redis.h.
 *
 * It is supervised as a host is: a pid with its start time in DIR/redis/pid, started by
 * `dev up` when it does not run, ended by `dev down`.
 */
#include "dev_redis.h"

#include "orrery/client.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PASSWORD_BYTES = 24, ASK_MS = 500 };

static const struct fleet_host redis = {.name = "redis"};

static void path_of(const struct fleet *f, const char *name, char path[FLEET_PATH_MAX])
{
    snprintf(path, FLEET_PATH_MAX, "%.*s/%s", FLEET_PATH_MAX - 64, f->dir, name);
}

/* Where execvp would find it; false: nowhere. */
static bool find_server(char path[FLEET_PATH_MAX])
{
    const char *at = getenv("PATH");
    for (at = at && *at ? at : "/usr/bin:/bin"; *at; at += strspn(at, ":")) {
        size_t len = strcspn(at, ":");
        snprintf(path, FLEET_PATH_MAX, "%.*s/redis-server", (int)len, at);
        if (access(path, X_OK) == 0)
            return true;
        at += len;
    }
    return false;
}

/* Only the owner of the fleet may read it, whatever was there before. */
static enum orr_err write_secret(const struct fleet *f,
                                 const char *name,
                                 const char *text,
                                 struct orr_error *err)
{
    char path[FLEET_PATH_MAX];
    path_of(f, name, path);
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ssize_t len = (ssize_t)strlen(text);
    bool is_written = fd >= 0 && write(fd, text, (size_t)len) == len;
    if (fd >= 0 && close(fd) != 0)
        is_written = false;
    return is_written
               ? ORR_OK
               : orr_fail(err, ORR_EIO, "cannot write %s: %s", path, strerror(errno));
}

static bool make_password(char text[2 * PASSWORD_BYTES + 1])
{
    uint8_t bytes[PASSWORD_BYTES];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return false;
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    return true;
}

struct user {
    const char *name;
    const char *file;
    const char *rules;
};
static const struct user users[] = {
    {"orrery",
     "redis/password",
     "~orrery:* resetchannels -@all +auth +set +del +getrange"},
    {"reader",
     "redis/reader-password",
     "~orrery:* resetchannels -@all +auth +scan +getrange"},
    {"admin", "redis/admin-password", "~* &* +@all"},
};

static enum orr_err write_users(const struct fleet *f, struct orr_error *err)
{
    char acl[1024] = "user default off\n";
    for (size_t i = 0; i < ORR_ARRAY_SIZE(users); i++) {
        char password[2 * PASSWORD_BYTES + 1];
        if (!make_password(password))
            return orr_fail(err, ORR_EIO, "no random numbers: %s", strerror(errno));
        enum orr_err code = write_secret(f, users[i].file, password, err);
        if (code)
            return code;
        size_t len = strlen(acl);
        snprintf(acl + len,
                 sizeof acl - len,
                 "user %s on >%s %s\n",
                 users[i].name,
                 password,
                 users[i].rules);
    }
    return write_secret(f, "redis/users.acl", acl, err);
}

enum orr_err
dev_redis_write(const struct fleet *f, bool *ret_is_there, struct orr_error *err)
{
    char path[FLEET_PATH_MAX], text[4 * FLEET_PATH_MAX];
    if (!find_server(path)) {
        *ret_is_there = false;
        return ORR_OK;
    }
    path_of(f, "redis", path);
    if ((mkdir(path, 0700) != 0 && errno != EEXIST) || chmod(path, 0700) != 0)
        return orr_fail(err, ORR_EIO, "cannot make %s: %s", path, strerror(errno));
    enum orr_err code = write_users(f, err);
    snprintf(text,
             sizeof text,
             "redis=unix://%s/sock\nuser=reader\npassword_file=%s/reader-password\n",
             path,
             path);
    if (!code)
        code = write_secret(f, "softstate", text, err);
    snprintf(text,
             sizeof text,
             "port 0\nunixsocket \"%s/sock\"\nunixsocketperm 700\naclfile "
             "\"%s/users.acl\"\ndir \"%s\"\nsave \"\"\nappendonly no\ndaemonize no\n"
             "logfile \"\"\ndatabases 1\nmaxmemory 64mb\nmaxmemory-policy "
             "volatile-ttl\n",
             path,
             path,
             path);
    if (!code) /* last: a Redis that can be started is complete */
        code = write_secret(f, "redis/redis.conf", text, err);
    *ret_is_there = !code;
    return code;
}

bool dev_redis_is_there(const struct fleet *f)
{
    char path[FLEET_PATH_MAX];
    path_of(f, "redis/redis.conf", path);
    return access(path, R_OK) == 0;
}

void dev_redis_host_yaml(const struct fleet *f, char *buf, size_t cap)
{
    buf[0] = '\0';
    if (dev_redis_is_there(f))
        snprintf(buf,
                 cap,
                 "softstate: {redis: \"unix://%s/redis/sock\", user: orrery, "
                 "password_file: \"%s/redis/password\"}\n",
                 f->dir,
                 f->dir);
}

enum orr_err dev_redis_start(const struct fleet *f, struct orr_error *err)
{
    char server[FLEET_PATH_MAX], config[FLEET_PATH_MAX];
    if (!dev_redis_is_there(f) || fleet_host_pid(f, &redis))
        return ORR_OK;
    if (!find_server(server)) {
        fputs("orrery: redis-server is not installed any more; soft state stays in "
              "memory\n",
              stderr);
        return ORR_OK;
    }
    path_of(f, "redis/redis.conf", config);
    char *args[] = {"redis-server", config, NULL};
    return fleet_process_start(f, &redis, server, args, err);
}

int dev_redis_pid(const struct fleet *f)
{
    return fleet_host_pid(f, &redis);
}

void dev_redis_stop(const struct fleet *f, unsigned grace_ms)
{
    fleet_host_stop(f, &redis, grace_ms);
}

void dev_softstate_line(const struct fleet *f,
                        const struct fleet_host *region,
                        char *buf,
                        size_t cap)
{
    char endpoint[FLEET_PATH_MAX + ORR_NAME_MAX + 32];
    struct orr_client *client = NULL;
    struct orr_answer answer;
    snprintf(endpoint,
             sizeof endpoint,
             "ipc://%.*s/%.*s/sock",
             FLEET_PATH_MAX,
             f->dir,
             ORR_NAME_MAX,
             region->name);
    enum orr_err code = orr_client_new(endpoint, ASK_MS, &client, NULL);
    if (!code)
        code = orr_client_ask(client,
                              "/edge/softstate",
                              orr_msg_desc_soft_status_get(),
                              &(struct orr_msg_soft_status_get){0},
                              ASK_MS,
                              &answer,
                              NULL);
    if (code || answer.desc != orr_msg_desc_soft_status()) {
        snprintf(buf, cap, "unknown: host %s does not answer", region->name);
    } else {
        const struct orr_msg_soft_status *s = answer.msg;
        if (s->is_degraded)
            snprintf(buf, cap, "degraded: %.*s", ORR_STR_ARGS(s->why));
        else
            orr_str_copy(buf, cap, s->backend);
    }
    orr_client_free(client);
}
