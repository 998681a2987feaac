/* SPDX-License-Identifier: Apache-2.0
 * device.c - initialisation, errors' names, devices. The first test runs before cuInit.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "suite.h"

static void nothing_works_before_init(void **state)
{
    int n;
    CUdevice d;
    CUcontext c;
    CUdeviceptr p;
    (void)state;
    ERR(CUDA_ERROR_NOT_INITIALIZED, cuDeviceGetCount, &n);
    ERR(CUDA_ERROR_NOT_INITIALIZED, cuDeviceGet, &d, 0);
    ERR(CUDA_ERROR_NOT_INITIALIZED, cuCtxGetCurrent, &c);
    ERR(CUDA_ERROR_NOT_INITIALIZED, cuMemAlloc, &p, 64);
    ERR(CUDA_ERROR_INVALID_VALUE, cuInit, 1);
    OK(cuInit, 0);
    OK(cuInit, 0);
}

static void version_is_a_version(void **state)
{
    int v = 0;
    (void)state;
    OK(cuDriverGetVersion, &v);
    assert_in_range(v, 12000, 99000);
    ERR(CUDA_ERROR_INVALID_VALUE, cuDriverGetVersion, NULL);
}

static void errors_have_names(void **state)
{
    const char *s = NULL;
    (void)state;
    OK(cuGetErrorName, CUDA_ERROR_OUT_OF_MEMORY, &s);
    assert_string_equal(s, "CUDA_ERROR_OUT_OF_MEMORY");
    OK(cuGetErrorString, CUDA_ERROR_OUT_OF_MEMORY, &s);
    assert_string_equal(s, "out of memory");
    OK(cuGetErrorString, CUDA_SUCCESS, &s);
    assert_string_equal(s, "no error");
    ERR(CUDA_ERROR_INVALID_VALUE, cuGetErrorName, (CUresult)12345, &s);
    assert_null(s);
    ERR(CUDA_ERROR_INVALID_VALUE, cuGetErrorString, (CUresult)12345, &s);
}

static void proc_addresses_are_the_calls(void **state)
{
    CUresult (*count)(int *) = NULL;
    void *p = NULL;
    int a = 0, b = 0;
    CUdriverProcAddressQueryResult why = CU_GET_PROC_ADDRESS_SUCCESS;
    (void)state;
    OK(cuGetProcAddress, "cuDeviceGetCount", &p, CUDA_VERSION, 0, NULL);
    memcpy(&count, &p, sizeof count);
    assert_int_equal(count(&a), CUDA_SUCCESS);
    OK(cuDeviceGetCount, &b);
    assert_int_equal(a, b);
    OK(cuGetProcAddress, "cuMemAlloc", &p, 12000, 0, &why);
    assert_non_null(p);
    assert_int_equal(why, CU_GET_PROC_ADDRESS_SUCCESS);
    assert_int_not_equal(cuGetProcAddress("cuNoSuchCall", &p, CUDA_VERSION, 0, &why) ==
                                 CUDA_SUCCESS &&
                             p,
                         1);
    assert_null(p);
    assert_int_equal(why, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
    ERR(CUDA_ERROR_INVALID_VALUE, cuGetProcAddress, NULL, &p, CUDA_VERSION, 0, NULL);
}

static void devices_are_numbered(void **state)
{
    CUdevice d = -1;
    int n = 0;
    (void)state;
    OK(cuDeviceGetCount, &n);
    assert_true(n > 0);
    for (int i = 0; i < n; i++) {
        OK(cuDeviceGet, &d, i);
        assert_int_equal(d, i);
    }
    ERR(CUDA_ERROR_INVALID_DEVICE, cuDeviceGet, &d, n);
    ERR(CUDA_ERROR_INVALID_DEVICE, cuDeviceGet, &d, -1);
}

static void device_has_identity(void **state)
{
    char name[128] = "", bus[32] = "";
    CUuuid uuid = {{0}}, again = {{0}};
    CUdevice d = -1;
    size_t bytes = 0;
    int major = 0, minor = -1, can = -1;
    (void)state;
    OK(cuDeviceGetName, name, sizeof name, 0);
    assert_true(strlen(name) > 0);
    ERR(CUDA_ERROR_INVALID_DEVICE, cuDeviceGetName, name, sizeof name, 1000);
    OK(cuDeviceGetUuid, &uuid, 0);
    OK(cuDeviceGetUuid, &again, 0);
    assert_memory_equal(&uuid, &again, sizeof uuid);
    ERR(CUDA_ERROR_INVALID_DEVICE, cuDeviceGetUuid, &uuid, 1000);
    OK(cuDeviceTotalMem, &bytes, 0);
    assert_true(bytes >= 16 << 20);
    ERR(CUDA_ERROR_INVALID_DEVICE, cuDeviceTotalMem, &bytes, -5);
    OK(cuDeviceGetPCIBusId, bus, sizeof bus, 0);
    assert_int_equal(strlen(bus), 12);
    ERR(CUDA_ERROR_INVALID_DEVICE, cuDeviceGetPCIBusId, bus, sizeof bus, 1000);
    OK(cuDeviceGetByPCIBusId, &d, bus);
    assert_int_equal(d, 0);
    ERR(CUDA_ERROR_INVALID_VALUE, cuDeviceGetByPCIBusId, &d, NULL);
    OK(cuDeviceComputeCapability, &major, &minor, 0);
    assert_true(major >= 5 && minor >= 0);
    ERR(CUDA_ERROR_INVALID_DEVICE, cuDeviceComputeCapability, &major, &minor, 1000);
    ERR(CUDA_ERROR_INVALID_DEVICE, cuDeviceCanAccessPeer, &can, 0, 1000);
    OK(cuDeviceCanAccessPeer, &can, 0, 0);
}

static void attributes_are_plausible(void **state)
{
    int v = 0, major, minor;
    (void)state;
    OK(cuDeviceGetAttribute, &v, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 0);
    assert_int_equal(v, 32);
    OK(cuDeviceGetAttribute, &v, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 0);
    assert_int_equal(v, 1024);
    OK(cuDeviceGetAttribute, &v, CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 0);
    assert_int_equal(v, 1);
    OK(cuDeviceGetAttribute, &v, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0);
    assert_true(v > 0);
    OK(cuDeviceGetAttribute, &v, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0);
    OK(cuDeviceComputeCapability, &major, &minor, 0);
    assert_int_equal(v, major);
    ERR(CUDA_ERROR_INVALID_VALUE,
        cuDeviceGetAttribute,
        &v,
        (CUdevice_attribute)99999,
        0);
    ERR(CUDA_ERROR_INVALID_DEVICE,
        cuDeviceGetAttribute,
        &v,
        CU_DEVICE_ATTRIBUTE_WARP_SIZE,
        1000);
}

const struct CMUnitTest device_tests[] = {
    cmocka_unit_test(nothing_works_before_init),
    cmocka_unit_test(version_is_a_version),
    cmocka_unit_test(errors_have_names),
    cmocka_unit_test(proc_addresses_are_the_calls),
    cmocka_unit_test(devices_are_numbered),
    cmocka_unit_test(device_has_identity),
    cmocka_unit_test(attributes_are_plausible),
};
const unsigned n_device_tests = sizeof device_tests / sizeof device_tests[0];
