/* SPDX-License-Identifier: Apache-2.0
 * splice_machine.c - see splice_machine.h: what the engine calls of the driver.
 */
#include "splice_machine_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "orr_test.h"

struct machine machine;
struct orri_driver orri_cu;

enum { GRAIN = 4096 };

/* ---- streams and memory ---- */

struct item *machine_add(CUstream stream, enum kind kind)
{
    uint32_t index = (uint32_t)((uintptr_t)stream - 1);
    struct stream *s = &machine.streams[index];
    assert_true(index < machine.n_streams && machine.n_items + 1 < ITEMS);
    uint32_t number = ++machine.n_items;
    struct item *item = &machine.items[number];
    memset(item, 0, sizeof(*item));
    item->kind = kind;
    item->stream = index;
    item->tick = ++s->n;
    if (s->tail)
        machine.items[s->tail].next = number;
    else
        s->head = number;
    s->tail = number;
    return item;
}

static CUresult stream_create(CUstream *ret, unsigned flags)
{
    (void)flags;
    assert_true(machine.n_streams < MACHINE_STREAMS);
    machine.streams[machine.n_streams] = (struct stream){.rank = machine.rank};
    *ret = (CUstream)(uintptr_t)++machine.n_streams;
    return CUDA_SUCCESS;
}

CUstream machine_stream(void)
{
    CUstream stream;
    stream_create(&stream, 0);
    return stream;
}

static struct region *
add_region(char *at, size_t bytes, uint64_t memory, bool is_mapped)
{
    assert_true(machine.n_regions < REGIONS);
    struct region *r = &machine.regions[machine.n_regions++];
    *r = (struct region){at, bytes, memory, is_mapped};
    return r;
}

void *machine_memory(size_t bytes)
{
    char *at = calloc(1, bytes ? bytes : 1);
    assert_non_null(at);
    add_region(at, bytes, (uint64_t)(uintptr_t)at, false);
    return at;
}

bool machine_where(const void *at, uint64_t *ret_memory, size_t *ret_offset)
{
    for (uint32_t i = machine.n_regions; i-- > 0;) {
        const struct region *r = &machine.regions[i];
        if ((const char *)at >= r->at && (const char *)at < r->at + r->bytes) {
            *ret_memory = r->memory;
            *ret_offset = (size_t)((const char *)at - r->at);
            return true;
        }
    }
    return false;
}

/* ---- the driver ---- */

static CUresult get_error_name(CUresult error, const char **ret)
{
    (void)error;
    *ret = "an error";
    return CUDA_SUCCESS;
}

static CUresult ctx_get(CUcontext *ret)
{
    *ret = (CUcontext)(uintptr_t)(machine.rank + 1);
    return CUDA_SUCCESS;
}

static CUresult ctx_set(CUcontext ctx)
{
    machine.rank = (int)(uintptr_t)ctx - 1;
    return CUDA_SUCCESS;
}

static CUresult ctx_device(CUdevice *ret)
{
    *ret = 0;
    return CUDA_SUCCESS;
}

static CUresult granularity(size_t *ret,
                            const CUmemAllocationProp *prop,
                            CUmemAllocationGranularity_flags flags)
{
    (void)prop;
    (void)flags;
    *ret = GRAIN;
    return CUDA_SUCCESS;
}

/* A handle is a descriptor; which memory it is, is the number of its file. */
static CUresult mem_create(CUmemGenericAllocationHandle *ret,
                           size_t bytes,
                           const CUmemAllocationProp *prop,
                           unsigned long long flags)
{
    (void)prop;
    (void)flags;
    int fd = memfd_create("scratch", MFD_CLOEXEC);
    assert_true(fd > 0 && ftruncate(fd, (off_t)bytes) == 0);
    *ret = (CUmemGenericAllocationHandle)fd;
    return CUDA_SUCCESS;
}

static CUresult mem_release(CUmemGenericAllocationHandle handle)
{
    close((int)handle);
    return CUDA_SUCCESS;
}

static CUresult mem_export(void *ret,
                           CUmemGenericAllocationHandle handle,
                           CUmemAllocationHandleType type,
                           unsigned long long flags)
{
    (void)type;
    (void)flags;
    *(int *)ret = dup((int)handle);
    return CUDA_SUCCESS;
}

static CUresult mem_import(CUmemGenericAllocationHandle *ret,
                           void *os_handle,
                           CUmemAllocationHandleType type)
{
    (void)type;
    *ret = (CUmemGenericAllocationHandle)dup((int)(uintptr_t)os_handle);
    return CUDA_SUCCESS;
}

static CUresult mem_reserve(CUdeviceptr *ret,
                            size_t bytes,
                            size_t alignment,
                            CUdeviceptr at,
                            unsigned long long flags)
{
    (void)alignment;
    (void)at;
    (void)flags;
    void *p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    *ret = (CUdeviceptr)(uintptr_t)p;
    return CUDA_SUCCESS;
}

static CUresult mem_free(CUdeviceptr at, size_t bytes)
{
    munmap((void *)(uintptr_t)at, bytes);
    return CUDA_SUCCESS;
}

static CUresult mem_map(CUdeviceptr at,
                        size_t bytes,
                        size_t offset,
                        CUmemGenericAllocationHandle handle,
                        unsigned long long flags)
{
    struct stat stat;
    (void)flags;
    void *p = mmap((void *)(uintptr_t)at,
                   bytes,
                   PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_FIXED,
                   (int)handle,
                   (off_t)offset);
    assert_true(p == (void *)(uintptr_t)at && fstat((int)handle, &stat) == 0);
    add_region(p, bytes, stat.st_ino, true);
    return CUDA_SUCCESS;
}

static CUresult mem_unmap(CUdeviceptr at, size_t bytes)
{
    (void)at;
    (void)bytes;
    return CUDA_SUCCESS;
}

static CUresult
mem_access(CUdeviceptr at, size_t bytes, const CUmemAccessDesc *desc, size_t n)
{
    (void)at;
    (void)bytes;
    (void)desc;
    (void)n;
    return CUDA_SUCCESS;
}

/* Before anybody else has it: at once. */
static CUresult mem_set(CUdeviceptr at, unsigned char value, size_t n, CUstream stream)
{
    (void)stream;
    memset((void *)(uintptr_t)at, value, n);
    return CUDA_SUCCESS;
}

static CUresult
mem_copy(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    struct item *item = machine_add(stream, ITEM_COPY);
    item->to = (char *)(uintptr_t)to;
    item->in[0] = (const char *)(uintptr_t)from;
    item->n_in = 1;
    item->bytes = bytes;
    return CUDA_SUCCESS;
}

static CUresult stream_ok(CUstream stream)
{
    (void)stream;
    return CUDA_SUCCESS;
}

static CUresult
batch(CUstream stream, unsigned n, CUstreamBatchMemOpParams *op, unsigned flags)
{
    (void)flags;
    for (unsigned i = 0; i < n; i++) {
        bool waits = op[i].operation == CU_STREAM_MEM_OP_WAIT_VALUE_32;
        struct item *item = machine_add(stream, waits ? ITEM_WAIT : ITEM_WRITE);
        item->to = (char *)(uintptr_t)(waits ? op[i].waitValue.address
                                             : op[i].writeValue.address);
        item->value = waits ? op[i].waitValue.value : op[i].writeValue.value;
        item->equals = waits && op[i].waitValue.flags == CU_STREAM_WAIT_VALUE_EQ;
    }
    return CUDA_SUCCESS;
}

struct event {
    uint32_t item;
};

static CUresult event_create(CUevent *ret, unsigned flags)
{
    (void)flags;
    *ret = calloc(1, sizeof(struct event));
    return CUDA_SUCCESS;
}

static CUresult event_destroy(CUevent event)
{
    free(event);
    return CUDA_SUCCESS;
}

static CUresult event_record(CUevent event, CUstream stream)
{
    machine_add(stream, ITEM_EVENT);
    ((struct event *)event)->item = machine.n_items;
    return CUDA_SUCCESS;
}

static CUresult event_wait(CUstream stream, CUevent event, unsigned flags)
{
    (void)flags;
    uint32_t of = ((struct event *)event)->item;
    machine_add(stream, ITEM_EVENT)->event = of;
    return CUDA_SUCCESS;
}

/* A function is its name: "sum_i32". */
static CUresult module_load(CUmodule *ret, const void *image)
{
    (void)image;
    *ret = (CUmodule)(uintptr_t)1;
    return CUDA_SUCCESS;
}

static CUresult module_unload(CUmodule module)
{
    (void)module;
    return CUDA_SUCCESS;
}

static CUresult module_function(CUfunction *ret, CUmodule module, const char *name)
{
    static const char *const names[] = {"sum_i32", "mul_i32", "div_i32"};
    (void)module;
    *ret = NULL;
    for (uintptr_t i = 0; i < 3; i++)
        if (strcmp(name, names[i]) == 0)
            *ret = (CUfunction)(i + 1);
    return CUDA_SUCCESS;
}

/* The parameters: kernels.c. */
static CUresult launch(CUfunction fn,
                       unsigned gx,
                       unsigned gy,
                       unsigned gz,
                       unsigned bx,
                       unsigned by,
                       unsigned bz,
                       unsigned shared,
                       CUstream stream,
                       void **params,
                       void **extra)
{
    (void)gx, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)shared,
        (void)extra;
    bool combines = (uintptr_t)fn == 1;
    assert_non_null(fn); /* another type, or another operator */
    struct item *item = machine_add(stream, combines ? ITEM_COMBINE : ITEM_EACH);
    item->to = *(char **)params[0];
    item->n_in = combines ? (int)*(uint32_t *)params[10] : 1;
    for (int i = 0; i < item->n_in; i++)
        item->in[i] = *(const char **)params[1 + i];
    item->bytes = *(uint64_t *)params[combines ? 9 : 2] * sizeof(int32_t);
    if (!combines) {
        item->value = (uint32_t) * (uint64_t *)params[3];
        item->scalar_at = *(const uint32_t **)params[4];
        item->divides = (uintptr_t)fn == 3;
    }
    return CUDA_SUCCESS;
}

void machine_call(CUstream stream,
                  void (*fn)(void *arg),
                  void *take_arg,
                  const void *at,
                  size_t bytes,
                  bool is_write)
{
    struct item *item = machine_add(stream, ITEM_CALL);
    item->fn = fn;
    item->arg = take_arg;
    item->to = (char *)(uintptr_t)at;
    item->bytes = bytes;
    item->is_write = is_write;
}

/* ---- what the engine finds ---- */

ncclResult_t orri_driver_ready(void)
{
    return ncclSuccess;
}

ncclResult_t orri_driver_check(const char *what, CUresult result)
{
    if (result != CUDA_SUCCESS)
        fail_msg("%s: %d", what, (int)result);
    return ncclSuccess;
}

/* Nobody waits for long in here. */
uint64_t orri_nccl_now_ms(void)
{
    return 0;
}

ncclResult_t orri_nccl_fail(ncclResult_t code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return code;
}

static void install(void)
{
    orri_cu = (struct orri_driver){.GetErrorName = get_error_name,
                                   .CtxGetCurrent = ctx_get,
                                   .CtxSetCurrent = ctx_set,
                                   .CtxGetDevice = ctx_device,
                                   .MemGetAllocationGranularity = granularity,
                                   .MemCreate = mem_create,
                                   .MemRelease = mem_release,
                                   .MemAddressReserve = mem_reserve,
                                   .MemAddressFree = mem_free,
                                   .MemMap = mem_map,
                                   .MemUnmap = mem_unmap,
                                   .MemSetAccess = mem_access,
                                   .MemExportToShareableHandle = mem_export,
                                   .MemImportFromShareableHandle = mem_import,
                                   .MemsetD8Async = mem_set,
                                   .MemcpyDtoDAsync = mem_copy,
                                   .StreamCreate = stream_create,
                                   .StreamDestroy = stream_ok,
                                   .StreamSynchronize = stream_ok,
                                   .StreamWaitEvent = event_wait,
                                   .StreamBatchMemOp = batch,
                                   .EventCreate = event_create,
                                   .EventRecord = event_record,
                                   .EventDestroy = event_destroy,
                                   .ModuleLoadData = module_load,
                                   .ModuleUnload = module_unload,
                                   .ModuleGetFunction = module_function,
                                   .LaunchKernel = launch};
    machine_install_nccl();
}

void machine_enter(int rank)
{
    machine.rank = rank;
}

void machine_reset(void)
{
    struct item *items = machine.items;
    struct part *parts = machine.parts;
    for (uint32_t i = 0; i < machine.n_regions; i++)
        if (!machine.regions[i].is_mapped)
            free(machine.regions[i].at);
    memset(&machine, 0, sizeof(machine));
    machine.items = items ? items : malloc(ITEMS * sizeof(*items));
    machine.parts = parts ? parts : malloc(PARTS * sizeof(*parts));
    assert_true(machine.items && machine.parts);
    install();
}
