/* SPDX-License-Identifier: Apache-2.0
 * test_turns.c - ranks that take turns with memory that they share (gateways/rank/cuda/share/board.h): a machine of frames, a backup
 * and a few ranks that write, switch, come and die at random steps, against an array for each rank of what it wrote.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "board.h"
#include "orr_test.h"

enum {
    RANKS = 5,
    SLOTS = 48, /* that a rank may have, in groups of up to 4 */
    GROUP = 4,
    SEEN = 256, /* where slots come to lie */
    BYTES = 64,
    CONTENTS = 160,
    KILLS = 100,
    WORLDS = 6, /* ORRERY_TURNS_WORLDS: more */
    STEPS = 5000,
};

enum phase { ABSENT, IDLE, WAITING, ENTERING, RUNNING, LEAVING, COPIED };

struct rank {
    enum phase phase;
    uint32_t me;
    uint32_t at; /* the slot at hand, while it enters or leaves */
    bool has[SEEN];
    uint32_t n_groups, n_slots;
    struct {
        uint32_t first, n;
    } group[SLOTS];
    uint32_t asked[SEEN];
    bool copies[SEEN];
    uint8_t wrote[SEEN][BYTES]; /* the model */
    uint8_t own[SEEN][BYTES];   /* private memory */
};

/* In memory that outlives a process that dies at its work. */
static struct world {
    struct rank ranks[RANKS];
    uint8_t frame[SEEN][BYTES];
    uint8_t backup[CONTENTS + ORRI_CONTENT][BYTES];
    uint64_t seed;
    uint32_t at_work; /* the rank whose step it is */
    unsigned n_switches, n_deaths, n_copied_in, n_private;
} * w;
static struct orri_board *board;

static uint32_t pick(uint32_t n)
{
    w->seed = w->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(w->seed >> 33) % n;
}

static struct orri_hash hash_of(const uint8_t *bytes)
{
    struct orri_hash hash;
    for (unsigned l = 0; l < 4; l++) {
        hash.lane[l] = UINT64_C(0xcbf29ce484222325) + l;
        for (int i = 0; i < BYTES; i++)
            hash.lane[l] = (hash.lane[l] ^ bytes[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

/* Few values, so that w->ranks come together often; 0 is zeros. */
static void fill(uint8_t *bytes, uint32_t value)
{
    for (int i = 0; i < BYTES; i++)
        bytes[i] = (uint8_t)(value * (unsigned)(i + 1));
}

static void *shared(size_t bytes)
{
    void *at =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(at != MAP_FAILED);
    return at;
}

static int make_world(void **state)
{
    (void)state;
    w = shared(sizeof *w);
    board = shared(orri_board_bytes(CONTENTS));
    return 0;
}

static void start(uint64_t with)
{
    static const uint8_t zeros[BYTES];
    struct orri_hash zero = hash_of(zeros);
    w->seed = with;
    memset(board, 0, orri_board_bytes(CONTENTS));
    orri_board_init(board, CONTENTS, &zero);
    memset(w->ranks, 0, sizeof w->ranks);
}

/* ---- the machine --------------------------------------------------------------------------------- */

static uint8_t *memory_of(struct rank *r, uint32_t slot)
{
    return board->view[r->me][slot] == ORRI_PRIVATE ? r->own[slot] : w->frame[slot];
}

/* As the device's library does: a w->frame that nobody has is made; then what it lacks is filled in. */
static void enter_slot(struct rank *r, uint32_t s)
{
    if (orri_slot_holders(board, s) == 0)
        fill(w->frame[s], 1 + pick(250)); /* a new one holds anything */
    orri_slot_hold(board, r->me, s, true);
    uint32_t what = orri_enter_slot(board, r->me, s);
    if (what == ORRI_ZERO)
        memset(w->frame[s], 0, BYTES);
    else if (what != ORRI_NOTHING) {
        memcpy(w->frame[s], w->backup[what], BYTES);
        w->n_copied_in++;
    }
    if (orri_enter_is_apart(board, r->me, s) && pick(2)) {
        memcpy(r->own[s], w->frame[s], BYTES);
        orri_slot_set_private(board, r->me, s, true);
        orri_slot_hold(board, r->me, s, false);
        w->n_private++;
    }
}

static void add_group(struct rank *r)
{
    uint32_t n = 1 + pick(GROUP), first = 0;
    if (r->n_slots + n > SLOTS || r->n_groups == SLOTS ||
        !orri_slots_add(board, r->me, n, n, &first))
        return;
    assert_true(first + n <= SEEN);
    r->group[r->n_groups].first = first;
    r->group[r->n_groups++].n = n;
    r->n_slots += n;
    for (uint32_t s = first; s < first + n; s++) {
        assert_false(r->has[s]);
        r->has[s] = true;
        memset(r->wrote[s], 0, BYTES);
        enter_slot(r, s);
    }
}

static void drop_group(struct rank *r)
{
    if (r->n_groups == 0)
        return;
    uint32_t g = pick(r->n_groups), first = r->group[g].first, n = r->group[g].n;
    orri_slots_drop(board, r->me, first);
    for (uint32_t s = first; s < first + n; s++)
        r->has[s] = false;
    r->group[g] = r->group[--r->n_groups];
    r->n_slots -= n;
}

static void make_common(struct rank *r)
{
    for (uint32_t s = 0; s < SEEN; s++) {
        if (!r->has[s] || board->view[r->me][s] != ORRI_PRIVATE)
            continue;
        orri_slot_set_private(board, r->me, s, false);
        orri_slot_hold(board, r->me, s, true);
        orri_enter_slot(board, r->me, s);
        memcpy(w->frame[s], r->own[s], BYTES);
    }
}

static void run_a_little(struct rank *r)
{
    uint32_t what = pick(24);
    if (what == 0)
        add_group(r);
    else if (what == 1)
        drop_group(r);
    else if (what == 2 && pick(4) == 0)
        make_common(r);
    for (uint32_t s = 0; s < SEEN; s++)
        if (r->has[s] && pick(3) == 0) {
            /* one in three slots is nobody else's */
            fill(r->wrote[s], s % 3 ? pick(6) : 6 + pick(240));
            memcpy(memory_of(r, s), r->wrote[s], BYTES);
        }
}

static bool next_common(struct rank *r)
{
    while (r->at < SEEN && !(r->has[r->at] && orri_slot_is_common(board, r->me, r->at)))
        r->at++;
    return r->at < SEEN;
}

static void ask_one(struct rank *r)
{
    struct orri_hash hash = hash_of(w->frame[r->at]);
    uint32_t s = r->at++;
    r->asked[s] = orri_leave_ask(board, r->me, s, &hash, &r->copies[s]);
    assert_int_not_equal(r->asked[s], 0); /* orri_slots_add has seen to it */
    if (r->copies[s])
        memset(w->backup[r->asked[s]], 0xee, BYTES); /* not there yet */
}

static void copy_all(struct rank *r)
{
    for (uint32_t s = 0; s < SEEN; s++)
        if (r->has[s] && orri_slot_is_common(board, r->me, s) && r->copies[s])
            memcpy(w->backup[r->asked[s]], w->frame[s], BYTES);
}

static void begin(struct rank *r, enum phase phase)
{
    r->phase = phase;
    r->at = 0;
}

static void leave_one(struct rank *r)
{
    if (next_common(r)) {
        uint32_t s = r->at++;
        orri_leave_slot(board, r->me, s, r->asked[s]);
        return;
    }
    orri_leave_end(board, r->me);
    orri_turn_pass(board, r->me);
    w->n_switches++;
    begin(r, pick(3) ? WAITING : IDLE);
    if (r->phase == WAITING)
        orri_turn_want(board, r->me);
}

static void step(struct rank *r, uint32_t number)
{
    switch (r->phase) {
    case ABSENT:
        memset(r, 0, sizeof *r);
        if (orri_board_join(board, number, 0, &r->me))
            begin(r, IDLE);
        return;
    case IDLE:
        orri_turn_want(board, r->me);
        begin(r, WAITING);
        return;
    case WAITING:
        if (orri_turn_take(board, r->me))
            begin(r, ENTERING);
        return;
    case ENTERING:
        if (next_common(r))
            enter_slot(r, r->at++);
        else
            begin(r, RUNNING);
        return;
    case RUNNING:
        run_a_little(r);
        if (pick(4) == 0 && orri_turn_is_wanted(board, r->me))
            begin(r, LEAVING);
        return;
    case LEAVING:
        if (next_common(r)) {
            ask_one(r);
        } else if (pick(8) == 0) { /* the copy fails: it keeps the turn */
            orri_leave_not(board, r->me);
            begin(r, RUNNING);
        } else {
            copy_all(r);
            begin(r, COPIED);
        }
        return;
    case COPIED:
        leave_one(r);
        return;
    }
}

static uint64_t alive_but(uint32_t member)
{
    return orri_board_members(board) & ~((uint64_t)1 << member);
}

/* Whatever it was doing; somebody else finds out at some time. */
static void die(struct rank *r)
{
    uint64_t alive = alive_but(r->me);
    if (board->holder == r->me + 1) /* its kernels end anywhere */
        for (uint32_t s = 0; s < SEEN; s++)
            if (r->has[s] && (r->phase == RUNNING || r->phase == ENTERING) &&
                (r->phase == RUNNING || s <= r->at) && pick(2) &&
                board->slot[s].holders >> r->me & 1 && board->slot[s].tag == 0)
                fill(w->frame[s], pick(250));
    board->is_torn = (uint32_t)pick(2);
    orri_board_repair(board, alive);
    orri_board_end(board);
    w->n_deaths++;
    memset(r, 0, sizeof *r);
}

/* ---- what must hold ------------------------------------------------------------------------------ */

static void check_rank(struct rank *r)
{
    const bool has_turn = board->holder == r->me + 1;
    for (uint32_t s = 0; s < SEEN; s++) {
        uint32_t view = board->view[r->me][s];
        const uint8_t zeros[BYTES] = {0};
        if (!r->has[s]) {
            assert_int_equal(view, ORRI_NOTHING);
            continue;
        }
        if (view == ORRI_PRIVATE)
            assert_memory_equal(r->own[s], r->wrote[s], BYTES);
        else if (has_turn && r->phase >= RUNNING)
            assert_memory_equal(w->frame[s], r->wrote[s], BYTES);
        else if (view == ORRI_ZERO)
            assert_memory_equal(zeros, r->wrote[s], BYTES);
        else
            assert_memory_equal(w->backup[view], r->wrote[s], BYTES);
    }
}

static void check(void)
{
    const uint8_t zeros[BYTES] = {0};
    const char *wrong = orri_board_check(board);
    if (wrong)
        fail_msg("%s", wrong);
    for (uint32_t i = 0; i < RANKS; i++)
        if (w->ranks[i].phase != ABSENT)
            check_rank(&w->ranks[i]);
    for (uint32_t s = 0; s < SEEN; s++) {
        uint32_t tag = board->slot[s].tag;
        if (tag)
            assert_memory_equal(
                w->frame[s], tag == ORRI_ZERO ? zeros : w->backup[tag], BYTES);
    }
}

static void every_rank_always_sees_what_it_wrote(void **state)
{
    const char *more = getenv("ORRERY_TURNS_WORLDS");
    const uint64_t worlds = more ? strtoull(more, NULL, 10) : WORLDS;
    (void)state;
    for (uint64_t world = 1; world <= worlds; world++) {
        start(world);
        for (int i = 0; i < STEPS; i++) {
            uint32_t r = pick(RANKS);
            if (w->ranks[r].phase != ABSENT && pick(1000) == 0)
                die(&w->ranks[r]);
            else
                for (uint32_t n = 1 + pick(12); n > 0; n--)
                    step(&w->ranks[r], r);
            if (i % 7 == 0)
                check();
        }
        check();
    }
    print_message("%u switches, %u deaths, %u copied in, %u private\n",
                  w->n_switches,
                  w->n_deaths,
                  w->n_copied_in,
                  w->n_private);
    /* it was a test of something */
    assert_true(w->n_switches > 500 && w->n_deaths > 10 && w->n_copied_in > 1000 &&
                w->n_private > 50);
}

static bool is_of_another(uint32_t member, uint32_t number)
{
    for (uint32_t i = 0; i < RANKS; i++)
        if (i != number && w->ranks[i].phase != ABSENT && w->ranks[i].me == member)
            return true;
    return false;
}

/* A process does the steps of all, until it dies in the middle of one. */
static void work_until_killed(void)
{
    struct itimerval limit = {.it_value = {.tv_usec = 1 + pick(5000)}};
    setitimer(
        ITIMER_VIRTUAL, &limit, NULL); /* the processor's time; the signal ends us */
    for (;;) {
        w->at_work = pick(RANKS);
        step(&w->ranks[w->at_work], w->at_work);
    }
}

static void a_process_may_end_within_any_call(void **state)
{
    (void)state;
    start(5);
    unsigned before = w->n_switches;
    for (int i = 0; i < KILLS; i++) {
        int status;
        pid_t pid = fork();
        if (pid == 0)
            work_until_killed();
        assert_true(pid > 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGVTALRM);
        struct rank *r = &w->ranks[w->at_work];
        uint64_t alive = orri_board_members(board);
        for (uint32_t m = 0; m < ORRI_MEMBERS_MAX; m++) /* it may just have joined */
            if (!is_of_another(m, w->at_work))
                alive &= ~((uint64_t)1 << m);
        orri_board_repair(board, alive);
        memset(r, 0, sizeof *r);
        check();
    }
    assert_true(w->n_switches - before > KILLS / 2);
}

/* ---- how much ------------------------------------------------------------------------------------ */

static void
turn(struct rank *r, void (*work)(struct rank *r, uint32_t turn), uint32_t i)
{
    orri_turn_want(board, r->me);
    assert_true(orri_turn_take(board, r->me));
    for (uint32_t s = 0; s < SEEN; s++)
        if (r->has[s] && orri_slot_is_common(board, r->me, s))
            enter_slot(r, s);
    work(r, i);
    r->at = 0;
    while (next_common(r))
        ask_one(r);
    copy_all(r);
    r->at = 0;
    while (next_common(r)) {
        uint32_t s = r->at++;
        orri_leave_slot(board, r->me, s, r->asked[s]);
    }
    orri_leave_end(board, r->me);
    orri_turn_pass(board, r->me);
}

enum { ALIKE = 7, DIFFERENT = 3 };

/* The first step makes the segments; each updates all alike, and what is its own. */
static void train(struct rank *r, uint32_t i)
{
    uint32_t first;
    for (uint32_t k = 0; i == 0 && k < ALIKE + DIFFERENT; k++) {
        assert_true(orri_slots_add(board, r->me, 1, 1, &first));
        assert_int_equal(first, k); /* the same slots in all w->ranks */
        r->has[first] = true;
        enter_slot(r, first);
    }
    for (uint32_t s = 0; s < ALIKE + DIFFERENT; s++) {
        fill(r->wrote[s], s < ALIKE ? 1 + i + s : 100 + 40 * r->me + i);
        memcpy(memory_of(r, s), r->wrote[s], BYTES);
    }
}

static unsigned frames(void)
{
    unsigned n = 0;
    for (uint32_t s = 0; s < ORRI_SLOTS_MAX; s++)
        n += board->slot[s].holders != 0;
    for (uint32_t m = 0; m < ORRI_MEMBERS_MAX; m++)
        for (uint32_t s = 0; s < ORRI_SLOTS_MAX; s++)
            n += board->view[m][s] == ORRI_PRIVATE;
    return n;
}

static unsigned kept(void)
{
    unsigned n = 0;
    for (uint32_t c = 0; c < CONTENTS; c++)
        n += board->content[c].state == ORRI_KEPT;
    return n;
}

static void what_is_alike_is_there_once(void **state)
{
    (void)state;
    start(1);
    for (uint32_t i = 0; i < 3; i++)
        assert_true(orri_board_join(board, i, 0, &w->ranks[i].me));
    for (uint32_t i = 0; i < 40; i++) {
        for (uint32_t r = 0; r < 3; r++) {
            turn(&w->ranks[r], train, i);
            w->ranks[r].phase = WAITING;
            check_rank(&w->ranks[r]);
        }
        if (i < 2) /* nobody has shown yet that it needs its own */
            assert_int_equal(frames(), ALIKE + DIFFERENT);
    }
    assert_int_equal(frames(), ALIKE + 3 * DIFFERENT);
    assert_int_equal(kept(), ALIKE);
    unsigned before = w->n_copied_in;
    for (uint32_t r = 0; r < 3; r++)
        turn(&w->ranks[r], train, 40);
    /* the first finds the old content in the frames, the others have it copied in */
    assert_int_equal(w->n_copied_in - before, 2 * ALIKE);
}

static void nothing(struct rank *r, uint32_t i)
{
    (void)r;
    (void)i;
}

static void turns_that_change_nothing_copy_nothing(void **state)
{
    (void)state;
    start(2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(orri_board_join(board, i, 0, &w->ranks[i].me));
        turn(&w->ranks[i], train, 0);
    }
    w->ranks[0].has[ALIKE] = w->ranks[1].has[ALIKE] = true;
    for (uint32_t i = 0; i < 2; i++) /* what differs */
        for (uint32_t s = ALIKE; s < ALIKE + DIFFERENT; s++)
            w->ranks[i].has[s] = false;
    unsigned before = w->n_copied_in;
    for (uint32_t i = 0; i < 10; i++)
        turn(&w->ranks[i % 2], nothing, i);
    assert_int_equal(w->n_copied_in, before);
}

static void the_backup_has_room_for_all_that_is_allocated(void **state)
{
    uint32_t first = 0, n = 0;
    (void)state;
    start(3);
    assert_true(orri_board_join(board, 0, 0, &w->ranks[0].me));
    assert_true(orri_board_join(board, 1, 0, &w->ranks[1].me));
    while (orri_slots_add(board, w->ranks[n % 2].me, 1, 1, &first))
        n++;
    assert_int_equal(n, CONTENTS * 2 / 3); /* both, and half of it again */
}

static void the_turn_goes_to_who_has_waited_longest(void **state)
{
    (void)state;
    start(4);
    for (uint32_t i = 0; i < 3; i++)
        assert_true(orri_board_join(board, i, 0, &w->ranks[i].me));
    orri_turn_want(board, 2);
    orri_turn_want(board, 0);
    orri_turn_want(board, 1);
    assert_false(orri_turn_take(board, 0));
    assert_true(orri_turn_take(board, 2));
    assert_true(orri_turn_is_wanted(board, 2));
    assert_false(orri_turn_take(board, 0)); /* it is taken */
    orri_board_repair(board,
                      alive_but(2)); /* its holder dies; and so does who is next */
    orri_board_repair(board, alive_but(0));
    assert_true(orri_turn_take(board, 1));
    assert_false(orri_turn_is_wanted(board, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rank_always_sees_what_it_wrote),
        cmocka_unit_test(a_process_may_end_within_any_call),
        cmocka_unit_test(what_is_alike_is_there_once),
        cmocka_unit_test(turns_that_change_nothing_copy_nothing),
        cmocka_unit_test(the_backup_has_room_for_all_that_is_allocated),
        cmocka_unit_test(the_turn_goes_to_who_has_waited_longest),
    };
    return cmocka_run_group_tests(tests, make_world, NULL);
}
