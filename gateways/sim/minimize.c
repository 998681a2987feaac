/* SPDX-License-Identifier: Apache-2.0
 * minimize.c - see minimize.h.  Source: Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input (2002);
 * complements only.
 */
#include "minimize.h"

enum orr_err run_with(const struct fleet_plan *plan,
                      const struct minimal *faults,
                      struct fleet_result *ret_result,
                      struct orr_error *err)
{
    static struct fleet fleet;
    enum orr_err code = fleet_init(&fleet, plan, err);
    if (code != ORR_OK)
        return code;
    for (uint32_t i = 0; faults && i < faults->n && i < fleet.faults.n; i++)
        fleet.faults.at[i].is_left_out = !faults->is_kept[i];
    fleet_run(&fleet, ret_result);
    fleet_fini(&fleet);
    return ORR_OK;
}

/* Without the kept faults number from .. from + n - 1, counting kept ones.  Keeps it so if it still breaks. */
static enum orr_err try_without(const struct fleet_plan *plan,
                                const char *sentence,
                                uint32_t from,
                                uint32_t n,
                                struct minimal *m,
                                bool *ret_is_smaller,
                                struct orr_error *err)
{
    bool *was = m->is_kept;
    bool *now = malloc(m->n * sizeof(*now));
    if (!now)
        return orr_fail(err, ORR_ENOMEM, "no memory");
    uint32_t at = 0;
    for (uint32_t i = 0; i < m->n; i++) {
        now[i] = was[i] && (at < from || at >= from + n);
        at += was[i];
    }
    struct fleet_result result;
    m->is_kept = now;
    m->n_runs++;
    enum orr_err code = run_with(plan, m, &result, err);
    *ret_is_smaller = code == ORR_OK && result.broken == sentence;
    if (*ret_is_smaller)
        m->n_kept -= n < m->n_kept - from ? n : m->n_kept - from;
    m->is_kept = *ret_is_smaller ? now : was;
    free(*ret_is_smaller ? was : now);
    return code;
}

enum orr_err minimize(const struct fleet_plan *plan,
                      const char *sentence,
                      uint32_t runs_max,
                      struct minimal *m,
                      struct orr_error *err)
{
    for (uint32_t size = m->n_kept; size > 0;) {
        bool is_any = false;
        for (uint32_t from = 0; from < m->n_kept && m->n_runs < runs_max;) {
            bool is_smaller = false;
            enum orr_err code =
                try_without(plan, sentence, from, size, m, &is_smaller, err);
            if (code != ORR_OK)
                return code;
            is_any |= is_smaller;
            from += is_smaller ? 0 : size;
        }
        if (m->n_runs >= runs_max)
            break;
        if (!is_any || size > m->n_kept)
            size = size > 1 ? (size + 1) / 2 : is_any ? 1 : 0;
    }
    return ORR_OK;
}
