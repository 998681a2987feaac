/* SPDX-License-Identifier: Apache-2.0
 * region_admit.h - may this job spec enter the queue?  Pure.
 */
#ifndef ORR_REGION_ADMIT_H
#define ORR_REGION_ADMIT_H

#include "orrery/ids.h"
#include "orrery/msg.h"

/* Ranges of job_spec.def and the rules between fields; the client has checked them too, but is not believed.
 * Errors: ORR_EINVAL; err names the field and the remedy. */
ORR_NODISCARD enum orr_err region_admit(const struct orr_msg_job_spec *spec,
                                        const char *region,
                                        uint32_t world_max,
                                        struct orr_error *err);

#endif
