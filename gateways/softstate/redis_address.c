/* SPDX-License-Identifier: Apache-2.0
 * redis_address.c - redis_address.h.
 */
#include "redis_address.h"

#include <arpa/inet.h>
#include <errno.h>

/* Only this machine: there is no TLS.  A number in any case, so that nobody waits for a
 * name server. */
static bool to_loopback(struct redis_address *a)
{
    struct in_addr in;
    if (strcmp(a->host, "localhost") == 0)
        snprintf(a->host, sizeof a->host, "127.0.0.1");
    if (strcmp(a->host, "[::1]") == 0)
        snprintf(a->host, sizeof a->host, "::1");
    return strcmp(a->host, "::1") == 0 ||
           (inet_pton(AF_INET, a->host, &in) == 1 && ntohl(in.s_addr) >> 24 == 127);
}

enum orr_err redis_address_parse(const char *text,
                                 struct redis_address *ret_address,
                                 struct orr_error *err)
{
    struct redis_address a = {.port = 0};
    char *end = NULL;
    if (strncmp(text, "unix:///", 8) == 0 && strlen(text + 7) < sizeof a.path) {
        snprintf(a.path, sizeof a.path, "%s", text + 7);
        *ret_address = a;
        return ORR_OK;
    }
    const char *colon = strrchr(text, ':');
    if (strncmp(text, "tcp://", 6) == 0 && colon > text + 6 &&
        (size_t)(colon - text) - 6 < sizeof a.host) {
        orr_str_copy(a.host,
                     sizeof a.host,
                     (struct orr_str){text + 6, (uint32_t)(colon - text) - 6});
        a.port = (int)strtol(colon + 1, &end, 10);
    }
    if (!end || end == colon + 1 || *end || a.port < 1 || a.port > 65535 ||
        !to_loopback(&a))
        return orr_fail(err,
                        ORR_EINVAL,
                        "%.150s: not the address of a Redis; write unix:///PATH (at "
                        "most 107 bytes) or tcp://127.0.0.1:PORT",
                        text);
    *ret_address = a;
    return ORR_OK;
}

enum orr_err
redis_password_read(const char *file, char *buf, size_t cap, struct orr_error *err)
{
    FILE *in = fopen(file, "re");
    if (!in)
        return orr_fail(
            err, ORR_EIO, "cannot read password file %.80s: %s", file, strerror(errno));
    bool is_read = fgets(buf, (int)cap, in) != NULL;
    fclose(in);
    size_t len = is_read ? strcspn(buf, "\r\n") : 0;
    if (len == 0 || len + 1 == cap)
        return orr_fail(err,
                        ORR_EINVAL,
                        "password file %.80s: write the password into its first line",
                        file);
    buf[len] = '\0';
    return ORR_OK;
}
