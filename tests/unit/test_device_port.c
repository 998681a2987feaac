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

static const struct orr_device_ops ops = {.probe = probe, .rank_env = rank_env};

/* ---- the node ------------------------------------------------------------------------------- */

struct node {
    char unused;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t n_found, n_health;
    bool is_healthy;
    char uuid[48], trouble[32], env[8];
} told = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

ORR_HANDLER(node, devices_found)
ORR_HANDLER(node, device_health)

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

static const struct orr_handler node_handlers[] = {
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(node_is_told_devices_and_their_health),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
