/* SPDX-License-Identifier: Apache-2.0
 * actor_api.c - what actors call that is not a message: refusing with a text, logging.  Knows only ctx, so that tests of
 * actors can bring their own kernel.
 */
#include "orrery/actor.h"

#include <stdarg.h>

enum orr_err orr_refuse(struct orr_ctx *ctx, enum orr_err code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(ctx->error.text, sizeof(ctx->error.text), fmt, args);
    va_end(args);
    ctx->error.code = code;
    return code;
}

void orr_log(struct orr_ctx *ctx, enum orr_log_level level, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    ctx->ops->log(ctx, level, text);
}
