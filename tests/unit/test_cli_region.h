/* SPDX-License-Identifier: Apache-2.0
 * test_cli_region.h - the region that test_cli asks: three jobs (r1-1 runs, r1-2 waits, r1-3 failed with 3), one node.
 *
 * It has one host and no ledger, or n_hosts of them behind ipc:///r1, ipc:///r2, ...
 */
#ifndef TEST_CLI_REGION_H
#define TEST_CLI_REGION_H

#include "orrery/msg.h"

enum { FAKE_HOSTS_MAX = 4 };

/* What happens to the leader after fate_in receives without an answer; the next host leads then. */
enum fake_fate { FATE_NONE, FATE_DIES, FATE_HANGS, FATE_STEPS_DOWN };

extern struct region {
    unsigned n_hosts; /* 0: one, without a ledger */
    unsigned leader;  /* its index; n_hosts: nobody */
    unsigned told;    /* whom the others name as the leader */
    bool is_gone[FAKE_HOSTS_MAX];
    bool is_hung[FAKE_HOSTS_MAX];
    unsigned asked[FAKE_HOSTS_MAX]; /* requests to its region actor */
    enum fake_fate fate;
    unsigned fate_in;
    unsigned waits; /* job_wait requests */
    char voter[64]; /* of the last voter_add or voter_remove */
    bool is_away;
    unsigned busy; /* submits to refuse first */
    unsigned submits;
    char key[64]; /* of the last submit */
    bool has_one_key;
    char path[64]; /* of the last request */
    unsigned n_requests;
    unsigned log_generation;
    uint64_t first_seq; /* oldest event kept */
    uint64_t last_seq;  /* newest event */
    unsigned grow_by;   /* new events that a request that waits finds */
    char topic[200];    /* of the last events_get */
    uint64_t
        interrupt_after; /* Ctrl-C when events after this one are asked for; 0: never */
    uint32_t order_kind; /* of r1-1's newest order; 0: none */
    uint64_t order;      /* its number */
    unsigned order_looks;         /* looks until it is over */
    uint32_t order_fails;         /* enum orr_err; 0: it will be done */
    uint32_t order_phase;         /* of r1-1 then */
    char to[200];                 /* of the last job_migrate: REGION CLUSTER NODE */
    char drained[200];            /* of the last node_drain */
    uint64_t removed;             /* of the last checkpoint_remove */
    struct orr_msg_job_spec spec; /* of the last submit; its texts are gone */
} region;

void region_start(void);
void region_stop(void);

#endif
