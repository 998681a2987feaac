/* SPDX-License-Identifier: Apache-2.0
 * victim_memory.c - victim_memory.h. Calls that the emulated driver does not have are looked up when they are needed.
 */
#include "victim_memory.h"

#include <dlfcn.h>
#include <string.h>

static const char *const names[VICTIM_KIND_MAX_] = {
    [VICTIM_ALLOC] = "alloc",
    [VICTIM_POOL] = "pool",
    [VICTIM_VMM] = "vmm",
    [VICTIM_GRAPH] = "graph",
};

const char *victim_kind_name(enum victim_kind kind)
{
    return kind < VICTIM_KIND_MAX_ ? names[kind] : "?";
}

enum victim_kind victim_kind_of(const char *name)
{
    int kind = 0;
    while (kind < VICTIM_KIND_MAX_ && strcmp(name, names[kind]) != 0)
        kind++;
    return (enum victim_kind)kind;
}

static int find(const char *name, void *ret_function)
{
    void *symbol = dlsym(RTLD_DEFAULT, name);
    memcpy(ret_function, &symbol, sizeof symbol);
    return symbol != NULL;
}

static CUresult from_pool(size_t bytes, CUstream stream, CUdeviceptr *ret_at)
{
    CUresult (*alloc)(CUdeviceptr *, size_t, CUstream);
    if (!find("cuMemAllocAsync", &alloc))
        return CUDA_ERROR_NOT_SUPPORTED;
    CUresult rc = alloc(ret_at, bytes, stream);
    return rc ? rc : cuStreamSynchronize(stream);
}

static CUresult mapped(CUdevice device, size_t bytes, CUdeviceptr *ret_at)
{
    CUmemGenericAllocationHandle handle;
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED};
    prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    prop.location.id = device;
    const CUmemAccessDesc access = {prop.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUresult rc = cuMemCreate(&handle, bytes, &prop, 0);
    if (!rc)
        rc = cuMemAddressReserve(ret_at, bytes, 0, 0, 0);
    if (!rc)
        rc = cuMemMap(*ret_at, bytes, 0, handle, 0);
    return rc ? rc : cuMemSetAccess(*ret_at, bytes, &access, 1);
}

CUresult victim_memory_get(enum victim_kind kind,
                           CUdevice device,
                           size_t bytes,
                           CUstream stream,
                           CUdeviceptr *ret_at)
{
    if (kind == VICTIM_POOL)
        return from_pool(bytes, stream, ret_at);
    return kind == VICTIM_VMM ? mapped(device, bytes, ret_at)
                              : cuMemAlloc(ret_at, bytes);
}

/* ---- graphs ------------------------------------------------------------------------------ */

CUresult victim_graph_begin(CUstream stream)
{
    enum { THREAD_LOCAL = 1 };
    CUresult (*begin)(CUstream, int mode);
    if (!find("cuStreamBeginCapture_v2", &begin))
        return CUDA_ERROR_NOT_SUPPORTED;
    return begin(stream, THREAD_LOCAL);
}

CUresult victim_graph_end(CUstream stream, void **ret_graph)
{
    void *drawn = NULL;
    CUresult (*end)(CUstream, void **);
    CUresult (*instantiate)(void **, void *, unsigned long long flags);
    if (!find("cuStreamEndCapture", &end) ||
        !find("cuGraphInstantiateWithFlags", &instantiate))
        return CUDA_ERROR_NOT_SUPPORTED;
    CUresult rc = end(stream, &drawn);
    return rc ? rc : instantiate(ret_graph, drawn, 0);
}

CUresult victim_graph_launch(void *graph, CUstream stream)
{
    CUresult (*launch)(void *, CUstream);
    if (!find("cuGraphLaunch", &launch))
        return CUDA_ERROR_NOT_SUPPORTED;
    return launch(graph, stream);
}
