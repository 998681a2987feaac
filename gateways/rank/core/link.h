/* SPDX-License-Identifier: Apache-2.0
 * link.h - the link's thread and what it calls: see link.c for its life, stop.c for stops.
 */
#ifndef ORR_RANK_LINK_H
#define ORR_RANK_LINK_H

#include "core.h"
#include "packet.h"

/* All for the link's thread alone. */

/* Send, waiting for room until deadline_ms; false: the connection is lost, and closed. */
bool orri_link_send(const struct orr_msg_desc *desc,
                    const void *msg,
                    int fd,
                    uint64_t deadline_ms);
/* The next packet; false: none by deadline_ms, or the connection is lost (then orri_link_is_up is false). */
bool orri_link_receive(struct orri_packet *ret_packet, uint64_t deadline_ms);
bool orri_link_is_up(void);
void orri_link_close(void);

/* stop.c */
struct orri_stop_view {
    bool is_stopped;
    uint64_t cut;
    uint64_t arena_bytes; /* that it needs back; 0: none, or it has it */
};
struct orri_stop_view orri_stop_look(void);
void orri_stop_renumber(void);
void orri_stop_on_quiesce(const struct orr_msg_rank_quiesce *msg);
void orri_stop_on_resume(const struct orr_msg_rank_resume *msg, int *take_fd);

/* post.c.  Sends what is due; returns when to look again. */
uint64_t orri_posts_say(uint64_t now_ms);
void orri_posts_take(const struct orr_msg_rank_posts *msg);

#endif
