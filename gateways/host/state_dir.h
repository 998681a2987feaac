/* SPDX-License-Identifier: Apache-2.0
 * state_dir.h - the state directory of a host: made, locked against a second host, and
 * counting its starts.
 */
#ifndef ORR_STATE_DIR_H
#define ORR_STATE_DIR_H

#include "orrery/base.h"

/* Make `path` (its parent must exist) and take its lock for the life of this process;
 * the kernel lets it go when the process ends, however it ends.  *ret_lock is closed by
 * the caller. Errors: ORR_EIO, ORR_EEXIST another host holds it; err names its pid. */
ORR_NODISCARD enum orr_err
state_dir_open(const char *path, int *ret_lock, struct orr_error *err);

/* The number of this start: one more than at the start before, on disk before it is
 * returned. Errors: ORR_EIO, also when the counter is damaged: a guess could be lower
 * than what peers have seen. */
ORR_NODISCARD enum orr_err state_dir_next_incarnation(const char *path,
                                                      uint32_t *ret_incarnation,
                                                      struct orr_error *err);

#endif
