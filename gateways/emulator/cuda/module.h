/* SPDX-License-Identifier: Apache-2.0
 * module.h - modules and functions, between module.c and launch.c.
 */
#ifndef EMU_MODULE_H
#define EMU_MODULE_H

#include "driver.h"
#include "ptx.h"

enum { EMU_SHARED_DEFAULT = 48 << 10, EMU_SHARED_OPTIN = 227 << 10 };

struct CUmod_st {
    struct emu_object object; /* referenced by its launches */
    struct ptx_module *ptx;   /* owned */
    CUdeviceptr variables;    /* owned range, or 0 */
    struct CUfunc_st *functions;
};

struct CUfunc_st {
    struct emu_object object;
    struct CUmod_st *module; /* borrowed: frees its functions */
    const struct ptx_function *ptx;
    int dynamic_shared_max;
    struct CUfunc_st *next_in_module;
};

void emu_module_unref(struct CUmod_st *m);

#endif
