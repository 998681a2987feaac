/* SPDX-License-Identifier: Apache-2.0
 * stop.c - a process stops at a cut, and goes on: all in the link's thread.
 *
 *   RUNNING --quiesce--> STOPPED --resume--> RUNNING
 *
 * QUIESCE  The gate is shut (nobody goes on, whatever the clocks say), the parts close theirs, then each lets go of what lies
 *          outside of this process, nccl before cuda; device memory goes into the arena: where this process is to give it up, a file
 *          that outlives the node's host, too, else nameless memory.  The arena's descriptor is sent to the
 *          node, which says welcome when it has it; then the connection is closed, and, for an image, the arena and the clock
 *          page are given up, too.  If the welcome does not come, nothing is given up: the next connection says `stopped`, and
 *          the node asks again.
 * FAILURE  A part that fails has undone itself.  When none has let go, the gate is merely closed as before.  When one before
 *          it has, the process stays stopped: a resume, in which all ranks make their communicators anew, is the way back.
 * RESUME   Ids are made and exchanged, the parts take back what they had, cuda before nccl, gates open.  A part that fails
 *          stays as it was, and those after it; the next resume goes on from there.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "link.h"

enum {
    PAGE = 4096,
    FD_MIN = 300,
    IDS_MAX = 4096,
    TAKEN_MS = 10000, /* the node has the arena */
    SEND_MS = 5000,
    DIR_MAX = 256,
    ROOM_TRIES = 100,
};

/* rank_resume, kept. */
struct resume_ask {
    uint64_t cut, generation, attempt;
    uint64_t deadline_ms;
    char device[ORR_NAME_MAX];
};

static struct {
    bool is_stopped;
    bool is_partial; /* only some parts have let go: a quiesce failed */
    uint64_t cut;
    struct orri_arena arena; /* owned; fd -1: none, or given up */
    uint64_t at[ORRI_PART_MAX_], bytes[ORRI_PART_MAX_]; /* the parts' pieces */
    bool is_quiet[ORRI_PART_MAX_];                      /* has let go */
    struct orri_comm_id *ids;                           /* owned: IDS_MAX of them */
    uint32_t n_ids;
    bool
        has_too_many; /* for IDS_MAX: what is left out cannot be told from what nobody said */
    struct resume_ask ask; /* the newest */
    bool has_newer;        /* it came while an earlier one was under way */
} self = {.arena.fd = -1};

const struct orri_comm_id *orri_comm_ids(uint32_t *ret_n)
{
    *ret_n = self.n_ids;
    return self.ids;
}

const char *orri_stop_device(void)
{
    return self.ask.device;
}

struct orri_stop_view orri_stop_look(void)
{
    return (struct orri_stop_view){
        .is_stopped = self.is_stopped,
        .cut = self.cut,
        .arena_bytes = self.arena.at ? 0 : self.arena.bytes,
    };
}

void orri_stop_renumber(void)
{
    self.cut = 0;
}

static const struct orri_part *part_of(uint32_t kind)
{
    pthread_mutex_lock(&orri_core.lock);
    const struct orri_part *part = orri_core.parts[kind];
    pthread_mutex_unlock(&orri_core.lock);
    return part;
}

/* ---- the arena ---------------------------------------------------------------------------- */

static void drop_arena(void)
{
    if (self.arena.at)
        munmap(self.arena.at, self.arena.bytes);
    if (self.arena.fd >= 0)
        close(self.arena.fd);
    self.arena = (struct orri_arena){.fd = -1};
}

static enum orr_err map_arena(int fd, uint64_t bytes, struct orr_error *err)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return orr_fail(
            err,
            ORR_ENOMEM,
            "cannot map %llu bytes for the device's memory; is there a limit "
            "of address space?",
            (unsigned long long)bytes);
    madvise(at, bytes, MADV_HUGEPAGE);
    madvise(at, bytes, MADV_DONTFORK);
    self.arena = (struct orri_arena){.fd = fd, .at = at, .bytes = bytes};
    return ORR_OK;
}

/* All of its room is taken now: a page that does not fit later would end this process. */
static bool has_room(int fd, uint64_t bytes)
{
    int rc = -1;
    for (int i = 0; i < ROOM_TRIES && rc != 0; i++) {
        rc = fallocate(fd, 0, 0, (off_t)bytes);
        if (rc != 0 && errno != EINTR)
            break;
    }
    return rc == 0;
}

/* -1: not there, not in memory (the node takes no other), or without room. */
static int open_in(struct orr_str dir, uint64_t bytes)
{
    char path[DIR_MAX];
    if (dir.len == 0 || dir.len >= sizeof path)
        return -1;
    orr_str_copy(path, sizeof path, dir);
    int fd = open(path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 && (fcntl(fd, F_GET_SEALS) < 0 || !has_room(fd, bytes))) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static enum orr_err make_arena(struct orr_str dir, struct orr_error *err)
{
    uint64_t total = 0;
    for (uint32_t k = 0; k < ORRI_PART_MAX_; k++) {
        const struct orri_part *part = part_of(k);
        uint64_t bytes = part && part->arena_bytes ? part->arena_bytes() : 0;
        self.at[k] = total;
        self.bytes[k] = (bytes + PAGE - 1) / PAGE * PAGE;
        total += self.bytes[k];
    }
    if (total == 0)
        return ORR_OK;
    int fd = open_in(dir, total);
    if (fd < 0)
        fd = memfd_create("orrery-arena", MFD_CLOEXEC);
    int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, FD_MIN);
    if (high >= 0) {
        close(fd);
        fd = high;
    }
    if (fd < 0 || ftruncate(fd, (off_t)total) != 0) {
        if (fd >= 0)
            close(fd);
        return orr_fail(
            err, ORR_ENOMEM, "cannot make an arena: out of memory or files");
    }
    enum orr_err rc = map_arena(fd, total, err);
    if (rc)
        close(fd);
    return rc;
}

static struct orri_arena piece_of(uint32_t kind)
{
    return (struct orri_arena){
        .fd = self.arena.fd,
        .at = self.bytes[kind] ? self.arena.at + self.at[kind] : NULL,
        .bytes = self.bytes[kind],
    };
}

/* ---- quiesce ------------------------------------------------------------------------------ */

static void open_parts(void)
{
    for (uint32_t k = ORRI_PART_MAX_; k-- > 0;) {
        const struct orri_part *part = part_of(k);
        if (part && part->open)
            part->open();
    }
}

static bool is_any_quiet(void)
{
    for (uint32_t k = 0; k < ORRI_PART_MAX_; k++)
        if (self.is_quiet[k])
            return true;
    return false;
}

static enum orr_err
quiet_parts(struct orr_str dir, uint64_t deadline_ms, struct orr_error *err)
{
    enum orr_err rc = ORR_OK;
    for (uint32_t k = 0; k < ORRI_PART_MAX_ && !rc; k++) {
        const struct orri_part *part = part_of(k);
        if (part && part->prepare)
            rc = part->prepare(deadline_ms, err);
    }
    for (uint32_t k = 0; k < ORRI_PART_MAX_ && !rc; k++) {
        const struct orri_part *part = part_of(k);
        if (part && part->close)
            rc = part->close(deadline_ms, err);
    }
    if (!rc)
        rc = make_arena(dir, err);
    for (uint32_t k = 0; k < ORRI_PART_MAX_ && !rc; k++) {
        const struct orri_part *part = part_of(k);
        struct orri_arena piece = piece_of(k);
        if (!part || !part->quiesce)
            continue;
        rc = part->quiesce(&piece, deadline_ms, err);
        self.is_quiet[k] = rc == ORR_OK;
    }
    return rc;
}

static enum orr_err quiesce(const struct orr_msg_rank_quiesce *msg,
                            struct orr_error *err)
{
    if (self.is_stopped && self.cut == msg->cut && !self.is_partial)
        return ORR_OK; /* also without an arena: whoever has taken it may have it */
    if (self.is_stopped || !orri_gate_ask_shut())
        return orr_fail(
            err, ORR_ESTATE, "it is not at the cut %llu", (unsigned long long)msg->cut);
    enum orr_err rc = quiet_parts(msg->dir, orri_mono_ms() + msg->timeout_ms, err);
    self.is_stopped = rc == ORR_OK || is_any_quiet();
    self.is_partial = rc != ORR_OK;
    self.cut = msg->cut;
    if (!self.is_stopped) {
        drop_arena();
        open_parts();
        orri_gate_ask_unshut();
    }
    return rc;
}

static uint64_t copied_us(void)
{
    uint64_t us = 0;
    for (uint32_t k = 0; k < ORRI_PART_MAX_; k++)
        if (part_of(k) && part_of(k)->copied_us)
            us += part_of(k)->copied_us();
    return us;
}

/* The node has the arena: nothing of the machine stays.  The connection goes last: its end tells the node that all is gone. */
static void let_go(bool is_detached)
{
    uint64_t bytes = self.arena.bytes;
    if (is_detached) {
        drop_arena();
        self.arena.bytes = bytes;
        orri_page_detach();
    }
    orri_link_close();
}

void orri_stop_on_quiesce(const struct orr_msg_rank_quiesce *msg)
{
    struct orri_packet packet;
    struct orr_error err = {.text = ""};
    enum orr_err rc = quiesce(msg, &err);
    struct orr_msg_rank_quiesced answer = {
        .cut = msg->cut,
        .code = (uint32_t)rc,
        .text = orr_str(err.text),
        .device_bytes = self.arena.bytes,
        .arena_bytes = rc ? 0 : self.arena.bytes,
        .copy_us = copied_us(),
    };
    uint64_t now_ms = orri_mono_ms();
    bool is_sent = orri_link_send(orr_msg_desc_rank_quiesced(),
                                  &answer,
                                  rc ? -1 : self.arena.fd,
                                  now_ms + SEND_MS);
    if (rc || !is_sent)
        return;
    while (orri_link_receive(&packet, now_ms + TAKEN_MS)) {
        uint16_t id = packet.desc->id;
        if (id == ORR_MSG_rank_welcome)
            let_go(msg->is_detached);
        else if (id == ORR_MSG_rank_resume) /* another rank has failed */
            orri_stop_on_resume(packet.msg, &packet.fd);
        orri_packet_fini(&packet);
        if (id == ORR_MSG_rank_welcome || id == ORR_MSG_rank_resume)
            return;
    }
    orri_link_close();
}

/* ---- resume ------------------------------------------------------------------------------- */

static uint32_t kind_of(const struct orr_rec_comm_id *from)
{
    for (size_t i = 0; i < from->id.len; i++)
        if (from->id.ptr[i])
            return ORRI_ID_MADE;
    return from->id.len ? ORRI_ID_VOID : ORRI_ID_WANTED;
}

/* Of what differs the stronger word holds, whoever says it, whenever. */
static void add_id(const struct orri_comm_id *from)
{
    uint32_t at = 0;
    while (at < self.n_ids && self.ids[at].comm != from->comm)
        at++;
    self.has_too_many |= at == IDS_MAX;
    if (at == IDS_MAX || (at < self.n_ids && self.ids[at].kind >= from->kind))
        return;
    self.ids[at] = *from;
    if (at == self.n_ids)
        self.n_ids++;
}

static void take_ids(const struct orr_msg_rank_comm_ids *msg)
{
    for (uint32_t i = 0; i < msg->ids.n; i++) {
        const struct orr_rec_comm_id *from = &msg->ids.at[i];
        struct orri_comm_id id = {.comm = from->comm, .kind = kind_of(from)};
        if (from->id.len && from->id.len != sizeof id.id)
            continue;
        if (from->id.len)
            memcpy(id.id, from->id.ptr, sizeof id.id);
        add_id(&id);
    }
}

static void keep_ask(const struct orr_msg_rank_resume *msg)
{
    self.ask = (struct resume_ask){.cut = msg->cut,
                                   .generation = msg->generation,
                                   .attempt = msg->attempt,
                                   .deadline_ms = orri_mono_ms() + msg->timeout_ms};
    orr_str_copy(self.ask.device, sizeof self.ask.device, msg->device);
}

/* A later cut, too, is the same stop: its job's actor has begun anew, and numbers its resume so. */
static bool take_newer(const struct orri_packet *packet)
{
    const struct orr_msg_rank_resume *again = packet->msg;
    if (packet->desc->id != ORR_MSG_rank_resume || again->cut < self.ask.cut ||
        (again->cut == self.ask.cut && again->attempt == self.ask.attempt))
        return false;
    keep_ask(again);
    return true;
}

bool orri_stop_has_newer(void)
{
    struct orri_packet packet;
    while (!self.has_newer && orri_link_receive(&packet, 0)) {
        self.has_newer = take_newer(&packet);
        orri_packet_fini(&packet);
    }
    return self.has_newer;
}

static bool send_ids(const struct orri_comm_id *ids, uint32_t n)
{
    static struct orr_rec_comm_id list[ORRI_PACKET_IDS];
    struct orr_msg_rank_comm_ids msg = {.cut = self.ask.cut,
                                        .attempt = self.ask.attempt,
                                        .ids.at = list,
                                        .has_more = true};
    for (uint32_t at = 0; msg.has_more; at += msg.ids.n) {
        for (msg.ids.n = 0; msg.ids.n < ORRI_PACKET_IDS && at + msg.ids.n < n;
             msg.ids.n++) {
            const struct orri_comm_id *id = &ids[at + msg.ids.n];
            list[msg.ids.n] = (struct orr_rec_comm_id){
                .comm = id->comm,
                .id = {id->id, id->kind == ORRI_ID_WANTED ? 0 : sizeof id->id}};
        }
        msg.has_more = at + msg.ids.n < n;
        if (!orri_link_send(
                orr_msg_desc_rank_comm_ids(), &msg, -1, orri_mono_ms() + SEND_MS))
            return false;
    }
    return true;
}

/* The list of this process, which may be empty: the others wait until all have spoken. */
static enum orr_err speak(const struct orri_part *part, struct orr_error *err)
{
    self.n_ids = 0;
    self.has_too_many = false;
    if (part && !self.ids && !(self.ids = calloc(2 * IDS_MAX, sizeof *self.ids)))
        return orr_fail(err, ORR_ENOMEM, "out of memory for communicators' ids");
    if (part)
        self.n_ids = part->make_ids(self.ids, IDS_MAX);
    if (self.n_ids == UINT32_MAX) {
        self.n_ids = 0;
        return orr_fail(
            err,
            ORR_EIO,
            "it cannot say where it is: too many open files, or more than %d "
            "communicators",
            (int)IDS_MAX);
    }
    return send_ids(self.ids, self.n_ids)
               ? ORR_OK
               : orr_fail(err, ORR_EUNREACH, "the node's host is gone");
}

/* All have spoken. */
static enum orr_err answer(const struct orri_part *part, struct orr_error *err)
{
    struct orri_comm_id *added = self.ids + IDS_MAX;
    uint32_t n =
        part->add_ids ? part->add_ids(self.ids, self.n_ids, added, IDS_MAX) : 0;
    for (uint32_t i = 0; i < n; i++)
        add_id(&added[i]);
    return n == 0 || send_ids(added, n)
               ? ORR_OK
               : orr_fail(err, ORR_EUNREACH, "the node's host is gone");
}

/* A newer attempt that is told meanwhile takes the place of this one. */
static enum orr_err exchange_ids(struct orr_error *err)
{
    const struct orri_part *part = part_of(ORRI_PART_NCCL);
    struct orri_packet packet;
    bool have_all_spoken = false;
    if (part &&
        (!part->make_ids || !part->has_all_ids || !self.is_quiet[ORRI_PART_NCCL]))
        part = NULL;
    enum orr_err rc = speak(part, err);
    while (!rc && part &&
           !(have_all_spoken && part->has_all_ids(self.ids, self.n_ids))) {
        if (!orri_link_receive(&packet, self.ask.deadline_ms))
            return orr_fail(err,
                            ORR_ETIMEOUT,
                            "the ids of its communicators did not come: is a rank that "
                            "has to make one missing?");
        const struct orr_msg_rank_comm_ids *ids = packet.msg;
        if (take_newer(&packet)) {
            have_all_spoken = false;
            rc = speak(part, err);
        } else if (packet.desc->id == ORR_MSG_rank_comm_ids &&
                   ids->cut == self.ask.cut && ids->attempt == self.ask.attempt) {
            take_ids(ids);
            if (!ids->has_more && !have_all_spoken)
                rc = answer(part, err);
            have_all_spoken |= !ids->has_more;
        }
        orri_packet_fini(&packet);
        if (!rc && self.has_too_many)
            rc =
                orr_fail(err,
                         ORR_ENOSPC,
                         "the job's ranks have more than %d communicators to make anew",
                         (int)IDS_MAX);
    }
    return rc;
}

/* Back from the node, or from the image's files. */
static enum orr_err regain_arena(int *take_fd, struct orr_error *err)
{
    struct stat st;
    if (self.arena.bytes == 0 || self.arena.at)
        return ORR_OK;
    if (*take_fd < 0 || fstat(*take_fd, &st) != 0 || !S_ISREG(st.st_mode) ||
        (uint64_t)st.st_size < self.arena.bytes)
        return orr_fail(
            err,
            ORR_EIO,
            "its node gave back no arena of %llu bytes with its device memory",
            (unsigned long long)self.arena.bytes);
    enum orr_err rc = map_arena(*take_fd, self.arena.bytes, err);
    if (rc == ORR_OK)
        *take_fd = -1;
    return rc;
}

static enum orr_err resume(int *take_fd, struct orr_error *err)
{
    enum orr_err rc = regain_arena(take_fd, err);
    if (!rc)
        rc = exchange_ids(err);
    for (uint32_t k = ORRI_PART_MAX_; k-- > 0 && !rc;) {
        const struct orri_part *part = part_of(k);
        struct orri_arena piece = piece_of(k);
        if (!part || !part->resume || !self.is_quiet[k])
            continue;
        rc = part->resume(&piece, self.ask.device, self.ask.deadline_ms, err);
        self.is_quiet[k] = rc != ORR_OK;
    }
    return rc;
}

void orri_stop_on_resume(const struct orr_msg_rank_resume *msg, int *take_fd)
{
    struct orr_error err = {.text = ""};
    enum orr_err rc = ORR_OK;
    if (self.is_stopped && msg->cut < self.cut)
        return;
    keep_ask(msg);
    do {
        self.has_newer = false;
        if (self.is_stopped)
            rc = resume(take_fd, &err);
    } while (rc && orri_stop_has_newer()); /* of the older one nobody wants to know */
    if (rc == ORR_OK) {
        bool was_stopped = self.is_stopped;
        orri_core.generation = self.ask.generation;
        self.is_stopped = false;
        drop_arena();
        if (was_stopped) {
            open_parts();
            orri_gate_ask_reopen();
        } else {
            orri_gate_ask_open(self.ask.cut);
        }
    }
    struct orr_msg_rank_resumed answer = {.cut = self.ask.cut,
                                          .code = (uint32_t)rc,
                                          .text = orr_str(err.text),
                                          .attempt = self.ask.attempt,
                                          .copy_us = copied_us()};
    orri_link_send(orr_msg_desc_rank_resumed(), &answer, -1, orri_mono_ms() + SEND_MS);
}

void orri_stop_in_child(void)
{
    if (self.arena.fd >= 0)
        close(self.arena.fd);
    self.arena = (struct orri_arena){.fd = -1}; /* the mapping was not inherited */
    self.is_stopped = false;
}
