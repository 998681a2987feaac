/* SPDX-License-Identifier: Apache-2.0
 * trace.h - the messages of a run, to be read: all of them as JSON lines, or the last ones about one job or host.
 */
#ifndef SIM_TRACE_H
#define SIM_TRACE_H

#include "fleet.h"

enum { TRACE_LINES = 40, TRACE_LINE_MAX = 320 };

struct trace {
    const struct fleet *fleet;        /* borrowed; set before the run */
    FILE *all;                        /* borrowed; NULL: not wanted */
    char subject[ORR_JOB_ID_MAX + 2]; /* of the last lines; empty: not wanted */
    char *lines;                      /* owned; a ring of TRACE_LINES */
    uint64_t n_lines;
};

/* An orr_trace_f; arg is a struct trace. */
void trace_message(void *arg,
                   uint64_t now_ms,
                   struct orr_addr to,
                   struct orr_addr from,
                   const struct orr_msg_desc *desc,
                   const void *msg);
void trace_print(const struct trace *trace, FILE *out);
void trace_fini(struct trace *trace);
/* "partition of n2 and 20% of the hosts", without times. */
void trace_fault_text(const struct fleet *fleet,
                      const struct fault *fault,
                      char *text,
                      size_t cap);

#endif
