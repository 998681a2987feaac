/* SPDX-License-Identifier: Apache-2.0
 * sim_main.c - `orrery sim`: run seeds, and tell of the first that breaks an invariant what it takes (sim_options.h).
 */
#include "sim_main.h"

#include "minimize.h"
#include "sim_options.h"
#include "trace.h"

#include <time.h>

enum { EXIT_HELD = 0, EXIT_BROKEN = 1, EXIT_USAGE = 2, EXIT_OTHER = 7, RUNS_MAX = 200 };

static int fail(const struct orr_error *err)
{
    fprintf(stderr, "orrery sim: %s\n", err->text);
    return err->code == ORR_EINVAL ? EXIT_USAGE : EXIT_OTHER;
}

static uint64_t seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec;
}

static void print_result(uint64_t seed, const struct fleet_result *r)
{
    printf("seed %llu: %s hash %016llx, %llu messages, %u jobs ended, %u of %u faults, "
           "%u.%03u s\n",
           (unsigned long long)seed,
           r->broken ? "BROKEN," : "holds,",
           (unsigned long long)r->hash,
           (unsigned long long)r->handled,
           r->n_ended,
           r->n_begun,
           r->n_faults,
           (unsigned)(r->at_ms / 1000),
           (unsigned)(r->at_ms % 1000));
    if (r->broken)
        printf("  %s\n  %s\n", r->broken, r->text);
    fflush(stdout);
}

/* ---- a schedule, or some of it ---- */

static enum orr_err keep_all(uint32_t n, struct minimal *ret_m, struct orr_error *err)
{
    *ret_m = (struct minimal){.n = n, .n_kept = n};
    ret_m->is_kept = malloc(n + 1);
    if (!ret_m->is_kept)
        return orr_fail(err, ORR_ENOMEM, "no memory");
    memset(ret_m->is_kept, true, n);
    return ORR_OK;
}

static enum orr_err
keep_only(const char *list, struct minimal *m, struct orr_error *err)
{
    memset(m->is_kept, false, m->n);
    m->n_kept = 0;
    for (char *end; *list; list = *end ? end + 1 : end) {
        unsigned long i = strtoul(list, &end, 10);
        if (end == list || (*end && *end != ',') || i >= m->n)
            return orr_fail(err,
                            ORR_EINVAL,
                            "--only %.64s: numbers of the seed's faults, 0 to %u",
                            list,
                            m->n ? m->n - 1 : 0);
        m->n_kept += !m->is_kept[i];
        m->is_kept[i] = true;
    }
    return ORR_OK;
}

/* ---- telling ---- */

static void print_faults(const struct fleet *fleet, const struct minimal *m)
{
    for (uint32_t i = 0; i < fleet->faults.n; i++) {
        char text[200];
        const struct fault *fault = &fleet->faults.at[i];
        if (!m->is_kept[i])
            continue;
        trace_fault_text(fleet, fault, text, sizeof(text));
        printf("  #%-3u %8llu .. %llu ms  %s\n",
               i,
               (unsigned long long)fault->from_ms,
               (unsigned long long)fault->until_ms,
               text);
    }
}

/* Once more, listening to what concerns the subject. */
static enum orr_err show(const struct sim_options *o,
                         const struct fleet_result *broken,
                         const struct minimal *m,
                         struct orr_error *err)
{
    static struct fleet fleet;
    struct trace trace = {.fleet = &fleet};
    struct fleet_plan plan = o->plan;
    struct fleet_result result;
    plan.trace = trace_message;
    plan.trace_arg = &trace;
    orr_str_copy(trace.subject, sizeof(trace.subject), orr_str(broken->subject));
    enum orr_err code = fleet_init(&fleet, &plan, err);
    if (code != ORR_OK)
        return code;
    for (uint32_t i = 0; i < fleet.faults.n; i++)
        fleet.faults.at[i].is_left_out = !m->is_kept[i];
    printf(
        "it takes %u of %u faults (found in %u runs):\n", m->n_kept, m->n, m->n_runs);
    print_faults(&fleet, m);
    fleet_run(&fleet, &result);
    if (result.broken && trace.n_lines)
        printf("then, after %llu ms: %s\nthe last messages about %s:\n",
               (unsigned long long)result.at_ms,
               result.text,
               trace.subject);
    trace_print(&trace, stdout);
    trace_fini(&trace);
    fleet_fini(&fleet);
    return ORR_OK;
}

static void print_again(const struct sim_options *o, const struct minimal *m)
{
    char text[400];
    sim_options_again(o, o->plan.seed, text, sizeof(text));
    printf("again: %s", text);
    const char *sep = m->n_kept < m->n ? " --only " : NULL;
    for (uint32_t i = 0; sep && i < m->n; i++)
        if (m->is_kept[i]) {
            printf("%s%u", sep, i);
            sep = ",";
        }
    printf("\n");
}

static int explain(const struct sim_options *o,
                   const struct fleet_result *broken,
                   struct minimal *m,
                   struct orr_error *err)
{
    enum orr_err code = ORR_OK;
    struct sim_options one = *o;
    if (!o->is_replay)
        code = minimize(&o->plan, broken->broken, RUNS_MAX, m, err);
    struct fleet_result result = *broken;
    if (code == ORR_OK && m->n_kept < m->n) /* perhaps about another job now */
        code = run_with(&one.plan, m, &result, err);
    if (code == ORR_OK)
        code = show(&one, &result, m, err);
    if (code != ORR_OK)
        return fail(err);
    print_again(o, m);
    return EXIT_BROKEN;
}

/* ---- running ---- */

static int run_seed(const struct sim_options *o, FILE *all, bool is_quiet)
{
    static struct fleet fleet;
    struct orr_error err;
    struct trace trace = {.fleet = &fleet, .all = all};
    struct fleet_plan plan = o->plan;
    struct minimal m = {0};
    struct fleet_result result;
    plan.trace = all ? trace_message : NULL;
    plan.trace_arg = &trace;
    enum orr_err code = fleet_init(&fleet, &plan, &err);
    if (code != ORR_OK)
        return fail(&err);
    code = keep_all(fleet.faults.n, &m, &err);
    if (code == ORR_OK && o->only)
        code = keep_only(o->only, &m, &err);
    for (uint32_t i = 0; code == ORR_OK && i < m.n; i++)
        fleet.faults.at[i].is_left_out = !m.is_kept[i];
    if (code == ORR_OK)
        fleet_run(&fleet, &result);
    fleet_fini(&fleet);
    int exit_code = code == ORR_OK ? EXIT_HELD : fail(&err);
    if (code == ORR_OK && (result.broken || !is_quiet))
        print_result(o->plan.seed, &result);
    if (code == ORR_OK && result.broken)
        exit_code = explain(o, &result, &m, &err);
    free(m.is_kept);
    return exit_code;
}

static int run_all(struct sim_options *o, FILE *all)
{
    uint64_t start = seconds();
    uint64_t n = 0;
    uint64_t n_max = o->minutes ? UINT64_MAX : o->n_seeds;
    for (; n < n_max; n++, o->plan.seed++) {
        if (o->minutes && seconds() - start >= o->minutes * 60)
            break;
        int code = run_seed(o, all, o->is_quiet);
        if (code != EXIT_HELD)
            return code;
    }
    if (o->is_quiet || n > 1)
        printf("%llu seeds hold, %llu s\n",
               (unsigned long long)n,
               (unsigned long long)(seconds() - start));
    return EXIT_HELD;
}

int orr_sim_main(int argc, char **argv)
{
    struct sim_options options;
    struct orr_error err;
    FILE *all = NULL;
    if (sim_options_parse(argc, argv, &options, &err) != ORR_OK)
        return fail(&err);
    if (options.is_help) {
        fputs(sim_usage, stdout);
        return EXIT_HELD;
    }
    if (options.trace)
        all = strcmp(options.trace, "-") == 0 ? stdout : fopen(options.trace, "we");
    if (options.trace && !all) {
        fprintf(stderr, "orrery sim: %s: cannot be written\n", options.trace);
        return EXIT_OTHER;
    }
    int code = run_all(&options, all);
    if (all && all != stdout && fclose(all) != 0) {
        fprintf(stderr, "orrery sim: %s: cannot be written\n", options.trace);
        return EXIT_OTHER;
    }
    return code;
}
