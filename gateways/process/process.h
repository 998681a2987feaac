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
    /* Namespaces of its own, so that an image can be made of it; where that cannot be, it starts without them. */
    bool wants_image;
    uint64_t
        overlay; /* whose ranks reach each other: unique to the job and its fleet */
    struct orr_str address; /* "10.77.0.5/16": the rank's on the overlay; empty: none */
    struct orr_str hostname; /* empty: the machine's */
    struct orr_str
        underlay; /* this machine's IPv4 address for VXLAN; empty: the overlay stays on the machine */
    struct orr_list_text peers; /* the other machines' */
    struct orr_str
        restore_dir; /* absolute; not empty: go on from this image instead of executing the command */
    bool stays_frozen; /* then: as if by freeze, before it runs; its link stays down */
};

struct orr_process_image {
    struct orr_str dir;     /* absolute; made if absent, else empty */
    bool leave_running;     /* else the rank is killed once its image is complete */
    uint32_t timeout_ms;    /* 0: 60 s */
    struct orr_str devices; /* told again once it is restored */
};

/* What the network of a rank is to reach: as in a launch. */
struct orr_process_network {
    uint64_t overlay;
    struct orr_str underlay;
    struct orr_list_text peers;
};

/* How far a stop of a rank has come. */
struct orr_process_stop {
    uint64_t cut;
    uint32_t step; /* enum orr_cut_step */
    uint32_t device;
    uint64_t visible; /* as in rank_note */
};

/* How a freeze or an image went. */
struct orr_process_done {
    uint64_t tag;
    enum orr_err code;
    struct orr_str text; /* of an error */
    uint64_t bytes;      /* of the image */
    uint64_t took_ms;
    uint64_t paused_ms; /* the rank stood still for so long */
};

/* Whether images work on this machine, shown by making and restoring one. */
struct orr_process_ability {
    bool is_able;
    struct orr_str text;    /* one line: what works, or why not */
    struct orr_str version; /* of CRIU; empty: none found */
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
    enum orr_err (*done)(void *arg, const struct orr_process_done *done); /* or NULL */
    enum orr_err (*ability)(void *arg,
                            const struct orr_process_ability *ability); /* or NULL */
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

    /* Stop all of the rank's processes where they are, or let them go on; once it is so, the sink's `done` gets the tag.  What the
     * lease has frozen stays frozen.  Errors: ORR_ENOENT unknown, ORR_EGONE it has ended, ORR_ESTATE it does not run yet,
     * ORR_EBUSY another freeze or image of it, or too many.  Later: ORR_ETIMEOUT, ORR_EIO. */
    enum orr_err (*freeze)(struct orr_process *process,
                           const struct orr_process_id *id,
                           bool is_frozen,
                           uint64_t tag,
                           struct orr_error *err);

    /* Keep how far a stop of the rank has come, for its rows: also those of the next host.  Errors: ORR_ENOENT unknown, ORR_EGONE it
     * has ended, ORR_EIO. */
    enum orr_err (*stop_note)(struct orr_process *process,
                              const struct orr_process_id *id,
                              const struct orr_process_stop *stop,
                              struct orr_error *err);

    /* Make an image of the rank; `done` gets the tag.  After an error the rank is as it was before, and the directory holds only
     * logs of the attempt.  A rank that was frozen stays so.  Errors as of freeze, ORR_ENOSYS no image of this one, ORR_EINVAL the
     * directory.  Later: ORR_EEXIST it is not empty, ORR_ETIMEOUT, ORR_EIO, ORR_EGONE. */
    enum orr_err (*image)(struct orr_process *process,
                          const struct orr_process_id *id,
                          const struct orr_process_image *image,
                          uint64_t tag,
                          struct orr_error *err);

    /* Let the network that the rank is on reach these machines as well; harmless when it does.  May wait for other ranks that start
     * or end, half a second at most.  Errors: ORR_ENOENT unknown, ORR_ESTATE it is on none, ORR_EINVAL, ORR_EIO. */
    enum orr_err (*widen)(struct orr_process *process,
                          const struct orr_process_id *id,
                          const struct orr_process_network *network,
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
