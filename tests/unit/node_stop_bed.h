/* SPDX-License-Identifier: Apache-2.0
 * node_stop_bed.h - a node actor with one rank among edges that note what they are asked, for test_node_stop.
 */
#ifndef NODE_STOP_BED_H
#define NODE_STOP_BED_H

#include "node/node.h"
#include "system.h"

#include "orr_test.h"

enum { GENERATION = 2, HOST_MEMORY = 1 << 20 };

extern struct orr_system *sys;
extern struct orr_addr node, edge_process, edge_device, edge_rank, job;
extern char did[2048]; /* what the edges were asked, in order */
extern uint16_t refuses;
extern uint64_t used_bytes;
extern uint32_t n_usage;
extern struct orr_msg_cut_report last;
extern char last_text[300], part_hash[80], part_arenas[80], env_link[160],
    restore_dir[300];
extern bool is_launched, is_store_slow, goes_on, has_two, has_none;
extern uint32_t n_peers;
extern uint64_t part_arena_bytes;
extern bool part_is_silent, expects_nobody;
extern uint32_t launched_level, row_level, killed, continued;
extern bool asks_ranks; /* ask() is for what lives here */
extern struct orr_msg_rank_note noted;
extern struct orr_msg_ranks found;
extern struct orr_rec_rank_row left_behind;    /* by an earlier life of the host */
extern struct orr_msg_rank_launch next_launch; /* its job empty: none */
extern struct orr_msg_cut_step next_step;

/* refuses: the message that its edge says no to; is_store_slow: a part is kept after a second; goes_on: a save keeps running; has_two: two of
 * the rank's processes use devices; has_none: none does. */
int setup(void **state);
int teardown(void **state);
void run_for(uint64_t ms);
extern bool stays_frozen, wants_image; /* the rank that was launched last */
extern bool dies;                      /* whoever is killed */
/* Rank 1 comes to the ranks that wait at that cut. */
void join(uint64_t cut);
/* Repeat next_step. */
void ask(void);
/* parts: of a restore, or NULL */
void launch(const struct orr_rec_part *parts);
void step(uint64_t cut, enum orr_cut_step what);
void start_running(void);
void cut_and_quiesce(void);

#endif
