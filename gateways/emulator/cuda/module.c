/* SPDX-License-Identifier: Apache-2.0
 * module.c - modules and their functions. An image is PTX text that ends in a zero
 * byte; machine code is for another device (CUDA_ERROR_NO_BINARY_FOR_GPU).
 */
#include "module.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void function_unref(struct CUfunc_st *f)
{
    if (--f->object.refs == 0)
        free(f);
}

void emu_module_unref(struct CUmod_st *m)
{
    if (--m->object.refs > 0)
        return;
    ptx_module_free(m->ptx);
    free(m);
}

/* Handles go at once; the code when no launch needs it any more; the variables now,
 * since the caller waited for the context's work. */
static void unload(struct CUmod_st *m)
{
    while (m->functions) {
        struct CUfunc_st *f = m->functions;
        m->functions = f->next_in_module;
        emu_object_kill(&f->object);
        function_unref(f);
    }
    struct emu_range *r = m->variables ? emu_range_find(m->variables) : NULL;
    if (r)
        emu_memory_free(r);
    emu_object_kill(&m->object);
    emu_module_unref(m);
}

void emu_module_unref_all(struct CUctx_st *ctx)
{
    struct CUmod_st *m;
    while ((m = emu_object_any(EMU_MODULE, ctx)))
        unload(m);
}

/* The options that ask for the log; the others tune a compiler that isn't there. */
static void
write_log(const struct ptx_log *log, unsigned n, CUjit_option *options, void **values)
{
    char *buffer = NULL;
    size_t size = 0, used = 0;
    for (unsigned i = 0; i < n; i++) {
        if (options[i] == CU_JIT_ERROR_LOG_BUFFER)
            buffer = values[i];
        else if (options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES)
            size = (size_t)(uintptr_t)values[i] & UINT32_MAX;
    }
    if (buffer && size > 0 && log->reason[0]) {
        int len = snprintf(buffer, size, "ptx line %u: %s\n", log->line, log->reason);
        used = len < 0 ? 0 : (size_t)len < size ? (size_t)len : size - 1;
    } else if (buffer && size > 0) {
        buffer[0] = '\0';
    }
    for (unsigned i = 0; i < n; i++) /* as the real one: how much was written */
        if (options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES)
            values[i] = (void *)(uintptr_t)used;
        else if (options[i] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES)
            values[i] = NULL;
}

static CUresult
parse(const char *text, struct ptx_module **ret_ptx, struct ptx_log *log)
{
    size_t len = strnlen(text, PTX_TEXT_BYTES_MAX + 1);
    enum ptx_status status = ptx_module_new(text, len, ret_ptx, log);
    if (status == PTX_UNSUPPORTED)
        return emu_unsupported(log->reason);
    if (status == PTX_NO_MEMORY)
        return CUDA_ERROR_OUT_OF_MEMORY;
    return status == PTX_OK ? CUDA_SUCCESS : CUDA_ERROR_INVALID_PTX;
}

/* Variables live in device memory of their own. */
static CUresult place_variables(struct CUctx_st *ctx, struct CUmod_st *m)
{
    const void *image;
    size_t bytes = ptx_module_image(m->ptx, &image);
    if (bytes == 0)
        return CUDA_SUCCESS;
    CUresult rc = emu_memory_alloc(ctx, bytes, &m->variables);
    if (rc)
        return rc;
    memcpy((void *)m->variables, image, bytes);
    ptx_module_place(m->ptx, m->variables);
    return CUDA_SUCCESS;
}

static CUresult load(CUmodule *module,
                     const char *image,
                     unsigned n,
                     CUjit_option *options,
                     void **values)
{
    static const char elf[] = "\177ELF", fatbin[] = "\x50\xed\x55\xba",
                      wrapper[] = "\xb1\x43\x62\x46";
    struct CUctx_st *ctx;
    struct ptx_log log = {0};
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    if (!module || !image || (n && (!options || !values)))
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (strncmp(image, elf, 4) == 0 || strncmp(image, fatbin, 4) == 0 ||
        strncmp(image, wrapper, 4) == 0)
        return emu_leave(CUDA_ERROR_NO_BINARY_FOR_GPU);
    if (image[0] == '\0')
        return emu_leave(CUDA_ERROR_INVALID_IMAGE);
    struct CUmod_st *m = calloc(1, sizeof *m);
    if (!m)
        return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    rc = parse(image, &m->ptx, &log);
    write_log(&log, n, options, values);
    if (!rc)
        rc = place_variables(ctx, m);
    if (rc) {
        ptx_module_free(m->ptx);
        free(m);
        return emu_leave(rc);
    }
    emu_object_init(&m->object, EMU_MODULE, ctx);
    *module = m;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    return load(module, image, 0, NULL, NULL);
}

EMU_API CUresult cuModuleLoadDataEx(CUmodule *module,
                                    const void *image,
                                    unsigned int numOptions,
                                    CUjit_option *options,
                                    void **optionValues)
{
    return load(module, image, numOptions, options, optionValues);
}

/* The whole file with a zero byte behind it. */
static CUresult read_file(const char *path, char **ret_text)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return CUDA_ERROR_FILE_NOT_FOUND;
    CUresult rc = CUDA_ERROR_INVALID_IMAGE;
    char *text = NULL;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
        st.st_size <= PTX_TEXT_BYTES_MAX && (text = malloc((size_t)st.st_size + 1))) {
        size_t used = 0;
        ssize_t n;
        while (used < (size_t)st.st_size &&
               (n = read(fd, text + used, (size_t)st.st_size - used)) != 0) {
            if (n < 0 && errno != EINTR)
                break;
            used += n > 0 ? (size_t)n : 0;
        }
        text[used] = '\0';
        rc = CUDA_SUCCESS;
    }
    close(fd);
    *ret_text = text;
    return rc;
}

EMU_API CUresult cuModuleLoad(CUmodule *module, const char *fname)
{
    char *text = NULL;
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    emu_leave(rc);
    if (!fname)
        return CUDA_ERROR_INVALID_VALUE;
    rc = read_file(fname, &text);
    if (!rc)
        rc = load(module, text, 0, NULL, NULL);
    free(text);
    return rc;
}

EMU_API CUresult cuModuleUnload(CUmodule hmod)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    if (!emu_object_find(hmod, EMU_MODULE))
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    rc = emu_ctx_wait_idle(hmod->object.ctx);
    if (emu_object_find(hmod, EMU_MODULE))
        unload(hmod);
    return emu_leave(rc);
}

EMU_API CUresult cuModuleGetFunction(CUfunction *hfunc, CUmodule hmod, const char *name)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    if (!hfunc || !name || !*name)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (!emu_object_find(hmod, EMU_MODULE))
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    const struct ptx_function *fn = ptx_module_function(hmod->ptx, name);
    if (!fn)
        return emu_leave(CUDA_ERROR_NOT_FOUND);
    struct CUfunc_st *f = hmod->functions;
    while (f && f->ptx != fn)
        f = f->next_in_module;
    if (!f) {
        f = calloc(1, sizeof *f);
        if (!f)
            return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
        emu_object_init(&f->object, EMU_FUNCTION, hmod->object.ctx);
        f->module = hmod;
        f->ptx = fn;
        f->dynamic_shared_max = EMU_SHARED_DEFAULT;
        f->next_in_module = hmod->functions;
        hmod->functions = f;
    }
    *hfunc = f;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuModuleGetGlobal(CUdeviceptr *dptr,
                                   size_t *bytes,
                                   CUmodule hmod,
                                   const char *name)
{
    struct CUctx_st *ctx;
    size_t offset, size;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    if (!name || (!dptr && !bytes))
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (!emu_object_find(hmod, EMU_MODULE))
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    if (!ptx_module_variable(hmod->ptx, name, &offset, &size))
        return emu_leave(CUDA_ERROR_NOT_FOUND);
    if (dptr)
        *dptr = hmod->variables + offset;
    if (bytes)
        *bytes = size;
    return emu_leave(CUDA_SUCCESS);
}
