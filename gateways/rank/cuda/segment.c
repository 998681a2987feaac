/* SPDX-License-Identifier: Apache-2.0
 * segment.c - see segment.h.
 */
#include "segment.h"

#include <stdlib.h>
#include <string.h>

#include "share/share.h"

enum { WORD_BITS = 64 };

struct orri_segment *orri_segments;
struct orri_table orri_blocks;
static uint64_t n_ids;
static uint64_t peers[ORRI_CUDA_DEVICES_MAX]; /* by owner: who else may touch it */

static CUmemAllocationProp prop_of(CUdevice device)
{
    CUmemAllocationProp p;
    memset(&p, 0, sizeof p);
    p.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    p.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    p.location.id = device;
    return p;
}

static CUresult granularity_of(CUdevice device, size_t *ret)
{
    static size_t known[ORRI_CUDA_DEVICES_MAX];
    CUmemAllocationProp p = prop_of(device);
    if (device < 0 || device >= ORRI_CUDA_DEVICES_MAX)
        return CUDA_ERROR_INVALID_DEVICE;
    CUresult rc = known[device]
                      ? CUDA_SUCCESS
                      : REAL(cuMemGetAllocationGranularity)(
                            &known[device], &p, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
    *ret = known[device];
    return rc;
}

/* ---- segments ---------------------------------------------------------------------- */

/* The same from memory that ranks of the device share. */
static CUresult back_shared(struct orri_segment *s)
{
    CUdeviceptr at = 0;
    CUresult rc = REAL(cuMemAddressReserve)(&at, s->bytes, 0, 0, 0);
    if (rc)
        return rc;
    s->at = at;
    rc = orri_shared_new(at, s->bytes, s->is_shared, &s->shared);
    if (rc)
        REAL(cuMemAddressFree)(at, s->bytes);
    return rc;
}

/* Physical memory at an address; on failure nothing is left of it. */
static CUresult back(struct orri_segment *s)
{
    if (orri_share_serves(s->ctx))
        return back_shared(s);
    CUmemAllocationProp p = prop_of(s->device);
    CUdeviceptr at = 0;
    CUresult rc = orri_memory_new(&p, s->bytes, 0, &s->memory);
    if (rc)
        return rc;
    rc = REAL(cuMemAddressReserve)(&at, s->bytes, 0, 0, 0);
    if (rc) {
        orri_memory_unref(s->memory);
        return rc;
    }
    s->at = at;
    s->memory->segment = s;
    rc = orri_mapping_new(at, s->bytes, 0, s->memory, &s->mapping);
    orri_memory_unref(s->memory); /* from here on the mapping holds it */
    if (!rc) {
        s->mapping->writers = (uint64_t)1 << s->device | peers[s->device];
        rc = orri_mapping_set_access(s->mapping);
        if (rc)
            orri_mapping_free(s->mapping);
    }
    if (rc)
        REAL(cuMemAddressFree)(at, s->bytes);
    return rc;
}

static CUresult segment_new(CUcontext ctx,
                            CUdevice device,
                            uint64_t bytes,
                            bool is_shared,
                            struct orri_segment **ret)
{
    struct orri_segment *s = calloc(1, sizeof *s);
    if (!s)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *s = (struct orri_segment){
        .bytes = bytes, .ctx = ctx, .device = device, .is_shared = is_shared};
    if (is_shared) {
        s->n_free = (unsigned)(bytes / ORRI_UNIT_BYTES);
        s->used = calloc(s->n_free / WORD_BITS, sizeof *s->used);
    }
    CUresult rc = is_shared && !s->used ? CUDA_ERROR_OUT_OF_MEMORY : back(s);
    if (rc) {
        free(s->used);
        free(s);
        return rc;
    }
    s->next = orri_segments;
    orri_segments = s;
    *ret = s;
    return CUDA_SUCCESS;
}

static CUresult segment_free(struct orri_segment *s)
{
    CUresult rc =
        s->shared ? orri_shared_free(s->shared) : orri_mapping_free(s->mapping);
    if (!rc)
        rc = REAL(cuMemAddressFree)(s->at, s->bytes);
    struct orri_segment **at = &orri_segments;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    free(s->used);
    free(s);
    return rc;
}

CUresult orri_segments_share(CUdevice owner, CUdevice device)
{
    CUresult rc = CUDA_SUCCESS;
    if (owner < 0 || device < 0 || owner >= ORRI_CUDA_DEVICES_MAX ||
        device >= ORRI_CUDA_DEVICES_MAX)
        return CUDA_ERROR_INVALID_DEVICE;
    peers[owner] |= (uint64_t)1 << device;
    for (struct orri_segment *s = orri_segments; s && !rc; s = s->next) {
        if (s->device != owner)
            continue;
        s->mapping->writers |= (uint64_t)1 << device;
        rc = orri_mapping_set_access(s->mapping);
    }
    return rc;
}

/* ---- units of shared segments ----------------------------------------------------------- */

static bool is_used(const struct orri_segment *s, unsigned unit)
{
    return s->used[unit / WORD_BITS] >> unit % WORD_BITS & 1;
}

static void set_used(struct orri_segment *s, unsigned first, unsigned n, bool is_on)
{
    for (unsigned i = first; i < first + n; i++)
        if (is_on)
            s->used[i / WORD_BITS] |= (uint64_t)1 << i % WORD_BITS;
        else
            s->used[i / WORD_BITS] &= ~((uint64_t)1 << i % WORD_BITS);
    s->n_free = is_on ? s->n_free - n : s->n_free + n;
}

/* n free units in a row. */
static bool find_units(const struct orri_segment *s, unsigned n, unsigned *ret_first)
{
    const unsigned n_units = (unsigned)(s->bytes / ORRI_UNIT_BYTES);
    unsigned run = 0;
    for (unsigned i = 0; s->n_free >= n && i < n_units; i++) {
        if (i % WORD_BITS == 0 && s->used[i / WORD_BITS] == UINT64_MAX) {
            run = 0;
            i += WORD_BITS - 1;
            continue;
        }
        run = is_used(s, i) ? 0 : run + 1;
        if (run == n) {
            *ret_first = i + 1 - n;
            return true;
        }
    }
    return false;
}

static unsigned units_of(uint64_t bytes)
{
    return (unsigned)((bytes + ORRI_UNIT_BYTES - 1) / ORRI_UNIT_BYTES);
}

static CUresult
place_small(struct orri_block *b, CUcontext ctx, CUdevice device, size_t granule)
{
    const unsigned n = units_of(b->span.bytes);
    unsigned first = 0;
    struct orri_segment *s = orri_segments;
    while (s && !(s->is_shared && s->ctx == ctx && s->device == device &&
                  find_units(s, n, &first)))
        s = s->next;
    CUresult rc = s ? CUDA_SUCCESS : segment_new(ctx, device, granule, true, &s);
    if (rc)
        return rc;
    set_used(s, first, n, true);
    b->segment = s;
    b->span.at = s->at + (uint64_t)first * ORRI_UNIT_BYTES;
    return CUDA_SUCCESS;
}

/* ---- blocks ---------------------------------------------------------------------------- */

static CUresult place(struct orri_block *b, CUcontext ctx, CUdevice device)
{
    size_t granule = 0;
    CUresult rc = granularity_of(device, &granule);
    if (rc)
        return rc;
    if (b->span.bytes < granule && granule % (ORRI_UNIT_BYTES * WORD_BITS) == 0)
        return place_small(b, ctx, device, granule);
    uint64_t whole = (b->span.bytes + granule - 1) / granule * granule;
    rc = segment_new(ctx, device, whole, false, &b->segment);
    if (!rc)
        b->span.at = b->segment->at;
    return rc;
}

CUresult
orri_block_new(CUcontext ctx, CUdevice device, uint64_t bytes, struct orri_block **ret)
{
    if (bytes > (uint64_t)1 << 60)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct orri_block *b = calloc(1, sizeof *b);
    if (!b || !orri_table_make_room(&orri_blocks)) {
        free(b);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    b->span.bytes = bytes;
    CUresult rc = place(b, ctx, device);
    if (rc) {
        free(b);
        return rc;
    }
    b->id = (uint64_t)1 << 48 | ++n_ids; /* no number that the driver gives */
    b->segment->n_blocks++;
    orri_table_insert(&orri_blocks, &b->span);
    *ret = b;
    return CUDA_SUCCESS;
}

CUresult orri_block_free(struct orri_block *b)
{
    struct orri_segment *s = b->segment;
    if (s->is_shared)
        set_used(s,
                 (unsigned)((b->span.at - s->at) / ORRI_UNIT_BYTES),
                 units_of(b->span.bytes),
                 false);
    orri_table_remove(&orri_blocks, &b->span);
    free(b);
    return --s->n_blocks == 0 ? segment_free(s) : CUDA_SUCCESS;
}

struct orri_block *orri_block_find(uint64_t at)
{
    struct orri_block *b = (struct orri_block *)orri_table_find(&orri_blocks, at);
    return b && !b->freed_after ? b : NULL;
}

void orri_blocks_free_all(CUcontext ctx)
{
    for (size_t i = orri_blocks.n; i-- > 0;) {
        struct orri_block *b = (struct orri_block *)orri_blocks.items[i];
        if (b->segment->ctx == ctx)
            orri_block_free(b); /* its event went with the context */
    }
}
