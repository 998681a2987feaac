/* SPDX-License-Identifier: Apache-2.0
 * checkpoint_calls.h - the driver's checkpoint calls under a deadline, and what the parent of a victim sees of the device.
 *
 * A driver call can hang for ever: one that takes longer than CHECKPOINT_CALL_S prints which one it was, kills
 * *victim and ends this program with 1.
 */
#ifndef CHECKPOINT_CALLS_H
#define CHECKPOINT_CALLS_H

#include <stdbool.h>
#include <stddef.h>

#include "orrery/gpu_abi.h"

#include "victim.h"

enum { CHECKPOINT_CALL_S = 60 };

/* A context of our own, as the device's free memory is told to nobody without one. victim: whom a hang is for. */
bool checkpoint_open_device(const struct victim *victim);
/* The emulator of a machine without such calls has the names, and answers that it does not do it. */
bool checkpoint_is_available(void);

CUresult checkpoint_lock(int pid, unsigned timeout_ms, double *ret_ms);
CUresult checkpoint_save(int pid, double *ret_ms);
CUresult checkpoint_restore(int pid, double *ret_ms);
CUresult checkpoint_unlock(int pid, double *ret_ms);
CUresult checkpoint_thread(int pid, int *ret_tid, double *ret_ms);
/* enum checkpoint_state; -1: unknown */
int checkpoint_state(int pid);

size_t device_free_mib(void);
/* Whether memory went away and came back is a matter of a tenth: contexts need some, too. */
bool is_freed(size_t mib, size_t free_before, size_t free_after);
double now_ms(void);
const char *result_name(CUresult rc);

#endif
