/* SPDX-License-Identifier: Apache-2.0
 * sim_options.c - see sim_options.h.
 */
#include "sim_options.h"

#include <errno.h>
#include <getopt.h>

const char sim_usage[] =
    "usage: orrery sim [--seed N] [--seeds COUNT | --minutes M] [--faults LIST]\n"
    "                  [--replicas R] [--clusters C] [--nodes N] [--gpus G] [--jobs "
    "J]\n"
    "                  [--time DURATION] [--replay SEED [--only LIST]] [--trace FILE] "
    "[--no-orders] [--elastic] [--quiet]\n"
    "A fleet in virtual time: a region on R hosts (3), C clusters (2), N nodes in all "
    "(3 a cluster) of G GPUs (2),\n"
    "J jobs (24), of which some are suspended, migrated and saved, and nodes that "
    "drain "
    "(--no-orders: none; --elastic: all of them may have more devices or fewer); "
    "things go wrong for DURATION (30s), then every job must end. "
    " The "
    "same "
    "seed is the same history.\n"
    "LIST of faults: all (default), none, or some of loss, delay, duplicate, reorder, "
    "partition, crash, clock, disk, soft.\n"
    "A seed that breaks an invariant is run again to find the faults that it takes, "
    "and "
    "ends the command with code 1.\n";

static enum orr_err number(const char *name,
                           const char *text,
                           uint64_t max,
                           uint64_t *ret,
                           struct orr_error *err)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || value > max)
        return orr_fail(err,
                        ORR_EINVAL,
                        "--%s %.64s: not a number from 0 to %llu",
                        name,
                        text,
                        (unsigned long long)max);
    *ret = value;
    return ORR_OK;
}

static enum orr_err duration(const char *text, uint64_t *ret_ms, struct orr_error *err)
{
    static const struct {
        const char *name;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"", 1000}};
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    size_t i = 0;
    while (i < ORR_ARRAY_SIZE(units) && strcmp(end, units[i].name) != 0)
        i++;
    if (errno || end == text || text[0] == '-' || i == ORR_ARRAY_SIZE(units) ||
        value == 0 || value > UINT32_MAX / units[i].ms)
        return orr_fail(err,
                        ORR_EINVAL,
                        "--time %.64s: not a duration such as 30s, 10m or 2h",
                        text);
    *ret_ms = value * units[i].ms;
    return ORR_OK;
}

static enum orr_err
kinds(const char *text, struct sim_options *options, struct orr_error *err)
{
    struct orr_str bad;
    options->faults = text;
    if (fault_kinds_parse(text, &options->plan.kinds, &bad))
        return ORR_OK;
    return orr_fail(err,
                    ORR_EINVAL,
                    "--faults %.*s: no such fault; `orrery sim --help` lists them",
                    bad.len > 64 ? 64 : (int)bad.len,
                    bad.ptr);
}

enum sim_option {
    O_SEED = 1,
    O_SEEDS,
    O_MINUTES,
    O_FAULTS,
    O_REPLICAS,
    O_CLUSTERS,
    O_NODES,
    O_GPUS,
    O_JOBS,
    O_TIME,
    O_REPLAY,
    O_ONLY,
    O_TRACE,
    O_QUIET,
    O_NO_ORDERS,
    O_ELASTIC,
    O_HELP
};

static const struct option names[] = {
    {"seed", required_argument, NULL, O_SEED},
    {"seeds", required_argument, NULL, O_SEEDS},
    {"minutes", required_argument, NULL, O_MINUTES},
    {"faults", required_argument, NULL, O_FAULTS},
    {"replicas", required_argument, NULL, O_REPLICAS},
    {"clusters", required_argument, NULL, O_CLUSTERS},
    {"nodes", required_argument, NULL, O_NODES},
    {"gpus", required_argument, NULL, O_GPUS},
    {"jobs", required_argument, NULL, O_JOBS},
    {"time", required_argument, NULL, O_TIME},
    {"replay", required_argument, NULL, O_REPLAY},
    {"only", required_argument, NULL, O_ONLY},
    {"trace", required_argument, NULL, O_TRACE},
    {"quiet", no_argument, NULL, O_QUIET},
    {"no-orders", no_argument, NULL, O_NO_ORDERS},
    {"elastic", no_argument, NULL, O_ELASTIC},
    {"help", no_argument, NULL, O_HELP},
    {NULL, 0, NULL, 0},
};

static uint32_t *size_of(struct fleet_plan *plan, int option)
{
    switch (option) {
    case O_REPLICAS:
        return &plan->replicas;
    case O_CLUSTERS:
        return &plan->clusters;
    case O_NODES:
        return &plan->nodes;
    case O_GPUS:
        return &plan->gpus;
    case O_JOBS:
        return &plan->jobs;
    default:
        return NULL;
    }
}

static enum orr_err
take(int option, const char *value, struct sim_options *o, struct orr_error *err)
{
    uint64_t n = 0;
    enum orr_err code = ORR_OK;
    uint32_t *size = size_of(&o->plan, option);
    switch (option) {
    case O_REPLAY:
        o->is_replay = true;
        return number("replay", value, UINT64_MAX, &o->plan.seed, err);
    case O_SEED:
        return number("seed", value, UINT64_MAX, &o->plan.seed, err);
    case O_SEEDS:
        return number("seeds", value, UINT64_MAX, &o->n_seeds, err);
    case O_MINUTES:
        return number("minutes", value, 100000, &o->minutes, err);
    case O_FAULTS:
        return kinds(value, o, err);
    case O_TIME:
        return duration(value, &o->plan.faults_ms, err);
    case O_ONLY:
        o->only = value;
        return ORR_OK;
    case O_TRACE:
        o->trace = value;
        return ORR_OK;
    case O_QUIET:
        o->is_quiet = true;
        return ORR_OK;
    case O_NO_ORDERS:
        o->plan.has_no_orders = true;
        return ORR_OK;
    case O_ELASTIC:
        o->plan.is_elastic = true;
        return ORR_OK;
    default:
        code = number(names[option - 1].name, value, 4096, &n, err);
        *size = (uint32_t)n;
        return code;
    }
}

enum orr_err sim_options_parse(int argc,
                               char **argv,
                               struct sim_options *ret_options,
                               struct orr_error *err)
{
    struct sim_options o = {.plan = {.seed = 1, .replicas = 3, .kinds = FAULTS_ALL},
                            .faults = "all",
                            .n_seeds = 1};
    enum orr_err code = ORR_OK;
    optind = 1;
    opterr = 0;
    for (int option; code == ORR_OK && !o.is_help &&
                     (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (option == '?')
            return orr_fail(err,
                            ORR_EINVAL,
                            "%.64s: unknown option, or one without its value",
                            argv[optind - 1]);
        o.is_help = option == O_HELP;
        if (!o.is_help)
            code = take(option, optarg, &o, err);
    }
    if (code == ORR_OK && optind < argc && !o.is_help)
        return orr_fail(err, ORR_EINVAL, "%.64s: not expected here", argv[optind]);
    if (code == ORR_OK)
        *ret_options = o;
    return code;
}

void sim_options_again(const struct sim_options *o,
                       uint64_t seed,
                       char *text,
                       size_t cap)
{
    const struct fleet_plan *plan = &o->plan;
    const struct {
        const char *name;
        uint64_t value;
    } sizes[] = {{"clusters", plan->clusters},
                 {"nodes", plan->nodes},
                 {"gpus", plan->gpus},
                 {"jobs", plan->jobs}};
    int n = snprintf(text,
                     cap,
                     "orrery sim --replay %llu --faults %.100s --replicas %u",
                     (unsigned long long)seed,
                     o->faults,
                     plan->replicas);
    if (plan->has_no_orders && n > 0 && (size_t)n < cap)
        n += snprintf(text + n, cap - (size_t)n, " --no-orders");
    if (plan->is_elastic && n > 0 && (size_t)n < cap)
        n += snprintf(text + n, cap - (size_t)n, " --elastic");
    for (size_t i = 0; i < ORR_ARRAY_SIZE(sizes); i++)
        if (sizes[i].value && n > 0 && (size_t)n < cap)
            n += snprintf(text + n,
                          cap - (size_t)n,
                          " --%s %u",
                          sizes[i].name,
                          (unsigned)sizes[i].value);
    if (plan->faults_ms && n > 0 && (size_t)n < cap)
        snprintf(text + n, cap - (size_t)n, " --time %ums", (unsigned)plan->faults_ms);
}
