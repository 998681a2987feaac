/* SPDX-License-Identifier: Apache-2.0
 * mailbox.c - three bounded lanes per actor.
 *
 * A lane is two queues.  Senders push on the inbox, a stack whose head and length share one word: one compare-and-swap per
 * message, no reclamation problem because only the owner takes, and it takes all.  The owner turns what it took round and
 * appends it to its private queue, where the overflow policies are applied too.
 * A sender that finds a lane full applies the policy itself, if the actor does not run: it holds the actor's duty for that
 * moment.  While the actor runs elsewhere, messages that may displace others go into the inbox up to a hard limit: the owner
 * will sort them within one handler's time.
 */
#include "core.h"

#define COUNT_SHIFT 48
#define PTR_MASK    ((UINT64_C(1) << COUNT_SHIFT) - 1)
#define COUNT_MAX   UINT64_C(0xffff)

static struct orri_letter *word_letter(uint64_t word)
{
    return (struct orri_letter *)(uintptr_t)(word & PTR_MASK);
}

static bool is_exempt(const struct orri_letter *letter)
{
    return letter->flags & (LETTER_ANSWER | LETTER_KERNEL | LETTER_TIMER);
}

static void add_queued(struct orri_lane *lane, uint32_t n)
{
    uint32_t now = atomic_load_explicit(&lane->queued, memory_order_relaxed) + n;
    atomic_store_explicit(&lane->queued, now, memory_order_relaxed);
}

static void append(struct orri_lane *lane,
                   struct orri_letter *first,
                   struct orri_letter *last,
                   uint32_t n)
{
    if (lane->last)
        lane->last->next = first;
    else
        lane->first = first;
    lane->last = last;
    add_queued(lane, n);
}

static struct orri_letter *pop(struct orri_lane *lane)
{
    struct orri_letter *letter = lane->first;
    lane->first = letter->next;
    if (lane->first) { /* a long queue is not in the cache */
        __builtin_prefetch(lane->first);
        __builtin_prefetch((const char *)lane->first + ORRI_LINE);
    } else {
        lane->last = NULL;
    }
    add_queued(lane, UINT32_MAX);
    return letter;
}

/* Take the place of a queued message of the same kind and sender. */
static bool
coalesce(struct orri_worker *w, struct orri_lane *lane, struct orri_letter *letter)
{
    for (struct orri_letter **at = &lane->first; *at; at = &(*at)->next) {
        struct orri_letter *old = *at;
        if (old->desc != letter->desc || old->slot != letter->slot || is_exempt(old) ||
            !orr_addr_eq(old->peer, letter->peer))
            continue;
        letter->next = old->next;
        *at = letter;
        if (lane->last == old)
            lane->last = letter;
        if (old->corr)
            orri_reject(w,
                        orri_letter_to(w->sys, old),
                        old,
                        ORR_EBUSY,
                        "replaced by a newer message of the same kind and sender");
        else
            orri_letter_free(w, old);
        return true;
    }
    return false;
}

static void drop_oldest(struct orri_worker *w, struct orri_lane *lane)
{
    struct orri_letter *before = NULL;
    struct orri_letter *old = lane->first;
    while (old && is_exempt(old)) {
        before = old;
        old = old->next;
    }
    if (!old)
        return;
    if (before)
        before->next = old->next;
    else
        lane->first = old->next;
    if (lane->last == old)
        lane->last = before;
    add_queued(lane, UINT32_MAX);
    orri_reject(w,
                orri_letter_to(w->sys, old),
                old,
                ORR_EBUSY,
                "dropped for newer messages: the receiver is overloaded");
}

static void sort_in(struct orri_worker *w,
                    struct orri_actor *actor,
                    struct orri_lane *lane,
                    const struct orri_dispatch *dispatch,
                    struct orri_letter *letter)
{
    const struct orr_handler *row =
        dispatch ? orri_dispatch_find(dispatch, letter->desc->id) : NULL;
    uint8_t policy = row && !is_exempt(letter) ? row->overflow : (uint8_t)ORR_REFUSE;
    letter->next = NULL;
    if (policy == ORR_COALESCE && coalesce(w, lane, letter))
        return;
    bool is_full = atomic_load_explicit(&lane->queued, memory_order_relaxed) >=
                   atomic_load_explicit(&actor->limit, memory_order_relaxed);
    if (is_full && policy == ORR_COALESCE) {
        orri_reject(w, orri_letter_to(w->sys, letter), letter, ORR_EBUSY, NULL);
        return;
    }
    if (is_full && policy == ORR_DROP_OLDEST)
        drop_oldest(w, lane);
    append(lane, letter, letter, 1);
}

/* Move the inbox to the queue, oldest first. */
static void
take_in(struct orri_worker *w, struct orri_actor *actor, struct orri_lane *lane)
{
    /* pairs with the push of each letter */
    uint64_t word = atomic_exchange_explicit(&lane->inbox, 0, memory_order_acquire);
    struct orri_letter *first = NULL;
    struct orri_letter *last = NULL;
    for (struct orri_letter *run = word_letter(word); run; run = run->below) {
        run->last->next = first;
        first = run;
        last = last ? last : run->last;
    }
    if (!first)
        return;
    const struct orri_dispatch *dispatch =
        atomic_load_explicit(&actor->dispatch, memory_order_acquire);
    uint64_t n = word >> COUNT_SHIFT;
    if (n < COUNT_MAX && (!dispatch || !dispatch->has_policy)) {
        append(lane, first, last, (uint32_t)n);
        return;
    }
    while (first) {
        struct orri_letter *next = first->next;
        sort_in(w, actor, lane, dispatch, first);
        first = next;
    }
}

/* Push a run of n letters; false when the inbox holds room or more. */
static bool
push_inbox(struct orri_lane *lane, struct orri_letter *first, uint64_t n, uint64_t room)
{
    uint64_t word = atomic_load_explicit(&lane->inbox, memory_order_relaxed);
    uint64_t next;
    do {
        uint64_t count = word >> COUNT_SHIFT;
        if (count >= room)
            return false;
        count = count + n < COUNT_MAX ? count + n : COUNT_MAX;
        first->below = word_letter(word);
        next = (uint64_t)(uintptr_t)first | count << COUNT_SHIFT;
        /* sequentially consistent: the sender looks at duty next, as the owner does at
         * the inbox after it gave up its duty */
    } while (!atomic_compare_exchange_weak(&lane->inbox, &word, next));
    return true;
}

static enum orr_err push_full(struct orri_worker *w,
                              struct orri_actor *to,
                              struct orri_lane *lane,
                              struct orri_letter *letter)
{
    const struct orri_dispatch *dispatch =
        atomic_load_explicit(&to->dispatch, memory_order_acquire);
    const struct orr_handler *row =
        dispatch ? orri_dispatch_find(dispatch, letter->desc->id) : NULL;
    if (!row || row->overflow == ORR_REFUSE)
        return ORR_EBUSY;
    uint8_t duty = DUTY_QUEUED;
    bool is_owner = to == w->ctx.actor;
    bool is_held =
        is_owner || atomic_compare_exchange_strong(&to->duty, &duty, DUTY_SORTING);
    if (!is_held && duty == DUTY_IDLE)
        is_held = atomic_compare_exchange_strong(&to->duty, &duty, DUTY_SORTING);
    if (!push_inbox(lane, letter, 1, COUNT_MAX))
        return ORR_EBUSY; /* held: sorting would have emptied the inbox before */
    if (!is_held)
        return ORR_OK;
    take_in(w, to, lane);
    if (is_owner)
        return ORR_OK;
    atomic_store_explicit(&to->duty, DUTY_QUEUED, memory_order_release);
    if (duty == DUTY_IDLE)
        orri_enqueue(w, to);
    return ORR_OK;
}

static uint64_t count_mail(struct orri_lane *lane, uint32_t more)
{
    uint64_t n =
        atomic_load_explicit(&lane->inbox, memory_order_relaxed) >> COUNT_SHIFT;
    return n + atomic_load_explicit(&lane->queued, memory_order_relaxed) + more;
}

enum orr_err orri_mailbox_push(struct orri_worker *w,
                               struct orri_actor *to,
                               struct orri_letter *letter)
{
    struct orri_lane *lane = &to->lanes[letter->desc->lane];
    letter->next = NULL;
    letter->last = letter;
    if (!is_exempt(letter)) {
        uint32_t limit = atomic_load_explicit(&to->limit, memory_order_relaxed);
        uint64_t n = count_mail(lane, 1);
        if (n > limit - limit / 4)
            w->is_yielding = true; /* give the receiver its turn */
        if (n > limit)
            return push_full(w, to, lane, letter);
    }
    push_inbox(lane, letter, 1, COUNT_MAX + 1);
    return ORR_OK;
}

bool orri_mailbox_push_run(struct orri_worker *w,
                           struct orri_actor *to,
                           struct orri_letter *first,
                           uint32_t n)
{
    struct orri_lane *lane = &to->lanes[first->desc->lane];
    uint32_t limit = atomic_load_explicit(&to->limit, memory_order_relaxed);
    uint64_t all = count_mail(lane, n);
    if (all > limit)
        return false;
    if (all > limit - limit / 4)
        w->is_yielding = true; /* give the receiver its turn */
    return push_inbox(lane, first, n, COUNT_MAX + 1);
}

static bool has_policy(struct orri_actor *actor)
{
    const struct orri_dispatch *dispatch =
        atomic_load_explicit(&actor->dispatch, memory_order_acquire);
    return dispatch && dispatch->has_policy;
}

struct orri_letter *orri_mailbox_take(struct orri_worker *w, struct orri_actor *actor)
{
    for (unsigned i = 0; i < ORR_LANE_MAX_; i++) {
        struct orri_lane *lane = &actor->lanes[i];
        if (atomic_load_explicit(&lane->inbox, memory_order_relaxed) &&
            (!lane->first || has_policy(actor))) /* newer mail may replace older */
            take_in(w, actor, lane);
        if (lane->first)
            return pop(lane);
    }
    return NULL;
}

bool orri_mailbox_has_mail(struct orri_actor *actor)
{
    for (unsigned i = 0; i < ORR_LANE_MAX_; i++)
        if (actor->lanes[i].first || atomic_load(&actor->lanes[i].inbox))
            return true;
    return false;
}

uint64_t orri_mailbox_length(struct orri_actor *actor)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < ORR_LANE_MAX_; i++) {
        n += atomic_load_explicit(&actor->lanes[i].inbox, memory_order_relaxed) >>
             COUNT_SHIFT;
        n += atomic_load_explicit(&actor->lanes[i].queued, memory_order_relaxed);
    }
    return n;
}

void orri_mailbox_sweep(struct orri_worker *w, struct orri_actor *actor)
{
    for (unsigned i = 0; i < ORR_LANE_MAX_; i++) {
        struct orri_lane *lane = &actor->lanes[i];
        take_in(w, actor, lane);
        while (lane->first &&
               (uint32_t)(lane->first->slot >> 32) != atomic_load(&actor->life)) {
            struct orri_letter *letter = pop(lane);
            orri_reject(w, orri_letter_to(w->sys, letter), letter, ORR_EGONE, NULL);
        }
    }
}
