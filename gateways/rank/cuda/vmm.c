/* SPDX-License-Identifier: Apache-2.0
 * vmm.c - the program's own virtual memory calls. Addresses are the driver's; handles are ours
 * (memory.h), since those of the driver change with each stop. A handle that is not one of ours
 * (multicast objects) is passed on as it is.
 */
#include <string.h>

#include "abi.h"
#include "gate.h"
#include "reason.h"
#include "segment.h"

static void lock(enum orri_cuda_call call, const void *caller)
{
    orri_cuda_enter_at(call, caller);
    pthread_mutex_lock(&orri_cuda_lock);
}

static CUresult unlock(CUresult rc)
{
    pthread_mutex_unlock(&orri_cuda_lock);
    orri_cuda_leave();
    return rc;
}

#define LOCK(name) lock(CALL_##name, __builtin_return_address(0))

/* What can be made anew is memory of a device that has a number here. */
static bool is_ordinary(const CUmemAllocationProp *prop)
{
    return prop && prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE &&
           prop->location.id >= 0 && prop->location.id < ORRI_CUDA_DEVICES_MAX;
}

ORRI_EXPORT CUresult cuMemCreate(CUmemGenericAllocationHandle *handle,
                                 size_t size,
                                 const CUmemAllocationProp *prop,
                                 unsigned long long flags)
{
    struct orri_memory *m = NULL;
    LOCK(cuMemCreate);
    if (!handle || !is_ordinary(prop)) {
        CUresult rc = REAL(cuMemCreate)(handle, size, prop, flags);
        if (!rc)
            orri_cuda_note("uses cuMemCreate in host memory");
        return unlock(rc);
    }
    CUresult rc = orri_memory_new(prop, size, flags, &m);
    if (!rc)
        *handle = m->handle;
    return unlock(rc);
}

ORRI_EXPORT CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    LOCK(cuMemRelease);
    struct orri_memory *m = orri_memory_find(handle);
    return unlock(m ? orri_memory_unref(m) : REAL(cuMemRelease)(handle));
}

ORRI_EXPORT CUresult cuMemMap(CUdeviceptr ptr,
                              size_t size,
                              size_t offset,
                              CUmemGenericAllocationHandle handle,
                              unsigned long long flags)
{
    struct orri_mapping *map;
    LOCK(cuMemMap);
    struct orri_memory *m = orri_memory_find(handle);
    if (!m || flags)
        return unlock(REAL(cuMemMap)(ptr, size, offset, m ? m->real : handle, flags));
    return unlock(orri_mapping_new(ptr, size, offset, m, &map));
}

/* The first mapping in [ptr, ptr + size), if it begins there; *ret_is_whole: all of them lie within. */
static size_t mappings_in(uint64_t ptr, uint64_t size, bool *ret_is_whole)
{
    size_t first = orri_table_from(&orri_mappings, ptr), n = 0;
    *ret_is_whole = true;
    for (size_t i = first; i < orri_mappings.n; i++, n++) {
        const struct orri_span *s = orri_mappings.items[i];
        if (s->at >= ptr + size)
            break;
        if (s->at < ptr || s->at + s->bytes > ptr + size ||
            ((const struct orri_mapping *)s)->memory->segment)
            *ret_is_whole = false;
    }
    return n;
}

ORRI_EXPORT CUresult cuMemUnmap(CUdeviceptr ptr, size_t size)
{
    bool is_whole;
    LOCK(cuMemUnmap);
    size_t n = mappings_in(ptr, size, &is_whole);
    if ((n && !is_whole) || orri_block_find(ptr))
        return unlock(CUDA_ERROR_INVALID_VALUE);
    CUresult rc = REAL(cuMemUnmap)(ptr, size);
    for (; !rc && n; n--) {
        struct orri_mapping *map =
            (struct orri_mapping *)
                orri_mappings.items[orri_table_from(&orri_mappings, ptr)];
        map->is_away = true; /* the driver has just done it, for all at once */
        rc = orri_mapping_free(map);
    }
    return unlock(rc);
}

/* What a mapping's devices may do from now on. */
static void
keep_access(struct orri_mapping *map, const CUmemAccessDesc *desc, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (desc[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
            desc[i].location.id >= ORRI_CUDA_DEVICES_MAX) {
            orri_cuda_note("uses cuMemSetAccess for other than devices");
            continue;
        }
        const uint64_t bit = (uint64_t)1 << desc[i].location.id;
        map->readers &= ~bit;
        map->writers &= ~bit;
        if (desc[i].flags == CU_MEM_ACCESS_FLAGS_PROT_READ)
            map->readers |= bit;
        else if (desc[i].flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
            map->writers |= bit;
    }
}

ORRI_EXPORT CUresult cuMemSetAccess(CUdeviceptr ptr,
                                    size_t size,
                                    const CUmemAccessDesc *desc,
                                    size_t count)
{
    bool is_whole;
    LOCK(cuMemSetAccess);
    CUresult rc = REAL(cuMemSetAccess)(ptr, size, desc, count);
    size_t n = rc ? 0 : mappings_in(ptr, size, &is_whole);
    if (n && !is_whole)
        orri_cuda_note("uses cuMemSetAccess on a part of a mapping");
    for (size_t i = orri_table_from(&orri_mappings, ptr); n; n--, i++)
        keep_access((struct orri_mapping *)orri_mappings.items[i], desc, count);
    return unlock(rc);
}

ORRI_EXPORT CUresult cuMemExportToShareableHandle(void *shareableHandle,
                                                  CUmemGenericAllocationHandle handle,
                                                  CUmemAllocationHandleType handleType,
                                                  unsigned long long flags)
{
    LOCK(cuMemExportToShareableHandle);
    struct orri_memory *m = orri_memory_find(handle);
    CUresult rc = REAL(cuMemExportToShareableHandle)(
        shareableHandle, m ? m->real : handle, handleType, flags);
    if (!rc && m)
        m->is_exported = true;
    return unlock(rc);
}

ORRI_EXPORT CUresult
cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle,
                               void *osHandle,
                               CUmemAllocationHandleType shHandleType)
{
    struct orri_memory *m = NULL;
    CUmemGenericAllocationHandle real;
    LOCK(cuMemImportFromShareableHandle);
    CUresult rc = REAL(cuMemImportFromShareableHandle)(
        handle ? &real : NULL, osHandle, shHandleType);
    if (rc)
        return unlock(rc);
    rc = orri_memory_adopt(real, &m);
    if (rc)
        REAL(cuMemRelease)(real);
    else
        *handle = m->handle;
    return unlock(rc);
}

ORRI_EXPORT CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle,
                                                 void *addr)
{
    LOCK(cuMemRetainAllocationHandle);
    struct orri_mapping *map = (struct orri_mapping *)orri_table_find(
        &orri_mappings, (uint64_t)(uintptr_t)addr);
    if (!map && orri_block_find((uint64_t)(uintptr_t)addr))
        return unlock(CUDA_ERROR_INVALID_VALUE); /* what cuMemAlloc gave */
    if (!map || !handle)
        return unlock(REAL(cuMemRetainAllocationHandle)(handle, addr));
    if (map->memory->segment) /* the driver refuses what cuMemAlloc gave */
        return unlock(CUDA_ERROR_INVALID_VALUE);
    map->memory->n_handles++;
    *handle = map->memory->handle;
    return unlock(CUDA_SUCCESS);
}

ORRI_EXPORT CUresult cuMemGetAllocationPropertiesFromHandle(
    CUmemAllocationProp *prop, CUmemGenericAllocationHandle handle)
{
    LOCK(cuMemGetAllocationPropertiesFromHandle);
    struct orri_memory *m = orri_memory_find(handle);
    return unlock(
        REAL(cuMemGetAllocationPropertiesFromHandle)(prop, m ? m->real : handle));
}

ORRI_EXPORT CUresult cuMulticastBindMem(CUmemGenericAllocationHandle multicast,
                                        size_t multicast_offset,
                                        CUmemGenericAllocationHandle memory,
                                        size_t offset,
                                        size_t bytes,
                                        unsigned long long flags)
{
    LOCK(cuMulticastBindMem);
    struct orri_memory *m = orri_memory_find(memory);
    return unlock(REAL(cuMulticastBindMem)(
        multicast, multicast_offset, m ? m->real : memory, offset, bytes, flags));
}
