/* SPDX-License-Identifier: Apache-2.0
 * memory_save.c - the memory of cuMemAlloc and of modules while the process is suspended: its
 * content is in anonymous memory, its addresses stay reserved, its pages are others' to use.
 */
#include <string.h>
#include <sys/mman.h>

#include "driver.h"

static struct emu_range *next_device_range(const struct emu_range *r)
{
    struct emu_range *next = emu_range_next(r ? r->address + r->mapped_bytes : 0);
    while (next && next->kind != EMU_RANGE_DEVICE)
        next = emu_range_next(next->address + next->mapped_bytes);
    return next;
}

#define EACH_DEVICE_RANGE(r)                                                           \
    for (struct emu_range *r = next_device_range(NULL); r; r = next_device_range(r))

static struct emu_device_file *file_of(struct emu_device_file *const *files,
                                       const struct emu_range *r)
{
    return files[r->ctx->device - emu.devices];
}

CUresult emu_memory_save(void)
{
    bool ok = true;
    EACH_DEVICE_RANGE(r)
    {
        void *copy = mmap(NULL,
                          r->mapped_bytes,
                          PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS,
                          -1,
                          0);
        ok = ok && copy != MAP_FAILED;
        r->saved = copy == MAP_FAILED ? NULL : copy;
        if (ok)
            memcpy(copy, (void *)r->address, r->mapped_bytes);
    }
    EACH_DEVICE_RANGE(r)
    {
        if (ok) {
            emu_range_reserve_again(r->address, r->mapped_bytes);
            emu_device_file_drop(
                r->ctx->device->file, r->mapped_bytes / EMU_PAGE_BYTES, r->pages);
        } else if (r->saved) {
            munmap(r->saved, r->mapped_bytes);
            r->saved = NULL;
        }
    }
    return ok ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static void drop_until(struct emu_device_file *const *files,
                       const struct emu_range *end)
{
    EACH_DEVICE_RANGE(r)
    {
        if (r == end)
            return;
        emu_device_file_drop(
            file_of(files, r), r->mapped_bytes / EMU_PAGE_BYTES, r->pages);
    }
}

CUresult emu_memory_take(struct emu_device_file *const *files)
{
    EACH_DEVICE_RANGE(r)
    {
        if (emu_device_file_take(
                file_of(files, r), r->mapped_bytes / EMU_PAGE_BYTES, r->pages, NULL) ==
            0)
            continue;
        drop_until(files, r);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    return CUDA_SUCCESS;
}

void emu_memory_take_back(struct emu_device_file *const *files)
{
    drop_until(files, NULL);
}

CUresult emu_memory_restore(struct emu_device_file *const *files)
{
    EACH_DEVICE_RANGE(r)
    {
        if (emu_device_file_map(file_of(files, r),
                                (void *)r->address,
                                r->mapped_bytes / EMU_PAGE_BYTES,
                                r->pages) != 0)
            return CUDA_ERROR_MAP_FAILED;
        memcpy((void *)r->address, r->saved, r->mapped_bytes);
        munmap(r->saved, r->mapped_bytes);
        r->saved = NULL;
    }
    return CUDA_SUCCESS;
}
