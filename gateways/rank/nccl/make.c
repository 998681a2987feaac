/* SPDX-License-Identifier: Apache-2.0
 * make.c - making communicators: init and split (op.h).
 *
 * The key of a communicator is what all of its ranks know alike and nobody else has: the unique id, or the parent's key, the how
 * manyth split of the parent it is, and the color.
 */
#include "places.h"

#include <stdlib.h>
#include <string.h>

struct orri_clock *orri_making_clock(const struct orri_making *m)
{
    return m->kind == ORRI_MAKE_SPLIT ? m->parent->clock : m->c->clock;
}

/* Where devices are shared: of the leaders, or, of a child of a spliced one, anew. */
static ncclResult_t call_met(struct orri_making *m)
{
    int n, me;

    if (!m->c || !orri_splice_real(m->c, &n, &me))
        return ncclSuccess;
    if (m->config.is_set)
        m->config.u.c.blocking = 1; /* its scratch is shared right after */
    return REAL(CommInitRankConfig,
                (void *)&m->c->real,
                n,
                m->ids[0],
                me,
                orri_config_get(&m->config));
}

ncclResult_t orri_making_call(struct orri_making *m)
{
    ncclComm_t *real = m->c ? (void *)&m->c->real : &m->parent->sink;
    ncclComm_t parent = NULL;
    ncclResult_t result = m->parent ? orri_comm_real(m->parent, &parent) : ncclSuccess;
    ncclConfig_t *config = orri_config_get(&m->config);

    if (result != ncclSuccess)
        return result;
    if (m->places)
        return call_met(m);
    switch (m->kind) {
    case ORRI_MAKE_INIT:
        return config ? REAL(CommInitRankConfig, real, m->n, m->ids[0], m->me, config)
                      : REAL(CommInitRank, real, m->n, m->ids[0], m->me);
    case ORRI_MAKE_SCALABLE:
        return REAL(CommInitRankScalable, real, m->n, m->me, m->nids, m->ids, config);
    case ORRI_MAKE_SPLIT:
        return REAL(CommSplit, parent, m->color, m->key, real, config);
    case ORRI_MAKE_SHRINK:
        return REAL(
            CommShrink, parent, m->excluded, m->nexcluded, real, config, m->flags);
    }
    return ncclInternalError;
}

void orri_making_result(struct orri_making *m, ncclResult_t result)
{
    struct orri_comm *c = m->c;

    if (!c || orri_comm_find(m->handle) != c)
        return;
    if (result == ncclSuccess || result == ncclInProgress) {
        if (orri_config_is_blocking(&c->config))
            orri_comm_settle(c); /* a split: now it has a size */
    } else {
        *m->program = NULL;
        orri_splice_end_comm(c);
        if (orri_comm_forget(c, m->handle)) { /* else: aborted meanwhile */
            orri_gone_add(c->key);
            orri_comm_free(c);
        }
    }
}

void orri_making_free(struct orri_making *m)
{
    free(m->ids);
    free(m->excluded);
    free(m->places);
    free(m);
}

/* Those that meet, before the real calls: first all speak, then all listen. */
static ncclResult_t
meet_all(struct orri_making *const *list, size_t n, const struct orri_handover *h)
{
    ncclResult_t result = ncclSuccess;

    for (size_t i = 0; i < n && result == ncclSuccess; i++)
        result = orri_making_post(list[i], h);
    for (size_t i = 0; i < n && result == ncclSuccess; i++)
        result = orri_making_meet(list[i]);
    return result;
}

ncclResult_t orri_makings_run(struct orri_making *const *list,
                              size_t n,
                              ncclResult_t (*issue)(void *arg),
                              void *arg)
{
    struct orri_handover *h = NULL;
    struct orri_making **met = n ? calloc(n, sizeof(struct orri_making *)) : NULL;
    ncclResult_t result =
        n && !met ? orri_nccl_fail(ncclSystemError, "out of memory") : ncclSuccess;
    size_t nmet = 0;

    for (size_t i = 0; i < n && met; i++)
        if (orri_making_meets(list[i]))
            met[nmet++] = list[i];
    if (nmet > 0 && !(h = orri_handover_new()))
        result = ncclSystemError;
    if (result == ncclSuccess && nmet > 0)
        result = meet_all(met, nmet, h);
    if (result == ncclSuccess)
        result = issue(arg);
    if (result == ncclSuccess && nmet > 0)
        result = orri_making_share(met, nmet, h);
    orri_handover_free(h);
    free(met);
    return result;
}

static ncclResult_t call_one(void *arg)
{
    return orri_making_call(arg);
}

/* Now, or at the end of the group.  Takes over m. */
static ncclResult_t make(struct orri_making *m)
{
    struct orri_clock *clock;
    ncclResult_t result;

    *m->program = m->handle = m->c ? orri_comm_publish(m->c) : NULL;
    if (orri_group_is_open())
        return orri_group_note(orri_group_add_making(m));
    clock = orri_making_clock(m);
    orri_gate_enter(&clock,
                    clock ? 1 : 0,
                    m->kind == ORRI_MAKE_SPLIT ? ORR_CLOCK_OP_SPLIT
                                               : ORR_CLOCK_OP_CREATE);
    result = orri_makings_run(&m, 1, call_one, m);
    orri_making_result(m, result);
    orri_gate_leave();
    orri_making_free(m);
    return result;
}

static struct orri_making *making_new(enum orri_making_kind kind, ncclComm_t *program)
{
    struct orri_making *m = calloc(1, sizeof *m);

    if (!m) {
        orri_nccl_fail(ncclSystemError, "out of memory");
        return NULL;
    }
    m->kind = kind;
    m->program = program;
    return m;
}

static void *copy_of(const void *data, size_t size)
{
    void *copy = malloc(size ? size : 1);

    if (copy && size)
        memcpy(copy, data, size);
    else if (!copy)
        orri_nccl_fail(ncclSystemError, "out of memory");
    return copy;
}

static ncclResult_t bad_config(void)
{
    return orri_nccl_fail(ncclInvalidArgument,
                          "the config was not set from NCCL_CONFIG_INITIALIZER");
}

/* ---- Init ---------------------------------------------------------------------------- */

static ncclResult_t init(enum orri_making_kind kind,
                         ncclComm_t *comm,
                         int n,
                         const ncclUniqueId *ids,
                         int nids,
                         int me,
                         const ncclConfig_t *config)
{
    struct orri_making *m = making_new(kind, comm);

    if (!m)
        return orri_group_note(ncclSystemError);
    m->n = n;
    m->me = me;
    m->nids = nids;
    m->ids = copy_of(ids, (size_t)nids * sizeof *ids);
    if (m->ids && orri_config_copy(&m->config, config))
        m->c = orri_comm_new(orri_key(0, ids, (size_t)nids * sizeof *ids), n, me);
    else if (m->ids)
        bad_config();
    if (!m->c) {
        bool is_bad = m->ids && config && !m->config.is_set;
        orri_making_free(m);
        return orri_group_note(is_bad ? ncclInvalidArgument : ncclSystemError);
    }
    m->c->config = m->config;
    return make(m);
}

static bool is_sound(const ncclComm_t *comm, int n, int me)
{
    return comm && n >= 1 && me >= 0 && me < n;
}

EXPORT ncclResult_t ncclCommInitRank(ncclComm_t *comm,
                                     int nranks,
                                     ncclUniqueId id,
                                     int rank)
{
    ENTER(CommInitRank, comm, nranks, id, rank);
    if (!is_sound(comm, nranks, rank)) /* the real one says what is wrong */
        return orri_group_note(REAL(CommInitRank, comm, nranks, id, rank));
    return init(ORRI_MAKE_INIT, comm, nranks, &id, 1, rank, NULL);
}
ALIAS(CommInitRank);

EXPORT ncclResult_t ncclCommInitRankConfig(
    ncclComm_t *comm, int nranks, ncclUniqueId id, int rank, ncclConfig_t *config)
{
    ENTER(CommInitRankConfig, comm, nranks, id, rank, config);
    if (!is_sound(comm, nranks, rank))
        return orri_group_note(
            REAL(CommInitRankConfig, comm, nranks, id, rank, config));
    return init(ORRI_MAKE_INIT, comm, nranks, &id, 1, rank, config);
}
ALIAS(CommInitRankConfig);

EXPORT ncclResult_t ncclCommInitRankScalable(ncclComm_t *comm,
                                             int nranks,
                                             int rank,
                                             int nids,
                                             ncclUniqueId *ids,
                                             ncclConfig_t *config)
{
    ENTER(CommInitRankScalable, comm, nranks, rank, nids, ids, config);
    if (!is_sound(comm, nranks, rank) || nids < 1 || nids > nranks || !ids)
        return orri_group_note(
            REAL(CommInitRankScalable, comm, nranks, rank, nids, ids, config));
    return init(ORRI_MAKE_SCALABLE, comm, nranks, ids, nids, rank, config);
}
ALIAS(CommInitRankScalable);

/* All ranks are in this process and made by one call of it: the key is a unique id of our own. */
static ncclResult_t init_all(ncclComm_t *comms, int n, const int *devices)
{
    ncclComm_t *real = calloc((size_t)n, sizeof(ncclComm_t));
    struct orri_comm **made = calloc((size_t)n, sizeof *made);
    ncclUniqueId id;
    ncclResult_t result = real && made
                              ? REAL(GetUniqueId, &id)
                              : orri_nccl_fail(ncclSystemError, "out of memory");

    for (int i = 0; i < n && result == ncclSuccess; i++) {
        made[i] = orri_comm_new(orri_key(0, &id, sizeof id), n, i);
        if (!made[i])
            result = ncclInternalError;
    }
    if (result == ncclSuccess) {
        struct orri_clock *clock = made[0]->clock;
        orri_gate_enter(&clock, 0, ORR_CLOCK_OP_CREATE); /* nobody else takes part */
        result = REAL(CommInitAll, real, n, devices);
        for (int i = 0; i < n && result == ncclSuccess; i++) {
            made[i]->ctx = NULL; /* each has its own device's */
            atomic_store(&made[i]->real, real[i]);
            orri_comm_settle(made[i]);
            comms[i] = orri_comm_publish(made[i]);
        }
        orri_gate_leave();
    }
    for (int i = 0; i < n && made && result != ncclSuccess; i++)
        if (made[i])
            orri_comm_free(made[i]);
    free(made);
    free(real);
    return result;
}

EXPORT ncclResult_t ncclCommInitAll(ncclComm_t *comms, int ndev, const int *devlist)
{
    ENTER(CommInitAll, comms, ndev, devlist);
    if (!comms || ndev < 1 || ndev > ORRI_COMMS_MAX)
        return REAL(CommInitAll, comms, ndev, devlist);
    return orri_group_note(init_all(comms, ndev, devlist));
}
ALIAS(CommInitAll);

/* ---- Split, shrink --------------------------------------------------------------------- */

struct child_name { /* hashed: no padding */
    uint64_t parent;
    uint32_t how, ordinal;
    int64_t color;
};

/* ret_meeting: what all of the parent's know alike. */
static uint64_t child_key(struct orri_comm *parent,
                          enum orri_making_kind how,
                          int64_t color,
                          uint64_t *ret_meeting)
{
    struct child_name name = {.parent = parent->key, .how = how};

    pthread_mutex_lock(&parent->lock);
    name.ordinal = how == ORRI_MAKE_SPLIT ? parent->splits++ : parent->shrinks++;
    pthread_mutex_unlock(&parent->lock);
    *ret_meeting = orri_key(5, &name, sizeof name);
    name.color = color;
    return orri_key(1, &name, sizeof name);
}

/* Checks what both have; NULL: *ret_result. */
static struct orri_making *child_new(enum orri_making_kind kind,
                                     ncclComm_t handle,
                                     ncclComm_t *newcomm,
                                     const ncclConfig_t *config,
                                     ncclResult_t *ret_result)
{
    struct orri_comm *parent = orri_comm_get(handle);
    struct orri_making *m = NULL;

    *ret_result = parent ? orri_comm_check(parent) : ncclInvalidArgument;
    if (*ret_result == ncclSuccess && !newcomm)
        *ret_result = orri_nccl_fail(ncclInvalidArgument, "newcomm is NULL");
    if (*ret_result != ncclSuccess)
        return NULL;
    m = making_new(kind, newcomm);
    *ret_result = ncclSystemError;
    if (!m)
        return NULL;
    m->parent = parent;
    if (!orri_config_copy(&m->config, config)) {
        *ret_result = bad_config();
        free(m);
        return NULL;
    }
    return m;
}

/* The new communicator of m; false: there is no room (and m is gone). */
static bool child_add(struct orri_making *m, uint64_t key, int n, int me)
{
    m->c = orri_comm_new(key, n, me);
    if (!m->c) {
        orri_making_free(m);
        return false;
    }
    m->c->config = m->config;
    orri_config_inherit(&m->c->config, &m->parent->config);
    m->c->ctx = m->parent->ctx;
    return true;
}

EXPORT ncclResult_t ncclCommSplit(
    ncclComm_t handle, int color, int key, ncclComm_t *newcomm, ncclConfig_t *config)
{
    struct orri_making *m;
    ncclResult_t result;
    uint64_t child;

    ENTER_COMM(handle, CommSplit, handle, color, key, newcomm, config);
    if (color < NCCL_SPLIT_NOCOLOR)
        return orri_group_note(orri_nccl_fail(
            ncclInvalidArgument, "ncclCommSplit: color %d is negative", color));
    m = child_new(ORRI_MAKE_SPLIT, handle, newcomm, config, &result);
    if (!m)
        return orri_group_note(result);
    m->color = color;
    m->key = key;
    child = child_key(m->parent, ORRI_MAKE_SPLIT, color, &m->meeting);
    if (color != NCCL_SPLIT_NOCOLOR && !child_add(m, child, 0, 0))
        return orri_group_note(ncclInternalError);
    return make(m);
}
ALIAS(CommSplit);

/* The rank and size that are left to rank `me` of n; false: the list is not one of ranks, or me is in it. */
static bool after_exclusion(
    const int *excluded, int nexcluded, int n, int me, int *ret_n, int *ret_me)
{
    *ret_n = n - nexcluded;
    *ret_me = me;
    for (int i = 0; i < nexcluded; i++) {
        if (excluded[i] < 0 || excluded[i] >= n || excluded[i] == me)
            return false;
        *ret_me -= excluded[i] < me;
    }
    return *ret_n >= 1 && *ret_me >= 0 && *ret_me < *ret_n;
}

EXPORT ncclResult_t ncclCommShrink(ncclComm_t handle,
                                   int *excluded,
                                   int nexcluded,
                                   ncclComm_t *newcomm,
                                   ncclConfig_t *config,
                                   int flags)
{
    struct orri_comm *parent;
    struct orri_making *m;
    ncclResult_t result;
    int n, me;

    ENTER_COMM(handle, CommShrink, handle, excluded, nexcluded, newcomm, config, flags);
    parent = orri_comm_find(handle);
    if (!parent || !excluded || nexcluded < 1 || !newcomm ||
        !after_exclusion(
            excluded, nexcluded, atomic_load(&parent->n), parent->me, &n, &me)) {
        orri_use_begin(); /* the real one says what is wrong */
        result = REAL(CommShrink,
                      parent ? atomic_load(&parent->real) : NULL,
                      excluded,
                      nexcluded,
                      newcomm,
                      config,
                      flags);
        orri_use_end();
        return orri_group_note(result == ncclSuccess ? ncclInvalidArgument : result);
    }
    m = child_new(ORRI_MAKE_SHRINK, handle, newcomm, config, &result);
    if (!m)
        return orri_group_note(result);
    m->flags = flags;
    m->nexcluded = nexcluded;
    m->excluded = copy_of(excluded, (size_t)nexcluded * sizeof *excluded);
    if (!m->excluded) {
        orri_making_free(m);
        return orri_group_note(ncclSystemError);
    }
    if (!child_add(m, child_key(m->parent, ORRI_MAKE_SHRINK, 0, &m->meeting), n, me))
        return orri_group_note(ncclInternalError);
    return make(m);
}
ALIAS(CommShrink);
