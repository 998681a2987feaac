/* SPDX-License-Identifier: Apache-2.0
 * device_emulated.c - device_emulated.h.
 *
 * <state>/emulated_devices has a line "<uuid> <path>" for each device ever made, in the order of their indexes; it is
 * written before a file is made, so that no file is ever left that `remove` would not find.
 */
#include "device_emulated.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <sys/random.h>
#include <unistd.h>

#include "device_file.h"
#include "device_helper.h"
#include "device_lib.h"
#include "device_sink.h"

enum { PATH_BYTES = 192 };

struct emulated {
    char uuid[48];
    char path[PATH_BYTES];
};

struct emulated_list {
    uint32_t n;
    struct emulated at[ORR_DEVICES_MAX];
};

struct device_emulated {
    struct orr_device base;
    struct emulated_list files;
    uint64_t memory_bytes;
    char type[64];
    char *paths;      /* owned: p0:p1:... */
    char *driver_dir; /* owned */
    char *preload;    /* owned; NULL: ranks reach the driver directly */
    char *real_cuda;  /* owned */
    char *real_nccl;  /* owned */
    struct orr_rec_env_var env[6];
    uint32_t n_env;
    struct orr_device_done_sink sink;
    struct orr_device_helper
        *helper; /* owned; the emulated driver is called from there, too */
};

void orr_device_uuid_text(const uint8_t uuid[16], char text[48])
{
    char *at = text + sprintf(text, "GPU-");
    for (int i = 0; i < 16; i++) {
        bool is_group = i == 4 || i == 6 || i == 8 || i == 10;
        at += sprintf(at, "%s%02x", is_group ? "-" : "", uuid[i]);
    }
}

static bool parse_uuid(const char *text, uint8_t uuid[16])
{
    char again[48];
    int n = 0;
    for (const char *at = text + 4; strlen(text) == 40 && n < 16; at += 2) {
        unsigned byte;
        if (*at == '-')
            at++;
        if (sscanf(at, "%2x", &byte) != 1)
            return false;
        uuid[n++] = (uint8_t)byte;
    }
    if (n < 16)
        return false;
    orr_device_uuid_text(uuid, again);
    return strcmp(text, again) == 0;
}

/* ---- the list in the state directory ---------------------------------------------------------- */

static enum orr_err
list_path(const char *state_dir, const char *suffix, char *path, struct orr_error *err)
{
    int n = snprintf(path, PATH_MAX, "%s/emulated_devices%s", state_dir, suffix);
    return n < PATH_MAX
               ? ORR_OK
               : orr_fail(err, ORR_EINVAL, "state_dir: %s: too long", state_dir);
}

static enum orr_err
list_read(const char *state_dir, struct emulated_list *list, struct orr_error *err)
{
    char path[PATH_MAX], line[PATH_BYTES + 64];
    uint8_t uuid[16];
    list->n = 0;
    enum orr_err rc = list_path(state_dir, "", path, err);
    if (rc != ORR_OK)
        return rc;
    FILE *file = fopen(path, "re");
    if (!file && errno == ENOENT)
        return ORR_OK;
    if (!file)
        return orr_fail(err, ORR_EIO, "%s: cannot read: %s", path, strerror(errno));
    while (rc == ORR_OK && fgets(line, sizeof line, file)) {
        struct emulated *at = &list->at[list->n];
        if (list->n == ORR_DEVICES_MAX || !strchr(line, '\n') ||
            sscanf(line, "%47s %191s", at->uuid, at->path) != 2 ||
            !parse_uuid(at->uuid, uuid))
            rc = orr_fail(
                err,
                ORR_EIO,
                "%s: line %u is damaged; remove the file and %s's device files",
                path,
                list->n + 1,
                state_dir);
        else
            list->n++;
    }
    fclose(file);
    return rc;
}

static enum orr_err list_write(const char *state_dir,
                               const struct emulated_list *list,
                               struct orr_error *err)
{
    char path[PATH_MAX], tmp[PATH_MAX];
    enum orr_err rc = list_path(state_dir, "", path, err);
    if (rc == ORR_OK)
        rc = list_path(state_dir, ".tmp", tmp, err);
    if (rc != ORR_OK)
        return rc;
    FILE *file = fopen(tmp, "we");
    for (uint32_t i = 0; file && i < list->n; i++)
        fprintf(file, "%s %s\n", list->at[i].uuid, list->at[i].path);
    if (!file || fclose(file) != 0 || rename(tmp, path) != 0)
        return orr_fail(err, ORR_EIO, "%s: cannot write: %s", path, strerror(errno));
    return ORR_OK;
}

/* ---- the files -------------------------------------------------------------------------------- */

static enum orr_err add_file(struct emulated_list *list,
                             const char *state_dir,
                             const char *file_dir,
                             struct orr_error *err)
{
    uint8_t uuid[16];
    struct emulated *at = &list->at[list->n];
    char *real = realpath(state_dir, NULL);
    if (!real || getrandom(uuid, sizeof uuid, 0) != (ssize_t)sizeof uuid) {
        free(real);
        return orr_fail(err,
                        ORR_EIO,
                        "state_dir: %s: %s; make it first",
                        state_dir,
                        strerror(errno));
    }
    orr_device_uuid_text(uuid, at->uuid);
    int n = snprintf(at->path,
                     sizeof at->path,
                     "%s/orrery-%016" PRIx64 "-%u",
                     file_dir,
                     orr_hash(orr_str(real)),
                     list->n);
    free(real);
    if (n >= (int)sizeof at->path || strpbrk(at->path, ": \n"))
        return orr_fail(err,
                        ORR_EINVAL,
                        "file_dir: %s: too long, or with a colon or a space",
                        file_dir);
    list->n++;
    return ORR_OK;
}

/* Use the file that is there if it is this device; make it anew otherwise, unless somebody uses it. */
static enum orr_err ensure_file(const struct device_emulated *device,
                                const struct emulated *at,
                                struct orr_error *err)
{
    struct emu_error why;
    struct emu_device_info info;
    uint8_t uuid[16];
    parse_uuid(at->uuid, uuid);
    uint64_t memory_bytes = device->memory_bytes / EMU_PAGE_BYTES * EMU_PAGE_BYTES;
    if (access(at->path, F_OK) == 0) {
        bool is_whole = emu_device_file_info(at->path, &info, NULL) == 0;
        if (is_whole && memcmp(info.uuid, uuid, sizeof uuid) == 0 &&
            info.memory_bytes == memory_bytes)
            return ORR_OK;
        if (is_whole && info.n_processes > 0)
            return orr_fail(err,
                            ORR_ESTATE,
                            "%s: process %d uses this device, which has %" PRIu64
                            " bytes and not %" PRIu64 "; stop it first",
                            at->path,
                            info.pids[0],
                            info.memory_bytes,
                            memory_bytes);
        if (emu_device_file_remove(at->path, &why) != 0)
            return orr_fail(err, ORR_EIO, "%s", why.text);
    }
    if (emu_device_file_create(at->path, uuid, device->type, memory_bytes, &why) != 0)
        return orr_fail(err, ORR_EIO, "%s", why.text);
    return ORR_OK;
}

static enum orr_err ensure_files(struct device_emulated *device,
                                 const struct orr_device_emulated_config *config,
                                 struct orr_error *err)
{
    struct emulated_list *list = &device->files;
    const char *file_dir = config->file_dir ? config->file_dir : "/dev/shm";
    enum orr_err rc = list_read(config->state_dir, list, err);
    uint32_t n_known = list->n;
    while (rc == ORR_OK && list->n < config->n)
        rc = add_file(list, config->state_dir, file_dir, err);
    if (rc == ORR_OK && list->n > n_known)
        rc = list_write(config->state_dir, list, err);
    for (uint32_t i = 0; i < config->n && rc == ORR_OK; i++)
        rc = ensure_file(device, &list->at[i], err);
    list->n = config->n; /* what was configured earlier stays on disk until remove */
    return rc;
}

enum orr_err orr_device_emulated_remove(const char *state_dir, struct orr_error *err)
{
    struct emulated_list list;
    char path[PATH_MAX];
    enum orr_err rc = list_read(state_dir, &list, err);
    for (uint32_t i = 0; i < list.n && rc == ORR_OK; i++) {
        struct emu_error why;
        int error = emu_device_file_remove(list.at[i].path, &why);
        if (error != 0 && error != -ENOENT)
            rc = orr_fail(err, ORR_EIO, "%s", why.text);
    }
    if (rc == ORR_OK)
        rc = list_path(state_dir, "", path, err);
    if (rc == ORR_OK && unlink(path) != 0 && errno != ENOENT)
        rc = orr_fail(err, ORR_EIO, "%s: cannot remove: %s", path, strerror(errno));
    return rc;
}

/* ---- the op table ------------------------------------------------------------------------------ */

static enum orr_err emulated_probe(struct orr_device *base,
                                   struct orr_device_list *ret_list,
                                   struct orr_error *err)
{
    struct device_emulated *device = (struct device_emulated *)base;
    (void)err;
    for (uint32_t i = 0; i < device->files.n; i++) {
        struct orr_device_info *info = &ret_list->at[i];
        struct emu_device_info file;
        struct emu_error why;
        *info =
            (struct orr_device_info){.index = i, .memory_bytes = device->memory_bytes};
        memcpy(info->uuid, device->files.at[i].uuid, sizeof info->uuid);
        memcpy(info->type, device->type, sizeof info->type);
        info->is_healthy =
            emu_device_file_info(device->files.at[i].path, &file, &why) == 0;
        if (info->is_healthy)
            info->memory_bytes = file.memory_bytes;
        else
            orr_str_copy(info->trouble, sizeof info->trouble, orr_str(why.text));
    }
    ret_list->n = device->files.n;
    return ORR_OK;
}

static struct orr_list_env_var emulated_rank_env(struct orr_device *base)
{
    struct device_emulated *device = (struct device_emulated *)base;
    return (struct orr_list_env_var){device->env, device->files.n ? device->n_env : 0};
}

static void emulated_attach(struct orr_device *base, orr_device_done_f done, void *arg)
{
    orr_device_sink_set(&((struct device_emulated *)base)->sink, done, arg);
}

/* The file knows.  As with a real driver, a process that only sees the device does not use it: a resized job's ranks still see
 * those that they have left. */
static void tell_usage(struct device_emulated *device,
                       const struct orr_device_request *q)
{
    struct orr_device_result r = {.ticket = q->ticket, .code = ORR_ENOENT};
    struct emu_device_info info = {.n_processes = 0};
    struct emu_error why = {"no such device"};
    if (q->index < device->files.n)
        r.code = emu_device_file_info(device->files.at[q->index].path, &info, &why) == 0
                     ? ORR_OK
                     : ORR_EIO;
    if (r.code != ORR_OK)
        orr_str_copy(r.text, sizeof r.text, orr_str(why.text));
    r.bytes = info.memory_bytes - info.free_bytes;
    for (unsigned i = 0; i < info.n_processes; i++)
        r.processes += info.holds[i];
    orr_device_sink_tell(&device->sink, &r);
}

static enum orr_err emulated_ask(struct orr_device *base,
                                 const struct orr_device_request *request,
                                 struct orr_error *err)
{
    struct device_emulated *device = (struct device_emulated *)base;
    if (request->op != ORR_DEVICE_USAGE)
        return orr_device_helper_ask(device->helper, request, err);
    tell_usage(device, request);
    return ORR_OK;
}

static void emulated_close(struct orr_device *base)
{
    struct device_emulated *device = (struct device_emulated *)base;
    orr_device_helper_free(device->helper);
    free(device->paths);
    free(device->driver_dir);
    free(device->preload);
    free(device->real_cuda);
    free(device->real_nccl);
    free(device);
}

static const struct orr_device_ops emulated_ops = {
    .probe = emulated_probe,
    .rank_env = emulated_rank_env,
    .attach = emulated_attach,
    .ask = emulated_ask,
    .close = emulated_close,
};

/* What stands before the emulator's libraries, and where it finds them. */
static enum orr_err set_preload(struct device_emulated *device, struct orr_error *err)
{
    device->preload = orr_device_preload();
    if (!device->preload)
        return ORR_OK;
    if (asprintf(&device->real_cuda, "%s/libcuda.so.1", device->driver_dir) < 0 ||
        asprintf(&device->real_nccl, "%s/libnccl.so.2", device->driver_dir) < 0)
        return orr_fail(err, ORR_ENOMEM, "emulated devices: out of memory");
    struct orr_rec_env_var *env = device->env + device->n_env;
    env[0] = (struct orr_rec_env_var){ORR_LIT("LD_PRELOAD"), orr_str(device->preload)};
    env[1] = (struct orr_rec_env_var){ORR_LIT("ORRERY_REAL_LIBCUDA"),
                                      orr_str(device->real_cuda)};
    env[2] = (struct orr_rec_env_var){ORR_LIT("ORRERY_REAL_LIBNCCL"),
                                      orr_str(device->real_nccl)};
    device->n_env += 3;
    return ORR_OK;
}

static enum orr_err
set_env(struct device_emulated *device, const char *driver_dir, struct orr_error *err)
{
    size_t len = 0;
    device->driver_dir = driver_dir ? strdup(driver_dir) : orr_device_lib("emulator");
    device->paths = malloc((size_t)device->files.n * PATH_BYTES + 1);
    if (!device->driver_dir || !device->paths)
        return orr_fail(err, ORR_ENOMEM, "emulated devices: out of memory");
    device->paths[0] = '\0';
    for (uint32_t i = 0; i < device->files.n; i++)
        len += (size_t)sprintf(
            device->paths + len, "%s%s", i ? ":" : "", device->files.at[i].path);
    device->env[0] = (struct orr_rec_env_var){ORR_LIT("ORRERY_EMULATOR_DEVICES"),
                                              orr_str(device->paths)};
    device->env[1] = (struct orr_rec_env_var){ORR_LIT("LD_LIBRARY_PATH"),
                                              orr_str(device->driver_dir)};
    device->n_env = 2;
    return set_preload(device, err);
}

static enum orr_err start_helper(struct device_emulated *device, struct orr_error *err)
{
    char driver[PATH_MAX];
    pthread_mutex_init(&device->sink.lock, NULL);
    snprintf(driver, sizeof driver, "%s/libcuda.so.1", device->driver_dir);
    const struct orr_device_helper_config config = {
        .driver = driver,
        .env = {device->env, 1}, /* the devices */
        .done = orr_device_sink_tell,
        .arg = &device->sink};
    return orr_device_helper_new(&config, &device->helper, err);
}

enum orr_err orr_device_emulated_open(const struct orr_device_emulated_config *config,
                                      struct orr_device **ret_device,
                                      struct orr_error *err)
{
    if (config->n > ORR_DEVICES_MAX)
        return orr_fail(err,
                        ORR_EINVAL,
                        "emulated devices: %u, at most %d",
                        config->n,
                        ORR_DEVICES_MAX);
    struct device_emulated *device = calloc(1, sizeof *device);
    if (!device)
        return orr_fail(err, ORR_ENOMEM, "emulated devices: out of memory");
    device->base.ops = &emulated_ops;
    device->memory_bytes = config->memory_bytes;
    orr_str_copy(device->type,
                 sizeof device->type,
                 orr_str(config->type ? config->type : "emulated"));
    enum orr_err rc = ensure_files(device, config, err);
    if (rc == ORR_OK)
        rc = set_env(device, config->driver_dir, err);
    if (rc == ORR_OK)
        rc = start_helper(device, err);
    if (rc != ORR_OK) {
        emulated_close(&device->base);
        return rc;
    }
    *ret_device = &device->base;
    return ORR_OK;
}
