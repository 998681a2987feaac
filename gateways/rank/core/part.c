/* SPDX-License-Identifier: Apache-2.0
 * part.c - the registry of parts, which starts everything else.
 */
#include "core.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static void before_fork(void)
{
    pthread_mutex_lock(&orri_core.lock);
}

static void in_parent(void)
{
    pthread_mutex_unlock(&orri_core.lock);
}

/* The child has none of the threads, and what it does is no part of the rank's order of operations.  Programs that it
 * executes start anew. */
static void in_child(void)
{
    atomic_store(&orri_core.is_active, false);
    orri_gate_in_child();
    orri_link_in_child();
    orri_stop_in_child();
    orri_page_in_child();
}

static void start(void)
{
    const char *link = getenv("ORRERY_RANK_LINK"), *job = getenv("ORRERY_JOB");
    if (!link || !*link || strlen(link) >= sizeof orri_core.link || !job ||
        strlen(job) >= sizeof orri_core.job)
        return;
    strcpy(orri_core.link, link);
    strcpy(orri_core.job, job);
    orri_core.generation = number("ORRERY_GENERATION", 0);
    orri_core.rank = (uint32_t)number("RANK", 0);
    orri_core.world = (uint32_t)number("WORLD_SIZE", 1);
    if (!orri_page_make() || pthread_atfork(before_fork, in_parent, in_child) != 0)
        return;
    atomic_store(&orri_core.is_active, true); /* pairs with the acquire in clock_get */
    if (!orri_link_start())
        atomic_store(&orri_core.is_active, false);
}

void orri_part_register(enum orri_part_kind kind, const struct orri_part *part)
{
    pthread_mutex_lock(&orri_core.lock);
    orri_core.parts[kind] = part;
    pthread_mutex_unlock(&orri_core.lock);
    pthread_once(&once, start);
}

void orri_rank_limit(const char *why_not_suspendable, const char *why_not_migratable)
{
    pthread_mutex_lock(&orri_core.lock);
    if (why_not_suspendable && !orri_core.why_not) {
        orri_core.why_not = why_not_suspendable;
        orri_core.limits_moved = true;
    }
    if (why_not_migratable && !orri_core.why_no_image) {
        orri_core.why_no_image = why_not_migratable;
        orri_core.limits_moved = true;
    }
    pthread_mutex_unlock(&orri_core.lock);
    orri_link_wake();
}
