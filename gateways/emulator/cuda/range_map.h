/* SPDX-License-Identifier: Apache-2.0
 * range_map.h - which addresses of the reserved range a kernel may touch. Read by the
 * interpreter for every access, so it is a plain table.
 */
#ifndef EMU_RANGE_MAP_H
#define EMU_RANGE_MAP_H

#include <stdint.h>

#define EMU_VA_BYTES ((uint64_t)256 << 30)
enum { EMU_GRANULE_SHIFT = 8 };

struct emu_range_map {
    uint64_t base;
    uint64_t bytes;
    uint8_t *valid; /* by (address - base) >> EMU_GRANULE_SHIFT */
};
extern struct emu_range_map emu_map;

#endif
