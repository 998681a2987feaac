/* SPDX-License-Identifier: Apache-2.0
 * control.h - how a process asks another one's driver to suspend it.
 *
 * Like the real driver this goes through /proc/PID of the target, in the caller's PID namespace, and needs the right to trace it;
 * network and PID namespaces of the two may differ, and nothing has a name in a file system. At cuInit the target makes a memfd that
 * says who it is (struct emu_control) and a socket pair: its control thread ("restore thread") serves one end, the other is there
 * to be taken with pidfd_getfd. A request brings the socket for its answer along, so that callers do not get in each other's way.
 */
#ifndef EMU_CONTROL_H
#define EMU_CONTROL_H

#include <stdint.h>

#include "driver.h"

#define EMU_CONTROL_NAME "orrery-emulated-driver"

enum { EMU_CONTROL_VERSION = 1, EMU_PAIRS_MAX = EMU_DEVICES_MAX, EMU_PATHS_MAX = 4096 };

/* The memfd. */
struct emu_control {
    uint32_t version;
    int32_t pid, tid; /* in the target's own PID namespace */
    int32_t socket;   /* number of the descriptor that is there to be taken */
    int32_t state;    /* CUprocessState */
};

enum emu_request_kind { EMU_LOCK, EMU_CHECKPOINT, EMU_RESTORE, EMU_UNLOCK };

struct emu_request {
    uint32_t version;
    uint32_t kind;
    uint32_t timeout_ms;
    uint32_t n_pairs;
    CUcheckpointGpuPair pairs[EMU_PAIRS_MAX];
    char paths
        [EMU_PATHS_MAX]; /* the caller's ORRERY_EMULATOR_DEVICES: where devices are now */
};

/* ---- checkpoint_state.c: what the control thread does; all with emu.lock ---- */
CUresult emu_checkpoint_do(const struct emu_request *request, CUprocessState *state);

#endif
