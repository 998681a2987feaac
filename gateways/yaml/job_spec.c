/* SPDX-License-Identifier: Apache-2.0
 * job_spec.c - the table made from job_spec.def, and the rules between fields.
 */
#include "orrery/job_spec.h"

#include <libgen.h>

static const char *const tier_names[] = {"premium", "standard", "basic", NULL};
static const char *const spread_names[] = {"pack", "spread", NULL};
static const char *const reduce_names[] = {"fast", "ordered", NULL};
static const char *const checkpoint_mode_names[] = {
    "auto", "image", "inplace", "cooperative", "none", NULL};

#define NAMES_NAME(member)     NULL
#define NAMES_TEXT(member)     NULL
#define NAMES_U32(member)      NULL
#define NAMES_COUNT(member)    NULL
#define NAMES_DURATION(member) NULL
#define NAMES_LIMIT(member)    NULL
#define NAMES_SIZE(member)     NULL
#define NAMES_TIME(member)     NULL
#define NAMES_TEXTS(member)    NULL
#define NAMES_ENV(member)      NULL
#define NAMES_ENUM(member)     member##_names

#define JOB_SPEC(path, member, type, min, max, def, doc)                               \
    {path,                                                                             \
     ORR_YAML_##type,                                                                  \
     offsetof(struct orr_msg_job_spec, member),                                        \
     0,                                                                                \
     min,                                                                              \
     max,                                                                              \
     def,                                                                              \
     NAMES_##type(member),                                                             \
     NULL,                                                                             \
     doc},
#define JOB_SPEC_PAIR(path, low, high, type, min, max, def, doc)                       \
    {path,                                                                             \
     ORR_YAML_##type,                                                                  \
     offsetof(struct orr_msg_job_spec, low),                                           \
     offsetof(struct orr_msg_job_spec, high),                                          \
     min,                                                                              \
     max,                                                                              \
     def,                                                                              \
     NULL,                                                                             \
     NULL,                                                                             \
     doc},
static const struct orr_yaml_field fields[] = {
#include "orrery/job_spec.def"
};
#undef JOB_SPEC
#undef JOB_SPEC_PAIR

static const struct orr_yaml_table table = {
    fields, ORR_ARRAY_SIZE(fields), sizeof(struct orr_msg_job_spec)};

/* Set for every rank by Orrery itself; a value of the user's would be lost without a
 * word. */
static const char *const reserved_env[] = {
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"};

const struct orr_yaml_table *orr_job_spec_table(void)
{
    return &table;
}

enum orr_err orr_job_spec_new(struct orr_job_spec *ret_spec, struct orr_error *err)
{
    struct orr_job_spec spec = {0};
    enum orr_err rc =
        orr_yaml_defaults(&table, "command line", &spec.msg, &spec.yaml, err);
    if (rc == ORR_OK)
        *ret_spec = spec;
    return rc;
}

enum orr_err orr_job_spec_parse(const char *file,
                                const char *text,
                                size_t len,
                                struct orr_job_spec *ret_spec,
                                struct orr_error *err)
{
    struct orr_job_spec spec = {0};
    enum orr_err rc =
        orr_yaml_bind(&table, file, text, len, &spec.msg, &spec.yaml, err);
    if (rc == ORR_OK)
        *ret_spec = spec;
    return rc;
}

enum orr_err orr_job_spec_load(const char *file,
                               struct orr_job_spec *ret_spec,
                               struct orr_error *err)
{
    char *text;
    size_t len;
    enum orr_err rc = orr_yaml_load(file, &text, &len, err);
    if (rc != ORR_OK)
        return rc;
    rc = orr_job_spec_parse(file, text, len, ret_spec, err);
    free(text);
    return rc;
}

enum orr_err orr_job_spec_set(struct orr_job_spec *spec,
                              const char *path,
                              const char *text,
                              struct orr_error *err)
{
    return orr_yaml_set(spec->yaml, path, text, &spec->msg, err);
}

enum orr_err orr_job_spec_command(struct orr_job_spec *spec,
                                  int argc,
                                  char *const *argv,
                                  struct orr_error *err)
{
    struct orr_rec_text *texts =
        orr_yaml_alloc(spec->yaml, (size_t)argc * sizeof *texts);
    for (int i = 0; texts && i < argc; i++) {
        const char *copy = orr_yaml_text(spec->yaml, argv[i], strlen(argv[i]));
        if (!copy)
            return orr_fail(err, ORR_ENOMEM, "command: out of memory");
        texts[i].value = orr_str(copy);
    }
    if (!texts)
        return orr_fail(err, ORR_ENOMEM, "command: out of memory");
    spec->msg.command = (struct orr_list_text){texts, (uint32_t)argc};
    return ORR_OK;
}

void orr_job_spec_free(struct orr_job_spec *spec)
{
    orr_yaml_free(spec->yaml);
    *spec = (struct orr_job_spec){0};
}

/* ---- rules between fields ---- */

static enum orr_err check_env(const struct orr_job_spec *spec, struct orr_error *err)
{
    for (uint32_t i = 0; i < spec->msg.env.n; i++) {
        const char *name = spec->msg.env.at[i].name.ptr;
        bool is_reserved = strncmp(name, "ORRERY_", 7) == 0;
        for (size_t k = 0; k < ORR_ARRAY_SIZE(reserved_env); k++)
            is_reserved |= strcmp(name, reserved_env[k]) == 0;
        if (is_reserved)
            return orr_yaml_fail(
                spec->yaml, "env", err, "%.64s is set by Orrery; remove it", name);
    }
    return ORR_OK;
}

static enum orr_err fill_gpus(struct orr_job_spec *spec, struct orr_error *err)
{
    struct orr_msg_job_spec *m = &spec->msg;
    bool has_min = orr_yaml_has(spec->yaml, "gpus.min");
    bool has_max = orr_yaml_has(spec->yaml, "gpus.max");
    if (has_min && !has_max)
        m->gpus_max = m->gpus_min;
    if (has_max && !has_min)
        m->gpus_min = m->gpus_max;
    if (m->gpus_min > m->gpus_max)
        return orr_yaml_fail(spec->yaml,
                             "gpus.min",
                             err,
                             "%u is more than gpus.max %u",
                             m->gpus_min,
                             m->gpus_max);
    if (m->gpus_min == 0 && m->gpus_max > 0)
        return orr_yaml_fail(
            spec->yaml, "gpus.min", err, "a job with devices needs at least 1");
    if (m->world == 0)
        m->world = m->gpus_max ? m->gpus_max : 1;
    if (m->gpus_max > m->world)
        return orr_yaml_fail(spec->yaml,
                             "world",
                             err,
                             "%u ranks cannot use gpus.max %u devices; a rank uses one",
                             m->world,
                             m->gpus_max);
    if (m->shards > 0 && m->world % m->shards != 0)
        return orr_yaml_fail(spec->yaml,
                             "shards",
                             err,
                             "world %u is not a multiple of %u shards",
                             m->world,
                             m->shards);
    if (!orr_yaml_has(spec->yaml, "reduce"))
        m->reduce = m->gpus_min < m->gpus_max ? ORR_REDUCE_ORDERED : ORR_REDUCE_FAST;
    return ORR_OK;
}

/* The program's name, with what a name may not hold left out. */
static enum orr_err fill_name(struct orr_job_spec *spec, struct orr_error *err)
{
    char path[4096], name[ORR_NAME_MAX];
    size_t n = 0;
    if (spec->msg.name.len)
        return ORR_OK;
    orr_str_copy(path, sizeof path, spec->msg.command.at[0].value);
    for (const char *p = basename(path); *p && n < sizeof name - 1; p++) {
        bool is_alnum = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                        (*p >= '0' && *p <= '9');
        if (is_alnum || (n && strchr("._-", *p)))
            name[n++] = *p;
    }
    name[n] = '\0';
    const char *copy = orr_yaml_text(spec->yaml, n ? name : "job", n ? n : 3);
    if (!copy)
        return orr_fail(err, ORR_ENOMEM, "name: out of memory");
    spec->msg.name = orr_str(copy);
    return ORR_OK;
}

static enum orr_err
fill_workdir(struct orr_job_spec *spec, const char *dir, struct orr_error *err)
{
    char path[8300];
    struct orr_str given = spec->msg.workdir;
    if (given.len && given.ptr[0] == '/')
        return ORR_OK;
    bool is_here = given.len == 0 || strcmp(given.ptr, ".") == 0;
    int len = snprintf(
        path, sizeof path, "%s%s%s", dir, is_here ? "" : "/", is_here ? "" : given.ptr);
    if (len > 4095)
        return orr_yaml_fail(
            spec->yaml, "workdir", err, "longer than 4095 bytes with its directory");
    const char *copy = orr_yaml_text(spec->yaml, path, (size_t)len);
    if (!copy)
        return orr_fail(err, ORR_ENOMEM, "workdir: out of memory");
    spec->msg.workdir = orr_str(copy);
    return ORR_OK;
}

enum orr_err
orr_job_spec_finish(struct orr_job_spec *spec, const char *dir, struct orr_error *err)
{
    if (spec->msg.command.n == 0 || spec->msg.command.at[0].value.len == 0)
        return orr_yaml_fail(
            spec->yaml, "command", err, "no program; give its name or path first");
    enum orr_err rc = check_env(spec, err);
    if (rc == ORR_OK)
        rc = fill_gpus(spec, err);
    if (rc == ORR_OK)
        rc = fill_name(spec, err);
    if (rc == ORR_OK)
        rc = fill_workdir(spec, dir, err);
    size_t bound = orr_msg_encode_bound(orr_msg_desc_job_spec(), &spec->msg);
    if (rc == ORR_OK && bound > ORR_SPEC_BYTES_MAX)
        return orr_yaml_fail(spec->yaml,
                             "",
                             err,
                             "the spec takes %zu bytes, more than %d; put long texts "
                             "into files",
                             bound,
                             (int)ORR_SPEC_BYTES_MAX);
    return rc;
}
