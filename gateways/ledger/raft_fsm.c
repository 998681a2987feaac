/* SPDX-License-Identifier: Apache-2.0
 * raft_fsm.c - committed entries into the image, and snapshots of it.
 *
 * The image outlives an instance of libraft: what a restarted one applies or restores again
 * is in it already, and nothing happens.
 *
 * A snapshot costs our thread a copy of the image's table of pointers; libuv's pool does the
 * rest while entries go on being applied.
 */
#include "raft_impl.h"

enum {
    TRAILING_MIN = 64,
    TRAILING_MAX = 1 << 16,
    LOG_ENTRIES_MAX = 1 << 20, /* then a snapshot, however small they are */
    IMAGE_BYTES_MAX =
        1 << 30, /* libraft writes a snapshot in one call, of less than 2 GiB */
};
static const char voter_prefix[] = "voter/";

/* ---- voters ----------------------------------------------------------------------------------- */

static bool decode_voter(struct orr_bytes value, struct orr_ledger_voter *ret_voter)
{
    const struct orr_msg_desc *desc = orr_msg_desc_voter_add();
    _Alignas(8) uint8_t block[4096];
    if (orr_msg_decode(desc, value.ptr, value.len, block, sizeof block) != ORR_OK)
        return false;
    const struct orr_msg_voter_add *msg = (const void *)block;
    *ret_voter = (struct orr_ledger_voter){.is_voting = false};
    orr_str_copy(ret_voter->host, sizeof ret_voter->host, msg->host);
    orr_str_copy(ret_voter->address, sizeof ret_voter->address, msg->address);
    orr_str_copy(ret_voter->endpoint, sizeof ret_voter->endpoint, msg->endpoint);
    return true;
}

void orri_raft_watch(void *arg, const struct orr_rec_ledger_record *record)
{
    struct voters *voters = arg;
    const uint32_t prefix = sizeof voter_prefix - 1;
    uint32_t i = 0;
    if (record->key.len <= prefix || memcmp(record->key.ptr, voter_prefix, prefix) != 0)
        return;
    const struct orr_str host = {record->key.ptr + prefix, record->key.len - prefix};
    while (i < voters->n && !orr_str_eq(orr_str(voters->at[i].host), host))
        i++;
    if (record->is_gone) {
        if (i < voters->n)
            voters->at[i] = voters->at[--voters->n];
    } else if (i < ORR_LEDGER_VOTERS_MAX &&
               decode_voter(record->value, &voters->at[i])) {
        voters->n += i == voters->n;
    }
}

/* ---- entries ---------------------------------------------------------------------------------- */

/* A log as long as the image in bytes costs about as much to write again as the image. */
static void set_thresholds(struct ledger_raft *l)
{
    const uint64_t image = orr_image_stats(l->image).bytes;
    const uint64_t worth =
        image > l->snapshot_log_bytes ? image : l->snapshot_log_bytes;
    const bool is_due = l->log_bytes >= worth || l->log_entries >= LOG_ENTRIES_MAX;
    uint64_t trailing = TRAILING_MAX;
    if (l->log_bytes > l->snapshot_log_bytes)
        trailing = l->log_entries * l->snapshot_log_bytes / l->log_bytes;
    if (trailing > TRAILING_MAX)
        trailing = TRAILING_MAX;
    if (trailing < TRAILING_MIN)
        trailing = TRAILING_MIN;
    raft_set_snapshot_threshold(&l->raft, is_due ? 1 : UINT32_MAX);
    raft_set_snapshot_trailing(&l->raft, (unsigned)trailing);
}

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct ledger_raft *l = fsm->data;
    uint64_t term, ticket;
    *result = NULL;
    pthread_mutex_lock(&l->lock);
    const enum orr_err code = orr_image_apply(
        l->image, l->raft.last_applied + 1, buf->base, buf->len, &term, &ticket);
    pthread_mutex_unlock(&l->lock);
    if (code != ORR_OK) {
        (void)orr_fail(
            &l->trouble,
            code,
            "entry %llu of the ledger in %s: %s: a newer version may have written "
            "it; upgrade this host",
            l->raft.last_applied + 1,
            l->dir,
            orr_err_text(code));
        return code == ORR_ENOMEM ? RAFT_NOMEM : RAFT_MALFORMED;
    }
    if (orr_image_stats(l->image).bytes > IMAGE_BYTES_MAX)
        (void)orr_fail(
            &l->trouble,
            ORR_ENOSPC,
            "the ledger in %s has more than %d MiB, near what a snapshot can "
            "hold: keep fewer finished jobs",
            l->dir,
            IMAGE_BYTES_MAX >> 20);
    else if (l->trouble.code != ORR_EDISK)
        l->trouble.code = ORR_OK;
    if (ticket) {
        l->ticket_term = term;
        l->ticket = ticket;
    }
    l->log_bytes += buf->len;
    l->log_entries++;
    set_thresholds(l);
    return 0;
}

/* ---- snapshots -------------------------------------------------------------------------------- */

static int
fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct ledger_raft *l = fsm->data;
    *bufs = NULL;
    *n_bufs = 0;
    /* whether it succeeds or not, the next one is as far away */
    l->log_bytes = 0;
    l->log_entries = 0;
    raft_set_snapshot_threshold(&l->raft, UINT32_MAX);
    return orr_image_freeze(l->image, &l->frozen) == ORR_OK ? 0 : RAFT_BUSY;
}

/* In libuv's pool. */
static int
fsm_snapshot_async(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct ledger_raft *l = fsm->data;
    uint8_t *bytes;
    size_t len;
    if (orr_image_encode(l->frozen, &bytes, &len) != ORR_OK)
        return RAFT_NOMEM;
    l->snapshot_buf = (struct raft_buffer){.base = bytes, .len = len};
    *bufs = &l->snapshot_buf;
    *n_bufs = 1;
    return 0;
}

static int fsm_snapshot_finalize(struct raft_fsm *fsm,
                                 struct raft_buffer *bufs[],
                                 unsigned *n_bufs)
{
    struct ledger_raft *l = fsm->data;
    (void)bufs, (void)n_bufs;
    pthread_mutex_lock(&l->lock);
    if (l->frozen)
        orr_image_thaw(l->image, l->frozen);
    pthread_mutex_unlock(&l->lock);
    free(l->snapshot_buf.base);
    l->snapshot_buf = (struct raft_buffer){.len = 0};
    l->frozen = NULL;
    return 0;
}

/* Takes the buffer when it returns 0. */
static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    struct ledger_raft *l = fsm->data;
    struct voters voters = {.n = 0};
    struct orr_image *image;
    const struct orr_image_config config = {.watch = orri_raft_watch,
                                            .watch_arg = &voters};
    const enum orr_err code = orr_image_decode(&config, buf->base, buf->len, &image);
    if (code == ORR_ENOMEM)
        return RAFT_NOMEM;
    if (code != ORR_OK) {
        l->is_snapshot_bad = true;
        return RAFT_CORRUPT;
    }
    pthread_mutex_lock(&l->lock);
    if (orr_image_stats(image).last > orr_image_stats(l->image).last) {
        struct orr_image *old = l->image;
        l->image = image;
        l->voters = voters;
        orr_image_watch(image, orri_raft_watch, &l->voters);
        image = old;
    }
    pthread_mutex_unlock(&l->lock);
    orr_image_free(image);
    raft_free(buf->base);
    return 0;
}

void orri_raft_fsm_init(struct ledger_raft *l)
{
    l->fsm = (struct raft_fsm){.version = 3,
                               .data = l,
                               .apply = fsm_apply,
                               .snapshot = fsm_snapshot,
                               .restore = fsm_restore,
                               .snapshot_finalize = fsm_snapshot_finalize,
                               .snapshot_async = fsm_snapshot_async};
    l->log_bytes = 0;
    l->log_entries = 0;
}
