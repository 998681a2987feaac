/* SPDX-License-Identifier: Apache-2.0
 * suite_run.h - between the process that runs the suite and the ranks that it starts.
 */
#ifndef SUITE_RUN_H
#define SUITE_RUN_H

#include "suite.h"

/* Returns the descriptor that ranks inherit; -1: errno. */
int board_new(int world, struct board **ret_board);
void board_free(struct board *b, int fd);
bool board_may_die(const struct board *b, int rank);
int suite_rank_main(const struct conf_case *c, int rank, int world, int board_fd);

#endif
