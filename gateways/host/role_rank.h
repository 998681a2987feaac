/* SPDX-License-Identifier: Apache-2.0
 * role_rank.h - the edge to the libraries in a node's ranks, and where their sockets are.
 */
#ifndef ORR_ROLE_RANK_H
#define ORR_ROLE_RANK_H

#include "roles.h"

/* $ORRERY_RUN, or /run/orrery/rank for root, or $XDG_RUNTIME_DIR/orrery/rank, or <state>/run: the same on all nodes between
 * which ranks are to move.  For node_args and the edge alike. */
void role_rank_run(const struct host *host, char *buf, size_t cap);
/* Where liborrery-rank.so is; empty: it is not installed. */
void role_rank_lib(char *buf, size_t cap);

/* Open the edge and spawn its actor at /edge/rank, for the node actor at `node`.  Where the directory cannot be had, it says so
 * on stderr and host->rank_edge stays NULL: there is no /edge/rank. */
ORR_NODISCARD enum orr_err
role_rank_start(struct host *host, struct orr_addr node, struct orr_error *err);
void role_rank_close(struct host *host);

#endif
