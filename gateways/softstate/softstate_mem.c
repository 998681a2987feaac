/* SPDX-License-Identifier: Apache-2.0
 * softstate_mem.c - soft state without Redis: this host's own keys, for whoever asks
 * this host (soft_scan).
 *
 * It is what was configured, so it is not degraded.
 */
#include "soft_table.h"

#include <pthread.h>
#include <time.h>

struct mem {
    struct orr_softstate base;
    pthread_mutex_t lock; /* guards: */
    struct soft_table table;
    uint64_t writes;
    uint64_t ticked_ms;
    uint64_t opened_unix_ms; /* constant */
};

static uint64_t clock_ms(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static enum orr_err mem_put(struct orr_softstate *base,
                            struct orr_str key,
                            struct orr_bytes value,
                            uint64_t ttl_ms,
                            uint64_t owner)
{
    struct mem *m = (struct mem *)base;
    uint64_t now_ms = clock_ms(CLOCK_MONOTONIC);
    pthread_mutex_lock(&m->lock);
    enum orr_err rc = soft_table_put(&m->table, key, value, ttl_ms, owner, now_ms);
    if (rc == ORR_ENOSPC &&
        now_ms - m->ticked_ms >= 1000) { /* perhaps some have lapsed */
        m->ticked_ms = now_ms;
        soft_table_tick(&m->table, now_ms);
        rc = soft_table_put(&m->table, key, value, ttl_ms, owner, now_ms);
    }
    m->writes += rc == ORR_OK;
    pthread_mutex_unlock(&m->lock);
    return rc;
}

static void mem_remove(struct orr_softstate *base, struct orr_str key)
{
    struct mem *m = (struct mem *)base;
    pthread_mutex_lock(&m->lock);
    soft_table_remove(&m->table, key, clock_ms(CLOCK_MONOTONIC));
    pthread_mutex_unlock(&m->lock);
}

static void mem_drop(struct orr_softstate *base, uint64_t owner)
{
    struct mem *m = (struct mem *)base;
    pthread_mutex_lock(&m->lock);
    soft_table_drop(&m->table, owner);
    pthread_mutex_unlock(&m->lock);
}

static uint64_t mem_scan(struct orr_softstate *base,
                         uint64_t cursor,
                         orr_softstate_visit_f visit,
                         void *arg)
{
    struct mem *m = (struct mem *)base;
    pthread_mutex_lock(&m->lock);
    soft_table_tick(&m->table, clock_ms(CLOCK_MONOTONIC));
    cursor = soft_table_scan(&m->table, cursor, visit, arg);
    pthread_mutex_unlock(&m->lock);
    return cursor;
}

static void mem_status(struct orr_softstate *base,
                       struct orr_softstate_status *ret_status)
{
    struct mem *m = (struct mem *)base;
    pthread_mutex_lock(&m->lock);
    *ret_status = (struct orr_softstate_status){.backend = "memory",
                                                .since_unix_ms = m->opened_unix_ms,
                                                .keys = m->table.entries.n_used,
                                                .writes = m->writes,
                                                .refused = m->table.refused};
    pthread_mutex_unlock(&m->lock);
}

static void mem_close(struct orr_softstate *base)
{
    struct mem *m = (struct mem *)base;
    soft_table_fini(&m->table);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static const struct orr_softstate_ops mem_ops = {
    mem_put, mem_remove, mem_drop, mem_scan, mem_status, mem_close};

enum orr_err orr_softstate_mem_open(const struct orr_softstate_config *config,
                                    struct orr_softstate **ret_softstate,
                                    struct orr_error *err)
{
    struct mem *m = calloc(1, sizeof *m);
    enum orr_err rc =
        m ? soft_table_init(&m->table, config->keys_max, config->ttl_ms) : ORR_ENOMEM;
    if (rc != ORR_OK) {
        free(m);
        return orr_fail(
            err, rc, "softstate: no memory for %u keys", (unsigned)config->keys_max);
    }
    pthread_mutex_init(&m->lock, NULL);
    m->base.ops = &mem_ops;
    m->opened_unix_ms = clock_ms(CLOCK_REALTIME);
    *ret_softstate = &m->base;
    return ORR_OK;
}
