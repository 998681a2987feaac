/* SPDX-License-Identifier: Apache-2.0
 * hasher.c - see hasher.h.
 */
#include "hasher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BATCH = 64, THREADS = 128, ALIGN = 256 };
extern const char orri_nh_ptx[];

static size_t round_up(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static size_t blocks_of(const struct orri_hasher *h)
{
    return h->piece_bytes / ORRI_NH_BLOCK_BYTES;
}

static size_t sums_bytes(const struct orri_hasher *h)
{
    return BATCH * blocks_of(h) * ORRI_NH_LANES * sizeof(uint64_t);
}

static CUdeviceptr addresses_at(const struct orri_hasher *h)
{
    return h->memory + round_up(sizeof *h->key);
}

static CUdeviceptr sums_at(const struct orri_hasher *h)
{
    return addresses_at(h) + round_up(BATCH * sizeof(CUdeviceptr));
}

static CUresult make_ready(struct orri_hasher *h)
{
    size_t bytes = round_up(sizeof *h->key) + round_up(BATCH * sizeof(CUdeviceptr)) +
                   sums_bytes(h);
    if (!h->host)
        h->host =
            malloc(sums_bytes(h) > h->piece_bytes ? sums_bytes(h) : h->piece_bytes);
    if (!h->host)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (h->way == ORRI_HASH_HOST)
        return CUDA_SUCCESS;
    CUresult rc = REAL(cuModuleLoadData)(&h->module, orri_nh_ptx);
    if (!rc)
        rc = REAL(cuModuleGetFunction)(&h->kernel, h->module, "nh");
    if (!rc)
        rc = REAL(cuStreamCreate)(&h->stream, CU_STREAM_NON_BLOCKING);
    if (!rc)
        rc = REAL(cuMemAlloc)(&h->memory, bytes);
    if (!rc)
        rc = REAL(cuMemcpyHtoD)(h->memory, h->key, sizeof *h->key);
    return rc;
}

static void let_go(struct orri_hasher *h)
{
    if (h->memory)
        REAL(cuMemFree)(h->memory);
    if (h->stream)
        REAL(cuStreamDestroy)(h->stream);
    if (h->module)
        REAL(cuModuleUnload)(h->module);
    h->memory = 0;
    h->stream = NULL;
    h->module = NULL;
}

void orri_hasher_forget(struct orri_hasher *h)
{
    h->memory = 0;
    h->stream = NULL;
    h->module = NULL;
    h->is_ready = false;
}

/* ---- the two ways -------------------------------------------------------------------------------- */

static CUresult on_device(struct orri_hasher *h,
                          const CUdeviceptr *pieces,
                          size_t n,
                          struct orri_hash *ret)
{
    const size_t blocks = blocks_of(h), one = blocks * ORRI_NH_LANES;
    CUdeviceptr sums = sums_at(h), addresses = addresses_at(h), key = h->memory;
    void *params[] = {&sums, &addresses, &key};
    size_t bytes = n * one * sizeof(uint64_t);
    CUresult rc = REAL(cuMemcpyHtoD)(addresses, pieces, n * sizeof *pieces);
    if (!rc)
        rc = REAL(cuMemsetD8Async)(sums, 0, bytes, h->stream);
    if (!rc)
        rc = REAL(cuLaunchKernel)(h->kernel,
                                  (unsigned)blocks,
                                  (unsigned)n,
                                  1,
                                  THREADS,
                                  1,
                                  1,
                                  0,
                                  h->stream,
                                  params,
                                  NULL);
    if (!rc)
        rc = REAL(cuMemcpyDtoHAsync)(h->host, sums, bytes, h->stream);
    CUresult done = rc ? rc : REAL(cuStreamSynchronize)(h->stream);
    for (size_t i = 0; !done && i < n; i++)
        ret[i] = orri_nh_of_sums(
            h->key, (const uint64_t *)h->host + i * one, (unsigned)blocks);
    return done;
}

static CUresult on_host(struct orri_hasher *h,
                        const CUdeviceptr *pieces,
                        size_t n,
                        struct orri_hash *ret)
{
    CUresult rc = CUDA_SUCCESS;
    for (size_t i = 0; i < n && !rc; i++) {
        rc = REAL(cuMemcpyDtoH)(h->host, pieces[i], h->piece_bytes);
        if (!rc)
            ret[i] = orri_nh(h->key, h->host, h->piece_bytes);
    }
    return rc;
}

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* A device that gives other results, or cannot, is not asked again. */
static enum orri_hash_way choose(struct orri_hasher *h, CUdeviceptr piece)
{
    struct orri_hash here, there;
    CUresult rc = on_device(h, &piece, 1, &there); /* which compiles, too */
    if (rc || on_host(h, &piece, 1, &here))
        return ORRI_HASH_HOST;
    if (memcmp(&here, &there, sizeof here) != 0) {
        fprintf(
            stderr,
            "orrery: the device's hash of its memory is wrong: hashing on the host\n");
        return ORRI_HASH_HOST;
    }
    uint64_t start = now_us();
    rc = on_device(h, &piece, 1, &there);
    uint64_t device_us = now_us() - start;
    start = now_us();
    on_host(h, &piece, 1, &here);
    return !rc && device_us <= now_us() - start ? ORRI_HASH_DEVICE : ORRI_HASH_HOST;
}

static CUresult settle(struct orri_hasher *h, CUdeviceptr piece)
{
    const char *text = getenv("ORRERY_MEMORY_HASH");
    if (h->way == ORRI_HASH_UNKNOWN && text)
        h->way = strcmp(text, "host") == 0     ? ORRI_HASH_HOST
                 : strcmp(text, "device") == 0 ? ORRI_HASH_DEVICE
                                               : ORRI_HASH_UNKNOWN;
    CUresult rc = make_ready(h);
    if (rc && h->way == ORRI_HASH_DEVICE)
        return rc;
    if (rc) { /* no PTX here: the host's needs nothing of the device */
        h->way = ORRI_HASH_HOST;
        let_go(h);
    }
    if (h->way == ORRI_HASH_UNKNOWN) {
        h->way = choose(h, piece);
        if (h->way == ORRI_HASH_HOST)
            let_go(h);
    }
    h->is_ready = h->host != NULL;
    return h->is_ready ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult orri_hasher_run(struct orri_hasher *h,
                         const CUdeviceptr *pieces,
                         size_t n,
                         struct orri_hash *ret_hashes)
{
    CUresult rc = h->is_ready || n == 0 ? CUDA_SUCCESS : settle(h, pieces[0]);
    for (size_t i = 0; i < n && !rc; i += BATCH) {
        size_t some = n - i < BATCH ? n - i : BATCH;
        rc = h->way == ORRI_HASH_DEVICE ? on_device(h, pieces + i, some, ret_hashes + i)
                                        : on_host(h, pieces + i, some, ret_hashes + i);
    }
    return rc;
}
