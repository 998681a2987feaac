/* SPDX-License-Identifier: Apache-2.0
 * core.h - a system, its workers, and the calls between the files of the kernel.  kernel.h says who guards what.
 */
#ifndef ORRI_CORE_H
#define ORRI_CORE_H

#include "kernel.h"

struct orri_ctx {
    struct orr_ctx pub; /* first: actors hold a pointer to it */
    struct orri_worker *worker;
    struct orri_actor *actor;
    struct orri_letter *current; /* being handled; NULL in init */
    struct orri_letter *out;     /* effects, in order */
    struct orri_letter *out_last;
    struct orri_letter *run; /* out_last belongs to this run; NULL: to none */
    struct orri_letter
        *hold;            /* what the handler sends waits for this ticket; or NULL */
    uint64_t release;     /* the ticket up to which it lets go, if it does */
    uint64_t deadline_ms; /* travels on in what is sent */
    enum orr_err trouble; /* an effect could not be recorded */
    bool is_relayed;      /* current went on to somebody else */
    bool is_ending;       /* stopped itself */
    bool is_releasing;
};

enum { ORRI_RING = 256 };

struct orri_worker {
    struct orr_system *sys;
    uint64_t now_ms;
    uint64_t wall_ms;
    uint64_t random;
    bool is_yielding; /* a receiver is nearly full: give others their turn */
    bool was_busy;    /* the last turn took a while: read the clock */
    bool is_outside;  /* stands for threads that are not ours; guarded by outside */
    unsigned index;
    unsigned turns;
    _Atomic uint64_t delivered; /* written by this worker only */
    _Atomic uint64_t refused;
    struct orri_cache cache;
    struct orri_ctx ctx;
    _Atomic uint32_t head; /* of the ring: taken by its owner and by thieves */
    _Atomic uint32_t tail; /* written by its owner */
    _Atomic(struct orri_actor *) ring[ORRI_RING];
    pthread_t thread;
};

struct orri_name {
    uint64_t hash; /* 0: empty */
    struct orri_actor *actor;
};

struct orri_sched {
    pthread_mutex_t lock;
    pthread_cond_t work; /* for parked workers */
    pthread_cond_t time; /* for the one parked worker that watches the clock */
    struct orri_actor *first;
    struct orri_actor *last;
    _Atomic uint32_t n_shared; /* actors from first to last */
    _Atomic uint32_t n_parked; /* not counting the time keeper */
    _Atomic bool has_keeper;
    _Atomic uint64_t keeper_until_ms;
    _Atomic bool is_quitting;
    pthread_cond_t ended; /* the root actor is down */
    bool is_down;
};

struct orri_time {
    pthread_mutex_t lock;
    struct orri_wheel wheel;
    _Atomic uint64_t next_ms; /* what the wheel's next due time is */
    struct orri_ask **chunks; /* owned */
    struct orri_ask *free;
    uint32_t n_asks;             /* ever made */
    struct orri_timer **buckets; /* owned; by actor and id */
    uint32_t n_buckets;
    uint32_t n_timers;
    uint64_t serial;
};

struct orr_system {
    struct orr_system_config config;
    char name[ORR_NAME_MAX];
    uint64_t host;
    struct orr_transport *transport; /* borrowed: outlives stop */
    struct orri_pool pool;
    struct orri_worker *workers; /* owned */
    unsigned n_workers; /* at least 1; its only one is the caller's when stepped */
    bool is_threaded;
    unsigned n_running; /* threads */
    pthread_mutex_t outside_lock;
    struct orri_worker *outside; /* owned when threaded, else workers[0] */
    struct orri_sched sched;
    struct orri_time time;

    _Atomic(struct orri_actor *) *chunks; /* owned; written under tree */
    pthread_mutex_t tree;
    uint32_t n_slots;             /* tree */
    struct orri_actor *free_slot; /* tree */
    struct orri_actor *root;
    struct orri_dispatch *dispatches;  /* tree; owned */
    struct orri_watch *remote_watches; /* tree: of actors of other hosts */
    struct orri_watch
        *remote_watchers; /* tree: actors of other hosts that watch ours */
    uint32_t n_watches;   /* tree */
    pthread_rwlock_t names_lock;
    struct orri_name *names; /* names_lock; owned */
    uint32_t names_cap;
    uint32_t n_names;
    struct {
        uint64_t host;
        uint32_t incarnation;
    } * peers; /* tree; owned */
    uint32_t n_peers;

    _Atomic uint64_t n_actors;
    _Atomic uint64_t actor_bytes;
    _Atomic bool has_given_up;
    pthread_mutex_t dead_lock;
    _Atomic uint64_t n_dead;
    struct orr_rec_dead_letter dead[ORRI_DEAD_KEPT]; /* dead_lock */
};

#include "calls.h"
#include "letter_make.h"
#include "life.h"

#endif
