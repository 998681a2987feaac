/* SPDX-License-Identifier: Apache-2.0
 * life.h - the beginning and the end of actors, their families and who watches them; included by core.h.
 */
#ifndef ORRI_LIFE_H
#define ORRI_LIFE_H

/* life.c */
/* Take a slot and a path; the actor waits for ORDER_START.  parent NULL: the root. */
enum orr_err orri_spawn(struct orri_worker *w,
                        struct orri_actor *parent,
                        const struct orr_spawn *spawn,
                        struct orri_actor **ret_actor);
/* Nothing of the system runs any more. */
void orri_root_ended(struct orr_system *sys);
/* An order needs no memory and is not lost; the actor's owner carries it out. */
void orri_order(struct orri_worker *w, struct orri_actor *actor, unsigned order);
void orri_orders_run(struct orri_worker *w, struct orri_actor *actor);
/* By the actor's owner: its children first, then itself. */
void orri_end(struct orri_worker *w, struct orri_actor *actor, enum orr_err why);
void orri_finalize(struct orri_worker *w, struct orri_actor *actor);
/* By the parent's owner: the slot, the path and the memory of a child that is down are free again. */
void orri_release(struct orri_worker *w, struct orri_actor *actor);
void orri_stop_child(struct orri_worker *w,
                     struct orri_actor *parent,
                     struct orr_addr who);

/* family.c, by the parent's owner; see: any thread. */
void orri_family_run(struct orri_worker *w, struct orri_actor *parent);
void orri_family_see(struct orri_worker *w, struct orri_actor *child);
void orri_family_stop(struct orri_worker *w, struct orri_actor *parent);

/* watch.c */
struct orri_watch *
orri_watch_new(struct orri_worker *w, struct orr_addr watcher, struct orr_addr who);
void orri_watch_commit(struct orri_worker *w, struct orri_letter *effect);
void orri_watch_discard(struct orri_worker *w, struct orri_letter *effect);
/* Tell the watchers; forget whom it watched. */
void orri_watch_ended(struct orri_worker *w,
                      struct orri_actor *actor,
                      enum orr_err why);
/* `monitor` and `down` from another host. */
void orri_watch_remote(struct orri_worker *w,
                       struct orr_addr from,
                       const struct orr_msg_monitor *msg);
void orri_watch_remote_down(struct orri_worker *w,
                            struct orr_addr to,
                            const struct orr_msg_down *msg);
void orri_watch_peer_down(struct orri_worker *w, uint64_t host);
void orri_watch_free_all(struct orr_system *sys);

#endif
