/* SPDX-License-Identifier: Apache-2.0
 * store_fence.c - whose list of roots a store is collected with, and that none is older than one before.
 *
 * The file `collector` has the newest list that was taken: region, epoch of its ledger, term and round.  It is on disk before
 * anything is removed.  `collecting` is locked while one is carried out, by whichever of the hosts that share the store.
 */
#include "store_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { TEXT_MAX = 256 };

static const char tmp_name[] = "collector.new";

/* Of nobody when it was never collected. */
static enum orr_err
recall(struct orr_store *s, struct orr_store_fence *ret, struct orr_error *err)
{
    char text[TEXT_MAX] = "";
    const int fd = openat(s->root, "collector", O_RDONLY | O_CLOEXEC);
    *ret = (struct orr_store_fence){.term = 0};
    if (fd < 0)
        return errno == ENOENT ? ORR_OK
                               : orri_io_fail(err, "cannot open collector of", s->path);
    const ssize_t n = pread(fd, text, sizeof text - 1, 0);
    close(fd);
    int end = 0;
    if (n < 0)
        return orri_io_fail(err, "cannot read collector of", s->path);
    if (sscanf(text,
               "%63s %" SCNu64 " %" SCNu64 " %" SCNu64 "%n",
               ret->region,
               &ret->epoch,
               &ret->term,
               &ret->round,
               &end) == 4 &&
        text[end] == '\n')
        return ORR_OK;
    return orr_fail(err,
                    ORR_EIO,
                    "store: %s/collector cannot be read; remove it once no region but "
                    "its own uses the store",
                    s->path);
}

static enum orr_err
note(struct orr_store *s, const struct orr_store_fence *fence, struct orr_error *err)
{
    char text[TEXT_MAX];
    const int len = snprintf(text,
                             sizeof text,
                             "%s %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
                             fence->region,
                             fence->epoch,
                             fence->term,
                             fence->round);
    (void)unlinkat(s->root, tmp_name, 0);
    const int fd = orri_io_create(s->root, tmp_name);
    const bool is_done = fd >= 0 &&
                         !orri_io_write(fd, tmp_name, "", 0, text, (size_t)len) &&
                         !orri_io_sync(fd, tmp_name) &&
                         !orri_io_rename(s->root, tmp_name, s->root, "collector") &&
                         !orri_io_sync(s->root, s->path);
    enum orr_err code =
        is_done ? ORR_OK : orri_io_fail(err, "cannot write collector of", s->path);
    if (fd >= 0)
        close(fd);
    return code;
}

/* Errors: ORR_EPERM another region's; ORR_ESTALE older, or of another ledger. */
static enum orr_err compare(const struct orr_store *s,
                            const struct orr_store_fence *was,
                            const struct orr_store_fence *now,
                            struct orr_error *err)
{
    if (!was->region[0])
        return ORR_OK;
    if (strcmp(was->region, now->region) != 0)
        return orr_fail(err,
                        ORR_EPERM,
                        "store: %s is collected by region %s, not %s: give each region "
                        "stores of its own, or remove the file collector there",
                        s->path,
                        was->region,
                        now->region);
    if (was->epoch != now->epoch)
        return orr_fail(err,
                        ORR_ESTALE,
                        "store: %s belongs to another ledger of region %s: what that "
                        "one still needs would go; when it is lost for good, remove "
                        "the file collector there",
                        s->path,
                        was->region);
    if (now->term < was->term || (now->term == was->term && now->round < was->round))
        return orr_fail(err,
                        ORR_ESTALE,
                        "store: %s: a newer list of roots was taken already",
                        s->path);
    return ORR_OK;
}

enum orr_err orri_fence_take(struct orr_store *s,
                             const struct orr_store_fence *fence,
                             int *ret_lock,
                             bool *ret_is_done,
                             struct orr_error *err)
{
    struct orr_store_fence was;
    if (!fence->region[0])
        return orr_fail(err, ORR_EINVAL, "store: gc: whose list of roots is it?");
    const int lock = openat(s->root, "collecting", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (lock < 0)
        return orri_io_fail(err, "cannot open collecting of", s->path);
    enum orr_err code = ORR_OK;
    if (flock(lock, LOCK_EX | LOCK_NB) != 0)
        code = orr_fail(err, ORR_EBUSY, "store: %s is being collected", s->path);
    if (!code)
        code = recall(s, &was, err);
    if (!code)
        code = compare(s, &was, fence, err);
    *ret_is_done =
        !code && was.region[0] && was.term == fence->term && was.round == fence->round;
    if (!code && !*ret_is_done)
        code = note(s, fence, err);
    if (code)
        close(lock);
    else
        *ret_lock = lock;
    return code;
}
