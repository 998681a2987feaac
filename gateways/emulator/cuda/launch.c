/* SPDX-License-Identifier: Apache-2.0
 * launch.c - functions: their attributes, and launching them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "module.h"

struct emu_launch {
    struct CUmod_st *module; /* a reference */
    struct ptx_launch ptx;
    uint8_t params[]; /* a copy, at least one byte */
};

static bool may_touch(uint64_t address, uint64_t bytes)
{
    pthread_mutex_lock(&emu.lock);
    bool is_valid = emu_range_is_valid(address, bytes);
    pthread_mutex_unlock(&emu.lock);
    return is_valid;
}

static CUresult enter_function(CUfunction f)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    return emu_object_find(f, EMU_FUNCTION) ? CUDA_SUCCESS
                                            : emu_leave(CUDA_ERROR_INVALID_HANDLE);
}

EMU_API CUresult cuFuncGetAttribute(int *pi,
                                    CUfunction_attribute attrib,
                                    CUfunction hfunc)
{
    struct ptx_function_info info;
    CUresult rc = enter_function(hfunc);
    if (rc)
        return rc;
    ptx_function_get_info(hfunc->ptx, &info);
    const int values[] = {
        [CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK] = (int)info.threads_max,
        [CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES] = (int)info.shared_bytes,
        [CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES] = 0,
        [CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES] = (int)info.local_bytes,
        [CU_FUNC_ATTRIBUTE_NUM_REGS] =
            info.n_registers < 255 ? (int)info.n_registers : 255,
        [CU_FUNC_ATTRIBUTE_PTX_VERSION] = (int)ptx_module_version(hfunc->module->ptx),
        [CU_FUNC_ATTRIBUTE_BINARY_VERSION] = 90,
        [CU_FUNC_ATTRIBUTE_CACHE_MODE_CA] = 0,
        [CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES] =
            hfunc->dynamic_shared_max - (int)info.shared_bytes,
        [CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT] = -1,
    };
    if (!pi || (unsigned)attrib >= sizeof values / sizeof values[0])
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *pi = values[attrib];
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuFuncSetAttribute(CUfunction hfunc,
                                    CUfunction_attribute attrib,
                                    int value)
{
    struct ptx_function_info info;
    CUresult rc = enter_function(hfunc);
    if (rc)
        return rc;
    ptx_function_get_info(hfunc->ptx, &info);
    int most = EMU_SHARED_OPTIN - (int)info.shared_bytes;
    if (attrib == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT)
        return emu_leave(value >= -1 && value <= 100 ? CUDA_SUCCESS
                                                     : CUDA_ERROR_INVALID_VALUE);
    if (attrib != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value < 0 ||
        value > most)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    hfunc->dynamic_shared_max = value + (int)info.shared_bytes;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuFuncSetCacheConfig(CUfunction hfunc, CUfunc_cache config)
{
    CUresult rc = enter_function(hfunc);
    if (rc)
        return rc;
    bool is_known =
        (unsigned)config <= CU_FUNC_CACHE_PREFER_EQUAL; /* a hint: nothing to do */
    return emu_leave(is_known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE);
}

EMU_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *numBlocks,
                                                             CUfunction func,
                                                             int blockSize,
                                                             size_t dynamicSMemSize)
{
    struct ptx_function_info info;
    CUresult rc = enter_function(func);
    if (rc)
        return rc;
    ptx_function_get_info(func->ptx, &info);
    if (!numBlocks || blockSize <= 0)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    size_t shared = info.shared_bytes + dynamicSMemSize;
    int by_threads = 2048 / ((blockSize + 31) / 32 * 32);
    int by_shared =
        shared > EMU_SHARED_OPTIN ? 0 : (int)((228 << 10) / (shared + 1024));
    int n = by_threads < by_shared ? by_threads : by_shared;
    n = n > 32 ? 32 : n;
    *numBlocks = blockSize > (int)info.threads_max ? 0 : n;
    return emu_leave(CUDA_SUCCESS);
}

/* Parameters come as one pointer each, or as one buffer in `extra`. */
static CUresult
collect_params(const struct ptx_function *fn, void **params, void **extra, uint8_t *to)
{
    struct ptx_function_info info;
    uint32_t offset, bytes;
    const void *buffer = NULL;
    size_t size = 0;
    ptx_function_get_info(fn, &info);
    if (params && extra)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; extra && extra[i] != CU_LAUNCH_PARAM_END; i += 2) {
        if (extra[i] == CU_LAUNCH_PARAM_BUFFER_POINTER)
            buffer = extra[i + 1];
        else if (extra[i] == CU_LAUNCH_PARAM_BUFFER_SIZE && extra[i + 1])
            size = *(size_t *)extra[i + 1];
        else
            return CUDA_ERROR_INVALID_VALUE;
    }
    if (extra) {
        if (size < info.param_bytes || (info.param_bytes > 0 && !buffer))
            return CUDA_ERROR_INVALID_VALUE;
        memcpy(to, buffer ? buffer : to, info.param_bytes);
        return CUDA_SUCCESS;
    }
    if (!params && info.n_params > 0)
        return CUDA_ERROR_INVALID_VALUE;
    for (uint32_t i = 0; i < info.n_params; i++) {
        ptx_function_get_param(fn, i, &offset, &bytes);
        if (!params[i])
            return CUDA_ERROR_INVALID_VALUE;
        memcpy(to + offset, params[i], bytes);
    }
    return CUDA_SUCCESS;
}

static CUresult check_shape(const struct CUfunc_st *f,
                            const uint32_t grid[3],
                            const uint32_t block[3],
                            unsigned shared)
{
    struct ptx_function_info info;
    ptx_function_get_info(f->ptx, &info);
    uint64_t threads = (uint64_t)block[0] * block[1];
    bool is_block = threads > 0 && block[2] > 0 && threads <= 1024 && block[2] <= 64 &&
                    threads * block[2] <= info.threads_max;
    bool is_grid = grid[0] > 0 && grid[1] > 0 && grid[2] > 0 && grid[0] <= INT32_MAX &&
                   grid[1] <= 65535 && grid[2] <= 65535;
    bool is_shared = shared <= (unsigned)f->dynamic_shared_max &&
                     info.shared_bytes <= (unsigned)f->dynamic_shared_max - shared;
    return is_block && is_grid && is_shared ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

EMU_API CUresult cuLaunchKernel(CUfunction f,
                                unsigned int gridDimX,
                                unsigned int gridDimY,
                                unsigned int gridDimZ,
                                unsigned int blockDimX,
                                unsigned int blockDimY,
                                unsigned int blockDimZ,
                                unsigned int sharedMemBytes,
                                CUstream hStream,
                                void **kernelParams,
                                void **extra)
{
    const uint32_t grid[3] = {gridDimX, gridDimY, gridDimZ};
    const uint32_t block[3] = {blockDimX, blockDimY, blockDimZ};
    struct ptx_function_info info;
    struct CUstream_st *s;
    CUresult rc = enter_function(f);
    if (rc)
        return rc;
    rc = emu_stream_find(f->object.ctx, hStream, &s);
    if (!rc)
        rc = check_shape(f, grid, block, sharedMemBytes);
    if (rc)
        return emu_leave(rc);
    ptx_function_get_info(f->ptx, &info);
    struct emu_launch *l = malloc(sizeof *l + info.param_bytes + 1);
    if (!l)
        return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    rc = collect_params(f->ptx, kernelParams, extra, l->params);
    if (rc) {
        free(l);
        return emu_leave(rc);
    }
    l->module = f->module;
    l->module->object.refs++;
    l->ptx = (struct ptx_launch){.fn = f->ptx,
                                 .dynamic_shared_bytes = sharedMemBytes,
                                 .params = l->params,
                                 .map = &emu_map,
                                 .may_touch = may_touch};
    memcpy(l->ptx.grid, grid, sizeof grid);
    memcpy(l->ptx.block, block, sizeof block);
    return emu_leave(emu_stream_submit(
        s, &(struct emu_op){.kind = EMU_OP_LAUNCH, .launch = l}, NULL));
}

void emu_launch_free(struct emu_launch *l)
{
    emu_module_unref(l->module);
    free(l);
}

static CUresult result_of(enum ptx_status status)
{
    switch (status) {
    case PTX_OK:
        return CUDA_SUCCESS;
    case PTX_ILLEGAL_ADDRESS:
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    case PTX_MISALIGNED:
        return CUDA_ERROR_MISALIGNED_ADDRESS;
    case PTX_NO_MEMORY:
        return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
    case PTX_SYNTAX:
    case PTX_UNSUPPORTED:
    case PTX_TRAPPED:
    case PTX_DEADLOCK:
        break;
    }
    return CUDA_ERROR_LAUNCH_FAILED;
}

CUresult emu_launch_run(struct emu_launch *l, struct ptx_scratch *scratch)
{
    struct ptx_outcome outcome;
    struct ptx_function_info info;
    enum ptx_status status = ptx_run(&l->ptx, scratch, &outcome);
    const char *verbose = getenv("ORRERY_EMULATOR_VERBOSE");
    if (status != PTX_OK && verbose && strcmp(verbose, "1") == 0) {
        ptx_function_get_info(l->ptx.fn, &info);
        fprintf(stderr,
                "emulated libcuda: kernel %s failed at ptx line %u, address 0x%" PRIx64
                "\n",
                info.name,
                outcome.fault_line,
                outcome.fault_address);
    }
    return result_of(status);
}
