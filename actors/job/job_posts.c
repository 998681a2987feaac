/* SPDX-License-Identifier: Apache-2.0
 * job_posts.c - what processes of the job tell each other while it runs: places of ranks, and ids of communicators, when these are made.
 *
 * The newest JOB_POSTS_MAX are kept, in memory: whoever tells repeats it, and whoever waits asks again, so that a new actor, or a
 * lost message, costs a moment.
 */
#include "job_state.h"

enum { JOB_POSTS_MAX = 4096, ANSWER_MAX = 256, POST_BYTES = 128 };

struct post {
    uint64_t name;
    uint8_t data[POST_BYTES];
};

void job_posts_fini(struct job *self)
{
    orr_block_fini(&self->posts);
}

static const struct post *find(const struct job *self, uint64_t name)
{
    const struct post *kept = self->posts.at;
    uint32_t n = self->n_posts < JOB_POSTS_MAX ? self->n_posts : JOB_POSTS_MAX;
    for (uint32_t i = 0; i < n; i++)
        if (kept[i].name == name)
            return &kept[i];
    return NULL;
}

static void keep(struct job *self, const struct orr_rec_comm_id *told)
{
    struct post *kept = self->posts.at;
    if (told->id.len != sizeof kept->data || find(self, told->comm))
        return;
    struct post *to = &kept[self->n_posts++ % JOB_POSTS_MAX];
    to->name = told->comm;
    memcpy(to->data, told->id.ptr, sizeof to->data);
}

static void answer(struct orr_ctx *ctx,
                   struct job *self,
                   const struct job_node *node,
                   const struct orr_rec_comm_id *list,
                   uint32_t n)
{
    if (n > 0)
        orr_send(ctx,
                 node->addr,
                 job_posts,
                 .job = orr_str(self->args.job),
                 .generation = self->args.generation,
                 .node = orr_str(node->name),
                 .is_answer = true,
                 .posts = {(struct orr_rec_comm_id *)(uintptr_t)list, n});
}

static void answer_all(struct orr_ctx *ctx,
                       struct job *self,
                       const struct job_node *node,
                       const struct orr_msg_job_posts *msg)
{
    struct orr_rec_comm_id list[ANSWER_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < msg->posts.n; i++) {
        const struct post *post =
            msg->posts.at[i].id.len ? NULL : find(self, msg->posts.at[i].comm);
        if (!post)
            continue;
        list[n++] = (struct orr_rec_comm_id){
            .comm = post->name,
            .id = {(uint8_t *)(uintptr_t)post->data, sizeof post->data}};
        if (n == ANSWER_MAX) {
            answer(ctx, self, node, list, n);
            n = 0;
        }
    }
    answer(ctx, self, node, list, n);
}

void job_posts_heard(struct orr_ctx *ctx,
                     struct job *self,
                     const struct orr_msg_job_posts *msg)
{
    if (msg->generation != self->args.generation)
        return;
    if (!self->posts.at &&
        orr_block_init(&self->posts, JOB_POSTS_MAX * sizeof(struct post)) != ORR_OK)
        return; /* it will be told again */
    for (uint32_t i = 0; i < msg->posts.n; i++)
        keep(self, &msg->posts.at[i]);
    for (uint32_t i = 0; i < self->n_nodes; i++)
        if (orr_str_eq(orr_str(job_node_at(self, i)->name), msg->node))
            answer_all(ctx, self, job_node_at(self, i), msg);
}
