/* SPDX-License-Identifier: Apache-2.0
 * reason.c - see reason.h.
 */
#include "reason.h"

#include <stdatomic.h>
#include <stddef.h>

#include "../core/part.h"
#include "gate.h"
#include "memory.h"

static _Atomic(const char *) noted;

void orri_cuda_note(const char *text)
{
    const char *none = NULL;
    if (atomic_compare_exchange_strong(&noted, &none, text))
        orri_rank_limit(text, NULL);
}

const char *orri_cuda_reason(void)
{
    const char *why = atomic_load(&noted);
    pthread_mutex_lock(&orri_cuda_lock);
    for (const struct orri_memory *m = orri_memories; m && !why; m = m->next)
        if (m->is_foreign)
            why = "uses device memory of another process "
                  "(cuMemImportFromShareableHandle)";
        else if (m->is_exported)
            why = "shares device memory (cuMemExportToShareableHandle)";
    pthread_mutex_unlock(&orri_cuda_lock);
    return why ? why : orri_cuda_gate_broken();
}
