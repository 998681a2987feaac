/* SPDX-License-Identifier: Apache-2.0
 * module.c - loading modules, and what a program may ask of them.
 */
#include <string.h>

#include "suite.h"

static void modules_load_from_file_and_memory(void **state)
{
    CUmodule m = NULL;
    CUfunction f = NULL;
    (void)state;
    OK(cuModuleLoad, &m, suite_ptx_path());
    OK(cuModuleGetFunction, &f, m, "saxpy");
    OK(cuModuleUnload, m);
    OK(cuModuleLoadData, &m, suite_ptx());
    ERR(CUDA_ERROR_NOT_FOUND, cuModuleGetFunction, &f, m, "no_such_kernel");
    OK(cuModuleUnload, m);
    ERR(CUDA_ERROR_FILE_NOT_FOUND, cuModuleLoad, &m, "/nowhere/kernels.ptx");
    ERR(CUDA_ERROR_INVALID_VALUE, cuModuleLoadData, &m, NULL);
    ERR(CUDA_ERROR_INVALID_HANDLE, cuModuleUnload, NULL);
}

static void bad_ptx_is_told_in_the_log(void **state)
{
    static const char bad[] =
        ".version 7.5\n.target sm_75\n.address_size 64\n"
        ".visible .entry k()\n{\n    frobnicate.u32 %r1, %r2;\n    ret;\n}\n";
    char log[1024] = "";
    CUmodule m = NULL;
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER,
                              CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)sizeof log};
    (void)state;
    CUresult rc = cuModuleLoadDataEx(&m, bad, 2, options, values);
    suite_check("cuModuleLoadDataEx",
                rc,
                rc == CUDA_SUCCESS ? CUDA_ERROR_INVALID_PTX : rc,
                __FILE__,
                __LINE__);
    assert_true(strlen(log) > 0);
    assert_non_null(strstr(log, "6")); /* the line */
    values[1] = (void *)sizeof log;
    OK(cuModuleLoadDataEx, &m, suite_ptx(), 2, options, values);
    OK(cuModuleUnload, m);
    ERR(CUDA_ERROR_INVALID_PTX,
        cuModuleLoadData,
        &m,
        ".version 7.5\n.target sm_75\n.address_size 64\n.visible .entry k()\n{\n    "
        "add.u32 %r1, %r2, 3;\n}\n");
}

static void machine_code_of_another_device_is_refused(void **state)
{
    static const char elf[256] = "\177ELF\2\1\1\63";
    CUmodule m = NULL;
    (void)state;
    CUresult rc = cuModuleLoadData(&m, elf);
    assert_true(rc == CUDA_ERROR_NO_BINARY_FOR_GPU || rc == CUDA_ERROR_INVALID_IMAGE);
}

static void variables_have_addresses_and_values(void **state)
{
    CUdeviceptr p = 0;
    size_t size = 0;
    unsigned counter = 0;
    float table[4] = {0};
    (void)state;
    OK(cuModuleGetGlobal, &p, &size, suite_module(), "counter");
    assert_int_equal(size, 4);
    OK(cuMemcpyDtoH, &counter, p, 4);
    assert_int_equal(counter, 7);
    OK(cuModuleGetGlobal, &p, &size, suite_module(), "table");
    assert_int_equal(size, 16);
    OK(cuMemcpyDtoH, table, p, 16);
    assert_true(table[0] > 0.99f && table[1] < -1.99f && table[3] < 0.26f);
    ERR(CUDA_ERROR_NOT_FOUND,
        cuModuleGetGlobal,
        &p,
        &size,
        suite_module(),
        "no_such_variable");
}

static void functions_have_attributes(void **state)
{
    int v = -1;
    CUfunction f = suite_kernel("gemm_tiled"), small = suite_kernel("small_blocks");
    (void)state;
    OK(cuFuncGetAttribute, &v, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, f);
    assert_int_equal(v, 2048);
    OK(cuFuncGetAttribute, &v, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, small);
    assert_int_equal(v, 64);
    OK(cuFuncGetAttribute, &v, CU_FUNC_ATTRIBUTE_PTX_VERSION, f);
    assert_true(v >= 60);
    ERR(CUDA_ERROR_INVALID_VALUE,
        cuFuncGetAttribute,
        &v,
        (CUfunction_attribute)9999,
        f);
    OK(cuFuncSetAttribute,
       suite_kernel("sum_squares"),
       CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
       60000);
    ERR(CUDA_ERROR_INVALID_VALUE,
        cuFuncSetAttribute,
        f,
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
        10 << 20);
    OK(cuFuncSetCacheConfig, f, CU_FUNC_CACHE_PREFER_L1);
    ERR(CUDA_ERROR_INVALID_HANDLE, cuFuncSetCacheConfig, NULL, CU_FUNC_CACHE_PREFER_L1);
}

static void occupancy_counts_blocks(void **state)
{
    int few = 0, many = 0;
    CUfunction f = suite_kernel("sum_squares");
    (void)state;
    OK(cuOccupancyMaxActiveBlocksPerMultiprocessor, &many, f, 64, 0);
    OK(cuOccupancyMaxActiveBlocksPerMultiprocessor, &few, f, 1024, 0);
    assert_true(few >= 1 && few <= many);
    ERR(CUDA_ERROR_INVALID_VALUE,
        cuOccupancyMaxActiveBlocksPerMultiprocessor,
        &few,
        f,
        0,
        0);
}

#define WITH_CONTEXT(f)                                                                \
    cmocka_unit_test_setup_teardown(f, suite_set_up, suite_tear_down)
const struct CMUnitTest module_tests[] = {
    WITH_CONTEXT(modules_load_from_file_and_memory),
    WITH_CONTEXT(bad_ptx_is_told_in_the_log),
    WITH_CONTEXT(machine_code_of_another_device_is_refused),
    WITH_CONTEXT(variables_have_addresses_and_values),
    WITH_CONTEXT(functions_have_attributes),
    WITH_CONTEXT(occupancy_counts_blocks),
};
const unsigned n_module_tests = sizeof module_tests / sizeof module_tests[0];
