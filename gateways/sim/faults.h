/* SPDX-License-Identifier: Apache-2.0
 * faults.h - what goes wrong in a simulated fleet, and when: a schedule made before the run, so that a run can be repeated
 * with some of it.
 */
#ifndef SIM_FAULTS_H
#define SIM_FAULTS_H

#include "orrery/base.h"

/* X(NAME, "name", what) */
#define FAULT_KINDS(X)                                                                 \
    X(LOSS, "loss", "messages are lost")                                               \
    X(DELAY, "delay", "messages are late")                                             \
    X(DUPLICATE, "duplicate", "messages come twice")                                   \
    X(REORDER, "reorder", "messages overtake each other")                              \
    X(PARTITION, "partition", "some hosts do not reach the others")                    \
    X(CRASH,                                                                           \
      "crash",                                                                         \
      "a host dies, or a machine with all its processes, and comes back")              \
    X(CLOCK, "clock", "a host's clock runs fast or slow")                              \
    X(DISK, "disk", "a disk takes nothing")                                            \
    X(SOFT, "soft", "the shared soft state is away, and comes back empty")

enum fault_kind {
#define X(NAME, name, what) FAULT_##NAME,
    FAULT_KINDS(X)
#undef X
        FAULT_KIND_MAX_
};
#define FAULT_BIT(kind) (1u << (kind))
#define FAULTS_ALL      (FAULT_BIT(FAULT_KIND_MAX_) - 1)

struct fault {
    enum fault_kind kind;
    uint64_t from_ms;
    uint64_t until_ms;
    uint32_t host; /* of partition, crash, clock and disk */
    int32_t
        value; /* ppm; ms; percent of the hosts that are cut off too; 1: the machine dies */
    uint64_t salt;    /* which hosts those are */
    bool is_active;   /* now */
    bool is_left_out; /* of this run */
};

struct faults {
    struct fault *at; /* owned */
    uint32_t n;
};

struct fault_plan {
    uint64_t seed;
    unsigned kinds;     /* FAULT_BIT of each */
    uint64_t time_ms;   /* all are over then */
    uint32_t n_hosts;   /* in all: region hosts, clusters, nodes, then clients */
    uint32_t n_regions; /* region hosts that may fail */
    uint32_t first_cluster;
    uint32_t first_node;
    uint32_t first_client; /* never fails, may be cut off */
};

/* Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err faults_make(const struct fault_plan *plan,
                                       struct faults *ret_faults);
void faults_fini(struct faults *faults);

const char *fault_name(enum fault_kind kind);
/* "loss,crash", "all", "none"; false: ret_bad is the unknown word. */
bool fault_kinds_parse(const char *text, unsigned *ret_kinds, struct orr_str *ret_bad);
bool fault_cuts_off(const struct fault *fault, uint32_t host);

#endif
