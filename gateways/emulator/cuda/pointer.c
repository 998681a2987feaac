/* SPDX-License-Identifier: Apache-2.0
 * pointer.c - what a program may ask about an address.
 */
#include "driver.h"

#include <string.h>

/* Write one attribute of r to data. */
static CUresult answer(void *data,
                       CUpointer_attribute attribute,
                       const struct emu_range *r,
                       CUdeviceptr ptr)
{
    bool is_device = r->kind != EMU_RANGE_HOST && r->kind != EMU_RANGE_REGISTERED;
    CUmemorytype type = is_device ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
    int ordinal = r->ctx ? (int)(r->ctx->device - emu.devices) : 0;
    switch ((int)attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
        memcpy(data, &r->ctx, sizeof r->ctx);
        break;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        memcpy(data, &type, sizeof type);
        break;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        memcpy(data, &ptr, sizeof ptr);
        break;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        if (is_device)
            return CUDA_ERROR_INVALID_VALUE;
        memcpy(data, &ptr, sizeof ptr);
        break;
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        memset(data, 0, sizeof(unsigned));
        break;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
        memcpy(data, &(unsigned long long){r->id}, sizeof(unsigned long long));
        break;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        memcpy(data, &ordinal, sizeof ordinal);
        break;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        memcpy(data, &(CUdeviceptr){r->address}, sizeof(CUdeviceptr));
        break;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        memcpy(data, &(size_t){r->bytes}, sizeof(size_t));
        break;
    case CU_POINTER_ATTRIBUTE_MAPPED:
        memcpy(data, &(unsigned){r->kind != EMU_RANGE_RESERVED}, sizeof(unsigned));
        break;
    default:
        return emu_unsupported("cuPointerGetAttribute of another attribute");
    }
    return CUDA_SUCCESS;
}

EMU_API CUresult cuPointerGetAttribute(void *data,
                                       CUpointer_attribute attribute,
                                       CUdeviceptr ptr)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    struct emu_range *r = emu_range_find(ptr);
    if (!data || !r)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    return emu_leave(answer(data, attribute, r, ptr));
}

/* Unlike the call for one attribute, an unknown pointer is no error: all answers are 0.
 */
EMU_API CUresult cuPointerGetAttributes(unsigned int numAttributes,
                                        CUpointer_attribute *attributes,
                                        void **data,
                                        CUdeviceptr ptr)
{
    struct CUctx_st *ctx;
    CUresult rc = emu_enter_ctx(&ctx);
    if (rc)
        return rc;
    if (numAttributes == 0 || !attributes || !data)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    static const struct emu_range nowhere = {.kind = EMU_RANGE_RESERVED};
    const struct emu_range *r = emu_range_find(ptr);
    for (unsigned i = 0; i < numAttributes && !rc; i++) {
        rc = answer(data[i], attributes[i], r ? r : &nowhere, r ? ptr : 0);
        if (!r && attributes[i] == CU_POINTER_ATTRIBUTE_MEMORY_TYPE)
            memset(data[i], 0, sizeof(CUmemorytype));
        if (rc == CUDA_ERROR_INVALID_VALUE) { /* has no such attribute */
            memset(data[i], 0, sizeof(void *));
            rc = CUDA_SUCCESS;
        }
    }
    return emu_leave(rc);
}
