/* SPDX-License-Identifier: Apache-2.0
 * memory.c - see memory.h.
 */
#include "memory.h"

#include <stdlib.h>
#include <string.h>

pthread_mutex_t orri_cuda_lock = PTHREAD_MUTEX_INITIALIZER;
struct orri_memory *orri_memories;
struct orri_table orri_mappings;

/* Unlike any handle of a driver, which are addresses or small numbers. */
static const uint64_t first_handle = 0x4f52520000000000u;
static uint64_t n_made;

static struct orri_memory *memory_alloc(uint64_t bytes)
{
    struct orri_memory *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->bytes = bytes;
    m->handle = first_handle + ++n_made;
    m->n_handles = 1;
    m->is_resident = true;
    return m;
}

static void add(struct orri_memory *m)
{
    m->next = orri_memories;
    orri_memories = m;
}

CUresult orri_memory_new(const CUmemAllocationProp *prop,
                         uint64_t bytes,
                         unsigned long long flags,
                         struct orri_memory **ret)
{
    struct orri_memory *m = memory_alloc(bytes);
    if (!m)
        return CUDA_ERROR_OUT_OF_MEMORY;
    m->prop = *prop;
    m->flags = flags;
    CUresult rc = orri_memory_create(m);
    if (rc) {
        free(m);
        return rc;
    }
    add(m);
    *ret = m;
    return CUDA_SUCCESS;
}

CUresult orri_memory_adopt(CUmemGenericAllocationHandle real, struct orri_memory **ret)
{
    struct orri_memory *m = memory_alloc(0);
    if (!m)
        return CUDA_ERROR_OUT_OF_MEMORY;
    m->real = real;
    m->is_foreign = true;
    add(m);
    *ret = m;
    return CUDA_SUCCESS;
}

struct orri_memory *orri_memory_find(CUmemGenericAllocationHandle handle)
{
    struct orri_memory *m = handle > first_handle ? orri_memories : NULL;
    while (m && (m->handle != handle || m->n_handles == 0))
        m = m->next;
    return m;
}

static CUresult free_if_unused(struct orri_memory *m)
{
    if (m->n_handles > 0 || m->n_mappings > 0)
        return CUDA_SUCCESS;
    CUresult rc = m->is_resident ? orri_memory_release(m) : CUDA_SUCCESS;
    struct orri_memory **at = &orri_memories;
    while (*at != m)
        at = &(*at)->next;
    *at = m->next;
    free(m);
    return rc;
}

CUresult orri_memory_unref(struct orri_memory *m)
{
    m->n_handles--;
    return free_if_unused(m);
}

CUresult orri_memory_create(struct orri_memory *m)
{
    CUresult rc = REAL(cuMemCreate)(&m->real, m->bytes, &m->prop, m->flags);
    m->is_resident = rc == CUDA_SUCCESS;
    return rc;
}

CUresult orri_memory_release(struct orri_memory *m)
{
    CUresult rc = REAL(cuMemRelease)(m->real);
    if (rc == CUDA_SUCCESS)
        m->is_resident = false;
    return rc;
}

/* ---- mappings ---------------------------------------------------------------------- */

CUresult orri_mapping_map(struct orri_mapping *map)
{
    CUresult rc = REAL(cuMemMap)(
        map->span.at, map->span.bytes, map->offset, map->memory->real, 0);
    map->is_away = rc != CUDA_SUCCESS;
    return rc;
}

CUresult orri_mapping_unmap(struct orri_mapping *map)
{
    CUresult rc = REAL(cuMemUnmap)(map->span.at, map->span.bytes);
    if (rc == CUDA_SUCCESS)
        map->is_away = true;
    return rc;
}

CUresult orri_mapping_new(uint64_t at,
                          uint64_t bytes,
                          uint64_t offset,
                          struct orri_memory *m,
                          struct orri_mapping **ret)
{
    struct orri_mapping *map = calloc(1, sizeof *map);
    if (!map || !orri_table_make_room(&orri_mappings)) {
        free(map);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    map->span = (struct orri_span){at, bytes};
    map->offset = offset;
    map->memory = m;
    CUresult rc = orri_mapping_map(map);
    if (rc) {
        free(map);
        return rc;
    }
    m->n_mappings++;
    orri_table_insert(&orri_mappings, &map->span);
    *ret = map;
    return CUDA_SUCCESS;
}

CUresult orri_mapping_free(struct orri_mapping *map)
{
    CUresult rc = map->is_away ? CUDA_SUCCESS : orri_mapping_unmap(map);
    if (rc)
        return rc;
    orri_table_remove(&orri_mappings, &map->span);
    map->memory->n_mappings--;
    rc = free_if_unused(map->memory);
    free(map);
    return rc;
}

CUresult orri_mapping_set_access(const struct orri_mapping *map)
{
    CUmemAccessDesc desc[ORRI_CUDA_DEVICES_MAX];
    size_t n = 0;
    for (int d = 0; d < ORRI_CUDA_DEVICES_MAX; d++) {
        const uint64_t bit = (uint64_t)1 << d;
        if ((map->readers | map->writers) & bit)
            desc[n++] = (CUmemAccessDesc){{CU_MEM_LOCATION_TYPE_DEVICE, d},
                                          map->writers & bit
                                              ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
                                              : CU_MEM_ACCESS_FLAGS_PROT_READ};
    }
    return n ? REAL(cuMemSetAccess)(map->span.at, map->span.bytes, desc, n)
             : CUDA_SUCCESS;
}
