/* SPDX-License-Identifier: Apache-2.0
 * region_admit.c - admission: one check per line of job_spec.def, then the rules between fields.
 */
#include "region_admit.h"

#include <inttypes.h>

static enum orr_err out_of_range(
    const char *path, int64_t value, int64_t min, int64_t max, struct orr_error *err)
{
    return orr_fail(err,
                    ORR_EINVAL,
                    "%s: %" PRId64 " is out of range; give %" PRId64 "..%" PRId64,
                    path,
                    value,
                    min,
                    max);
}

static bool is_between(int64_t value, int64_t min, int64_t max)
{
    return value >= min && value <= max;
}

#define OF_U32(v)      ((int64_t)(v))
#define OF_ENUM(v)     ((int64_t)(v))
#define OF_COUNT(v)    (v)
#define OF_DURATION(v) ((int64_t)((v) > INT64_MAX ? INT64_MAX : (v)))
#define OF_SIZE(v)     OF_DURATION(v)
#define OF_TIME(v)     OF_DURATION(v)
#define OF_LIMIT(v)    OF_DURATION(v)
#define OF_NAME(v)     ((int64_t)(v).len)
#define OF_TEXT(v)     ((int64_t)(v).len)
#define OF_TEXTS(v)    ((int64_t)(v).n)
#define OF_ENV(v)      ((int64_t)(v).n)

#define ZERO_IS_FINE_U32      false
#define ZERO_IS_FINE_ENUM     false
#define ZERO_IS_FINE_COUNT    false
#define ZERO_IS_FINE_DURATION false
#define ZERO_IS_FINE_SIZE     false
#define ZERO_IS_FINE_TIME     true
#define ZERO_IS_FINE_LIMIT    true
#define ZERO_IS_FINE_NAME     false
#define ZERO_IS_FINE_TEXT     false
#define ZERO_IS_FINE_TEXTS    false
#define ZERO_IS_FINE_ENV      false

#define CHECK(path, member, type, min, max)                                            \
    if (!is_between(OF_##type(spec->member), (min), (max)) &&                          \
        !(ZERO_IS_FINE_##type && OF_##type(spec->member) == 0))                        \
        return out_of_range(path, OF_##type(spec->member), (min), (max), err);

static enum orr_err check_ranges(const struct orr_msg_job_spec *spec,
                                 struct orr_error *err)
{
#define JOB_SPEC(path, member, type, min, max, def, doc)                               \
    CHECK(path, member, type, min, max)
#define JOB_SPEC_PAIR(path, low, high, type, min, max, def, doc)                       \
    CHECK(path, low, type, min, max) CHECK(path, high, type, min, max)
#include "orrery/job_spec.def"
#undef JOB_SPEC
#undef JOB_SPEC_PAIR
    return ORR_OK;
}

static enum orr_err check_texts(const struct orr_msg_job_spec *spec,
                                const char *region,
                                struct orr_error *err)
{
    if (spec->command.at[0].value.len == 0)
        return orr_fail(err,
                        ORR_EINVAL,
                        "command: the program's name is empty; give a path or a name");
    for (uint32_t i = 0; i < spec->env.n; i++) {
        struct orr_str name = spec->env.at[i].name;
        if (name.len == 0 || memchr(name.ptr, '=', name.len))
            return orr_fail(err,
                            ORR_EINVAL,
                            "env: `%.*s` cannot be a variable's name",
                            ORR_STR_ARGS(name));
    }
    bool is_here = spec->regions.n == 0;
    for (uint32_t i = 0; i < spec->regions.n; i++)
        is_here = is_here || orr_str_eq(spec->regions.at[i].value, orr_str(region));
    if (!is_here)
        return orr_fail(
            err,
            ORR_EINVAL,
            "placement.regions: does not name %s; submit it there, or add it",
            region);
    return ORR_OK;
}

enum orr_err region_admit(const struct orr_msg_job_spec *spec,
                          const char *region,
                          uint32_t world_max,
                          struct orr_error *err)
{
    enum orr_err code = check_ranges(spec, err);
    if (code == ORR_OK)
        code = check_texts(spec, region, err);
    if (code != ORR_OK)
        return code;
    if (spec->world > world_max)
        return orr_fail(err,
                        ORR_EINVAL,
                        "world: region %s runs jobs of at most %u ranks",
                        region,
                        world_max);
    if (spec->gpus_min > spec->gpus_max)
        return orr_fail(err,
                        ORR_EINVAL,
                        "gpus: min %u is above max %u; swap them or give one number",
                        spec->gpus_min,
                        spec->gpus_max);
    if (spec->gpus_max > spec->world)
        return orr_fail(err,
                        ORR_EINVAL,
                        "gpus: max %u is above world %u; each device needs a rank",
                        spec->gpus_max,
                        spec->world);
    if (spec->shards > 0 && spec->world % spec->shards != 0)
        return orr_fail(err,
                        ORR_EINVAL,
                        "shards: world %u is not a multiple of %u",
                        spec->world,
                        spec->shards);
    if (spec->backoff_min_ms > spec->backoff_max_ms)
        return orr_fail(
            err,
            ORR_EINVAL,
            "retries.backoff: the first wait is longer than the last; swap them");
    return ORR_OK;
}
