/* SPDX-License-Identifier: Apache-2.0
 * role_ledger.c - the ledger of the region role: see role_ledger.h.
 */
#include "role_ledger.h"

#include "ledger/ledger_port.h"
#include "ledger/ledger_raft.h"

#include <limits.h>
#include <unistd.h>

static const char *text(struct orr_str s)
{
    return s.len ? s.ptr : "";
}

static enum orr_err open_ledger(struct host *h, struct orr_error *err)
{
    const struct orr_config_region *r = &h->config.region_role;
    struct orr_ledger_raft_voter voters[ORR_LEDGER_VOTERS_MAX];
    char dir[PATH_MAX];
    if (r->voters.n > ORR_LEDGER_VOTERS_MAX)
        return orr_fail(err,
                        ORR_EINVAL,
                        "region.voters: %u of them, at most %d",
                        r->voters.n,
                        ORR_LEDGER_VOTERS_MAX);
    for (uint32_t i = 0; i < r->voters.n; i++)
        voters[i] =
            (struct orr_ledger_raft_voter){.host = text(r->voters.at[i].host),
                                           .address = text(r->voters.at[i].address),
                                           .endpoint = text(r->voters.at[i].endpoint)};
    snprintf(dir, sizeof dir, "%s/ledger", h->config.state.ptr);
    const struct orr_ledger_raft_config config = {
        .dir = dir,
        .self = {.host = text(h->config.host),
                 .address = text(r->address),
                 .endpoint = text(r->endpoint)},
        .voters = voters,
        .n_voters = r->voters.n,
        .is_joining = r->is_joining,
        .is_alone = h->is_alone,
    };
    if (h->is_alone) {
        char file[PATH_MAX + 16];
        snprintf(file, sizeof file, "%s/metadata1", dir);
        if (access(file, F_OK) != 0)
            return orr_fail(err,
                            ORR_ENOENT,
                            "--recover-alone: %s has no ledger to go on with",
                            dir);
    }
    return orr_ledger_raft_open(&config, &h->ledger, err);
}

enum orr_err role_ledger_start(struct host *h, struct orr_error *err)
{
    enum orr_err code = open_ledger(h, err);
    if (code != ORR_OK)
        return code;
    struct orr_ledger_port_args args = {
        .ledger = h->ledger,
        .system = h->system,
        .post = orr_system_post,
        .reply = orr_system_reply,
        .region = orr_addr_named(h->config.host, orr_str(h->region_path)),
    };
    orr_str_copy(args.region_name, sizeof args.region_name, h->config.region);
    orr_str_copy(args.host, sizeof args.host, h->config.host);
    const struct orr_spawn spawn = {.type = &orr_ledger_port_type,
                                    .args = &args,
                                    .path = "/edge/ledger",
                                    .restart = ORR_PERMANENT};
    struct orr_addr addr;
    code = orr_system_spawn(h->system, &spawn, &addr);
    return code == ORR_OK
               ? ORR_OK
               : orr_fail(
                     err, code, "/edge/ledger: cannot start: %s", orr_err_text(code));
}

void role_ledger_close(struct orr_ledger *ledger)
{
    if (ledger)
        ledger->ops->close(ledger);
}
