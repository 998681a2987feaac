/* SPDX-License-Identifier: Apache-2.0
 * log.h - structured log lines for orr_system_config.log.
 */
#ifndef ORR_LOG_H
#define ORR_LOG_H

#include "system.h"

struct orr_log {
    int fd;                   /* borrowed; written with one write() a line */
    const char *host;         /* borrowed: outlives the log */
    enum orr_log_level level; /* below it nothing is written */
    bool is_json;             /* else key=value */
};

/* An orr_log_f; arg is a struct orr_log.  Lines of several threads do not mix up to 4096 bytes; longer text is cut. */
void orr_log_line(void *arg,
                  enum orr_log_level level,
                  uint64_t wall_ms,
                  const char *who,
                  const char *text);

#endif
