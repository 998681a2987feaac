/* SPDX-License-Identifier: Apache-2.0
 * group.c - group semantics, and the way of operations through streams (op.h).
 *
 * At the end of a group the operations of each communicator become one *plan*. The plan
 * is enqueued as a host function on its first stream, where it runs, and on each other
 * stream that its operations named, where it only waits: so the plan starts when all of
 * these streams have come to it, and they go on when it is over. In a plan collectives
 * run first, in order, then all sends and receives side by side.
 *
 * A plan that fails, or finds its communicator broken, stays in its streams until the communicator is aborted here: so does a kernel of
 * the real library whose peer is gone, and nothing that comes after it in the stream sees what it has left half done.
 */
#include "export.h"
#include "op.h"

#include <stdlib.h>
#include <string.h>

enum { ITEMS_MAX = 65536, JOBS_MAX = 1024 };

struct item {
    struct ncclComm *comm; /* referenced */
    CUstream stream;
    struct orri_op op;
};

struct job {
    orri_group_job_f *fn;
    void *arg;
    pthread_t thread;
    bool has_thread;
    ncclResult_t result;
    struct orri_why why;
};

static _Thread_local struct {
    int depth;
    ncclResult_t error;
    struct item *items; /* owned */
    size_t nitems, items_room;
    struct job *jobs; /* owned */
    size_t njobs;
} group;

/* Guarded by the communicator's lock, once launched. */
struct plan {
    struct ncclComm *comm; /* referenced */
    uint64_t ticket;
    int streams, reached;
    bool is_over, is_cancelled;
    int refs;    /* one per stream and one for the launcher */
    size_t nops; /* collectives, then sends and receives */
    size_t ncollectives;
    struct orri_op ops[];
};

bool orri_group_is_open(void)
{
    return group.depth > 0;
}

ncclResult_t orri_group_note(ncclResult_t result)
{
    if (group.depth > 0 && result != ncclInProgress && group.error == ncclSuccess)
        group.error = result;
    return result;
}

static void plan_unref(struct plan *p)
{
    struct ncclComm *comm = p->comm;
    bool last;

    pthread_mutex_lock(&comm->lock);
    last = --p->refs == 0;
    pthread_mutex_unlock(&comm->lock);
    if (!last)
        return;
    free(p);
    orri_comm_put(comm);
}

static void plan_execute(struct plan *p)
{
    struct orri_why why = {.text = ""};
    ncclResult_t result = ncclSuccess;

    for (size_t i = 0; i < p->ncollectives && result == ncclSuccess; i++)
        result = orri_collective_run(p->comm, &p->ops[i], &why);
    if (result == ncclSuccess && p->nops > p->ncollectives)
        result = orri_exchange_run(
            p->comm, &p->ops[p->ncollectives], p->nops - p->ncollectives, &why);
    if (result != ncclSuccess)
        orri_comm_break(p->comm, result, &why);
}

/* With the lock. */
static bool is_broken(const struct ncclComm *comm)
{
    return comm->state != ncclSuccess && comm->state != ncclInProgress;
}

/* On the plan's first stream. */
static void lead(void *arg)
{
    struct plan *p = arg;
    struct ncclComm *comm = p->comm;
    bool go;

    pthread_mutex_lock(&comm->lock);
    p->reached++;
    while (!atomic_load(&comm->aborted) && !p->is_cancelled &&
           (p->reached < p->streams || comm->retired != p->ticket))
        pthread_cond_wait(&comm->turn, &comm->lock);
    go = !atomic_load(&comm->aborted) && !p->is_cancelled && !is_broken(comm);
    comm->running += go;
    pthread_mutex_unlock(&comm->lock);
    if (go)
        plan_execute(p);
    pthread_mutex_lock(&comm->lock);
    comm->running -= go;
    if (comm->running == 0) /* an abort may wait for it */
        pthread_cond_broadcast(&comm->turn);
    while (is_broken(comm) && !p->is_cancelled && !atomic_load(&comm->aborted))
        pthread_cond_wait(&comm->turn, &comm->lock);
    comm->retired++;
    p->is_over = true;
    pthread_cond_broadcast(&comm->turn);
    pthread_mutex_unlock(&comm->lock);
    plan_unref(p);
}

/* On its other streams. */
static void follow(void *arg)
{
    struct plan *p = arg;
    struct ncclComm *comm = p->comm;

    pthread_mutex_lock(&comm->lock);
    p->reached++;
    pthread_cond_broadcast(&comm->turn);
    while (!p->is_over && !atomic_load(&comm->aborted))
        pthread_cond_wait(&comm->turn, &comm->lock);
    pthread_mutex_unlock(&comm->lock);
    plan_unref(p);
}

/* The plan of one communicator; its items become empty. The first stream comes first.
 */
static struct plan *plan_new(struct ncclComm *comm, size_t first)
{
    struct plan *p;
    size_t n = 0, at = 0;

    for (size_t i = first; i < group.nitems; i++)
        n += group.items[i].comm == comm;
    p = calloc(1, sizeof *p + n * sizeof p->ops[0]);
    if (!p)
        return NULL;
    for (int round = 0; round < 2; round++) {
        for (size_t i = first; i < group.nitems; i++) {
            const struct item *item = &group.items[i];
            if (item->comm == comm && (item->op.kind >= OP_SEND) == (round == 1))
                p->ops[at++] = item->op;
        }
        if (round == 0)
            p->ncollectives = at;
    }
    orri_comm_ref(comm);
    p->comm = comm;
    p->nops = n;
    p->refs = 1;
    return p;
}

/* Is this the first item of its communicator with this stream? */
static bool is_new_stream(size_t first, size_t at)
{
    for (size_t i = first; i < at; i++)
        if (group.items[i].comm == group.items[at].comm &&
            group.items[i].stream == group.items[at].stream)
            return false;
    return true;
}

static ncclResult_t check_self(const struct plan *p)
{
    long balance = 0;

    for (size_t i = p->ncollectives; i < p->nops; i++)
        if (p->ops[i].root == p->comm->rank)
            balance += p->ops[i].kind == OP_SEND ? 1 : -1;
    if (balance == 0)
        return ncclSuccess;
    return orri_fail(
        ncclInvalidUsage,
        "rank %d sends to itself without receiving, or the reverse: put both "
        "into one group",
        p->comm->rank);
}

/* Enqueues on one stream; the first one leads. */
static ncclResult_t plan_enqueue(struct plan *p, CUstream stream, bool leads)
{
    struct orri_why why;
    ncclResult_t result;

    pthread_mutex_lock(&p->comm->lock);
    p->refs++;
    pthread_mutex_unlock(&p->comm->lock);
    result = orri_place_launch(&p->comm->place, stream, leads ? lead : follow, p, &why);
    if (result == ncclSuccess)
        return ncclSuccess;
    pthread_mutex_lock(&p->comm->lock);
    p->is_cancelled = true;
    pthread_cond_broadcast(&p->comm->turn);
    pthread_mutex_unlock(&p->comm->lock);
    plan_unref(p);
    return orri_fail(result, "%s", why.text);
}

static ncclResult_t launch(struct ncclComm *comm, size_t first)
{
    struct plan *p = plan_new(comm, first);
    ncclResult_t result;
    bool leads = true;

    if (!p)
        return orri_fail(ncclSystemError, "out of memory");
    for (size_t i = first; i < group.nitems; i++)
        p->streams += group.items[i].comm == comm && is_new_stream(first, i);
    result = check_self(p);
    pthread_mutex_lock(&comm->issue_lock);
    if (result == ncclSuccess && !comm->place.ctx)
        result =
            orri_fail(ncclInvalidUsage, "the communicator was destroyed meanwhile");
    p->ticket = comm->issued;
    for (size_t i = first; i < group.nitems && result == ncclSuccess; i++) {
        if (group.items[i].comm != comm || !is_new_stream(first, i))
            continue;
        result = plan_enqueue(p, group.items[i].stream, leads);
        if (leads && result == ncclSuccess)
            comm->issued++;
        leads = false;
    }
    pthread_mutex_unlock(&comm->issue_lock);
    plan_unref(p);
    return result;
}

static bool is_new_comm(size_t at)
{
    for (size_t i = 0; i < at; i++)
        if (group.items[i].comm == group.items[at].comm)
            return false;
    return true;
}

static void *job_thread(void *arg)
{
    struct job *job = arg;

    job->result = job->fn(job->arg, true);
    if (job->result != ncclSuccess)
        orri_why_set(&job->why, job->result, "%s", orri_last_error());
    return NULL;
}

/* Runs the jobs side by side, since they wait for one another. */
static ncclResult_t run_jobs(struct job *jobs, size_t n)
{
    ncclResult_t result = ncclSuccess;

    for (size_t i = 0; i < n; i++) {
        jobs[i].has_thread =
            pthread_create(&jobs[i].thread, NULL, job_thread, &jobs[i]) == 0;
        if (!jobs[i].has_thread)
            job_thread(&jobs[i]);
    }
    for (size_t i = 0; i < n; i++) {
        if (jobs[i].has_thread)
            pthread_join(jobs[i].thread, NULL);
        if (jobs[i].result != ncclSuccess && result == ncclSuccess)
            result = orri_fail(jobs[i].result, "%s", jobs[i].why.text);
    }
    return result;
}

static void drop_jobs(struct job *jobs, size_t n)
{
    for (size_t i = 0; i < n; i++)
        jobs[i].fn(jobs[i].arg, false);
}

static void group_clear(void)
{
    for (size_t i = 0; i < group.nitems; i++)
        orri_comm_put(group.items[i].comm);
    free(group.items);
    free(group.jobs);
    memset(&group, 0, sizeof group);
}

ncclResult_t orri_group_job(orri_group_job_f *fn, void *arg)
{
    struct job *more;

    if (group.depth == 0)
        return fn(arg, true);
    more = group.njobs < JOBS_MAX
               ? realloc(group.jobs, (group.njobs + 1) * sizeof *group.jobs)
               : NULL;
    if (!more) {
        fn(arg, false);
        return orri_fail(
            ncclSystemError, "more than %d communicators in a group", (int)JOBS_MAX);
    }
    group.jobs = more;
    group.jobs[group.njobs++] = (struct job){.fn = fn, .arg = arg};
    return ncclSuccess;
}

ncclResult_t
orri_group_add(struct ncclComm *comm, const struct orri_op *op, CUstream stream)
{
    bool alone = group.depth == 0;

    if (group.nitems == group.items_room) {
        size_t room = group.items_room ? group.items_room * 2 : alone ? 1 : 16;
        struct item *more =
            room <= ITEMS_MAX ? realloc(group.items, room * sizeof *more) : NULL;
        if (!more)
            return orri_fail(
                ncclSystemError, "more than %d calls in a group", (int)ITEMS_MAX);
        group.items = more;
        group.items_room = room;
    }
    orri_comm_ref(comm);
    group.items[group.nitems++] =
        (struct item){.comm = comm, .stream = stream, .op = *op};
    if (!alone)
        return ncclSuccess;
    group.depth = 1;
    return ncclGroupEnd();
}

EXPORT ncclResult_t ncclGroupStart(void)
{
    group.depth++;
    return ncclSuccess;
}
ALIAS(GroupStart);

EXPORT ncclResult_t ncclGroupEnd(void)
{
    ncclResult_t result;
    struct job *jobs = group.jobs;

    if (group.depth == 0)
        return orri_fail(ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart");
    if (group.depth > 1) {
        group.depth--;
        return ncclSuccess;
    }
    result = group.error;
    group.jobs = NULL;
    if (result == ncclSuccess)
        result = run_jobs(jobs, group.njobs);
    else
        drop_jobs(jobs, group.njobs);
    free(jobs);
    for (size_t i = 0; i < group.nitems && result == ncclSuccess; i++)
        if (is_new_comm(i))
            result = launch(group.items[i].comm, i);
    group_clear();
    return result;
}
ALIAS(GroupEnd);
