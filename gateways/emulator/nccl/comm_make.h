/* SPDX-License-Identifier: Apache-2.0
 * comm_make.h - how the ranks of a communicator agree on its splits.
 */
#ifndef ORRI_COMM_MAKE_H
#define ORRI_COMM_MAKE_H

#include "comm.h"

/* All ranks of the parent exchange color and key; those of a color find their new rank,
 * in the order of (key, old rank), and the id that the first of them makes. Sets the
 * child's nranks and rank. Breaks the child on failure. */
ncclResult_t orri_split_agree(struct ncclComm *parent,
                              int color,
                              int key,
                              struct ncclComm *child,
                              ncclUniqueId *ret_id);

#endif
