/* SPDX-License-Identifier: Apache-2.0
 * system.c - a system from new to free, and the doors for threads that are not its own.
 */
#include "core.h"

#include <time.h>

static void apply_defaults(struct orr_system_config *config)
{
    if (!config->actors_max)
        config->actors_max = 1u << 20;
    if (!config->mailbox_max)
        config->mailbox_max = 4096;
    if (!config->asks_max)
        config->asks_max = 1u << 16;
    if (!config->supervisor_intensity)
        config->supervisor_intensity = 10;
    if (!config->message_bytes_max)
        config->message_bytes_max = UINT64_C(1) << 30;
}

static void init_locks(struct orr_system *sys)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&sys->sched.work, &attr);
    pthread_cond_init(&sys->sched.time, &attr);
    pthread_cond_init(&sys->sched.ended, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&sys->sched.lock, NULL);
    pthread_mutex_init(&sys->time.lock, NULL);
    pthread_mutex_init(&sys->outside_lock, NULL);
    pthread_mutex_init(&sys->tree, NULL);
    pthread_mutex_init(&sys->dead_lock, NULL);
    pthread_rwlock_init(&sys->names_lock, NULL);
}

static void fini_locks(struct orr_system *sys)
{
    pthread_cond_destroy(&sys->sched.work);
    pthread_cond_destroy(&sys->sched.time);
    pthread_cond_destroy(&sys->sched.ended);
    pthread_mutex_destroy(&sys->sched.lock);
    pthread_mutex_destroy(&sys->time.lock);
    pthread_mutex_destroy(&sys->outside_lock);
    pthread_mutex_destroy(&sys->tree);
    pthread_mutex_destroy(&sys->dead_lock);
    pthread_rwlock_destroy(&sys->names_lock);
}

static void init_worker(struct orr_system *sys, struct orri_worker *w, unsigned index)
{
    w->sys = sys;
    w->index = index;
    w->is_outside = sys->is_threaded && index == sys->n_workers;
    w->random = sys->config.seed ^ (UINT64_C(0xd1342543de82ef95) * (index + 1));
    w->ctx.worker = w;
    w->ctx.pub.ops = &orri_ctx_ops;
    w->ctx.pub.self.host = sys->host;
    w->ctx.pub.self.incarnation = sys->config.incarnation;
    orri_clock_read(w);
}

static enum orr_err spawn_root(struct orr_system *sys)
{
    struct orr_spawn spawn = {
        .type = &orri_system_type, .args = &sys, .path = "/system"};
    struct orri_worker *w = sys->outside;
    enum orr_err err = orri_spawn(w, NULL, &spawn, &sys->root);
    if (err == ORR_OK)
        orri_order(w, sys->root, ORDER_START);
    return err;
}

enum orr_err orr_system_new(const struct orr_system_config *config,
                            struct orr_system **ret_system,
                            struct orr_error *err)
{
    if (!config->host || !*config->host || strlen(config->host) >= ORR_NAME_MAX)
        return orr_fail(err,
                        ORR_EINVAL,
                        "host name \"%s\": give one of 1 to %d bytes",
                        config->host ? config->host : "",
                        ORR_NAME_MAX - 1);
    if (config->incarnation == 0)
        return orr_fail(err, ORR_EINVAL, "%s: incarnation must not be 0", config->host);
    struct orr_system *sys = orri_zalloc(sizeof(*sys));
    if (!sys)
        return orr_fail(err, ORR_ENOMEM, "%s: out of memory", config->host);
    sys->config = *config;
    apply_defaults(&sys->config);
    orr_str_copy(sys->name, sizeof(sys->name), orr_str(config->host));
    sys->config.host = sys->name;
    sys->host = orr_hash(orr_str(sys->name));
    sys->is_threaded = config->workers > 0;
    sys->n_workers = sys->is_threaded ? config->workers : 1;
    init_locks(sys);
    orri_pool_init(&sys->pool,
                   sys->is_threaded ? 64u << 10 : 4u << 10,
                   sys->config.message_bytes_max);
    unsigned n = sys->n_workers + (sys->is_threaded ? 1 : 0);
    sys->workers = orri_zalloc(n * sizeof(*sys->workers));
    sys->chunks =
        orri_zalloc((sys->config.actors_max / ORRI_CHUNK + 1) * sizeof(*sys->chunks));
    if (!sys->workers || !sys->chunks)
        goto fail;
    for (unsigned i = 0; i < n; i++)
        init_worker(sys, &sys->workers[i], i);
    sys->outside = &sys->workers[n - 1];
    orri_wheel_init(&sys->time.wheel, sys->outside->now_ms);
    sys->time.next_ms = UINT64_MAX;
    if (spawn_root(sys) != ORR_OK)
        goto fail;
    *ret_system = sys;
    return ORR_OK;
fail:
    orr_system_free(sys);
    return orr_fail(err, ORR_ENOMEM, "%s: out of memory", config->host);
}

static void free_actor(struct orr_system *sys, struct orri_actor *actor)
{
    struct orri_worker *w = &sys->workers[0];
    uint8_t phase = atomic_load(&actor->phase);
    const struct orri_dispatch *dispatch = atomic_load(&actor->dispatch);
    if ((phase == PHASE_LIVE || phase == PHASE_STOPPING) && dispatch->type->fini)
        dispatch->type->fini(actor->state);
    orri_timers_drop(sys, actor);
    orri_hold_free(w, actor);
    atomic_fetch_add(&actor->life, 1);
    for (struct orri_letter *letter; (letter = orri_mailbox_take(w, actor));)
        orri_letter_free(w, letter);
    free(actor->body);
}

void orr_system_free(struct orr_system *sys)
{
    if (!sys)
        return;
    sys->transport = NULL;
    if (sys->n_slots)
        orri_watch_free_all(sys);
    for (uint32_t i = 0; i < sys->n_slots && i < sys->config.actors_max; i++)
        free_actor(sys, orri_actor_at(sys, i));
    for (uint32_t i = 0; i < sys->n_slots; i += ORRI_CHUNK)
        free(atomic_load(&sys->chunks[i / ORRI_CHUNK]));
    for (uint32_t i = 0; i < sys->time.n_asks; i += ORRI_CHUNK)
        free(sys->time.chunks[i / ORRI_CHUNK]);
    while (sys->dispatches) {
        struct orri_dispatch *d = sys->dispatches;
        sys->dispatches = d->next;
        free(d);
    }
    free(sys->time.chunks);
    free(sys->time.buckets);
    free(sys->names);
    free(sys->peers);
    free(sys->chunks);
    free(sys->workers);
    orri_pool_fini(&sys->pool);
    fini_locks(sys);
    free(sys);
}

uint64_t orr_system_host(const struct orr_system *system)
{
    return system->host;
}

void orr_system_set_transport(struct orr_system *system,
                              struct orr_transport *transport)
{
    system->transport = transport;
}

enum orr_err orr_system_start(struct orr_system *sys, struct orr_error *err)
{
    if (!sys->is_threaded || sys->n_running)
        return ORR_OK;
    for (; sys->n_running < sys->n_workers; sys->n_running++) {
        struct orri_worker *w = &sys->workers[sys->n_running];
        if (pthread_create(&w->thread, NULL, orri_worker_main, w) != 0) {
            orr_system_stop(sys);
            return orr_fail(
                err,
                ORR_ENOMEM,
                "%s: cannot start worker thread %u of %u: raise the limit of "
                "processes (ulimit -u) or lower `workers`",
                sys->name,
                w->index + 1,
                sys->n_workers);
        }
    }
    return ORR_OK;
}

void orri_root_ended(struct orr_system *sys)
{
    pthread_mutex_lock(&sys->sched.lock);
    sys->sched.is_down = true;
    pthread_cond_broadcast(&sys->sched.ended);
    pthread_mutex_unlock(&sys->sched.lock);
}

void orr_system_stop(struct orr_system *sys)
{
    struct orri_worker *w = orri_outside_enter(sys);
    orri_order(w, sys->root, ORDER_STOP);
    orri_outside_leave(sys);
    if (!sys->is_threaded) {
        while (!sys->sched.is_down && orr_system_step(sys)) {
        }
        return;
    }
    if (sys->n_running == sys->n_workers) {
        pthread_mutex_lock(&sys->sched.lock);
        while (!sys->sched.is_down)
            pthread_cond_wait(&sys->sched.ended, &sys->sched.lock);
        pthread_mutex_unlock(&sys->sched.lock);
    }
    atomic_store(&sys->sched.is_quitting, true);
    orri_wake_all(sys);
    while (sys->n_running > 0)
        pthread_join(sys->workers[--sys->n_running].thread, NULL);
}

struct orri_worker *orri_outside_enter(struct orr_system *sys)
{
    if (sys->is_threaded)
        pthread_mutex_lock(&sys->outside_lock);
    orri_clock_read(sys->outside);
    return sys->outside;
}

void orri_outside_leave(struct orr_system *sys)
{
    if (sys->is_threaded)
        pthread_mutex_unlock(&sys->outside_lock);
}

enum orr_err orr_system_spawn(struct orr_system *system,
                              const struct orr_spawn *spawn,
                              struct orr_addr *ret_addr)
{
    struct orri_worker *w = orri_outside_enter(system);
    struct orri_actor *actor;
    enum orr_err err = orri_spawn(w, system->root, spawn, &actor);
    if (err == ORR_OK) {
        *ret_addr = orri_actor_addr(system, actor);
        orri_order(w, actor, ORDER_START);
    }
    orri_outside_leave(system);
    return err;
}

static struct orri_letter *outside_letter(struct orri_worker *w,
                                          struct orr_addr from,
                                          const struct orr_msg_desc *desc,
                                          const void *msg)
{
    struct orri_letter *letter = orri_letter_make(w, desc, msg, NULL, false);
    if (letter) {
        letter->peer = from;
        letter->role = ORR_ROLE_LOCAL;
    }
    return letter;
}

enum orr_err orr_system_post(struct orr_system *system,
                             struct orr_addr from,
                             struct orr_addr to,
                             const struct orr_msg_desc *desc,
                             const void *msg)
{
    struct orri_worker *w = orri_outside_enter(system);
    struct orri_letter *letter = outside_letter(w, from, desc, msg);
    enum orr_err err = letter ? orri_send(w, to, letter) : ORR_ENOMEM;
    orri_outside_leave(system);
    return err;
}

enum orr_err orr_system_reply(struct orr_system *system,
                              struct orr_addr from,
                              const struct orr_request *request,
                              const struct orr_msg_desc *desc,
                              const void *msg)
{
    if (request->corr == 0)
        return ORR_OK;
    struct orri_worker *w = orri_outside_enter(system);
    struct orri_letter *letter = outside_letter(w, from, desc, msg);
    if (letter)
        orri_answer(w, request->from, request->corr, letter);
    orri_outside_leave(system);
    return letter ? ORR_OK : ORR_ENOMEM;
}

enum orr_err orr_system_lookup(struct orr_system *system,
                               const char *path,
                               struct orr_addr *ret_addr)
{
    uint64_t slot = orri_name_find(system, orr_hash(orr_str(path)));
    if (!slot)
        return ORR_ENOENT;
    *ret_addr = (struct orr_addr){system->host, slot, system->config.incarnation};
    return ORR_OK;
}

bool orr_system_step(struct orr_system *system)
{
    ORR_ASSERT(!system->is_threaded);
    struct orri_worker *w = &system->workers[0];
    orri_clock_read(w);
    orri_time_run(w);
    struct orri_actor *actor = orri_next_actor(w);
    if (!actor)
        return false;
    orri_run(w, actor, 1);
    return true;
}

uint64_t orr_system_next_due_ms(struct orr_system *system)
{
    pthread_mutex_lock(&system->time.lock);
    uint64_t next = orri_wheel_next_ms(&system->time.wheel);
    pthread_mutex_unlock(&system->time.lock);
    return next;
}

void orr_system_stats(struct orr_system *system, struct orr_system_stats *ret_stats)
{
    struct orr_system_stats stats = {
        .actors = atomic_load(&system->n_actors),
        .dead_letters = atomic_load(&system->n_dead),
        .has_given_up = atomic_load(&system->has_given_up),
    };
    unsigned n = system->n_workers + (system->is_threaded ? 1 : 0);
    for (unsigned i = 0; i < n; i++) {
        stats.delivered += atomic_load(&system->workers[i].delivered);
        stats.refused += atomic_load(&system->workers[i].refused);
    }
    pthread_mutex_lock(&system->tree);
    uint32_t n_slots = system->n_slots;
    pthread_mutex_unlock(&system->tree);
    for (uint32_t i = 0; i < n_slots && i < system->config.actors_max; i++)
        stats.queued += orri_mailbox_length(orri_actor_at(system, i));
    stats.memory_bytes = atomic_load(&system->pool.bytes) +
                         atomic_load(&system->actor_bytes) +
                         (uint64_t)n_slots * sizeof(struct orri_actor);
    *ret_stats = stats;
}
