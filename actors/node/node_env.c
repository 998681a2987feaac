/* SPDX-License-Identifier: Apache-2.0
 * node_env.c - the environment of a rank.
 */
#include <stdarg.h>

#include "node_calls.h"
#include "node_devices.h"
#include "orrery/rank_link.h"

struct writer { /* text that env entries point to */
    char *at;
    size_t cap;
    size_t len;
    struct orr_rec_env_var *vars;
    uint32_t n;
};

static void env_put(struct writer *w, struct orr_str name, struct orr_str value)
{
    if (w->n < NODE_ENV_MAX)
        w->vars[w->n++] = (struct orr_rec_env_var){name, value};
}

ORR_PRINTF(3, 4)
static void env_fmt(struct writer *w, const char *name, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(w->at + w->len, w->cap - w->len, fmt, args);
    va_end(args);
    if (len < 0 || (size_t)len >= w->cap - w->len)
        return;
    env_put(w, orr_str(name), (struct orr_str){w->at + w->len, (uint32_t)len});
    w->len += (size_t)len + 1;
}

/* The uuids of the group's devices: a program that takes the one of its LOCAL_RANK, modulo their number, has the rank's. */
static void env_devices(struct writer *w,
                        const struct node *self,
                        const struct node_group *group,
                        const struct node_row *row)
{
    uint32_t devices[NODE_DEVICES_MAX];
    uint32_t n = node_row_order(self, group, row, devices);
    if (n == 0)
        return;
    char list[NODE_DEVICES_MAX * sizeof(self->devices[0].uuid)];
    size_t len = 0;
    for (uint32_t i = 0; i < n; i++)
        len += (size_t)snprintf(list + len,
                                sizeof(list) - len,
                                "%s%s",
                                len ? "," : "",
                                node_device_uuid(self, devices[i]));
    env_fmt(w, "CUDA_VISIBLE_DEVICES", "%s", list);
    for (uint32_t i = 0; i < self->n_rank_env; i++)
        env_put(w, orr_str(self->rank_env[i].name), orr_str(self->rank_env[i].value));
}

/* Ours first; a user's own come behind it. */
static void env_preload(struct writer *w, const struct orr_msg_job_spec *spec)
{
    struct orr_str theirs = {0}, ours = {0};
    for (uint32_t i = 0; i < w->n; i++)
        if (orr_str_eq(w->vars[i].name, ORR_LIT("LD_PRELOAD")))
            ours = w->vars[i].value;
    for (uint32_t i = 0; i < spec->env.n; i++)
        if (orr_str_eq(spec->env.at[i].name, ORR_LIT("LD_PRELOAD")))
            theirs = spec->env.at[i].value;
    if (theirs.len && ours.ptr != theirs.ptr)
        env_fmt(w, "LD_PRELOAD", "%.*s %.*s", ORR_STR_ARGS(ours), ORR_STR_ARGS(theirs));
}

/* A user's variable must not hide one of ours, so ours come last and win. */
struct orr_list_env_var node_env_make(struct node *self,
                                      const struct node_group *group,
                                      const struct node_row *row,
                                      const struct orr_msg_job_spec *spec)
{
    struct writer w = {
        .at = self->text.at, .cap = self->text.size, .vars = self->env.at};
    for (uint32_t i = 0; i < spec->env.n; i++)
        env_put(&w, spec->env.at[i].name, spec->env.at[i].value);
    env_devices(&w, self, group, row);
    env_fmt(&w, "RANK", "%u", row->rank);
    env_fmt(&w, "WORLD_SIZE", "%u", spec->world);
    env_fmt(&w, "LOCAL_RANK", "%u", row->local_rank);
    env_fmt(&w, "LOCAL_WORLD_SIZE", "%u", group->n_rows);
    env_fmt(&w, "NODE_RANK", "%u", group->node_rank);
    env_fmt(&w, "GROUP_RANK", "%u", group->node_rank);
    env_fmt(&w, "MASTER_ADDR", "%s", group->master_addr);
    env_fmt(&w, "MASTER_PORT", "%u", group->master_port);
    env_fmt(&w, "ORRERY_JOB", "%s", group->job);
    env_fmt(&w, "ORRERY_GENERATION", "%llu", (unsigned long long)group->generation);
    env_fmt(&w, "ORRERY_REGION", "%s", self->args.region);
    env_fmt(&w, "ORRERY_CLUSTER", "%s", self->args.cluster);
    env_fmt(&w, "ORRERY_NODE", "%s", self->args.node);
    if (self->args.has_stops) {
        char link[128];
        orr_rank_link_path(
            self->args.run_dir, group->link, row->rank, link, sizeof(link));
        env_fmt(&w, "ORRERY_RANK_LINK", "%s", link);
        if (spec->gpus_max > 0 &&
            spec->gpus_min < spec->world) /* ranks may share devices */
            env_fmt(&w,
                    "ORRERY_REDUCE",
                    "%s",
                    spec->reduce == ORR_REDUCE_ORDERED ? "ordered" : "fast");
        if (self->args.rank_lib[0])
            env_fmt(&w, "ORRERY_RANK_LIB", "%s", self->args.rank_lib);
        env_preload(&w, spec);
    }
    return (struct orr_list_env_var){w.vars, w.n};
}
