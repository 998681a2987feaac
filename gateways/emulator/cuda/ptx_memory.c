/* SPDX-License-Identifier: Apache-2.0
 * ptx_memory.c - loads, stores and atomic operations of a warp.
 *
 * Every address is checked before it is touched: alignment, then that it lies in memory
 * that the launch may touch. Warps that read or write side by side, or all the same
 * address, are served by one copy.
 */
#include <string.h>

#include "ptx_exec.h"
#include "ptx_math.h"

struct access {
    struct ptx_block *block;
    const struct ptx_ins *in;
    uint8_t *frame;
    uint32_t mask;
    unsigned element; /* bytes */
    unsigned bytes;   /* of all elements of a lane */
    uint64_t address[PTX_LANES];
    uint8_t *at[PTX_LANES]; /* where it is, once resolved */
};

static bool in_map(const struct emu_range_map *map, uint64_t address, uint64_t bytes)
{
    uint64_t from = address - map->base;
    if (from >= map->bytes || bytes > map->bytes - from)
        return false;
    for (uint64_t g = from >> EMU_GRANULE_SHIFT;
         g <= (from + bytes - 1) >> EMU_GRANULE_SHIFT;
         g++)
        if (!map->valid[g])
            return false;
    return true;
}

static uint8_t *within(uint8_t *base, uint64_t size, uint64_t offset, uint64_t bytes)
{
    return offset <= size && bytes <= size - offset ? base + offset : NULL;
}

/* Where `bytes` at an address of a space are, for a lane; NULL if it may not touch
 * them. */
static uint8_t *
resolve(const struct access *x, uint64_t address, uint64_t bytes, unsigned lane)
{
    const struct ptx_block *b = x->block;
    uint8_t *local = b->local + (size_t)lane * b->local_bytes;
    uint8_t *found;
    switch ((enum ptx_space)x->in->mode2) {
    case PTX_SHARED:
        return within(b->shared, b->shared_bytes, address, bytes);
    case PTX_LOCAL:
        return within(local, b->local_bytes, address, bytes);
    case PTX_PARAM:
        return within((uint8_t *)(uintptr_t)b->launch->params,
                      x->block->launch->fn->param_bytes,
                      address,
                      bytes);
    case PTX_GLOBAL:
    case PTX_GENERIC:
        break;
    }
    if (in_map(b->launch->map, address, bytes))
        return (uint8_t *)address;
    found = within(b->shared, b->shared_bytes, address - (uint64_t)b->shared, bytes);
    if (!found)
        found = within(local, b->local_bytes, address - (uint64_t)local, bytes);
    if (!found && b->launch->may_touch && b->launch->may_touch(address, bytes))
        found = (uint8_t *)address;
    return found;
}

static void get_addresses(struct access *x)
{
    uint64_t offset = (uint64_t)x->in->offset;
    if (x->in->width_a == 8) {
        const uint64_t *a = (const uint64_t *)(const void *)(x->frame + x->in->a);
        for (int l = 0; l < PTX_LANES; l++)
            x->address[l] = a[l] + offset;
    } else {
        const uint32_t *a = (const uint32_t *)(const void *)(x->frame + x->in->a);
        for (int l = 0; l < PTX_LANES; l++)
            x->address[l] = a[l] + offset;
    }
}

static enum ptx_stop fault(struct access *x, uint64_t address, enum ptx_stop stop)
{
    x->block->fault_address = address;
    x->block->fault_line = x->in->line;
    return stop;
}

static enum ptx_stop resolve_all(struct access *x)
{
    for (uint32_t m = x->mask; m; m &= m - 1) {
        unsigned l = (unsigned)__builtin_ctz(m);
        if (x->address[l] & (x->bytes - 1))
            return fault(x, x->address[l], PTX_STOP_MISALIGNED);
        x->at[l] = resolve(x, x->address[l], x->bytes, l);
        if (!x->at[l])
            return fault(x, x->address[l], PTX_STOP_ILLEGAL);
    }
    return PTX_STOP_DONE;
}

/* All lanes at work, side by side in memory, and the slot as wide as the elements. */
static uint8_t *whole_warp(const struct access *x)
{
    uint64_t apart = 0, first = x->address[0];
    if (x->mask != UINT32_MAX || x->in->n_vec != 1 || x->in->width_d != x->element ||
        x->in->mode2 == PTX_LOCAL)
        return NULL;
    for (unsigned l = 0; l < PTX_LANES; l++)
        apart |= x->address[l] ^ (first + l * x->element);
    return apart || (first & (x->element - 1))
               ? NULL
               : resolve(x, first, (uint64_t)x->element * PTX_LANES, 0);
}

/* All lanes at one address; the slot as wide as the element. */
static uint8_t *one_address(const struct access *x)
{
    uint64_t apart = 0, first = x->address[0];
    if (x->mask != UINT32_MAX || x->in->n_vec != 1 || x->in->width_d != x->element ||
        x->in->mode2 == PTX_LOCAL)
        return NULL;
    for (unsigned l = 1; l < PTX_LANES; l++)
        apart |= x->address[l] ^ first;
    return apart || (first & (x->element - 1)) ? NULL
                                               : resolve(x, first, x->element, 0);
}

static uint64_t load_element(const uint8_t *at, enum ptx_type type)
{
    uint64_t v = 0;
    memcpy(&v, at, ptx_type_bytes(type));
    if (type == PTX_S8)
        return (uint64_t)(int8_t)v;
    if (type == PTX_S16)
        return (uint64_t)(int16_t)v;
    return type == PTX_S32 ? (uint64_t)(int32_t)v : v;
}

#define EACH_ACTIVE(T, statement)                                                      \
    for (uint32_t m = x->mask; m; m &= m - 1) {                                        \
        int l = __builtin_ctz(m);                                                      \
        T *slot = (T *)(void *)(x->frame + x->in->vec[0]);                             \
        statement;                                                                     \
    }

static enum ptx_stop load(struct access *x)
{
    const struct ptx_ins *in = x->in;
    uint8_t *slot0 = x->frame + in->vec[0], *from = whole_warp(x);
    if (from) {
        memcpy(slot0, from, (size_t)x->element * PTX_LANES);
        return PTX_STOP_DONE;
    }
    if ((from = one_address(x))) {
        for (int l = 0; l < PTX_LANES; l++)
            memcpy(slot0 + (size_t)l * x->element, from, x->element);
        return PTX_STOP_DONE;
    }
    enum ptx_stop stop = resolve_all(x);
    if (stop != PTX_STOP_DONE)
        return stop;
    if (in->n_vec == 1 && x->element == 4 && in->width_d == 4) {
        EACH_ACTIVE(uint32_t, memcpy(&slot[l], x->at[l], 4))
    } else if (in->n_vec == 1 && x->element == 8) {
        EACH_ACTIVE(uint64_t, memcpy(&slot[l], x->at[l], 8))
    } else {
        for (uint32_t m = x->mask; m; m &= m - 1) {
            int l = __builtin_ctz(m);
            for (unsigned i = 0; i < in->n_vec; i++)
                if (in->vec[i] != PTX_NO_SLOT)
                    ptx_lane_set(
                        x->frame,
                        in->vec[i],
                        in->width_d,
                        l,
                        load_element(x->at[l] + (size_t)i * x->element, in->type));
        }
    }
    return PTX_STOP_DONE;
}

static enum ptx_stop store(struct access *x)
{
    const struct ptx_ins *in = x->in;
    uint8_t *to = whole_warp(x);
    if (to) {
        memcpy(to, x->frame + in->vec[0], (size_t)x->element * PTX_LANES);
        return PTX_STOP_DONE;
    }
    enum ptx_stop stop = resolve_all(x);
    if (stop != PTX_STOP_DONE)
        return stop;
    if (in->n_vec == 1 && x->element == 4 && in->width_d == 4) {
        EACH_ACTIVE(uint32_t, memcpy(x->at[l], &slot[l], 4))
        return PTX_STOP_DONE;
    }
    for (uint32_t m = x->mask; m; m &= m - 1) {
        int l = __builtin_ctz(m);
        for (unsigned i = 0; i < in->n_vec; i++) {
            uint64_t v = ptx_lane_get(x->frame, in->vec[i], in->width_d, l);
            memcpy(x->at[l] + (size_t)i * x->element, &v, x->element);
        }
    }
    return PTX_STOP_DONE;
}

static uint64_t combine_float(enum ptx_type type, uint64_t old, uint64_t v)
{
    if (type == PTX_F64)
        return ptx_bits64(ptx_float64(old) + ptx_float64(v));
    return ptx_bits32(ptx_float32((uint32_t)old) + ptx_float32((uint32_t)v));
}

static bool is_less(enum ptx_type type, uint64_t a, uint64_t b)
{
    if (type == PTX_S32)
        return (int32_t)a < (int32_t)b;
    return type == PTX_S64 ? (int64_t)a < (int64_t)b : a < b;
}

static uint64_t combine(const struct ptx_ins *in, uint64_t old, uint64_t v, uint64_t v2)
{
    enum ptx_type type = in->type;
    switch ((enum ptx_atom)in->mode) {
    case PTX_ATOM_ADD:
        return type == PTX_F32 || type == PTX_F64 ? combine_float(type, old, v)
                                                  : old + v;
    case PTX_ATOM_MIN:
        return is_less(type, v, old) ? v : old;
    case PTX_ATOM_MAX:
        return is_less(type, old, v) ? v : old;
    case PTX_ATOM_EXCH:
        return v;
    case PTX_ATOM_CAS:
        return old == v ? v2 : old;
    case PTX_ATOM_AND:
        return old & v;
    case PTX_ATOM_OR:
        return old | v;
    case PTX_ATOM_XOR:
        return old ^ v;
    case PTX_ATOM_INC:
        return old >= v ? 0 : old + 1;
    case PTX_ATOM_DEC:
        break;
    }
    return old == 0 || old > v ? v : old - 1;
}

/* Lanes in order; atomic against other streams and other processes too. */
static enum ptx_stop atom(struct access *x)
{
    const struct ptx_ins *in = x->in;
    enum ptx_stop stop = resolve_all(x);
    if (stop != PTX_STOP_DONE)
        return stop;
    for (uint32_t m = x->mask; m; m &= m - 1) {
        int l = __builtin_ctz(m);
        uint64_t v = ptx_lane_get(x->frame, in->b, x->element, l);
        uint64_t v2 =
            in->mode == PTX_ATOM_CAS ? ptx_lane_get(x->frame, in->c, x->element, l) : 0;
        uint64_t old;
        if (x->element == 4) {
            uint32_t *p = (uint32_t *)(void *)x->at[l];
            uint32_t seen = __atomic_load_n(p, __ATOMIC_RELAXED);
            while (!__atomic_compare_exchange_n(p,
                                                &seen,
                                                (uint32_t)combine(in, seen, v, v2),
                                                false,
                                                __ATOMIC_ACQ_REL,
                                                __ATOMIC_RELAXED))
                ;
            old = seen;
        } else {
            uint64_t *p = (uint64_t *)(void *)x->at[l];
            old = __atomic_load_n(p, __ATOMIC_RELAXED);
            while (!__atomic_compare_exchange_n(p,
                                                &old,
                                                combine(in, old, v, v2),
                                                false,
                                                __ATOMIC_ACQ_REL,
                                                __ATOMIC_RELAXED))
                ;
        }
        if (in->d != PTX_NO_SLOT)
            ptx_lane_set(x->frame, in->d, x->element, l, old);
    }
    return PTX_STOP_DONE;
}

enum ptx_stop ptx_memory(struct ptx_block *block,
                         uint8_t *frame,
                         const struct ptx_ins *in,
                         uint32_t mask)
{
    struct access x;
    x.block = block;
    x.in = in;
    x.frame = frame;
    x.mask = mask;
    x.element = ptx_type_bytes(in->type);
    x.bytes = x.element * in->n_vec;
    if (mask == 0)
        return PTX_STOP_DONE;
    get_addresses(&x);
    if (in->op == PTX_ATOM)
        return atom(&x);
    return in->op == PTX_LD ? load(&x) : store(&x);
}
