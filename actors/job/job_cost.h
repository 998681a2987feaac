/* SPDX-License-Identifier: Apache-2.0
 * job_cost.h - what another number of devices would cost the job, by what its last stops took (job_cost.c).
 */
#ifndef ORR_JOB_COST_H
#define ORR_JOB_COST_H

#include "job_state.h"

/* The ranks run again.  A stop that was not a whole one (an earlier life of the actor began it, or it failed) counts nothing. */
void job_cost_note(struct job *self);

struct orr_rec_resize_cost job_cost_tell(struct job *self);

#endif
