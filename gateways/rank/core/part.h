/* SPDX-License-Identifier: Apache-2.0
 * part.h - what liborrery-rank.so asks of the libraries that stand before CUDA and NCCL, and gives to them.
 *
 * A part registers itself when the program first uses it (which starts the link's thread in this process; a program that uses
 * none starts nothing).  Stops call the parts in one order, nccl before cuda; resumes in the other.  All callbacks come from the
 * link's one thread, at a cut: the gate (gate.h) is closed, no thread is between enter and leave.  Each has until deadline_ms
 * (CLOCK_MONOTONIC, ms); a failed quiesce has undone itself and the process runs on as before.
 * After fork the child is inactive: no part is called there.
 */
#ifndef ORR_RANK_PART_H
#define ORR_RANK_PART_H

#include <stdbool.h>
#include <stddef.h>

#include "gate.h"
#include "orrery/base.h"

enum orri_part_kind {
    ORRI_PART_NCCL,
    ORRI_PART_CUDA,
    ORRI_PART_COOPERATIVE,
    ORRI_PART_MAX_
};

/* Host memory that holds what was on the devices: one file in memory, mapped. */
struct orri_arena {
    int fd;
    uint8_t *at;
    uint64_t bytes;
};

/* What a process says of a communicator that it has, or had; of two that differ the later of these holds. */
enum orri_id_kind {
    ORRI_ID_WANTED, /* a member here still has it, and needs an id */
    ORRI_ID_MADE,
    ORRI_ID_VOID, /* it cannot be made anew: a member has aborted it, or is gone */
};

struct orri_comm_id {
    uint64_t comm;
    uint32_t kind;   /* enum orri_id_kind */
    uint8_t id[128]; /* MADE: a fresh ncclUniqueId */
};

struct orri_part {
    const char *name;
    /* First of all, while the program's thread in a point may still use everything: cooperative only; NULL otherwise.  Fails
     * without change. */
    enum orr_err (*prepare)(uint64_t deadline_ms, struct orr_error *err);
    /* Bytes of the arena this part will need; upper bound.  0: none.  May be NULL. */
    uint64_t (*arena_bytes)(void);
    /* Stop: let go of everything outside of this process' own memory.  arena: its piece, page-aligned, arena_bytes long. */
    enum orr_err (*quiesce)(struct orri_arena *piece,
                            uint64_t deadline_ms,
                            struct orr_error *err);
    /* Undo a quiesce, or go on after a stop, perhaps on another machine.  Fails without change: it is called again later.
     * device: uuid of the device to use ("": the same). */
    enum orr_err (*resume)(const struct orri_arena *piece,
                           const char *device,
                           uint64_t deadline_ms,
                           struct orr_error *err);
    /* nccl only; NULL otherwise.  Before resume: what this process has to say, MADE where it has rank 0.
     * UINT32_MAX: it cannot; the resume fails. */
    uint32_t (*make_ids)(struct orri_comm_id *ids, uint32_t cap);
    /* nccl only; may be NULL.  All processes have spoken: what it adds to that. */
    uint32_t (*add_ids)(const struct orri_comm_id *known,
                        uint32_t n,
                        struct orri_comm_id *ids,
                        uint32_t cap);
    /* nccl only.  Of all communicators that this process needs; resume needs them.  Asked when all have spoken. */
    bool (*has_all_ids)(const struct orri_comm_id *ids, uint32_t n);
    /* Gates of its own: closed before quiesce of any part (cuda: its gate for all calls), opened after resume of all.
     * close waits until no thread is inside, at most until deadline_ms.  May be NULL. */
    enum orr_err (*close)(uint64_t deadline_ms, struct orr_error *err);
    void (*open)(void);
    /* About once a second while no stop is under way.  Does not wait.  May be NULL. */
    void (*look)(void);
    /* Threads of the program that are in one of its calls now; of one of them *ret_call.  May be NULL.  Any time. */
    uint32_t (*inside)(const char **ret_call);
    /* Microseconds that the last quiesce or resume took to copy.  May be NULL. */
    uint64_t (*copied_us)(void);
};

/* Once per kind; starts the link when the first part comes.  part lives for ever.  Without ORRERY_RANK_LINK nothing happens. */
void orri_part_register(enum orri_part_kind kind, const struct orri_part *part);

/* Why this process cannot be stopped, or cannot move; the first reason stays ("uses cuMemAllocManaged").  text: static. */
void orri_rank_limit(const char *why_not_suspendable, const char *why_not_migratable);

/* All ids for has_all_ids/resume are kept by the core and handed over here: valid during resume. */
const struct orri_comm_id *orri_comm_ids(uint32_t *ret_n);

/* The device of this process after the stop, as its node calls it; "": as before.  From make_ids to resume. */
const char *orri_stop_device(void);

/* Tells all processes of the job, between stops, ORRI_POST_BYTES under a name that is used once; and waits for what others, or this
 * one, have told under n names.  False: no node, too many, or the deadline (CLOCK_MONOTONIC, ms).  Any thread of the program. */
enum { ORRI_POST_BYTES = 128, ORRI_POSTS_AWAITED_MAX = 1024 };
bool orri_post(uint64_t name, const uint8_t *data);
bool orri_await_posts(const uint64_t *names,
                      uint32_t n,
                      uint8_t (*ret_data)[ORRI_POST_BYTES],
                      uint64_t deadline_ms);

/* From within a part's resume: has the node asked for a newer attempt?  Then nobody comes to this one any more: undo it and fail. */
bool orri_stop_has_newer(void);

#endif
