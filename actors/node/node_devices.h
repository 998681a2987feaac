/* SPDX-License-Identifier: Apache-2.0
 * node_devices.h - which devices a rank's processes see (node_devices.c).
 */
#ifndef ORR_NODE_DEVICES_H
#define ORR_NODE_DEVICES_H

#include "node_calls.h"

struct node_pairs {
    char from[NODE_UUIDS_BYTES],
        to[NODE_UUIDS_BYTES]; /* with commas; empty: none has moved */
};
const char *node_device_uuid(const struct node *self, uint32_t index);
/* To another device, in a resume that is not over. */
bool node_row_has_moved(const struct node_row *row);
/* Those that its ranks have, as a mask; in a resume those that they had. */
uint64_t node_group_devices(const struct node *self, const struct node_group *group);
/* As it sees them from its start.  Returns how many. */
uint32_t node_row_order(const struct node *self,
                        const struct node_group *group,
                        const struct node_row *row,
                        uint32_t ret_devices[NODE_DEVICES_MAX]);
/* What the driver is to put in the place of each. */
void node_row_pairs(const struct node *self,
                    const struct node_group *group,
                    const struct node_row *row,
                    struct node_pairs *ret);
/* As an image keeps it: the uuids of all that it sees, its own first, with commas. */
void node_row_list(const struct node *self,
                   const struct node_group *group,
                   const struct node_row *row,
                   char *dst,
                   size_t cap);
/* A restored one, which still sees the devices of where it was. */
void node_row_saw(struct node *self, struct node_row *row, struct orr_str devices);
/* At the begin of a cut, while all that an earlier life has started are here: what it has not said of them. */
void node_group_know_devices(struct node *self, struct node_group *group);
/* All of its ranks are where they were to go. */
void node_group_moved(struct node *self, struct node_group *group);
/* False: too little memory; text says where. */
bool node_group_fits(const struct node *self,
                     const struct node_group *group,
                     struct orr_list_rank_place places,
                     char *text,
                     size_t cap);

#endif
