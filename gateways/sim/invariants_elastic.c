/* SPDX-License-Identifier: Apache-2.0
 * invariants_elastic.c - jobs that grow by themselves, and give back for others (docs/adr/0024-growth.md), by the region's events.
 */
#include "invariants_impl.h"

enum {
    GIVEN_MS =
        20000, /* from the end of a resize until the job that it was for has left the queue */
    CALM_MS = 15000, /* after the faults, before that is so */
    DRIFT_PERCENT = 10,
};

/* "resize 3: to 2 devices: for job eu1-5"; false: it is nobody's own idea. */
static bool is_own(const struct orr_msg_event *event,
                   uint32_t *ret_devices,
                   struct orr_str *ret_for)
{
    static const char label[] = "for job ";
    char text[256];
    orr_str_copy(text, sizeof(text), event->cause);
    const char *to = strstr(text, ": to ");
    const char *why = to ? strchr(to + 2, ':') : NULL;
    if (!orr_str_eq(event->type, ORR_LIT("job.order")) || !why ||
        strncmp(text, "resize ", 7) != 0)
        return false;
    *ret_devices = (uint32_t)strtoul(to + 5, NULL, 10);
    *ret_for = (struct orr_str){NULL, 0};
    const char *waiting = strstr(why, label);
    if (waiting) {
        uint32_t at = (uint32_t)(waiting - text + (ptrdiff_t)sizeof(label) - 1);
        *ret_for = (struct orr_str){event->cause.ptr + at, event->cause.len - at};
    }
    return waiting || strstr(why, " free");
}

static void own_resizes_are_a_quiet_time_apart(struct world *world,
                                               struct job_seen *job,
                                               uint64_t generation,
                                               uint32_t devices)
{
    if (job->own_of != generation)
        job->n_own = 0;
    job->own_of = generation;
    job->n_own++;
    uint64_t since = world->now_ms - job->launched_ms;
    uint64_t most = 2 + 2 * since * (100 + DRIFT_PERCENT) / 100 /
                            (job->quiet_ms ? job->quiet_ms : 1);
    if (job->launched == generation && job->n_own > most)
        invariant_broken(
            &world->invariants,
            "own resizes of a job are a quiet time apart",
            orr_str(job->id),
            "%s was resized %u times by itself in %u ms, its quiet time is "
            "%u ms",
            job->id,
            job->n_own,
            (unsigned)since,
            (unsigned)job->quiet_ms);
    if (devices < job->gpus_min || devices > job->gpus_max)
        invariant_broken(&world->invariants,
                         "a job has gpus.min..gpus.max devices",
                         orr_str(job->id),
                         "%s is to have %u devices, and may have %u..%u",
                         job->id,
                         devices,
                         job->gpus_min,
                         job->gpus_max);
}

static void what_is_given_back_is_used(struct world *world)
{
    struct invariants *inv = &world->invariants;
    for (struct job_seen *job = NULL; (job = orr_pool_next(&inv->jobs, job)) != NULL;)
        if (job->given_ms && job->given_ms >= world->calm_ms + CALM_MS &&
            world->now_ms > job->given_ms + GIVEN_MS)
            invariant_broken(
                inv,
                "nobody gives back in vain",
                orr_str(job->id),
                "others have given back for %s %u ms ago, and it still waits",
                job->id,
                (unsigned)(world->now_ms - job->given_ms));
}

void elastic_event_follows(struct world *world, const struct orr_msg_event *event)
{
    struct invariants *inv = &world->invariants;
    struct orr_str id = event->subject, waiting;
    uint32_t devices;
    if (id.len < 5 || memcmp(id.ptr, "job/", 4) != 0)
        return;
    struct job_seen *job =
        invariants_job(inv, (struct orr_str){id.ptr + 4, id.len - 4});
    if (orr_str_eq(event->type, ORR_LIT("job.state")) &&
        !orr_str_eq(event->to, ORR_LIT("queued")))
        job->given_ms = 0;
    if (is_own(event, &devices, &waiting)) {
        struct job_seen *other = waiting.len ? invariants_job(inv, waiting) : NULL;
        bool waits = other && strcmp(other->phase, "queued") == 0;
        if (orr_str_eq(event->to, ORR_LIT("open")))
            own_resizes_are_a_quiet_time_apart(world, job, event->generation, devices);
        else if (other && orr_str_eq(event->to, ORR_LIT("failed")))
            other->given_ms = 0; /* it was not enough, then */
        else if (waits && orr_str_eq(event->to, ORR_LIT("done")))
            other->given_ms = world->now_ms;
    }
    if (world->calm_ms != UINT64_MAX)
        what_is_given_back_is_used(world);
}
