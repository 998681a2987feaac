/* SPDX-License-Identifier: Apache-2.0
 * ptx.h - PTX text to bytecode, and a grid of threads to results.
 *
 * A module owns its functions and variables and is immutable once it is placed;
 * launches of it may run at the same time in several threads, each with its own
 * scratch.
 */
#ifndef EMU_PTX_H
#define EMU_PTX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "range_map.h"

enum {
    PTX_TEXT_BYTES_MAX = 16 << 20,
    PTX_PARAM_BYTES_MAX = 4096,
    PTX_SHARED_BYTES_MAX = 227 << 10,
    PTX_LOCAL_BYTES_MAX = 64 << 10, /* a thread */
    PTX_FRAME_BYTES_MAX = 4 << 20,  /* registers of a warp */
    PTX_BLOCK_THREADS_MAX = 1024,
};

enum ptx_status {
    PTX_OK,
    PTX_SYNTAX,      /* not PTX, or contradicts itself */
    PTX_UNSUPPORTED, /* PTX that the interpreter does not know */
    PTX_NO_MEMORY,
    PTX_ILLEGAL_ADDRESS, /* what follows: a thread did it */
    PTX_MISALIGNED,
    PTX_TRAPPED,
    PTX_DEADLOCK, /* every thread waits, not all at the same barrier */
};

struct ptx_log {
    unsigned line; /* 1-based; 0: the whole text */
    char reason[160];
};

struct ptx_module;
struct ptx_function;

struct ptx_function_info {
    const char *name; /* the module's */
    uint32_t n_params;
    uint32_t param_bytes;
    uint32_t shared_bytes;
    uint32_t local_bytes;
    uint32_t n_registers;
    uint32_t threads_max; /* from .maxntid or .reqntid; 1024 without */
};

enum ptx_status ptx_module_new(const char *text,
                               size_t len,
                               struct ptx_module **ret_module,
                               struct ptx_log *log);
void ptx_module_free(struct ptx_module *module);
unsigned ptx_module_version(const struct ptx_module *module); /* 10 * major + minor */

/* The variables: one image, which the owner copies to memory and then tells where. */
size_t ptx_module_image(const struct ptx_module *module, const void **ret_image);
void ptx_module_place(struct ptx_module *module, uint64_t address);
bool ptx_module_variable(const struct ptx_module *module,
                         const char *name,
                         size_t *ret_offset,
                         size_t *ret_bytes);

/* Borrowed: as long as the module. NULL if there is no such kernel. */
const struct ptx_function *ptx_module_function(const struct ptx_module *module,
                                               const char *name);
void ptx_function_get_info(const struct ptx_function *fn,
                           struct ptx_function_info *ret_info);
void ptx_function_get_param(const struct ptx_function *fn,
                            uint32_t index,
                            uint32_t *ret_offset,
                            uint32_t *ret_bytes);

struct ptx_launch {
    const struct ptx_function *fn;
    uint32_t grid[3];
    uint32_t block[3];
    uint32_t dynamic_shared_bytes;
    const void *params;              /* param_bytes of them */
    const struct emu_range_map *map; /* what the threads may touch */
    bool (*may_touch)(uint64_t address,
                      uint64_t bytes); /* asked for what is not in it */
};

struct ptx_outcome {
    uint64_t n_instructions; /* times threads */
    uint64_t fault_address;
    unsigned fault_line;
};

/* Scratch memory, kept between launches of one thread; zero-initialised by its owner.
 */
struct ptx_scratch {
    void *memory; /* owned */
    size_t bytes;
};
void ptx_scratch_fini(struct ptx_scratch *scratch);

/* Run the grid to its end in the calling thread, block after block. */
enum ptx_status ptx_run(const struct ptx_launch *launch,
                        struct ptx_scratch *scratch,
                        struct ptx_outcome *ret_outcome);

#endif
