/* SPDX-License-Identifier: Apache-2.0
 * device_file.c - the device file of device_file.h.
 *
 * Invariants: the page table and the slots change only under the lock, which is an
 * open-file-description lock on one byte and, among the threads of a process, a mutex. (A
 * robust mutex in the file would name its owner by thread number, and users in PID namespaces
 * of their own have the same ones: the kernel would open it for one user when another dies.)
 * Every change is a single store that leaves the table valid, so a holder that
 * is killed leaves nothing to repair. Page contents are zeroed (hole punched) when the
 * last holder lets go, and reserved (fallocate) when taken: no page fault of a user can
 * fail for lack of memory.
 */
#include "device_file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint64_t file_magic = 0x32756d456772724fu; /* "OrrgEmu2" */
static const off_t lock_base = (off_t)1 << 60;          /* past any page of a file */
static const uint64_t memory_bytes_max = (uint64_t)1 << 40;

/* Of all device files: what it guards is short. */
static pthread_mutex_t process_lock = PTHREAD_MUTEX_INITIALIZER;

struct header {
    _Atomic uint64_t magic; /* stored last by create, pairs with the load in attach */
    uint64_t n_pages;
    uint64_t data_offset;
    uint8_t uuid[16];
    char name[EMU_DEVICE_NAME_MAX];
    uint32_t next_page; /* where the search for free pages starts */
    uint32_t next_serial;
    int32_t pids[EMU_DEVICE_USERS_MAX]; /* 0 = slot not used */
    _Atomic uint64_t busy_ns;
};

struct page {
    uint64_t users; /* bit per slot */
    uint32_t serial;
    uint32_t unused;
};

struct emu_device_file {
    int fd;
    int slot; /* -1: looking only */
    struct header *header;
    struct page *pages; /* borrowed: within the mapping of header */
    size_t mapped_bytes;
    uint16_t *held; /* owned; by page: how often this process holds it */
};

__attribute__((format(printf, 3, 4))) static int
failed(struct emu_error *error, int code, const char *format, ...)
{
    if (error) {
        va_list args;
        va_start(args, format);
        vsnprintf(error->text, sizeof error->text, format, args);
        va_end(args);
    }
    return code;
}

static size_t table_bytes(uint64_t n_pages)
{
    size_t bytes = sizeof(struct header) + (size_t)n_pages * sizeof(struct page);
    return (bytes + EMU_PAGE_BYTES - 1) / EMU_PAGE_BYTES * EMU_PAGE_BYTES;
}

static void init_header(struct header *h,
                        const uint8_t uuid[16],
                        const char *name,
                        uint64_t n_pages)
{
    h->n_pages = n_pages;
    h->data_offset = table_bytes(n_pages);
    memcpy(h->uuid, uuid, sizeof h->uuid);
    snprintf(h->name, sizeof h->name, "%s", name);
    atomic_store_explicit(&h->magic, file_magic, memory_order_release);
}

int emu_device_file_create(const char *path,
                           const uint8_t uuid[16],
                           const char *name,
                           uint64_t memory_bytes,
                           struct emu_error *error)
{
    uint64_t n_pages = memory_bytes / EMU_PAGE_BYTES;
    if (n_pages == 0 || memory_bytes > memory_bytes_max)
        return failed(error,
                      -EINVAL,
                      "%s: a device has 64 KiB to 1 TiB of memory, not %llu bytes",
                      path,
                      (unsigned long long)memory_bytes);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return failed(error,
                      -errno,
                      "%s: cannot create the device file: %s",
                      path,
                      strerror(errno));
    size_t head = table_bytes(n_pages);
    int rc = ftruncate(fd, (off_t)(head + n_pages * EMU_PAGE_BYTES)) ? -errno : 0;
    void *map =
        rc ? MAP_FAILED : mmap(NULL, head, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (!rc && map == MAP_FAILED)
        rc = -errno;
    if (!rc) {
        init_header(map, uuid, name, n_pages);
        munmap(map, head);
    }
    close(fd);
    if (rc) {
        unlink(path);
        return failed(
            error, rc, "%s: cannot lay out the device file: %s", path, strerror(-rc));
    }
    return 0;
}

int emu_device_file_remove(const char *path, struct emu_error *error)
{
    if (unlink(path) == 0)
        return 0;
    return failed(
        error, -errno, "%s: cannot remove the device file: %s", path, strerror(errno));
}

/* Map header and page table of an existing file. */
static int
attach(const char *path, struct emu_device_file *file, struct emu_error *error)
{
    struct stat st;
    file->slot = -1;
    file->fd = open(path, O_RDWR | O_CLOEXEC);
    if (file->fd < 0)
        return failed(error,
                      -errno,
                      "%s: cannot open the device file: %s",
                      path,
                      strerror(errno));
    int rc = fstat(file->fd, &st) ? -errno : 0;
    if (!rc && (size_t)st.st_size < sizeof(struct header))
        rc = -EINVAL;
    void *map =
        rc ? MAP_FAILED
           : mmap(NULL, sizeof(struct header), PROT_READ, MAP_SHARED, file->fd, 0);
    if (map == MAP_FAILED) {
        close(file->fd);
        return failed(
            error, rc ? rc : -ENOMEM, "%s: not a device file; make it anew", path);
    }
    struct header *h = map;
    bool is_ours = atomic_load_explicit(&h->magic, memory_order_acquire) == file_magic;
    uint64_t n_pages = h->n_pages;
    is_ours = is_ours && n_pages <= memory_bytes_max / EMU_PAGE_BYTES &&
              h->data_offset == table_bytes(n_pages) &&
              (uint64_t)st.st_size == h->data_offset + n_pages * EMU_PAGE_BYTES;
    munmap(map, sizeof(struct header));
    map = MAP_FAILED;
    if (is_ours) {
        file->mapped_bytes = table_bytes(n_pages);
        map = mmap(
            NULL, file->mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file->fd, 0);
    }
    if (map == MAP_FAILED) {
        close(file->fd);
        return failed(error, -EINVAL, "%s: not a device file; make it anew", path);
    }
    file->header = map;
    file->pages = (struct page *)((char *)map + sizeof(struct header));
    return 0;
}

static void detach(struct emu_device_file *file)
{
    free(file->held);
    munmap(file->header, file->mapped_bytes);
    close(file->fd);
}

static struct flock slot_lock(int slot, short type)
{
    return (struct flock){
        .l_type = type, .l_whence = SEEK_SET, .l_start = lock_base + slot, .l_len = 1};
}

static void lock(struct emu_device_file *file)
{
    struct flock l =
        slot_lock(EMU_DEVICE_USERS_MAX, F_WRLCK); /* the byte after the slots */
    pthread_mutex_lock(&process_lock);
    while (fcntl(file->fd, F_OFD_SETLKW, &l) != 0 && errno == EINTR)
        ;
}

static void unlock(struct emu_device_file *file)
{
    struct flock l = slot_lock(EMU_DEVICE_USERS_MAX, F_UNLCK);
    fcntl(file->fd, F_OFD_SETLK, &l);
    pthread_mutex_unlock(&process_lock);
}

static bool slot_is_alive(struct emu_device_file *file, int slot)
{
    if (slot == file->slot)
        return true;
    struct flock l = slot_lock(slot, F_WRLCK);
    return fcntl(file->fd, F_OFD_GETLK, &l) != 0 || l.l_type != F_UNLCK;
}

/* Take bit from pages in a row. What nobody holds any more is zeroed, many pages at once, and then free. */
static void
release(struct emu_device_file *file, uint64_t first, uint64_t n, uint64_t bit)
{
    struct page *p = file->pages;
    for (uint64_t i = first; i < first + n;) {
        uint64_t run = 0;
        while (i + run < first + n && p[i + run].users == bit)
            run++;
        if (run) /* nothing of the last holder may be read by the next */
            fallocate(file->fd,
                      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (off_t)(file->header->data_offset + i * EMU_PAGE_BYTES),
                      (off_t)(run * EMU_PAGE_BYTES));
        for (uint64_t end = i + (run ? run : 1); i < end; i++)
            p[i].users &= ~bit;
    }
}

static void slot_clear(struct emu_device_file *file, int slot)
{
    uint64_t bit = (uint64_t)1 << slot;
    release(file, 0, file->header->n_pages, bit);
    file->header->pids[slot] = 0;
}

static void reclaim_dead(struct emu_device_file *file)
{
    for (int slot = 0; slot < EMU_DEVICE_USERS_MAX; slot++)
        if (file->header->pids[slot] != 0 && !slot_is_alive(file, slot))
            slot_clear(file, slot);
}

static bool claim_slot(struct emu_device_file *file)
{
    for (int slot = 0; slot < EMU_DEVICE_USERS_MAX; slot++) {
        struct flock l = slot_lock(slot, F_WRLCK);
        if (file->header->pids[slot] != 0 || fcntl(file->fd, F_OFD_SETLK, &l) != 0)
            continue;
        file->header->pids[slot] = getpid();
        file->slot = slot;
        return true;
    }
    return false;
}

int emu_device_file_open(const char *path,
                         struct emu_device_file **ret_file,
                         struct emu_error *error)
{
    struct emu_device_file *file = calloc(1, sizeof *file);
    if (!file)
        return failed(error, -ENOMEM, "%s: out of memory", path);
    int rc = attach(path, file, error);
    if (rc) {
        free(file);
        return rc;
    }
    file->held = calloc(file->header->n_pages, sizeof *file->held);
    if (!file->held) {
        detach(file);
        free(file);
        return failed(error, -ENOMEM, "%s: out of memory", path);
    }
    lock(file);
    reclaim_dead(file);
    bool has_slot = claim_slot(file);
    unlock(file);
    if (!has_slot) {
        detach(file);
        free(file);
        return failed(error,
                      -EBUSY,
                      "%s: %d processes use this device already; end one",
                      path,
                      EMU_DEVICE_USERS_MAX);
    }
    *ret_file = file;
    return 0;
}

void emu_device_file_close(struct emu_device_file *file)
{
    if (!file)
        return;
    lock(file);
    slot_clear(file, file->slot);
    unlock(file);
    detach(file);
    free(file);
}

void emu_device_file_abandon(struct emu_device_file *file)
{
    detach(file);
    free(file);
}

void emu_device_file_get_info(struct emu_device_file *file,
                              struct emu_device_info *ret_info)
{
    struct header *h = file->header;
    struct emu_device_info info = {.memory_bytes = h->n_pages * EMU_PAGE_BYTES};
    lock(file);
    uint64_t holders = 0; /* bit per slot */
    reclaim_dead(file);
    for (uint64_t i = 0; i < h->n_pages; i++) {
        holders |= file->pages[i].users;
        if (file->pages[i].users == 0)
            info.free_bytes += EMU_PAGE_BYTES;
    }
    for (int slot = 0; slot < EMU_DEVICE_USERS_MAX; slot++) {
        if (h->pids[slot] == 0)
            continue;
        info.holds[info.n_processes] = holders >> slot & 1;
        info.pids[info.n_processes++] = h->pids[slot];
    }
    unlock(file);
    memcpy(info.name, h->name, sizeof info.name);
    memcpy(info.uuid, h->uuid, sizeof info.uuid);
    info.busy_ns = atomic_load_explicit(&h->busy_ns, memory_order_relaxed);
    *ret_info = info;
}

int emu_device_file_info(const char *path,
                         struct emu_device_info *ret_info,
                         struct emu_error *error)
{
    struct emu_device_file file = {0};
    int rc = attach(path, &file, error);
    if (rc)
        return rc;
    emu_device_file_get_info(&file, ret_info);
    detach(&file);
    return 0;
}

/* Find n free pages, starting at the cursor; false if there are fewer. */
static bool find_free(struct emu_device_file *file, size_t n, uint32_t *pages)
{
    uint64_t n_pages = file->header->n_pages;
    uint64_t at = file->header->next_page % n_pages;
    size_t found = 0;
    for (uint64_t seen = 0; seen < n_pages && found < n; seen++, at++) {
        at = at == n_pages ? 0 : at;
        if (file->pages[at].users == 0)
            pages[found++] = (uint32_t)at;
    }
    file->header->next_page = (uint32_t)at;
    return found == n;
}

/* Length of the run of consecutive page numbers at pages[0]. */
static size_t run_length(size_t n, const uint32_t *pages)
{
    size_t len = 1;
    while (len < n && pages[len] == pages[len - 1] + 1)
        len++;
    return len;
}

static off_t page_offset(struct emu_device_file *file, uint32_t page)
{
    return (off_t)(file->header->data_offset + (uint64_t)page * EMU_PAGE_BYTES);
}

int emu_device_file_take(struct emu_device_file *file,
                         size_t n,
                         uint32_t *pages,
                         uint32_t *serials)
{
    if (n > file->header->n_pages)
        return -ENOMEM;
    lock(file);
    bool ok = find_free(file, n, pages);
    if (!ok) {
        reclaim_dead(file);
        ok = find_free(file, n, pages);
    }
    uint64_t bit = (uint64_t)1 << file->slot;
    size_t held = 0;
    while (ok && held < n) {
        size_t run = run_length(n - held, pages + held);
        ok = fallocate(file->fd,
                       FALLOC_FL_KEEP_SIZE,
                       page_offset(file, pages[held]),
                       (off_t)(run * EMU_PAGE_BYTES)) == 0;
        for (size_t i = 0; i < run; i++, held++) {
            struct page *p = &file->pages[pages[held]];
            p->serial = ++file->header->next_serial;
            p->users = bit;
            file->held[pages[held]] = 1;
            if (serials)
                serials[held] = p->serial;
        }
    }
    for (size_t i = 0; !ok && i < held; i++)
        release(file, pages[i], 1, bit);
    unlock(file);
    return ok ? 0 : -ENOMEM;
}

int emu_device_file_share(struct emu_device_file *file,
                          size_t n,
                          const uint32_t *pages,
                          const uint32_t *serials)
{
    uint64_t bit = (uint64_t)1 << file->slot;
    bool ok = true;
    lock(file);
    for (size_t i = 0; ok && i < n; i++)
        ok = pages[i] < file->header->n_pages && file->pages[pages[i]].users != 0 &&
             file->pages[pages[i]].serial == serials[i] &&
             file->held[pages[i]] < UINT16_MAX;
    for (size_t i = 0; ok && i < n; i++) {
        file->pages[pages[i]].users |= bit;
        file->held[pages[i]]++;
    }
    unlock(file);
    return ok ? 0 : -ESTALE;
}

void emu_device_file_drop(struct emu_device_file *file, size_t n, const uint32_t *pages)
{
    const uint64_t bit = (uint64_t)1 << file->slot;
    lock(file);
    for (size_t i = 0; i < n; i++)
        file->held[pages[i]]--;
    for (size_t i = 0; i < n;) {
        size_t run = 0;
        while (i + run < n && file->held[pages[i + run]] == 0 &&
               (run == 0 || pages[i + run] == pages[i + run - 1] + 1))
            run++;
        if (run)
            release(file, pages[i], run, bit);
        i += run ? run : 1;
    }
    unlock(file);
}

int emu_device_file_map(struct emu_device_file *file,
                        void *address,
                        size_t n,
                        const uint32_t *pages)
{
    char *at = address;
    for (size_t done = 0; done < n;) {
        size_t run = run_length(n - done, pages + done);
        if (mmap(at,
                 run * EMU_PAGE_BYTES,
                 PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_FIXED,
                 file->fd,
                 page_offset(file, pages[done])) == MAP_FAILED)
            return -errno;
        at += run * EMU_PAGE_BYTES;
        done += run;
    }
    return 0;
}

void emu_device_file_add_busy(struct emu_device_file *file, uint64_t busy_ns)
{
    atomic_fetch_add_explicit(&file->header->busy_ns, busy_ns, memory_order_relaxed);
}
