/* SPDX-License-Identifier: Apache-2.0
 * raft_impl.h - what the files of the raft backend share (ledger_raft.h).
 *
 *   ledger_raft.c   the op table: calls of any thread, the queues between them and ours
 *   raft_loop.c     our thread: its turns, news
 *   raft_instance.c libraft's life: started, closed, started again
 *   raft_fsm.c      committed entries into the image, snapshots
 *   raft_io.c       what stands between libraft and its files: order, failures; no sockets
 *   raft_members.c  voters and leadership
 *   raft_check.c    the directory before a start: torn tails, damage
 *
 * Two locks.  `lock` guards what callers and our thread share; it is held for microseconds,
 * and while a page is copied.  `sink_lock` is held while the sink is called, so that
 * attach(NULL) waits for a call in progress; it is taken before `lock`.
 */
#ifndef ORR_LEDGER_RAFT_IMPL_H
#define ORR_LEDGER_RAFT_IMPL_H

#include "image.h"
#include "ledger_raft.h"

#include <pthread.h>
#include <raft.h>
#include <raft/uv.h>

enum {
    QUEUE_BYTES_MAX = 256 << 20, /* of entries that wait to be written */
    BATCH_ENTRIES_MAX = 4096,    /* of one raft_apply */
    BATCH_BYTES_MAX = 2 << 20,
    REQUESTS_MAX = 64,
    REQUEST_TIMEOUT_MS = 60000,
    TICK_MS = 100,
    RESTART_MIN_MS = 100,
    RESTART_MAX_MS = 5000,
    PATH_BYTES = 900, /* libraft's limit is 1024 with its file names */
};

/* An entry on its way to libraft. */
struct append {
    struct append *next;
    uint64_t term;
    uint64_t ticket; /* 0: the ledger's own */
    size_t len;
    uint8_t *bytes; /* owned; raft_malloc's */
};

enum request_kind { REQUEST_ADD, REQUEST_REMOVE, REQUEST_MOVE };

/* What somebody waits for. */
struct request {
    struct request *next;
    enum request_kind kind;
    struct orr_ledger_voter voter;
    orr_ledger_done_f done;
    void *arg;
    uint64_t deadline_ms; /* of the loop's clock; 0: not taken up yet */
    bool is_begun;        /* something was changed for it */
    bool has_record;      /* its record is on its way */
};

struct voters { /* as the records voter/HOST tell */
    struct orr_ledger_voter at[ORR_LEDGER_VOTERS_MAX];
    uint32_t n;
};

/* An operation of libraft on its files that waits for an append to end (raft_io.c). */
struct file_op;

enum instance { INSTANCE_DOWN, INSTANCE_RUNNING, INSTANCE_CLOSING };

struct ledger_raft {
    struct orr_ledger base;
    /* ---- never changes ---- */
    char dir[PATH_BYTES];
    struct orr_ledger_voter self;
    struct voters configured;
    bool is_joining;
    uint32_t election_ms, heartbeat_ms;
    uint64_t snapshot_log_bytes;
    pthread_t thread;
    uv_async_t wake;

    /* ---- under `lock` ---- */
    pthread_mutex_t lock;
    pthread_cond_t started; /* has_started was set */
    bool has_started;
    struct orr_error start_error;
    bool is_closing;
    struct append *appends, **appends_end; /* owned */
    uint64_t append_bytes;
    uint64_t append_term, append_ticket; /* of the newest that came */
    bool is_overrun;                     /* entries were lost on their way here */
    struct request *requests;            /* owned; newest first */
    uint32_t n_requests;     /* not answered yet: these, `changing` and `waiting` */
    struct orr_image *image; /* owned; changed by our thread only */
    struct voters voters;
    struct orr_ledger_info
        state; /* as last told; keys, bytes and digest come with info */

    /* ---- under `sink_lock` ---- */
    pthread_mutex_t sink_lock;
    struct orr_ledger_sink sink; /* news NULL: nobody */

    /* ---- our thread only ---- */
    uv_loop_t loop;
    uv_prepare_t turn;
    uv_timer_t tick;
    uv_timer_t restart;
    enum instance instance;
    uint32_t restart_ms;
    struct raft raft;
    struct raft_io io;
    struct raft_io file_io; /* libraft's own ops, which io's wrap */
    struct raft_uv_transport transport;
    struct raft_fsm fsm;
    bool is_transport_tcp;
    bool has_io;                              /* libraft's files are to be freed */
    struct raft_configuration bootstrap;      /* owned */
    char snapshot_name[128];                  /* the newest at the start; "" none */
    bool is_snapshot_bad;                     /* it could not be restored */
    struct file_op *file_ops, **file_ops_end; /* owned */
    bool is_writing; /* the first of them is with libraft's files */
    raft_io_close_cb raft_closed;
    struct orr_error broken;  /* what failed; the instance must be restarted */
    struct orr_error trouble; /* until something has become durable again */
    bool is_moving;        /* the only voter gets another address at the next start */
    bool has_term;         /* this leadership has a term of its own */
    uint64_t barrier_term; /* a barrier of this term is on its way or done */
    uint64_t leading_term; /* it is done */
    uint64_t ticket_term, ticket; /* of the newest entry applied */
    uint64_t log_bytes;           /* applied since the newest snapshot */
    uint64_t log_entries;
    struct orr_image_frozen *frozen;
    struct raft_buffer snapshot_buf;
    struct raft_change change;
    struct raft_transfer transfer;
    bool is_changing;         /* libraft has `change` or `transfer` */
    struct request *changing; /* owned; whose it is; NULL: its time was over */
    struct request *waiting;  /* owned; oldest first */
};

/* libraft 0.15 writes segments that it cannot read when an entry's length is not a multiple of
 * eight; the zeros behind an entry are not read. */
static inline size_t orri_pad8(size_t len)
{
    return (len + 7) & ~(size_t)7;
}

static inline uint64_t orri_voter_id(struct orr_str host)
{
    const uint64_t id = orr_hash(host);
    return id ? id : 1;
}

/* ---- raft_loop.c ---- */
ORR_NODISCARD int orri_raft_loop_init(struct ledger_raft *l); /* an error of libuv */
void orri_raft_loop_fini(struct ledger_raft *l); /* only when the thread never ran */
void *orri_raft_thread(void *ledger);
/* Of whom the records or the configuration tell; "" when of nobody. */
const char *orri_raft_host_of(const struct ledger_raft *l, raft_id id);
/* Queue an entry of the ledger's own.  False: no memory. */
bool orri_raft_append_own(struct ledger_raft *l,
                          const struct orr_msg_ledger_append *msg);

/* ---- raft_instance.c ---- */
/* ORR_OK, or *err why not; then the instance is down or on its way there. */
ORR_NODISCARD enum orr_err orri_raft_instance_start(struct ledger_raft *l,
                                                    struct orr_error *err);
void orri_raft_instance_close(struct ledger_raft *l); /* another one follows */
void orri_raft_instance_free(struct ledger_raft *l);  /* when the loop is quiet */
void orri_raft_close_handles(struct ledger_raft *l);
bool orri_raft_is_closing(struct ledger_raft *l);

/* ---- raft_fsm.c ---- */
void orri_raft_fsm_init(struct ledger_raft *l);
void orri_raft_watch(void *voters, const struct orr_rec_ledger_record *record);

/* ---- raft_io.c ---- */
void orri_raft_io_wrap(struct ledger_raft *l);
void orri_raft_transport_none(struct raft_uv_transport *transport);
/* Note what failed; the next turn restarts the instance. */
void orri_raft_broke(struct ledger_raft *l, int code, const char *what);

/* ---- raft_members.c ---- */
void orri_raft_members_turn(struct ledger_raft *l);
void orri_raft_members_close(struct ledger_raft *l); /* all get ORR_EGONE */
/* Records of voters that the image lacks; called when leadership was won. */
void orri_raft_members_record(struct ledger_raft *l);

/* ---- raft_check.c ---- */
/* Errors: ORR_EDISK damaged, ORR_EIO, ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orri_raft_check_dir(struct ledger_raft *l,
                                               struct orr_error *err);
ORR_NODISCARD enum orr_err orri_raft_check_address(const char *address,
                                                   struct orr_error *err);

#endif
