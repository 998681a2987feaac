/* SPDX-License-Identifier: Apache-2.0
 * coop.c - a program that saves and loads its own state (orrery/rank.h).
 *
 * It is a part like NCCL's and CUDA's: at a cut, the thread that is parked in a point writes what was registered into memory: a
 * header, a table of names, the bytes.  That is before the other parts stop, so that callbacks may copy from devices.  Then it
 * goes into the part's piece of the arena.  The piece is the arena's last; its last 16 bytes say where it begins, so that a
 * program that starts anew finds it whatever other parts have put before it.
 */
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core.h"
#include "orrery/rank.h"

enum { ALIGN = 64, WELCOME_MS = 10000 };

struct saved_entry {
    char name[ORR_RANK_NAME_MAX];
    uint64_t at, bytes; /* from the piece's begin */
};

struct saved {
    uint64_t magic;
    uint64_t n;
    struct saved_entry entries[];
};

struct saved_tail {
    uint64_t bytes; /* of the piece */
    uint64_t magic;
};

struct state {
    char name[ORR_RANK_NAME_MAX];
    void *at;     /* borrowed: the program's; NULL: callbacks */
    size_t bytes; /* of the region, or what callbacks.bytes said last */
    struct orr_rank_callbacks callbacks;
};

static struct {
    struct state states
        [ORR_RANK_STATES_MAX]; /* the program's thread, and the link's while that is parked */
    uint32_t n;
    int restored; /* 2: not asked yet */
    int saved_fd; /* owned; -1: none.  Under orri_core.lock */
    struct orri_clock *world;
} self = {.restored = 2, .saved_fd = -1};

static uint64_t align(uint64_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* ---- save: called by the parked thread ---------------------------------------------------- */

static uint64_t find_sizes(void)
{
    uint64_t total = align(sizeof(struct saved) + self.n * sizeof(struct saved_entry)) +
                     sizeof(struct saved_tail);
    for (uint32_t i = 0; i < self.n; i++) {
        struct state *s = &self.states[i];
        if (!s->at)
            s->bytes = s->callbacks.bytes(s->callbacks.arg);
        total += align(s->bytes);
    }
    return total;
}

/* The name of a state that could not be saved; NULL: all were. */
static const char *save_all(struct saved *saved)
{
    uint64_t at = align(sizeof *saved + self.n * sizeof *saved->entries);
    saved->n = self.n;
    for (uint32_t i = 0; i < self.n; i++) {
        struct state *s = &self.states[i];
        struct saved_entry *e = &saved->entries[i];
        uint8_t *to = (uint8_t *)saved + at;
        memcpy(e->name, s->name, sizeof e->name);
        e->at = at;
        e->bytes = s->bytes;
        if (s->at)
            memcpy(to, s->at, s->bytes);
        else if (s->callbacks.save(s->callbacks.arg, to, s->bytes))
            return s->name;
        at += align(s->bytes);
    }
    saved->magic = ORRI_SAVED_MAGIC;
    return NULL;
}

static struct {  /* between prepare and quiesce */
    uint8_t *at; /* owned: mapped */
    uint64_t bytes;
} prepared;

static void drop_prepared(void)
{
    if (prepared.at)
        munmap(prepared.at, prepared.bytes);
    prepared.at = NULL;
    prepared.bytes = 0;
}

struct save {
    const char *failed; /* name of a state; NULL: all were saved */
    bool has_memory;
};

static void prepare_parked(void *arg)
{
    struct save *save = arg;
    uint64_t bytes = find_sizes();
    void *at =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    save->has_memory = at != MAP_FAILED;
    if (!save->has_memory)
        return;
    prepared.at = at;
    prepared.bytes = bytes;
    save->failed = save_all(at);
}

static enum orr_err coop_prepare(uint64_t deadline_ms, struct orr_error *err)
{
    struct save save = {.failed = NULL};
    drop_prepared(); /* of a stop that came to nothing */
    if (!orri_gate_serve(prepare_parked, &save, deadline_ms))
        return orr_fail(
            err, ORR_ETIMEOUT, "the program did not save its state in its point");
    if (!save.has_memory)
        return orr_fail(err, ORR_ENOMEM, "no memory for the program's saved state");
    return save.failed
               ? orr_fail(err, ORR_EIO, "the program failed to save `%s`", save.failed)
               : ORR_OK;
}

static uint64_t coop_arena_bytes(void)
{
    return prepared.bytes;
}

static enum orr_err
coop_quiesce(struct orri_arena *piece, uint64_t deadline_ms, struct orr_error *err)
{
    const struct saved_tail tail = {piece->bytes, ORRI_SAVED_MAGIC};
    (void)deadline_ms;
    if (!piece->at || piece->bytes < prepared.bytes)
        return orr_fail(err, ORR_ESTATE, "the program has not saved its state");
    memcpy(piece->at, prepared.at, prepared.bytes);
    memcpy(piece->at + piece->bytes - sizeof tail, &tail, sizeof tail);
    drop_prepared();
    return ORR_OK;
}

/* The same process goes on: it has its state. */
static enum orr_err coop_resume(const struct orri_arena *piece,
                                const char *device,
                                uint64_t deadline_ms,
                                struct orr_error *err)
{
    (void)piece, (void)device, (void)deadline_ms, (void)err;
    return ORR_OK;
}

static const struct orri_part coop_part = {
    .name = "cooperative",
    .prepare = coop_prepare,
    .arena_bytes = coop_arena_bytes,
    .quiesce = coop_quiesce,
    .resume = coop_resume,
};

/* ---- load --------------------------------------------------------------------------------- */

void orri_coop_take_state(int *take_fd)
{
    if (*take_fd < 0)
        return;
    pthread_mutex_lock(&orri_core.lock);
    if (self.saved_fd < 0) {
        self.saved_fd = *take_fd;
        *take_fd = -1;
    }
    pthread_mutex_unlock(&orri_core.lock);
}

static const struct saved *find_saved(const uint8_t *arena, uint64_t bytes)
{
    struct saved_tail tail;
    if (bytes < sizeof tail)
        return NULL;
    memcpy(&tail, arena + bytes - sizeof tail, sizeof tail);
    if (tail.magic != ORRI_SAVED_MAGIC || tail.bytes > bytes || tail.bytes % ALIGN ||
        (bytes - tail.bytes) % ALIGN || tail.bytes < sizeof(struct saved) + sizeof tail)
        return NULL;
    const struct saved *saved = (const struct saved *)(arena + bytes - tail.bytes);
    uint64_t room = (tail.bytes - sizeof *saved - sizeof tail) / sizeof *saved->entries;
    if (saved->magic != ORRI_SAVED_MAGIC || saved->n > room)
        return NULL;
    for (uint64_t i = 0; i < saved->n; i++)
        if (saved->entries[i].at > tail.bytes ||
            saved->entries[i].bytes > tail.bytes - saved->entries[i].at)
            return NULL;
    return saved;
}

static bool load_one(struct state *s, const struct saved *saved)
{
    for (uint64_t i = 0; i < saved->n; i++) {
        const struct saved_entry *e = &saved->entries[i];
        const uint8_t *from = (const uint8_t *)saved + e->at;
        if (strncmp(e->name, s->name, sizeof e->name) != 0)
            continue;
        if (!s->at)
            return s->callbacks.load(s->callbacks.arg, from, e->bytes) == 0;
        if (e->bytes != s->bytes)
            return false;
        memcpy(s->at, from, s->bytes);
        return true;
    }
    return false;
}

static int load_all(int fd)
{
    struct stat st;
    int restored = 1;
    if (fstat(fd, &st) != 0 || st.st_size <= 0)
        return -1;
    size_t bytes = (size_t)st.st_size;
    uint8_t *at = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    const struct saved *saved = at == MAP_FAILED ? NULL : find_saved(at, bytes);
    if (!saved)
        restored = -1;
    for (uint32_t i = 0; i < self.n && restored == 1; i++)
        if (!load_one(&self.states[i], saved))
            restored = -1;
    if (at != MAP_FAILED)
        munmap(at, bytes);
    return restored;
}

/* ---- the program's side ------------------------------------------------------------------- */

static int add_state(const char *name, struct state state)
{
    size_t len = name ? strlen(name) : 0;
    if (len == 0 || len >= sizeof state.name || self.n == ORR_RANK_STATES_MAX)
        return -1;
    for (uint32_t i = 0; i < self.n; i++)
        if (strcmp(self.states[i].name, name) == 0)
            return -1;
    memcpy(state.name, name, len + 1);
    self.states[self.n++] = state;
    if (self.n == 1) {
        orri_gate_set_cooperative(); /* before the first hello, where it is not too late for that */
        orri_part_register(ORRI_PART_COOPERATIVE, &coop_part);
        pthread_mutex_lock(&orri_core.lock);
        orri_core.limits_moved = true;
        pthread_mutex_unlock(&orri_core.lock);
        orri_link_wake();
    }
    return 0;
}

int orr_rank_region(const char *name, void *at, size_t bytes)
{
    return at && bytes ? add_state(name, (struct state){.at = at, .bytes = bytes}) : -1;
}

int orr_rank_state(const char *name, const struct orr_rank_callbacks *callbacks)
{
    return callbacks && callbacks->bytes && callbacks->save && callbacks->load
               ? add_state(name, (struct state){.callbacks = *callbacks})
               : -1;
}

int orr_rank_restored(void)
{
    if (self.restored != 2)
        return self.restored;
    self.restored = 0;
    if (!atomic_load(&orri_core.is_active))
        return 0;
    orri_link_wait_welcome(orri_mono_ms() + WELCOME_MS);
    pthread_mutex_lock(&orri_core.lock);
    int fd = self.saved_fd;
    self.saved_fd = -1;
    pthread_mutex_unlock(&orri_core.lock);
    if (fd >= 0) {
        self.restored = load_all(fd);
        close(fd);
    }
    return self.restored;
}

void orr_rank_point(void)
{
    if (!atomic_load_explicit(&orri_core.is_active, memory_order_acquire))
        return;
    if (!self.world)
        self.world = orri_clock_get(
            ORRI_WORLD_COMM, orri_core.rank, orri_core.world, ORR_CLOCK_COLLECTIVE, 0);
    if (self.world)
        orri_gate_point(self.world);
}
