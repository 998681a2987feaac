/* SPDX-License-Identifier: Apache-2.0
 * places.c - see places.h.
 */
#include "places.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MEET_MS = 1800000, SHARE_MS = 60000 };

bool orri_is_elastic(void)
{
    return getenv("ORRERY_REDUCE") != NULL;
}

/* Its buffers are there for whoever has the turn, and the engine works for all at once (docs/adr/0025-turns.md). */
static bool shares_memory(void)
{
    const char *memory = getenv("ORRERY_MEMORY");

    return memory && strcmp(memory, "shared") == 0;
}

static bool is_ordered(void)
{
    const char *reduce = getenv("ORRERY_REDUCE");

    return !reduce || strcmp(reduce, "fast") != 0;
}

uint64_t orri_place_name(uint64_t key, int r)
{
    uint64_t name[2] = {key, (uint64_t)r};

    return orri_key(4, name, sizeof name);
}

/* "GPU-8-4-4-4-12" in hexadecimal digits. */
static bool read_uuid(const char *text, uint8_t uuid[16])
{
    size_t n = 0;
    int high = -1;

    for (const char *at = strchr(text, '-'); at && *at && n < 16; at++) {
        const char *digits = "0123456789abcdef", *d = strchr(digits, *at | 0x20);
        if (*at == '-' || !d)
            continue;
        if (high < 0) {
            high = (int)(d - digits);
        } else {
            uuid[n++] = (uint8_t)(high << 4 | (int)(d - digits));
            high = -1;
        }
    }
    return n == 16;
}

ncclResult_t orri_place_here(struct orri_place *ret, const char *told, uint64_t nonce)
{
    CUuuid uuid;
    CUdevice device = 0;
    ncclResult_t result = orri_driver_ready();

    *ret = (struct orri_place){.nonce = nonce};
    if (result != ncclSuccess || read_uuid(told, ret->device))
        return result;
    result = CU(CtxGetDevice, &device);
    if (result == ncclSuccess)
        result = CU(DeviceGetUuid, &uuid, device);
    if (result == ncclSuccess)
        memcpy(ret->device, uuid.bytes, sizeof ret->device);
    return result;
}

/* ---- one communicator ------------------------------------------------------------------------- */

static bool has_shared(const uint64_t *place, int n)
{
    for (int i = 0; i < n; i++)
        for (int k = 0; k < i; k++)
            if (place[i] == place[k])
                return true;
    return false;
}

ncclResult_t orri_splice_begin_comm(struct orri_comm *c,
                                    const struct orri_place *places,
                                    uint64_t seed)
{
    int n = atomic_load(&c->n);
    uint64_t *place = malloc((size_t)n * sizeof *place);
    struct orri_splice *s = NULL;
    bool is_shared;

    if (!place)
        return orri_nccl_fail(ncclSystemError, "out of memory");
    for (int r = 0; r < n; r++)
        place[r] = orri_key(3, places[r].device, sizeof places[r].device);
    is_shared = has_shared(place, n);
    if (is_shared && shares_memory()) {
        free(place);
        return orri_nccl_fail(
            ncclInvalidUsage,
            "ranks that share a device's memory (ORRERY_MEMORY=shared) have no "
            "collectives yet: run without it");
    }
    if (is_shared)
        s = orri_splice_new(n, c->me, place, is_ordered(), seed, (void *)&c->real);
    free(place);
    if (is_shared && !s)
        return ncclUnhandledCudaError;
    if (s && CU(CtxGetDevice, &c->device) != ncclSuccess) {
        orri_splice_free(s);
        return ncclUnhandledCudaError;
    }
    atomic_store(&c->splice, s);
    return ncclSuccess;
}

bool orri_splice_real(const struct orri_comm *c, int *ret_n, int *ret_me)
{
    const struct orri_splice *s = atomic_load(&c->splice);

    *ret_n = s ? s->map.ndevices : atomic_load(&c->n);
    *ret_me = s ? s->map.device : c->me;
    return !s || (orri_splice_is_leader(s) && s->map.ndevices > 1);
}

static ncclResult_t enter(struct orri_splice *s, CUcontext *ret_before)
{
    orri_cu.CtxGetCurrent(ret_before);
    return CU(CtxSetCurrent, s->ctx);
}

static ncclResult_t
take_one(struct orri_comm *c, const struct orri_place *places, uint64_t deadline_ms)
{
    struct orri_splice *s = atomic_load(&c->splice);
    const struct orri_place *leader = &places[s->map.leader[s->map.device]];
    int sock = -1, fd[2];
    CUcontext before = NULL;
    ncclResult_t result;

    if (!orri_handover_fetch(leader->nonce, c->key, deadline_ms, fd, &sock))
        return ncclSystemError;
    result = enter(s, &before);
    if (result == ncclSuccess)
        result = orri_splice_take_scratch(s, &fd[0], &fd[1]);
    close(sock);
    orri_cu.CtxSetCurrent(before);
    return result;
}

static ncclResult_t make_one(struct orri_splice *s)
{
    CUcontext before = NULL;
    ncclResult_t result = enter(s, &before);

    if (result == ncclSuccess)
        result = orri_splice_make_scratch(s);
    orri_cu.CtxSetCurrent(before);
    return result;
}

/* Nobody waits before what it leads can be had: so nobody waits in a circle. */
ncclResult_t orri_splice_share(struct orri_comm *const *comms,
                               struct orri_place *const *places,
                               size_t n,
                               struct orri_handover *h,
                               uint64_t deadline_ms)
{
    struct orri_gift *gifts = calloc(n ? n : 1, sizeof *gifts);
    ncclResult_t result =
        gifts ? ncclSuccess : orri_nccl_fail(ncclSystemError, "out of memory");
    size_t ngifts = 0;

    for (size_t i = 0; i < n && result == ncclSuccess; i++) {
        struct orri_splice *s = atomic_load(&comms[i]->splice);
        if (!s || !orri_splice_is_leader(s))
            continue;
        result = make_one(s);
        gifts[ngifts++] = (struct orri_gift){
            .key = comms[i]->key,
            .fd = {s->fd, s->page_fd},
            .times = s->map.count[s->map.device] - 1,
        };
    }
    if (result == ncclSuccess && !orri_handover_serve(h, gifts, ngifts, deadline_ms))
        result = orri_nccl_fail(ncclSystemError, "no thread to hand out scratch");
    for (size_t i = 0; i < n && result == ncclSuccess; i++) {
        struct orri_splice *s = atomic_load(&comms[i]->splice);
        if (s && !orri_splice_is_leader(s))
            result = take_one(comms[i], places[i], deadline_ms);
    }
    if (result == ncclSuccess && !orri_handover_await(h))
        result = orri_nccl_fail(ncclRemoteError,
                                "a rank of this device has not taken its scratch");
    for (size_t i = 0; i < n && result == ncclSuccess; i++) {
        struct orri_splice *s = atomic_load(&comms[i]->splice);
        if (s)
            atomic_store(&s->is_shared, true); /* pairs with spliced.c's loads */
    }
    free(gifts);
    return result;
}

/* ---- making ---------------------------------------------------------------------------------- */

bool orri_making_meets(const struct orri_making *m)
{
    if (m->kind == ORRI_MAKE_INIT || m->kind == ORRI_MAKE_SCALABLE)
        return m->n > 1 && orri_is_elastic();
    return atomic_load(&m->parent->splice) != NULL;
}

/* What it is told under, among whom, and who this process is there. */
struct told {
    uint64_t key;
    int n, me;
};

static struct told told_of(const struct orri_making *m)
{
    const struct orri_comm *who = m->kind == ORRI_MAKE_SPLIT ? m->parent : m->c;

    return (struct told){.key = m->kind == ORRI_MAKE_SPLIT ? m->meeting : m->c->key,
                         .n = atomic_load(&who->n),
                         .me = who->me};
}

/* The device is taken from the context, as NCCL does. */
static ncclResult_t enter_device(struct orri_comm *c)
{
    void *now = NULL;

    if (!c->ctx && !orri_ctx_get(&c->ctx))
        return orri_nccl_fail(ncclUnhandledCudaError, "no context is current");
    if (!c->ctx && orri_ctx_primary(0, &c->ctx)) {
        c->device = 0;
        c->is_retained = true;
    }
    orri_ctx_get(&now);
    return c->ctx && (now == c->ctx || orri_ctx_set(c->ctx))
               ? ncclSuccess
               : orri_nccl_fail(ncclUnhandledCudaError, "no context is current");
}

ncclResult_t orri_making_post(struct orri_making *m, const struct orri_handover *h)
{
    struct told told = told_of(m);
    struct orri_place place;
    ncclResult_t result = enter_device(m->c ? m->c : m->parent);

    if (result == ncclSuccess)
        result = orri_place_here(&place, orri_device_told, orri_handover_nonce(h));
    if (result != ncclSuccess)
        return result;
    place.color = m->color;
    place.key = m->key;
    return orri_post(orri_place_name(told.key, told.me), (const uint8_t *)&place)
               ? ncclSuccess
               : orri_nccl_fail(ncclSystemError, "the node's host is gone");
}

static bool comes_before(const struct orri_place *all, int a, int b)
{
    return all[a].key != all[b].key ? all[a].key < all[b].key : a < b;
}

/* Those of this rank's color, in the order of their keys, then ranks; tells the new communicator its size. */
static void pick_color(struct orri_making *m, struct orri_place *all, int n)
{
    struct orri_place *mine = calloc((size_t)n, sizeof *mine);
    int count = 0, me = 0;

    for (int i = 0; i < n && mine; i++) {
        int before = 0;
        if (all[i].color != m->color)
            continue;
        for (int k = 0; k < n; k++)
            before += all[k].color == m->color && comes_before(all, k, i);
        mine[before] = all[i];
        if (i == m->parent->me)
            me = before;
        count++;
    }
    if (mine) {
        memcpy(all, mine, (size_t)count * sizeof *mine);
        orri_comm_know(m->c, count, me);
    }
    free(mine);
}

/* A child has no id of the program: its rank 0 makes one. */
static ncclResult_t get_id(struct orri_making *m)
{
    struct orri_comm *c = m->c;
    uint64_t name = orri_place_name(c->key, -1);
    ncclResult_t result = ncclSuccess;
    int n, me;
    bool is_wanted = orri_splice_real(c, &n, &me);

    if (m->kind == ORRI_MAKE_INIT || m->kind == ORRI_MAKE_SCALABLE || !is_wanted)
        return ncclSuccess;
    m->ids = calloc(1, sizeof *m->ids);
    if (!m->ids)
        return orri_nccl_fail(ncclSystemError, "out of memory");
    if (c->me == 0) {
        result = REAL(GetUniqueId, m->ids);
        if (result == ncclSuccess && !orri_post(name, (const uint8_t *)m->ids))
            result = orri_nccl_fail(ncclSystemError, "the node's host is gone");
    } else if (!orri_await_posts(
                   &name, 1, (void *)m->ids, orri_nccl_now_ms() + MEET_MS)) {
        result = orri_nccl_fail(ncclRemoteError, "rank 0 has made no unique id");
    }
    return result;
}

static ncclResult_t await_places(uint64_t key, int n, struct orri_place *ret)
{
    uint64_t *names = calloc((size_t)n, sizeof *names);
    bool is_done;

    if (!names)
        return orri_nccl_fail(ncclSystemError, "out of memory");
    for (int r = 0; r < n; r++)
        names[r] = orri_place_name(key, r);
    is_done =
        orri_await_posts(names, (uint32_t)n, (void *)ret, orri_nccl_now_ms() + MEET_MS);
    free(names);
    return is_done ? ncclSuccess
                   : orri_nccl_fail(ncclRemoteError,
                                    "not all of the %d ranks have come to make the "
                                    "communicator",
                                    n);
}

ncclResult_t orri_making_meet(struct orri_making *m)
{
    struct told told = told_of(m);
    ncclResult_t result;

    m->places = calloc((size_t)told.n, sizeof *m->places);
    if (!m->places)
        return orri_nccl_fail(ncclSystemError, "out of memory");
    if (!m->c)
        return ncclSuccess;
    result = await_places(told.key, told.n, m->places);
    if (result != ncclSuccess)
        return result;
    if (m->kind == ORRI_MAKE_SPLIT)
        pick_color(m, m->places, told.n);
    else
        orri_comm_know(m->c, told.n, told.me);
    result = enter_device(m->c);
    if (result == ncclSuccess)
        result = orri_splice_begin_comm(m->c, m->places, m->c->key);
    return result == ncclSuccess ? get_id(m) : result;
}

ncclResult_t
orri_making_share(struct orri_making *const *list, size_t n, struct orri_handover *h)
{
    struct orri_comm **comms = calloc(n, sizeof *comms);
    struct orri_place **places = calloc(n, sizeof *places);
    ncclResult_t result = comms && places
                              ? ncclSuccess
                              : orri_nccl_fail(ncclSystemError, "out of memory");
    size_t kept = 0;

    for (size_t i = 0; i < n && result == ncclSuccess; i++)
        if (list[i]->c) {
            comms[kept] = list[i]->c;
            places[kept++] = list[i]->places;
        }
    if (result == ncclSuccess)
        result =
            orri_splice_share(comms, places, kept, h, orri_nccl_now_ms() + SHARE_MS);
    free(comms);
    free(places);
    return result;
}
