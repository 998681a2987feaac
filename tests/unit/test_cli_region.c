/* SPDX-License-Identifier: Apache-2.0
 * test_cli_region.c - orr_client_* without a host: a request is answered at once, the answer waits for receive.
 */
#include "test_cli_region.h"

#include "orrery/client.h"

#include <signal.h>
#include <unistd.h>

struct orr_client {
    unsigned host;
};

struct region region;

static struct {
    uint64_t corr;
    const struct orr_msg_desc *desc;
    void *msg; /* owned */
} queue[16];
static size_t n_queue;
static void *current; /* owned: what receive gave out */

static uint64_t last_corr;
static uint64_t wait_corr; /* of the last job_wait */

enum orr_err orr_client_new(const char *endpoint,
                            uint64_t timeout_ms,
                            struct orr_client **ret_client,
                            struct orr_error *err)
{
    (void)timeout_ms;
    unsigned host =
        region.n_hosts ? (unsigned)(endpoint[strlen(endpoint) - 1] - '1') : 0;
    ORR_ASSERT(host < FAKE_HOSTS_MAX);
    if (region.is_away || region.is_gone[host] || region.is_hung[host])
        return orr_fail(err, ORR_EUNREACH, "%s: nobody there", endpoint);
    *ret_client = malloc(sizeof **ret_client);
    ORR_ASSERT(*ret_client);
    (*ret_client)->host = host;
    return ORR_OK;
}

void orr_client_free(struct orr_client *client)
{
    free(client);
}

const char *orr_client_host(const struct orr_client *client)
{
    (void)client;
    return "r1";
}

static void put(uint64_t corr, const struct orr_msg_desc *desc, const void *msg)
{
    ORR_ASSERT(n_queue < ORR_ARRAY_SIZE(queue));
    void *copy = malloc(orr_msg_size(desc, msg));
    ORR_ASSERT(copy);
    orr_msg_copy(desc, msg, copy);
    queue[n_queue].corr = corr;
    queue[n_queue].desc = desc;
    queue[n_queue++].msg = copy;
}

static void put_failed(uint64_t corr, enum orr_err code, const char *text)
{
    struct orr_msg_failed failed = {.code = code, .text = orr_str(text)};
    put(corr, orr_msg_desc_failed(), &failed);
}

static const struct orr_rec_job_row rows[] = {
    {.job = {"r1-1", 4},
     .name = {"one", 3},
     .project = {"p", 1},
     .phase = ORR_JOB_RUNNING,
     .world = 8,
     .gpus = 4,
     .cluster = {"c1", 2},
     .reason = {"", 0}},
    {.job = {"r1-2", 4},
     .name = {"two\"\n", 5},
     .project = {"p", 1},
     .phase = ORR_JOB_QUEUED,
     .world = 1,
     .cluster = {"", 0},
     .reason = {"no free devices", 15}},
    {.job = {"r1-3", 4},
     .name = {"three", 5},
     .project = {"p", 1},
     .phase = ORR_JOB_FAILED,
     .tier = ORR_TIER_BASIC,
     .world = 1,
     .exit_code = 3,
     .cluster = {"c1", 2},
     .reason = {"exit 3", 6}},
};

static struct orr_rec_checkpoint_row saved = {.job = {"r1-1", 4},
                                              .number = 7,
                                              .level = ORR_LEVEL_IMAGE,
                                              .created_unix_ms = 1700000000000,
                                              .bytes = 3 << 20,
                                              .new_bytes = 1 << 20,
                                              .paused_ms = 40,
                                              .cause = {"asked", 5}};

static void add_order(struct orr_msg_job_detail *detail)
{
    bool is_over = region.order && region.order_looks == 0;
    region.order_looks -= region.order_looks > 0;
    detail->level = ORR_LEVEL_INPLACE;
    detail->why_level = ORR_LIT("no CRIU");
    detail->checkpoints = (struct orr_list_checkpoint_row){&saved, 1};
    detail->order = region.order;
    detail->order_kind = region.order_kind;
    detail->order_state = !region.order        ? ORR_ORDER_IS_NONE
                          : !is_over           ? ORR_ORDER_IS_TAKEN
                          : region.order_fails ? ORR_ORDER_IS_FAILED
                                               : ORR_ORDER_IS_DONE;
    detail->order_code = region.order_fails;
    detail->order_text =
        region.order_fails ? ORR_LIT("barrier: rank 2 on n1 never came") : ORR_LIT("");
    if (region.order_phase)
        detail->row.phase = region.order_phase;
}

static void take_order(uint64_t corr, struct orr_str job, uint32_t kind)
{
    if (!orr_str_eq(job, ORR_LIT("r1-1"))) {
        put_failed(corr, ORR_ESTATE, "it has ended already");
        return;
    }
    region.order++;
    region.order_kind = kind;
    put(corr, orr_msg_desc_ack(), &(struct orr_msg_ack){0});
}

static void answer_migrate(uint64_t corr, const struct orr_msg_job_migrate *m)
{
    snprintf(region.to,
             sizeof region.to,
             "%.*s %.*s %.*s%s%.*s",
             ORR_STR_ARGS(m->region),
             ORR_STR_ARGS(m->cluster),
             ORR_STR_ARGS(m->node),
             m->gone.len ? " not " : "",
             ORR_STR_ARGS(m->gone));
    take_order(corr, m->job, ORR_ORDER_VACATE);
}

static void answer_drain(uint64_t corr, const struct orr_msg_node_drain *m)
{
    snprintf(region.drained,
             sizeof region.drained,
             "%.*s %.*s %d",
             ORR_STR_ARGS(m->cluster),
             ORR_STR_ARGS(m->node),
             m->is_draining);
    put(corr, orr_msg_desc_ack(), &(struct orr_msg_ack){0});
}

static bool
answer_order(uint64_t corr, const struct orr_msg_desc *desc, const void *msg)
{
    struct orr_rec_part part = {
        .hash = ORR_LIT("abcd"), .bytes = 3 << 20, .store = ORR_LIT("n1")};
    switch (desc->id) {
    case ORR_MSG_job_suspend:
        take_order(
            corr, ((const struct orr_msg_job_suspend *)msg)->job, ORR_ORDER_SUSPEND);
        return true;
    case ORR_MSG_job_resume:
        take_order(corr, ((const struct orr_msg_job_resume *)msg)->job, ORR_ORDER_RUN);
        return true;
    case ORR_MSG_job_migrate:
        answer_migrate(corr, msg);
        return true;
    case ORR_MSG_node_drain:
        answer_drain(corr, msg);
        return true;
    case ORR_MSG_job_checkpoint:
        put(corr,
            orr_msg_desc_checkpoint_made(),
            &(struct orr_msg_checkpoint_made){.row = saved});
        return true;
    case ORR_MSG_checkpoint_list:
        put(corr,
            orr_msg_desc_checkpoint_rows(),
            &(struct orr_msg_checkpoint_rows){.rows = {&saved, 1}});
        return true;
    case ORR_MSG_checkpoint_show:
        put(corr,
            orr_msg_desc_checkpoint_detail(),
            &(struct orr_msg_checkpoint_detail){.row = saved, .parts = {&part, 1}});
        return true;
    case ORR_MSG_checkpoint_remove:
        region.removed = ((const struct orr_msg_checkpoint_remove *)msg)->number;
        put(corr, orr_msg_desc_ack(), &(struct orr_msg_ack){0});
        return true;
    default:
        return false;
    }
}

static void answer_detail(uint64_t corr, struct orr_str job)
{
    static uint8_t wire[512];
    size_t len = 0;
    const struct orr_rec_job_row *row = NULL;
    for (size_t i = 0; i < ORR_ARRAY_SIZE(rows); i++) {
        if (orr_str_eq(rows[i].job, job))
            row = &rows[i];
    }
    if (!row) {
        put_failed(corr, ORR_ENOENT, "no such job; `orrery ps -a` lists them");
        return;
    }
    struct orr_rec_text command[] = {{ORR_LIT("sh")}, {ORR_LIT("a b")}};
    struct orr_msg_job_spec spec = {
        .name = row->name, .command = {command, 2}, .world = 1};
    ORR_ASSERT(orr_msg_encode(
                   orr_msg_desc_job_spec(), &spec, wire, sizeof wire, &len) == ORR_OK);
    struct orr_rec_rank_place place = {0, ORR_LIT("n1"), ORR_NO_DEVICE, 0};
    struct orr_msg_job_detail detail = {.row = *row,
                                        .owner = ORR_LIT("me"),
                                        .spec = {wire, (uint32_t)len},
                                        .ranks = {&place, 1},
                                        .culprit =
                                            row->phase == ORR_JOB_FAILED ? 0 : -1,
                                        .culprit_node = ORR_LIT("n1"),
                                        .stderr_tail = ORR_LIT("boom")};
    if (orr_str_eq(job, ORR_LIT("r1-1")))
        add_order(&detail);
    put(corr, orr_msg_desc_job_detail(), &detail);
}

static void answer_submit(uint64_t corr, const struct orr_msg_job_submit *m)
{
    char key[64];
    orr_str_copy(key, sizeof key, m->key);
    region.has_one_key = region.submits == 0 || strcmp(key, region.key) == 0;
    orr_str_copy(region.key, sizeof region.key, m->key);
    uint64_t buf[256];
    ORR_ASSERT(
        orr_msg_decode(
            orr_msg_desc_job_spec(), m->spec.ptr, m->spec.len, buf, sizeof buf) ==
        ORR_OK);
    memcpy(&region.spec, buf, sizeof region.spec);
    if (region.submits++ < region.busy) {
        put_failed(corr, ORR_EBUSY, "busy");
        return;
    }
    struct orr_msg_job_submitted submitted = {.job = ORR_LIT("r1-3")};
    put(corr, orr_msg_desc_job_submitted(), &submitted);
}

static void answer_list(uint64_t corr, const struct orr_msg_job_list *m)
{
    bool is_first = m->after.len == 0;
    struct orr_msg_job_rows page = {
        .jobs = {is_first ? rows : rows + 2, is_first ? 2 : 1}, .more = is_first};
    put(corr, orr_msg_desc_job_rows(), &page);
}

/* Generation 1 has "one\ntw", generation 2 "new\n". */
static void answer_log(uint64_t corr, const struct orr_msg_log_read *m)
{
    const char *text = region.log_generation == 1 ? "one\ntw" : "new\n";
    size_t len = strlen(text), at = m->offset < len ? (size_t)m->offset : len;
    struct orr_msg_log_chunk chunk = {
        .generation = region.log_generation,
        .offset = at,
        .data = {(const uint8_t *)text + at, (uint32_t)(len - at)},
        .is_final = true};
    if (orr_str_eq(m->job, ORR_LIT("r1-2")))
        put_failed(corr, ORR_ESTATE, "not started");
    else
        put(corr, orr_msg_desc_log_chunk(), &chunk);
}

static void answer_tree(uint64_t corr)
{
    struct orr_rec_cluster_row cluster = {
        .cluster = ORR_LIT("c1"), .nodes = 1, .gpus = 2, .gpus_free = 1};
    struct orr_rec_node_row node = {.cluster = ORR_LIT("c1"),
                                    .node = ORR_LIT("n1"),
                                    .state = ORR_NODE_DRAINING,
                                    .gpus = 2,
                                    .gpus_free = 1,
                                    .gpu_type = ORR_LIT("H100"),
                                    .gpu_memory_bytes = UINT64_C(80) << 30,
                                    .slots = 8,
                                    .slots_free = 7};
    struct orr_msg_tree tree = {
        .region = ORR_LIT("r1"), .clusters = {&cluster, 1}, .nodes = {&node, 1}};
    put(corr, orr_msg_desc_tree(), &tree);
}

/* One line of the event stream, without its newline; its length. */
static int region_event(char *buf, size_t cap, uint64_t seq, const char *type)
{
    return snprintf(
        buf,
        cap,
        "{\"time\":\"T%d\",\"epoch\":4,\"seq\":%d,\"type\":\"%s\",\"subject\":"
        "\"job/r1-1\",\"from\":\"queued\",\"to\":\"running\",\"cause\":\"\"}",
        (int)seq,
        (int)seq,
        type);
}

/* Each request finds grow_by more events than the one before. */
static void answer_events(uint64_t corr, const struct orr_msg_events_get *m)
{
    char text[4096] = "";
    size_t len = 0;
    orr_str_copy(region.topic, sizeof region.topic, m->topic);
    if (region.interrupt_after && m->after >= region.interrupt_after &&
        m->after != UINT64_MAX)
        raise(SIGINT);
    if (m->wait_ms && region.last_seq < m->after + region.grow_by)
        region.last_seq = m->after + region.grow_by;
    uint64_t seq = m->after < region.last_seq ? m->after + 1 : region.last_seq + 1;
    if (seq < region.first_seq)
        seq = region.first_seq;
    for (; seq <= region.last_seq; seq++) {
        len += (size_t)region_event(text + len, sizeof text - len, seq, "job.state");
        text[len++] = '\n';
    }
    struct orr_msg_events events = {
        .epoch = 4,
        .first_seq = region.first_seq,
        .last_seq = region.last_seq,
        .jsonl = {(const uint8_t *)text, (uint32_t)len},
        .through = m->after < region.last_seq ? region.last_seq : m->after};
    put(corr, orr_msg_desc_events(), &events);
}

static void answer(uint64_t corr, const struct orr_msg_desc *desc, const void *msg)
{
    struct orr_msg_region_info info = {.region = ORR_LIT("r1"), .epoch = 4, .seq = 3};
    if (answer_order(corr, desc, msg))
        return;
    switch (desc->id) {
    case ORR_MSG_job_submit:
        answer_submit(corr, msg);
        break;
    case ORR_MSG_job_list:
        answer_list(corr, msg);
        break;
    case ORR_MSG_job_show:
        answer_detail(corr, ((const struct orr_msg_job_show *)msg)->job);
        break; /* r1-1 runs, whoever asks */
    case ORR_MSG_job_wait:
        region.waits++;
        wait_corr = corr;
        if (region.waits > 1 && region.fate != FATE_NONE)
            answer_detail(corr, ORR_LIT("r1-3")); /* it has ended meanwhile */
        else if (!orr_str_eq(((const struct orr_msg_job_wait *)msg)->job,
                             ORR_LIT("r1-1")))
            answer_detail(corr, ((const struct orr_msg_job_wait *)msg)->job);
        break; /* r1-1 does not end */
    case ORR_MSG_job_cancel:
        if (orr_str_eq(((const struct orr_msg_job_cancel *)msg)->job, ORR_LIT("r1-9")))
            put_failed(corr, ORR_ENOENT, "r1-9: no such job");
        else
            put(corr, orr_msg_desc_ack(), &(struct orr_msg_ack){0});
        break;
    case ORR_MSG_log_read:
        answer_log(corr, msg);
        break;
    case ORR_MSG_tree_get:
        answer_tree(corr);
        break;
    case ORR_MSG_region_info_get:
        put(corr, orr_msg_desc_region_info(), &info);
        break;
    case ORR_MSG_events_get:
        answer_events(corr, msg);
        break;
    default:
        put_failed(corr, ORR_ENOSYS, "no such request");
    }
}

/* ---- several hosts ---- */

static void answer_info(uint64_t corr, unsigned host)
{
    static const char *const hosts[] = {"h1", "h2", "h3", "h4"};
    static const char *const endpoints[] = {
        "ipc:///r1", "ipc:///r2", "ipc:///r3", "ipc:///r4"};
    struct orr_rec_voter voters[FAKE_HOSTS_MAX];
    bool leads = host == region.leader;
    unsigned leader = leads ? host : region.told;
    for (unsigned i = 0; i < region.n_hosts; i++)
        voters[i] = (struct orr_rec_voter){.host = orr_str(hosts[i]),
                                           .address = ORR_LIT("127.0.0.1:1"),
                                           .endpoint = orr_str(endpoints[i]),
                                           .is_leading = i == leader,
                                           .is_voting = true};
    struct orr_msg_ledger_info info = {
        .region = ORR_LIT("r1"),
        .host = orr_str(hosts[host]),
        .term = 7,
        .is_leading = leads,
        .leader = orr_str(leader < region.n_hosts ? hosts[leader] : ""),
        .committed = 40 + host,
        .keys = 3,
        .voters = {voters, region.n_hosts}};
    put(corr, orr_msg_desc_ledger_info(), &info);
}

static void answer_ledger(uint64_t corr,
                          unsigned host,
                          const struct orr_msg_desc *desc,
                          const void *msg)
{
    const struct orr_msg_voter_add *add = msg;
    const struct orr_msg_voter_remove *gone = msg;
    if (desc->id == ORR_MSG_ledger_info_get) {
        answer_info(corr, host);
        return;
    }
    if (host != region.leader) {
        put_failed(corr, ORR_ENOTLEADER, "another host leads");
        return;
    }
    if (desc->id == ORR_MSG_leader_move)
        region.leader = region.told = (region.leader + 1) % region.n_hosts;
    else if (desc->id == ORR_MSG_voter_add)
        snprintf(region.voter,
                 sizeof region.voter,
                 "%s %s %s",
                 add->host.ptr,
                 add->address.ptr,
                 add->endpoint.ptr);
    else
        snprintf(region.voter, sizeof region.voter, "%s", gone->host.ptr);
    put(corr, orr_msg_desc_ack(), &(struct orr_msg_ack){0});
}

static void answer_of_host(uint64_t corr,
                           unsigned host,
                           const char *path,
                           const struct orr_msg_desc *desc,
                           const void *msg)
{
    if (region.is_hung[host])
        return;
    if (strcmp(path, "/system") == 0) {
        put(corr, orr_msg_desc_pong(), &(struct orr_msg_pong){0});
    } else if (strcmp(path, "/edge/ledger") == 0) {
        answer_ledger(corr, host, desc, msg);
    } else {
        region.asked[host]++;
        if (host == region.leader || desc->id == ORR_MSG_region_info_get)
            answer(corr, desc, msg);
        else
            put_failed(corr, ORR_ENOTLEADER, "another host leads this region");
    }
}

static void meet_fate(void)
{
    unsigned old = region.leader;
    if (region.fate_in == 0 || --region.fate_in)
        return;
    region.leader = region.told = (old + 1) % region.n_hosts;
    region.is_gone[old] = region.fate == FATE_DIES;
    region.is_hung[old] = region.fate == FATE_HANGS;
    if (region.fate == FATE_STEPS_DOWN)
        put_failed(wait_corr, ORR_EGONE, "the receiver has stopped");
}

enum orr_err orr_client_send(struct orr_client *client,
                             const char *path,
                             const struct orr_msg_desc *desc,
                             const void *msg,
                             uint64_t timeout_ms,
                             uint64_t *ret_corr,
                             struct orr_error *err)
{
    (void)timeout_ms;
    if (region.is_gone[client->host])
        return orr_fail(err, ORR_EUNREACH, "the host went away");
    *ret_corr = ++last_corr;
    if (strcmp(path, "/edge/ledger") != 0 && strcmp(path, "/edge/softstate") != 0) {
        snprintf(region.path, sizeof region.path, "%s", path);
        region.n_requests++;
    }
    if (region.n_hosts)
        answer_of_host(*ret_corr, client->host, path, desc, msg);
    else if (strcmp(path, "/edge/ledger") == 0)
        put_failed(*ret_corr, ORR_EGONE, "no such actor");
    else
        answer(*ret_corr, desc, msg);
    return ORR_OK;
}

enum orr_err orr_client_receive(struct orr_client *client,
                                uint64_t timeout_ms,
                                struct orr_answer *ret_answer,
                                struct orr_error *err)
{
    free(current);
    current = NULL;
    if (n_queue == 0)
        meet_fate();
    if (region.is_gone[client->host])
        return orr_fail(err, ORR_EUNREACH, "the host went away");
    if (n_queue == 0) {
        usleep((useconds_t)(timeout_ms < 20 ? timeout_ms : 20) * 1000);
        return orr_fail(err, ORR_ETIMEOUT, "no answer");
    }
    current = queue[0].msg;
    *ret_answer = (struct orr_answer){queue[0].desc, current, queue[0].corr};
    memmove(queue, queue + 1, --n_queue * sizeof queue[0]);
    return ORR_OK;
}

enum orr_err orr_client_ask(struct orr_client *client,
                            const char *path,
                            const struct orr_msg_desc *desc,
                            const void *msg,
                            uint64_t timeout_ms,
                            struct orr_answer *ret_answer,
                            struct orr_error *err)
{
    uint64_t corr;
    enum orr_err rc = orr_client_send(client, path, desc, msg, timeout_ms, &corr, err);
    return rc == ORR_OK ? orr_client_receive(client, timeout_ms, ret_answer, err) : rc;
}

void region_start(void)
{
    region = (struct region){.log_generation = 1, .first_seq = 1, .last_seq = 3};
}

void region_stop(void)
{
    while (n_queue)
        free(queue[--n_queue].msg);
    free(current);
    current = NULL;
}
