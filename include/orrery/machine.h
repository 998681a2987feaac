/* SPDX-License-Identifier: Apache-2.0
 * machine.h - which machine an endpoint is on.
 */
#ifndef ORR_MACHINE_H
#define ORR_MACHINE_H

#include <string.h>

#include "orrery/base.h"

enum { ORR_MACHINE_MAX = 48 };

/* The IPv4 address of an endpoint, "tcp://192.0.2.7:4100"; empty: none, or of this machine alone. */
static inline void orr_machine_of(struct orr_str endpoint, char dst[ORR_MACHINE_MAX])
{
    static const char scheme[] = "tcp://";
    uint32_t at = sizeof(scheme) - 1, end = at;
    dst[0] = '\0';
    if (endpoint.len <= at || memcmp(endpoint.ptr, scheme, at) != 0)
        return;
    while (end < endpoint.len && endpoint.ptr[end] != ':')
        end++;
    bool is_loopback = end - at > 4 && memcmp(endpoint.ptr + at, "127.", 4) == 0;
    if (!is_loopback)
        orr_str_copy(
            dst, ORR_MACHINE_MAX, (struct orr_str){endpoint.ptr + at, end - at});
}

#endif
