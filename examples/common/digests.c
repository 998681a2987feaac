/* SPDX-License-Identifier: Apache-2.0
 * digests.c - see digests.h.
 */
#include "digests.h"

#include "fail.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

uint64_t fnv1a(uint64_t hash, const void *data, size_t len)
{
    const unsigned char *p = data;
    for (size_t k = 0; k < len; k++)
        hash = (hash ^ p[k]) * UINT64_C(0x100000001b3);
    return hash;
}

__attribute__((format(printf, 2, 3))) static void
append(struct digests *d, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    size_t room = sizeof d->line - d->used;
    int n = vsnprintf(d->line + d->used, room, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= room)
        die("--digests: more than %zu characters of state", sizeof d->line);
    d->used += (size_t)n;
}

bool digests_begin(struct digests *d, uint32_t step)
{
    if (d->prefix[0] == '\0' || step % d->every != 0)
        return false;
    d->used = 0;
    append(d, "step=%u", step);
    return true;
}

void digests_add(struct digests *d, const char *name, const void *data, size_t len)
{
    append(d, " %s=%016llx", name, (unsigned long long)fnv1a(FNV1A_START, data, len));
}

void digests_end(struct digests *d)
{
    char path[PATH_MAX + 16];
    append(d, "\n");
    snprintf(path, sizeof path, "%s.%u", d->prefix, d->rank);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, d->line, d->used) != (ssize_t)d->used || close(fd) != 0)
        die("--digests: %s: %s", path, strerror(errno));
}
