/* SPDX-License-Identifier: Apache-2.0
 * comm.h - virtual communicators: what the program's ncclComm_t stands for.
 *
 * A handle names a slot of one table and the slot's generation, under a tag that no pointer has: a stale one is an error and never
 * followed, and handles can be told apart from everything else in an argument register.  Slots are static and never freed, so
 * that a thread that still looks at one while another destroys it reads no freed memory (what it then tells the real library is
 * the program's own race, as without us).
 *
 * The real communicator goes at a cut and comes anew at the resume (rebuild.c).  Two things keep threads off it meanwhile: what
 * moves a clock is between orri_gate_enter and leave (core/gate.h); every other call holds a *use* (orri_use_begin).  Destroy,
 * Finalize and Abort hold neither while they are in the real library: they may wait there for other ranks, which at a cut destroy
 * the communicator as well.
 */
#ifndef ORRI_NCCL_COMM_H
#define ORRI_NCCL_COMM_H

#include "../core/gate.h"
#include "orrery/gpu_abi.h"
#include "real.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    ORRI_COMMS_MAX = 4096,
    ORRI_GONE_MAX = 1024,
    ORRI_LEFT_MAX =
        1024, /* communicators that the program has destroyed, and others may not have */
    ORRI_REDOPS_MAX = 4096,  /* of one communicator */
    ORRI_CONFIG_BYTES = 512, /* more than any NCCL's ncclConfig_t so far */
    ORRI_NAME_BYTES = 128,   /* of netName, commName */
};
#define ORRI_HANDLE_TAG UINT64_C(0x4f52) /* bits 63-48: no address has these */

/* How the communicator was configured; bytes beyond `size` are not the program's. */
struct orri_config {
    bool is_set; /* no: NULL was passed, or nothing */
    union {
        ncclConfig_t c;
        char bytes[ORRI_CONFIG_BYTES];
    } u;
    char net[ORRI_NAME_BYTES], name[ORRI_NAME_BYTES];
};

/* A ncclRedOp_t made by the program.  Referenced by its table and by calls that wait for the end of a group. */
struct orri_redop {
    int refs; /* guarded by the communicator's lock */
    ncclRedOp_t real;
    bool is_real;
    void *scalar; /* on the device; borrowed: the program's */
    uint64_t value;
    ncclDataType_t type;
    ncclScalarResidence_t residence;
};

/* A registered buffer or window. */
struct orri_buffer {
    struct orri_buffer *next;
    void *program; /* the handle that the program has */
    void *real;
    void *at; /* borrowed: the program's */
    size_t size;
    int flags;
    bool is_window;
};

struct orri_splice;
struct orri_comm {
    _Atomic uint64_t handle;  /* 0: the slot is free, or reserved */
    _Atomic(ncclComm_t) real; /* NULL: while stopped, or lost */
    uint64_t key;             /* the same in all ranks */
    _Atomic int n;            /* ranks; 0 until known (split) */
    int me;
    _Atomic(struct orri_splice *)
        splice; /* owned: ranks of it share a device; then real is the leaders', or NULL */
    struct orri_clock *clock; /* borrowed: for ever; NULL: not counted */
    _Atomic(struct orri_clock **)
        pair;  /* owned: 2 n, sends then receives; made when needed */
    void *ctx; /* CUcontext of its creation; NULL: the primary one of device */
    int device;
    bool is_retained; /* device's primary context, by us */
    atomic_bool is_finalized;
    _Atomic int finalizing; /* calls in progress */
    bool is_stopped;        /* the real one went at a cut and is to come anew */
    atomic_bool is_lost;    /* there is no real one and never will be: */
    ncclResult_t lost_code;
    char lost_text[160];
    bool
        is_left; /* lost because a member is gone: it answers questions, like one whose peer has died */
    atomic_bool is_told; /* is_left, and the program knows */
    uint64_t
        destroyed; /* the program has, the how manyth: kept for those who have it still; 0: no */
    struct orri_config config;
    ncclUniqueId fresh; /* rank 0, while stopped: for the next real one */
    ncclComm_t sink;    /* where the real library may say that a split made nothing */

    pthread_mutex_t lock; /* guards the rest */
    uint32_t splits, shrinks;
    struct orri_redop **redops; /* owned: by number; NULL: free */
    unsigned nredops;
    struct orri_buffer *buffers; /* owned; in order of registration */
    bool is_used;                /* guarded by the table's lock */
    uint32_t generation;
};

extern struct orri_comm orri_comms[ORRI_COMMS_MAX];

/* The slot behind a handle; NULL if it is none, or no more. */
static inline struct orri_comm *orri_comm_find(ncclComm_t handle)
{
    uint64_t h = (uint64_t)(uintptr_t)handle;
    struct orri_comm *c = &orri_comms[h & (ORRI_COMMS_MAX - 1)];

    if (h >> 48 != ORRI_HANDLE_TAG)
        return NULL;
    return atomic_load_explicit(&c->handle, memory_order_acquire) == h ? c : NULL;
}

/* A real communicator, or garbage. */
static inline bool orri_comm_is_foreign(ncclComm_t handle)
{
    return handle && (uint64_t)(uintptr_t)handle >> 48 != ORRI_HANDLE_TAG;
}

/* As orri_comm_find; sets the thread's last error. */
struct orri_comm *orri_comm_get(ncclComm_t handle);

/* A reserved slot without a handle; NULL: too many (the thread's last error). */
struct orri_comm *orri_comm_new(uint64_t key, int n, int me);
/* Gives it its handle, before the real one is made. */
ncclComm_t orri_comm_publish(struct orri_comm *c);
/* From now on its calls fail with this, and others are told that it cannot be made anew. */
void orri_comm_lose(struct orri_comm *c, ncclResult_t code, const char *text);
/* The real one, or why there is none. */
ncclResult_t orri_comm_real(struct orri_comm *c, ncclComm_t *ret_real);
/* The keys of communicators that this process aborted or lost since the last call of clear: the newest, at most cap. */
void orri_gone_add(uint64_t key);
uint32_t orri_gone_list(uint64_t *keys, uint32_t cap);
void orri_gone_clear(void);
/* Takes the handle back: no call finds it any more.  False: somebody else did.  When the real one is gone, free it. */
bool orri_comm_forget(struct orri_comm *c, ncclComm_t handle);
void orri_comm_free(struct orri_comm *c);
/* After ncclCommDestroy: other ranks may have it still, and then need us to make it anew after a stop (rebuild.c). */
void orri_comm_retire(struct orri_comm *c);
/* Finds out n and me of a split, device and context.  Errors: what the real library says of one that is not ready. */
ncclResult_t orri_comm_settle(struct orri_comm *c);
/* What a new one is told of itself where the real library would have been asked. */
void orri_comm_know(struct orri_comm *c, int n, int me);
/* Why it cannot be used; success if it can. */
ncclResult_t orri_comm_check(struct orri_comm *c);
/* The clock of sends to, or receives from, a peer; NULL: not counted. */
struct orri_clock *
orri_comm_pair(struct orri_comm *c, enum orr_clock_kind kind, int peer);

/* Calls that no clock counts and that need the real communicator.  begin waits while the process is stopped. */
void orri_use_begin(void);
void orri_use_end(void);
/* False while the process is stopped. */
bool orri_use_try(void);
/* For the stop: no use begins from now on; waits for those there are.  False: deadline. */
bool orri_use_close(uint64_t deadline_ms);
void orri_use_open(void);
/* A communicator that is out of the table, on its way to its end in the real library: a stop waits for it only after it has
 * destroyed the others, for which it may be waiting.  begin within a gate or a use. */
void orri_leave_begin(void);
void orri_leave_end(void);
bool orri_leave_await(uint64_t deadline_ms);
uint64_t orri_nccl_now_ms(void);

/* Keys (key.c): SipHash-2-4 of what all members know alike. */
uint64_t orri_key(uint64_t seed, const void *data, size_t len);

/* Registers this library with the core, once, when the first communicator is made (rebuild.c). */
void orri_nccl_register(void);

/* A copy of at most from->size bytes, with strings of its own.  False: not made by NCCL_CONFIG_INITIALIZER. */
bool orri_config_copy(struct orri_config *to, const ncclConfig_t *from);
/* What a child has that says nothing of its own. */
void orri_config_inherit(struct orri_config *child, const struct orri_config *parent);
bool orri_config_is_blocking(const struct orri_config *config);
/* For the real calls: NULL when none was set. */
ncclConfig_t *orri_config_get(struct orri_config *config);

/* Operators: the real number behind the program's.  take: keeps it until put. */
ncclResult_t orri_redop_find(struct orri_comm *c,
                             ncclRedOp_t op,
                             ncclDataType_t type,
                             struct orri_redop **take_ref,
                             ncclRedOp_t *ret_real);
void orri_redop_put(struct orri_comm *c, struct orri_redop *redop);
/* Makes all operators and registrations of a new real communicator. */
ncclResult_t orri_redops_remake(struct orri_comm *c);
ncclResult_t orri_buffers_remake(struct orri_comm *c);
/* Before the real one is destroyed. */
void orri_buffers_drop(struct orri_comm *c);

/* The device of this process, as its node called it last; "": not since it began. */
extern char orri_device_told[];

/* The driver calls that we need, of whatever libcuda the program has; false: it has none (cuda.c). */
bool orri_ctx_get(void **ret_ctx);
bool orri_ctx_set(void *ctx);
bool orri_ctx_primary(int device, void **ret_ctx); /* retained */
void orri_ctx_release(int device);
bool orri_stream_is_capturing(CUstream stream);

#endif
