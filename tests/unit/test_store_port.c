/* SPDX-License-Identifier: Apache-2.0
 * test_store_port.c - two hosts over ZeroMQ, each with its store and /edge/store, and an actor that asks.
 */
#include "orr_test.h"

#include "host/links.h"
#include "store_port.h"
#include "system.h"
#include "transport_zmq.h"

#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MIB = 1 << 20, WAIT_S = 60, ASK_MS = 50000 };

struct host {
    char name[8], endpoint[128], path[96];
    struct orr_system *system;
    struct orr_zmq *zmq;
    struct orr_store *store;
    struct orr_store_pool *pool;
    struct orr_addr asker;
};

static struct host hosts[2];
static char dir[64];

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned n;
    uint16_t msg; /* what answered last */
    uint32_t code;
    char text[512], part[ORR_STORE_HEX_BYTES];
    struct orr_msg_store_kept kept;
    struct orr_msg_store_got got;
    struct orr_msg_store_verified verified;
    struct orr_msg_store_collected collected;
    struct orr_msg_store_stat stat;
    char call_id[64];
} told = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* ---- the asker: passes on what the test posts to it ---- */

struct asker {
    char unused;
};

#define ASKS(message)                                                                  \
    ORR_HANDLER(asker, message)                                                        \
    static enum orr_err asker_on_##message(                                            \
        struct orr_ctx *ctx, struct asker *self, const struct orr_msg_##message *msg)  \
    {                                                                                  \
        const struct orr_addr to = {.host = ctx->self.host,                            \
                                    .slot = orr_hash(ORR_LIT("/edge/store"))};         \
        (void)self;                                                                    \
        ctx->ops->ask(ctx, to, ASK_MS, 1, orr_msg_desc_##message(), msg);              \
        return ORR_OK;                                                                 \
    }
ASKS(store_put)
ASKS(store_get)
ASKS(store_verify)
ASKS(store_gc)
ASKS(store_remove)
ASKS(store_stat_get)
ASKS(store_cancel)

#define TAKES(message, action)                                                         \
    ORR_HANDLER(asker, message)                                                        \
    static enum orr_err asker_on_##message(                                            \
        struct orr_ctx *ctx, struct asker *self, const struct orr_msg_##message *msg)  \
    {                                                                                  \
        (void)ctx, (void)self, (void)msg;                                              \
        pthread_mutex_lock(&told.lock);                                                \
        told.n++;                                                                      \
        told.msg = ORR_MSG_##message;                                                  \
        action;                                                                        \
        pthread_cond_broadcast(&told.changed);                                         \
        pthread_mutex_unlock(&told.lock);                                              \
        return ORR_OK;                                                                 \
    }
TAKES(ack, (void)0)
TAKES(failed, {
    told.code = msg->code;
    orr_str_copy(told.text, sizeof told.text, msg->text);
})
TAKES(store_kept, {
    told.kept = *msg;
    orr_str_copy(told.part, sizeof told.part, msg->part);
})
TAKES(store_got, told.got = *msg)
TAKES(store_verified, {
    told.verified = *msg;
    orr_str_copy(told.text, sizeof told.text, msg->text);
})
TAKES(store_collected, told.collected = *msg)
TAKES(store_stat, {
    told.stat = *msg;
    told.call_id[0] = '\0';
    if (msg->calls.n)
        orr_str_copy(told.call_id, sizeof told.call_id, msg->calls.at[0].id);
})

#define H(message) ORR_ON(asker, message, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE)
static const struct orr_handler handlers[] = {
    H(store_put),
    H(store_get),
    H(store_verify),
    H(store_gc),
    H(store_remove),
    H(store_stat_get),
    H(store_cancel),
    H(ack),
    H(failed),
    H(store_kept),
    H(store_got),
    H(store_verified),
    H(store_collected),
    H(store_stat),
};
static const struct orr_actor_type asker_type = {.name = "asker",
                                                 .state_size = sizeof(struct asker),
                                                 .handlers = handlers,
                                                 .n_handlers =
                                                     ORR_ARRAY_SIZE(handlers)};

static void post(struct host *h, const struct orr_msg_desc *desc, const void *msg)
{
    assert_int_equal(
        orr_system_post(h->system, (struct orr_addr){0}, h->asker, desc, msg), ORR_OK);
}

static void wait_for(unsigned n)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    pthread_mutex_lock(&told.lock);
    int why = 0;
    while (told.n < n && why == 0)
        why = pthread_cond_timedwait(&told.changed, &told.lock, &until);
    pthread_mutex_unlock(&told.lock);
    assert_int_equal(why, 0);
}

/* Post, and wait for one more answer. */
#define ASK(host, name, ...)                                                           \
    do {                                                                               \
        const struct orr_msg_##name msg_ = {__VA_ARGS__};                              \
        const unsigned n_ = told.n;                                                    \
        post((host), orr_msg_desc_##name(), &msg_);                                    \
        wait_for(n_ + 1);                                                              \
    } while (0)
#define ASSERT_TOLD(name)                                                              \
    do {                                                                               \
        if (told.msg != ORR_MSG_##name)                                                \
            fail_msg("message %#x: %u %s", told.msg, told.code, told.text);            \
    } while (0)

/* ---- the hosts ---- */

static void host_spawn(struct host *h,
                       const struct orr_actor_type *type,
                       const void *args,
                       const char *path,
                       struct orr_addr *ret_addr)
{
    const struct orr_spawn spawn = {
        .type = type, .args = args, .path = path, .restart = ORR_PERMANENT};
    assert_int_equal(orr_system_spawn(h->system, &spawn, ret_addr), ORR_OK);
}

static void host_start(struct host *h, unsigned index, uint64_t bytes_per_s)
{
    struct orr_error err;
    struct orr_addr addr;
    *h = (struct host){.system = NULL};
    snprintf(h->name, sizeof h->name, "h%u", index);
    snprintf(h->path, sizeof h->path, "%s/%s", dir, h->name);
    snprintf(h->endpoint, sizeof h->endpoint, "ipc://%s/%s.sock", dir, h->name);
    const struct orr_system_config system = {
        .host = h->name, .incarnation = 1, .workers = 1, .seed = index + 1};
    assert_int_equal(orr_system_new(&system, &h->system, &err), ORR_OK);
    const struct orr_zmq_config zmq = {
        .system = h->system, .host = h->name, .incarnation = 1, .build = "test"};
    assert_int_equal(orr_zmq_new(&zmq, &h->zmq, &err), ORR_OK);
    assert_int_equal(orr_zmq_listen(h->zmq, h->endpoint, NULL, &err), ORR_OK);
    orr_system_set_transport(h->system, orr_zmq_transport(h->zmq));
    const struct orr_store_config store = {.path = h->path, .threads = 2};
    assert_int_equal(orr_store_open(&store, &h->store, &err), ORR_OK);
    const struct orr_store_pool_config pool = {
        .store = h->store,
        .system = h->system,
        .post = orr_system_post,
        .reply = orr_system_reply,
        .links = orr_addr_named(orr_str(h->name), ORR_LIT("/edge/links")),
        .path = h->path,
        .bytes_per_s = bytes_per_s};
    assert_int_equal(orr_store_pool_new(&pool, &h->pool), ORR_OK);
    host_spawn(
        h, &host_links_type, &(struct host_links_args){h->zmq}, "/edge/links", &addr);
    host_spawn(h,
               &orr_store_port_type,
               &(struct orr_store_port_args){h->pool},
               "/edge/store",
               &addr);
    host_spawn(h, &asker_type, NULL, "/asker", &h->asker);
    assert_int_equal(orr_system_start(h->system, &err), ORR_OK);
    assert_int_equal(orr_zmq_start(h->zmq, &err), ORR_OK);
}

static void host_stop(struct host *h)
{
    if (!h->system)
        return;
    orr_system_stop(h->system);
    orr_zmq_stop(h->zmq);
    orr_store_pool_free(h->pool);
    orr_store_close(h->store);
    orr_zmq_free(h->zmq);
    orr_system_free(h->system);
    h->system = NULL;
}

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/orr-port-XXXXXX");
    assert_non_null(mkdtemp(dir));
    host_start(&hosts[0], 0, 0);
    host_start(&hosts[1], 1, 0);
    return 0;
}

static int
remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static int teardown(void **state)
{
    (void)state;
    host_stop(&hosts[0]);
    host_stop(&hosts[1]);
    return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- content ---- */

static const char *path_of(const char *name)
{
    static char path[4][160];
    static unsigned turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static uint8_t *random_bytes(size_t len, uint64_t seed)
{
    uint8_t *data = malloc(len);
    uint64_t x = seed * 2654435761u + 1;
    for (size_t i = 0; i + 8 <= len; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(data + i, &x, 8);
    }
    return data;
}

static void write_file(const char *path, const uint8_t *data, size_t len)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0 && write(fd, data, len) == (ssize_t)len);
    close(fd);
}

static void assert_file(const char *path, const uint8_t *data, size_t len)
{
    uint8_t *got = malloc(len + 1);
    const int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(read(fd, got, len + 1), (ssize_t)len);
    assert_memory_equal(got, data, len);
    close(fd);
    free(got);
}

/* An image of two files in a folder, and memory beside it. */
static void put_rank(struct host *h, const uint8_t *data, size_t len)
{
    assert_int_equal(mkdir(path_of("image"), 0700), 0);
    write_file(path_of("image/pages-1.img"), data, len);
    write_file(path_of("image/core-1.img"), data + 100, 5000);
    write_file(path_of("arena"), data + 8, len - 8);
    const struct orr_rec_store_file file = {.name = ORR_LIT("arena"),
                                            .path = orr_str(path_of("arena")),
                                            .kind = ORR_STORE_MEMORY};
    ASK(h,
        store_put,
        .id = ORR_LIT("put"),
        .files = {&file, 1},
        .dir = orr_str(path_of("image")));
    ASSERT_TOLD(store_kept);
}

static void get_rank(struct host *h, bool has_peer)
{
    const struct orr_rec_store_file file = {.name = ORR_LIT("arena"),
                                            .path = orr_str(path_of("arena.back"))};
    const struct orr_rec_store_peer peers[] = {
        {ORR_LIT("nobody"), {"", 0}},
        {orr_str(hosts[0].name), orr_str(hosts[0].endpoint)}};
    ASK(h,
        store_get,
        .id = ORR_LIT("get"),
        .part = orr_str(told.part),
        .files = {&file, 1},
        .dir = orr_str(path_of("back")),
        .peers = {peers + 1, has_peer ? 1 : 0});
}

static void assert_rank(const uint8_t *data, size_t len)
{
    assert_file(path_of("back/pages-1.img"), data, len);
    assert_file(path_of("back/core-1.img"), data + 100, 5000);
    assert_file(path_of("arena.back"), data + 8, len - 8);
    assert_int_equal(access(path_of("back/arena"), F_OK), -1);
}

static struct orr_store_hash part_of(void)
{
    struct orr_store_hash hash;
    assert_int_equal(orr_store_parse(orr_str(told.part), &hash), ORR_OK);
    return hash;
}

/* ---- tests ---- */

static void a_folder_and_memory_become_a_part_and_come_back(void **state)
{
    (void)state;
    uint8_t *data = random_bytes(4 * MIB, 1);
    put_rank(&hosts[0], data, 4 * MIB);
    assert_int_equal(told.kept.bytes, 8 * MIB - 8 + 5000);
    assert_true(told.kept.new_bytes > 4 * MIB);
    get_rank(&hosts[0], false);
    ASSERT_TOLD(store_got);
    assert_rank(data, 4 * MIB);
    ASK(&hosts[0], store_verify, .part = orr_str(told.part));
    ASSERT_TOLD(store_verified);
    assert_int_equal(told.verified.files, 3);
    assert_int_equal(told.verified.damages, 0);
    free(data);
}

static void another_host_fetches_only_what_it_lacks(void **state)
{
    (void)state;
    uint8_t *data = random_bytes(6 * MIB, 2);
    struct orr_error err;
    struct orr_store_put_stats half;
    put_rank(&hosts[0], data, 6 * MIB);
    const uint64_t chunks = told.kept.new_chunks;
    /* The other has the arena's chunks already. */
    const struct orr_store_file file = {
        .name = "x", .path = path_of("arena"), .kind = ORR_STORE_MEMORY};
    assert_int_equal(orr_store_put(hosts[1].store, &file, 1, NULL, &half, &err),
                     ORR_OK);
    get_rank(&hosts[1], false);
    ASSERT_TOLD(failed);
    assert_int_equal(told.code, ORR_ENOENT);
    get_rank(&hosts[1], true);
    ASSERT_TOLD(store_got);
    assert_rank(data, 6 * MIB);
    assert_int_equal(told.got.fetched_chunks, chunks - half.new_chunks);
    assert_true(told.got.fetched_bytes < 7 * MIB);
    get_rank(&hosts[1], true); /* all is here now */
    ASSERT_TOLD(store_got);
    assert_int_equal(told.got.fetched_bytes, 0);
    free(data);
}

/* Damage one chunk file in the second half of the folder's names. */
static void damage(struct host *h)
{
    char command[256];
    snprintf(
        command,
        sizeof command,
        "f=$(find %s/chunks -type f -size +300k | sort | tail -n 1) && printf X | dd "
        "of=$f bs=1 seek=5000 conv=notrunc status=none",
        h->path);
    assert_int_equal(system(command), 0);
}

static void damage_is_mended_from_a_peer(void **state)
{
    (void)state;
    uint8_t *data = random_bytes(4 * MIB, 3);
    put_rank(&hosts[0], data, 4 * MIB);
    get_rank(&hosts[1], true);
    ASSERT_TOLD(store_got);
    damage(&hosts[1]);
    ASK(&hosts[1], store_verify, .part = orr_str(told.part));
    ASSERT_TOLD(store_verified);
    assert_int_equal(told.verified.damages, 1);
    assert_non_null(strstr(told.text, "damaged"));
    get_rank(&hosts[1], true);
    ASSERT_TOLD(store_got);
    assert_int_equal(told.got.fetched_chunks, 1);
    assert_rank(data, 4 * MIB);
    /* And when nobody looked before. */
    damage(&hosts[1]);
    get_rank(&hosts[1], true);
    ASSERT_TOLD(store_got);
    assert_int_equal(told.got.fetched_chunks, 1);
    assert_rank(data, 4 * MIB);
    /* A part that is cut short. */
    char path[256];
    snprintf(path, sizeof path, "%s/parts/%s", hosts[1].path, told.part);
    assert_int_equal(truncate(path, 100), 0);
    get_rank(&hosts[1], true);
    ASSERT_TOLD(store_got);
    assert_rank(data, 4 * MIB);
    /* The only one that has it has it damaged. */
    damage(&hosts[0]);
    damage(&hosts[1]);
    get_rank(&hosts[1], true);
    ASSERT_TOLD(failed);
    free(data);
}

static void a_transfer_that_broke_goes_on(void **state)
{
    (void)state;
    const size_t len = 16 * MIB;
    uint8_t *data = random_bytes(len, 4);
    struct orr_store_usage usage;
    struct orr_error err;
    put_rank(&hosts[0], data, len);
    host_stop(&hosts[1]);
    host_start(&hosts[1], 1, 8 * MIB); /* slow, so that it is under way for a while */
    const struct orr_rec_store_peer peer = {orr_str(hosts[0].name),
                                            orr_str(hosts[0].endpoint)};
    const struct orr_msg_store_get get = {
        .id = ORR_LIT("slow"), .part = orr_str(told.part), .peers = {&peer, 1}};
    const unsigned n = told.n;
    post(&hosts[1], orr_msg_desc_store_get(), &get);
    do { /* until some of it has come */
        assert_int_equal(orr_store_stat(hosts[1].store, &usage, &err), ORR_OK);
        assert_int_equal(told.n, n);
    } while (usage.bytes < 4 * MIB);
    host_stop(&hosts[0]);
    host_start(&hosts[0], 0, 0);
    ASK(&hosts[1], store_cancel, .id = ORR_LIT("slow"));
    wait_for(n + 2);
    const struct orr_store_hash part = part_of();
    assert_int_equal(orr_store_verify(hosts[1].store, &part, NULL, NULL, &err),
                     ORR_ENOENT);
    host_stop(&hosts[1]);
    host_start(&hosts[1], 1, 0);
    get_rank(&hosts[1], true);
    ASSERT_TOLD(store_got);
    assert_rank(data, len);
    assert_true(told.got.fetched_bytes < 2 * len - 4 * MIB + 64 * 1024);
    free(data);
}

#define LIST_OF(n) .region = ORR_LIT("r"), .epoch = 1, .term = 1, .round = (n)
static void roots_are_kept_and_others_collected(void **state)
{
    (void)state;
    uint8_t *data = random_bytes(2 * MIB, 5);
    put_rank(&hosts[0], data, 2 * MIB);
    const struct orr_rec_text root = {orr_str(told.part)};
    ASK(&hosts[0], store_gc, .roots = {&root, 1}, .grace_ms = 1, LIST_OF(1));
    ASSERT_TOLD(store_collected);
    assert_int_equal(told.collected.parts_kept, 1);
    assert_int_equal(told.collected.chunks_removed, 0);
    ASK(&hosts[0], store_gc, LIST_OF(2)); /* young: for an hour */
    assert_int_equal(told.collected.parts_removed, 0);
    ASK(&hosts[0], store_remove, .part = orr_str(told.part));
    ASSERT_TOLD(ack);
    ASK(&hosts[0], store_gc, .grace_ms = 1, LIST_OF(3));
    ASSERT_TOLD(store_collected);
    assert_true(told.collected.chunks_removed > 0);
    ASK(&hosts[0], store_stat_get, .end_ = 0);
    ASSERT_TOLD(store_stat);
    assert_int_equal(told.stat.bytes, 0);
    free(data);
}

/* Each is later than the one before it; a host that shares the store passes the same one on. */
static void only_a_newer_list_of_the_same_ledger_is_taken(void **state)
{
    (void)state;
    uint8_t *data = random_bytes(MIB, 6);
    put_rank(&hosts[0], data, MIB);
    char part[80];
    snprintf(part, sizeof part, "%s", told.part);
    const struct orr_rec_text root = {orr_str(part)};
    ASK(&hosts[0], store_gc, .roots = {&root, 1}, .grace_ms = 1, LIST_OF(5));
    ASSERT_TOLD(store_collected);
    ASK(&hosts[0], store_gc, .grace_ms = 1, LIST_OF(5)); /* once only */
    ASSERT_TOLD(store_collected);
    assert_int_equal(told.collected.parts_removed, 0);
    ASK(&hosts[0], store_gc, .grace_ms = 1, LIST_OF(4));
    assert_int_equal(told.code, ORR_ESTALE);
    ASK(&hosts[0],
        store_gc,
        .grace_ms = 1,
        .region = ORR_LIT("r"),
        .epoch = 1,
        .round = 99); /* a deposed leader */
    assert_int_equal(told.code, ORR_ESTALE);
    ASK(&hosts[0],
        store_gc,
        .grace_ms = 1,
        .region = ORR_LIT("r"),
        .epoch = 2,
        .term = 9,
        .round = 1);
    assert_int_equal(told.code, ORR_ESTALE);
    ASK(&hosts[0],
        store_gc,
        .grace_ms = 1,
        .region = ORR_LIT("other"),
        .epoch = 1,
        .term = 9,
        .round = 1);
    assert_int_equal(told.code, ORR_EPERM);
    ASK(&hosts[0], store_gc, .grace_ms = 1);
    assert_int_equal(told.code, ORR_EINVAL);
    ASK(&hosts[0], store_verify, .part = orr_str(part));
    ASSERT_TOLD(store_verified);
    ASK(&hosts[0], store_gc, .grace_ms = 1, LIST_OF(6));
    ASSERT_TOLD(store_collected);
    assert_int_equal(told.collected.parts_removed, 1);
    free(data);
}

static void what_is_wrong_is_refused_with_words(void **state)
{
    (void)state;
    ASK(&hosts[0], store_get, .part = ORR_LIT("abc"));
    ASSERT_TOLD(failed);
    assert_int_equal(told.code, ORR_EINVAL);
    ASK(&hosts[0], store_put, .dir = ORR_LIT("/nonexistent"));
    ASSERT_TOLD(failed);
    assert_non_null(strstr(told.text, "/nonexistent"));
    assert_int_equal(mkdir(path_of("deep"), 0700), 0);
    assert_int_equal(mkdir(path_of("deep/er"), 0700), 0);
    ASK(&hosts[0], store_put, .dir = orr_str(path_of("deep")));
    ASSERT_TOLD(failed);
    assert_non_null(strstr(told.text, "er is no regular file"));
    ASK(&hosts[0], store_cancel, .id = ORR_LIT("nothing"));
    ASSERT_TOLD(failed);
    assert_int_equal(told.code, ORR_ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(a_folder_and_memory_become_a_part_and_come_back),
        T(another_host_fetches_only_what_it_lacks),
        T(damage_is_mended_from_a_peer),
        T(a_transfer_that_broke_goes_on),
        T(roots_are_kept_and_others_collected),
        T(only_a_newer_list_of_the_same_ledger_is_taken),
        T(what_is_wrong_is_refused_with_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
