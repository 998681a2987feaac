/* SPDX-License-Identifier: Apache-2.0
 * invariants.c - see invariants.h.
 */
#include "invariants.h"

#include "invariants_impl.h"

#include <stdarg.h>

static struct orr_str job_id(const void *item)
{
    return orr_str(((const struct job_seen *)item)->id);
}

enum orr_err invariants_init(struct invariants *inv)
{
    *inv = (struct invariants){0};
    enum orr_err err =
        orr_pool_init(&inv->jobs, sizeof(struct job_seen), INVARIANT_JOBS);
    if (err == ORR_OK)
        err = orr_map_init(&inv->jobs_by_id, &inv->jobs, job_id);
    if (err != ORR_OK)
        orr_pool_fini(&inv->jobs);
    return err;
}

void invariants_fini(struct invariants *inv)
{
    orr_map_fini(&inv->jobs_by_id);
    orr_pool_fini(&inv->jobs);
    free(inv->events);
    *inv = (struct invariants){0};
}

void invariant_broken(struct invariants *inv,
                      const char *sentence,
                      struct orr_str subject,
                      const char *fmt,
                      ...)
{
    if (inv->broken)
        return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(inv->text, sizeof(inv->text), fmt, args);
    va_end(args);
    orr_str_copy(inv->subject, sizeof(inv->subject), subject);
    inv->broken = sentence;
}

struct job_seen *invariants_job(struct invariants *inv, struct orr_str id)
{
    struct job_seen *job = orr_map_find(&inv->jobs_by_id, id);
    if (job)
        return job;
    job = orr_pool_take(&inv->jobs);
    ORR_ASSERT(job); /* a scenario has fewer jobs than INVARIANT_JOBS */
    orr_str_copy(job->id, sizeof(job->id), id);
    orr_map_add(&inv->jobs_by_id, job);
    return job;
}

static bool is_end(const char *phase)
{
    return strcmp(phase, "done") == 0 || strcmp(phase, "failed") == 0 ||
           strcmp(phase, "cancelled") == 0 || strcmp(phase, "moved") == 0;
}

/* ---- processes ---- */

void one_owner_per_device_share(const struct machine *machine, const struct proc *proc)
{
    struct world *world = machine->world;
    if (proc->device == ORR_NO_DEVICE)
        return;
    for (uint32_t i = 0; i < machine->n_procs; i++) {
        const struct proc *other = &machine->procs[i];
        if (!proc_is_live(other, world->now_ms) || other->device != proc->device ||
            other->is_stopped || proc->is_stopped || strcmp(other->job, proc->job) == 0)
            continue;
        invariant_broken(&world->invariants,
                         "one owner per device share",
                         orr_str(proc->job),
                         "device %u of %s is used by %s and %s",
                         proc->device,
                         machine->name,
                         other->job,
                         proc->job);
    }
}

void one_live_generation_per_rank(struct world *world, const struct proc *proc)
{
    static const char sentence[] = "at most one live generation per logical rank";
    for (uint32_t m = 0; m < world->n_machines; m++)
        for (uint32_t i = 0; i < world->machines[m].n_procs; i++) {
            const struct proc *other = &world->machines[m].procs[i];
            if (other == proc || !proc_is_live(other, world->now_ms) ||
                strcmp(other->job, proc->job) != 0)
                continue;
            if (other->generation != proc->generation && !other->is_frozen &&
                !proc->is_frozen)
                invariant_broken(&world->invariants,
                                 sentence,
                                 orr_str(proc->job),
                                 "%s lives as generation %u (on %s) and %u",
                                 proc->job,
                                 (unsigned)other->generation,
                                 world->machines[m].name,
                                 (unsigned)proc->generation);
            /* one that changes node is there twice for a while, and no more than one of them can run */
            if (other->generation == proc->generation && other->rank == proc->rank &&
                !other->is_parked && !proc->is_parked)
                invariant_broken(&world->invariants,
                                 sentence,
                                 orr_str(proc->job),
                                 "%s has rank %u twice, once on %s",
                                 proc->job,
                                 proc->rank,
                                 world->machines[m].name);
        }
}

void placed_by_one_cluster_at_a_time(const struct machine *machine,
                                     const struct proc *proc)
{
    struct world *world = machine->world;
    for (uint32_t m = 0; m < world->n_machines; m++) {
        const struct machine *at = &world->machines[m];
        for (uint32_t i = 0; i < at->n_procs && at->cluster != machine->cluster; i++) {
            const struct proc *other = &at->procs[i];
            if (!proc_is_live(other, world->now_ms) || other->is_frozen ||
                proc->is_frozen || strcmp(other->job, proc->job) != 0)
                continue;
            invariant_broken(&world->invariants,
                             "a job is placed by one cluster at a time",
                             orr_str(proc->job),
                             "%s runs on %s and on %s, of another cluster",
                             proc->job,
                             at->name,
                             machine->name);
        }
    }
}

void older_generation_launches_nothing(struct world *world, const struct proc *proc)
{
    uint64_t generation = proc->generation;
    struct orr_str job = orr_str(proc->job);
    struct job_seen *known = invariants_job(&world->invariants, job);
    if (generation < known->launched)
        invariant_broken(&world->invariants,
                         "nothing of an older generation changes anything",
                         job,
                         "%s was launched as generation %u after %u was",
                         known->id,
                         (unsigned)generation,
                         (unsigned)known->launched);
    if (generation > known->launched)
        known->launched_ms = world->now_ms;
    known->launched = generation;
    known->gpus_min = proc->gpus_min;
    known->gpus_max = proc->gpus_max;
    known->quiet_ms = proc->quiet_ms;
    bool is_over = generation <= known->told &&
                   (is_end(known->phase) || strcmp(known->phase, "queued") == 0);
    bool is_early = strcmp(known->phase, "placing") == 0;
    if (is_over || is_early)
        invariant_broken(&world->invariants,
                         is_over ? "nothing of an older generation changes anything"
                                 : "ranks exist only where the region knows of",
                         job,
                         "generation %u of %s was launched, and it is %s",
                         (unsigned)generation,
                         known->id,
                         known->phase);
}

void cut_is_consistent(struct world *world, const struct proc *proc)
{
    for (uint32_t m = 0; m < world->n_machines; m++)
        for (uint32_t i = 0; i < world->machines[m].n_procs; i++) {
            const struct proc *other = &world->machines[m].procs[i];
            if (!other->is_used || other->generation != proc->generation ||
                strcmp(other->job, proc->job) != 0 || other->restored == proc->restored)
                continue;
            invariant_broken(
                &world->invariants,
                "a cut is consistent",
                orr_str(proc->job),
                "%s goes on with rank %u after %u collectives, with rank %u "
                "after %u",
                proc->job,
                other->rank,
                (unsigned)other->restored,
                proc->rank,
                (unsigned)proc->restored);
        }
}

void joins_at_the_cut(struct world *world, const struct proc *proc)
{
    uint64_t now = world->now_ms;
    for (uint32_t m = 0; m < world->n_machines; m++)
        for (uint32_t i = 0; i < world->machines[m].n_procs; i++) {
            const struct proc *other = &world->machines[m].procs[i];
            if (!proc_is_live(other, now) || other->generation != proc->generation ||
                strcmp(other->job, proc->job) != 0 || !other->is_stopped ||
                other->cut != proc->cut ||
                proc_count(other, now) == proc_count(proc, now))
                continue;
            invariant_broken(&world->invariants,
                             "a cut is consistent",
                             orr_str(proc->job),
                             "%s: rank %u joins with %u collectives, rank %u has %u",
                             proc->job,
                             proc->rank,
                             (unsigned)proc_count(proc, now),
                             other->rank,
                             (unsigned)proc_count(other, now));
        }
}

void steps_are_noted(struct world *world, const struct proc *proc)
{
    struct job_seen *job = invariants_job(&world->invariants, orr_str(proc->job));
    uint64_t steps = proc_count(proc, world->now_ms);
    if (proc->generation > job->steps_of)
        job->steps = 0;
    if (proc->generation < job->steps_of)
        return;
    job->steps_of = proc->generation;
    job->steps = steps > job->steps ? steps : job->steps;
}

void planned_move_repeats_no_step(struct world *world, const struct proc *proc)
{
    struct job_seen *job = invariants_job(&world->invariants, orr_str(proc->job));
    if (proc->generation == job->steps_of && proc->restored == 0)
        job->steps = 0; /* launched again: its machine died before it had answered */
    if (!job->moving || proc->generation <= job->moving)
        return;
    for (uint32_t m = 0; m < world->n_machines; m++)
        for (uint32_t i = 0; i < world->machines[m].n_procs; i++) {
            const struct proc *other = &world->machines[m].procs[i];
            if (other->is_used && other->generation == job->moving &&
                strcmp(other->job, proc->job) == 0)
                steps_are_noted(world, other);
        }
    if (job->steps_of == job->moving && proc->restored < job->steps)
        invariant_broken(
            &world->invariants,
            "a planned move repeats no step",
            orr_str(proc->job),
            "%s had %u collectives behind it as generation %u, and goes on "
            "from %u",
            proc->job,
            (unsigned)job->steps,
            (unsigned)job->moving,
            (unsigned)proc->restored);
}

void manifest_names_only_complete_parts(struct world *world, const char *part)
{
    if (!world_image_find(world, part))
        invariant_broken(&world->invariants,
                         "a manifest names only complete parts",
                         orr_str(part),
                         "part %s was never stored",
                         part);
}

void image_is_of_a_stopped_rank(struct world *world, const struct proc *proc)
{
    if (!proc->is_stopped || !proc_stands(proc))
        invariant_broken(&world->invariants,
                         "an image is of a stopped rank",
                         orr_str(proc->job),
                         "rank %u of %s runs, and an image is made of it",
                         proc->rank,
                         proc->job);
}

void live_rank_is_not_forgotten(struct world *world, const struct proc *proc)
{
    steps_are_noted(world, proc);
    if (proc_is_live(proc, world->now_ms))
        invariant_broken(&world->invariants,
                         "a live rank is not forgotten",
                         orr_str(proc->job),
                         "rank %u of %s lives and was forgotten",
                         proc->rank,
                         proc->job);
}

/* ---- events ---- */

static void ended_job_has_no_live_rank(struct world *world, const struct job_seen *job)
{
    for (uint32_t m = 0; m < world->n_machines; m++)
        for (uint32_t i = 0; i < world->machines[m].n_procs; i++) {
            const struct proc *proc = &world->machines[m].procs[i];
            if (proc_is_live(proc, world->now_ms) && !proc->is_frozen &&
                strcmp(proc->job, job->id) == 0)
                invariant_broken(
                    &world->invariants,
                    "a job ends in one terminal phase, or is live: not both",
                    orr_str(job->id),
                    "%s is %s, and rank %u of generation %u lives on %s",
                    job->id,
                    job->phase,
                    proc->rank,
                    (unsigned)proc->generation,
                    world->machines[m].name);
        }
}

static void suspended_job_holds_no_devices(struct world *world,
                                           const struct job_seen *job)
{
    for (uint32_t m = 0; m < world->n_machines; m++)
        for (uint32_t i = 0; i < world->machines[m].n_procs; i++) {
            const struct proc *proc = &world->machines[m].procs[i];
            if (proc_is_live(proc, world->now_ms) && !proc->is_stopped &&
                !proc->is_frozen && strcmp(proc->job, job->id) == 0)
                invariant_broken(
                    &world->invariants,
                    "a suspended job holds no devices",
                    orr_str(job->id),
                    "%s is suspended, and rank %u of generation %u runs on "
                    "%s",
                    job->id,
                    proc->rank,
                    (unsigned)proc->generation,
                    world->machines[m].name);
        }
}

/* A generation that ended with its checkpoint committed, or one that could not be restored after all. */
static void job_moves(struct invariants *inv, const struct orr_msg_event *event)
{
    static const char prefix[] = "job/";
    struct orr_str id = event->subject;
    if (id.len < sizeof(prefix))
        return;
    id.ptr += sizeof(prefix) - 1;
    id.len -= (uint32_t)sizeof(prefix) - 1;
    struct job_seen *job = invariants_job(inv, id);
    bool has_moved = orr_str_eq(event->type, ORR_LIT("job.order")) &&
                     orr_str_eq(event->from, ORR_LIT("taken")) &&
                     orr_str_eq(event->to, ORR_LIT("queued")) && event->cause.len > 7 &&
                     (memcmp(event->cause.ptr, "migrate", 7) == 0 ||
                      memcmp(event->cause.ptr, "resize", 6) == 0);
    bool is_back = orr_str_eq(event->type, ORR_LIT("job.checkpoint")) &&
                   orr_str_eq(event->to, ORR_LIT("not restored"));
    if (has_moved)
        job->moving = event->generation;
    else if (is_back)
        job->moving = 0;
}

static void resized_job_has_so_many_devices(struct world *world,
                                            const struct orr_msg_event *event)
{
    struct orr_str id = {event->subject.ptr + 4, event->subject.len - 4};
    uint32_t devices = 0, n = 0;
    const char *text = strstr(event->cause.ptr, ": to ");
    bool is_it = orr_str_eq(event->type, ORR_LIT("job.order")) &&
                 strncmp(event->cause.ptr, "resize", 6) == 0 &&
                 orr_str_eq(event->to, ORR_LIT("done")) && text &&
                 sscanf(text, ": to %u device", &devices) == 1;
    for (uint32_t m = 0; m < world->n_machines && is_it; m++) {
        uint64_t used = 0;
        for (uint32_t i = 0; i < world->machines[m].n_procs; i++) {
            const struct proc *proc = &world->machines[m].procs[i];
            if (proc->generation != event->generation ||
                !orr_str_eq(orr_str(proc->job), id))
                continue;
            if (!proc_is_live(proc, world->now_ms) || proc->is_stopped)
                return; /* it has ended since, or is stopped again */
            used |= UINT64_C(1) << proc->device;
        }
        n += (uint32_t)__builtin_popcountll(used);
    }
    if (is_it && n && n != devices)
        invariant_broken(&world->invariants,
                         "a resized job has so many devices",
                         id,
                         "%.*s was to run on %u devices, and runs on %u",
                         ORR_STR_ARGS(id),
                         devices,
                         n);
}

/* What the region says of a job follows from what it said before. */
static void job_event_follows(struct world *world, const struct orr_msg_event *event)
{
    struct invariants *inv = &world->invariants;
    static const char prefix[] = "job/";
    struct orr_str id = event->subject;
    job_moves(inv, event);
    elastic_event_follows(world, event);
    resized_job_has_so_many_devices(world, event);
    if (!orr_str_eq(event->type, ORR_LIT("job.state")) || id.len < sizeof(prefix))
        return;
    id.ptr += sizeof(prefix) - 1;
    id.len -= (uint32_t)sizeof(prefix) - 1;
    struct job_seen *job = invariants_job(inv, id);
    bool is_new = !job->phase[0] && inv->first_seq > 1; /* its beginning was not seen */
    if (!is_new && !orr_str_eq(event->from, orr_str(job->phase)))
        invariant_broken(
            inv,
            is_end(job->phase)
                ? "an acknowledged submit ends in exactly one terminal phase"
                : "no event contradicts another",
            id,
            "%s goes from %.*s to %.*s and was %s",
            job->id,
            ORR_STR_ARGS(event->from),
            ORR_STR_ARGS(event->to),
            job->phase[0] ? job->phase : "not known");
    if (event->generation < job->told)
        invariant_broken(inv,
                         "nothing of an older generation changes anything",
                         id,
                         "%s becomes %.*s by generation %u after %u",
                         job->id,
                         ORR_STR_ARGS(event->to),
                         (unsigned)event->generation,
                         (unsigned)job->told);
    orr_str_copy(job->phase, sizeof(job->phase), event->to);
    job->told = event->generation;
    if (strcmp(job->phase, "running") == 0)
        job->moving = 0;
    if (strcmp(job->phase, "suspended") == 0)
        suspended_job_holds_no_devices(world, job);
    if (is_end(job->phase)) {
        inv->n_terminal++;
        ended_job_has_no_live_rank(world, job);
    }
}

static uint64_t event_hash(const struct orr_msg_event *event)
{
    uint8_t body[2048];
    size_t len = 0;
    ORR_ASSERT(orr_msg_encode(orr_msg_desc_event(), event, body, sizeof(body), &len) ==
               ORR_OK);
    return orr_hash((struct orr_str){(const char *)body, (uint32_t)len});
}

static void keep_event(struct invariants *inv, uint64_t hash)
{
    if (inv->n_events == inv->cap_events) {
        uint64_t cap = inv->cap_events ? inv->cap_events * 2 : 1024;
        uint64_t *events = realloc(inv->events, cap * sizeof(*events));
        ORR_ASSERT(events);
        inv->events = events;
        inv->cap_events = cap;
    }
    inv->events[inv->n_events++] = hash;
    inv->last_seq++;
}

static void begin_epoch(struct invariants *inv, const struct orr_msg_event *event)
{
    inv->epoch = event->epoch;
    inv->first_seq = event->seq;
    inv->last_seq = event->seq - 1;
    inv->n_events = 0;
}

void event_seq_is_contiguous(struct world *world,
                             struct event_stream *stream,
                             const struct orr_msg_event *event)
{
    struct invariants *inv = &world->invariants;
    if (event->epoch > inv->epoch)
        begin_epoch(inv, event);
    if (stream->epoch != event->epoch)
        *stream = (struct event_stream){.epoch = event->epoch};
    uint64_t before = stream->last_seq ? stream->last_seq : inv->last_seq;
    if (event->epoch < inv->epoch || event->seq > before + 1 ||
        event->seq > inv->last_seq + 1) {
        invariant_broken(inv,
                         "event seq is contiguous per epoch",
                         event->subject,
                         "event %u-%u follows %u-%u",
                         (unsigned)event->epoch,
                         (unsigned)event->seq,
                         (unsigned)inv->epoch,
                         (unsigned)before);
        return;
    }
    if (event->seq > stream->last_seq)
        stream->last_seq = event->seq;
    if (event->seq < inv->first_seq)
        return; /* older than all that is known: nothing to hold it against */
    uint64_t hash = event_hash(event);
    if (event->seq > inv->last_seq) {
        keep_event(inv, hash);
        job_event_follows(world, event);
    } else if (inv->events[event->seq - inv->first_seq] != hash) {
        invariant_broken(inv,
                         "no event contradicts another",
                         event->subject,
                         "event %u-%u was published with other words",
                         (unsigned)event->epoch,
                         (unsigned)event->seq);
    }
}

/* ---- clients ---- */

void acknowledged_submit_is_one_job(struct invariants *inv,
                                    struct orr_str key,
                                    const char *known_id,
                                    struct orr_str id)
{
    if (known_id[0] && !orr_str_eq(orr_str(known_id), id))
        invariant_broken(inv,
                         "an acknowledged submit is one job",
                         id,
                         "the submit with key %.*s was answered with %s and with %.*s",
                         ORR_STR_ARGS(key),
                         known_id,
                         ORR_STR_ARGS(id));
}

void acknowledged_submit_is_kept(struct invariants *inv, const char *id, bool is_lost)
{
    if (is_lost)
        invariant_broken(inv,
                         "an acknowledged submit ends in exactly one terminal phase, "
                         "or is live",
                         orr_str(id),
                         "%s was acknowledged, and the region does not know it",
                         id);
}

void request_is_answered_once(struct invariants *inv,
                              const char *what,
                              bool is_expected)
{
    if (!is_expected)
        invariant_broken(inv,
                         "every request is answered once or times out",
                         orr_str(what),
                         "a request about %s was answered again",
                         what);
}

void request_is_answered_in_time(struct invariants *inv,
                                 const char *what,
                                 uint64_t late_ms)
{
    if (late_ms)
        invariant_broken(inv,
                         "every request is answered once or times out",
                         orr_str(what),
                         "a request about %s has no answer %u ms after its time",
                         what,
                         (unsigned)late_ms);
}

/* ---- tables and ledger ---- */

void replay_of_the_log_is_the_state(struct invariants *inv,
                                    const char *host,
                                    uint64_t digest,
                                    const uint64_t *want,
                                    uint64_t n)
{
    uint64_t at = 0;
    while (at < n && want[at] != digest)
        at++;
    if (at == n)
        invariant_broken(inv,
                         "replay(log) == state",
                         orr_str(host),
                         "the tables of the region on %s are not what its ledger says",
                         host);
}
