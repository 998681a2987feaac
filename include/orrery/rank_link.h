/* SPDX-License-Identifier: Apache-2.0
 * rank_link.h - where a rank's library finds its node: the same for the life of the job, on whatever node the rank is.
 */
#ifndef ORR_RANK_LINK_H_
#define ORR_RANK_LINK_H_

#include "orrery/base.h"

/* <run>/<16 hex>.sock, for ORRERY_RANK_LINK; link: of the job (rank_expect).  Cut when cap is too small; a UNIX socket's path has
 * 107 bytes at most, so `run` has at most 85. */
static inline void
orr_rank_link_path(const char *run, uint64_t link, uint32_t rank, char *buf, size_t cap)
{
    char text[48];
    int n = snprintf(text, sizeof text, "%llu/%u", (unsigned long long)link, rank);
    uint64_t hash = orr_hash((struct orr_str){text, (uint32_t)n});
    snprintf(buf, cap, "%.85s/%016llx.sock", run, (unsigned long long)hash);
}

#endif
