/* SPDX-License-Identifier: Apache-2.0
 * store_pool.c - queues, threads, and who is told: store_pool.h.
 */
#include "store_pool_impl.h"

enum { QUEUE_MAX = 128 };

static const unsigned lane_threads[LANE_MAX_] = {
    [LANE_PUT] = 1, [LANE_GET] = 4, [LANE_COLLECT] = 1, [LANE_SERVE] = 2};

static enum pool_lane lane_of(const struct orr_msg_desc *desc)
{
    switch (desc->id) {
    case ORR_MSG_store_put:
        return LANE_PUT;
    case ORR_MSG_store_get:
    case ORR_MSG_store_verify:
        return LANE_GET;
    case ORR_MSG_store_read:
        return LANE_SERVE;
    default:
        return LANE_COLLECT;
    }
}

static void call_free(struct pool_call *call)
{
    free(call->msg);
    free(call->slots);
    free(call);
}

/* ---- threads ---- */

static struct pool_call *take(struct orr_store_pool *pool, struct pool_queue *q)
{
    while (!q->first && !pool->is_stopping) {
        q->n_idle++;
        pthread_cond_wait(&q->filled, &pool->lock);
        q->n_idle--;
    }
    struct pool_call *call = pool->is_stopping ? NULL : q->first;
    if (call) {
        q->first = call->next;
        if (!q->first)
            q->last = NULL;
        q->n--;
        call->next = pool->running;
        pool->running = call;
    }
    return call;
}

static void forget(struct orr_store_pool *pool, const struct pool_call *call)
{
    struct pool_call **at = &pool->running;
    while (*at != call)
        at = &(*at)->next;
    *at = call->next;
}

struct thread_args {
    struct orr_store_pool *pool;
    struct pool_queue *queue;
};

static void *thread_main(void *arg)
{
    const struct thread_args args = *(struct thread_args *)arg;
    struct pool_call *call;
    free(arg);
    pthread_mutex_lock(&args.pool->lock);
    while ((call = take(args.pool, args.queue))) {
        pthread_mutex_unlock(&args.pool->lock);
        pool_call_run(args.pool, call);
        pthread_mutex_lock(&args.pool->lock);
        forget(args.pool, call);
        call_free(call);
    }
    pthread_mutex_unlock(&args.pool->lock);
    return NULL;
}

/* Under the lock.  False: there is no thread for the queue, and none could be started. */
static bool
start_thread(struct orr_store_pool *pool, struct pool_queue *q, unsigned max)
{
    if (q->n_idle > q->n || q->n_threads == max)
        return true;
    struct thread_args *args = malloc(sizeof *args);
    if (args) {
        *args = (struct thread_args){pool, q};
        if (pthread_create(&pool->threads[pool->n_threads], NULL, thread_main, args) ==
            0) {
            pool->n_threads++;
            q->n_threads++;
            return true;
        }
        free(args);
    }
    return q->n_threads > 0;
}

/* ---- new, free ---- */

enum orr_err orr_store_pool_new(const struct orr_store_pool_config *config,
                                struct orr_store_pool **ret_pool)
{
    struct orr_store_pool *pool = calloc(1, sizeof *pool);
    pthread_condattr_t attr;
    if (!pool)
        return ORR_ENOMEM;
    pool->config = *config;
    orri_rate_init(&pool->serve_rate, config->bytes_per_s);
    orri_rate_init(&pool->fetch_rate, config->bytes_per_s);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->answered, &attr);
    for (unsigned i = 0; i < LANE_MAX_; i++)
        pthread_cond_init(&pool->queues[i].filled, &attr);
    pthread_condattr_destroy(&attr);
    *ret_pool = pool;
    return ORR_OK;
}

/* Under the lock. */
static void cancel_all(struct orr_store_pool *pool)
{
    for (unsigned i = 0; i < LANE_MAX_; i++)
        for (struct pool_call *c = pool->queues[i].first; c; c = c->next)
            atomic_store(&c->op.is_cancelled, true);
    for (struct pool_call *c = pool->running; c; c = c->next)
        atomic_store(&c->op.is_cancelled, true);
    pthread_cond_broadcast(&pool->answered);
}

void orr_store_pool_free(struct orr_store_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->is_stopping = true;
    cancel_all(pool);
    for (unsigned i = 0; i < LANE_MAX_; i++)
        pthread_cond_broadcast(&pool->queues[i].filled);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->n_threads; i++)
        pthread_join(pool->threads[i], NULL);
    for (unsigned i = 0; i < LANE_MAX_; i++) {
        for (struct pool_call *c; (c = pool->queues[i].first);) {
            pool->queues[i].first = c->next;
            call_free(c);
        }
        pthread_cond_destroy(&pool->queues[i].filled);
    }
    pthread_cond_destroy(&pool->answered);
    pthread_mutex_destroy(&pool->lock);
    orri_rate_fini(&pool->serve_rate);
    orri_rate_fini(&pool->fetch_rate);
    free(pool);
}

/* ---- for the port ---- */

void orr_store_pool_attach(struct orr_store_pool *pool, struct orr_addr self)
{
    pthread_mutex_lock(&pool->lock);
    pool->self = self;
    if (orr_addr_is_none(self))
        cancel_all(pool);
    pthread_mutex_unlock(&pool->lock);
}

static struct pool_call *call_new(const struct orr_request *request,
                                  struct orr_str id,
                                  const struct orr_msg_desc *desc,
                                  const void *msg)
{
    struct pool_call *call = calloc(1, sizeof *call);
    if (!call || !(call->msg = malloc(orr_msg_size(desc, msg)))) {
        free(call);
        return NULL;
    }
    orr_msg_copy(desc, msg, call->msg);
    call->desc = desc;
    call->request = *request;
    call->lane = lane_of(desc);
    orr_str_copy(call->id, sizeof call->id, id);
    return call;
}

enum orr_err orr_store_pool_submit(struct orr_store_pool *pool,
                                   const struct orr_request *request,
                                   struct orr_str id,
                                   const struct orr_msg_desc *desc,
                                   const void *msg)
{
    struct pool_call *call = call_new(request, id, desc, msg);
    if (!call)
        return ORR_ENOMEM;
    struct pool_queue *q = &pool->queues[call->lane];
    enum orr_err code = ORR_OK;
    pthread_mutex_lock(&pool->lock);
    if (q->n >= QUEUE_MAX)
        code = ORR_EBUSY;
    else if (!start_thread(pool, q, lane_threads[call->lane]))
        code = ORR_ENOMEM;
    if (!code) {
        call->number = ++pool->next_number;
        if (q->last)
            q->last->next = call;
        else
            q->first = call;
        q->last = call;
        q->n++;
        pthread_cond_signal(&q->filled);
    }
    pthread_mutex_unlock(&pool->lock);
    if (code)
        call_free(call);
    return code;
}

/* Those for which is_meant says so. */
static unsigned cancel_where(struct orr_store_pool *pool,
                             bool (*is_meant)(const struct pool_call *, const void *),
                             const void *arg)
{
    unsigned n = 0;
    pthread_mutex_lock(&pool->lock);
    for (unsigned i = 0; i <= LANE_MAX_; i++) {
        struct pool_call *c = i < LANE_MAX_ ? pool->queues[i].first : pool->running;
        for (; c; c = c->next)
            if (is_meant(c, arg)) {
                atomic_store(&c->op.is_cancelled, true);
                n++;
            }
    }
    pthread_cond_broadcast(&pool->answered);
    pthread_mutex_unlock(&pool->lock);
    return n;
}

static bool has_id(const struct pool_call *call, const void *arg)
{
    return strcmp(call->id, arg) == 0;
}

unsigned orr_store_pool_cancel(struct orr_store_pool *pool, struct orr_str id)
{
    char text[ORR_STORE_ID_MAX];
    orr_str_copy(text, sizeof text, id);
    return text[0] ? cancel_where(pool, has_id, text) : 0;
}

static bool is_late(const struct pool_call *call, const void *arg)
{
    return call->request.deadline_ms &&
           *(const uint64_t *)arg > call->request.deadline_ms;
}

void orr_store_pool_expire(struct orr_store_pool *pool, uint64_t now_ms)
{
    (void)cancel_where(pool, is_late, &now_ms);
}

/* ---- who is told ---- */

static struct orr_addr self_of(struct orr_store_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    const struct orr_addr self = pool->self;
    pthread_mutex_unlock(&pool->lock);
    return self;
}

void pool_reply(struct orr_store_pool *pool,
                const struct pool_call *call,
                const struct orr_msg_desc *desc,
                const void *msg)
{
    const struct orr_addr self = self_of(pool);
    if (!orr_addr_is_none(
            self)) /* no memory for the answer: the asker's deadline tells it */
        (void)pool->config.reply(pool->config.system, self, &call->request, desc, msg);
}

enum orr_err pool_post(struct orr_store_pool *pool,
                       struct orr_addr to,
                       const struct orr_msg_desc *desc,
                       const void *msg)
{
    const struct orr_addr self = self_of(pool);
    return orr_addr_is_none(self) ? ORR_EGONE
                                  : pool->config.post(pool->config.system,
                                                      self,
                                                      orr_addr_is_none(to) ? self : to,
                                                      desc,
                                                      msg);
}

unsigned pool_rows(struct orr_store_pool *pool,
                   struct orr_rec_store_call **ret_rows,
                   void **ret_block)
{
    enum { ROWS_MAX = QUEUE_MAX };
    struct block {
        struct orr_rec_store_call rows[ROWS_MAX];
        char ids[ROWS_MAX][ORR_STORE_ID_MAX];
    } *b = malloc(sizeof *b);
    unsigned n = 0;
    *ret_block = b;
    *ret_rows = b ? b->rows : NULL;
    if (!b)
        return 0;
    pthread_mutex_lock(&pool->lock);
    for (unsigned i = 0; i <= LANE_MAX_; i++) {
        const struct pool_call *c = i ? pool->queues[i - 1].first : pool->running;
        for (; c && n < ROWS_MAX; c = c->next) {
            if (c->lane != LANE_PUT && c->lane != LANE_GET)
                continue;
            memcpy(b->ids[n], c->id, sizeof b->ids[n]);
            b->rows[n] = (struct orr_rec_store_call){
                .id = orr_str(b->ids[n]),
                .msg = c->desc->id,
                .bytes_done = atomic_load(&c->op.bytes_done),
                .bytes_total = atomic_load(&c->op.bytes_total)};
            n++;
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return n;
}

/* ---- slots ---- */

/* Under the lock. */
static struct pool_slot *
slot_of(struct orr_store_pool *pool, uint64_t call, uint32_t slot)
{
    struct pool_call *c = pool->running;
    while (c && c->number != call)
        c = c->next;
    return c && c->slots && slot < POOL_SLOTS ? &c->slots[slot] : NULL;
}

bool orr_store_pool_wanted(struct orr_store_pool *pool,
                           uint64_t call,
                           uint32_t slot,
                           uint64_t *ret_host,
                           struct orr_store_hash *hash,
                           struct orr_msg_store_read *msg)
{
    pthread_mutex_lock(&pool->lock);
    struct pool_slot *s = slot_of(pool, call, slot);
    const bool is_wanted = s && s->state == SLOT_WANTED;
    if (is_wanted) {
        s->state = SLOT_ASKED;
        *hash = s->hash;
        *ret_host = s->host;
        *msg = (struct orr_msg_store_read){.is_part = s->is_part,
                                           .hash = {hash->at, sizeof hash->at},
                                           .offset = s->offset,
                                           .max_bytes = ORR_STORE_PIECE_MAX};
    }
    pthread_mutex_unlock(&pool->lock);
    return is_wanted;
}

void orr_store_pool_answer(struct orr_store_pool *pool,
                           uint64_t call,
                           uint32_t slot,
                           enum orr_err code,
                           const struct orr_msg_store_data *data)
{
    pthread_mutex_lock(&pool->lock);
    struct pool_slot *s = slot_of(pool, call, slot);
    if (s && s->state == SLOT_ASKED) {
        if (!code && data->data.len > sizeof s->piece)
            code = ORR_EPROTO;
        s->code = code;
        s->size = code ? 0 : data->size;
        s->len = code ? 0 : data->data.len;
        if (s->len)
            memcpy(s->piece, data->data.ptr, s->len);
        s->state = SLOT_DONE;
        pthread_cond_broadcast(&pool->answered);
    }
    pthread_mutex_unlock(&pool->lock);
}
