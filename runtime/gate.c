/* SPDX-License-Identifier: Apache-2.0
 * gate.c - what a sender is told when the handler table does not let its message in: the actor, the message, what is missing.
 */
#include "core.h"

static void refuse(struct orri_worker *w,
                   struct orri_actor *actor,
                   struct orri_letter *letter,
                   enum orr_err why,
                   const char *text)
{
    orri_logf(w, ORR_LOG_DEBUG, actor, "refused: %s", text);
    orri_reject(w, orri_letter_to(w->sys, letter), letter, why, text);
}

static size_t
state_text(const struct orr_actor_type *type, unsigned state, char *buf, size_t cap)
{
    int n = type->state_name ? snprintf(buf, cap, "%s", type->state_name(state))
                             : snprintf(buf, cap, "%u", state);
    return n < 0 ? 0 : (size_t)n < cap ? (size_t)n : cap - 1;
}

static void refuse_state(struct orri_worker *w,
                         struct orri_actor *actor,
                         struct orri_letter *letter,
                         const struct orr_handler *row,
                         unsigned state)
{
    const struct orr_actor_type *type = atomic_load(&actor->dispatch)->type;
    char text[480];
    int head = snprintf(text,
                        sizeof(text),
                        "%s %s: %s is not accepted in state ",
                        type->name,
                        orri_actor_path(actor),
                        letter->desc->body.name);
    size_t at = head < (int)sizeof(text) / 2 ? (size_t)head : sizeof(text) / 2;
    at += state_text(type, state, text + at, sizeof(text) - at);
    const char *sep = ", only in ";
    for (unsigned s = 0; s < 32 && at + 40 < sizeof(text); s++) {
        if (!(row->accept_in & ORR_IN(s)))
            continue;
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s", sep);
        at += state_text(type, s, text + at, sizeof(text) - at);
        sep = ", ";
    }
    if (actor->is_holding && letter->corr &&
        !(letter->flags & (LETTER_ANSWER | LETTER_TIMER))) {
        /* The state may not be durable yet: the asker learns of it when it is. */
        struct orri_letter *answer =
            orri_failed_make(w, letter->desc->id, ORR_ESTATE, text);
        if (answer)
            orri_effects_answer(w, letter, answer);
        letter->corr = 0;
    }
    refuse(w, actor, letter, ORR_ESTATE, text);
}

void orri_gate_refuse(struct orri_worker *w,
                      struct orri_actor *actor,
                      struct orri_letter *letter,
                      const struct orr_handler *row)
{
    const struct orr_actor_type *type = atomic_load(&actor->dispatch)->type;
    const char *path = orri_actor_path(actor);
    const char *message = letter->desc->body.name;
    char text[320];
    if (!row && letter->desc->id == ORR_MSG_ack) {
        orri_letter_free(w, letter); /* not everybody waits for it */
    } else if (!row) {
        snprintf(text,
                 sizeof(text),
                 "%s %s: has no handler for %s",
                 type->name,
                 path,
                 message);
        refuse(w, actor, letter, ORR_ENOSYS, text);
    } else if (!(row->roles & letter->role) &&
               !(letter->flags & (LETTER_ANSWER | LETTER_KERNEL))) {
        const char *who = letter->role == ORR_ROLE_CLIENT ? "a client"
                          : letter->role == ORR_ROLE_HOST ? "another host"
                                                          : "an actor of this host";
        snprintf(text,
                 sizeof(text),
                 "%s %s: %s is not accepted from %s",
                 type->name,
                 path,
                 message,
                 who);
        refuse(w, actor, letter, ORR_EPERM, text);
    } else {
        unsigned state = type->state_of ? type->state_of(actor->state) : 0;
        refuse_state(w, actor, letter, row, state);
    }
}
