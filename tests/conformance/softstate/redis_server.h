/* SPDX-License-Identifier: Apache-2.0
 * redis_server.h - a real, private redis-server of a test: a socket in a folder of its
 * own, users with passwords, nothing on disk.
 */
#ifndef ORR_TEST_REDIS_SERVER_H
#define ORR_TEST_REDIS_SERVER_H

#include "softstate.h"

#include <hiredis/hiredis.h>
#include <sys/types.h>

struct redis_server {
    char dir[64];
    char address[96]; /* unix:///... */
    char socket[80];
    char password_file[96]; /* of user orrery */
    char reader_file[96];   /* of user reader */
    pid_t pid;              /* 0: does not run */
};

/* false: redis-server is not installed. */
bool redis_server_init(struct redis_server *server);
void redis_server_fini(struct redis_server *server);
/* Returns when it answers. */
void redis_server_start(struct redis_server *server);
void redis_server_kill(struct redis_server *server);

/* As its admin; the caller frees the reply.  Fails the test when it does not answer. */
redisReply *redis_server_ask(const struct redis_server *server, const char *fmt, ...);
/* The same for commands that answer with a number; -100 for anything else. */
long long redis_server_number(const struct redis_server *server, const char *fmt, ...);
bool redis_server_has(const struct redis_server *server,
                      const char *key,
                      const char *value);

uint64_t test_now_ms(void);
void test_pause(void); /* between two looks at a condition that has a deadline */

#endif
