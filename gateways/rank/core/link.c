/* SPDX-License-Identifier: Apache-2.0
 * link.c - the one thread of the library, and its connection to the node.
 *
 * START      the first part that registers itself starts the thread.  It blocks all signals, so it takes none from the program.
 * OPERATION  connected: wait for the node's packets (close, targets, open, quiesce, resume) and for the program's threads, which
 *            wake it when something moved while the gate is closed.  Not connected: dial, with growing pauses, for ever.  A host
 *            may be restarted, replaced, or absent: the program does not notice, since none of its threads waits for this one.
 * STOP       never; the process' end ends it.
 * FAILURES   A gate that is closed and of whose cut nothing was heard for LOST_MS opens by itself, so that nobody stays parked
 *            because a host died; the node, which repeats itself while the cut goes on, learns of it from the next clocks.  A
 *            process that is stopped (stop.c) waits for ever: only a resume can make it whole.
 */
#include "link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    STACK_BYTES = 1 << 20, /* parts call the driver and NCCL on it */
    FD_MIN = 300,
    BACKOFF_MIN_MS = 10,
    BACKOFF_MAX_MS = 1000,
    BACKOFF_STOPPED_MS = 20, /* its resume waits for it; mostly it is frozen anyway */
    SEND_MS = 5000,
    HELLO_MS = 5000,
    LOST_MS = 30000,
    SETTLE_MS = 5,
    LOOK_MS = 1000,
};

static struct {
    _Atomic int wake_fd; /* owned */
    int sock;            /* owned; -1: not connected */
    bool is_welcome, reports_due, takes_list;
    bool is_told_cooperative; /* what was saved comes with the welcome after that */
    uint64_t backoff_ms, dial_ms, hello_ms, heard_ms, lost_ms, look_ms;
    uint64_t list_cut, list_round;
    uint32_t random;
} self = {.wake_fd = -1, .sock = -1};

static struct { /* the program's thread waits here for what it saved: coop.c */
    pthread_mutex_t lock;
    pthread_cond_t came;
    bool has_come;
} welcome = {.lock = PTHREAD_MUTEX_INITIALIZER, .came = PTHREAD_COND_INITIALIZER};

static struct orr_rec_clock rows[ORRI_CLOCKS_MAX]; /* too large for the stack */

void orri_link_wake(void)
{
    uint64_t one = 1;
    int fd = atomic_load(&self.wake_fd);
    if (fd >= 0 && write(fd, &one, sizeof one) < 0)
        return; /* full: it will wake anyway */
}

bool orri_link_wait_welcome(uint64_t deadline_ms)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ms / 1000),
                             .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    pthread_mutex_lock(&welcome.lock);
    while (!welcome.has_come &&
           pthread_cond_clockwait(
               &welcome.came, &welcome.lock, CLOCK_MONOTONIC, &until) == 0)
        ;
    bool has_come = welcome.has_come;
    pthread_mutex_unlock(&welcome.lock);
    return has_come;
}

/* ---- the connection ----------------------------------------------------------------------- */

static uint32_t next_random(void)
{
    self.random ^= self.random << 13;
    self.random ^= self.random >> 17;
    self.random ^= self.random << 5;
    return self.random;
}

/* Three quarters to five quarters of the pause, so that the ranks of a machine do not come all at once. */
static void back_off(uint64_t now_ms)
{
    uint64_t half = self.backoff_ms / 2 + 1;
    self.dial_ms = now_ms + self.backoff_ms - half / 2 + next_random() % half;
    self.backoff_ms *= 2;
    uint64_t max_ms = orri_stop_look().is_stopped ? BACKOFF_STOPPED_MS : BACKOFF_MAX_MS;
    if (self.backoff_ms > max_ms)
        self.backoff_ms = max_ms;
}

bool orri_link_is_up(void)
{
    return self.sock >= 0;
}

void orri_link_close(void)
{
    if (self.sock >= 0)
        close(self.sock);
    self.sock = -1;
    self.is_welcome = false;
    self.takes_list = false;
    back_off(orri_mono_ms());
}

bool orri_link_send(const struct orr_msg_desc *desc,
                    const void *msg,
                    int fd,
                    uint64_t deadline_ms)
{
    while (self.sock >= 0) {
        int rc = orri_packet_send(self.sock, desc, msg, fd);
        uint64_t now_ms = orri_mono_ms();
        if (rc == 0)
            return true;
        if (rc != EAGAIN || now_ms >= deadline_ms) {
            orri_link_close();
            break;
        }
        struct pollfd room = {.fd = self.sock, .events = POLLOUT};
        poll(&room, 1, (int)(deadline_ms - now_ms));
    }
    return false;
}

bool orri_link_receive(struct orri_packet *ret_packet, uint64_t deadline_ms)
{
    while (self.sock >= 0) {
        int rc = orri_packet_receive(self.sock, ret_packet);
        uint64_t now_ms = orri_mono_ms();
        if (rc == 0)
            return true;
        if (rc != EAGAIN) {
            orri_link_close();
            break;
        }
        if (now_ms >= deadline_ms)
            break;
        struct pollfd come = {.fd = self.sock, .events = POLLIN};
        poll(&come, 1, (int)(deadline_ms - now_ms));
    }
    return false;
}

static struct orr_msg_rank_hello hello(void)
{
    struct orri_stop_view stop = orri_stop_look();
    struct orri_gate_view gate = orri_gate_look(NULL);
    pthread_mutex_lock(&orri_core.lock);
    struct orr_msg_rank_hello msg = {
        .protocol = ORR_RANK_PROTOCOL,
        .job = orr_str(orri_core.job),
        .generation = orri_core.generation,
        .rank = orri_core.rank,
        .process = (uint32_t)getpid(),
        .is_stopped = stop.is_stopped,
        .cut = stop.is_stopped ? stop.cut : gate.cut,
        .is_cooperative = orri_core.gate.is_cooperative,
        .why_not = orr_str(orri_core.why_not),
        .why_no_image = orr_str(orri_core.why_no_image),
        .arena_bytes = stop.arena_bytes,
        .answers_looks = true,
    };
    orri_core.limits_moved = false;
    pthread_mutex_unlock(&orri_core.lock);
    return msg;
}

/* No socket is made while there is nobody to connect to: a process that is stopped has none while its image is taken. */
static int connect_to_node(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (access(orri_core.link, F_OK) != 0)
        return -1;
    memcpy(addr.sun_path, orri_core.link, sizeof addr.sun_path);
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    int high = sock < 0 ? -1 : fcntl(sock, F_DUPFD_CLOEXEC, FD_MIN);
    if (high >= 0) {
        close(sock);
        sock = high;
    }
    if (sock < 0)
        return -1;
    fcntl(sock, F_SETFL, O_NONBLOCK);
    if (connect(sock, (const struct sockaddr *)&addr, sizeof addr) == 0)
        return sock;
    close(sock);
    return -1;
}

static void dial(uint64_t now_ms)
{
    self.sock = connect_to_node();
    if (self.sock < 0) {
        back_off(now_ms);
        return;
    }
    orri_page_attach();
    struct orr_msg_rank_hello msg = hello();
    self.hello_ms = now_ms;
    self.is_told_cooperative = msg.is_cooperative;
    orri_link_send(orr_msg_desc_rank_hello(), &msg, orri_page_fd(), now_ms + SEND_MS);
}

/* ---- what the node says ------------------------------------------------------------------- */

static void take_welcome(const struct orr_msg_rank_welcome *msg, int *take_fd)
{
    self.is_welcome = true;
    self.backoff_ms = BACKOFF_MIN_MS;
    self.reports_due = true;
    if (msg->generation >
        orri_core.generation) { /* it was moved: cuts are counted anew */
        orri_core.generation = msg->generation;
        orri_gate_ask_renumber(msg->cut);
        orri_stop_renumber();
    }
    orri_coop_take_state(take_fd);
    pthread_mutex_lock(&welcome.lock);
    welcome.has_come |= self.is_told_cooperative;
    pthread_cond_broadcast(&welcome.came);
    pthread_mutex_unlock(&welcome.lock);
}

static void take_targets(const struct orr_msg_rank_targets *msg)
{
    struct orri_target list[ORRI_PACKET_CLOCKS];
    bool goes_on =
        self.takes_list && self.list_cut == msg->cut && self.list_round == msg->round;
    uint32_t at = 0;
    do {
        uint32_t n = 0;
        for (; n < ORR_ARRAY_SIZE(list) && at < msg->targets.n; n++, at++) {
            const struct orr_rec_clock *c = &msg->targets.at[at];
            list[n] = (struct orri_target){.comm = c->comm,
                                           .issued = c->issued,
                                           .kind = c->kind,
                                           .me = c->me,
                                           .peer = c->peer};
        }
        orri_gate_ask_targets(msg->cut,
                              msg->round,
                              !goes_on,
                              list,
                              n,
                              !msg->has_more && at == msg->targets.n);
        goes_on = true;
    } while (at < msg->targets.n);
    self.takes_list = msg->has_more;
    self.list_cut = msg->cut;
    self.list_round = msg->round;
    self.reports_due = true;
}

/* It is seldom asked, and only of a process that issues nothing: to see this costs those nothing that do. */
static void answer_look(const struct orr_msg_rank_look *look)
{
    const char *call = "NCCL";
    uint32_t n = orri_gate_inside();
    for (int k = 0; k < ORRI_PART_MAX_; k++) {
        pthread_mutex_lock(&orri_core.lock);
        const struct orri_part *part = orri_core.parts[k];
        pthread_mutex_unlock(&orri_core.lock);
        if (part && part->inside)
            n += part->inside(&call);
    }
    const struct orr_msg_rank_looked msg = {
        .number = look->number, .n_inside = n, .call = orr_str(call)};
    orri_link_send(orr_msg_desc_rank_looked(), &msg, -1, orri_mono_ms() + SEND_MS);
}

static void take(struct orri_packet *packet)
{
    const void *msg = packet->msg;
    self.heard_ms = orri_mono_ms();
    switch (packet->desc->id) {
    case ORR_MSG_rank_welcome:
        take_welcome(msg, &packet->fd);
        break;
    case ORR_MSG_rank_close:
        self.reports_due |=
            orri_gate_ask_close(((const struct orr_msg_rank_close *)msg)->cut);
        break;
    case ORR_MSG_rank_targets:
        take_targets(msg);
        break;
    case ORR_MSG_rank_open:
        orri_gate_ask_open(((const struct orr_msg_rank_open *)msg)->cut);
        break;
    case ORR_MSG_rank_quiesce:
        orri_stop_on_quiesce(msg);
        self.reports_due = true;
        break;
    case ORR_MSG_rank_resume:
        orri_stop_on_resume(msg, &packet->fd);
        break;
    case ORR_MSG_rank_look:
        answer_look(msg);
        break;
    case ORR_MSG_rank_posts:
        orri_posts_take(msg);
        break;
    default: /* a newer node's; or ids, which only a resume waits for */
        break;
    }
}

/* ---- what the library says ---------------------------------------------------------------- */

/* Returns when to look again. */
static uint64_t report(uint64_t now_ms)
{
    struct orri_gate_view view = orri_gate_look(rows);
    if (view.mode == ORRI_GATE_OPEN || view.mode == ORRI_GATE_SHUT) {
        self.reports_due = false;
        return UINT64_MAX;
    }
    if (!view.is_settled)
        return now_ms + SETTLE_MS;
    struct orr_msg_rank_clocks msg = {
        .cut = view.cut, .round = view.round, .is_at_cut = view.is_at_cut};
    uint32_t at = 0;
    do {
        uint32_t left = view.n - at;
        msg.clocks.at = rows + at;
        msg.clocks.n = left < ORRI_PACKET_CLOCKS ? left : ORRI_PACKET_CLOCKS;
        at += msg.clocks.n;
        msg.has_more = at < view.n;
    } while (orri_link_send(orr_msg_desc_rank_clocks(), &msg, -1, now_ms + SEND_MS) &&
             at < view.n);
    self.reports_due = false;
    return UINT64_MAX;
}

static void tell_limits(uint64_t now_ms)
{
    pthread_mutex_lock(&orri_core.lock);
    bool is_due = orri_core.limits_moved;
    struct orr_msg_rank_limits msg = {
        .is_cooperative = orri_core.gate.is_cooperative,
        .why_not = orr_str(orri_core.why_not),
        .why_no_image = orr_str(orri_core.why_no_image),
    };
    orri_core.limits_moved = false;
    pthread_mutex_unlock(&orri_core.lock);
    self.is_told_cooperative |= is_due && msg.is_cooperative;
    if (is_due)
        orri_link_send(orr_msg_desc_rank_limits(), &msg, -1, now_ms + SEND_MS);
}

/* ---- the thread --------------------------------------------------------------------------- */

/* Returns when to look again. */
static uint64_t open_when_lost(uint64_t now_ms)
{
    struct orri_gate_view view = orri_gate_look(NULL);
    if (view.mode == ORRI_GATE_OPEN || view.mode == ORRI_GATE_SHUT)
        return UINT64_MAX;
    if (now_ms - self.heard_ms < self.lost_ms)
        return self.heard_ms + self.lost_ms;
    orri_gate_ask_open(view.cut);
    return UINT64_MAX;
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Also without a node.  Returns when to look again. */
static uint64_t let_parts_look(uint64_t now_ms)
{
    if (now_ms < self.look_ms || orri_stop_look().is_stopped)
        return self.look_ms < now_ms ? UINT64_MAX : self.look_ms;
    for (int k = 0; k < ORRI_PART_MAX_; k++) {
        pthread_mutex_lock(&orri_core.lock);
        const struct orri_part *part = orri_core.parts[k];
        pthread_mutex_unlock(&orri_core.lock);
        if (part && part->look)
            part->look();
    }
    self.look_ms = now_ms + LOOK_MS;
    return self.look_ms;
}

static uint64_t step(void)
{
    uint64_t now_ms = orri_mono_ms();
    if (self.sock < 0 && now_ms >= self.dial_ms)
        dial(now_ms);
    if (self.sock >= 0 && !self.is_welcome && now_ms >= self.hello_ms + HELLO_MS)
        orri_link_close(); /* whoever listens there does not answer */
    uint64_t due_ms = sooner(open_when_lost(now_ms), let_parts_look(now_ms));
    if (self.sock < 0)
        return sooner(due_ms, self.dial_ms);
    if (!self.is_welcome)
        return sooner(due_ms, self.hello_ms + HELLO_MS);
    self.reports_due |= orri_gate_has_moved();
    if (self.reports_due)
        due_ms = sooner(due_ms, report(now_ms));
    tell_limits(now_ms);
    return sooner(due_ms, orri_posts_say(now_ms));
}

static void wait_until(uint64_t due_ms)
{
    struct pollfd come[2] = {{.fd = atomic_load(&self.wake_fd), .events = POLLIN},
                             {.fd = self.sock, .events = POLLIN}};
    uint64_t now_ms = orri_mono_ms(), wakes;
    int timeout_ms = due_ms == UINT64_MAX          ? -1
                     : due_ms <= now_ms            ? 0
                     : due_ms - now_ms > INT16_MAX ? INT16_MAX
                                                   : (int)(due_ms - now_ms);
    poll(come, 2, timeout_ms);
    if ((come[0].revents & POLLIN) && read(come[0].fd, &wakes, sizeof wakes) < 0)
        return; /* somebody else read it: the program closed our files */
}

static void *run(void *arg)
{
    struct orri_packet packet;
    (void)arg;
    prctl(PR_SET_NAME, "orrery-rank");
    for (;;) {
        uint64_t due_ms = step();
        wait_until(due_ms);
        while (orri_link_receive(&packet, 0)) {
            take(&packet);
            orri_packet_fini(&packet);
        }
    }
    return NULL;
}

bool orri_link_start(void)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, before;
    const char *lost = getenv("ORRERY_RANK_LOST_MS"); /* tests */
    self.lost_ms = lost ? strtoull(lost, NULL, 10) : LOST_MS;
    self.backoff_ms = BACKOFF_MIN_MS;
    self.random = (uint32_t)getpid() * 2654435761u | 1u;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, FD_MIN);
    if (high >= 0) {
        close(fd);
        fd = high;
    }
    if (fd < 0)
        return false;
    atomic_store(&self.wake_fd, fd);
    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&thread, &attr, run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return rc == 0;
}

/* The parent's connection is the parent's. */
void orri_link_in_child(void)
{
    int fd = atomic_exchange(&self.wake_fd, -1);
    if (fd >= 0)
        close(fd);
    if (self.sock >= 0)
        close(self.sock);
    self.sock = -1;
}
