/* SPDX-License-Identifier: Apache-2.0
 * range.c - the addresses of device memory.
 *
 * At cuInit a range of addresses is reserved; device pointers are host addresses in it.
 * Beside it lies the validity map: one byte for every 256 bytes, set while a kernel may
 * touch them. The interpreter reads the map without the lock: memory is freed only
 * after the context's streams are idle. Ranges keep a guard page between each other, so
 * that a kernel that runs past the end of a buffer faults instead of reaching the next
 * one.
 */
#include "range_map.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "driver.h"

struct emu_range_map emu_map;

static struct emu_range **ranges; /* sorted by address; elements owned */
static size_t n_ranges, n_ranges_max;

CUresult emu_range_start(void)
{
    void *va = mmap(NULL,
                    EMU_VA_BYTES,
                    PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                    -1,
                    0);
    void *valid = mmap(NULL,
                       EMU_VA_BYTES >> EMU_GRANULE_SHIFT,
                       PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                       -1,
                       0);
    if (va == MAP_FAILED || valid == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    madvise(va, EMU_VA_BYTES, MADV_DONTDUMP);
    /* Start on a 2 MiB boundary, the granularity of cuMemCreate. */
    emu_map.base = ((uint64_t)va + (2u << 20) - 1) & ~(uint64_t)((2u << 20) - 1);
    emu_map.bytes = EMU_VA_BYTES - (2u << 20);
    emu_map.valid = valid;
    return CUDA_SUCCESS;
}

bool emu_range_is_ours(uint64_t address)
{
    return address - emu_map.base < emu_map.bytes;
}

/* Index of the first range that ends after address. */
static size_t lower_bound(uint64_t address)
{
    size_t low = 0, high = n_ranges;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (ranges[mid]->address + ranges[mid]->mapped_bytes <= address)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

CUresult emu_range_insert(const struct emu_range *range, struct emu_range **ret_range)
{
    if (n_ranges == n_ranges_max) {
        size_t n = n_ranges_max ? 2 * n_ranges_max : 64;
        struct emu_range **grown = realloc(ranges, n * sizeof *ranges);
        if (!grown)
            return CUDA_ERROR_OUT_OF_MEMORY;
        ranges = grown;
        n_ranges_max = n;
    }
    struct emu_range *r = malloc(sizeof *r);
    if (!r)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *r = *range;
    r->id = emu.next_id++;
    size_t at = lower_bound(r->address);
    memmove(&ranges[at + 1], &ranges[at], (n_ranges - at) * sizeof *ranges);
    ranges[at] = r;
    n_ranges++;
    *ret_range = r;
    return CUDA_SUCCESS;
}

void emu_range_remove(struct emu_range *range)
{
    size_t at = lower_bound(range->address);
    n_ranges--;
    memmove(&ranges[at], &ranges[at + 1], (n_ranges - at) * sizeof *ranges);
    free(range->pages);
    free(range);
}

struct emu_range *emu_range_next(uint64_t address)
{
    size_t at = lower_bound(address);
    return at < n_ranges ? ranges[at] : NULL;
}

struct emu_range *emu_range_find(uint64_t address)
{
    struct emu_range *r = emu_range_next(address);
    return r && address >= r->address && address - r->address < r->bytes ? r : NULL;
}

static bool is_free(uint64_t address, uint64_t bytes)
{
    if (!emu_range_is_ours(address) || bytes > emu_map.base + emu_map.bytes - address)
        return false;
    struct emu_range *r = emu_range_next(address);
    return !r || r->address >= address + bytes;
}

uint64_t emu_range_place(uint64_t bytes, uint64_t alignment, uint64_t wanted)
{
    if (bytes > emu_map.bytes)
        return 0;
    if (wanted && wanted % alignment == 0 && is_free(wanted, bytes))
        return wanted;
    uint64_t at = emu_map.base;
    while (at - emu_map.base <= emu_map.bytes - bytes) {
        struct emu_range *r =
            emu_range_next(at - (at > emu_map.base ? EMU_PAGE_BYTES : 0));
        if (!r || r->address >= at + bytes + EMU_PAGE_BYTES)
            return at;
        at = r->address + r->mapped_bytes + EMU_PAGE_BYTES;
        at = (at + alignment - 1) / alignment * alignment;
    }
    return 0;
}

void emu_range_set_valid(uint64_t address, uint64_t bytes, bool is_valid)
{
    uint64_t first = (address - emu_map.base) >> EMU_GRANULE_SHIFT;
    uint64_t last = (address + bytes - 1 - emu_map.base) >> EMU_GRANULE_SHIFT;
    memset(emu_map.valid + first, is_valid, last - first + 1);
}

void emu_range_reserve_again(uint64_t address, uint64_t bytes)
{
    mmap((void *)address,
         bytes,
         PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
         -1,
         0);
}

/* Of a reservation: what is mapped and has access. */
static bool is_mapped(uint64_t address, uint64_t bytes)
{
    uint64_t first = (address - emu_map.base) >> EMU_GRANULE_SHIFT;
    uint64_t last = (address + bytes - 1 - emu_map.base) >> EMU_GRANULE_SHIFT;
    bool is_all = true;
    for (uint64_t g = first; g <= last; g++)
        is_all = is_all && emu_map.valid[g];
    return is_all;
}

bool emu_range_is_valid(uint64_t address, uint64_t bytes)
{
    while (bytes) {
        struct emu_range *r = emu_range_find(address);
        if (!r)
            return false;
        uint64_t here = r->address + r->bytes - address;
        here = bytes < here ? bytes : here;
        if (r->kind == EMU_RANGE_RESERVED && !is_mapped(address, here))
            return false;
        address += here;
        bytes -= here;
    }
    return true;
}
