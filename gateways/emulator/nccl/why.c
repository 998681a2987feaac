/* SPDX-License-Identifier: Apache-2.0
 * why.c - error texts (why.h). With NCCL_DEBUG=WARN or more, they go to stderr, too.
 */
#include "why.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

static _Thread_local struct orri_why last;

static void print(const char *text)
{
    const char *debug = getenv("NCCL_DEBUG");

    if (debug && strcasecmp(debug, "VERSION") != 0 && debug[0] != '\0')
        fprintf(stderr, "[%d] NCCL WARN %s\n", (int)getpid(), text);
}

ncclResult_t
orri_why_set(struct orri_why *why, ncclResult_t code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(why->text, sizeof why->text, format, args);
    va_end(args);
    return code;
}

ncclResult_t orri_fail(ncclResult_t code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(last.text, sizeof last.text, format, args);
    va_end(args);
    print(last.text);
    return code;
}

const char *orri_last_error(void)
{
    return last.text;
}

unsigned orri_timeout_ms(void)
{
    const char *text = getenv("ORRERY_EMULATOR_NCCL_TIMEOUT_MS");
    long ms = text ? strtol(text, NULL, 10) : 0;

    return ms > 0 && ms <= 86400000 ? (unsigned)ms : 300000;
}
