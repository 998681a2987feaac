/* SPDX-License-Identifier: Apache-2.0
 * driver.h - the insides of the emulated driver.
 *
 * One mutex, emu.lock, guards all control state: handles, contexts, queues, ranges. It
 * is never held while user code, a copy or a kernel runs. An API call begins with
 * emu_enter*() (checks, takes the lock) and ends with emu_leave() (drops it).
 * Handles are addresses of struct emu_object; one is dereferenced only after it was
 * found in the table of live handles, so a stale or wild handle is an error, not a
 * crash.
 */
#ifndef EMU_DRIVER_H
#define EMU_DRIVER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "device_file.h"
#include "orrery/gpu_abi.h"
#include "ptx.h"

#define EMU_API __attribute__((visibility("default")))

enum { EMU_DEVICES_MAX = 64, EMU_CTX_DEPTH_MAX = 64, EMU_QUEUED_OPS_MAX = 4096 };
#define EMU_HOST_BYTES_MAX ((size_t)64 << 30)

enum emu_kind {
    EMU_CONTEXT,
    EMU_STREAM,
    EMU_EVENT,
    EMU_MODULE,
    EMU_FUNCTION,
    EMU_PHYSICAL
};

struct emu_object {
    enum emu_kind kind;
    unsigned refs;
    bool is_live;            /* in the handle table */
    struct CUctx_st *ctx;    /* borrowed, a reference for streams; NULL for contexts */
    struct emu_object *next; /* in its bucket of the handle table */
};

struct emu_device {
    struct emu_device_file *file; /* owned */
    struct emu_device_info info;  /* as of cuInit; the identity */
    struct CUctx_st *primary;     /* owned by its references */
    unsigned primary_refs;
    unsigned primary_flags;
};

struct CUctx_st {
    struct emu_object object;
    struct emu_device *device; /* borrowed: emu.devices */
    unsigned flags;
    _Atomic bool is_closing; /* being destroyed: waits for values end */
    CUresult sticky; /* first fatal error of a kernel; every later call returns it */
    size_t limits[3];
    struct CUstream_st *streams; /* list through next_in_ctx, the defaults first */
    struct CUstream_st *legacy;
    struct CUstream_st *per_thread;
};

/* A piece of the device address range, or host memory that a kernel may touch. */
enum emu_range_kind {
    EMU_RANGE_DEVICE,
    EMU_RANGE_HOST,
    EMU_RANGE_REGISTERED,
    EMU_RANGE_RESERVED
};

struct emu_range {
    uint64_t address;
    uint64_t bytes;        /* as asked for */
    uint64_t mapped_bytes; /* whole pages */
    enum emu_range_kind kind;
    unsigned flags;
    struct CUctx_st *ctx; /* borrowed: freed with the context */
    uint64_t id;
    uint32_t *pages; /* owned; the device's pages behind it, in order */
    void *saved;     /* owned; its content while the process is suspended */
    struct emu_mapping *mappings; /* owned; of a reservation */
};

struct emu_driver {
    pthread_mutex_t lock;
    bool is_ready;           /* cuInit succeeded in this process */
    bool is_forked;          /* a child of a process that was ready: nothing works */
    bool is_locked;          /* a checkpoint holds calls back */
    unsigned n_inside;       /* calls that were let in and have not returned */
    pthread_cond_t unlocked; /* is_locked became false */
    pthread_cond_t quiet;    /* n_inside became 0 */
    unsigned n_devices;
    struct emu_device devices[EMU_DEVICES_MAX];
    uint64_t next_id;
};
extern struct emu_driver emu;

/* ---- driver.c: entry and exit of every call ---- */
CUresult emu_enter(void);                          /* lock taken on success */
CUresult emu_enter_ctx(struct CUctx_st **ret_ctx); /* current context, not poisoned */
CUresult emu_enter_device(CUdevice dev, struct emu_device **ret_device);
CUresult emu_leave(CUresult rc);
void emu_set_in_callback(bool is_in_callback);
uint64_t emu_now_ns(void);

/* ---- handle.c ---- */
void emu_object_init(struct emu_object *o, enum emu_kind kind, struct CUctx_st *ctx);
void *emu_object_find(const void *handle, enum emu_kind kind); /* NULL unless live */
void emu_object_kill(struct emu_object *o); /* the handle is no more */
/* The next live object of a kind; start with NULL. */
void *emu_object_next(const void *after, enum emu_kind kind);
/* A live object of a kind in a context. */
void *emu_object_any(enum emu_kind kind, const struct CUctx_st *ctx);

/* ---- context.c ---- */
CUresult emu_ctx_current(struct CUctx_st **ret_ctx);
CUresult emu_ctx_wait_idle(struct CUctx_st *ctx); /* drops the lock while it waits */
void emu_ctx_unref(struct CUctx_st *ctx);

/* ---- range.c ---- */
CUresult emu_range_start(void); /* reserve the address range */
CUresult emu_range_insert(const struct emu_range *range, struct emu_range **ret_range);
/* A free address for `bytes` in the device range; 0 if there is none. */
uint64_t emu_range_place(uint64_t bytes, uint64_t alignment, uint64_t wanted);
struct emu_range *emu_range_find(uint64_t address);
struct emu_range *
emu_range_next(uint64_t address); /* the first one that ends after it */
void emu_range_remove(struct emu_range *range);
bool emu_range_is_ours(uint64_t address); /* in the reserved address range */
/* Take the memory behind addresses away; they stay ours. */
void emu_range_reserve_again(uint64_t address, uint64_t bytes);
/* Let kernels touch [address, address + bytes), or no more. */
void emu_range_set_valid(uint64_t address, uint64_t bytes, bool is_valid);
/* All of [address, address + bytes) is memory that a copy may touch. */
bool emu_range_is_valid(uint64_t address, uint64_t bytes);

/* ---- memory.c ---- */
CUresult emu_memory_alloc(struct CUctx_st *ctx, size_t bytes, CUdeviceptr *ret_address);
void emu_memory_free(struct emu_range *range);
void emu_memory_free_all(struct CUctx_st *ctx);

/* The content of all device memory of cuMemAlloc, and modules, goes to host memory, the pages are dropped; or back. */
CUresult emu_memory_save(void);
CUresult
emu_memory_take(struct emu_device_file *const *files); /* by device; -> new pages */
void emu_memory_take_back(struct emu_device_file *const *files);
CUresult emu_memory_restore(struct emu_device_file *const *files);

/* ---- vmm.c: the same for physical memory ---- */
bool emu_vmm_is_shared(void); /* something was exported or imported */
CUresult emu_vmm_save(void);
CUresult emu_vmm_take(struct emu_device_file *const *files);
void emu_vmm_take_back(struct emu_device_file *const *files);
CUresult emu_vmm_restore(struct emu_device_file *const *files);

/* ---- control.c: the thread that suspends this process when another one asks ---- */
CUresult emu_control_start(void); /* with the lock, at cuInit */
void emu_control_abandon(void);   /* in a child after fork */

/* ---- stream.c: in-order queues, a thread for each that has work ---- */
enum emu_op_kind {
    EMU_OP_WAIT,
    EMU_OP_COPY,
    EMU_OP_FILL,
    EMU_OP_LAUNCH,
    EMU_OP_HOST,
    EMU_OP_CALLBACK,
    EMU_OP_RECORD,
    EMU_OP_MARK,
    EMU_OP_AWAIT_VALUE,
    EMU_OP_WRITE_VALUE,
};

struct emu_op {
    enum emu_op_kind kind;
    uint64_t seq;
    struct emu_op *next;
    union {
        struct {
            struct CUstream_st *stream;
            uint64_t seq;
        } wait; /* a reference */
        struct {
            void *dst;
            const void *src;
            size_t bytes;
            void *staged;
        } copy;
        struct {
            void *dst;
            size_t n;
            unsigned value;
            unsigned width;
        } fill;
        struct {
            CUhostFn fn;
            void *arg;
        } host;
        struct {
            CUstreamCallback fn;
            CUstream handle;
            void *arg;
        } callback;
        struct emu_value {
            void *at;
            uint64_t value;
            unsigned width; /* bytes */
            unsigned how;   /* a wait: CUstreamWaitValue_flags */
        } value;
        struct {
            struct CUevent_st *event;
        } record;                  /* a reference */
        struct emu_launch *launch; /* owned */
    };
};

struct CUstream_st {
    struct emu_object object;
    unsigned flags;
    int priority;
    struct CUstream_st *next_in_ctx;
    struct emu_op *head, *tail;
    unsigned n_queued;
    uint64_t submitted, completed; /* sequence numbers of operations */
    uint64_t legacy_waited;        /* how far it already waits for the legacy stream */
    uint64_t waited_by_legacy;     /* how far the legacy stream already waits for it */
    bool has_worker;
    bool is_closing;
    struct ptx_scratch scratch; /* of its worker */
    bool is_inline;             /* a caller executes an operation itself */
    pthread_cond_t work;        /* something was queued, or is_closing, or !is_inline */
    pthread_cond_t progress;    /* completed moved, or room in the queue */
};

CUresult emu_stream_new(struct CUctx_st *ctx,
                        unsigned flags,
                        int priority,
                        struct CUstream_st **ret_stream);
void emu_stream_close(struct CUstream_st *s); /* its work ends, then it goes */
void emu_stream_unref(struct CUstream_st *s);
/* The stream a handle names, in the given context; NULL and the two constants included.
 */
CUresult
emu_stream_find(struct CUctx_st *ctx, CUstream handle, struct CUstream_st **ret);
/* Queue an operation (copied). Takes what it owns, also when it fails. */
CUresult
emu_stream_submit(struct CUstream_st *s, const struct emu_op *op, uint64_t *ret_seq);
/* Wait until an operation is done; drops the lock meanwhile. */
void emu_stream_wait(struct CUstream_st *s, uint64_t seq);
bool emu_stream_is_idle(const struct CUstream_st *s);
/* Execute now in the caller if nothing is ahead of it, else queue it and wait. */
CUresult emu_stream_run(struct CUstream_st *s, struct emu_op *op);
/* Make s wait for what `other` has been given so far. */
CUresult
emu_stream_depend(struct CUstream_st *s, struct CUstream_st *other, uint64_t seq);

/* ---- stream_value.c: what waits for, and writes, words of memory ---- */
void emu_value_await(const struct CUctx_st *ctx, const struct emu_value *v);
void emu_value_write(const struct emu_value *v);

/* ---- event.c ---- */
struct CUevent_st {
    struct emu_object object;
    unsigned flags;
    struct CUstream_st *stream; /* a reference: where it was last recorded, or NULL */
    uint64_t seq;
    uint64_t time_ns;
};
void emu_event_unref(struct CUevent_st *e);

/* ---- module.c, launch.c ---- */
struct emu_launch;
CUresult emu_launch_run(struct emu_launch *launch, struct ptx_scratch *scratch);
void emu_launch_free(struct emu_launch *launch);
void emu_module_unref_all(struct CUctx_st *ctx);

/* ---- symbols.c ---- */
CUresult emu_unsupported(const char *name); /* counts; CUDA_ERROR_NOT_SUPPORTED */

#endif
