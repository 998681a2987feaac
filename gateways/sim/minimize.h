/* SPDX-License-Identifier: Apache-2.0
 * minimize.h - which faults of a schedule a failure needs: delta debugging, by running again without some of them.
 */
#ifndef SIM_MINIMIZE_H
#define SIM_MINIMIZE_H

#include "fleet.h"

struct minimal {
    bool *is_kept; /* owned; per fault of the schedule */
    uint32_t n;
    uint32_t n_kept;
    uint32_t n_runs; /* that it took */
};

/* One run of a plan, with some of its faults (NULL: with all).  Errors: those of fleet_init. */
ORR_NODISCARD enum orr_err run_with(const struct fleet_plan *plan,
                                    const struct minimal *faults,
                                    struct fleet_result *ret_result,
                                    struct orr_error *err);

/* From what `start` keeps, which breaks `sentence`, to a part of it from which nothing can be left out, or to what
 * runs_max runs lead to.  Errors: those of run_with. */
ORR_NODISCARD enum orr_err minimize(const struct fleet_plan *plan,
                                    const char *sentence,
                                    uint32_t runs_max,
                                    struct minimal *start,
                                    struct orr_error *err);

#endif
