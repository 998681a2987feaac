/* SPDX-License-Identifier: Apache-2.0
 * ledger_edges.c - see ledger_edges.h.
 *
 * The model moves when its next event is due, whoever is up; after each move the regions whose replica has news are told.
 */
#include "ledger_edges.h"

enum { NEWS_MS = 100, PAGE_LIMIT = 24, PAGE_MAX = 16384 };

static void step(void *arg, struct orr_sim *sim, uint64_t number);

static void arm(struct ledger_edges *edges)
{
    uint64_t now = orr_sim_now_ms(edges->sim);
    uint64_t due = ledger_next_ms(edges->ledger);
    if (due == UINT64_MAX)
        return;
    due = due < now + NEWS_MS ? due : now + NEWS_MS;
    due = due > now ? due : now + 1;
    if (edges->armed_ms > now && edges->armed_ms <= due)
        return;
    edges->armed_ms = due;
    ORR_ASSERT(orr_sim_at(edges->sim, due, step, edges, due) == ORR_OK);
}

static const char *host_name(uint32_t replica, char name[16])
{
    name[0] = '\0';
    if (replica != ORR_NO_REPLICA)
        snprintf(name, 16, "r%u", replica + 1);
    return name;
}

static void tell(struct ledger_edges *edges, uint32_t host)
{
    struct ledger_view view;
    uint64_t now = orr_sim_now_ms(edges->sim);
    ledger_view(edges->ledger, host, &view);
    const struct ledger_view *told = &edges->told[host];
    bool is_same = view.term == told->term && view.is_leading == told->is_leading &&
                   view.leader == told->leader && view.committed == told->committed &&
                   view.ticket == told->ticket && view.trouble == told->trouble;
    if (is_same && now < edges->told_ms[host] + NEWS_MS)
        return;
    edges->told[host] = view;
    edges->told_ms[host] = now;
    char path[ORR_NAME_MAX + 2], leader[16], self[16];
    snprintf(path, sizeof(path), "/%s", edges->region);
    struct orr_str at = orr_str(host_name(host, self));
    const struct orr_msg_ledger_news news = {
        .term = view.term,
        .is_leading = view.is_leading,
        .leader = orr_str(host_name(view.leader, leader)),
        .committed = view.committed,
        .ticket = view.ticket,
        .trouble = view.trouble,
        .text = orr_str(view.trouble ? "the disk of the ledger fails: replace it" : ""),
    };
    orr_sim_post(edges->sim,
                 host,
                 orr_addr_named(at, ORR_LIT("/edge/ledger")),
                 orr_addr_named(at, orr_str(path)),
                 orr_msg_desc_ledger_news(),
                 &news);
}

static void step(void *arg, struct orr_sim *sim, uint64_t number)
{
    struct ledger_edges *edges = arg;
    if (number != edges->armed_ms)
        return; /* an earlier one took its place */
    edges->armed_ms = 0;
    ledger_step(edges->ledger, orr_sim_now_ms(sim));
    for (uint32_t host = 0; host < edges->n; host++)
        if (orr_sim_system(sim, host))
            tell(edges, host);
    arm(edges);
}

enum orr_err ledger_edges_init(struct ledger_edges *edges,
                               struct orr_sim *sim,
                               const char *region,
                               struct invariants *invariants,
                               const struct ledger_config *config)
{
    *edges = (struct ledger_edges){
        .sim = sim, .invariants = invariants, .n = config->n_replicas};
    orr_str_copy(edges->region, sizeof(edges->region), orr_str(region));
    edges->page = calloc(PAGE_MAX, sizeof(*edges->page));
    if (!edges->page)
        return ORR_ENOMEM;
    enum orr_err err = ledger_new(config, &edges->ledger);
    if (err != ORR_OK)
        free(edges->page);
    return err;
}

void ledger_edges_fini(struct ledger_edges *edges)
{
    ledger_free(edges->ledger);
    free(edges->page);
    *edges = (struct ledger_edges){0};
}

void ledger_edges_boot(struct ledger_edges *edges, uint32_t host)
{
    ledger_start(edges->ledger, host, orr_sim_now_ms(edges->sim));
    edges->told[host] = (struct ledger_view){0};
    edges->told_ms[host] = 0;
    edges->reset_until[host] = 0;
    arm(edges);
}

void ledger_edges_crash(struct ledger_edges *edges, uint32_t host)
{
    ledger_crash(edges->ledger, host);
}

void ledger_edges_disk_set(struct ledger_edges *edges, uint32_t host, bool works)
{
    ledger_disk_set(edges->ledger, host, works, orr_sim_now_ms(edges->sim));
    arm(edges);
}

/* ---- the actor ---- */

struct sim_ledger {
    struct ledger_edge_args args;
};

ORR_HANDLER(sim_ledger, ledger_append)
ORR_HANDLER(sim_ledger, ledger_read)
ORR_HANDLER(sim_ledger, ledger_info_get)

static enum orr_err sim_ledger_init(struct orr_ctx *ctx, void *state, const void *args)
{
    (void)ctx;
    ((struct sim_ledger *)state)->args = *(const struct ledger_edge_args *)args;
    return ORR_OK;
}

static enum orr_err sim_ledger_on_ledger_append(struct orr_ctx *ctx,
                                                struct sim_ledger *self,
                                                const struct orr_msg_ledger_append *msg)
{
    (void)ctx;
    struct ledger_edges *edges = self->args.edges;
    ledger_append(edges->ledger, self->args.host, msg, orr_sim_now_ms(edges->sim));
    arm(edges);
    return ORR_OK;
}

/* One reader: the region of this host.  A reset takes several pages; what is forgotten meanwhile begins another. */
static enum orr_err sim_ledger_on_ledger_read(struct orr_ctx *ctx,
                                              struct sim_ledger *self,
                                              const struct orr_msg_ledger_read *msg)
{
    struct ledger_edges *edges = self->args.edges;
    const struct image *image = ledger_image(edges->ledger, self->args.host);
    uint64_t *reset_until = &edges->reset_until[self->args.host];
    bool is_within = msg->after > 0 && *reset_until == image->forgotten;
    struct orr_msg_ledger_page page;
    image_page(image, msg->after, is_within, PAGE_LIMIT, edges->page, PAGE_MAX, &page);
    if (page.is_reset)
        *reset_until = image->forgotten;
    if (page.last == page.committed)
        edges->told_all[self->args.host] = page.last;
    ctx->ops->reply(ctx, &ctx->request, orr_msg_desc_ledger_page(), &page);
    return ORR_OK;
}

static enum orr_err
sim_ledger_on_ledger_info_get(struct orr_ctx *ctx,
                              struct sim_ledger *self,
                              const struct orr_msg_ledger_info_get *msg)
{
    (void)msg;
    const struct ledger_edges *edges = self->args.edges;
    const struct image *image = ledger_image(edges->ledger, self->args.host);
    struct orr_rec_voter voters[LEDGER_REPLICAS_MAX];
    char names[LEDGER_REPLICAS_MAX][16], leader[16], host[16];
    struct ledger_view view;
    ledger_view(edges->ledger, self->args.host, &view);
    for (uint32_t i = 0; i < edges->n; i++)
        voters[i] = (struct orr_rec_voter){.host = orr_str(host_name(i, names[i])),
                                           .is_leading = i == view.leader,
                                           .is_voting = true};
    orr_reply(ctx,
              ledger_info,
              .region = orr_str(edges->region),
              .host = orr_str(host_name(self->args.host, host)),
              .term = view.term,
              .is_leading = view.is_leading,
              .leader = orr_str(host_name(view.leader, leader)),
              .committed = view.committed,
              .keys = image->n_keys,
              .image_bytes = image->bytes,
              .digest = image->digest,
              .trouble = view.trouble,
              .voters = {voters, edges->n});
    return ORR_OK;
}

static const struct orr_handler handlers[] = {
    ORR_ON(sim_ledger, ledger_append, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(sim_ledger, ledger_read, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(sim_ledger, ledger_info_get, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
};

const struct orr_actor_type sim_ledger_type = {
    .name = "sim_ledger",
    .state_size = sizeof(struct sim_ledger),
    .args_size = sizeof(struct ledger_edge_args),
    .init = sim_ledger_init,
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
};

/* ---- the audit ---- */

enum { AUDIT_MS = 200, AUDIT_ASK_MS = 2000 };

struct sim_audit {
    struct ledger_edge_args args;
    struct orr_addr region;
};

ORR_HANDLER(sim_audit, region_check)
ORR_HANDLER(sim_audit, failed)
ORR_HANDLER(sim_audit, timer)

static enum orr_err sim_audit_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct sim_audit *self = state;
    self->args = *(const struct ledger_edge_args *)args;
    char path[ORR_NAME_MAX + 2];
    snprintf(path, sizeof(path), "/%s", self->args.edges->region);
    self->region =
        (struct orr_addr){.host = ctx->self.host, .slot = orr_hash(orr_str(path))};
    orr_timer_set(ctx, 1, AUDIT_MS, 0);
    return ORR_OK;
}

static const struct image *image_of(const struct sim_audit *self)
{
    return ledger_image(self->args.edges->ledger, self->args.host);
}

static enum orr_err sim_audit_on_timer(struct orr_ctx *ctx,
                                       struct sim_audit *self,
                                       const struct orr_msg_timer *msg)
{
    (void)msg;
    uint64_t index = image_of(self)->committed; /* comes back as the answer's tag */
    orr_ask(ctx, self->region, AUDIT_ASK_MS, index, region_check_get);
    orr_timer_set(ctx, 1, AUDIT_MS, 0);
    return ORR_OK;
}

/* A standby's tables mean the index that they were told all of; a leader's, when nothing is open, one that was committed
 * between question and answer. */
static enum orr_err sim_audit_on_region_check(struct orr_ctx *ctx,
                                              struct sim_audit *self,
                                              const struct orr_msg_region_check *msg)
{
    struct ledger_edges *edges = self->args.edges;
    const uint64_t *digests = ledger_digests(edges->ledger);
    uint64_t from = msg->applied ? msg->applied : ctx->tag;
    uint64_t to = msg->applied ? msg->applied : image_of(self)->committed;
    char name[16];
    bool is_partial = msg->applied && msg->applied != edges->told_all[self->args.host];
    if (msg->open || is_partial || from == 0 || to < from || msg->keys == 0)
        return ORR_OK; /* without keys: it has just started and read nothing */
    replay_of_the_log_is_the_state(edges->invariants,
                                   host_name(self->args.host, name),
                                   msg->digest,
                                   digests + from - 1,
                                   to - from + 1);
    return ORR_OK;
}

static enum orr_err sim_audit_on_failed(struct orr_ctx *ctx,
                                        struct sim_audit *self,
                                        const struct orr_msg_failed *msg)
{
    (void)ctx;
    (void)self;
    (void)msg; /* it restarts, or holds its answers: asked again */
    return ORR_OK;
}

static const struct orr_handler audit_handlers[] = {
    ORR_ON(sim_audit, region_check, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(sim_audit, failed, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(sim_audit, timer, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};

const struct orr_actor_type sim_audit_type = {
    .name = "sim_audit",
    .state_size = sizeof(struct sim_audit),
    .args_size = sizeof(struct ledger_edge_args),
    .init = sim_audit_init,
    .handlers = audit_handlers,
    .n_handlers = ORR_ARRAY_SIZE(audit_handlers),
};
