/* SPDX-License-Identifier: Apache-2.0
 * job_stop_bed.h - a job actor of four ranks on two nodes, in a time of its own, for the tests of its stops.
 */
#ifndef ORR_TEST_JOB_STOP_BED_H
#define ORR_TEST_JOB_STOP_BED_H

#include "job_stop_peers.h"

extern uint64_t hang_ms; /* of the job that setup makes, */
extern uint32_t shards;  /* and of its spec */

int setup(void **state);
int teardown(void **state);
void start(const struct orr_msg_job_start *how);
void start_running(void);
void run_for(uint64_t ms);
/* From the first node. */
void post(const struct orr_msg_desc *desc, const void *msg);
void order(uint64_t number, enum orr_order what);
bool was_in(uint32_t phase);
/* Have both nodes been asked for it? */
uint32_t steps(enum orr_cut_step step);

#define STOP(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
