/* SPDX-License-Identifier: Apache-2.0
 * transport_zmq_queue.c - what waits for one link, kept as the frames that will be
 * sent.
 *
 * A message is copied once, to the end of the frame under construction in its lane;
 * libzmq takes the frame as it is.  So whatever came together while the link was busy
 * shares a frame, and a message on an idle link travels in one of its own. The lanes
 * share one bound, and the lower lanes end before it: under overload telemetry goes
 * first, control last.
 */
#include "transport_zmq_impl.h"

enum { CHUNK_MIN = 1024 };

/* Eighths of the bound that a lane may fill. */
static const uint8_t lane_share[ORR_LANE_MAX_] = {8, 6, 4};

static struct orri_chunk *chunk_new(size_t cap)
{
    struct orri_chunk *chunk = malloc(sizeof(*chunk) + cap);
    if (!chunk)
        return NULL;
    chunk->next = NULL;
    chunk->len = ORR_FRAME_HEADER;
    chunk->cap = cap;
    orr_frame_header(chunk->bytes);
    return chunk;
}

/* A link with nothing waiting is likely to send the next frame at once: it gets a small
 * one. */
static struct orri_chunk *
add_chunk(struct orri_queue *queue, enum orr_lane lane, size_t item_bytes)
{
    size_t cap = queue->bytes == 0 ? CHUNK_MIN : ORRI_FRAME_TARGET;
    if (cap < ORR_FRAME_HEADER + item_bytes)
        cap = ORR_FRAME_HEADER + item_bytes;
    struct orri_chunk *chunk = chunk_new(cap);
    if (!chunk)
        return NULL;
    if (queue->last[lane])
        queue->last[lane]->next = chunk;
    else
        queue->first[lane] = chunk;
    queue->last[lane] = chunk;
    return chunk;
}

enum orr_err orri_queue_push(struct orri_queue *queue,
                             enum orr_lane lane,
                             size_t bytes_max,
                             const uint8_t *data,
                             size_t len)
{
    size_t item_bytes = ORR_ITEM_HEADER + len;
    size_t lane_max = bytes_max / 8 * lane_share[lane];
    if (queue->bytes > 0 && queue->bytes + item_bytes > lane_max)
        return ORR_EBUSY;
    struct orri_chunk *chunk = queue->last[lane];
    if (!chunk || chunk->cap - chunk->len < item_bytes)
        chunk = add_chunk(queue, lane, item_bytes);
    if (!chunk)
        return ORR_ENOMEM;
    orr_item_header(chunk->bytes + chunk->len, len);
    memcpy(chunk->bytes + chunk->len + ORR_ITEM_HEADER, data, len);
    chunk->len += item_bytes;
    queue->bytes += item_bytes;
    return ORR_OK;
}

struct orri_chunk *orri_queue_pop(struct orri_queue *queue)
{
    for (unsigned lane = 0; lane < ORR_LANE_MAX_; lane++) {
        struct orri_chunk *chunk = queue->first[lane];
        if (!chunk)
            continue;
        queue->first[lane] = chunk->next;
        if (!chunk->next)
            queue->last[lane] = NULL;
        queue->bytes -= chunk->len - ORR_FRAME_HEADER;
        return chunk;
    }
    return NULL;
}

void orri_queue_clear(struct orri_queue *queue)
{
    for (struct orri_chunk *chunk; (chunk = orri_queue_pop(queue));)
        free(chunk);
}
