/* SPDX-License-Identifier: Apache-2.0
 * device_watch.c - device_watch.h.
 *
 * The list that was told and the list that is true are kept apart, so that a busy sink gets the newest state later, and
 * nothing is queued.
 */
#include "device_watch.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

enum { TELL_AGAIN_MS = 20 };

struct orr_device_watch {
    struct orr_device *device; /* borrowed: outlives us */
    uint32_t period_ms;
    pthread_t thread;

    /* the thread only */
    bool has_probed;
    struct orr_device_list seen; /* true now */
    struct orr_error why;        /* of the first probe, when it failed */
    uint64_t probe_due_ms;

    pthread_mutex_t sink_lock; /* held while the sink is called; guards: */
    struct orr_device_sink sink;
    bool has_sink;
    bool is_announced;
    struct orr_device_list told;

    pthread_mutex_t lock; /* guards: */
    pthread_cond_t changed;
    bool is_woken;
    bool is_stopping;
};

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- probing ------------------------------------------------------------------------------ */

static void set_trouble(struct orr_device_info *device, const char *trouble)
{
    device->is_healthy = false;
    orr_str_copy(device->trouble, sizeof device->trouble, orr_str(trouble));
}

static const struct orr_device_info *find(const struct orr_device_list *list,
                                          const char *uuid)
{
    for (uint32_t i = 0; i < list->n; i++) {
        if (strcmp(list->at[i].uuid, uuid) == 0)
            return &list->at[i];
    }
    return NULL;
}

/* Bring seen up to date; indexes stay. */
static void merge(struct orr_device_watch *watch,
                  const struct orr_device_list *now,
                  const char *failure)
{
    for (uint32_t i = 0; i < watch->seen.n; i++) {
        struct orr_device_info *device = &watch->seen.at[i];
        const struct orr_device_info *found = failure ? NULL : find(now, device->uuid);
        if (found) {
            device->is_healthy = found->is_healthy;
            memcpy(device->trouble, found->trouble, sizeof device->trouble);
        } else {
            set_trouble(device,
                        failure ? failure
                                : "the driver does not list it any more; it may have "
                                  "fallen off the bus");
        }
    }
}

static void probe(struct orr_device_watch *watch)
{
    static _Thread_local struct orr_device_list list; /* large for a stack */
    struct orr_error err;
    list.n = 0;
    enum orr_err rc = watch->device->ops->probe(watch->device, &list, &err);
    if (watch->has_probed) {
        merge(watch, &list, rc == ORR_OK ? NULL : err.text);
    } else {
        watch->seen = list;
        watch->seen.n = rc == ORR_OK ? list.n : 0;
        if (rc != ORR_OK)
            watch->why = err;
        for (uint32_t i = 0; i < watch->seen.n; i++)
            watch->seen.at[i].index = i;
        watch->has_probed = true;
    }
    watch->probe_due_ms = now_ms() + watch->period_ms;
}

/* ---- telling ------------------------------------------------------------------------------ */

static struct orr_rec_device_row make_row(const struct orr_device_info *device)
{
    return (struct orr_rec_device_row){
        .index = device->index,
        .uuid = orr_str(device->uuid),
        .type = orr_str(device->type),
        .memory_bytes = device->memory_bytes,
        .is_healthy = device->is_healthy,
        .trouble = orr_str(device->trouble),
    };
}

static enum orr_err announce(struct orr_device_watch *watch)
{
    struct orr_rec_device_row rows[ORR_DEVICES_MAX];
    for (uint32_t i = 0; i < watch->seen.n; i++)
        rows[i] = make_row(&watch->seen.at[i]);
    enum orr_err rc =
        watch->sink.found(watch->sink.arg,
                          (struct orr_list_device_row){rows, watch->seen.n},
                          watch->device->ops->rank_env(watch->device),
                          watch->why.code ? watch->why.text : NULL);
    if (rc == ORR_OK) {
        watch->is_announced = true;
        watch->told = watch->seen;
    }
    return rc;
}

static enum orr_err tell_changes(struct orr_device_watch *watch)
{
    enum orr_err rc = ORR_OK;
    for (uint32_t i = 0; i < watch->seen.n && rc == ORR_OK; i++) {
        const struct orr_device_info *seen = &watch->seen.at[i];
        struct orr_device_info *told = &watch->told.at[i];
        if (seen->is_healthy == told->is_healthy &&
            strcmp(seen->trouble, told->trouble) == 0)
            continue;
        struct orr_rec_device_row row = make_row(seen);
        rc = watch->sink.health(watch->sink.arg, &row);
        if (rc == ORR_OK)
            *told = *seen;
    }
    return rc;
}

static enum orr_err tell(struct orr_device_watch *watch)
{
    enum orr_err rc = ORR_OK;
    pthread_mutex_lock(&watch->sink_lock);
    if (watch->has_sink && !watch->is_announced)
        rc = announce(watch);
    else if (watch->has_sink)
        rc = tell_changes(watch);
    pthread_mutex_unlock(&watch->sink_lock);
    return rc;
}

/* ---- the thread --------------------------------------------------------------------------- */

/* False when it is time to stop. */
static bool wait_until(struct orr_device_watch *watch, uint64_t due_ms)
{
    struct timespec until = {.tv_sec = (time_t)(due_ms / 1000),
                             .tv_nsec = (long)(due_ms % 1000) * 1000000};
    pthread_mutex_lock(&watch->lock);
    int rc = 0;
    while (!watch->is_stopping && !watch->is_woken && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&watch->changed, &watch->lock, &until);
    watch->is_woken = false;
    bool goes_on = !watch->is_stopping;
    pthread_mutex_unlock(&watch->lock);
    return goes_on;
}

static void *run(void *arg)
{
    struct orr_device_watch *watch = arg;
    uint64_t due_ms;
    pthread_setname_np(pthread_self(), "orr-device");
    do {
        if (now_ms() >= watch->probe_due_ms)
            probe(watch);
        due_ms = watch->probe_due_ms;
        if (tell(watch) != ORR_OK)
            due_ms = now_ms() + TELL_AGAIN_MS;
    } while (wait_until(watch, due_ms));
    return NULL;
}

static void wake(struct orr_device_watch *watch, bool is_stopping)
{
    pthread_mutex_lock(&watch->lock);
    watch->is_woken = true;
    watch->is_stopping = is_stopping;
    pthread_cond_signal(&watch->changed);
    pthread_mutex_unlock(&watch->lock);
}

void orr_device_watch_attach(struct orr_device_watch *watch,
                             const struct orr_device_sink *sink)
{
    pthread_mutex_lock(&watch->sink_lock);
    watch->has_sink = sink != NULL;
    watch->is_announced = false;
    if (sink)
        watch->sink = *sink;
    pthread_mutex_unlock(&watch->sink_lock);
    wake(watch, false);
}

enum orr_err orr_device_watch_new(struct orr_device *device,
                                  uint32_t period_ms,
                                  struct orr_device_watch **ret_watch,
                                  struct orr_error *err)
{
    pthread_condattr_t monotonic;
    struct orr_device_watch *watch = calloc(1, sizeof *watch);
    if (!watch)
        return orr_fail(err, ORR_ENOMEM, "device watch: out of memory");
    watch->device = device;
    watch->period_ms = period_ms;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&watch->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&watch->lock, NULL);
    pthread_mutex_init(&watch->sink_lock, NULL);
    int error = pthread_create(&watch->thread, NULL, run, watch);
    if (error) {
        free(watch);
        return orr_fail(
            err, ORR_EIO, "device watch: cannot start its thread: %s", strerror(error));
    }
    *ret_watch = watch;
    return ORR_OK;
}

void orr_device_watch_free(struct orr_device_watch *watch)
{
    if (!watch)
        return;
    wake(watch, true);
    pthread_join(watch->thread, NULL);
    pthread_cond_destroy(&watch->changed);
    pthread_mutex_destroy(&watch->lock);
    pthread_mutex_destroy(&watch->sink_lock);
    free(watch);
}
