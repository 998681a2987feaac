/* SPDX-License-Identifier: Apache-2.0
 * test_device_port.c - the device port in a kernel, between a watch over a scripted device and a node actor that
 * writes down what it is told.
 */
#include <pthread.h>
#include <time.h>

#include "orr_test.h"

#include "device_port.h"
#include "system.h"

/* ---- a device whose health is a switch ------------------------------------------------------ */

static _Atomic bool is_well;

static enum orr_err probe(struct orr_device *device,
                          struct orr_device_list *ret_list,
                          struct orr_error *err)
{
    (void)device, (void)err;
    *ret_list = (struct orr_device_list){.n = 1,
                                         .at[0] = {.uuid = "GPU-1",
                                                   .type = "H100",
                                                   .memory_bytes = 80,
                                                   .is_healthy = is_well}};
    if (!is_well)
        strcpy(ret_list->at[0].trouble, "hot");
    return ORR_OK;
}

static struct orr_list_env_var rank_env(struct orr_device *device)
{
    static struct orr_rec_env_var env[1];
    (void)device;
    env[0] = (struct orr_rec_env_var){ORR_LIT("A"), ORR_LIT("b")};
    return (struct orr_list_env_var){env, 1};
}

/* It answers at once, from the asker's own thread; process 13 it cannot suspend. */
static struct {
    orr_device_done_f done;
    void *arg;
    struct orr_device_request last;
} asked;

static void attach(struct orr_device *device, orr_device_done_f done, void *arg)
{
    (void)device;
    asked.done = done;
    asked.arg = arg;
}

static enum orr_err ask(struct orr_device *device,
                        const struct orr_device_request *q,
                        struct orr_error *err)
{
    struct orr_device_result r = {.ticket = q->ticket, .bytes = 4096, .processes = 2};
    (void)device;
    if (q->pid == 14)
        return orr_fail(err, ORR_EBUSY, "too many");
    asked.last = *q;
    if (q->pid == 13) {
        r.code = ORR_ETIMEOUT;
        strcpy(r.text, "it does not stop");
    }
    asked.done(asked.arg, &r);
    return ORR_OK;
}

static const struct orr_device_ops ops = {
    .probe = probe, .rank_env = rank_env, .attach = attach, .ask = ask};

/* ---- the node ------------------------------------------------------------------------------- */

struct node {
    char unused;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t n_found, n_health, n_acks, n_failed, n_used;
    uint64_t bytes;
    uint32_t code, processes;
    char why[64];
    bool is_healthy;
    char uuid[48], trouble[32], env[8];
} told = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

ORR_HANDLER(node, devices_found)
ORR_HANDLER(node, device_health)
ORR_HANDLER(node, ack)
ORR_HANDLER(node, failed)
ORR_HANDLER(node, device_used)
ORR_HANDLER(node, device_done)

static enum orr_err node_on_devices_found(struct orr_ctx *ctx,
                                          struct node *self,
                                          const struct orr_msg_devices_found *msg)
{
    (void)ctx, (void)self;
    pthread_mutex_lock(&told.lock);
    told.n_found += msg->devices.n;
    orr_str_copy(told.uuid, sizeof told.uuid, msg->devices.at[0].uuid);
    orr_str_copy(told.env, sizeof told.env, msg->rank_env.at[0].value);
    told.is_healthy = msg->devices.at[0].is_healthy;
    pthread_cond_signal(&told.changed);
    pthread_mutex_unlock(&told.lock);
    return ORR_OK;
}

static enum orr_err node_on_device_health(struct orr_ctx *ctx,
                                          struct node *self,
                                          const struct orr_msg_device_health *msg)
{
    (void)ctx, (void)self;
    pthread_mutex_lock(&told.lock);
    told.n_health++;
    told.is_healthy = msg->device.is_healthy;
    orr_str_copy(told.trouble, sizeof told.trouble, msg->device.trouble);
    pthread_cond_signal(&told.changed);
    pthread_mutex_unlock(&told.lock);
    return ORR_OK;
}

static enum orr_err
node_on_ack(struct orr_ctx *ctx, struct node *self, const struct orr_msg_ack *msg)
{
    (void)ctx, (void)self, (void)msg;
    pthread_mutex_lock(&told.lock);
    told.n_acks++;
    pthread_cond_signal(&told.changed);
    pthread_mutex_unlock(&told.lock);
    return ORR_OK;
}

static enum orr_err
node_on_failed(struct orr_ctx *ctx, struct node *self, const struct orr_msg_failed *msg)
{
    (void)ctx, (void)self;
    pthread_mutex_lock(&told.lock);
    told.n_failed++;
    told.code = msg->code;
    orr_str_copy(told.why, sizeof told.why, msg->text);
    pthread_cond_signal(&told.changed);
    pthread_mutex_unlock(&told.lock);
    return ORR_OK;
}

static enum orr_err node_on_device_used(struct orr_ctx *ctx,
                                        struct node *self,
                                        const struct orr_msg_device_used *msg)
{
    (void)ctx, (void)self;
    pthread_mutex_lock(&told.lock);
    told.n_used++;
    told.bytes = msg->bytes;
    told.processes = msg->processes;
    pthread_cond_signal(&told.changed);
    pthread_mutex_unlock(&told.lock);
    return ORR_OK;
}

/* From the test: ask the port; the ticket says what. */
static enum orr_err node_on_device_done(struct orr_ctx *ctx,
                                        struct node *self,
                                        const struct orr_msg_device_done *msg)
{
    const struct orr_addr port = orr_addr_named(ORR_LIT("n1"), ORR_LIT("/edge/device"));
    const uint32_t pid = (uint32_t)msg->ticket;
    (void)self;
    if (pid == 0)
        orr_ask(ctx, port, 20000, 0, device_usage, .index = 3);
    else if (pid == 12)
        orr_ask(ctx,
                port,
                20000,
                0,
                device_resume,
                .pid = pid,
                .timeout_ms = 77,
                .from = ORR_LIT("GPU-1"),
                .to = ORR_LIT("GPU-2"));
    else
        orr_ask(
            ctx, port, 20000, 0, device_suspend, .pid = pid, .timeout_ms = 1ull << 40);
    return ORR_OK;
}

static const struct orr_handler node_handlers[] = {
    ORR_ON(node, ack, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(node, failed, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(node, device_used, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(node, device_done, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(node, devices_found, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(node, device_health, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};
static const struct orr_actor_type node_type = {
    .name = "node",
    .state_size = sizeof(struct node),
    .handlers = node_handlers,
    .n_handlers = ORR_ARRAY_SIZE(node_handlers),
};

/* Returns with the lock held. */
static void wait_until_one(const uint32_t *count)
{
    struct timespec until;
    int rc = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    pthread_mutex_lock(&told.lock);
    while (*count == 0 && rc == 0)
        rc = pthread_cond_timedwait(&told.changed, &told.lock, &until);
    assert_int_equal(*count, 1);
}

static void node_is_told_devices_and_their_health(void **state)
{
    (void)state;
    struct orr_system *kernel;
    struct orr_device_watch *watch;
    struct orr_device device = {&ops};
    struct orr_addr addr;
    struct orr_error err;
    is_well = true;
    assert_int_equal(
        orr_system_new(
            &(struct orr_system_config){.host = "n1", .incarnation = 1, .workers = 1},
            &kernel,
            &err),
        ORR_OK);
    assert_int_equal(orr_device_watch_new(&device, 5, &watch, &err), ORR_OK);
    struct orr_device_port_args args = {
        .watch = watch,
        .system = kernel,
        .post = orr_system_post,
        .node = orr_addr_named(ORR_LIT("n1"), ORR_LIT("/node")),
    };
    struct orr_spawn node = {.type = &node_type, .path = "/node"};
    struct orr_spawn port = {
        .type = &orr_device_port_type, .args = &args, .path = "/edge/device"};
    assert_int_equal(orr_system_spawn(kernel, &port, &addr), ORR_OK);
    assert_int_equal(orr_system_start(kernel, &err), ORR_OK);
    /* the node comes later: the watch tries again */
    assert_int_equal(orr_system_spawn(kernel, &node, &addr), ORR_OK);

    wait_until_one(&told.n_found);
    assert_string_equal(told.uuid, "GPU-1");
    assert_string_equal(told.env, "b");
    assert_true(told.is_healthy);
    pthread_mutex_unlock(&told.lock);
    is_well = false;
    wait_until_one(&told.n_health);
    assert_false(told.is_healthy);
    assert_string_equal(told.trouble, "hot");
    pthread_mutex_unlock(&told.lock);

    orr_system_stop(kernel);
    orr_system_free(kernel);
    orr_device_watch_free(watch);
}

static void tell_node(struct orr_system *kernel, uint64_t ticket)
{
    const struct orr_addr node = orr_addr_named(ORR_LIT("n1"), ORR_LIT("/node"));
    const struct orr_msg_device_done msg = {.ticket = ticket};
    assert_int_equal(
        orr_system_post(kernel, node, node, orr_msg_desc_device_done(), &msg), ORR_OK);
}

static void processes_are_suspended_and_answers_come_back(void **state)
{
    (void)state;
    struct orr_system *kernel;
    struct orr_device_watch *watch;
    struct orr_device device = {&ops};
    struct orr_addr addr;
    struct orr_error err;
    is_well = true;
    assert_int_equal(
        orr_system_new(
            &(struct orr_system_config){.host = "n1", .incarnation = 1, .workers = 1},
            &kernel,
            &err),
        ORR_OK);
    assert_int_equal(orr_device_watch_new(&device, 1000, &watch, &err), ORR_OK);
    struct orr_device_port_args args = {
        .watch = watch,
        .device = &device,
        .system = kernel,
        .post = orr_system_post,
        .node = orr_addr_named(ORR_LIT("n1"), ORR_LIT("/node")),
    };
    struct orr_spawn node = {.type = &node_type, .path = "/node"};
    struct orr_spawn port = {
        .type = &orr_device_port_type, .args = &args, .path = "/edge/device"};
    assert_int_equal(orr_system_spawn(kernel, &port, &addr), ORR_OK);
    assert_int_equal(orr_system_spawn(kernel, &node, &addr), ORR_OK);
    assert_int_equal(orr_system_start(kernel, &err), ORR_OK);

    tell_node(kernel, 11);
    wait_until_one(&told.n_acks);
    assert_int_equal(asked.last.op, ORR_DEVICE_SUSPEND);
    assert_int_equal(asked.last.timeout_ms, UINT32_MAX);
    told.n_acks = 0;
    pthread_mutex_unlock(&told.lock);
    tell_node(kernel, 12);
    wait_until_one(&told.n_acks);
    assert_int_equal(asked.last.op, ORR_DEVICE_RESUME);
    assert_string_equal(asked.last.from, "GPU-1");
    assert_string_equal(asked.last.to, "GPU-2");
    pthread_mutex_unlock(&told.lock);
    tell_node(kernel, 13); /* the driver fails */
    wait_until_one(&told.n_failed);
    assert_int_equal(told.code, ORR_ETIMEOUT);
    assert_string_equal(told.why, "it does not stop");
    told.n_failed = 0;
    pthread_mutex_unlock(&told.lock);
    tell_node(kernel, 14); /* it is not even asked */
    wait_until_one(&told.n_failed);
    assert_int_equal(told.code, ORR_EBUSY);
    pthread_mutex_unlock(&told.lock);
    tell_node(kernel, 0);
    wait_until_one(&told.n_used);
    assert_int_equal(asked.last.index, 3);
    assert_int_equal(told.bytes, 4096);
    assert_int_equal(told.processes, 2);
    pthread_mutex_unlock(&told.lock);

    orr_system_stop(kernel);
    orr_system_free(kernel);
    assert_null(asked.done); /* let go */
    orr_device_watch_free(watch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(node_is_told_devices_and_their_health),
        cmocka_unit_test(processes_are_suspended_and_answers_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
