/* SPDX-License-Identifier: Apache-2.0
 * kernel_threads.h - what the tests of the kernel with workers share.
 */
#ifndef KERNEL_THREADS_H
#define KERNEL_THREADS_H

#include "../../runtime/system.h"
#include "orr_test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { WORKERS = 3 };

struct poster { /* a thread that is not the system's */
    struct orr_system *sys;
    struct orr_addr to;
    _Atomic bool is_done;
    _Atomic uint64_t n;
};

static inline bool wait_for(_Atomic uint64_t *counter, uint64_t value)
{
    struct timespec nap = {.tv_nsec = 1000000};
    for (int i = 0; i < 30000 && atomic_load(counter) < value; i++)
        nanosleep(&nap, NULL); /* polls an event with a deadline */
    return atomic_load(counter) == value;
}

static inline struct orr_system *new_system(uint32_t mailbox_max)
{
    struct orr_system_config config = {.host = "h",
                                       .incarnation = 1,
                                       .workers = WORKERS,
                                       .mailbox_max = mailbox_max,
                                       .supervisor_intensity = 100000};
    struct orr_system *sys = NULL;
    assert_int_equal(orr_system_new(&config, &sys, NULL), ORR_OK);
    assert_int_equal(orr_system_start(sys, NULL), ORR_OK);
    return sys;
}

static inline struct orr_addr spawn(struct orr_system *sys,
                                    const struct orr_actor_type *type,
                                    const void *args,
                                    enum orr_restart restart)
{
    struct orr_spawn what = {type, args, NULL, restart};
    struct orr_addr addr = {0};
    assert_int_equal(orr_system_spawn(sys, &what, &addr), ORR_OK);
    return addr;
}

#endif
