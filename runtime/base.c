/* SPDX-License-Identifier: Apache-2.0
 * base.c - names of errors, phases and states; errors with text; the texts of a
 * handler.
 */
#include "orrery/actor.h"

#include <stdarg.h>

static const struct {
    const char *name;
    const char *text;
} errors[] = {
#define ORR_ERROR(number, name, text) [number] = {#name, text},
#include "orrery/errors.def"
#undef ORR_ERROR
};

const char *orr_err_name(enum orr_err code)
{
    return (size_t)code < ORR_ARRAY_SIZE(errors) ? errors[code].name : "EUNKNOWN";
}

const char *orr_err_text(enum orr_err code)
{
    return (size_t)code < ORR_ARRAY_SIZE(errors) ? errors[code].text
                                                 : "an error of a newer version";
}

enum orr_err orr_fail(struct orr_error *err, enum orr_err code, const char *fmt, ...)
{
    if (err) {
        va_list args;
        va_start(args, fmt);
        err->code = code;
        vsnprintf(err->text, sizeof err->text, fmt, args);
        va_end(args);
    }
    return code;
}

enum orr_err orr_refuse(struct orr_ctx *ctx, enum orr_err code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    ctx->error.code = code;
    vsnprintf(ctx->error.text, sizeof ctx->error.text, fmt, args);
    va_end(args);
    return code;
}

void orr_log(struct orr_ctx *ctx, enum orr_log_level level, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    ctx->ops->log(ctx, level, text);
}

static const char *name_of(const char *const *names, size_t n, uint32_t i)
{
    return i < n ? names[i] : "?";
}

const char *orr_job_phase_name(uint32_t phase)
{
    static const char *const names[] = {
#define X(number, name, text) [number] = (text),
        ORR_JOB_PHASES(X)
#undef X
    };
    return name_of(names, ORR_ARRAY_SIZE(names), phase);
}

const char *orr_rank_state_name(uint32_t state)
{
    static const char *const names[ORR_RANK_STATE_MAX_] = {
        "starting", "running", "exited", "failed", "lost"};
    return name_of(names, ORR_ARRAY_SIZE(names), state);
}

const char *orr_node_state_name(uint32_t state)
{
    static const char *const names[ORR_NODE_STATE_MAX_] = {
        "up", "unknown", "lost", "draining"};
    return name_of(names, ORR_ARRAY_SIZE(names), state);
}

const char *orr_tier_name(uint32_t tier)
{
    static const char *const names[ORR_TIER_MAX_] = {"premium", "standard", "basic"};
    return name_of(names, ORR_ARRAY_SIZE(names), tier);
}

const char *orr_level_name(uint32_t level)
{
    static const char *const names[ORR_LEVEL_MAX_] = {
        "unknown", "none", "cooperative", "inplace", "image"};
    return name_of(names, ORR_ARRAY_SIZE(names), level);
}

const char *orr_order_name(uint32_t order)
{
    static const char *const names[ORR_ORDER_MAX_] = {
        "none", "resume", "suspend", "checkpoint", "migrate", "resize"};
    return name_of(names, ORR_ARRAY_SIZE(names), order);
}

const char *orr_order_state_name(uint32_t state)
{
    static const char *const names[] = {
#define X(number, name, text) [number] = (text),
        ORR_ORDER_STATES(X)
#undef X
    };
    return name_of(names, ORR_ARRAY_SIZE(names), state);
}

const char *orr_clock_op_name(uint32_t op)
{
    static const char *const names[] = {
#define X(number, name, text) [number] = (text),
        ORR_CLOCK_OPS(X)
#undef X
    };
    return name_of(names, ORR_ARRAY_SIZE(names), op);
}

const char *orr_cut_step_name(uint32_t step)
{
    static const char *const names[ORR_CUT_STEP_MAX_] = {"none",
                                                         "barrier_begin",
                                                         "barrier_targets",
                                                         "quiesce",
                                                         "save",
                                                         "release",
                                                         "resume",
                                                         "open",
                                                         "join"};
    return name_of(names, ORR_ARRAY_SIZE(names), step);
}
