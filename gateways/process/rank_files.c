/* SPDX-License-Identifier: Apache-2.0
 * rank_files.c - names, meta and status files of rank_files.h.  Used by host and
 * keeper.
 */
#include "rank_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static bool is_name(struct orr_str s)
{
    for (uint32_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool is_alnum =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        bool is_pair = c == '.' && i > 0 && s.ptr[i - 1] == '.';
        if (is_pair || !(is_alnum || c == '.' || c == '_' || c == '-'))
            return false;
    }
    return s.len > 0 && s.ptr[0] != '.';
}

enum orr_err
orri_key_make(const struct orr_process_id *id, char *key, struct orr_error *err)
{
    if (id->job.len >= ORR_JOB_ID_MAX)
        return orr_fail(err,
                        ORR_EINVAL,
                        "job: %u bytes, an id has at most %d",
                        id->job.len,
                        ORR_JOB_ID_MAX - 1);
    if (!is_name(id->job))
        return orr_fail(
            err,
            ORR_EINVAL,
            "job: \"%.*s\": an id has letters, digits, '.', '_' and '-', does not "
            "start with '.' and has no \"..\"",
            ORR_STR_ARGS(id->job));
    snprintf(key,
             ORRI_KEY_MAX,
             "%.*s.%" PRIu64 ".%" PRIu32,
             ORR_STR_ARGS(id->job),
             id->generation,
             id->rank);
    return ORR_OK;
}

/* Digits only, no sign, no leading zero: what a key or a file of ours holds. */
static bool parse_u64(const char *text, const char *end, uint64_t max, uint64_t *ret)
{
    uint64_t v = 0;
    if (text == end || (*text == '0' && end - text > 1))
        return false;
    for (; text < end; text++) {
        uint64_t digit = (uint64_t)(*text - '0');
        if (*text < '0' || *text > '9' || v > (max - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    *ret = v;
    return true;
}

bool orri_key_parse(const char *key, struct orr_process_id *ret_id)
{
    const char *rank = strrchr(key, '.');
    const char *generation = rank ? memrchr(key, '.', (size_t)(rank - key)) : NULL;
    uint64_t g, r;
    if (!generation || generation - key >= ORR_JOB_ID_MAX)
        return false;
    struct orr_str job = {key, (uint32_t)(generation - key)};
    if (!is_name(job) || !parse_u64(generation + 1, rank, UINT64_MAX, &g) ||
        !parse_u64(rank + 1, rank + strlen(rank), UINT32_MAX, &r))
        return false;
    *ret_id = (struct orr_process_id){job, g, (uint32_t)r};
    return true;
}

void orri_rank_name(int ranks_dir, const char *key, char name[ORRI_RANK_NAME_MAX])
{
    struct stat st = {.st_ino = 0};
    fstat(ranks_dir, &st);
    snprintf(name,
             ORRI_RANK_NAME_MAX,
             "orrery-%" PRIx64 "-%" PRIx64 "-%s",
             (uint64_t)st.st_dev,
             (uint64_t)st.st_ino,
             key);
}

/* ---- key=value files
 * -------------------------------------------------------------------- */

enum { FIELDS_BYTES_MAX = 1024 };

struct field {
    const char *key;
    uint64_t *number; /* either */
    char *text;       /* or, of text_cap bytes */
    size_t text_cap;
};

static bool parse_line(char *line, char *end, const struct field *f)
{
    size_t key_len = strlen(f->key);
    if ((size_t)(end - line) <= key_len || memcmp(line, f->key, key_len) != 0 ||
        line[key_len] != '=')
        return false;
    char *value = line + key_len + 1;
    if (f->number)
        return parse_u64(value, end, UINT64_MAX, f->number);
    if ((size_t)(end - value) >= f->text_cap)
        return false;
    orr_str_copy(
        f->text, f->text_cap, (struct orr_str){value, (uint32_t)(end - value)});
    return true;
}

/* Exactly the fields, in their order, each line ended: anything else is torn. */
static enum orri_read
fields_read(int dir, const char *name, const struct field *fields, size_t n)
{
    char buf[FIELDS_BYTES_MAX];
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? ORRI_READ_ABSENT : ORRI_READ_TORN;
    ssize_t len = read(fd, buf, sizeof buf);
    close(fd);
    char *line = buf, *stop = buf + (len > 0 ? len : 0);
    for (size_t i = 0; i < n; i++) {
        char *end = memchr(line, '\n', (size_t)(stop - line));
        if (!end || !parse_line(line, end, &fields[i]))
            return ORRI_READ_TORN;
        line = end + 1;
    }
    return line == stop ? ORRI_READ_OK : ORRI_READ_TORN;
}

static int fields_write(int dir, const char *name, const struct field *fields, size_t n)
{
    char buf[FIELDS_BYTES_MAX], tmp[32];
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        const struct field *f = &fields[i];
        if (f->number)
            len += (size_t)snprintf(
                buf + len, sizeof buf - len, "%s=%" PRIu64 "\n", f->key, *f->number);
        else
            len += (size_t)snprintf(
                buf + len, sizeof buf - len, "%s=%s\n", f->key, f->text);
    }
    ORR_ASSERT(len < sizeof buf);
    snprintf(tmp, sizeof tmp, "%s.tmp", name);
    int fd = openat(dir, tmp, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return errno;
    ssize_t put = write(fd, buf, len); /* into what was reserved; cut after it */
    int rc = put == (ssize_t)len ? 0 : put < 0 ? errno : ENOSPC;
    if (rc == 0 && ftruncate(fd, (off_t)len) != 0)
        rc = errno;
    close(fd);
    if (rc == 0 && renameat(dir, tmp, dir, name) != 0)
        rc = errno;
    if (rc != 0)
        unlinkat(dir, tmp, 0);
    return rc;
}

/* Numbers pass through 64 bits; what was written from the struct fits it again, or the
 * file is torn. */
struct meta_fields {
    uint64_t keeper, rank, rank_start, device, started;
    struct field at[6];
};

static void meta_fields(struct meta_fields *m, char *boot)
{
    const struct field at[] = {
        {"keeper", &m->keeper, NULL, 0},
        {"rank", &m->rank, NULL, 0},
        {"rank_start", &m->rank_start, NULL, 0},
        {"device", &m->device, NULL, 0},
        {"started_unix_ms", &m->started, NULL, 0},
        {"boot", NULL, boot, ORRI_BOOT_MAX},
    };
    memcpy(m->at, at, sizeof at);
}

int orri_meta_write(int dir, const struct orri_meta *meta)
{
    char boot[ORRI_BOOT_MAX];
    struct meta_fields m = {(uint64_t)meta->keeper,
                            (uint64_t)meta->rank,
                            meta->rank_start,
                            meta->device,
                            meta->started_unix_ms,
                            {{0}}};
    memcpy(boot, meta->boot, sizeof boot);
    meta_fields(&m, boot);
    return fields_write(dir, "meta", m.at, ORR_ARRAY_SIZE(m.at));
}

enum orri_read orri_meta_read(int dir, struct orri_meta *ret_meta)
{
    struct orri_meta meta;
    struct meta_fields m;
    meta_fields(&m, meta.boot);
    enum orri_read rc = fields_read(dir, "meta", m.at, ORR_ARRAY_SIZE(m.at));
    if (rc != ORRI_READ_OK)
        return rc;
    if (m.keeper == 0 || m.keeper > INT32_MAX || m.rank == 0 || m.rank > INT32_MAX ||
        m.device > UINT32_MAX)
        return ORRI_READ_TORN;
    meta.keeper = (pid_t)m.keeper;
    meta.rank = (pid_t)m.rank;
    meta.rank_start = m.rank_start;
    meta.device = (uint32_t)m.device;
    meta.started_unix_ms = m.started;
    *ret_meta = meta;
    return ORRI_READ_OK;
}

struct status_fields {
    uint64_t state, exit_code, signal, ended;
    struct field at[5];
};

static void status_fields(struct status_fields *s, char *reason)
{
    const struct field at[] = {
        {"state", &s->state, NULL, 0},
        {"exit_code", &s->exit_code, NULL, 0},
        {"signal", &s->signal, NULL, 0},
        {"ended_unix_ms", &s->ended, NULL, 0},
        {"reason", NULL, reason, ORRI_REASON_MAX},
    };
    memcpy(s->at, at, sizeof at);
}

int orri_status_write(int dir, const struct orri_status *status)
{
    char reason[ORRI_REASON_MAX];
    struct status_fields s = {status->state,
                              (uint64_t)status->exit_code,
                              status->signal,
                              status->ended_unix_ms,
                              {{0}}};
    memcpy(reason, status->reason, sizeof reason);
    for (char *c = reason; *c; c++) {
        if (*c == '\n')
            *c = ' ';
    }
    status_fields(&s, reason);
    return fields_write(dir, "status", s.at, ORR_ARRAY_SIZE(s.at));
}

struct env_fields {
    uint64_t is_image, init, init_start, lazy, lazy_start;
    struct field at[11];
};

static void env_fields(struct env_fields *f, struct orri_env *env)
{
    const struct field at[] = {
        {"image", &f->is_image, NULL, 0},
        {"init", &f->init, NULL, 0},
        {"init_start", &f->init_start, NULL, 0},
        {"lazy", &f->lazy, NULL, 0},
        {"lazy_start", &f->lazy_start, NULL, 0},
        {"cgroup", NULL, env->cgroup, sizeof env->cgroup},
        {"link", NULL, env->overlay.link, ORRI_LINK_MAX},
        {"bridge", NULL, env->overlay.bridge, ORRI_LINK_MAX},
        {"vxlan", NULL, env->overlay.vxlan, ORRI_LINK_MAX},
        {"address", NULL, env->address, sizeof env->address},
        {"why", NULL, env->why, sizeof env->why},
    };
    memcpy(f->at, at, sizeof at);
}

int orri_env_write(int dir, const struct orri_env *env)
{
    struct orri_env copy = *env;
    struct env_fields f = {env->is_image,
                           (uint64_t)env->init,
                           env->init_start,
                           (uint64_t)env->lazy,
                           env->lazy_start,
                           {{0}}};
    env_fields(&f, &copy);
    for (char *c = copy.why; *c; c++) {
        if (*c == '\n')
            *c = ' ';
    }
    return fields_write(dir, "env", f.at, ORR_ARRAY_SIZE(f.at));
}

enum orri_read orri_env_read(int dir, struct orri_env *ret_env)
{
    struct orri_env env;
    struct env_fields f;
    env_fields(&f, &env);
    enum orri_read rc = fields_read(dir, "env", f.at, ORR_ARRAY_SIZE(f.at));
    if (rc != ORRI_READ_OK)
        return rc;
    if (f.is_image > 1 || f.init > INT32_MAX || f.lazy > INT32_MAX)
        return ORRI_READ_TORN;
    env.is_image = f.is_image == 1;
    env.init = (pid_t)f.init;
    env.init_start = f.init_start;
    env.lazy = (pid_t)f.lazy;
    env.lazy_start = f.lazy_start;
    *ret_env = env;
    return ORRI_READ_OK;
}

struct stop_fields {
    uint64_t cut, step, device, visible;
    struct field at[4];
};

static void stop_fields(struct stop_fields *f)
{
    const struct field at[] = {
        {"cut", &f->cut, NULL, 0},
        {"step", &f->step, NULL, 0},
        {"device", &f->device, NULL, 0},
        {"visible", &f->visible, NULL, 0},
    };
    memcpy(f->at, at, sizeof at);
}

int orri_stop_write(int dir, const struct orri_stop *stop)
{
    struct stop_fields f = {stop->cut, stop->step, stop->device, stop->visible, {{0}}};
    stop_fields(&f);
    return fields_write(dir, "stop", f.at, ORR_ARRAY_SIZE(f.at));
}

enum orri_read orri_stop_read(int dir, struct orri_stop *ret_stop)
{
    struct stop_fields f;
    stop_fields(&f);
    enum orri_read rc = fields_read(dir, "stop", f.at, ORR_ARRAY_SIZE(f.at));
    if (rc == ORRI_READ_TORN) { /* of an earlier build? */
        f.visible = 0;
        rc = fields_read(dir, "stop", f.at, ORR_ARRAY_SIZE(f.at) - 1);
    }
    if (rc != ORRI_READ_OK)
        return rc;
    if (f.step >= ORR_CUT_STEP_MAX_ || f.device > UINT32_MAX)
        return ORRI_READ_TORN;
    *ret_stop =
        (struct orri_stop){f.cut, (uint32_t)f.step, (uint32_t)f.device, f.visible};
    return ORRI_READ_OK;
}

int orri_image_note_write(int dir, const struct orri_image_note *note)
{
    struct orri_image_note copy = *note;
    const struct field at[] = {{"logs", NULL, copy.logs, sizeof copy.logs}};
    return fields_write(dir, "rank", at, ORR_ARRAY_SIZE(at));
}

enum orri_read orri_image_note_read(int dir, struct orri_image_note *ret_note)
{
    const struct field at[] = {{"logs", NULL, ret_note->logs, sizeof ret_note->logs}};
    enum orri_read rc = fields_read(dir, "rank", at, ORR_ARRAY_SIZE(at));
    return rc == ORRI_READ_OK && ret_note->logs[0] != '/' ? ORRI_READ_TORN : rc;
}

int orri_mark_set(int dir, const char *mark, bool is_set)
{
    if (!is_set)
        return unlinkat(dir, mark, 0) == 0 || errno == ENOENT ? 0 : errno;
    int fd = openat(dir, mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return errno;
    struct timespec times[2]; /* the kernel's own would be a tick old */
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[1] = times[0];
    int rc = futimens(fd, times) == 0 ? 0 : errno;
    close(fd);
    return rc;
}

bool orri_mark_get(int dir, const char *mark)
{
    return faccessat(dir, mark, F_OK, 0) == 0;
}

uint64_t orri_mark_unix_ms(int dir, const char *mark)
{
    struct stat st;
    if (fstatat(dir, mark, &st, 0) != 0)
        return UINT64_MAX;
    return (uint64_t)st.st_mtim.tv_sec * 1000 + (uint64_t)st.st_mtim.tv_nsec / 1000000;
}

int orri_status_reserve(int dir)
{
    static const char room[FIELDS_BYTES_MAX];
    int fd = openat(dir, "status.tmp", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return errno;
    ssize_t put = write(fd, room, sizeof room);
    int rc = put == (ssize_t)sizeof room ? 0 : put < 0 ? errno : ENOSPC;
    close(fd);
    return rc;
}

enum orri_read orri_status_read(int dir, struct orri_status *ret_status)
{
    struct orri_status status;
    struct status_fields s;
    status_fields(&s, status.reason);
    enum orri_read rc = fields_read(dir, "status", s.at, ORR_ARRAY_SIZE(s.at));
    if (rc != ORRI_READ_OK)
        return rc;
    bool has_ended = s.state == ORR_RANK_EXITED || s.state == ORR_RANK_FAILED ||
                     s.state == ORR_RANK_LOST;
    if (!has_ended || s.exit_code > 255 || s.signal > 64)
        return ORRI_READ_TORN;
    status.state = (uint32_t)s.state;
    status.exit_code = (int64_t)s.exit_code;
    status.signal = (uint32_t)s.signal;
    status.ended_unix_ms = s.ended;
    *ret_status = status;
    return ORRI_READ_OK;
}

/* ---- the directory
 * ---------------------------------------------------------------------- */

size_t orri_tail_read(int dir, char *buf, size_t cap)
{
    struct stat st;
    int fd = openat(dir, "stderr", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = 0;
    off_t from = 0;
    if (fstat(fd, &st) == 0 && st.st_size > 0) {
        from = st.st_size > (off_t)cap ? st.st_size - (off_t)cap : 0;
        n = pread(fd, buf, cap, from);
    }
    close(fd);
    size_t len = n > 0 ? (size_t)n : 0;
    char *line = from > 0 ? memchr(buf, '\n', len) : NULL;
    if (line && (size_t)(line + 1 - buf) < len) {
        len -= (size_t)(line + 1 - buf);
        memmove(buf, line + 1, len);
    }
    return len;
}

bool orri_dir_lock(int dir)
{
    return flock(dir, LOCK_EX | LOCK_NB) == 0;
}

/* Whatever is in it: CRIU leaves files, too, and what stays behind would be in the way of the rank's next visit. */
int orri_dir_remove(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *entry;
    if (!dir) {
        int error = errno;
        if (fd >= 0)
            close(fd);
        return error == ENOENT ? 0 : error;
    }
    while ((entry = readdir(dir)))
        unlinkat(fd, entry->d_name, 0); /* not "." and "..": they are directories */
    closedir(dir);
    return unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT ? 0 : errno;
}

uint64_t orri_dir_bytes(int dir)
{
    struct stat st;
    uint64_t bytes = 0;
    if (fstatat(dir, "stdout", &st, AT_SYMLINK_NOFOLLOW) == 0)
        bytes += (uint64_t)st.st_size;
    if (fstatat(dir, "stderr", &st, AT_SYMLINK_NOFOLLOW) == 0)
        bytes += (uint64_t)st.st_size;
    return bytes;
}

/* ---- the machine
 * ------------------------------------------------------------------------ */

uint64_t orri_proc_start(pid_t pid)
{
    char path[32], buf[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, buf, sizeof buf - 1);
    close(fd);
    buf[n > 0 ? n : 0] = '\0';
    /* The name, in parentheses, may hold anything; starttime is the 20th field after
     * it. */
    char *at = strrchr(buf, ')');
    for (int field = 0; at && field < 20; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at + 1, NULL, 10) : 0;
}

void orri_boot_id(char boot[ORRI_BOOT_MAX])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, boot, ORRI_BOOT_MAX - 1) : 0;
    if (fd >= 0)
        close(fd);
    boot[n > 0 ? n : 0] = '\0';
    boot[strcspn(boot, "\n")] = '\0';
}

static uint64_t clock_ms(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

uint64_t orri_unix_ms(void)
{
    return clock_ms(CLOCK_REALTIME);
}

uint64_t orri_mono_ms(void)
{
    return clock_ms(CLOCK_MONOTONIC);
}
