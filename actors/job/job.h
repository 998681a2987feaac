/* SPDX-License-Identifier: Apache-2.0
 * job.h - the actor of one generation of one job: launch, watch, judge, stop, report.
 *
 * A cluster spawns it temporary at "/<region>/<cluster>/job/<job>/<generation>", sends
 * it job_start, and hears its end as `down`.  Its args are struct orr_job_args.
 */
#ifndef ORR_JOB_H
#define ORR_JOB_H

#include "orrery/job_args.h"

extern const struct orr_actor_type orr_job_type;

#endif
