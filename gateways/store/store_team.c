/* SPDX-License-Identifier: Apache-2.0
 * store_team.c - the threads of one call.
 */
#include "store_impl.h"

bool orri_team_is_over(struct orri_team *team)
{
    return atomic_load_explicit(&team->has_failed, memory_order_relaxed) ||
           orri_is_cancelled(team->op);
}

static void *member(void *arg)
{
    struct orri_team *team = arg;
    struct orr_error error = {.code = ORR_OK};
    if (team->work(team, &error) == ORR_OK)
        return NULL;
    pthread_mutex_lock(&team->lock);
    if (!atomic_load(&team->has_failed))
        team->error = error;
    atomic_store(&team->has_failed, true);
    pthread_mutex_unlock(&team->lock);
    return NULL;
}

enum orr_err orri_team_run(struct orri_team *team, struct orr_error *err)
{
    pthread_t threads[STORE_THREADS_MAX];
    unsigned n = 0;
    pthread_mutex_init(&team->lock, NULL);
    /* Fewer threads than wished for are slower, not wrong. */
    while (n + 1 < team->store->threads &&
           pthread_create(&threads[n], NULL, member, team) == 0)
        n++;
    member(team);
    while (n > 0)
        pthread_join(threads[--n], NULL);
    pthread_mutex_destroy(&team->lock);
    if (atomic_load(&team->has_failed)) {
        if (err)
            *err = team->error;
        return team->error.code;
    }
    return orri_is_cancelled(team->op) ? orri_cancelled(err) : ORR_OK;
}
