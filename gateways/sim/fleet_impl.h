/* SPDX-License-Identifier: Apache-2.0
 * fleet_impl.h - what fleet.c (hosts and jobs) and fleet_faults.c (what goes wrong) share.
 */
#ifndef SIM_FLEET_IMPL_H
#define SIM_FLEET_IMPL_H

#include "fleet.h"

extern const struct orr_sim_faults fleet_calm_net;

/* Hand the faults to the simulator. */
void fleet_schedule(struct fleet *fleet);

#endif
