/* SPDX-License-Identifier: Apache-2.0
 * rebuild.h - between rebuild.c, which takes the real communicators away, and remake.c, which makes them anew.
 */
#ifndef ORRI_NCCL_REBUILD_H
#define ORRI_NCCL_REBUILD_H

#include "../core/part.h"
#include "work.h"

/* Fills err and returns code. */
enum orr_err
orri_set_error(struct orr_error *err, enum orr_err code, const char *format, ...)
    ORR_PRINTF(3, 4);
/* Waits until nothing is under way in it.  Errors: what is wrong with it; ncclInProgress at the deadline or when cancelled. */
ncclResult_t orri_await_ready(ncclComm_t real,
                              uint64_t deadline_ms,
                              const atomic_bool *is_cancelled);

/* The part's (core/part.h). */
uint32_t orri_make_ids(struct orri_comm_id *ids, uint32_t cap);
uint32_t orri_add_ids(const struct orri_comm_id *known,
                      uint32_t n,
                      struct orri_comm_id *ids,
                      uint32_t cap);
bool orri_has_all_ids(const struct orri_comm_id *ids, uint32_t n);
enum orr_err orri_resume(const struct orri_arena *piece,
                         const char *device,
                         uint64_t deadline_ms,
                         struct orr_error *err);

#endif
