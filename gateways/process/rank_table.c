/* SPDX-License-Identifier: Apache-2.0
 * rank_table.c - rank_table.h: a fixed number of hash chains and intrusive queues.
 */
#include "rank_table.h"

#include <unistd.h>

void orri_rank_queue_init(struct orri_queue *queue)
{
    TAILQ_INIT(&queue->head);
    queue->n = 0;
}

void orri_rank_queue_leave(struct orri_rank *rank)
{
    if (!rank->queue)
        return;
    TAILQ_REMOVE(&rank->queue->head, rank, link);
    rank->queue->n--;
    rank->queue = NULL;
}

void orri_rank_queue_push(struct orri_queue *queue, struct orri_rank *rank)
{
    orri_rank_queue_leave(rank);
    TAILQ_INSERT_TAIL(&queue->head, rank, link);
    queue->n++;
    rank->queue = queue;
}

void orri_rank_queue_push_front(struct orri_queue *queue, struct orri_rank *rank)
{
    orri_rank_queue_leave(rank);
    TAILQ_INSERT_HEAD(&queue->head, rank, link);
    queue->n++;
    rank->queue = queue;
}

struct orri_rank *orri_rank_queue_peek(struct orri_queue *queue)
{
    return TAILQ_FIRST(&queue->head);
}

void orri_rank_table_init(struct orri_table *table)
{
    for (size_t i = 0; i < ORRI_BUCKETS; i++)
        LIST_INIT(&table->buckets[i]);
    table->n = 0;
}

static struct orri_bucket *bucket_of(struct orri_table *table, const char *key)
{
    return &table->buckets[orr_hash(orr_str(key)) % ORRI_BUCKETS];
}

struct orri_rank *orri_rank_table_find(struct orri_table *table, const char *key)
{
    struct orri_rank *rank;
    LIST_FOREACH(rank, bucket_of(table, key), bucket)
    {
        if (strcmp(rank->key, key) == 0)
            return rank;
    }
    return NULL;
}

struct orri_rank *orri_rank_table_add(struct orri_table *table, const char *key)
{
    struct orri_rank *rank = calloc(1, sizeof *rank);
    if (!rank)
        return NULL;
    orr_str_copy(rank->key, sizeof rank->key, orr_str(key));
    bool is_key = orri_key_parse(rank->key, &rank->id);
    ORR_ASSERT(is_key);
    rank->state = ORR_RANK_STARTING;
    rank->device = ORR_NO_DEVICE;
    rank->watch_fd = -1;
    LIST_INSERT_HEAD(bucket_of(table, key), rank, bucket);
    table->n++;
    return rank;
}

void orri_rank_table_remove(struct orri_table *table, struct orri_rank *rank)
{
    orri_rank_queue_leave(rank);
    LIST_REMOVE(rank, bucket);
    table->n--;
    if (rank->watch_fd >= 0)
        close(rank->watch_fd);
    free(rank->launch);
    free(rank->devices);
    free(rank);
}

struct orri_rank *
orri_rank_table_newest(struct orri_table *table, struct orr_str job, uint32_t rank)
{
    struct orri_rank *at, *newest = NULL;
    ORRI_TABLE_EACH(table, at)
    {
        if (at->id.rank == rank && orr_str_eq(at->id.job, job) &&
            (!newest || at->id.generation > newest->id.generation))
            newest = at;
    }
    return newest;
}
