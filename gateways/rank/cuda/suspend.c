/* SPDX-License-Identifier: Apache-2.0
 * suspend.c - see suspend.h.
 */
#include "suspend.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "arena.h"
#include "context.h"
#include "digest.h"
#include "drain.h"
#include "gate.h"
#include "pool.h"
#include "reason.h"
#include "segment.h"

enum { PAGE_BYTES = 4096 };

static bool failed(struct orri_cuda_why *why, CUresult code, const char *what)
{
    const char *name = "?";
    REAL(cuGetErrorName)(code, &name);
    why->code = code;
    snprintf(why->text, sizeof why->text, "%s: %s", what, name);
    return false;
}

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* ---- what there is ---------------------------------------------------------------------- */

/* How far into the memory anything is stored that somebody could want. */
static uint64_t used_bytes(const struct orri_memory *m)
{
    const struct orri_segment *s = m->segment;
    if (!s || s->is_shared)
        return m->bytes;
    const struct orri_span *b = orri_table_find(&orri_blocks, s->at);
    return b ? b->bytes : m->bytes;
}

/* Where each piece of memory goes. Its order is that of creation, so that ranks which do the same
 * have arenas that are alike. */
static uint64_t lay_out(void)
{
    uint64_t at = 0;
    for (struct orri_memory *m = orri_memories; m; m = m->next) {
        m->arena_at = at;
        at += (used_bytes(m) + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    }
    return at;
}

uint64_t orri_cuda_arena_bytes(void)
{
    pthread_mutex_lock(&orri_cuda_lock);
    uint64_t bytes = lay_out();
    pthread_mutex_unlock(&orri_cuda_lock);
    return bytes;
}

/* ---- reaching the content ---------------------------------------------------------------- */

/* A whole mapping through which the memory's own device may write, or one made for the purpose. */
static CUresult reach(struct orri_memory *m, CUdeviceptr *ret)
{
    const uint64_t bit = (uint64_t)1 << m->prop.location.id;
    CUmemAccessDesc access = {m->prop.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    for (size_t i = 0; i < orri_mappings.n; i++) {
        const struct orri_mapping *map =
            (const struct orri_mapping *)orri_mappings.items[i];
        if (map->memory == m && map->offset == 0 && map->span.bytes == m->bytes &&
            map->writers & bit) {
            *ret = map->span.at;
            return CUDA_SUCCESS;
        }
    }
    CUdeviceptr at = 0;
    CUresult rc = REAL(cuMemAddressReserve)(&at, m->bytes, 0, 0, 0);
    if (rc)
        return rc;
    rc = REAL(cuMemMap)(at, m->bytes, 0, m->real, 0);
    if (!rc && (rc = REAL(cuMemSetAccess)(at, m->bytes, &access, 1)))
        REAL(cuMemUnmap)(at, m->bytes);
    if (rc)
        REAL(cuMemAddressFree)(at, m->bytes);
    else
        *ret = m->scratch_at = at;
    return rc;
}

static void let_go_scratch(void)
{
    for (struct orri_memory *m = orri_memories; m; m = m->next)
        if (m->scratch_at) {
            REAL(cuMemUnmap)(m->scratch_at, m->bytes);
            REAL(cuMemAddressFree)(m->scratch_at, m->bytes);
            m->scratch_at = 0;
        }
}

/* The used parts of a shared segment, so that what was freed is not stored. */
static bool
add_shared(struct orri_copies *c, const struct orri_segment *s, struct orri_copy whole)
{
    const unsigned n = (unsigned)(s->bytes / ORRI_UNIT_BYTES);
    unsigned first = 0;
    bool ok = true;
    for (unsigned i = 0; i <= n && ok; i++) {
        if (i < n && s->used[i / 64] >> i % 64 & 1)
            continue;
        struct orri_copy run = {whole.device + (uint64_t)first * ORRI_UNIT_BYTES,
                                whole.host + (uint64_t)first * ORRI_UNIT_BYTES,
                                (uint64_t)(i - first) * ORRI_UNIT_BYTES,
                                whole.ctx};
        ok = orri_copies_add(c, run);
        first = i + 1;
    }
    return ok;
}

static CUcontext context_on(CUdevice device)
{
    struct orri_context all[ORRI_CONTEXTS_MAX];
    size_t n = orri_contexts_get(all);
    for (size_t i = 0; i < n; i++)
        if (all[i].device == device)
            return all[i].ctx;
    return NULL;
}

/* Memory that no context can touch has no content that could have been written. */
static CUresult list_copies(uint8_t *arena, struct orri_copies *c, uint64_t *ret_bytes)
{
    for (struct orri_memory *m = orri_memories; m; m = m->next) {
        struct orri_copy copy = {.host = arena + m->arena_at, .bytes = used_bytes(m)};
        copy.ctx = context_on(m->prop.location.id);
        if (!copy.ctx)
            continue;
        CUresult rc = reach(m, &copy.device);
        if (rc)
            return rc;
        bool ok = m->segment && m->segment->is_shared ? add_shared(c, m->segment, copy)
                                                      : orri_copies_add(c, copy);
        if (!ok)
            return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *ret_bytes = 0;
    for (size_t i = 0; i < c->n; i++)
        *ret_bytes += c->items[i].bytes;
    return CUDA_SUCCESS;
}

static CUresult copy_all(uint8_t *arena,
                         bool is_out,
                         uint64_t deadline_ms,
                         struct orri_cuda_account *account)
{
    struct orri_copies copies = {0};
    uint64_t start = now_us();
    CUresult rc = list_copies(arena, &copies, &account->bytes);
    if (!rc)
        rc = orri_copies_run(&copies, is_out, deadline_ms);
    let_go_scratch();
    orri_copies_fini(&copies);
    account->copy_us = now_us() - start;
    return rc;
}

/* ---- letting go, taking -------------------------------------------------------------------- */

static CUresult let_go(void)
{
    CUresult rc = CUDA_SUCCESS;
    for (size_t i = 0; i < orri_mappings.n && !rc; i++) {
        struct orri_mapping *map = (struct orri_mapping *)orri_mappings.items[i];
        if (!map->is_away)
            rc = orri_mapping_unmap(map);
    }
    for (struct orri_memory *m = orri_memories; m && !rc; m = m->next)
        if (m->is_resident)
            rc = orri_memory_release(m);
    return rc;
}

static CUresult take(void)
{
    CUresult rc = CUDA_SUCCESS;
    for (struct orri_memory *m = orri_memories; m && !rc; m = m->next)
        if (!m->is_resident)
            rc = orri_memory_create(m);
    for (size_t i = 0; i < orri_mappings.n && !rc; i++) {
        struct orri_mapping *map = (struct orri_mapping *)orri_mappings.items[i];
        if (map->is_away)
            rc = orri_mapping_map(map);
        if (!rc)
            rc = orri_mapping_set_access(map);
    }
    return rc;
}

/* ---- out and in ------------------------------------------------------------------------------ */

static bool drain(uint64_t deadline_ms, struct orri_cuda_why *why)
{
    CUresult rc = orri_drain(deadline_ms);
    if (rc == CUDA_ERROR_TIMEOUT)
        return failed(why, rc, "work that was given to the device has not ended");
    return rc ? failed(why, rc, "a context has failed, its memory cannot be read")
              : true;
}

/* With orri_cuda_lock. */
static bool out(uint8_t *arena,
                uint64_t bytes,
                uint64_t deadline_ms,
                struct orri_cuda_account *account,
                struct orri_cuda_why *why)
{
    if (lay_out() > bytes)
        return failed(why, CUDA_ERROR_INVALID_VALUE, "the arena is too small");
    orri_digest_out();
    CUresult rc = copy_all(arena, true, deadline_ms, account);
    if (rc)
        return failed(why, rc, "cannot copy device memory to the host");
    uint64_t start = now_us();
    rc = let_go();
    account->release_us = now_us() - start;
    if (!rc)
        return true;
    struct orri_cuda_account ignored;
    CUresult back = take();
    if (!back)
        back = copy_all(arena, false, UINT64_MAX, &ignored);
    failed(why, rc, "cannot release device memory");
    if (back)
        orri_cuda_note("has lost device memory: the driver neither took nor gave it");
    return false;
}

bool orri_cuda_out(uint8_t *arena,
                   uint64_t bytes,
                   uint64_t deadline_ms,
                   struct orri_cuda_account *ret,
                   struct orri_cuda_why *why)
{
    const char *reason = orri_cuda_reason();
    memset(ret, 0, sizeof *ret);
    if (reason) {
        why->code = CUDA_ERROR_NOT_SUPPORTED;
        snprintf(why->text, sizeof why->text, "not suspendable: %s", reason);
        return false;
    }
    uint64_t start = now_us();
    if (!drain(deadline_ms, why))
        return false;
    ret->drain_us = now_us() - start;
    pthread_mutex_lock(&orri_cuda_lock);
    bool ok = out(arena, bytes, deadline_ms, ret, why);
    pthread_mutex_unlock(&orri_cuda_lock);
    return ok;
}

bool orri_cuda_in(uint8_t *arena,
                  uint64_t bytes,
                  uint64_t deadline_ms,
                  struct orri_cuda_account *ret,
                  struct orri_cuda_why *why)
{
    memset(ret, 0, sizeof *ret);
    pthread_mutex_lock(&orri_cuda_lock);
    uint64_t start = now_us();
    bool ok = lay_out() <= bytes ||
              failed(why, CUDA_ERROR_INVALID_VALUE, "not the arena of this stop");
    CUresult rc = ok ? take() : CUDA_SUCCESS;
    ret->take_us = now_us() - start;
    if (rc)
        ok = failed(why, rc, "cannot take device memory again");
    else if (ok && (rc = copy_all(arena, false, deadline_ms, ret)))
        ok = failed(why, rc, "cannot copy to device memory");
    else if (ok)
        orri_digest_in();
    if (rc)
        let_go();
    pthread_mutex_unlock(&orri_cuda_lock);
    return ok;
}
