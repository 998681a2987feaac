/* SPDX-License-Identifier: Apache-2.0
 * watch.c - death watch, here and across hosts.
 *
 * A watch is on two lists: of who is watched and of who watches, so that it goes when either does.  Its `down` letter is
 * made with it: the news of a death cannot fail for want of memory.  The kernels of two hosts tell each other with
 * `monitor` and `down`; when their link breaks, each drops what it held for the other and tells its own watchers.
 */
#include "core.h"

struct orri_watch {
    struct orri_watch *next_of_who;
    struct orri_watch **from_who; /* what points at it on that list; NULL: not linked */
    struct orri_watch *next_of_watcher;
    struct orri_watch **from_watcher;
    struct orr_addr who; /* as the watcher said it */
    struct orr_addr watcher;
    struct orri_letter *down; /* owned */
};

/* tree held */
static void link_watch(struct orr_system *sys,
                       struct orri_watch *watch,
                       struct orri_watch **of_who,
                       struct orri_watch **of_watcher)
{
    watch->next_of_who = *of_who;
    watch->from_who = of_who;
    if (*of_who)
        (*of_who)->from_who = &watch->next_of_who;
    *of_who = watch;
    watch->next_of_watcher = *of_watcher;
    watch->from_watcher = of_watcher;
    if (*of_watcher)
        (*of_watcher)->from_watcher = &watch->next_of_watcher;
    *of_watcher = watch;
    sys->n_watches++;
}

/* tree held */
static void unlink_watch(struct orr_system *sys, struct orri_watch *watch)
{
    *watch->from_who = watch->next_of_who;
    if (watch->next_of_who)
        watch->next_of_who->from_who = watch->from_who;
    *watch->from_watcher = watch->next_of_watcher;
    if (watch->next_of_watcher)
        watch->next_of_watcher->from_watcher = watch->from_watcher;
    sys->n_watches--;
}

static void free_watch(struct orri_worker *w, struct orri_watch *watch)
{
    orri_letter_free(w, watch->down);
    free(watch);
}

static void fire(struct orri_worker *w, struct orri_watch *watch, enum orr_err why)
{
    struct orri_letter *letter = watch->down;
    struct orr_msg_down *msg = (void *)letter->body;
    msg->why = (uint32_t)why;
    letter->peer = watch->who;
    letter->flags = LETTER_KERNEL;
    letter->role = ORR_ROLE_LOCAL;
    struct orr_addr to = watch->watcher;
    free(watch);
    (void)orri_send(w, to, letter);
}

struct orri_watch *
orri_watch_new(struct orri_worker *w, struct orr_addr watcher, struct orr_addr who)
{
    struct orr_msg_down msg = {.who = who};
    struct orri_watch *watch = orri_zalloc(sizeof(*watch));
    if (watch)
        watch->down = orri_letter_make(w, orr_msg_desc_down(), &msg, NULL, false);
    if (!watch || !watch->down) {
        free(watch);
        return NULL;
    }
    watch->who = who;
    watch->watcher = watcher;
    return watch;
}

static struct orri_watch *
find(struct orri_watch *first, struct orr_addr watcher, struct orr_addr who)
{
    while (first &&
           (!orr_addr_eq(first->watcher, watcher) || !orr_addr_eq(first->who, who)))
        first = first->next_of_watcher;
    return first;
}

/* The actor of this host that an address names, if that life goes on.  tree held. */
static struct orri_actor *living(struct orr_system *sys, struct orr_addr who)
{
    uint64_t slot = who.slot;
    if (who.incarnation == 0)
        slot = orri_name_find(sys, who.slot);
    else if (who.incarnation != sys->config.incarnation)
        return NULL;
    struct orri_actor *actor = slot ? orri_actor_at(sys, (uint32_t)slot) : NULL;
    return actor && atomic_load(&actor->life) == (uint32_t)(slot >> 32) ? actor : NULL;
}

static void
tell_host(struct orri_worker *w, struct orr_addr watcher, struct orr_addr who, bool off)
{
    struct orr_msg_monitor msg = {.who = who, .off = off};
    struct orri_letter *letter =
        orri_letter_make(w, orr_msg_desc_monitor(), &msg, NULL, true);
    enum orr_err err = ORR_ENOMEM;
    if (letter) {
        letter->peer = watcher;
        err = orri_remote_send(w, who, letter);
    }
    if (err == ORR_OK || off)
        return;
    struct orr_msg_down down = {.who = who, .why = ORR_EUNREACH};
    orri_watch_remote_down(w, watcher, &down);
}

/* Add a watch, or answer it at once.  of_watcher: the watcher's list. */
static void
add(struct orri_worker *w, struct orri_watch *watch, struct orri_watch **of_watcher)
{
    struct orr_system *sys = w->sys;
    struct orr_addr who = watch->who;
    struct orr_addr watcher = watch->watcher;
    bool is_here = who.host == sys->host;
    enum orr_err err = ORR_OK;
    pthread_mutex_lock(&sys->tree);
    struct orri_actor *actor = is_here ? living(sys, who) : NULL;
    if (find(*of_watcher, watcher, who))
        err = ORR_EEXIST;
    else if (sys->n_watches >= sys->config.asks_max)
        err = ORR_ENOSPC;
    else if (is_here && !actor)
        err = ORR_EGONE;
    else
        link_watch(sys,
                   watch,
                   is_here ? &actor->watched_by : &sys->remote_watches,
                   of_watcher);
    pthread_mutex_unlock(&sys->tree);
    if (err == ORR_EEXIST)
        free_watch(w, watch);
    else if (err != ORR_OK)
        fire(w, watch, err);
    else if (!is_here)
        tell_host(w, watcher, who, false);
}

static void take_off(struct orri_worker *w,
                     struct orri_watch **list,
                     struct orr_addr watcher,
                     struct orr_addr who)
{
    pthread_mutex_lock(&w->sys->tree);
    struct orri_watch *watch = find(*list, watcher, who);
    if (watch)
        unlink_watch(w->sys, watch);
    pthread_mutex_unlock(&w->sys->tree);
    if (!watch)
        return;
    free_watch(w, watch);
    if (who.host != w->sys->host)
        tell_host(w, watcher, who, true);
}

void orri_watch_commit(struct orri_worker *w, struct orri_letter *effect)
{
    struct orri_actor *self = w->ctx.actor;
    struct orri_watch *watch;
    memcpy(&watch, effect->body, sizeof(struct orri_watch *));
    if (effect->kind == LETTER_UNWATCH)
        take_off(w, &self->watches, w->ctx.pub.self, effect->peer);
    else if (watch)
        add(w, watch, &self->watches);
}

void orri_watch_discard(struct orri_worker *w, struct orri_letter *effect)
{
    struct orri_watch *watch;
    memcpy(&watch, effect->body, sizeof(struct orri_watch *));
    if (watch)
        free_watch(w, watch);
}

void orri_watch_ended(struct orri_worker *w, struct orri_actor *actor, enum orr_err why)
{
    struct orr_system *sys = w->sys;
    for (;;) {
        pthread_mutex_lock(&sys->tree);
        struct orri_watch *by = actor->watched_by;
        struct orri_watch *own = by ? NULL : actor->watches;
        if (by || own)
            unlink_watch(sys, by ? by : own);
        pthread_mutex_unlock(&sys->tree);
        if (by) {
            fire(w, by, why);
        } else if (own) {
            struct orr_addr watcher = own->watcher;
            struct orr_addr who = own->who;
            free_watch(w, own);
            if (who.host != sys->host)
                tell_host(w, watcher, who, true);
        } else {
            return;
        }
    }
}

void orri_watch_remote(struct orri_worker *w,
                       struct orr_addr from,
                       const struct orr_msg_monitor *msg)
{
    struct orri_watch **list = &w->sys->remote_watchers;
    if (msg->off) {
        take_off(w, list, from, msg->who);
        return;
    }
    struct orri_watch *watch =
        msg->who.host == w->sys->host ? orri_watch_new(w, from, msg->who) : NULL;
    if (watch)
        add(w, watch, list);
}

void orri_watch_remote_down(struct orri_worker *w,
                            struct orr_addr to,
                            const struct orr_msg_down *msg)
{
    struct orr_system *sys = w->sys;
    pthread_mutex_lock(&sys->tree);
    struct orri_actor *actor = living(sys, to);
    struct orri_watch *watch = actor ? find(actor->watches, to, msg->who) : NULL;
    if (watch)
        unlink_watch(sys, watch);
    pthread_mutex_unlock(&sys->tree);
    if (watch)
        fire(w, watch, (enum orr_err)msg->why);
}

void orri_watch_peer_down(struct orri_worker *w, uint64_t host)
{
    struct orr_system *sys = w->sys;
    for (;;) {
        pthread_mutex_lock(&sys->tree);
        struct orri_watch *lost = sys->remote_watches;
        while (lost && lost->who.host != host)
            lost = lost->next_of_who;
        struct orri_watch *theirs = lost ? NULL : sys->remote_watchers;
        while (theirs && theirs->watcher.host != host)
            theirs = theirs->next_of_watcher;
        if (lost || theirs)
            unlink_watch(sys, lost ? lost : theirs);
        pthread_mutex_unlock(&sys->tree);
        if (lost)
            fire(w, lost, ORR_EUNREACH);
        else if (theirs)
            free_watch(w, theirs);
        else
            return;
    }
}

void orri_watch_free_all(struct orr_system *sys)
{
    struct orri_worker *w = &sys->workers[0];
    for (uint32_t i = 0; i < sys->n_slots && i < sys->config.actors_max; i++) {
        struct orri_actor *actor = orri_actor_at(sys, i);
        while (actor->watches) {
            struct orri_watch *watch = actor->watches;
            unlink_watch(sys, watch);
            free_watch(w, watch);
        }
    }
    while (sys->remote_watchers) {
        struct orri_watch *watch = sys->remote_watchers;
        unlink_watch(sys, watch);
        free_watch(w, watch);
    }
}
