/* SPDX-License-Identifier: Apache-2.0
 * victim_stop.h - stops this process' CUDA part as a node would, when Orrery's libcuda.so.1 is preloaded: `out` takes the
 * device memory away, `in` gives it back.
 */
#ifndef VICTIM_STOP_H
#define VICTIM_STOP_H

#include <stddef.h>

/* Writes one line without its end: "ok out BYTES MS DRAIN_US COPY_US RELEASE_US TAKE_US", or "failed: why". */
void victim_out(char *line, size_t cap);
void victim_in(char *line, size_t cap);

#endif
