/* SPDX-License-Identifier: Apache-2.0
 * split.c - see comm_make.h. Two steps on the parent's control lane: color and key,
 * then the unique id of each new communicator, made by its rank 0.
 */
#include "comm_make.h"
#include "rendezvous.h"

#include <string.h>

struct wish {
    int32_t color, key;
};

static ncclResult_t meet(struct ncclComm *parent, struct orri_why *why)
{
    enum orri_wait wait =
        orri_lane_meet(&parent->seg, LANE_CONTROL, orri_now_ms() + orri_timeout_ms());

    if (wait == WAIT_OK)
        return ncclSuccess;
    if (wait == WAIT_GONE)
        return orri_comm_remote_error(parent, -1, why);
    return orri_why_set(why,
                        ncclSystemError,
                        "not all ranks called ncclCommSplit within %u ms",
                        orri_timeout_ms());
}

static struct wish wish_of(struct ncclComm *parent, int rank)
{
    struct wish wish;

    memcpy(&wish, orri_lane_half(&parent->seg, LANE_CONTROL, rank), sizeof wish);
    return wish;
}

/* Fills in the new world; returns the parent's rank that is the new rank 0. */
static int new_world(struct ncclComm *parent, int *ret_nranks, int *ret_rank)
{
    struct wish mine = wish_of(parent, parent->rank), least = mine;
    int leader = parent->rank, before = 0, n = 0;

    for (int r = 0; r < parent->nranks; r++) {
        struct wish w = wish_of(parent, r);
        if (w.color != mine.color)
            continue;
        n++;
        before += w.key < mine.key || (w.key == mine.key && r < parent->rank);
        if (w.key < least.key || (w.key == least.key && r < leader)) {
            least = w;
            leader = r;
        }
    }
    *ret_nranks = n;
    *ret_rank = before;
    return leader;
}

static ncclResult_t agree(struct ncclComm *parent,
                          const struct wish *wish,
                          struct ncclComm *child,
                          ncclUniqueId *ret_id,
                          struct orri_why *why)
{
    struct orri_segment *seg = &parent->seg;
    ncclUniqueId id = {.internal = {0}};
    ncclResult_t result;
    int leader, nranks, rank;

    memcpy(orri_lane_half(seg, LANE_CONTROL, seg->rank), wish, sizeof *wish);
    if ((result = meet(parent, why)) != ncclSuccess)
        return result;
    leader = new_world(parent, &nranks, &rank);
    if (rank == 0 && wish->color != NCCL_SPLIT_NOCOLOR)
        orri_root_invite(&id,
                         why); /* if it fails, the id is void, and all will say so */
    orri_lane_next(seg, LANE_CONTROL);
    memcpy(orri_lane_half(seg, LANE_CONTROL, seg->rank), &id, sizeof id);
    if ((result = meet(parent, why)) != ncclSuccess)
        return result;
    memcpy(ret_id, orri_lane_half(seg, LANE_CONTROL, leader), sizeof *ret_id);
    orri_lane_next(seg, LANE_CONTROL);
    child->nranks = nranks;
    child->rank = rank;
    return ncclSuccess;
}

ncclResult_t orri_split_agree(struct ncclComm *parent,
                              int color,
                              int key,
                              struct ncclComm *child,
                              ncclUniqueId *ret_id)
{
    struct wish wish = {.color = color, .key = key};
    struct orri_why why = {.text = ""};
    ncclResult_t result;

    pthread_mutex_lock(&parent->control_lock);
    result = agree(parent, &wish, child, ret_id, &why);
    pthread_mutex_unlock(&parent->control_lock);
    if (result == ncclSuccess)
        return ncclSuccess;
    orri_comm_break(parent, result, &why);
    orri_comm_break(child, result, &why);
    return orri_fail(result, "%s", why.text);
}
