/* SPDX-License-Identifier: Apache-2.0
 * raft_io.c - between libraft and its files.
 *
 * libraft 0.15 goes wrong when a write fails while others wait: it goes on writing to the
 * same segment, later entries may follow a gap, and its log of the leader is truncated in
 * the wrong order.  So its files get one append at a time, and after the first failure
 * nothing more: neither success nor failure is told to libraft until it was closed, when
 * it no longer matters.  The instance is then started afresh from what is on the disk.
 * What was not told cannot be acknowledged.
 *
 * A truncation or a snapshot that arrives behind a waiting append keeps its place.
 */
#include "raft_impl.h"

enum file_op_kind { FILE_APPEND, FILE_TRUNCATE, FILE_SNAPSHOT };

struct file_op {
    struct file_op *next;
    enum file_op_kind kind;
    struct ledger_raft *ledger;
    struct raft_io_append append; /* given to libraft's files; data: this */
    struct raft_io_append *append_req;
    const struct raft_entry *entries;
    unsigned n;
    raft_index index;
    unsigned trailing;
    struct raft_io_snapshot_put *put_req;
    const struct raft_snapshot *snapshot;
    raft_io_snapshot_put_cb put_cb;
};

static struct ledger_raft *ledger_of(struct raft_io *io)
{
    return (struct ledger_raft *)(void *)((char *)io -
                                          offsetof(struct ledger_raft, io));
}

void orri_raft_broke(struct ledger_raft *l, int code, const char *what)
{
    if (l->broken.code != ORR_OK)
        return;
    (void)orr_fail(
        &l->broken,
        ORR_EDISK,
        "the ledger in %s cannot be written: %s: %s%s%s; nothing is acknowledged "
        "until it can: make room on that file system or repair it",
        l->dir,
        what,
        raft_strerror(code),
        l->io.errmsg[0] ? ": " : "",
        l->io.errmsg);
    uv_async_send(&l->wake);
}

static struct file_op *op_new(struct ledger_raft *l, enum file_op_kind kind)
{
    struct file_op *op = calloc(1, sizeof *op);
    if (op)
        *op = (struct file_op){.kind = kind, .ledger = l};
    return op;
}

static void op_push(struct ledger_raft *l, struct file_op *op)
{
    op->next = NULL;
    *l->file_ops_end = op;
    l->file_ops_end = &op->next;
}

static struct file_op *op_pop(struct ledger_raft *l)
{
    struct file_op *op = l->file_ops;
    l->file_ops = op->next;
    if (!l->file_ops)
        l->file_ops_end = &l->file_ops;
    return op;
}

static bool is_stopped(const struct ledger_raft *l)
{
    return l->broken.code != ORR_OK || l->instance != INSTANCE_RUNNING;
}

static void ops_run(struct ledger_raft *l);

static void append_done(struct raft_io_append *req, int status)
{
    struct file_op *op = req->data;
    struct ledger_raft *l = op->ledger;
    l->is_writing = false;
    if (status != 0 && status != RAFT_CANCELED)
        orri_raft_broke(l, status, "append");
    if (status != 0 || l->broken.code != ORR_OK)
        return; /* it stays first in the queue until the close */
    ORR_ASSERT(op_pop(l) == op);
    struct raft_io_append *asked = op->append_req;
    free(op);
    if (l->trouble.code == ORR_EDISK)
        l->trouble.code = ORR_OK;
    l->restart_ms = RESTART_MIN_MS;
    asked->cb(asked, 0);
    ops_run(l);
}

/* One operation; false: it waits for its callback, and the others for it. */
static bool op_run(struct ledger_raft *l, struct file_op *op)
{
    int rv;
    if (op->kind == FILE_APPEND) {
        op->append.data = op;
        l->is_writing = true;
        rv = l->file_io.append(&l->io, &op->append, op->entries, op->n, append_done);
        if (rv != 0) /* libraft may still hold it, and call back at the close */
            orri_raft_broke(l, rv, "append");
        return false;
    }
    (void)op_pop(l);
    if (op->kind == FILE_TRUNCATE) {
        rv = l->file_io.truncate(&l->io, op->index);
        if (rv != 0)
            orri_raft_broke(l, rv, "truncate");
    } else {
        rv = l->file_io.snapshot_put(
            &l->io, op->trailing, op->put_req, op->snapshot, op->put_cb);
        if (rv != 0)
            op->put_cb(op->put_req, rv);
    }
    free(op);
    return true;
}

static void ops_run(struct ledger_raft *l)
{
    while (l->file_ops && !l->is_writing && !is_stopped(l))
        if (!op_run(l, l->file_ops))
            return;
}

static int io_append(struct raft_io *io,
                     struct raft_io_append *req,
                     const struct raft_entry entries[],
                     unsigned n,
                     raft_io_append_cb cb)
{
    struct ledger_raft *l = ledger_of(io);
    struct file_op *op = op_new(l, FILE_APPEND);
    if (!op)
        return RAFT_NOMEM;
    op->append_req = req;
    op->entries = entries;
    op->n = n;
    req->cb = cb;
    op_push(l, op);
    ops_run(l);
    return 0;
}

static int io_truncate(struct raft_io *io, raft_index index)
{
    struct ledger_raft *l = ledger_of(io);
    struct file_op *op = op_new(l, FILE_TRUNCATE);
    if (!op)
        return RAFT_NOMEM;
    op->index = index;
    op_push(l, op);
    ops_run(l);
    return 0;
}

static int io_snapshot_put(struct raft_io *io,
                           unsigned trailing,
                           struct raft_io_snapshot_put *req,
                           const struct raft_snapshot *snapshot,
                           raft_io_snapshot_put_cb cb)
{
    struct ledger_raft *l = ledger_of(io);
    if (is_stopped(l))
        return RAFT_CANCELED;
    struct file_op *op = op_new(l, FILE_SNAPSHOT);
    if (!op)
        return RAFT_NOMEM;
    op->trailing = trailing;
    op->put_req = req;
    op->snapshot = snapshot;
    op->put_cb = cb;
    op_push(l, op);
    ops_run(l);
    return 0;
}

static int io_set_term(struct raft_io *io, raft_term term)
{
    struct ledger_raft *l = ledger_of(io);
    const int rv = l->file_io.set_term(io, term);
    if (rv != 0)
        orri_raft_broke(l, rv, "term");
    return rv;
}

static int io_set_vote(struct raft_io *io, raft_id id)
{
    struct ledger_raft *l = ledger_of(io);
    const int rv = l->file_io.set_vote(io, id);
    if (rv != 0)
        orri_raft_broke(l, rv, "vote");
    return rv;
}

/* libraft is unavailable now, so what it hears of its appends only makes it let go of
 * them; of a failure it would make more. */
static void io_closed(struct raft_io *io)
{
    struct ledger_raft *l = ledger_of(io);
    const raft_io_close_cb closed = l->raft_closed;
    l->raft_closed = NULL;
    if (!closed) /* libraft may say it twice */
        return;
    while (l->file_ops) {
        struct file_op *op = op_pop(l);
        if (op->kind == FILE_APPEND)
            op->append_req->cb(op->append_req, 0);
        else if (op->kind == FILE_SNAPSHOT)
            op->put_cb(op->put_req, RAFT_CANCELED);
        free(op);
    }
    l->is_writing = false;
    closed(io);
}

static void io_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct ledger_raft *l = ledger_of(io);
    l->raft_closed = cb;
    l->file_io.close(io, io_closed);
}

void orri_raft_io_wrap(struct ledger_raft *l)
{
    l->file_io = l->io;
    l->file_ops = NULL;
    l->file_ops_end = &l->file_ops;
    l->is_writing = false;
    l->io.version = 2; /* it has async_work, which raft_uv_init does not say */
    l->io.append = io_append;
    l->io.truncate = io_truncate;
    l->io.snapshot_put = io_snapshot_put;
    l->io.set_term = io_set_term;
    l->io.set_vote = io_set_vote;
    l->io.close = io_close;
}

/* ---- the transport of a voter that has no peers ------------------------------------------------ */

static int none_init(struct raft_uv_transport *t, raft_id id, const char *address)
{
    (void)t, (void)id, (void)address;
    return 0;
}

static int none_listen(struct raft_uv_transport *t, raft_uv_accept_cb cb)
{
    (void)t, (void)cb;
    return 0;
}

static int none_connect(struct raft_uv_transport *t,
                        struct raft_uv_connect *req,
                        raft_id id,
                        const char *address,
                        raft_uv_connect_cb cb)
{
    (void)t, (void)req, (void)id, (void)address, (void)cb;
    return RAFT_NOCONNECTION;
}

static void none_close(struct raft_uv_transport *t, raft_uv_transport_close_cb cb)
{
    cb(t);
}

void orri_raft_transport_none(struct raft_uv_transport *transport)
{
    *transport = (struct raft_uv_transport){.init = none_init,
                                            .listen = none_listen,
                                            .connect = none_connect,
                                            .close = none_close};
}
