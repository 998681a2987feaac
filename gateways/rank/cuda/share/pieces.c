/* SPDX-License-Identifier: Apache-2.0
 * pieces.c - the physical memory of pieces (shared.h): frames that are made here or handed over by who has them, memory of this rank's
 * own, and the way from one to the other.  All of it with the turn, so no other rank changes anything meanwhile.
 *
 * A frame that nobody else holds becomes private by a word on the board, and private memory becomes a frame in the same way where there
 * is none: whoever is the last, or the first, copies nothing.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared.h"

enum {
    KEPT_FREE = 8
}; /* nothing becomes private while less than this part of the device is free */

static CUmemAllocationProp prop_of(CUdevice device)
{
    CUmemAllocationProp p;
    memset(&p, 0, sizeof p);
    p.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    p.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    p.location.id = device;
    p.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    return p;
}

static uint64_t piece_bytes(void)
{
    return orri_share.meet.piece_bytes;
}

static CUresult create(CUmemGenericAllocationHandle *ret)
{
    CUmemAllocationProp p = prop_of(orri_share.device);
    return REAL(cuMemCreate)(ret, piece_bytes(), &p, 0);
}

static CUresult set_access(CUdeviceptr at, uint64_t bytes)
{
    CUmemAccessDesc access = {{CU_MEM_LOCATION_TYPE_DEVICE, orri_share.device},
                              CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    return REAL(cuMemSetAccess)(at, bytes, &access, 1);
}

static CUresult map(CUdeviceptr at, CUmemGenericAllocationHandle handle)
{
    CUresult rc = REAL(cuMemMap)(at, piece_bytes(), 0, handle, 0);
    if (!rc && (rc = set_access(at, piece_bytes())))
        REAL(cuMemUnmap)(at, piece_bytes());
    return rc;
}

bool orri_items_list(bool with_private, struct orri_item **ret_items, size_t *ret_n)
{
    size_t n = 0, cap = 0;
    for (struct orri_shared *s = orri_share.list; s; s = s->next)
        cap += s->n;
    *ret_items = malloc((cap ? cap : 1) * sizeof **ret_items);
    if (!*ret_items)
        return false;
    for (struct orri_shared *s = orri_share.list; s; s = s->next)
        for (uint32_t i = 0; i < s->n; i++)
            if (with_private || !s->piece[i].own)
                (*ret_items)[n++] = (struct orri_item){.shared = s,
                                                       .piece = &s->piece[i],
                                                       .slot = s->first + i,
                                                       .at = s->at + i * piece_bytes()};
    *ret_n = n;
    return true;
}

/* ---- frames of others ---------------------------------------------------------------------------- */

int orri_piece_give(uint32_t slot)
{
    int fd = -1;
    pthread_mutex_lock(&orri_share.lock);
    for (struct orri_shared *s = orri_share.list; s; s = s->next) {
        if (slot < s->first || slot >= s->first + s->n ||
            !s->piece[slot - s->first].frame)
            continue;
        if (REAL(cuMemExportToShareableHandle)(&fd,
                                               s->piece[slot - s->first].frame,
                                               CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                               0) != CUDA_SUCCESS)
            fd = -1;
    }
    pthread_mutex_unlock(&orri_share.lock);
    return fd;
}

/* Who can hand over the frame of a slot: member + 1, and its name; 0: there is no frame. */
static uint32_t giver_of(uint32_t slot, uint64_t *ret_nonce)
{
    struct orri_board *b = orri_share.meet.board;
    uint64_t holders =
        orri_slot_holders(b, slot) & ~((uint64_t)1 << orri_share.meet.me);
    uint32_t member = holders ? (uint32_t)__builtin_ctzll(holders) + 1 : 0;
    *ret_nonce = member ? b->member[member - 1].nonce : 0;
    return member;
}

/* Frames of n slots, all of one giver; what he does not give stays 0. */
static void import(uint64_t nonce, uint32_t first, uint32_t n, struct orri_piece *ret)
{
    int *fds = malloc(n * sizeof *fds);
    if (!fds)
        return;
    orri_hand_fetch(&orri_place, nonce, first, n, fds);
    for (uint32_t i = 0; i < n; i++) {
        if (fds[i] < 0)
            continue;
        if (REAL(cuMemImportFromShareableHandle)(
                &ret[i].frame,
                (void *)(uintptr_t)fds[i],
                CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) != CUDA_SUCCESS)
            ret[i].frame = 0;
        close(fds[i]);
    }
    free(fds);
}

struct giver {
    uint32_t member; /* + 1 */
    uint64_t nonce;
};

static void list_givers(const struct orri_shared *s, struct giver *ret)
{
    orri_meet_lock(&orri_share.meet);
    for (uint32_t i = 0; i < s->n; i++)
        ret[i].member = giver_of(s->first + i, &ret[i].nonce);
    orri_meet_unlock(&orri_share.meet);
}

/* ---- a segment ----------------------------------------------------------------------------------- */

/* Frames that there are, and new ones; own memory where one is there that nobody hands over. */
static CUresult back_all(struct orri_shared *s, const struct giver *givers)
{
    CUresult rc = CUDA_SUCCESS;
    for (uint32_t i = 0, n; i < s->n; i += n) {
        for (n = 1; i + n < s->n && givers[i + n].member == givers[i].member;)
            n++;
        if (givers[i].member)
            import(givers[i].nonce, s->first + i, n, &s->piece[i]);
    }
    for (uint32_t i = 0; i < s->n && !rc; i++) {
        struct orri_piece *p = &s->piece[i];
        if (p->frame)
            continue;
        CUmemGenericAllocationHandle *at = givers[i].member ? &p->own : &p->frame;
        rc = create(at);
    }
    return rc;
}

static void let_go(struct orri_shared *s, uint32_t n_mapped)
{
    for (uint32_t i = 0; i < n_mapped; i++)
        REAL(cuMemUnmap)(s->at + i * piece_bytes(), piece_bytes());
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->piece[i].frame)
            REAL(cuMemRelease)(s->piece[i].frame);
        if (s->piece[i].own)
            REAL(cuMemRelease)(s->piece[i].own);
    }
    orri_meet_lock(&orri_share.meet);
    orri_slots_drop(orri_share.meet.board, orri_share.meet.me, s->first);
    orri_meet_unlock(&orri_share.meet);
}

/* Its pieces are this rank's from now on, and zero. */
static CUresult enter_all(struct orri_shared *s)
{
    struct orri_board *b = orri_share.meet.board;
    const uint32_t me = orri_share.meet.me;
    CUresult rc = CUDA_SUCCESS;
    orri_meet_lock(&orri_share.meet);
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->piece[i].own)
            orri_slot_set_private(b, me, s->first + i, true);
        else {
            orri_slot_hold(b, me, s->first + i, true);
            orri_enter_slot(b, me, s->first + i);
        }
    }
    orri_meet_unlock(&orri_share.meet);
    for (uint32_t i = 0; i < s->n && !rc; i++)
        rc = REAL(cuMemsetD8Async)(
            s->at + i * piece_bytes(), 0, piece_bytes(), orri_share.stream);
    return rc ? rc : REAL(cuStreamSynchronize)(orri_share.stream);
}

static CUresult set_up(struct orri_shared *s)
{
    uint32_t n_mapped = 0;
    struct giver *givers = malloc(s->n * sizeof *givers);
    CUresult rc = CUDA_ERROR_OUT_OF_MEMORY;
    if (givers) {
        list_givers(s, givers);
        rc = back_all(s, givers);
    }
    free(givers);
    while (!rc && n_mapped < s->n) {
        const struct orri_piece *p = &s->piece[n_mapped];
        rc = map(s->at + n_mapped * piece_bytes(), p->own ? p->own : p->frame);
        n_mapped += rc == CUDA_SUCCESS;
    }
    if (!rc)
        rc = enter_all(s);
    if (rc)
        let_go(s, n_mapped);
    return rc;
}

CUresult
orri_shared_new(uint64_t at, uint64_t bytes, bool is_small, struct orri_shared **ret)
{
    const uint32_t n = (uint32_t)(bytes / piece_bytes());
    if (bytes % piece_bytes() || bytes / piece_bytes() > ORRI_SLOTS_MAX)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct orri_shared *s = calloc(1, sizeof *s + n * sizeof s->piece[0]);
    if (!s)
        return CUDA_ERROR_OUT_OF_MEMORY;
    s->at = at;
    s->n = n;
    orri_meet_look(&orri_share.meet); /* what the dead had is free */
    orri_meet_lock(&orri_share.meet);
    bool ok = orri_slots_add(
        orri_share.meet.board, orri_share.meet.me, bytes << 1 | is_small, n, &s->first);
    orri_meet_unlock(&orri_share.meet);
    CUresult rc = ok ? set_up(s) : CUDA_ERROR_OUT_OF_MEMORY;
    if (rc) {
        free(s);
        return rc;
    }
    pthread_mutex_lock(&orri_share.lock);
    s->next = orri_share.list;
    orri_share.list = s;
    pthread_mutex_unlock(&orri_share.lock);
    *ret = s;
    return CUDA_SUCCESS;
}

CUresult orri_shared_free(struct orri_shared *s)
{
    pthread_mutex_lock(&orri_share.lock);
    struct orri_shared **at = &orri_share.list;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    pthread_mutex_unlock(&orri_share.lock);
    let_go(s, s->n);
    free(s);
    return CUDA_SUCCESS;
}

/* ---- common and private --------------------------------------------------------------------------- */

/* Its bytes into `to`, and that in its place. */
static CUresult move_into(const struct orri_item *i,
                          CUmemGenericAllocationHandle from,
                          CUmemGenericAllocationHandle to)
{
    const uint64_t bytes = piece_bytes();
    CUdeviceptr aside = 0;
    CUresult rc = REAL(cuMemAddressReserve)(&aside, bytes, 0, 0, 0);
    if (rc)
        return rc;
    if (!(rc = map(aside, to))) {
        rc = REAL(cuMemcpyDtoDAsync)(aside, i->at, bytes, orri_share.stream);
        if (!rc)
            rc = REAL(cuStreamSynchronize)(orri_share.stream);
        REAL(cuMemUnmap)(aside, bytes);
    }
    REAL(cuMemAddressFree)(aside, bytes);
    if (!rc)
        rc = REAL(cuMemUnmap)(i->at, bytes);
    if (!rc && (rc = map(i->at, to)))
        map(i->at, from);
    return rc;
}

static bool has_room(void)
{
    size_t unused = 0, total = 0;
    return REAL(cuMemGetInfo)(&unused, &total) == CUDA_SUCCESS &&
           unused >= total / KEPT_FREE + piece_bytes();
}

static void set_handles(struct orri_piece *p,
                        CUmemGenericAllocationHandle frame,
                        CUmemGenericAllocationHandle own)
{
    pthread_mutex_lock(&orri_share.lock);
    p->frame = frame;
    p->own = own;
    pthread_mutex_unlock(&orri_share.lock);
}

CUresult orri_piece_make_private(const struct orri_item *i)
{
    struct orri_board *b = orri_share.meet.board;
    const uint32_t me = orri_share.meet.me;
    const CUmemGenericAllocationHandle frame = i->piece->frame;
    CUmemGenericAllocationHandle own = frame;
    orri_meet_lock(&orri_share.meet);
    bool is_alone = orri_slot_holders(b, i->slot) == (uint64_t)1 << me;
    orri_meet_unlock(&orri_share.meet);
    if (!is_alone) {
        CUresult rc = has_room() ? create(&own) : CUDA_ERROR_OUT_OF_MEMORY;
        if (rc)
            return rc;
        rc = move_into(i, frame, own);
        if (rc) {
            REAL(cuMemRelease)(own);
            return rc;
        }
    }
    set_handles(i->piece, 0, own);
    if (!is_alone)
        REAL(cuMemRelease)(frame);
    orri_meet_lock(&orri_share.meet);
    orri_slot_set_private(b, me, i->slot, true);
    orri_slot_hold(b, me, i->slot, false);
    orri_meet_unlock(&orri_share.meet);
    return CUDA_SUCCESS;
}

CUresult orri_piece_make_common(const struct orri_item *i)
{
    struct orri_board *b = orri_share.meet.board;
    const uint32_t me = orri_share.meet.me;
    const CUmemGenericAllocationHandle own = i->piece->own;
    struct orri_piece other = {.frame = own};
    struct giver giver;
    orri_meet_lock(&orri_share.meet);
    giver.member = giver_of(i->slot, &giver.nonce);
    orri_enter_slot(b, me, i->slot); /* its tag: it will be written */
    orri_meet_unlock(&orri_share.meet);
    if (giver.member) {
        other.frame = 0;
        import(giver.nonce, i->slot, 1, &other);
        CUresult rc =
            other.frame ? move_into(i, own, other.frame) : CUDA_ERROR_NOT_FOUND;
        if (rc) {
            if (other.frame)
                REAL(cuMemRelease)(other.frame);
            return rc;
        }
        REAL(cuMemRelease)(own);
    }
    set_handles(i->piece, other.frame, 0);
    orri_meet_lock(&orri_share.meet);
    orri_slot_set_private(b, me, i->slot, false);
    orri_slot_hold(b, me, i->slot, true);
    orri_meet_unlock(&orri_share.meet);
    return CUDA_SUCCESS;
}
