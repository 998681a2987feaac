/* SPDX-License-Identifier: Apache-2.0
 * wipe.c - `orrery host --wipe`: end what a stopped node host left running, and remove its emulated devices.
 */
#include "process/process_linux.h"
#include "role_devices.h"
#include "roles.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

enum { WIPE_DEADLINE_S = 10 };

struct wipe {
    struct orr_process *process; /* borrowed: of the host */
    pthread_mutex_t lock;        /* guards alive and is_counted */
    pthread_cond_t changed;
    uint32_t alive;
    bool is_counted;
};

static bool is_alive(const struct orr_rec_rank_row *row)
{
    return row->state == ORR_RANK_STARTING || row->state == ORR_RANK_RUNNING;
}

static enum orr_err on_found(void *arg, struct orr_list_rank_row ranks)
{
    struct wipe *w = arg;
    uint32_t alive = 0;
    for (uint32_t i = 0; i < ranks.n; i++)
        alive += is_alive(&ranks.at[i]);
    pthread_mutex_lock(&w->lock);
    w->alive = alive;
    w->is_counted = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    for (uint32_t i = 0; i < ranks.n; i++) {
        const struct orr_rec_rank_row *row = &ranks.at[i];
        const struct orr_process_id id = {row->job, row->generation, row->rank};
        if (is_alive(row)) /* an error means that it ends by itself just now */
            (void)w->process->ops->signal(w->process, &id, SIGKILL, NULL);
    }
    return ORR_OK;
}

static enum orr_err on_event(void *arg, const struct orr_rec_rank_row *row)
{
    struct wipe *w = arg;
    pthread_mutex_lock(&w->lock);
    if (!is_alive(row) && w->alive > 0)
        w->alive--;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return ORR_OK;
}

static enum orr_err end_ranks(struct orr_process *process, struct orr_error *err)
{
    struct wipe w = {.process = process, .lock = PTHREAD_MUTEX_INITIALIZER};
    const struct orr_process_sink sink = {
        .found = on_found, .event = on_event, .arg = &w};
    struct timespec deadline;
    pthread_condattr_t attr;
    int rc = 0;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w.changed, &attr);
    pthread_condattr_destroy(&attr);
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += WIPE_DEADLINE_S;
    process->ops->attach(process, &sink);
    pthread_mutex_lock(&w.lock);
    while (rc == 0 && (!w.is_counted || w.alive > 0))
        rc = pthread_cond_timedwait(&w.changed, &w.lock, &deadline);
    uint32_t left = w.alive;
    pthread_mutex_unlock(&w.lock);
    process->ops->attach(process, NULL);
    pthread_cond_destroy(&w.changed);
    return rc ? orr_fail(err,
                         ORR_ETIMEOUT,
                         "wipe: %u ranks did not end within %d s of SIGKILL",
                         left,
                         WIPE_DEADLINE_S)
              : ORR_OK;
}

enum orr_err roles_wipe(struct host *h, struct orr_error *err)
{
    if (!h->config.node.is_on)
        return ORR_OK;
    const struct orr_process_linux_config config = {.state_dir = h->config.state.ptr};
    enum orr_err code = orr_process_linux_open(&config, &h->process, err);
    if (!code)
        code = end_ranks(h->process, err);
    roles_remove_images(h);
    return code ? code : role_devices_remove(&h->config.node, h->config.state.ptr, err);
}
