/* SPDX-License-Identifier: Apache-2.0
 * board.c - see board.h: members, the turn, slots.  What members have in their slots: contents.c.
 */
#include "board.h"

#include <string.h>

#include "contents.h"

enum { APART_TURNS = 2 }; /* of each member, after which a slot is to be private */

static uint64_t bit(uint32_t member)
{
    return (uint64_t)1 << member;
}

size_t orri_board_bytes(uint32_t n_contents)
{
    return sizeof(struct orri_board) + (size_t)n_contents * sizeof(struct orri_content);
}

void orri_board_init(struct orri_board *b,
                     uint32_t n_contents,
                     const struct orri_hash *zero)
{
    b->zero = *zero;
    b->n_contents = n_contents;
    b->next_free = b->contents_top = ORRI_CONTENT;
}

/* ---- members --------------------------------------------------------------------------------- */

uint64_t orri_board_members(const struct orri_board *b)
{
    uint64_t members = 0;
    for (uint32_t m = 0; m < ORRI_MEMBERS_MAX; m++)
        members |= b->member[m].is_here ? bit(m) : 0;
    return members;
}

bool orri_board_join(struct orri_board *b,
                     uint32_t rank,
                     uint64_t nonce,
                     uint32_t *ret_me)
{
    for (uint32_t m = 0; m < ORRI_MEMBERS_MAX; m++) {
        struct orri_member *member = &b->member[m];
        if (member->is_here)
            continue;
        *member = (struct orri_member){.rank = rank, .nonce = nonce};
        atomic_signal_fence(memory_order_seq_cst);
        member->is_here = 1;
        *ret_me = m;
        return true;
    }
    return false;
}

static void forget(struct orri_board *b, uint32_t m)
{
    b->member[m] = (struct orri_member){0};
    if (b->holder == m + 1)
        b->holder = 0;
    for (uint32_t s = 0; s < ORRI_SLOTS_MAX; s++)
        if (b->view[m][s]) /* most pages of it were never written */
            b->view[m][s] = ORRI_NOTHING;
}

/* Which groups and slots there are, and who has them, from the groups alone. */
static void recount_slots(struct orri_board *b)
{
    const uint64_t members = orri_board_members(b);
    b->slots_top = 0;
    for (uint32_t s = 0; s < ORRI_SLOTS_MAX; s++)
        if (b->slot[s].is_used)
            b->slot[s].is_used = 0;
    for (uint32_t m = 0; m < ORRI_MEMBERS_MAX; m++)
        b->member[m].n_slots = 0;
    for (uint32_t g = 0; g < ORRI_GROUPS_MAX; g++) {
        struct orri_group *group = &b->group[g];
        if (group->n == 0)
            continue;
        group->members &= members;
        if (group->members == 0)
            group->n = 0;
        for (uint32_t i = 0; i < group->n; i++)
            b->slot[group->first + i].is_used = 1;
        if (group->n && group->first + group->n > b->slots_top)
            b->slots_top = group->first + group->n;
        for (uint32_t m = 0; m < ORRI_MEMBERS_MAX; m++)
            if (group->members & bit(m))
                b->member[m].n_slots += group->n;
    }
    for (uint32_t s = 0; s < ORRI_SLOTS_MAX; s++) {
        struct orri_slot *slot = &b->slot[s];
        if (slot->is_used)
            slot->holders &= members;
        else if (slot->holders || slot->tag)
            *slot = (struct orri_slot){0};
        if (slot->is_used && slot->holders == 0)
            slot->tag = ORRI_NOTHING; /* the frame went with them */
    }
}

/* A view of a slot that no group gives to the member: it died while it came by it, or let go of it. */
static void drop_stray_views(struct orri_board *b)
{
    for (uint32_t g = 0; g < ORRI_GROUPS_MAX; g++) {
        const struct orri_group *group = &b->group[g];
        for (uint32_t m = 0; group->n && m < ORRI_MEMBERS_MAX; m++)
            for (uint32_t i = 0; i < group->n && !(group->members & bit(m)); i++)
                b->view[m][group->first + i] = ORRI_NOTHING;
    }
}

void orri_board_repair(struct orri_board *b, uint64_t alive)
{
    for (uint32_t m = 0; m < ORRI_MEMBERS_MAX; m++)
        if (b->member[m].is_here && !(alive & bit(m)))
            forget(b, m);
    recount_slots(b);
    drop_stray_views(b);
    orri_contents_recount(b);
    atomic_fetch_add(&b->moved, 1);
}

/* ---- the turn -------------------------------------------------------------------------------- */

void orri_turn_want(struct orri_board *b, uint32_t me)
{
    if (b->member[me].ticket)
        return;
    b->member[me].ticket = ++b->next_ticket;
    atomic_fetch_add(&b->moved, 1);
}

bool orri_turn_take(struct orri_board *b, uint32_t me)
{
    const uint64_t mine = b->member[me].ticket;
    if (b->holder || !mine)
        return false;
    for (uint32_t m = 0; m < ORRI_MEMBERS_MAX; m++)
        if (b->member[m].is_here && b->member[m].ticket && b->member[m].ticket < mine)
            return false;
    b->member[me].ticket = 0;
    b->holder = me + 1;
    return true;
}

bool orri_turn_is_wanted(const struct orri_board *b, uint32_t me)
{
    for (uint32_t m = 0; m < ORRI_MEMBERS_MAX; m++)
        if (m != me && b->member[m].is_here && b->member[m].ticket)
            return true;
    return false;
}

void orri_turn_pass(struct orri_board *b, uint32_t me)
{
    if (b->holder == me + 1)
        b->holder = 0;
    atomic_fetch_add(&b->moved, 1);
}

/* ---- slots ----------------------------------------------------------------------------------- */

/* The lowest number of its kind that this member has not got; *ret_group: of others, or ORRI_GROUPS_MAX. */
static uint32_t
next_ordinal(const struct orri_board *b, uint32_t me, uint64_t key, uint32_t *ret_group)
{
    uint32_t ordinal = 0;
    bool is_mine = true;
    while (is_mine) {
        is_mine = false;
        *ret_group = ORRI_GROUPS_MAX;
        for (uint32_t g = 0; g < ORRI_GROUPS_MAX; g++)
            if (b->group[g].n && b->group[g].key == key &&
                b->group[g].ordinal == ordinal) {
                *ret_group = g;
                is_mine = b->group[g].members & bit(me);
                break;
            }
        ordinal += is_mine;
    }
    return ordinal;
}

static bool find_slots(const struct orri_board *b, uint32_t n, uint32_t *ret_first)
{
    uint32_t run = 0;
    for (uint32_t s = 0; s < ORRI_SLOTS_MAX; s++) {
        run = b->slot[s].is_used ? 0 : run + 1;
        if (run == n) {
            *ret_first = s + 1 - n;
            return true;
        }
    }
    return false;
}

static bool make_group(struct orri_board *b,
                       uint64_t key,
                       uint32_t ordinal,
                       uint32_t n,
                       uint32_t *ret_group)
{
    uint32_t first = 0, g = 0;
    while (g < ORRI_GROUPS_MAX && b->group[g].n)
        g++;
    if (g == ORRI_GROUPS_MAX || !find_slots(b, n, &first))
        return false;
    for (uint32_t i = 0; i < n; i++)
        b->slot[first + i] = (struct orri_slot){.is_used = 1};
    b->group[g] = (struct orri_group){.key = key, .ordinal = ordinal, .first = first};
    atomic_signal_fence(memory_order_seq_cst);
    b->group[g].n = n;
    if (first + n > b->slots_top)
        b->slots_top = first + n;
    *ret_group = g;
    return true;
}

/* Each view may be a content of its own, and a leave needs as many more as its member has slots. */
static bool has_room(const struct orri_board *b, uint32_t me, uint32_t n)
{
    uint64_t sum = n, most = b->member[me].n_slots + (uint64_t)n;
    for (uint32_t m = 0; m < ORRI_MEMBERS_MAX; m++) {
        sum += b->member[m].n_slots;
        most = b->member[m].n_slots > most ? b->member[m].n_slots : most;
    }
    return sum + most <= b->n_contents;
}

bool orri_slots_add(
    struct orri_board *b, uint32_t me, uint64_t key, uint32_t n, uint32_t *ret_first)
{
    uint32_t g = ORRI_GROUPS_MAX;
    if (n == 0 || !has_room(b, me, n))
        return false;
    uint32_t ordinal = next_ordinal(b, me, key, &g);
    if (g == ORRI_GROUPS_MAX && !make_group(b, key, ordinal, n, &g))
        return false;
    struct orri_group *group = &b->group[g];
    if (group->n != n)
        return false; /* the key says less than it should */
    for (uint32_t i = 0; i < n; i++)
        b->view[me][group->first + i] = ORRI_ZERO;
    b->member[me].n_slots += n;
    atomic_signal_fence(memory_order_seq_cst);
    group->members |= bit(me);
    *ret_first = group->first;
    return true;
}

void orri_slots_drop(struct orri_board *b, uint32_t me, uint32_t first)
{
    uint32_t g = 0;
    while (g < ORRI_GROUPS_MAX && !(b->group[g].n && b->group[g].first == first))
        g++;
    if (g == ORRI_GROUPS_MAX || !(b->group[g].members & bit(me)))
        return;
    struct orri_group *group = &b->group[g];
    group->members &= ~bit(me);
    b->member[me].n_slots -= group->n;
    for (uint32_t s = first; s < first + group->n; s++) {
        orri_contents_set_view(b, me, s, ORRI_NOTHING);
        orri_slot_hold(b, me, s, false);
        b->slot[s].tag = ORRI_NOTHING; /* it may have been written */
        if (group->members == 0)
            b->slot[s] = (struct orri_slot){0};
    }
    if (group->members == 0)
        group->n = 0;
}

uint64_t orri_slot_holders(const struct orri_board *b, uint32_t slot)
{
    return b->slot[slot].holders;
}

void orri_slot_hold(struct orri_board *b, uint32_t me, uint32_t slot, bool is_held)
{
    struct orri_slot *s = &b->slot[slot];
    s->holders = is_held ? s->holders | bit(me) : s->holders & ~bit(me);
    if (s->holders == 0)
        s->tag = ORRI_NOTHING; /* there is no frame any more */
}

/* ---- who is apart ----------------------------------------------------------------------------- */

void orri_slot_changed(struct orri_board *b, uint32_t slot, bool is_shared)
{
    struct orri_slot *s = &b->slot[slot];
    const uint64_t members = orri_board_members(b);
    if (is_shared)
        s->n_apart = 0;
    else if (s->n_apart < UINT16_MAX)
        s->n_apart++;
    if (s->n_apart >= APART_TURNS * (unsigned)__builtin_popcountll(members))
        s->is_apart = 1;
}

bool orri_enter_is_apart(const struct orri_board *b, uint32_t me, uint32_t slot)
{
    return b->slot[slot].is_apart && !b->is_tight && orri_slot_is_common(b, me, slot);
}
