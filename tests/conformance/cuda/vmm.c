/* SPDX-License-Identifier: Apache-2.0
 * vmm.c - virtual memory: reserve, create, map, share.
 */
#include <string.h>
#include <unistd.h>

#include "suite.h"

static CUmemAllocationProp prop(void)
{
    CUmemAllocationProp p;
    memset(&p, 0, sizeof p);
    p.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    p.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    p.location.id = suite_device;
    p.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    return p;
}

static size_t granularity(void)
{
    size_t g = 0;
    CUmemAllocationProp p = prop();
    OK(cuMemGetAllocationGranularity, &g, &p, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    assert_true(g >= 4096);
    return g;
}

static CUmemAccessDesc access_all(void)
{
    CUmemAccessDesc d = {{CU_MEM_LOCATION_TYPE_DEVICE, suite_device},
                         CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    return d;
}

static void memory_maps_where_reserved(void **state)
{
    size_t g = granularity();
    CUmemAllocationProp p = prop();
    CUmemAccessDesc access = access_all();
    CUmemGenericAllocationHandle h = 0;
    CUdeviceptr va = 0;
    unsigned value = 0;
    (void)state;
    OK(cuMemAddressReserve, &va, 4 * g, 0, 0, 0);
    OK(cuMemCreate, &h, g, &p, 0);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemsetD32, va + g, 0x11223344, 8);
    OK(cuMemMap, va + g, g, 0, h, 0);
    OK(cuMemSetAccess, va + g, g, &access, 1);
    OK(cuMemsetD32, va + g, 0x11223344, 8);
    OK(cuMemUnmap, va + g, g);
    OK(cuMemMap, va + 2 * g, g, 0, h, 0); /* the same memory at another address */
    OK(cuMemRelease, h);
    OK(cuMemSetAccess, va + 2 * g, g, &access, 1);
    OK(cuMemcpyDtoH, &value, va + 2 * g + 28, 4);
    assert_int_equal(value, 0x11223344);
    OK(cuMemUnmap, va + 2 * g, g);
    OK(cuMemAddressFree, va, 4 * g);
}

static void exported_memory_is_the_same_memory(void **state)
{
    size_t g = granularity();
    CUmemAllocationProp p = prop();
    CUmemAccessDesc access = access_all();
    CUmemGenericAllocationHandle h = 0, again = 0;
    CUdeviceptr a = 0, b = 0;
    int fd = -1;
    unsigned value = 0;
    (void)state;
    OK(cuMemCreate, &h, g, &p, 0);
    OK(cuMemExportToShareableHandle,
       &fd,
       h,
       CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
       0);
    OK(cuMemImportFromShareableHandle,
       &again,
       (void *)(uintptr_t)fd,
       CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    OK(cuMemAddressReserve, &a, g, 0, 0, 0);
    OK(cuMemAddressReserve, &b, g, 0, 0, 0);
    OK(cuMemMap, a, g, 0, h, 0);
    OK(cuMemMap, b, g, 0, again, 0);
    OK(cuMemSetAccess, a, g, &access, 1);
    OK(cuMemSetAccess, b, g, &access, 1);
    OK(cuMemsetD32, a, 99, 4);
    OK(cuMemcpyDtoH, &value, b, 4);
    assert_int_equal(value, 99);
    OK(cuMemUnmap, a, g);
    OK(cuMemUnmap, b, g);
    OK(cuMemRelease, h);
    OK(cuMemRelease, again);
    OK(cuMemAddressFree, a, g);
    OK(cuMemAddressFree, b, g);
    close(fd);
}

static void wrong_uses_are_refused(void **state)
{
    size_t g = granularity(), v = 0;
    CUmemAllocationProp p = prop(), bad = prop();
    CUmemAccessDesc access = access_all();
    CUmemGenericAllocationHandle h = 0, again = 0;
    CUdeviceptr va = 0;
    int fd = -1;
    (void)state;
    bad.location.type = CU_MEM_LOCATION_TYPE_INVALID;
    ERR(CUDA_ERROR_INVALID_VALUE,
        cuMemGetAllocationGranularity,
        &v,
        &bad,
        CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemCreate, &h, g + 1, &p, 0);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemAddressReserve, &va, g + 1, 0, 0, 0);
    OK(cuMemAddressReserve, &va, 2 * g, 0, 0, 0);
    OK(cuMemCreate, &h, g, &p, 0);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemMap, va, g + 1, 0, h, 0);
    OK(cuMemMap, va, g, 0, h, 0);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemMap, va, g, 0, h, 0);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemSetAccess, va + g, g, &access, 1);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemUnmap, va + g, g);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemAddressFree, va, 2 * g);
    OK(cuMemUnmap, va, g);
    OK(cuMemAddressFree, va, 2 * g);
    OK(cuMemRelease, h);
    ERR(CUDA_ERROR_INVALID_VALUE, cuMemRelease, 0);
    ERR(CUDA_ERROR_INVALID_VALUE,
        cuMemExportToShareableHandle,
        &fd,
        0,
        CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
        0);
    CUresult rc = cuMemImportFromShareableHandle(
        &again, (void *)(uintptr_t)-1, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    assert_int_not_equal(rc, CUDA_SUCCESS);
    suite_check("cuMemImportFromShareableHandle", rc, rc, __FILE__, __LINE__);
}

#define WITH_CONTEXT(f)                                                                \
    cmocka_unit_test_setup_teardown(f, suite_set_up, suite_tear_down)
const struct CMUnitTest vmm_tests[] = {
    WITH_CONTEXT(memory_maps_where_reserved),
    WITH_CONTEXT(exported_memory_is_the_same_memory),
    WITH_CONTEXT(wrong_uses_are_refused),
};
const unsigned n_vmm_tests = sizeof vmm_tests / sizeof vmm_tests[0];
