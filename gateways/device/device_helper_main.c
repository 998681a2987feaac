/* SPDX-License-Identifier: Apache-2.0
 * device_helper_main.c - the process of device_helper.h: the driver, initialized once, and a thread for each request.
 *
 * The main thread reads requests and keeps the deadlines; a request is answered by whoever is first, the thread that does it or the
 * deadline. A thread whose request was given up undoes a suspend that came about after all, so that nobody is left locked.
 */
#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "device_helper.h"
#include "orrery/gpu_abi.h"

enum { STACK_BYTES = 256 << 10, DEVICES_MAX = 64 };

static struct {
    enum orr_err code; /* ORR_ENODEV: no driver or no device; nobody can be using one */
    char text[200];
    CUresult (*init)(unsigned flags);
    CUresult (*error_name)(CUresult error, const char **text);
    CUresult (*count)(int *n);
    CUresult (*device)(CUdevice *device, int ordinal);
    CUresult (*uuid)(CUuuid *uuid, CUdevice device);
    CUresult (*get_thread)(int pid, int *tid);
    CUresult (*get_state)(int pid, CUprocessState *state);
    CUresult (*lock)(int pid, CUcheckpointLockArgs *args);
    CUresult (*checkpoint)(int pid, CUcheckpointCheckpointArgs *args);
    CUresult (*restore)(int pid, CUcheckpointRestoreArgs *args);
    CUresult (*unlock)(int pid, CUcheckpointUnlockArgs *args);
} driver;

/* The few calls of NVML that tell who uses a device; its own numbers. */
struct nvml_process {
    unsigned pid;
    unsigned long long bytes; /* all ones: not known */
    unsigned gpu_instance, compute_instance;
};
static struct {
    int (*by_index)(unsigned index, void **device);
    int (*processes)(void *device, unsigned *n, struct nvml_process *ret);
} nvml;

enum job_state { JOB_FREE, JOB_RUNS, JOB_ANSWERED, JOB_GIVEN_UP };

struct job {
    _Atomic int state; /* enum job_state; RUNS is left by one compare-and-swap */
    uint64_t deadline_ms;
    struct orr_device_request request;
};
static struct job jobs[ORRI_HELPER_REQUESTS_MAX];

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- the driver ----------------------------------------------------------------------------- */

static bool resolve(void *lib, const char *name, void *ret_function)
{
    void *symbol = lib ? dlsym(lib, name) : NULL;
    memcpy(ret_function, &symbol, sizeof symbol);
    return symbol != NULL;
}

static void load_nvml(void)
{
    int (*init)(void);
    void *lib = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!resolve(lib, "nvmlInit_v2", &init) || init() != 0 ||
        !resolve(lib, "nvmlDeviceGetComputeRunningProcesses_v3", &nvml.processes) ||
        !resolve(lib, "nvmlDeviceGetHandleByIndex_v2", &nvml.by_index))
        nvml.processes = NULL;
}

static void set_trouble(enum orr_err code, const char *text)
{
    driver.code = code;
    snprintf(driver.text, sizeof driver.text, "%s", text);
}

static void load_driver(const char *path)
{
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!resolve(lib, "cuInit", &driver.init) ||
        !resolve(lib, "cuGetErrorName", &driver.error_name)) {
        set_trouble(ORR_ENODEV, "no GPU driver");
        return;
    }
    setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 1); /* as in rank_env */
    CUresult rc = driver.init(0);
    if (rc == CUDA_ERROR_NO_DEVICE)
        set_trouble(ORR_ENODEV, "the driver sees no GPU");
    else if (rc != CUDA_SUCCESS)
        set_trouble(ORR_EIO, "cuInit fails; see nvidia-smi and the kernel's log");
    else if (!resolve(
                 lib, "cuCheckpointProcessGetRestoreThreadId", &driver.get_thread) ||
             !resolve(lib, "cuCheckpointProcessGetState", &driver.get_state) ||
             !resolve(lib, "cuCheckpointProcessLock", &driver.lock) ||
             !resolve(lib, "cuCheckpointProcessCheckpoint", &driver.checkpoint) ||
             !resolve(lib, "cuCheckpointProcessRestore", &driver.restore) ||
             !resolve(lib, "cuCheckpointProcessUnlock", &driver.unlock))
        set_trouble(ORR_ENOSYS,
                    "this GPU driver cannot suspend processes; 570 and later can");
    if (!resolve(lib, "cuDeviceGetCount", &driver.count) ||
        !resolve(lib, "cuDeviceGet", &driver.device) ||
        !resolve(lib, "cuDeviceGetUuid_v2", &driver.uuid))
        driver.count = NULL;
    load_nvml();
}

/* The one place where the driver's errors become ours. */
static enum orr_err code_of(CUresult rc)
{
    switch ((int)rc) {
    case CUDA_SUCCESS:
        return ORR_OK;
    case CUDA_ERROR_NOT_READY:
    case CUDA_ERROR_TIMEOUT:
        return ORR_ETIMEOUT;
    case CUDA_ERROR_OUT_OF_MEMORY:
        return ORR_ENOMEM;
    case CUDA_ERROR_NOT_SUPPORTED:
        return ORR_ENOSYS;
    case CUDA_ERROR_ILLEGAL_STATE:
        return ORR_ESTATE;
    case CUDA_ERROR_NOT_PERMITTED:
        return ORR_EPERM;
    default:
        return ORR_EIO;
    }
}

ORR_PRINTF(3, 4)
static void say(struct orr_device_result *r, enum orr_err code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(r->text, sizeof r->text, format, args);
    va_end(args);
    r->code = code;
}

static bool
went_well(struct orr_device_result *r, uint32_t pid, CUresult rc, const char *what)
{
    const char *name = NULL;
    if (rc == CUDA_SUCCESS)
        return true;
    driver.error_name(rc, &name);
    say(r, code_of(rc), "process %u: cannot %s it: %s", pid, what, name ? name : "?");
    return false;
}

/* ---- suspend, resume, usage -------------------------------------------------------------------- */

/* False: the driver keeps nothing of this process, or cannot be asked (then r says so). */
static bool
is_user(uint32_t pid, struct orr_device_result *r, CUprocessState *ret_state)
{
    int tid = 0;
    if (driver.code == ORR_ENODEV)
        return false;
    if (driver.code) {
        say(r, driver.code, "%s", driver.text);
        return false;
    }
    /* A state is given for processes without CUDA, too; the thread only for users. */
    return driver.get_thread((int)pid, &tid) == CUDA_SUCCESS &&
           went_well(r, pid, driver.get_state((int)pid, ret_state), "look at");
}

static void suspend(const struct orr_device_request *q, struct orr_device_result *r)
{
    CUprocessState state = CU_PROCESS_STATE_RUNNING;
    CUcheckpointLockArgs lock = {.timeoutMs = q->timeout_ms ? q->timeout_ms : 1};
    CUcheckpointCheckpointArgs save = {{0}};
    CUcheckpointUnlockArgs unlock = {{0}};
    int pid = (int)q->pid;
    if (!is_user(q->pid, r, &state) || state == CU_PROCESS_STATE_CHECKPOINTED)
        return;
    if (state != CU_PROCESS_STATE_LOCKED &&
        !went_well(r, q->pid, driver.lock(pid, &lock), "lock"))
        return;
    if (!went_well(r, q->pid, driver.checkpoint(pid, &save), "suspend"))
        driver.unlock(pid, &unlock);
}

static bool uuid_of(const char *text, CUuuid *ret)
{
    size_t n = 0;
    if (strncmp(text, "GPU-", 4) != 0)
        return false;
    for (text += 4; *text && n < 16; n++) {
        unsigned byte;
        text += *text == '-';
        if (sscanf(text, "%2x", &byte) != 1 || !text[1])
            return false;
        ret->bytes[n] = (char)byte;
        text += 2;
    }
    return n == 16 && *text == '\0';
}

/* For each device that the process may see, which is each of this machine (a container's, too: the driver has noted them all): the
 * two change places, the others stay.  One that comes from another machine has only that one in common with this.  How many. */
static unsigned list_pairs(const CUcheckpointGpuPair *move, CUcheckpointGpuPair *pairs)
{
    int n = 0, n_found = 0;
    if (!driver.count || driver.count(&n) != CUDA_SUCCESS || n > DEVICES_MAX)
        n = 0;
    for (int i = 0; i < n; i++) {
        CUdevice device;
        CUuuid uuid;
        if (driver.device(&device, i) != CUDA_SUCCESS ||
            driver.uuid(&uuid, device) != CUDA_SUCCESS)
            return 0;
        bool is_old = memcmp(&uuid, &move->oldUuid, sizeof uuid) == 0;
        bool is_new = memcmp(&uuid, &move->newUuid, sizeof uuid) == 0;
        n_found += is_old || is_new;
        pairs[i].oldUuid = uuid;
        pairs[i].newUuid = is_old ? move->newUuid : is_new ? move->oldUuid : uuid;
    }
    return n_found == 2 ? (unsigned)n : 0;
}

/* A process that can see one device only may have to be told of no other. */
static CUresult restore_on(int pid, CUcheckpointGpuPair *move)
{
    CUcheckpointGpuPair pairs[DEVICES_MAX];
    CUcheckpointRestoreArgs all = {.gpuPairs = pairs, .gpuPairsCount = 0};
    CUcheckpointRestoreArgs one = {.gpuPairs = move, .gpuPairsCount = 1};
    all.gpuPairsCount = list_pairs(move, pairs);
    CUresult rc =
        all.gpuPairsCount ? driver.restore(pid, &all) : CUDA_ERROR_INVALID_VALUE;
    return rc == CUDA_ERROR_INVALID_VALUE ? driver.restore(pid, &one) : rc;
}

/* How many pairs; 0: the lists are none, or not equally long. */
static unsigned
pairs_of(char *from, char *to, CUcheckpointGpuPair pairs[ORR_DEVICES_MAX])
{
    char *rest_from = NULL, *rest_to = NULL;
    const char *old = strtok_r(from, ",", &rest_from),
               *new = strtok_r(to, ",", &rest_to);
    unsigned n = 0;
    for (; old && new &&n < ORR_DEVICES_MAX; n++) {
        if (!uuid_of(old, &pairs[n].oldUuid) || !uuid_of(new, &pairs[n].newUuid))
            return 0;
        old = strtok_r(NULL, ",", &rest_from);
        new = strtok_r(NULL, ",", &rest_to);
    }
    return old || new ? 0 : n;
}

static void resume(const struct orr_device_request *q, struct orr_device_result *r)
{
    CUprocessState state = CU_PROCESS_STATE_RUNNING;
    CUcheckpointGpuPair pairs[ORR_DEVICES_MAX];
    char from[sizeof q->from], to[sizeof q->to];
    CUcheckpointRestoreArgs restore = {.gpuPairs = NULL};
    CUcheckpointUnlockArgs unlock = {{0}};
    int pid = (int)q->pid;
    if (!is_user(q->pid, r, &state) || state == CU_PROCESS_STATE_RUNNING)
        return;
    if (q->to[0] && strcmp(q->from, q->to) != 0) {
        memcpy(from, q->from, sizeof from);
        memcpy(to, q->to, sizeof to);
        restore.gpuPairs = pairs;
        restore.gpuPairsCount = pairs_of(from, to, pairs);
        if (restore.gpuPairsCount == 0) {
            say(r, ORR_EINVAL, "%.100s, %.100s: not uuids of devices", q->from, q->to);
            return;
        }
    }
    if (state == CU_PROCESS_STATE_FAILED)
        say(r,
            ORR_ECRASH,
            "process %u: the driver has lost it; restore a checkpoint",
            q->pid);
    else if (state == CU_PROCESS_STATE_LOCKED ||
             went_well(r,
                       q->pid,
                       restore.gpuPairsCount == 1 ? restore_on(pid, pairs)
                                                  : driver.restore(pid, &restore),
                       "resume"))
        went_well(r, q->pid, driver.unlock(pid, &unlock), "unlock");
}

static void usage(const struct orr_device_request *q, struct orr_device_result *r)
{
    enum { PROCESSES_MAX = 256 };
    struct nvml_process at[PROCESSES_MAX];
    unsigned n = PROCESSES_MAX;
    void *device = NULL;
    if (!nvml.processes || nvml.by_index(q->index, &device) != 0 ||
        nvml.processes(device, &n, at) != 0) {
        say(r, ORR_ENOSYS, "device %u: NVML does not tell who uses it", q->index);
        return;
    }
    for (unsigned i = 0; i < n && i < PROCESSES_MAX; i++) {
        if (at[i].pid == (unsigned)getpid())
            continue;
        r->processes++;
        r->bytes += at[i].bytes == UINT64_MAX ? 0 : at[i].bytes;
    }
}

/* ---- jobs ------------------------------------------------------------------------------------------- */

static void answer(const struct orr_device_result *r)
{
    if (send(ORRI_HELPER_FD, r, sizeof *r, MSG_NOSIGNAL) < 0)
        _exit(0); /* the host is gone; whatever is locked unlocks when it comes back */
}

static bool leave(struct job *job, int to)
{
    int runs = JOB_RUNS;
    return atomic_compare_exchange_strong(&job->state, &runs, to);
}

static void *work(void *arg)
{
    struct job *job = arg;
    const struct orr_device_request *q = &job->request;
    struct orr_device_result r = {.ticket = q->ticket, .code = ORR_OK};
    if (q->op == ORR_DEVICE_SUSPEND)
        suspend(q, &r);
    else if (q->op == ORR_DEVICE_RESUME)
        resume(q, &r);
    else
        usage(q, &r);
    bool is_in_time = leave(job, JOB_ANSWERED);
    if (!is_in_time && q->op == ORR_DEVICE_SUSPEND && r.code == ORR_OK)
        resume(q, &(struct orr_device_result){.code = ORR_OK});
    atomic_store(&job->state,
                 JOB_FREE); /* before the answer: who hears it may ask again */
    if (is_in_time)
        answer(&r);
    return NULL;
}

static void
refuse(const struct orr_device_request *q, enum orr_err code, const char *text)
{
    struct orr_device_result r = {.ticket = q->ticket};
    say(&r, code, "process %u: %s", q->pid, text);
    answer(&r);
}

/* An earlier call for this process is still in the driver. */
static bool is_taken(const struct orr_device_request *q)
{
    for (size_t i = 0; i < ORRI_HELPER_REQUESTS_MAX; i++)
        if (atomic_load(&jobs[i].state) != JOB_FREE && q->op != ORR_DEVICE_USAGE &&
            jobs[i].request.pid == q->pid && jobs[i].request.op != ORR_DEVICE_USAGE)
            return true;
    return false;
}

static void begin(const struct orr_device_request *q)
{
    pthread_t thread;
    pthread_attr_t attr;
    size_t i = 0;
    while (i < ORRI_HELPER_REQUESTS_MAX && atomic_load(&jobs[i].state) != JOB_FREE)
        i++;
    if (i == ORRI_HELPER_REQUESTS_MAX || is_taken(q)) {
        refuse(
            q, ORR_EBUSY, "the GPU driver has not come back from an earlier request");
        return;
    }
    jobs[i].request = *q;
    jobs[i].deadline_ms = now_ms() + q->timeout_ms;
    atomic_store(&jobs[i].state, JOB_RUNS);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &attr, work, &jobs[i]) != 0) {
        atomic_store(&jobs[i].state, JOB_FREE);
        refuse(q, ORR_ENOMEM, "no thread for it");
    }
    pthread_attr_destroy(&attr);
}

/* Gives up what is late; until the next deadline, -1: none. */
static int check_deadlines(void)
{
    uint64_t now = now_ms(), first = UINT64_MAX;
    for (size_t i = 0; i < ORRI_HELPER_REQUESTS_MAX; i++) {
        if (atomic_load(&jobs[i].state) != JOB_RUNS)
            continue;
        struct orr_device_request late = jobs[i].request;
        if (jobs[i].deadline_ms > now)
            first = jobs[i].deadline_ms < first ? jobs[i].deadline_ms : first;
        else if (leave(&jobs[i], JOB_GIVEN_UP))
            refuse(&late, ORR_ETIMEOUT, "the GPU driver did not come back in time");
    }
    if (first == UINT64_MAX)
        return -1;
    return first - now < INT32_MAX ? (int)(first - now) : INT32_MAX;
}

int orr_device_helper_main(int argc, char **argv)
{
    struct orr_device_request q;
    if (argc != 3)
        return 2;
    load_driver(argv[2]);
    for (;;) {
        struct pollfd p = {.fd = ORRI_HELPER_FD, .events = POLLIN};
        if (poll(&p, 1, check_deadlines()) <= 0)
            continue;
        ssize_t n = recv(ORRI_HELPER_FD, &q, sizeof q, 0);
        if (n <= 0)
            return 0; /* the host has ended */
        q.from[sizeof q.from - 1] = q.to[sizeof q.to - 1] = '\0';
        if (n == (ssize_t)sizeof q)
            begin(&q);
    }
}
