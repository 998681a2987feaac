/* SPDX-License-Identifier: Apache-2.0
 * store_fence.h - whose list of roots a store is collected with.
 */
#ifndef ORR_STORE_FENCE_H
#define ORR_STORE_FENCE_H

#include "store_impl.h"

/* Take this list: *ret_lock is to be closed when it was carried out.  is_done: it has been already.
 * Errors: as orr_store_collect. */
ORR_NODISCARD enum orr_err orri_fence_take(struct orr_store *s,
                                           const struct orr_store_fence *fence,
                                           int *ret_lock,
                                           bool *ret_is_done,
                                           struct orr_error *err);

#endif
