/* SPDX-License-Identifier: Apache-2.0
 * redop.c - reduction operators of a communicator, and its registered buffers.
 *
 * An operator's number carries the communicator's serial number, so that one that was
 * made for another communicator is noticed.
 */
#include "export.h"
#include "op.h"

#include <stdlib.h>
#include <string.h>

enum { REDOPS_MAX = 4096, SERIAL_MASK = 0x3ffff };

struct orri_redop {
    bool is_alive;
    ncclDataType_t type;
    struct orri_reduction reduction;
};

struct orri_buffer {
    struct orri_buffer *next;
};

void orri_redops_fini(struct ncclComm *comm)
{
    free(comm->redops);
    comm->redops = NULL;
}

static ncclRedOp_t name_of(const struct ncclComm *comm, unsigned index)
{
    unsigned serial = (unsigned)comm->serial & SERIAL_MASK;

    return (ncclRedOp_t)((unsigned)ncclNumOps + serial * REDOPS_MAX + index);
}

/* Call with the lock held. NULL: not an operator of this communicator. */
static struct orri_redop *redop_find(struct ncclComm *comm, ncclRedOp_t op)
{
    unsigned index = (unsigned)op - (unsigned)name_of(comm, 0);

    return index < comm->nredops && comm->redops[index].is_alive ? &comm->redops[index]
                                                                 : NULL;
}

static ncclResult_t builtin(const struct ncclComm *comm,
                            ncclRedOp_t op,
                            ncclDataType_t type,
                            struct orri_reduction *ret)
{
    *ret = (struct orri_reduction){.op = op};
    if (op == ncclAvg && orri_type_is_float(type)) {
        ret->scales = true;
        ret->scalar = orri_reciprocal(type, (unsigned)comm->nranks);
    }
    return ncclSuccess;
}

ncclResult_t orri_reduction_get(struct ncclComm *comm,
                                ncclRedOp_t op,
                                ncclDataType_t type,
                                struct orri_reduction *ret)
{
    struct orri_redop *made;
    ncclResult_t result = ncclSuccess;

    if ((unsigned)op < (unsigned)ncclNumOps)
        return builtin(comm, op, type, ret);
    pthread_mutex_lock(&comm->lock);
    made = redop_find(comm, op);
    if (!made)
        result = orri_fail(ncclInvalidArgument,
                           "%d is not a reduction operator of this communicator",
                           (int)op);
    else if (made->type != type)
        result = orri_fail(ncclInvalidArgument,
                           "the reduction operator was made for %s, not for %s",
                           orri_type_name(made->type),
                           orri_type_name(type));
    else
        *ret = made->reduction;
    pthread_mutex_unlock(&comm->lock);
    return result;
}

/* Call with the lock held. */
static ncclResult_t
redop_add(struct ncclComm *comm, const struct orri_redop *redop, ncclRedOp_t *ret)
{
    unsigned index = 0;
    struct orri_redop *more;

    while (index < comm->nredops && comm->redops[index].is_alive)
        index++;
    if (index == REDOPS_MAX)
        return orri_fail(ncclInvalidUsage,
                         "more than %d reduction operators: destroy some",
                         (int)REDOPS_MAX);
    if (index == comm->nredops) {
        more = realloc(comm->redops, (index + 1) * sizeof *more);
        if (!more)
            return orri_fail(ncclSystemError, "out of memory");
        comm->redops = more;
        comm->nredops++;
    }
    comm->redops[index] = *redop;
    *ret = name_of(comm, index);
    return ncclSuccess;
}

EXPORT ncclResult_t ncclRedOpCreatePreMulSum(ncclRedOp_t *op,
                                             void *scalar,
                                             ncclDataType_t datatype,
                                             ncclScalarResidence_t residence,
                                             ncclComm_t handle)
{
    size_t size = orri_type_size(datatype);
    struct orri_redop redop = {
        .is_alive = true, .type = datatype, .reduction = {.scales = true}};
    struct ncclComm *comm = orri_comm_get(handle);
    ncclResult_t result;

    if (!comm)
        return ncclInvalidArgument;
    result = orri_comm_check(comm);
    if (result == ncclSuccess && (!op || !scalar || size == 0))
        result =
            orri_fail(ncclInvalidArgument,
                      "ncclRedOpCreatePreMulSum: op, scalar or data type is missing");
    if (result == ncclSuccess && residence != ncclScalarDevice &&
        residence != ncclScalarHostImmediate)
        result = orri_fail(
            ncclInvalidArgument, "%d is not a scalar residence", (int)residence);
    if (result == ncclSuccess) {
        if (residence == ncclScalarDevice)
            redop.reduction.scalar_on_device = scalar;
        else
            memcpy(redop.reduction.scalar.bytes, scalar, size);
        pthread_mutex_lock(&comm->lock);
        result = redop_add(comm, &redop, op);
        pthread_mutex_unlock(&comm->lock);
    }
    orri_comm_put(comm);
    return result;
}
ALIAS(RedOpCreatePreMulSum);

EXPORT ncclResult_t ncclRedOpDestroy(ncclRedOp_t op, ncclComm_t handle)
{
    struct ncclComm *comm;
    struct orri_redop *redop;

    if ((unsigned)op < (unsigned)ncclNumOps)
        return orri_fail(ncclInvalidArgument, "built-in operators cannot be destroyed");
    comm = orri_comm_get(handle);
    if (!comm)
        return ncclInvalidArgument;
    pthread_mutex_lock(&comm->lock);
    redop = redop_find(comm, op);
    if (redop)
        redop->is_alive = false;
    pthread_mutex_unlock(&comm->lock);
    orri_comm_put(comm);
    if (redop)
        return ncclSuccess;
    return orri_fail(ncclInvalidArgument,
                     "%d is not a reduction operator of this communicator",
                     (int)op);
}
ALIAS(RedOpDestroy);

/* ---- Registered buffers: known, so that a wrong handle is an error ------------------
 */

void orri_buffers_fini(struct ncclComm *comm)
{
    while (comm->buffers) {
        struct orri_buffer *b = comm->buffers;
        comm->buffers = b->next;
        free(b);
    }
}

EXPORT ncclResult_t ncclCommRegister(ncclComm_t handle,
                                     void *buff,
                                     size_t size,
                                     void **ret_handle)
{
    struct ncclComm *comm = orri_comm_get(handle);
    struct orri_buffer *b;
    ncclResult_t result;

    if (!comm)
        return ncclInvalidArgument;
    result = orri_comm_check(comm);
    if (result == ncclSuccess && (!buff || size == 0 || !ret_handle))
        result = orri_fail(ncclInvalidArgument,
                           "ncclCommRegister: buffer, size or handle is missing");
    b = result == ncclSuccess ? calloc(1, sizeof *b) : NULL;
    if (b) {
        pthread_mutex_lock(&comm->lock);
        b->next = comm->buffers;
        comm->buffers = b;
        pthread_mutex_unlock(&comm->lock);
        *ret_handle = b;
    } else if (result == ncclSuccess) {
        result = orri_fail(ncclSystemError, "out of memory");
    }
    orri_comm_put(comm);
    return result;
}
ALIAS(CommRegister);

EXPORT ncclResult_t ncclCommDeregister(ncclComm_t handle, void *buffer)
{
    struct ncclComm *comm = orri_comm_get(handle);
    struct orri_buffer **at, *found;

    if (!comm)
        return ncclInvalidArgument;
    pthread_mutex_lock(&comm->lock);
    for (at = &comm->buffers; *at && *at != buffer; at = &(*at)->next)
        ;
    found = *at;
    if (found)
        *at = found->next;
    pthread_mutex_unlock(&comm->lock);
    orri_comm_put(comm);
    if (!found)
        return orri_fail(ncclInvalidArgument, "%p is not a registered buffer", buffer);
    free(found);
    return ncclSuccess;
}
ALIAS(CommDeregister);
