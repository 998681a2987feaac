/* SPDX-License-Identifier: Apache-2.0
 * regs.c - what a communicator holds besides itself and must be made anew with it: reduction operators, registered buffers and
 * windows (comm.h).
 *
 * An operator's number is ours, and carries the key of its communicator, so that one of another is noticed.  A window's handle is
 * the real one of its registration as long as that is unique, since programs hand it to their kernels.
 */
#include "places.h"

#include <stdlib.h>
#include <string.h>

/* ---- Operators --------------------------------------------------------------------------- */

static unsigned first_redop(const struct orri_comm *c)
{
    return 0x40000000u | (unsigned)(c->key & 0x3ffff) << 12; /* ORRI_REDOPS_MAX each */
}

ncclResult_t orri_redop_find(struct orri_comm *c,
                             ncclRedOp_t op,
                             ncclDataType_t type,
                             struct orri_redop **take_ref,
                             ncclRedOp_t *ret_real)
{
    unsigned index = (unsigned)op - first_redop(c);
    struct orri_redop *r = NULL;
    ncclResult_t result = ncclSuccess;

    pthread_mutex_lock(&c->lock);
    if (index < c->nredops)
        r = c->redops[index];
    if (!r)
        result = orri_nccl_fail(ncclInvalidArgument,
                                "%d is not a reduction operator of this communicator",
                                (int)op);
    else if (r->type != type)
        result =
            orri_nccl_fail(ncclInvalidArgument,
                           "the reduction operator was made for data type %d, not %d",
                           (int)r->type,
                           (int)type);
    if (result == ncclSuccess) {
        r->refs++;
        *take_ref = r;
        *ret_real = r->real;
    }
    pthread_mutex_unlock(&c->lock);
    return result;
}

void orri_redop_put(struct orri_comm *c, struct orri_redop *r)
{
    bool is_last;

    pthread_mutex_lock(&c->lock);
    is_last = --r->refs == 0;
    pthread_mutex_unlock(&c->lock);
    if (!is_last)
        return;
    if (r->is_real && atomic_load(&c->real))
        REAL(RedOpDestroy, r->real, atomic_load(&c->real));
    free(r);
}

static ncclResult_t redop_make(struct orri_comm *c, struct orri_redop *r)
{
    ncclResult_t result = REAL(RedOpCreatePreMulSum,
                               &r->real,
                               r->scalar ? r->scalar : &r->value,
                               r->type,
                               r->residence,
                               atomic_load(&c->real));

    r->is_real = result == ncclSuccess;
    return result;
}

/* A place for it; false: too many. */
static bool redop_add(struct orri_comm *c, struct orri_redop *r, ncclRedOp_t *ret_op)
{
    struct orri_redop **more;
    unsigned i = 0;

    while (i < c->nredops && c->redops[i])
        i++;
    if (i == ORRI_REDOPS_MAX)
        return false;
    if (i == c->nredops) {
        more = realloc(c->redops, (i + 1) * sizeof *more);
        if (!more)
            return false;
        c->redops = more;
        c->nredops++;
    }
    c->redops[i] = r;
    *ret_op = (ncclRedOp_t)(first_redop(c) + i);
    return true;
}

static size_t scalar_size(ncclDataType_t type)
{
    static const uint8_t bytes[ncclNumTypes] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};

    return (unsigned)type < ncclNumTypes ? bytes[type] : 8;
}

static ncclResult_t redop_create(struct orri_comm *c,
                                 ncclRedOp_t *op,
                                 void *scalar,
                                 ncclDataType_t type,
                                 ncclScalarResidence_t residence)
{
    struct orri_redop *r = calloc(1, sizeof *r);
    ncclResult_t result = orri_comm_check(c);
    bool is_added;

    if (!r)
        return orri_nccl_fail(ncclSystemError, "out of memory");
    r->refs = 1;
    r->type = type;
    r->residence = residence;
    if (residence == ncclScalarDevice)
        r->scalar = scalar;
    else if (scalar)
        memcpy(&r->value, scalar, scalar_size(type));
    orri_use_begin();
    if (result == ncclSuccess && atomic_load(&c->splice))
        result = op && scalar && orri_type_bytes(type)
                     ? ncclSuccess
                     : orri_nccl_fail(ncclInvalidArgument, "no operator, or no scalar");
    else if (result == ncclSuccess)
        result = op && scalar ? redop_make(c, r)
                              : REAL(RedOpCreatePreMulSum,
                                     op,
                                     scalar,
                                     type,
                                     residence,
                                     atomic_load(&c->real));
    pthread_mutex_lock(&c->lock);
    is_added = result == ncclSuccess && redop_add(c, r, op);
    pthread_mutex_unlock(&c->lock);
    if (result == ncclSuccess && !is_added)
        result = orri_nccl_fail(ncclInvalidUsage,
                                "more than %d reduction operators: destroy some",
                                (int)ORRI_REDOPS_MAX);
    if (!is_added)
        orri_redop_put(c, r);
    orri_use_end();
    return result;
}

EXPORT ncclResult_t ncclRedOpCreatePreMulSum(ncclRedOp_t *op,
                                             void *scalar,
                                             ncclDataType_t datatype,
                                             ncclScalarResidence_t residence,
                                             ncclComm_t comm)
{
    struct orri_comm *c;

    ENTER_COMM(comm, RedOpCreatePreMulSum, op, scalar, datatype, residence, comm);
    c = orri_comm_get(comm);
    return c ? redop_create(c, op, scalar, datatype, residence) : ncclInvalidArgument;
}
ALIAS(RedOpCreatePreMulSum);

EXPORT ncclResult_t ncclRedOpDestroy(ncclRedOp_t op, ncclComm_t comm)
{
    struct orri_redop *r = NULL;
    struct orri_comm *c;
    unsigned index;

    ENTER_COMM(comm, RedOpDestroy, op, comm);
    if ((unsigned)op < (unsigned)ncclNumOps)
        return orri_nccl_fail(ncclInvalidArgument,
                              "built-in operators cannot be destroyed");
    c = orri_comm_get(comm);
    if (!c)
        return ncclInvalidArgument;
    index = (unsigned)op - first_redop(c);
    orri_use_begin();
    pthread_mutex_lock(&c->lock);
    if (index < c->nredops) {
        r = c->redops[index];
        c->redops[index] = NULL;
    }
    pthread_mutex_unlock(&c->lock);
    if (r)
        orri_redop_put(c, r);
    orri_use_end();
    return r ? ncclSuccess
             : orri_nccl_fail(ncclInvalidArgument,
                              "%d is not a reduction operator of this communicator",
                              (int)op);
}
ALIAS(RedOpDestroy);

ncclResult_t orri_redops_remake(struct orri_comm *c)
{
    ncclResult_t result = ncclSuccess;

    if (atomic_load(&c->splice)) { /* they are ours */
        for (unsigned i = 0; i < c->nredops; i++)
            if (c->redops[i])
                c->redops[i]->is_real = false;
        return ncclSuccess;
    }

    for (unsigned i = 0; i < c->nredops && result == ncclSuccess; i++)
        if (c->redops[i])
            result = redop_make(c, c->redops[i]);
    return result;
}

/* ---- Buffers and windows ------------------------------------------------------------------ */

static void buffer_add(struct orri_comm *c, struct orri_buffer *b)
{
    struct orri_buffer **at;

    pthread_mutex_lock(&c->lock);
    for (at = &c->buffers; *at; at = &(*at)->next)
        ;
    *at = b;
    pthread_mutex_unlock(&c->lock);
}

static struct orri_buffer *
buffer_take(struct orri_comm *c, const void *program, bool is_window)
{
    struct orri_buffer **at, *b;

    pthread_mutex_lock(&c->lock);
    for (at = &c->buffers;
         *at && ((*at)->program != program || (*at)->is_window != is_window);
         at = &(*at)->next)
        ;
    b = *at;
    if (b)
        *at = b->next;
    pthread_mutex_unlock(&c->lock);
    return b;
}

EXPORT ncclResult_t ncclCommRegister(ncclComm_t comm,
                                     void *buff,
                                     size_t size,
                                     void **handle)
{
    struct orri_comm *c;
    struct orri_buffer *b;
    ncclResult_t result;

    ENTER_COMM(comm, CommRegister, comm, buff, size, handle);
    c = orri_comm_get(comm);
    if (!c)
        return ncclInvalidArgument;
    result = orri_comm_check(c);
    if (result != ncclSuccess)
        return result;
    b = calloc(1, sizeof *b);
    if (!b)
        return orri_nccl_fail(ncclSystemError, "out of memory");
    *b = (struct orri_buffer){.program = b, .at = buff, .size = size};
    orri_use_begin();
    if (atomic_load(&c->splice))
        result = handle ? ncclSuccess : ncclInvalidArgument;
    else
        result = REAL(
            CommRegister, atomic_load(&c->real), buff, size, handle ? &b->real : NULL);
    if (result == ncclSuccess && handle) {
        *handle = b->program;
        buffer_add(c, b);
    } else {
        free(b);
    }
    orri_use_end();
    return result;
}
ALIAS(CommRegister);

EXPORT ncclResult_t ncclCommDeregister(ncclComm_t comm, void *handle)
{
    struct orri_comm *c;
    struct orri_buffer *b;
    ncclResult_t result = ncclSuccess;

    ENTER_COMM(comm, CommDeregister, comm, handle);
    c = orri_comm_get(comm);
    if (!c)
        return ncclInvalidArgument;
    orri_use_begin();
    b = buffer_take(c, handle, false);
    if (b && b->real && atomic_load(&c->real))
        result = REAL(CommDeregister, atomic_load(&c->real), b->real);
    orri_use_end();
    if (!b)
        return orri_nccl_fail(
            ncclInvalidArgument, "%p is not a registered buffer", handle);
    free(b);
    return result;
}
ALIAS(CommDeregister);

ncclResult_t orri_window_call(struct orri_window *w)
{
    struct orri_buffer *b = w->buffer;
    ncclComm_t real;
    ncclResult_t result = orri_comm_real(w->c, &real);

    if (result != ncclSuccess || atomic_load(&w->c->splice))
        return result;
    return REAL(CommWindowRegister, real, b->at, b->size, (void *)&b->real, b->flags);
}

/* A number that nobody has as a handle. */
static void *window_name(struct orri_comm *c, const struct orri_buffer *b)
{
    for (const struct orri_buffer *i = c->buffers; i; i = i->next)
        if (i->is_window && i->program == b->real)
            return (void *)(uintptr_t)b;
    return b->real ? b->real : (void *)(uintptr_t)b;
}

ncclResult_t orri_window_result(struct orri_window *w, ncclResult_t result)
{
    struct orri_buffer *b = w->buffer;

    if (result != ncclSuccess && result != ncclInProgress) {
        free(b);
        return result;
    }
    b->program = window_name(w->c, b);
    *w->program = b->program;
    buffer_add(w->c, b);
    return result;
}

EXPORT ncclResult_t ncclCommWindowRegister(
    ncclComm_t comm, void *buff, size_t size, ncclWindow_t *win, int flags)
{
    struct orri_comm *c;
    struct orri_window *w;
    struct orri_clock *clock;
    ncclResult_t result;

    ENTER_COMM(comm, CommWindowRegister, comm, buff, size, win, flags);
    c = orri_comm_find(comm);
    if (!c || !buff || size == 0 || !win) { /* the real one says what is wrong */
        orri_use_begin();
        result = REAL(CommWindowRegister,
                      c ? atomic_load(&c->real) : NULL,
                      buff,
                      size,
                      win,
                      flags);
        orri_use_end();
        return orri_group_note(result == ncclSuccess ? ncclInvalidArgument : result);
    }
    result = orri_comm_check(c);
    w = result == ncclSuccess ? calloc(1, sizeof *w) : NULL;
    if (w)
        w->buffer = calloc(1, sizeof *w->buffer);
    if (!w || !w->buffer) {
        free(w);
        return orri_group_note(result == ncclSuccess ? ncclSystemError : result);
    }
    w->c = c;
    w->program = win;
    *w->buffer = (struct orri_buffer){
        .at = buff, .size = size, .flags = flags, .is_window = true};
    if (orri_group_is_open())
        return orri_group_note(orri_group_add_window(w));
    clock = c->clock;
    orri_gate_enter(&clock, clock ? 1 : 0, ORR_CLOCK_OP_CREATE);
    result = orri_window_result(w, orri_window_call(w));
    orri_gate_leave();
    free(w);
    return result;
}
ALIAS(CommWindowRegister);

EXPORT ncclResult_t ncclCommWindowDeregister(ncclComm_t comm, ncclWindow_t win)
{
    struct orri_comm *c;
    struct orri_buffer *b;
    ncclResult_t result = ncclSuccess;

    ENTER_COMM(comm, CommWindowDeregister, comm, win);
    c = orri_comm_find(comm);
    orri_use_begin();
    b = c ? buffer_take(c, win, true) : NULL;
    if (!b)
        result = REAL(CommWindowDeregister, c ? atomic_load(&c->real) : NULL, win);
    else if (b->real && atomic_load(&c->real))
        result = REAL(CommWindowDeregister, atomic_load(&c->real), b->real);
    orri_use_end();
    free(b);
    return result;
}
ALIAS(CommWindowDeregister);

ncclResult_t orri_buffers_remake(struct orri_comm *c)
{
    ncclComm_t real = atomic_load(&c->real);
    ncclResult_t result = ncclSuccess;

    if (atomic_load(&c->splice))
        return ncclSuccess;
    for (struct orri_buffer *b = c->buffers; b && result == ncclSuccess; b = b->next)
        result = b->is_window ? REAL(CommWindowRegister,
                                     real,
                                     b->at,
                                     b->size,
                                     (void *)&b->real,
                                     b->flags)
                              : REAL(CommRegister, real, b->at, b->size, &b->real);
    return result;
}

void orri_buffers_drop(struct orri_comm *c)
{
    ncclComm_t real = atomic_load(&c->real);

    for (struct orri_buffer *b = c->buffers; b; b = b->next) {
        if (!b->real)
            continue;
        if (b->is_window)
            REAL(CommWindowDeregister, real, b->real);
        else
            REAL(CommDeregister, real, b->real);
        b->real = NULL;
    }
}
