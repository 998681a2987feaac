/* SPDX-License-Identifier: Apache-2.0
 * ids.h - the numbers that messages carry: phases, states, roles, limits.  Stable on
 * the wire; append only.
 */
#ifndef ORR_IDS_H
#define ORR_IDS_H

#include "orrery/base.h"

enum orr_role {
    ORR_ROLE_LOCAL = 1,  /* an actor of the same host */
    ORR_ROLE_HOST = 2,   /* another host of the fleet */
    ORR_ROLE_CLIENT = 4, /* a user's client */
};
#define ORR_ROLE_FLEET ((unsigned)ORR_ROLE_LOCAL | (unsigned)ORR_ROLE_HOST)
#define ORR_ROLE_ANY   (ORR_ROLE_FLEET | (unsigned)ORR_ROLE_CLIENT)

/* X(number, name, text): a job's phases (DESIGN: one table, checked on every move). */
#define ORR_JOB_PHASES(X)                                                              \
    X(0, QUEUED, "queued")                                                             \
    X(1, PLACING, "placing")                                                           \
    X(2, LAUNCHING, "launching")                                                       \
    X(3, RUNNING, "running")                                                           \
    X(4, STOPPING, "stopping")                                                         \
    X(5, SUSPENDED, "suspended")                                                       \
    X(6, RESTORING, "restoring")                                                       \
    X(7, UNKNOWN, "unknown")                                                           \
    X(8, DONE, "done")                                                                 \
    X(9, FAILED, "failed")                                                             \
    X(10, CANCELLED, "cancelled")                                                      \
    X(11, MOVED, "moved")

enum orr_job_phase {
#define X(number, name, text) ORR_JOB_##name = (number),
    ORR_JOB_PHASES(X)
#undef X
        ORR_JOB_PHASE_MAX_
};

enum orr_job_outcome {
    ORR_OUTCOME_DONE,      /* every rank exited 0 */
    ORR_OUTCOME_FAILED,    /* the program's fault: counts against retries.user */
    ORR_OUTCOME_LOST,      /* the machine's fault: counts against retries.infra */
    ORR_OUTCOME_CANCELLED, /* as asked */
    ORR_OUTCOME_MOVED, /* its newest checkpoint goes on elsewhere: nothing is lost */
    ORR_OUTCOME_MAX_
};

enum orr_rank_state {
    ORR_RANK_STARTING,
    ORR_RANK_RUNNING,
    ORR_RANK_EXITED, /* exit_code and signal say how */
    ORR_RANK_FAILED, /* never started: reason says why */
    ORR_RANK_LOST, /* the machine's fault: keeper killed, restart, disk: no exit code */
    ORR_RANK_STATE_MAX_
};

enum orr_node_state {
    ORR_NODE_UP,
    ORR_NODE_UNKNOWN, /* silent for longer than suspect_ms */
    ORR_NODE_LOST,    /* proven gone, or its lease ended */
    ORR_NODE_DRAINING,
    ORR_NODE_STATE_MAX_
};

enum orr_tier { ORR_TIER_PREMIUM, ORR_TIER_STANDARD, ORR_TIER_BASIC, ORR_TIER_MAX_ };
enum orr_spread { ORR_SPREAD_PACK, ORR_SPREAD_SPREAD, ORR_SPREAD_MAX_ };
enum orr_reduce {                  /* in which order a sum over ranks is taken */
                  ORR_REDUCE_FAST, /* as the library likes */
                  ORR_REDUCE_ORDERED, /* by one tree of ranks, whatever the devices: the same bits */
                  ORR_REDUCE_MAX_
};
enum orr_checkpoint_mode {
    ORR_CHECKPOINT_AUTO,
    ORR_CHECKPOINT_IMAGE,
    ORR_CHECKPOINT_INPLACE,
    ORR_CHECKPOINT_COOPERATIVE,
    ORR_CHECKPOINT_NONE,
    ORR_CHECKPOINT_MODE_MAX_
};

/* How a job can be stopped and go on; from weak to strong NONE, INPLACE, COOPERATIVE, IMAGE. */
enum orr_level {
    ORR_LEVEL_UNKNOWN,
    ORR_LEVEL_NONE, /* it can only be killed */
    ORR_LEVEL_COOPERATIVE, /* as INPLACE, and saved: the program loads its state anywhere (orrery/rank.h) */
    ORR_LEVEL_INPLACE, /* suspended, and resumed on the same node */
    ORR_LEVEL_IMAGE,   /* saved as an image: goes on on any node of the same kind */
    ORR_LEVEL_MAX_
};

enum orr_order {
    ORR_ORDER_NONE,
    ORR_ORDER_RUN,        /* resume */
    ORR_ORDER_SUSPEND,    /* free the devices, stay on the nodes */
    ORR_ORDER_CHECKPOINT, /* save, then go on as before */
    ORR_ORDER_VACATE,     /* save, then end with ORR_OUTCOME_MOVED */
    ORR_ORDER_RESIZE,     /* go on on another number of devices */
    ORR_ORDER_MAX_
};

/* X(number, name, text): how far an order is. */
#define ORR_ORDER_STATES(X)                                                            \
    X(0, NONE, "none")                                                                 \
    X(1, OPEN, "open")     /* the job's actor has not taken it yet */                  \
    X(2, TAKEN, "taken")   /* by it */                                                 \
    X(3, QUEUED, "queued") /* the job waits for its place, and runs on there */        \
    X(4, DONE, "done")                                                                 \
    X(5, FAILED, "failed")
enum orr_order_state {
#define X(number, name, text) ORR_ORDER_IS_##name = (number),
    ORR_ORDER_STATES(X)
#undef X
        ORR_ORDER_STATE_MAX_
};

/* What a rank counts (docs/barrier.md). */
enum orr_clock_kind {
    ORR_CLOCK_COLLECTIVE, /* and the communicator's own making, the first of them */
    ORR_CLOCK_SEND,
    ORR_CLOCK_RECV,
    ORR_CLOCK_KIND_MAX_
};

/* X(number, name, text): what was issued last, for a hang's report. */
#define ORR_CLOCK_OPS(X)                                                               \
    X(0, NONE, "nothing")                                                              \
    X(1, CREATE, "ncclCommInit")                                                       \
    X(2, SPLIT, "ncclCommSplit")                                                       \
    X(3, ALL_REDUCE, "ncclAllReduce")                                                  \
    X(4, REDUCE, "ncclReduce")                                                         \
    X(5, BROADCAST, "ncclBroadcast")                                                   \
    X(6, ALL_GATHER, "ncclAllGather")                                                  \
    X(7, REDUCE_SCATTER, "ncclReduceScatter")                                          \
    X(8, ALL_TO_ALL, "ncclAlltoAll")                                                   \
    X(9, GATHER, "ncclGather")                                                         \
    X(10, SCATTER, "ncclScatter")                                                      \
    X(11, SEND, "ncclSend")                                                            \
    X(12, RECV, "ncclRecv")                                                            \
    X(13, GROUP, "ncclGroupEnd")                                                       \
    X(14, POINT, "orr_rank_point")
enum orr_clock_op {
#define X(number, name, text) ORR_CLOCK_OP_##name = (number),
    ORR_CLOCK_OPS(X)
#undef X
        ORR_CLOCK_OP_MAX_
};

/* A rank that issues nothing, as its node sees it. */
enum orr_pause {
    ORR_PAUSE_NONE, /* in code of the program's own, or unknown */
    ORR_PAUSE_CALL, /* whenever it was asked, a thread was in a call of CUDA or NCCL */
    ORR_PAUSE_SILENT, /* it does not run: stopped, frozen */
    ORR_PAUSE_MAX_
};

/* A stop, step by step; all before `release` can be undone. */
enum orr_cut_step {
    ORR_CUT_NONE,
    ORR_CUT_BEGIN,   /* close the gates, report the clocks */
    ORR_CUT_TARGETS, /* run on to the targets */
    ORR_CUT_QUIESCE, /* communicators, device memory, driver, freeze */
    ORR_CUT_SAVE,    /* into the store */
    ORR_CUT_RELEASE, /* the devices are verified free */
    ORR_CUT_RESUME,  /* thaw, take memory, make communicators, open the gates */
    ORR_CUT_OPEN,    /* not quiesced yet: run on */
    ORR_CUT_JOIN,    /* the job's alone: ranks that change node are restored there */
    ORR_CUT_STEP_MAX_
};
enum orr_step_state {
    ORR_STEP_WORKING,
    ORR_STEP_DONE,
    ORR_STEP_FAILED,
    ORR_STEP_STATE_MAX_
};

enum {
    ORR_RANK_PROTOCOL = 1, /* between a rank's library and its node */
    ORR_NAME_MAX =
        64, /* bytes of a host, cluster, node, project or job name, with its NUL */
    ORR_MACHINE_MAX = 24,    /* bytes of "192.0.2.7:4789", with its NUL */
    ORR_MACHINES_MAX = 64,   /* others that the network of a job's ranks spans */
    ORR_JOB_ID_MAX = 96,     /* bytes of a job id, "<region>-<base36>", with its NUL */
    ORR_KEY_MAX = 256,       /* bytes of a ledger key, with its NUL */
    ORR_RANK_PROCS_MAX = 64, /* processes of a rank that use devices, */
    ORR_PART_ARENAS_MAX = 64 * 32, /* and bytes of a part's list of them */
    ORR_TAIL_MAX = 2048,           /* bytes of stderr kept with a rank's end */
    ORR_WORLD_MAX = 65536,         /* ranks of one job */
    ORR_REGION_HOSTS_MAX = 8,      /* hosts of one region; one leads */
    ORR_REGION_PEERS_MAX = 64,     /* hosts of other regions that a region knows */
    ORR_PROTOCOL_VERSION = 1,
};
#define ORR_NO_DEVICE UINT32_MAX
#define ORR_PARKED_DEVICE                                                              \
    (UINT32_MAX - 1) /* suspended: it had one, and wants one again */

/* "running", "up", ...: static, never NULL ("?" for a number this build does not know).
 */
const char *orr_job_phase_name(uint32_t phase);
const char *orr_rank_state_name(uint32_t state);
const char *orr_node_state_name(uint32_t state);
const char *orr_tier_name(uint32_t tier);
const char *orr_level_name(uint32_t level);
const char *orr_order_name(uint32_t order);
const char *orr_order_state_name(uint32_t state);
const char *orr_clock_op_name(uint32_t op);
const char *orr_cut_step_name(uint32_t step);

static inline bool orr_job_phase_is_final(uint32_t phase)
{
    return phase == ORR_JOB_DONE || phase == ORR_JOB_FAILED ||
           phase == ORR_JOB_CANCELLED || phase == ORR_JOB_MOVED;
}

#endif
