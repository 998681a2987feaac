/* SPDX-License-Identifier: Apache-2.0
 * pointer.c - attributes of pointers. What the driver knows of our blocks is a piece of mapped
 * virtual memory; what the program must hear of is an allocation.
 */
#include <string.h>

#include "abi.h"
#include "gate.h"
#include "segment.h"

/* Answer for a block of ours; false: ask the driver. With orri_cuda_lock. */
static bool
answer(void *data, CUpointer_attribute attribute, const struct orri_block *b)
{
    const int ordinal = b->segment->device;
    const size_t bytes = b->span.bytes;
    const CUdeviceptr at = b->span.at;
    switch ((int)attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
        memcpy(data, &b->segment->ctx, sizeof b->segment->ctx);
        return true;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
        memcpy(data, &b->id, sizeof b->id);
        return true;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        memcpy(data, &ordinal, sizeof ordinal);
        return true;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        memcpy(data, &at, sizeof at);
        return true;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        memcpy(data, &bytes, sizeof bytes);
        return true;
    default:
        return false;
    }
}

/* As answer, after the driver has found nothing wrong with the question. */
static void correct(void *data, CUpointer_attribute attribute, CUdeviceptr ptr)
{
    pthread_mutex_lock(&orri_cuda_lock);
    const struct orri_block *b = orri_block_find(ptr);
    if (b)
        answer(data, attribute, b);
    pthread_mutex_unlock(&orri_cuda_lock);
}

ORRI_EXPORT CUresult cuPointerGetAttribute(void *data,
                                           CUpointer_attribute attribute,
                                           CUdeviceptr ptr)
{
    orri_cuda_enter(CALL_cuPointerGetAttribute);
    CUresult rc = REAL(cuPointerGetAttribute)(data, attribute, ptr);
    if (!rc)
        correct(data, attribute, ptr);
    orri_cuda_leave();
    return rc;
}

ORRI_EXPORT CUresult cuPointerGetAttributes(unsigned int numAttributes,
                                            CUpointer_attribute *attributes,
                                            void **data,
                                            CUdeviceptr ptr)
{
    orri_cuda_enter(CALL_cuPointerGetAttributes);
    CUresult rc = REAL(cuPointerGetAttributes)(numAttributes, attributes, data, ptr);
    for (unsigned i = 0; !rc && i < numAttributes; i++)
        correct(data[i], attributes[i], ptr);
    orri_cuda_leave();
    return rc;
}
