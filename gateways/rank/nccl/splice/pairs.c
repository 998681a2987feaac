/* SPDX-License-Identifier: Apache-2.0
 * pairs.c - real communicators of two ranks on different devices, for their sends and receives (exchange.c).
 *
 * Made when the two first need one: the lower rank makes a unique id and posts it (core/part.h), the other waits for it.  All that a
 * group needs are made together, so that nobody waits in a circle within groups.
 */
#include "../../core/part.h"
#include "splice.h"

#include <stdlib.h>

enum { DEADLINE_MS = 60000 };

struct pair_name { /* hashed: no padding */
    uint64_t seed;
    uint32_t low, high;
};

static uint64_t name_of(const struct orri_splice *s, int peer)
{
    int me = s->map.me;
    struct pair_name name = {s->pair_seed,
                             (uint32_t)(me < peer ? me : peer),
                             (uint32_t)(me < peer ? peer : me)};

    return orri_key(2, &name, sizeof name);
}

static ncclResult_t
post_ids(struct orri_splice *s, const int *peers, int n, ncclUniqueId *ids)
{
    ncclResult_t result = ncclSuccess;

    for (int i = 0; i < n && result == ncclSuccess; i++) {
        if (peers[i] < s->map.me)
            continue;
        result = REAL(GetUniqueId, &ids[i]);
        if (result == ncclSuccess &&
            !orri_post(name_of(s, peers[i]), (uint8_t *)&ids[i]))
            result = orri_nccl_fail(ncclSystemError, "the node's host is gone");
    }
    return result;
}

/* Nobody sees one before it is whole. */
static ncclResult_t
init_all(struct orri_splice *s, const int *peers, int n, const ncclUniqueId *ids)
{
    ncclComm_t *made = calloc((size_t)n, sizeof(ncclComm_t));
    ncclResult_t result =
        made ? REAL0(GroupStart) : orri_nccl_fail(ncclSystemError, "out of memory");
    ncclResult_t end;

    if (!made)
        return result;
    for (int i = 0; i < n && result == ncclSuccess; i++)
        result = REAL(CommInitRank, &made[i], 2, ids[i], s->map.me > peers[i]);
    end = REAL0(GroupEnd);
    result = result == ncclSuccess ? end : result;
    for (int i = 0; i < n && result == ncclSuccess; i++)
        atomic_store(&s->far[peers[i]].comm, made[i]);
    free(made);
    return result;
}

static bool await_id(uint64_t name, ncclUniqueId *ret, uint64_t deadline_ms)
{
    return orri_await_posts(&name, 1, (void *)ret, deadline_ms);
}

ncclResult_t orri_pairs_make(struct orri_splice *s, const int *peers, int n)
{
    uint64_t deadline_ms = orri_nccl_now_ms() + DEADLINE_MS;
    ncclUniqueId *ids = calloc((size_t)n, sizeof *ids);
    ncclResult_t result = ids ? post_ids(s, peers, n, ids)
                              : orri_nccl_fail(ncclSystemError, "out of memory");

    for (int i = 0; i < n && result == ncclSuccess; i++)
        if (peers[i] < s->map.me &&
            !await_id(name_of(s, peers[i]), &ids[i], deadline_ms))
            result = orri_nccl_fail(ncclRemoteError,
                                    "rank %d has not sent to, nor received from, rank "
                                    "%d within %d s",
                                    peers[i],
                                    s->map.me,
                                    DEADLINE_MS / 1000);
    if (result == ncclSuccess)
        result = init_all(s, peers, n, ids);
    free(ids);
    return result;
}

void orri_pairs_drop(struct orri_splice *s)
{
    for (int r = 0; r < s->map.n; r++) {
        ncclComm_t comm = atomic_exchange(&s->far[r].comm, NULL);
        if (comm)
            REAL(CommDestroy, comm);
    }
}

void orri_pairs_abort(struct orri_splice *s)
{
    for (int r = 0; r < s->map.n; r++) {
        ncclComm_t comm = atomic_exchange(&s->far[r].comm, NULL);
        if (comm)
            REAL(CommAbort, comm);
    }
}
