/* SPDX-License-Identifier: Apache-2.0
 * ptx_memory.c - loads, stores and atomic operations of a warp.
 *
 * Every address is checked before it is touched: alignment, then that it lies in memory
 * that the launch may touch. Lanes whose addresses lie near each other are checked as one
 * piece; lanes side by side are one copy. Built once for each kind of processor.
 */
#include <string.h>

#include "ptx_exec.h"
#include "ptx_math.h"

/* Lanes within NEAR of the first are looked at as one piece of memory. */
enum { NEAR = 8192 };

struct access {
    struct ptx_block *block;
    const struct ptx_ins *in;
    uint8_t *frame;
    uint32_t mask;
    unsigned element; /* bytes */
    unsigned bytes;   /* of all elements of a lane */
    uint64_t address[PTX_LANES];
    uint32_t
        near[PTX_LANES];    /* address - first + NEAR; of lanes not in the mask: NEAR */
    uint8_t *at[PTX_LANES]; /* where it is, once resolved */
};

static bool in_map(const struct emu_range_map *map, uint64_t address, uint64_t bytes)
{
    uint64_t from = address - map->base;
    if (from >= map->bytes || bytes > map->bytes - from)
        return false;
    uint8_t all = 1;
    uint64_t last = (from + bytes - 1) >> EMU_GRANULE_SHIFT;
    for (uint64_t g = from >> EMU_GRANULE_SHIFT; g <= last; g++)
        all &= map->valid[g];
    return all;
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

/* The base to which near[] is relative, when all lanes are close together, aligned, and
 * may touch all from the lowest to the highest; NULL to look at each. */
static uint8_t *near_base(struct access *x)
{
    unsigned lane = (unsigned)__builtin_ctz(x->mask);
    uint64_t first = x->address[lane], far = 0;
    uint32_t low = UINT32_MAX, high = 0, odd = 0, in_mask[PTX_LANES];
    EACH_LANE
    {
        in_mask[l] = 0 - (x->mask >> l & 1);
    }
    EACH_LANE
    {
        uint64_t d = x->address[l] - first + NEAR;
        d = in_mask[l] ? d : NEAR;
        far |= d;
        x->near[l] = (uint32_t)d;
    }
    if (far >> 15 || x->in->mode2 == PTX_LOCAL)
        return NULL;
    EACH_LANE
    {
        uint32_t d = x->near[l];
        low = d < low ? d : low;
        high = d > high ? d : high;
        odd |= d;
    }
    /* NEAR and the alignment are powers of two: first decides with the differences */
    if ((odd | (uint32_t)first) & (x->bytes - 1))
        return NULL;
    uint8_t *at = resolve(x, first + low - NEAR, high - low + x->bytes, lane);
    return at ? at - low : NULL;
}

/* The lanes side by side, and all of them. */
static bool is_in_a_row(const struct access *x)
{
    uint32_t apart = 0, first = x->near[0];
    EACH_LANE
    {
        apart |= x->near[l] ^ (first + (uint32_t)l * x->element);
    }
    return apart == 0 && x->mask == UINT32_MAX;
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

/* One element a lane, as wide as its slot, all near `base`. */
static void load_near(struct access *x, uint8_t *slot, const uint8_t *base)
{
    if (is_in_a_row(x)) {
        memcpy(slot, base + x->near[0], (size_t)x->element * PTX_LANES);
    } else if (x->element == 4 && x->mask == UINT32_MAX) {
        EACH_LANE
        {
            memcpy(slot + 4 * l, base + x->near[l], 4);
        }
    } else if (x->element == 4) {
        for (uint32_t m = x->mask; m; m &= m - 1) {
            int l = __builtin_ctz(m);
            memcpy(slot + 4 * l, base + x->near[l], 4);
        }
    } else {
        for (uint32_t m = x->mask; m; m &= m - 1) {
            int l = __builtin_ctz(m);
            memcpy(slot + (size_t)l * x->element, base + x->near[l], x->element);
        }
    }
}

static void store_near(struct access *x, const uint8_t *slot, uint8_t *base)
{
    if (is_in_a_row(x)) {
        memcpy(base + x->near[0], slot, (size_t)x->element * PTX_LANES);
        return;
    }
    for (uint32_t m = x->mask; m; m &= m - 1) {
        int l = __builtin_ctz(m);
        memcpy(base + x->near[l], slot + (size_t)l * x->element, x->element);
    }
}

static bool is_plain(const struct access *x)
{
    return x->in->n_vec == 1 && x->in->width_d == x->element;
}

static enum ptx_stop load(struct access *x)
{
    const struct ptx_ins *in = x->in;
    const uint8_t *base = is_plain(x) ? near_base(x) : NULL;
    if (base) {
        load_near(x, x->frame + in->vec[0], base);
        return PTX_STOP_DONE;
    }
    enum ptx_stop stop = resolve_all(x);
    if (stop != PTX_STOP_DONE)
        return stop;
    for (uint32_t m = x->mask; m; m &= m - 1) {
        int l = __builtin_ctz(m);
        for (unsigned i = 0; i < in->n_vec; i++)
            if (in->vec[i] != PTX_NO_SLOT)
                ptx_lane_set(x->frame,
                             in->vec[i],
                             in->width_d,
                             l,
                             load_element(x->at[l] + (size_t)i * x->element, in->type));
    }
    return PTX_STOP_DONE;
}

static enum ptx_stop store(struct access *x)
{
    const struct ptx_ins *in = x->in;
    uint8_t *base = is_plain(x) ? near_base(x) : NULL;
    if (base) {
        store_near(x, x->frame + in->vec[0], base);
        return PTX_STOP_DONE;
    }
    enum ptx_stop stop = resolve_all(x);
    if (stop != PTX_STOP_DONE)
        return stop;
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

enum ptx_stop PTX_VARIANT(ptx_memory)(struct ptx_block *block,
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
