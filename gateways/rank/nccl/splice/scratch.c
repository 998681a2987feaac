/* SPDX-License-Identifier: Apache-2.0
 * scratch.c - the memory that the ranks of a device share, and the life of a splice (splice.h).
 *
 * One allocation per communicator and device, made by the leader and exported; it goes when the last rank lets go of it.  It is
 * dropped before a stop: the driver's checkpoint refuses processes with shared memory.
 */
#include "splice.h"

#include <stdlib.h>
#include <unistd.h>

enum { BYTES_DEFAULT = 16 << 20, BYTES_MIN = 1 << 20 };
#define BYTES_MAX ((size_t)4 << 30)

static CUmemAllocationProp prop_of(CUdevice device)
{
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED};

    prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    prop.location.id = device;
    prop.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    return prop;
}

/* The same in all ranks: it is a setting of the job. */
static size_t wanted_bytes(void)
{
    const char *text = getenv("ORRERY_SPLICE_BYTES");
    unsigned long long n = text ? strtoull(text, NULL, 10) : BYTES_DEFAULT;

    return n < BYTES_MIN ? BYTES_MIN : n > BYTES_MAX ? BYTES_MAX : (size_t)n;
}

static ncclResult_t set_sizes(struct orri_splice *s)
{
    if (orri_layout_init(&s->layout, &s->map, wanted_bytes()))
        return ncclSuccess;
    return orri_nccl_fail(
        ncclInvalidUsage,
        "%d ranks on one device need more scratch than %zu bytes: set "
        "ORRERY_SPLICE_BYTES",
        s->map.most,
        wanted_bytes());
}

static bool make_accounts(struct orri_splice *s)
{
    size_t here = (size_t)s->map.count[s->map.device];

    for (int h = 0; h < 2; h++)
        s->half[h].took = calloc(here, sizeof *s->half[h].took);
    s->seen_taken = calloc(here, sizeof *s->seen_taken);
    s->box = calloc(here, sizeof *s->box);
    s->far = calloc((size_t)s->map.n, sizeof *s->far);
    return s->half[0].took && s->half[1].took && s->seen_taken && s->box && s->far;
}

struct orri_splice *orri_splice_new(int n,
                                    int me,
                                    const uint64_t *place,
                                    bool is_ordered,
                                    uint64_t seed,
                                    ncclComm_t *real)
{
    struct orri_splice *s = calloc(1, sizeof *s);
    ncclResult_t result = orri_driver_ready();

    if (!s || result != ncclSuccess ||
        !orri_map_init(&s->map, n, me, place, is_ordered)) {
        if (result == ncclSuccess)
            orri_nccl_fail(ncclSystemError, "out of memory");
        free(s);
        return NULL;
    }
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->side_lock, NULL);
    s->fd = s->page_fd = -1;
    s->real = real;
    s->pair_seed = seed;
    result = make_accounts(s) ? set_sizes(s)
                              : orri_nccl_fail(ncclSystemError, "out of memory");
    if (result == ncclSuccess)
        result = CU(CtxGetCurrent, &s->ctx);
    if (result == ncclSuccess)
        result = CU(EventCreate, &s->order, CU_EVENT_DISABLE_TIMING);
    if (result != ncclSuccess) {
        orri_splice_free(s);
        return NULL;
    }
    return s;
}

void orri_splice_free(struct orri_splice *s)
{
    CUcontext before = NULL;

    if (!s)
        return;
    orri_watch_end(s);
    if (s->ctx && orri_cu.CtxGetCurrent(&before) == CUDA_SUCCESS)
        orri_cu.CtxSetCurrent(s->ctx);
    orri_kernels_fini(&s->kernels);
    for (int r = 0; s->far && r < s->map.n; r++)
        if (s->far[r].stream)
            orri_cu.StreamDestroy(s->far[r].stream);
    if (s->side)
        orri_cu.StreamDestroy(s->side);
    if (s->order)
        orri_cu.EventDestroy(s->order);
    if (s->is_mapped)
        orri_cu.MemUnmap(s->base, s->layout.bytes);
    if (s->base)
        orri_cu.MemAddressFree(s->base, s->layout.bytes);
    if (s->memory)
        orri_cu.MemRelease(s->memory);
    if (s->fd >= 0)
        close(s->fd);
    if (s->ctx)
        orri_cu.CtxSetCurrent(before);
    for (int h = 0; h < 2; h++)
        free(s->half[h].took);
    free(s->seen_taken);
    free(s->box);
    free(s->far);
    orri_map_fini(&s->map);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->side_lock);
    free(s);
}

static ncclResult_t map_memory(struct orri_splice *s, CUdevice device)
{
    CUmemAccessDesc access = {{CU_MEM_LOCATION_TYPE_DEVICE, device},
                              CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    size_t bytes = s->layout.bytes;
    ncclResult_t result = CU(MemAddressReserve, &s->base, bytes, 0, 0, 0);

    if (result == ncclSuccess)
        result = CU(MemMap, s->base, bytes, 0, s->memory, 0);
    s->is_mapped = result == ncclSuccess;
    return result == ncclSuccess ? CU(MemSetAccess, s->base, bytes, &access, 1)
                                 : result;
}

/* Whole grains of the device; they are the same on devices of one kind. */
static ncclResult_t
round_up(struct orri_splice *s, CUdevice device, CUmemAllocationProp *ret_prop)
{
    size_t grain = 0;
    ncclResult_t result;

    *ret_prop = prop_of(device);
    result = CU(MemGetAllocationGranularity,
                &grain,
                ret_prop,
                CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    if (result == ncclSuccess)
        s->layout.bytes = (s->layout.bytes + grain - 1) / grain * grain;
    return result;
}

/* All words are 0 before anybody else sees them. */
static ncclResult_t clear_words(struct orri_splice *s)
{
    ncclResult_t result = CU(MemsetD8Async, s->base, 0, s->layout.flags, s->side);

    return result == ncclSuccess ? CU(StreamSynchronize, s->side) : result;
}

static ncclResult_t make_side(struct orri_splice *s)
{
    return CU(StreamCreate, &s->side, CU_STREAM_NON_BLOCKING);
}

ncclResult_t orri_splice_make_scratch(struct orri_splice *s)
{
    CUmemAllocationProp prop;
    CUdevice device = 0;
    ncclResult_t result = CU(CtxGetDevice, &device);

    if (result == ncclSuccess)
        result = round_up(s, device, &prop);
    if (result == ncclSuccess)
        result = CU(MemCreate, &s->memory, s->layout.bytes, &prop, 0);
    if (result == ncclSuccess)
        result = map_memory(s, device);
    if (result == ncclSuccess)
        result = make_side(s);
    if (result == ncclSuccess)
        result = clear_words(s);
    if (result == ncclSuccess)
        result = orri_watch_make(s);
    if (result == ncclSuccess)
        result = orri_watch_come(s);
    if (result == ncclSuccess)
        result = CU(MemExportToShareableHandle,
                    &s->fd,
                    s->memory,
                    CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                    0);
    return result;
}

ncclResult_t
orri_splice_take_scratch(struct orri_splice *s, int *take_fd, int *take_page_fd)
{
    CUmemAllocationProp prop;
    CUdevice device = 0;
    ncclResult_t result = CU(CtxGetDevice, &device);

    if (result == ncclSuccess)
        result = round_up(s, device, &prop);
    if (result == ncclSuccess)
        result = CU(MemImportFromShareableHandle,
                    &s->memory,
                    (void *)(uintptr_t)*take_fd,
                    CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    if (result == ncclSuccess)
        result = map_memory(s, device);
    if (result == ncclSuccess)
        result = make_side(s);
    close(*take_fd);
    s->page_fd = *take_page_fd;
    *take_fd = *take_page_fd = -1;
    return result == ncclSuccess ? orri_watch_come(s) : result;
}

ncclResult_t orri_splice_is_idle(struct orri_splice *s, bool *ret_is_idle)
{
    CUresult state = CUDA_SUCCESS;

    pthread_mutex_lock(&s->lock);
    if (s->is_used) {
        CUcontext before = NULL;
        orri_cu.CtxGetCurrent(&before);
        orri_cu.CtxSetCurrent(s->ctx);
        state = orri_cu.EventQuery(s->order);
        orri_cu.CtxSetCurrent(before);
    }
    pthread_mutex_unlock(&s->lock);
    *ret_is_idle = state != CUDA_ERROR_NOT_READY;
    return *ret_is_idle ? orri_driver_check("cuEventQuery", state) : ncclSuccess;
}
