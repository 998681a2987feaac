/* SPDX-License-Identifier: Apache-2.0
 * record.c - see record.h.
 */
#include "record.h"

#include "digests.h"

#include <stdio.h>

static const uint32_t record_magic = 0x4f52426d;

static uint64_t checksum(const struct record_header *h, const void *payload)
{
    struct record_header bare = *h;
    bare.checksum = 0;
    return fnv1a(fnv1a(FNV1A_START, &bare, sizeof bare), payload, h->length);
}

static void advance(struct record_stream *s, uint32_t length)
{
    s->sequence++;
    s->offset += sizeof(struct record_header) + length;
}

struct record_header
record_next(struct record_stream *s, const void *payload, uint32_t length)
{
    struct record_header h = {.magic = record_magic,
                              .from = s->from,
                              .to = s->to,
                              .sequence = s->sequence,
                              .offset = s->offset,
                              .length = length};
    h.checksum = checksum(&h, payload);
    advance(s, length);
    return h;
}

const char *record_refuses(const struct record_stream *s,
                           const struct record_header *h,
                           uint32_t length_max,
                           char err[RECORD_ERR_MAX])
{
    if (h->magic == record_magic && h->from == s->from && h->to == s->to &&
        h->sequence == s->sequence && h->offset == s->offset && h->zero == 0 &&
        h->length <= length_max)
        return NULL;
    snprintf(err,
             RECORD_ERR_MAX,
             "want record %u at byte %llu from rank %u, got magic %08x, record %u at "
             "byte %llu from rank %u to rank %u with %u bytes",
             s->sequence,
             (unsigned long long)s->offset,
             s->from,
             h->magic,
             h->sequence,
             (unsigned long long)h->offset,
             h->from,
             h->to,
             h->length);
    return err;
}

const char *record_take(struct record_stream *s,
                        const struct record_header *h,
                        const void *payload,
                        char err[RECORD_ERR_MAX])
{
    if (checksum(h, payload) == h->checksum) {
        advance(s, h->length);
        return NULL;
    }
    snprintf(err,
             RECORD_ERR_MAX,
             "record %u from rank %u, %u bytes: another checksum than its sender's",
             h->sequence,
             h->from,
             h->length);
    return err;
}
