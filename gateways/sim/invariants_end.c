/* SPDX-License-Identifier: Apache-2.0
 * invariants_end.c - what must be so when the faults have stopped (invariants.h).
 */
#include "invariants.h"

void feasible_job_ends(struct invariants *inv,
                       const char *id,
                       uint32_t phase,
                       const char *reason)
{
    invariant_broken(inv,
                     "once faults stop, every feasible job ends within a bound",
                     orr_str(id),
                     "%s has not ended, it is %s: %s",
                     id,
                     orr_job_phase_name(phase),
                     reason);
}

void good_program_fails_no_job(struct invariants *inv,
                               const char *id,
                               const char *reason)
{
    invariant_broken(inv,
                     "what happens to machines is never a program's fault",
                     orr_str(id),
                     "%s has failed, and its program never does: %s",
                     id,
                     reason);
}

void soft_state_converges(struct invariants *inv, bool is_told, const char *what)
{
    if (!is_told)
        invariant_broken(inv,
                         "state converges after FLUSHALL",
                         orr_str(what),
                         "nobody tells readers of %s any more",
                         what);
}

void ends_are_told_once(struct invariants *inv, uint64_t n_ended)
{
    if (inv->n_terminal != n_ended)
        invariant_broken(inv,
                         "an acknowledged submit ends in exactly one terminal phase",
                         ORR_LIT(""),
                         "%u jobs have ended, and %u ends were published",
                         (unsigned)n_ended,
                         (unsigned)inv->n_terminal);
}
