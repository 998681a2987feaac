/* SPDX-License-Identifier: Apache-2.0
 * fuzz_ptx.c - any text as PTX: it is refused with a reason, or it becomes kernels that
 * run to an end, within bounds, touching nothing but their own memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ptx_code.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* A text that loops for ever is no bug: only code without backward branches is run. */
static int ends(const struct ptx_function *fn)
{
    for (uint32_t i = 0; i < fn->n_code; i++)
        if (fn->code[i].op == PTX_BRA && fn->code[i].target <= i)
            return 0;
    return fn->n_code < 2000 && fn->frame_bytes < 1 << 20;
}

static void run(const struct ptx_function *fn)
{
    static const struct emu_range_map nothing;
    static uint8_t params[PTX_PARAM_BYTES_MAX];
    struct ptx_scratch scratch = {0};
    struct ptx_outcome outcome;
    struct ptx_launch launch = {
        .fn = fn,
        .grid = {2, 1, 1},
        .block = {fn->threads_max < 40 ? fn->threads_max : 40, 1, 1},
        .dynamic_shared_bytes = 64,
        .params = params,
        .map = &nothing};
    ptx_run(&launch, &scratch, &outcome);
    ptx_scratch_fini(&scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct ptx_module *module = NULL;
    struct ptx_log log;
    if (ptx_module_new((const char *)data, len, &module, &log) != PTX_OK) {
        if (log.reason[0] == '\0')
            abort(); /* refused without a reason */
        return 0;
    }
    ptx_module_place(module, 1 << 20);
    for (size_t i = 0; i < module->n_functions; i++)
        if (ends(module->functions[i]))
            run(module->functions[i]);
    ptx_module_free(module);
    return 0;
}
