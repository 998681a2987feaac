/* SPDX-License-Identifier: Apache-2.0
 * contents.c - see board.h: what members have in their slots, and what of it is in the backup.
 */
#include "contents.h"

#include <string.h>

static struct orri_content *at(struct orri_board *b, uint32_t content)
{
    return &b->content[content - ORRI_CONTENT];
}

static bool is_same(const struct orri_hash *x, const struct orri_hash *y)
{
    return memcmp(x, y, sizeof *x) == 0;
}

static uint32_t *bucket_of(struct orri_board *b, const struct orri_hash *hash)
{
    return &b->bucket[hash->lane[0] % ORRI_BUCKETS];
}

/* 0: it is not there. */
static uint32_t find(struct orri_board *b, const struct orri_hash *hash)
{
    uint32_t c = *bucket_of(b, hash);
    while (c && !is_same(&at(b, c)->hash, hash))
        c = at(b, c)->next;
    return c;
}

static void link_in(struct orri_board *b, uint32_t content)
{
    uint32_t *bucket = bucket_of(b, &at(b, content)->hash);
    at(b, content)->next = *bucket;
    *bucket = content;
}

static void give_back(struct orri_board *b, uint32_t content)
{
    uint32_t *c = bucket_of(b, &at(b, content)->hash);
    while (*c != content)
        c = &at(b, *c)->next;
    *c = at(b, content)->next;
    *at(b, content) = (struct orri_content){0};
    if (content < b->next_free)
        b->next_free =
            content; /* low ones first: what the backup has had stays small */
}

static void give_back_unused(struct orri_board *b, uint32_t content)
{
    const struct orri_content *c = at(b, content);
    if (c->state != ORRI_FREE && c->refs == 0 && c->asker == 0)
        give_back(b, content);
}

/* A content that the member is about to copy there; 0: no room. */
static uint32_t take(struct orri_board *b, uint32_t me, const struct orri_hash *hash)
{
    const uint32_t end = b->n_contents + ORRI_CONTENT;
    uint32_t c = b->next_free;
    while (c < end && at(b, c)->state != ORRI_FREE)
        c++;
    if (c == end)
        return 0;
    *at(b, c) = (struct orri_content){.hash = *hash, .asker = me + 1};
    atomic_signal_fence(memory_order_seq_cst);
    at(b, c)->state = ORRI_FILLING;
    b->next_free = c + 1;
    if (b->contents_top <= c)
        b->contents_top = c + 1;
    link_in(b, c);
    return c;
}

void orri_contents_set_view(struct orri_board *b,
                            uint32_t me,
                            uint32_t slot,
                            uint32_t view)
{
    const uint32_t before = b->view[me][slot];
    b->view[me][slot] = view;
    if (view >= ORRI_CONTENT)
        at(b, view)->refs++;
    if (before >= ORRI_CONTENT) {
        at(b, before)->refs--;
        give_back_unused(b, before);
    }
}

bool orri_slot_is_common(const struct orri_board *b, uint32_t me, uint32_t slot)
{
    return b->view[me][slot] == ORRI_ZERO || b->view[me][slot] >= ORRI_CONTENT;
}

static void count_views(struct orri_board *b)
{
    for (uint32_t m = 0; m < ORRI_MEMBERS_MAX; m++)
        for (uint32_t s = 0; b->member[m].is_here && s < b->slots_top; s++)
            if (b->view[m][s] >= ORRI_CONTENT)
                at(b, b->view[m][s])->refs++;
}

void orri_contents_recount(struct orri_board *b)
{
    memset(b->bucket, 0, sizeof b->bucket);
    for (uint32_t c = ORRI_CONTENT; c < b->contents_top; c++)
        at(b, c)->refs = at(b, c)->next = 0;
    count_views(b);
    for (uint32_t c = ORRI_CONTENT; c < b->contents_top; c++) {
        struct orri_content *content = at(b, c);
        if (content->asker != b->holder)
            content->asker = 0; /* whose died */
        if (content->refs == 0 && content->asker == 0)
            *content = (struct orri_content){0};
        else if (content->state != ORRI_FREE)
            link_in(b, c);
    }
    b->next_free = ORRI_CONTENT;
    for (uint32_t s = 0; s < b->slots_top; s++)
        if (b->slot[s].tag >= ORRI_CONTENT && at(b, b->slot[s].tag)->state != ORRI_KEPT)
            b->slot[s].tag = ORRI_NOTHING; /* its number will be another content's */
}

/* ---- leaving ---------------------------------------------------------------------------------- */

uint32_t orri_leave_ask(struct orri_board *b,
                        uint32_t me,
                        uint32_t slot,
                        const struct orri_hash *hash,
                        bool *ret_copy)
{
    const uint32_t view = b->view[me][slot];
    *ret_copy = false;
    if (is_same(hash, &b->zero))
        return ORRI_ZERO;
    uint32_t content = find(b, hash);
    if (!content) {
        content = take(b, me, hash);
        *ret_copy = content != 0;
    }
    if (content)
        at(b, content)->asker =
            me + 1; /* stays, though those who have it now may let go */
    if (content && content != view)
        orri_slot_changed(b, slot, at(b, content)->refs > 0);
    return content;
}

void orri_leave_slot(struct orri_board *b, uint32_t me, uint32_t slot, uint32_t content)
{
    if (content >= ORRI_CONTENT)
        at(b, content)->state = ORRI_KEPT; /* its bytes are there */
    atomic_signal_fence(memory_order_seq_cst);
    if (content != b->view[me][slot])
        orri_contents_set_view(b, me, slot, content);
    b->slot[slot].tag = content;
}

static void forget_asked(struct orri_board *b, uint32_t me)
{
    for (uint32_t c = ORRI_CONTENT; c < b->contents_top; c++)
        if (at(b, c)->asker == me + 1) {
            at(b, c)->asker = 0;
            give_back_unused(b, c);
        }
}

void orri_leave_end(struct orri_board *b, uint32_t me)
{
    forget_asked(b, me);
}

void orri_leave_not(struct orri_board *b, uint32_t me)
{
    forget_asked(b, me);
    for (uint32_t s = 0; s < b->slots_top; s++)
        if (orri_slot_is_common(b, me, s))
            b->slot[s].tag = ORRI_NOTHING; /* it writes again */
}

/* ---- entering --------------------------------------------------------------------------------- */

uint32_t orri_enter_slot(struct orri_board *b, uint32_t me, uint32_t slot)
{
    const uint32_t view = b->view[me][slot], tag = b->slot[slot].tag;
    b->slot[slot].tag = ORRI_NOTHING;
    return tag == view ? ORRI_NOTHING : view;
}

void orri_slot_set_private(struct orri_board *b,
                           uint32_t me,
                           uint32_t slot,
                           bool is_private)
{
    orri_contents_set_view(b, me, slot, is_private ? ORRI_PRIVATE : ORRI_ZERO);
}

bool orri_board_is_any_private(const struct orri_board *b)
{
    for (uint32_t m = 0; m < ORRI_MEMBERS_MAX; m++)
        for (uint32_t s = 0; b->member[m].is_here && s < b->slots_top; s++)
            if (b->view[m][s] == ORRI_PRIVATE)
                return true;
    return false;
}

/* ---- for tests -------------------------------------------------------------------------------- */

static const char *check_content(const struct orri_board *b, uint32_t c)
{
    const struct orri_content *content = &b->content[c - ORRI_CONTENT];
    uint32_t refs = 0;
    for (uint32_t m = 0; m < ORRI_MEMBERS_MAX; m++)
        for (uint32_t s = 0; b->member[m].is_here && s < b->slots_top; s++)
            refs += b->view[m][s] == c;
    if (content->refs != refs)
        return "a content counts other views than there are";
    if (content->state == ORRI_KEPT && refs == 0 && content->asker == 0)
        return "a content is kept for nobody";
    if (content->asker && content->asker != b->holder)
        return "a content is asked for by nobody who leaves";
    if (content->state != ORRI_KEPT && refs)
        return "a view is of a content that is not in the backup";
    return NULL;
}

const char *orri_board_check(const struct orri_board *b)
{
    for (uint32_t c = ORRI_CONTENT; c < b->contents_top; c++) {
        const char *wrong = check_content(b, c);
        if (wrong)
            return wrong;
    }
    for (uint32_t s = 0; s < ORRI_SLOTS_MAX; s++) {
        const uint32_t tag = b->slot[s].tag;
        if (!b->slot[s].is_used && (tag || b->slot[s].holders))
            return "a slot that nobody has, has a frame";
        if (tag >= ORRI_CONTENT && b->content[tag - ORRI_CONTENT].state != ORRI_KEPT)
            return "a frame has a content that is not kept";
    }
    return NULL;
}
