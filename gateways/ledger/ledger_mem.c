/* SPDX-License-Identifier: Apache-2.0
 * ledger_mem.c - the ledger in memory (ledger_mem.h).
 *
 * One lock, held while the sink is called: news come in order.
 */
#include "ledger_mem.h"

#include "image.h"

#include <pthread.h>

struct ledger_mem {
    struct orr_ledger base;
    char host[ORR_NAME_MAX];
    pthread_mutex_t lock;    /* guards all below */
    struct orr_image *image; /* owned */
    struct orr_ledger_sink sink;
    uint64_t term, ticket, index;
    enum orr_err trouble;
};

static struct ledger_mem *mem_of(struct orr_ledger *ledger)
{
    return (struct ledger_mem *)(void *)ledger;
}

static struct orr_ledger_news news_of(const struct ledger_mem *l)
{
    struct orr_ledger_news news = {.term = l->term,
                                   .is_leading = l->trouble == ORR_OK,
                                   .committed = orr_image_stats(l->image).last,
                                   .ticket = l->ticket};
    snprintf(news.leader, sizeof news.leader, "%s", l->host);
    if (l->trouble != ORR_OK)
        (void)orr_fail(
            &news.trouble, l->trouble, "the ledger: %s", orr_err_text(l->trouble));
    return news;
}

static void tell(const struct ledger_mem *l)
{
    const struct orr_ledger_news news = news_of(l);
    if (l->sink.news)
        l->sink.news(l->sink.arg, &news);
}

static void mem_attach(struct orr_ledger *ledger, const struct orr_ledger_sink *sink)
{
    struct ledger_mem *l = mem_of(ledger);
    pthread_mutex_lock(&l->lock);
    l->sink = sink ? *sink : (struct orr_ledger_sink){.news = NULL};
    tell(l);
    pthread_mutex_unlock(&l->lock);
}

static void begin_term(struct ledger_mem *l)
{
    l->term++;
    l->ticket = 0;
    tell(l);
}

static void mem_append(struct orr_ledger *ledger,
                       uint64_t term,
                       uint64_t ticket,
                       const uint8_t *entry,
                       size_t len)
{
    struct ledger_mem *l = mem_of(ledger);
    uint64_t entry_term, entry_ticket;
    pthread_mutex_lock(&l->lock);
    if (term == l->term && l->trouble == ORR_OK) {
        if (ticket == l->ticket + 1 &&
            orr_image_apply(
                l->image, l->index + 1, entry, len, &entry_term, &entry_ticket) ==
                ORR_OK) {
            l->index++;
            l->ticket = ticket;
            tell(l);
        } else { /* entries were lost on their way */
            begin_term(l);
        }
    }
    pthread_mutex_unlock(&l->lock);
}

static enum orr_err mem_read(struct orr_ledger *ledger,
                             struct orr_ledger_reader *reader,
                             uint64_t after,
                             orr_ledger_page_f page,
                             void *arg)
{
    struct ledger_mem *l = mem_of(ledger);
    pthread_mutex_lock(&l->lock);
    const enum orr_err code = orr_image_read(l->image, reader, after, page, arg);
    pthread_mutex_unlock(&l->lock);
    return code;
}

static void mem_info(struct orr_ledger *ledger, struct orr_ledger_info *ret_info)
{
    struct ledger_mem *l = mem_of(ledger);
    pthread_mutex_lock(&l->lock);
    const struct orr_image_stats stats = orr_image_stats(l->image);
    *ret_info = (struct orr_ledger_info){.news = news_of(l),
                                         .keys = stats.keys,
                                         .image_bytes = stats.bytes,
                                         .digest = stats.digest,
                                         .n_voters = 1};
    snprintf(ret_info->voters[0].host, sizeof ret_info->voters[0].host, "%s", l->host);
    ret_info->voters[0].is_leading = ret_info->voters[0].is_voting = true;
    pthread_mutex_unlock(&l->lock);
}

static void refuse(orr_ledger_done_f done, void *arg)
{
    struct orr_error err;
    (void)orr_fail(
        &err, ORR_ENOSYS, "a ledger in memory has one voter, which cannot change");
    done(arg, &err);
}

static void mem_voter_add(struct orr_ledger *ledger,
                          struct orr_str host,
                          struct orr_str address,
                          struct orr_str endpoint,
                          orr_ledger_done_f done,
                          void *arg)
{
    (void)ledger, (void)host, (void)address, (void)endpoint;
    refuse(done, arg);
}

static void mem_voter_remove(struct orr_ledger *ledger,
                             struct orr_str host,
                             orr_ledger_done_f done,
                             void *arg)
{
    (void)ledger, (void)host;
    refuse(done, arg);
}

static void mem_leader_move(struct orr_ledger *ledger,
                            struct orr_str host,
                            orr_ledger_done_f done,
                            void *arg)
{
    const struct orr_error ok = {.code = ORR_OK};
    if (orr_str_eq(host, orr_str(mem_of(ledger)->host)))
        done(arg, &ok);
    else
        refuse(done, arg);
}

static void mem_close(struct orr_ledger *ledger)
{
    struct ledger_mem *l = mem_of(ledger);
    orr_image_free(l->image);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

void orr_ledger_mem_new_term(struct orr_ledger *ledger)
{
    struct ledger_mem *l = mem_of(ledger);
    pthread_mutex_lock(&l->lock);
    begin_term(l);
    pthread_mutex_unlock(&l->lock);
}

void orr_ledger_mem_fail(struct orr_ledger *ledger, enum orr_err code)
{
    struct ledger_mem *l = mem_of(ledger);
    pthread_mutex_lock(&l->lock);
    const bool is_over = l->trouble != ORR_OK && code == ORR_OK;
    l->trouble = code;
    if (is_over)
        begin_term(l);
    else
        tell(l);
    pthread_mutex_unlock(&l->lock);
}

enum orr_err orr_ledger_mem_open(const char *host, struct orr_ledger **ret_ledger)
{
    static const struct orr_ledger_ops ops = {
        .attach = mem_attach,
        .append = mem_append,
        .read = mem_read,
        .info = mem_info,
        .voter_add = mem_voter_add,
        .voter_remove = mem_voter_remove,
        .leader_move = mem_leader_move,
        .close = mem_close,
    };
    const struct orr_image_config config = {.gone_max = 0};
    struct ledger_mem *l = calloc(1, sizeof *l);
    if (!l || orr_image_new(&config, &l->image) != ORR_OK) {
        free(l);
        return ORR_ENOMEM;
    }
    l->base.ops = &ops;
    l->term = 1;
    snprintf(l->host, sizeof l->host, "%s", host);
    pthread_mutex_init(&l->lock, NULL);
    *ret_ledger = &l->base;
    return ORR_OK;
}
