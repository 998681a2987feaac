/* SPDX-License-Identifier: Apache-2.0
 * device_helper.h - the process that calls the driver on behalf of the host: suspending and resuming what the driver keeps of other
 * processes, and asking who uses a device.
 *
 * `orrery device-helper`, this program started anew, initializes the driver once (which takes seconds on some machines) and works on
 * each process in a thread of its own, under a deadline: a driver call can hang for ever. A thread that comes too late undoes what
 * it did. A driver that crashes, or a helper that says nothing any more and is ended, fails what was asked of it; the next request
 * starts another one.
 */
#ifndef ORR_DEVICE_HELPER_H
#define ORR_DEVICE_HELPER_H

#include <sys/types.h>

#include "device.h"

struct orr_device_helper;

struct orr_device_helper_config {
    const char *driver;          /* path or name for dlopen; copied */
    struct orr_list_env_var env; /* for the helper, beside the host's own; copied */
    orr_device_done_f done;      /* any thread; once for each request that was taken */
    void *arg;
};

/* Starts a thread, and no process before it is needed. Errors: ORR_ENOMEM, ORR_EIO. */
ORR_NODISCARD enum orr_err
orr_device_helper_new(const struct orr_device_helper_config *config,
                      struct orr_device_helper **ret_helper,
                      struct orr_error *err);
/* Ends the process; requests that wait are answered. */
void orr_device_helper_free(struct orr_device_helper *helper);

/* Never blocks. Errors: ORR_EBUSY too many requests wait. */
ORR_NODISCARD enum orr_err
orr_device_helper_ask(struct orr_device_helper *helper,
                      const struct orr_device_request *request,
                      struct orr_error *err);

/* A program that opens this must hand over to it when its first argument is this one. */
#define ORR_DEVICE_HELPER_ARG "device-helper"
int orr_device_helper_main(int argc, char **argv);

/* ---- between the two: packets on a socket; numbers and texts of this machine's ABI ---- */
enum { ORRI_HELPER_FD = 3, ORRI_HELPER_REQUESTS_MAX = 256 };

#endif
