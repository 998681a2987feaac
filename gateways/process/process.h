/* SPDX-License-Identifier: Apache-2.0
 * process.h - the rank processes of this machine, as an op table.
 *
 * START      an implementation opens (process_linux.h): what an earlier host left
 * behind is found again; then attach a sink OPERATION  launch, signal, forget,
 * log_read, port_reserve from any thread; changes arrive through the sink STOP
 * attach(NULL), close: ranks run on; the next open finds them FAILURES   of a call: its
 * return value; of a rank: a row in the sink, with the reason in words
 *
 * A rank is named by (job, generation, rank).  It is known from launch until forget,
 * also after its end.
 */
#ifndef ORR_PROCESS_H
#define ORR_PROCESS_H

#include "orrery/ids.h"
#include "orrery/msg.h"

struct orr_process; /* defined below; an implementation embeds it first */

struct orr_process_id {
    struct orr_str job;
    uint64_t generation;
    uint32_t rank;
};

struct orr_process_launch {
    struct orr_process_id id;
    uint32_t device; /* index on the node or ORR_NO_DEVICE; only recorded */
    struct orr_list_text command;
    struct orr_list_env_var
        env; /* complete; PATH, HOME, USER, LANG are added where absent */
    struct orr_str workdir; /* absolute; empty: / */
};

struct orr_process_log {
    uint64_t generation;
    uint64_t offset; /* of the first byte */
    size_t len;
    bool is_final; /* the rank has ended and this reaches the end */
};

/* Where changes go.  Called from one thread of the edge's own, never by two at once;
 * rows and texts are borrowed until the call returns.  A call that answers an error is
 * repeated later, so nothing is lost when the receiver is busy; of several changes of
 * one rank only the last may be told. */
struct orr_process_sink {
    enum orr_err (*found)(void *arg,
                          struct orr_list_rank_row ranks); /* once, before any event */
    enum orr_err (*event)(void *arg, const struct orr_rec_rank_row *rank);
    void *arg;
};

/* All calls take milliseconds at most, may come from any thread, and fill *err (may be
 * NULL) when they fail. */
struct orr_process_ops {
    /* Send all that is known, then every change, to the sink; NULL: no more calls once
     * this returns. */
    void (*attach)(struct orr_process *process, const struct orr_process_sink *sink);

    /* Accept a launch; how it went comes as an event.  Errors: ORR_EINVAL (names the
     * field), ORR_EEXIST known already, ORR_EBUSY too many launches wait, ORR_ENOSPC
     * too many ranks, ORR_ENOMEM. */
    enum orr_err (*launch)(struct orr_process *process,
                           const struct orr_process_launch *launch,
                           struct orr_error *err);

    /* Signal the rank's process group; one that is not up yet gets it as soon as it is.
     * Errors: ORR_ENOENT unknown, ORR_EGONE it has ended, ORR_EINVAL no such signal,
     * ORR_EIO. */
    enum orr_err (*signal)(struct orr_process *process,
                           const struct orr_process_id *id,
                           uint32_t signal,
                           struct orr_error *err);

    /* Drop what is known of an ended rank; its logs stay until they age out.  Unknown:
     * ORR_OK. Errors: ORR_ESTATE it has not ended. */
    enum orr_err (*forget)(struct orr_process *process,
                           const struct orr_process_id *id,
                           struct orr_error *err);

    /* Read from a rank's output.  generation 0: the newest one kept; stream 1 stdout, 2
     * stderr. Errors: ORR_ENOENT no such rank or its logs aged out, ORR_EINVAL stream,
     * ORR_EIO. */
    enum orr_err (*log_read)(struct orr_process *process,
                             const struct orr_process_id *id,
                             uint32_t stream,
                             uint64_t offset,
                             uint8_t *buf,
                             size_t cap,
                             struct orr_process_log *ret_log,
                             struct orr_error *err);

    /* A TCP port that nobody listens on and that no other call gets for a while.
     * Errors: ORR_ENOSPC. */
    enum orr_err (*port_reserve)(
        struct orr_process *process,
        const char **ret_addr, /* borrowed: lives as long as process */
        uint32_t *ret_port,
        struct orr_error *err);

    /* Freeze all ranks left_ms from now (UINT64_MAX: never), whether this host lives then or not; silent_ms is kept for
     * lease_get. */
    void (*lease_set)(struct orr_process *process,
                      uint64_t left_ms,
                      uint64_t silent_ms);
    /* false: not set since the machine started.  Else silent_ms, grown by the time since. */
    bool (*lease_get)(struct orr_process *process, uint64_t *ret_silent_ms);

    /* A few bytes that the next host finds again.  Errors: ORR_ENOSPC, ORR_EIO. */
    enum orr_err (*note_put)(struct orr_process *process,
                             struct orr_bytes note,
                             struct orr_error *err);
    /* In buf, how many; 0: none. */
    size_t (*note_get)(struct orr_process *process, void *buf, size_t cap);

    void (*close)(struct orr_process *process);
};

struct orr_process {
    const struct orr_process_ops *ops;
};

#endif
