/* SPDX-License-Identifier: Apache-2.0
 * node_machines.c - on which machines the ranks of a group are, that their network spans.
 *
 * Its peers are given when a rank starts, and again, to those that wait at a cut, before others of them come from a machine that is
 * new to it (ADR 0023).  A machine that nobody has named an address for has networks of its own only.
 */
#include "node_calls.h"

enum { WIDEN_TIMEOUT_MS = 5000 };

/* What stands in the way of a network of this machine and those, or empty. */
static void why_no_network(const struct node *self,
                           struct orr_list_text machines,
                           char *why,
                           size_t cap)
{
    const char *own = self->args.machine, *port = strchr(own, ':');
    why[0] = '\0';
    if (machines.n && !port)
        snprintf(why,
                 cap,
                 "its ranks are to reach those on %.*s: give each node "
                 "roles.node.overlay.address, also %s",
                 ORR_STR_ARGS(machines.at[0].value),
                 self->args.node);
    for (uint32_t i = 0; i < machines.n && !why[0]; i++) {
        struct orr_str other = machines.at[i].value;
        uint32_t len = (uint32_t)strlen(port);
        if (other.len < len || memcmp(other.ptr + other.len - len, port, len) != 0)
            snprintf(why,
                     cap,
                     "its ranks are to reach those on %.*s from %s: give all nodes the "
                     "same roles.node.overlay.port",
                     ORR_STR_ARGS(other),
                     own);
    }
}

/* Others than this one: an overlay of one machine needs none. */
bool node_machines_take(const struct node *self,
                        struct node_group *group,
                        struct orr_list_text machines,
                        char *why,
                        size_t cap)
{
    group->n_machines = 0;
    group->is_too_wide = machines.n > ORR_MACHINES_MAX;
    if (group->is_too_wide)
        snprintf(why,
                 cap,
                 "a network of ranks spans %d machines at most",
                 ORR_MACHINES_MAX + 1);
    else
        why_no_network(self, machines, why, cap);
    for (uint32_t i = 0; i < machines.n && !why[0]; i++)
        orr_str_copy(group->machines[group->n_machines++],
                     sizeof(group->machines[0]),
                     machines.at[i].value);
    return !why[0];
}

struct orr_list_text node_machines_list(const struct node_group *group,
                                        struct orr_rec_text list[ORR_MACHINES_MAX])
{
    for (uint32_t i = 0; i < group->n_machines; i++)
        list[i].value = orr_str(group->machines[i]);
    return (struct orr_list_text){list, group->n_machines};
}

void node_machines_widen(struct orr_ctx *ctx,
                         struct node *self,
                         const struct node_group *group,
                         const struct node_row *row,
                         uint64_t tag)
{
    struct orr_rec_text machines[ORR_MACHINES_MAX];
    orr_ask(ctx,
            self->process_edge,
            WIDEN_TIMEOUT_MS,
            tag,
            process_widen,
            .job = orr_str(group->job),
            .generation = group->generation,
            .rank = row->rank,
            .overlay = group->overlay,
            .underlay = orr_str(self->args.machine),
            .peers = node_machines_list(group, machines));
}
