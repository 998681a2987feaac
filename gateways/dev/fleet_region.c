/* SPDX-License-Identifier: Apache-2.0
 * fleet_region.c - what the hosts of a fleet's region answer: is it ready, who leads.
 */
#include "fleet.h"

#include "orrery/client.h"

#include <time.h>

enum { CONNECT_MS = 1000, ASK_MS = 1000, LOOK_MS = 500, POLL_MS = 25 };

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static struct orr_client *
connect_to(const struct fleet *f, const struct fleet_host *h, uint64_t timeout_ms)
{
    char endpoint[FLEET_PATH_MAX + FLEET_NAME_MAX + 16];
    struct orr_client *client = NULL;
    snprintf(endpoint, sizeof endpoint, "ipc://%s/%s/sock", f->dir, h->name);
    return orr_client_new(endpoint, timeout_ms, &client, NULL) == ORR_OK ? client
                                                                         : NULL;
}

/* A host that has ended cannot become ready: say so at once, with its last words. */
static enum orr_err check_alive(const struct fleet *f, struct orr_error *err)
{
    for (unsigned i = 0; i < fleet_size(f); i++) {
        struct fleet_host h = fleet_host_at(f, i);
        char tail[300];
        if (fleet_host_pid(f, &h))
            continue;
        fleet_host_log_tail(f, &h, tail, sizeof tail);
        return orr_fail(
            err, ORR_EGONE, "dev: host %s has ended; its log says:\n%s", h.name, tail);
    }
    return ORR_OK;
}

/* Does it lead, and how many nodes are up then? */
static bool
see_nodes(const struct fleet *f, const struct fleet_host *h, unsigned *ret_n)
{
    unsigned n = 0;
    char path[FLEET_NAME_MAX + 1];
    struct orr_answer answer;
    struct orr_client *client = connect_to(f, h, CONNECT_MS);
    snprintf(path, sizeof path, "/%s", h->region);
    bool leads = client &&
                 orr_client_ask(client,
                                path,
                                orr_msg_desc_tree_get(),
                                &(struct orr_msg_tree_get){0},
                                ASK_MS,
                                &answer,
                                NULL) == ORR_OK &&
                 answer.desc == orr_msg_desc_tree();
    const struct orr_msg_tree *tree = leads ? answer.msg : NULL;
    for (uint32_t i = 0; leads && i < tree->nodes.n; i++)
        n += tree->nodes.at[i].state == ORR_NODE_UP;
    if (leads)
        *ret_n = n;
    orr_client_free(client);
    return leads;
}

enum orr_err fleet_region_wait(const struct fleet *f,
                               unsigned region,
                               uint64_t timeout_ms,
                               struct orr_error *err)
{
    uint64_t deadline_ms = now_ms() + timeout_ms;
    unsigned want = f->clusters * f->nodes, have = 0;
    bool has_leader = false;
    for (unsigned at = 0;; at = (at + 1) % f->replicas) {
        struct fleet_host h = fleet_host_at(f, region * f->replicas + at);
        struct timespec pause = {.tv_nsec = POLL_MS * 1000000};
        enum orr_err code = check_alive(f, err);
        if (code)
            return code;
        has_leader = see_nodes(f, &h, &have) || (has_leader && at > 0);
        if (have == want)
            return ORR_OK;
        if (now_ms() < deadline_ms) {
            nanosleep(&pause, NULL);
            continue;
        }
        return orr_fail(err,
                        ORR_ETIMEOUT,
                        "dev: %s %s %u of %u nodes after %llu s; see the host.log "
                        "files in %s",
                        h.region,
                        has_leader ? "sees" : "has no leader and sees",
                        have,
                        want,
                        (unsigned long long)timeout_ms / 1000,
                        f->dir);
    }
}

bool fleet_host_leads(const struct fleet *f, const struct fleet_host *h)
{
    struct orr_answer answer;
    if (f->replicas == 1)
        return true;
    struct orr_client *client = connect_to(f, h, LOOK_MS);
    bool leads = client &&
                 orr_client_ask(client,
                                "/edge/ledger",
                                orr_msg_desc_ledger_info_get(),
                                &(struct orr_msg_ledger_info_get){0},
                                LOOK_MS,
                                &answer,
                                NULL) == ORR_OK &&
                 answer.desc == orr_msg_desc_ledger_info() &&
                 ((const struct orr_msg_ledger_info *)answer.msg)->is_leading;
    orr_client_free(client);
    return leads;
}
