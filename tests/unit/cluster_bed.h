/* SPDX-License-Identifier: Apache-2.0
 * cluster_bed.h - a cluster between a region, nodes and job actors that are the test's.
 */
#ifndef ORR_TEST_CLUSTER_BED_H
#define ORR_TEST_CLUSTER_BED_H

#include "orrery/actor.h"

enum { DEVICES = 4, PLACES_MAX = 8 }; /* of each of two nodes; ranks of a job */

/* The last answer, or placement. */
struct cluster_got {
    uint16_t msg;
    uint32_t code;
    uint32_t n;
    uint32_t device[PLACES_MAX];
    char node[PLACES_MAX][ORR_NAME_MAX];
    uint32_t n_slots;
    uint32_t slot[PLACES_MAX];
    char slot_node[PLACES_MAX][ORR_NAME_MAX];
    char machine[ORR_MACHINE_MAX]; /* of a job's first node */
    uint32_t n_others;             /* nodes of slots that were not asked for */
};
extern struct cluster_got got;
extern uint32_t n1_state, n1_free; /* as the region hears it */

int setup(void **state);
int teardown(void **state);
void run_for(uint64_t ms);
/* To whoever is at that path, who asks it of the cluster. */
void post(const char *path, const struct orr_msg_desc *desc, const void *msg);
#define POST(path, name, ...)                                                          \
    post(path, orr_msg_desc_##name(), &(struct orr_msg_##name){__VA_ARGS__})
/* gpus of `world` ranks, on that node; "": anywhere. */
void assign(
    const char *job, uint32_t world, uint32_t gpus, const char *node, bool is_parked);
/* To go on, from these devices of n1. */
void want(const char *path, const char *job, uint32_t world, const uint32_t *device);

#endif
