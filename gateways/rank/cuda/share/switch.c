/* SPDX-License-Identifier: Apache-2.0
 * switch.c - leaving and entering (shared.h): what a turn has changed goes to the backup, what others have changed comes from there.
 */
#include <stdlib.h>

#include "../arena.h"
#include "shared.h"

/* Copies between pieces and the backup, of those that are marked. */
static CUresult copy_marked(const struct orri_item *items, size_t n, bool is_out)
{
    struct orri_copies copies = {0};
    CUresult rc = CUDA_SUCCESS;
    for (size_t i = 0; i < n && !rc; i++) {
        struct orri_copy copy = {.device = items[i].at,
                                 .bytes = orri_share.meet.piece_bytes,
                                 .ctx = orri_share.ctx};
        if (!items[i].is_copied)
            continue;
        copy.host = orri_meet_content(&orri_share.meet, items[i].content);
        if ((is_out && !orri_meet_reserve(&orri_share.meet, items[i].content)) ||
            !orri_copies_add(&copies, copy))
            rc = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (!rc)
        rc = orri_copies_run(&copies, is_out, UINT64_MAX);
    orri_copies_fini(&copies);
    return rc;
}

/* ---- leaving ------------------------------------------------------------------------------------ */

static CUresult hash_all(const struct orri_item *items, size_t n, struct orri_hash *ret)
{
    CUdeviceptr *at = malloc((n ? n : 1) * sizeof *at);
    if (!at)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (size_t i = 0; i < n; i++)
        at[i] = items[i].at;
    CUresult rc = orri_hasher_run(&orri_share.hasher, at, n, ret);
    orri_share.counts.hashed += n;
    free(at);
    return rc;
}

static CUresult
ask_all(struct orri_item *items, size_t n, const struct orri_hash *hashes)
{
    struct orri_meet *m = &orri_share.meet;
    CUresult rc = CUDA_SUCCESS;
    orri_meet_lock(m);
    for (size_t i = 0; i < n && !rc; i++) {
        items[i].content = orri_leave_ask(
            m->board, m->me, items[i].slot, &hashes[i], &items[i].is_copied);
        if (!items[i].content)
            rc = CUDA_ERROR_OUT_OF_MEMORY; /* orri_slots_add sees to it */
        orri_share.counts.copied_out += items[i].is_copied;
    }
    orri_meet_unlock(m);
    return rc;
}

/* From here on others may write to the frames. */
static void pass(const struct orri_item *items, size_t n)
{
    struct orri_meet *m = &orri_share.meet;
    orri_meet_lock(m);
    for (size_t i = 0; i < n; i++)
        orri_leave_slot(m->board, m->me, items[i].slot, items[i].content);
    orri_leave_end(m->board, m->me);
    orri_turn_pass(m->board, m->me);
    orri_meet_unlock(m);
}

/* Somebody needs the room: what can be common is. */
static void give_up_private(void)
{
    struct orri_item *items = NULL;
    size_t n = 0;
    if (!orri_items_list(true, &items, &n))
        return;
    for (size_t i = 0; i < n; i++)
        if (items[i].piece->own)
            orri_piece_make_common(&items[i]);
    free(items);
}

CUresult orri_switch_leave(void)
{
    struct orri_meet *m = &orri_share.meet;
    struct orri_item *items = NULL;
    struct orri_hash *hashes = NULL;
    size_t n = 0;
    if (m->board->is_tight)
        give_up_private();
    if (!orri_items_list(false, &items, &n))
        return CUDA_ERROR_OUT_OF_MEMORY;
    hashes = malloc((n ? n : 1) * sizeof *hashes);
    CUresult rc = hashes ? hash_all(items, n, hashes) : CUDA_ERROR_OUT_OF_MEMORY;
    if (!rc) {
        rc = ask_all(items, n, hashes);
        if (!rc)
            rc = copy_marked(items, n, true);
        if (!rc)
            pass(items, n);
    }
    if (rc) {
        orri_meet_lock(m);
        orri_leave_not(m->board, m->me);
        orri_meet_unlock(m);
    }
    free(hashes);
    free(items);
    return rc;
}

/* ---- entering ----------------------------------------------------------------------------------- */

static void look_up(struct orri_item *items, size_t n)
{
    struct orri_meet *m = &orri_share.meet;
    orri_meet_lock(m);
    for (size_t i = 0; i < n; i++) {
        items[i].content = orri_enter_slot(m->board, m->me, items[i].slot);
        items[i].is_copied = items[i].content >= ORRI_CONTENT;
        orri_share.counts.copied_in += items[i].is_copied;
        orri_share.counts.zeroed += items[i].content == ORRI_ZERO;
    }
    orri_meet_unlock(m);
}

static CUresult clear_zeros(const struct orri_item *items, size_t n)
{
    CUresult rc = CUDA_SUCCESS;
    for (size_t i = 0; i < n && !rc; i++)
        if (items[i].content == ORRI_ZERO)
            rc = REAL(cuMemsetD8Async)(
                items[i].at, 0, orri_share.meet.piece_bytes, orri_share.stream);
    CUresult done =
        orri_share.stream ? REAL(cuStreamSynchronize)(orri_share.stream) : CUDA_SUCCESS;
    return rc ? rc : done;
}

/* What there is no room for stays common. */
static void set_apart(const struct orri_item *items, size_t n)
{
    const struct orri_meet *m = &orri_share.meet;
    for (size_t i = 0; i < n; i++)
        if (orri_enter_is_apart(m->board, m->me, items[i].slot) &&
            orri_piece_make_private(&items[i]) != CUDA_SUCCESS)
            return;
}

CUresult orri_switch_enter(void)
{
    struct orri_item *items = NULL;
    size_t n = 0;
    if (!orri_items_list(false, &items, &n))
        return CUDA_ERROR_OUT_OF_MEMORY;
    look_up(items, n);
    CUresult rc = clear_zeros(items, n);
    if (!rc)
        rc = copy_marked(items, n, false);
    if (!rc)
        set_apart(items, n);
    free(items);
    return rc;
}
