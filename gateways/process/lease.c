/* SPDX-License-Identifier: Apache-2.0
 * lease.c - see lease.h.
 */
#include "lease.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct orri_lease {
    _Atomic uint64_t end_ms;   /* 0: never; pairs with the loads in keepers */
    _Atomic uint64_t heard_ms; /* 0: not known */
    char boot[ORRI_BOOT_MAX];
};

static uint64_t boot_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

struct orri_lease *
orri_lease_open(int state_dir, const char *boot, struct orr_error *err)
{
    int fd = openat(state_dir, "lease", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    void *at = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, sizeof(struct orri_lease)) == 0)
        at = mmap(
            NULL, sizeof(struct orri_lease), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    int why = errno;
    if (fd >= 0)
        close(fd);
    if (at == MAP_FAILED) {
        (void)orr_fail(
            err, ORR_EIO, "the lease file of the state directory: %s", strerror(why));
        return NULL;
    }
    struct orri_lease *lease = at;
    if (strncmp(lease->boot, boot, sizeof lease->boot) != 0) {
        lease->end_ms = 0;
        lease->heard_ms = 0;
        orr_str_copy(lease->boot, sizeof lease->boot, orr_str(boot));
    }
    return lease;
}

const struct orri_lease *orri_lease_watch(int ranks_dir)
{
    int fd = openat(ranks_dir, "../lease", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    void *at = mmap(NULL, sizeof(struct orri_lease), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    return at == MAP_FAILED ? NULL : at;
}

void orri_lease_close(struct orri_lease *lease)
{
    if (lease)
        munmap(lease, sizeof *lease);
}

void orri_lease_set(struct orri_lease *lease, uint64_t left_ms, uint64_t silent_ms)
{
    uint64_t now = boot_ms();
    lease->heard_ms = now > silent_ms ? now - silent_ms : 1;
    lease->end_ms = left_ms == UINT64_MAX ? 0 : now + left_ms;
}

uint64_t orri_lease_end(const struct orri_lease *lease)
{
    return lease->end_ms;
}

uint64_t orri_lease_left_ms(const struct orri_lease *lease)
{
    uint64_t end = lease->end_ms, now = boot_ms();
    if (!end)
        return UINT64_MAX;
    return end > now ? end - now : 0;
}

bool orri_lease_silent_ms(const struct orri_lease *lease, uint64_t *ret_silent_ms)
{
    uint64_t heard = lease->heard_ms, now = boot_ms();
    if (heard)
        *ret_silent_ms = now > heard ? now - heard : 0;
    return heard != 0;
}

enum orr_err
orri_note_write(int state_dir, const void *bytes, size_t len, struct orr_error *err)
{
    if (len > ORRI_NOTE_MAX)
        return orr_fail(err,
                        ORR_ENOSPC,
                        "the node's note is %zu bytes, at most %d",
                        len,
                        ORRI_NOTE_MAX);
    int fd =
        openat(state_dir, "note.tmp", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    bool is_ok = fd >= 0 && write(fd, bytes, len) == (ssize_t)len;
    int why = errno;
    if (fd >= 0)
        close(fd);
    if (is_ok && renameat(state_dir, "note.tmp", state_dir, "note") == 0)
        return ORR_OK;
    return orr_fail(err,
                    ORR_EIO,
                    "the note file of the state directory: %s",
                    strerror(is_ok ? errno : why));
}

size_t orri_note_read(int state_dir, void *buf, size_t cap)
{
    int fd = openat(state_dir, "note", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, buf, cap);
    close(fd);
    return n > 0 ? (size_t)n : 0;
}
