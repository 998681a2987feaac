/* SPDX-License-Identifier: Apache-2.0
 * vmm.c - virtual memory: addresses, physical memory, and mapping one to the other.
 *
 * An exported handle is a ticket: a small sealed file that names the device, the pages and
 * the serials that say which allocation they were. It holds no memory itself: importing it
 * after the last holder let go fails, and never reaches what the pages are used for now.
 */
#include "driver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GRANULARITY = 2 << 20, TICKET_PAGES_MAX = 1 << 24 };
static const uint64_t ticket_magic = 0x31746b6354756d45u; /* "EmuTckt1" */

struct emu_physical {
    struct emu_object object; /* references: the handle, and each mapping */
    struct emu_device *device;
    bool is_exportable, is_shared;
    void *saved;               /* owned; its content while the process is suspended */
    struct emu_physical *next; /* in the list of all */
    size_t n_pages;
    uint32_t *pages, *serials; /* owned */
};

struct emu_mapping {
    uint64_t address, bytes;
    struct emu_physical *physical; /* a reference */
    struct emu_mapping *next;
};

struct ticket {
    uint64_t magic;
    uint64_t n_pages;
    uint8_t uuid[16]; /* then n_pages page numbers, and as many serials */
};

static struct emu_physical *physicals; /* all that hold pages */

static void physical_unref(struct emu_physical *p)
{
    if (--p->object.refs > 0)
        return;
    struct emu_physical **at = &physicals;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    emu_device_file_drop(p->device->file, p->n_pages, p->pages);
    free(p->pages);
    free(p->serials);
    free(p);
}

/* An object with room for its page numbers; the pages are not held yet. */
static struct emu_physical *physical_new(struct emu_device *device, size_t n_pages)
{
    struct emu_physical *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->pages = malloc(n_pages * sizeof *p->pages);
    p->serials = malloc(n_pages * sizeof *p->serials);
    p->device = device;
    p->n_pages = n_pages;
    if (p->pages && p->serials)
        return p;
    free(p->pages);
    free(p->serials);
    free(p);
    return NULL;
}

/* Give the handle out, or, when the pages could not be had, nothing. */
static CUresult
publish(struct emu_physical *p, int error, CUmemGenericAllocationHandle *handle)
{
    if (error) {
        free(p->pages);
        free(p->serials);
        free(p);
        return error == -ENOMEM ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE;
    }
    emu_object_init(&p->object, EMU_PHYSICAL, NULL);
    p->next = physicals;
    physicals = p;
    *handle = (CUmemGenericAllocationHandle)(uintptr_t)p;
    return CUDA_SUCCESS;
}

static struct emu_physical *find_physical(CUmemGenericAllocationHandle handle)
{
    return emu_object_find((void *)(uintptr_t)handle, EMU_PHYSICAL);
}

static CUresult check_prop(const CUmemAllocationProp *prop)
{
    if (!prop || prop->type != CU_MEM_ALLOCATION_TYPE_PINNED)
        return CUDA_ERROR_INVALID_VALUE;
    if (prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE)
        return prop->location.type == CU_MEM_LOCATION_TYPE_HOST
                   ? emu_unsupported("cuMemCreate in host memory")
                   : CUDA_ERROR_INVALID_VALUE;
    return prop->location.id < 0 || (unsigned)prop->location.id >= emu.n_devices
               ? CUDA_ERROR_INVALID_DEVICE
               : CUDA_SUCCESS;
}

EMU_API CUresult cuMemGetAllocationGranularity(size_t *granularity,
                                               const CUmemAllocationProp *prop,
                                               CUmemAllocationGranularity_flags option)
{
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    rc = granularity && (unsigned)option <= CU_MEM_ALLOC_GRANULARITY_RECOMMENDED
             ? check_prop(prop)
             : CUDA_ERROR_INVALID_VALUE;
    if (!rc)
        *granularity = GRANULARITY;
    return emu_leave(rc);
}

EMU_API CUresult cuMemCreate(CUmemGenericAllocationHandle *handle,
                             size_t size,
                             const CUmemAllocationProp *prop,
                             unsigned long long flags)
{
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    rc = check_prop(prop);
    if (!rc && (!handle || size == 0 || size % GRANULARITY || flags))
        rc = CUDA_ERROR_INVALID_VALUE;
    if (!rc &&
        (unsigned)prop->requestedHandleTypes > CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        rc = emu_unsupported("cuMemCreate with another handle type");
    if (rc)
        return emu_leave(rc);
    struct emu_device *d = &emu.devices[prop->location.id];
    if (size > d->info.memory_bytes)
        return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    struct emu_physical *p = physical_new(d, size / EMU_PAGE_BYTES);
    if (!p)
        return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    p->is_exportable = prop->requestedHandleTypes != CU_MEM_HANDLE_TYPE_NONE;
    int error = emu_device_file_take(d->file, p->n_pages, p->pages, p->serials);
    return emu_leave(publish(p, error, handle));
}

EMU_API CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    struct emu_physical *p = find_physical(handle);
    if (!p)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    emu_object_kill(&p->object);
    physical_unref(p);
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuMemAddressReserve(CUdeviceptr *ptr,
                                     size_t size,
                                     size_t alignment,
                                     CUdeviceptr addr,
                                     unsigned long long flags)
{
    struct emu_range *range;
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    if (!ptr || size == 0 || size % GRANULARITY || (alignment & (alignment - 1)) ||
        flags)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    struct emu_range r = {
        .bytes = size, .mapped_bytes = size, .kind = EMU_RANGE_RESERVED};
    r.address =
        emu_range_place(size, alignment > GRANULARITY ? alignment : GRANULARITY, addr);
    if (!r.address)
        return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    rc = emu_range_insert(&r, &range);
    if (!rc)
        *ptr = r.address;
    return emu_leave(rc);
}

/* The reservation that holds all of [address, address + size); NULL if there is none. */
static struct emu_range *reservation(uint64_t address, uint64_t size)
{
    struct emu_range *r = emu_range_find(address);
    bool holds = r && r->kind == EMU_RANGE_RESERVED && size > 0 &&
                 size % GRANULARITY == 0 && address % GRANULARITY == 0 &&
                 size <= r->address + r->bytes - address;
    return holds ? r : NULL;
}

EMU_API CUresult cuMemAddressFree(CUdeviceptr ptr, size_t size)
{
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    struct emu_range *r = reservation(ptr, size);
    if (!r || r->address != ptr || r->bytes != size || r->mappings)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    emu_range_remove(r);
    return emu_leave(CUDA_SUCCESS);
}

/* Mapped bytes in [address, address + size); UINT64_MAX when a mapping sticks out. */
static uint64_t mapped_in(const struct emu_range *r, uint64_t address, uint64_t size)
{
    uint64_t sum = 0;
    for (struct emu_mapping *m = r->mappings; m; m = m->next) {
        if (m->address + m->bytes <= address || m->address >= address + size)
            continue;
        if (m->address < address || m->address + m->bytes > address + size)
            return UINT64_MAX;
        sum += m->bytes;
    }
    return sum;
}

EMU_API CUresult cuMemMap(CUdeviceptr ptr,
                          size_t size,
                          size_t offset,
                          CUmemGenericAllocationHandle handle,
                          unsigned long long flags)
{
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    struct emu_range *r = reservation(ptr, size);
    struct emu_physical *p = find_physical(handle);
    if (!r || !p || offset != 0 || flags || size > p->n_pages * EMU_PAGE_BYTES)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (mapped_in(r, ptr, size) != 0)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    struct emu_mapping *m = malloc(sizeof *m);
    if (!m)
        return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    if (emu_device_file_map(
            p->device->file, (void *)ptr, size / EMU_PAGE_BYTES, p->pages) != 0) {
        emu_range_reserve_again(ptr, size);
        free(m);
        return emu_leave(CUDA_ERROR_MAP_FAILED);
    }
    p->object.refs++;
    *m = (struct emu_mapping){ptr, size, p, r->mappings};
    r->mappings = m;
    return emu_leave(CUDA_SUCCESS);
}

/* Work that may use the memory ends first, as far as contexts can be found. */
static void wait_for_users(void)
{
    struct CUctx_st *ctx;
    for (unsigned i = 0; i < emu.n_devices; i++)
        if (emu.devices[i].primary)
            emu_ctx_wait_idle(emu.devices[i].primary);
    if (emu_ctx_current(&ctx) == CUDA_SUCCESS && ctx)
        emu_ctx_wait_idle(ctx);
}

EMU_API CUresult cuMemUnmap(CUdeviceptr ptr, size_t size)
{
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    wait_for_users();
    struct emu_range *r = reservation(ptr, size);
    if (!r || mapped_in(r, ptr, size) != size)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    emu_range_set_valid(ptr, size, false);
    emu_range_reserve_again(ptr, size);
    for (struct emu_mapping **at = &r->mappings; *at;) {
        struct emu_mapping *m = *at;
        if (m->address < ptr || m->address >= ptr + size) {
            at = &m->next;
            continue;
        }
        *at = m->next;
        physical_unref(m->physical);
        free(m);
    }
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuMemSetAccess(CUdeviceptr ptr,
                                size_t size,
                                const CUmemAccessDesc *desc,
                                size_t count)
{
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    struct emu_range *r = reservation(ptr, size);
    if (!r || mapped_in(r, ptr, size) != size || !desc || count == 0)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    for (size_t i = 0; i < count && !rc; i++) {
        if (desc[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE)
            rc = CUDA_ERROR_INVALID_VALUE;
        else if (desc[i].location.id < 0 ||
                 (unsigned)desc[i].location.id >= emu.n_devices)
            rc = CUDA_ERROR_INVALID_DEVICE;
        else if (desc[i].flags == CU_MEM_ACCESS_FLAGS_PROT_READ)
            rc = emu_unsupported("cuMemSetAccess for reading only");
        else if (desc[i].flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE &&
                 desc[i].flags != CU_MEM_ACCESS_FLAGS_PROT_NONE)
            rc = CUDA_ERROR_INVALID_VALUE;
    }
    if (!rc)
        emu_range_set_valid(
            ptr, size, desc[count - 1].flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    return emu_leave(rc);
}

static bool write_all(int fd, const void *data, size_t bytes)
{
    const char *at = data;
    while (bytes > 0) {
        ssize_t n = write(fd, at, bytes);
        if (n <= 0)
            return false;
        at += n;
        bytes -= (size_t)n;
    }
    return true;
}

EMU_API CUresult cuMemExportToShareableHandle(void *shareableHandle,
                                              CUmemGenericAllocationHandle handle,
                                              CUmemAllocationHandleType handleType,
                                              unsigned long long flags)
{
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    struct emu_physical *p = find_physical(handle);
    if (!p || !shareableHandle || flags || !p->is_exportable ||
        handleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    struct ticket t = {.magic = ticket_magic, .n_pages = p->n_pages};
    struct emu_device_info
        now; /* a process that was moved has its pages on another device */
    emu_device_file_get_info(p->device->file, &now);
    memcpy(t.uuid, now.uuid, sizeof t.uuid);
    int fd = memfd_create("orrery-emulated-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return emu_leave(CUDA_ERROR_OPERATING_SYSTEM);
    if (!write_all(fd, &t, sizeof t) ||
        !write_all(fd, p->pages, p->n_pages * sizeof *p->pages) ||
        !write_all(fd, p->serials, p->n_pages * sizeof *p->serials) ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK) != 0) {
        close(fd);
        return emu_leave(CUDA_ERROR_OPERATING_SYSTEM);
    }
    memcpy(shareableHandle, &fd, sizeof fd);
    p->is_shared = true;
    return emu_leave(CUDA_SUCCESS);
}

static struct emu_device *device_by_uuid(const uint8_t uuid[16])
{
    for (unsigned i = 0; i < emu.n_devices; i++) {
        struct emu_device_info now;
        emu_device_file_get_info(emu.devices[i].file, &now);
        if (memcmp(now.uuid, uuid, 16) == 0)
            return &emu.devices[i];
    }
    return NULL;
}

static bool read_at(int fd, void *data, size_t bytes, size_t offset)
{
    return pread(fd, data, bytes, (off_t)offset) == (ssize_t)bytes;
}

EMU_API CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle,
                                                void *osHandle,
                                                CUmemAllocationHandleType shHandleType)
{
    struct ticket t;
    int fd = (int)(uintptr_t)osHandle;
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    if (!handle || shHandleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR ||
        !read_at(fd, &t, sizeof t, 0) || t.magic != ticket_magic || t.n_pages == 0 ||
        t.n_pages > TICKET_PAGES_MAX)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    struct emu_device *d = device_by_uuid(t.uuid);
    if (!d)
        return emu_leave(CUDA_ERROR_INVALID_DEVICE);
    struct emu_physical *p = physical_new(d, t.n_pages);
    if (!p)
        return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    size_t bytes = p->n_pages * sizeof *p->pages;
    int error = -EINVAL;
    if (read_at(fd, p->pages, bytes, sizeof t) &&
        read_at(fd, p->serials, bytes, sizeof t + bytes))
        error = emu_device_file_share(d->file, p->n_pages, p->pages, p->serials);
    p->is_exportable = p->is_shared = true;
    return emu_leave(publish(p, error, handle));
}

/* ---- checkpoint ------------------------------------------------------------------------ */

bool emu_vmm_is_shared(void)
{
    for (const struct emu_physical *p = physicals; p; p = p->next)
        if (p->is_shared)
            return true;
    return false;
}

/* The pages of p at an address of its own; NULL: no room. */
static void *view(struct emu_device_file *file, const struct emu_physical *p)
{
    size_t bytes = p->n_pages * EMU_PAGE_BYTES;
    void *at = mmap(
        NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    if (emu_device_file_map(file, at, p->n_pages, p->pages) == 0)
        return at;
    munmap(at, bytes);
    return NULL;
}

static CUresult physical_save(struct emu_physical *p)
{
    size_t bytes = p->n_pages * EMU_PAGE_BYTES;
    void *content = view(p->device->file, p);
    p->saved =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (content && p->saved != MAP_FAILED)
        memcpy(p->saved, content, bytes);
    if (content)
        munmap(content, bytes);
    if (content && p->saved != MAP_FAILED)
        return CUDA_SUCCESS;
    if (p->saved != MAP_FAILED)
        munmap(p->saved, bytes);
    p->saved = NULL;
    return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult emu_vmm_save(void)
{
    CUresult rc = CUDA_SUCCESS;
    for (struct emu_physical *p = physicals; p && !rc; p = p->next)
        rc = physical_save(p);
    for (struct emu_physical *p = physicals; p; p = p->next) {
        if (!rc)
            emu_device_file_drop(p->device->file, p->n_pages, p->pages);
        else if (p->saved) {
            munmap(p->saved, p->n_pages * EMU_PAGE_BYTES);
            p->saved = NULL;
        }
    }
    if (rc)
        return rc;
    uint64_t at = 0;
    for (struct emu_range *r; (r = emu_range_next(at));
         at = r->address + r->mapped_bytes)
        for (struct emu_mapping *m = r->mappings; m; m = m->next)
            emu_range_reserve_again(m->address, m->bytes);
    return CUDA_SUCCESS;
}

static void drop_until(struct emu_device_file *const *files,
                       const struct emu_physical *end)
{
    for (struct emu_physical *p = physicals; p != end; p = p->next)
        emu_device_file_drop(files[p->device - emu.devices], p->n_pages, p->pages);
}

CUresult emu_vmm_take(struct emu_device_file *const *files)
{
    for (struct emu_physical *p = physicals; p; p = p->next)
        if (emu_device_file_take(
                files[p->device - emu.devices], p->n_pages, p->pages, p->serials) !=
            0) {
            drop_until(files, p);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
    return CUDA_SUCCESS;
}

void emu_vmm_take_back(struct emu_device_file *const *files)
{
    drop_until(files, NULL);
}

CUresult emu_vmm_restore(struct emu_device_file *const *files)
{
    for (struct emu_physical *p = physicals; p; p = p->next) {
        size_t bytes = p->n_pages * EMU_PAGE_BYTES;
        void *content = view(files[p->device - emu.devices], p);
        if (!content)
            return CUDA_ERROR_OUT_OF_MEMORY;
        memcpy(content, p->saved, bytes);
        munmap(content, bytes);
        munmap(p->saved, bytes);
        p->saved = NULL;
    }
    uint64_t at = 0;
    for (struct emu_range *r; (r = emu_range_next(at));
         at = r->address + r->mapped_bytes)
        for (struct emu_mapping *m = r->mappings; m; m = m->next)
            if (emu_device_file_map(files[m->physical->device - emu.devices],
                                    (void *)m->address,
                                    m->bytes / EMU_PAGE_BYTES,
                                    m->physical->pages) != 0)
                return CUDA_ERROR_MAP_FAILED;
    return CUDA_SUCCESS;
}
