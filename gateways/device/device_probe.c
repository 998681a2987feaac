/* SPDX-License-Identifier: Apache-2.0
 * device_probe.c - the process that loads the driver, writes down what it says, and ends.
 *
 * Lines on stdout: "device <uuid> <memory> <healthy> <type> <trouble...>" for each, then "end"; or
 * "error <orr_err> <text...>".  Whatever has no last line was written by a process that crashed.
 */
#include <dlfcn.h>
#include <inttypes.h>
#include <unistd.h>

#include "device_cuda.h"
#include "orrery/gpu_abi.h"

struct driver {
    CUresult (*init)(unsigned flags);
    CUresult (*count)(int *count);
    CUresult (*get)(CUdevice *device, int ordinal);
    CUresult (*name)(char *name, int len, CUdevice device);
    CUresult (*uuid)(CUuuid *uuid, CUdevice device);
    CUresult (*memory)(size_t *bytes, CUdevice device);
    CUresult (*error_text)(CUresult error, const char **text);
};

/* The few calls of NVML that tell about memory errors; its own numbers. */
struct nvml {
    int (*init)(void);
    int (*by_uuid)(const char *uuid, void **device);
    int (*ecc_errors)(void *device, int type, int counter, unsigned long long *count);
};
enum { NVML_UNCORRECTED = 1, NVML_SINCE_START = 0 };

static int report_error(enum orr_err code, const char *text)
{
    printf("error %d %s\n", (int)code, text);
    return fflush(stdout) == 0 ? 0 : 1;
}

/* All of CUresult that matters here, mapped in one place. */
static enum orr_err map_result(CUresult result, const char **ret_remedy)
{
    switch ((int)result) {
    case CUDA_ERROR_NO_DEVICE:
        *ret_remedy = "the driver sees no GPU; see nvidia-smi and CUDA_VISIBLE_DEVICES";
        return ORR_ENODEV;
    case CUDA_ERROR_STUB_LIBRARY:
        *ret_remedy = "this is the toolkit's stub of libcuda.so.1; take it out of the "
                      "library path";
        return ORR_ENODEV;
    case CUDA_ERROR_SYSTEM_DRIVER_MISMATCH:
    case CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE:
        *ret_remedy = "libcuda.so.1 and the kernel's driver do not fit; restart the "
                      "machine after an update";
        return ORR_EIO;
    case CUDA_ERROR_OPERATING_SYSTEM:
        *ret_remedy = "may this user open /dev/nvidia*?";
        return ORR_EIO;
    case CUDA_ERROR_ECC_UNCORRECTABLE:
        *ret_remedy = "the GPU has a memory fault; reset or replace it";
        return ORR_EIO;
    default:
        *ret_remedy = "see nvidia-smi and the kernel's log";
        return ORR_EIO;
    }
}

static int report_result(const struct driver *driver, const char *call, CUresult result)
{
    char text[400];
    const char *why = NULL, *remedy;
    enum orr_err code = map_result(result, &remedy);
    if (driver->error_text(result, &why) != CUDA_SUCCESS || !why)
        why = "unknown error";
    snprintf(text, sizeof text, "%s: %s (%d); %s", call, why, (int)result, remedy);
    return report_error(code, text);
}

static bool resolve(void *lib, const char *name, void *ret_function)
{
    void *symbol = dlsym(lib, name);
    memcpy(
        ret_function, &symbol, sizeof symbol); /* ISO C has no cast between the two */
    return symbol != NULL;
}

static bool load_driver(const char *path, struct driver *driver)
{
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    return lib && resolve(lib, "cuInit", &driver->init) &&
           resolve(lib, "cuDeviceGetCount", &driver->count) &&
           resolve(lib, "cuDeviceGet", &driver->get) &&
           resolve(lib, "cuDeviceGetName", &driver->name) &&
           resolve(lib, "cuDeviceGetUuid_v2", &driver->uuid) &&
           resolve(lib, "cuDeviceTotalMem_v2", &driver->memory) &&
           resolve(lib, "cuGetErrorString", &driver->error_text);
}

static bool load_nvml(struct nvml *nvml)
{
    void *lib = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    return lib && resolve(lib, "nvmlInit_v2", &nvml->init) &&
           resolve(lib, "nvmlDeviceGetHandleByUUID", &nvml->by_uuid) &&
           resolve(lib, "nvmlDeviceGetTotalEccErrors", &nvml->ecc_errors) &&
           nvml->init() == 0;
}

/* What NVML does not know, or a device without ECC, is no trouble. */
static void
check_ecc(const struct nvml *nvml, const char *uuid, char *trouble, size_t cap)
{
    void *handle;
    unsigned long long count = 0;
    if (nvml->by_uuid(uuid, &handle) == 0 &&
        nvml->ecc_errors(handle, NVML_UNCORRECTED, NVML_SINCE_START, &count) == 0 &&
        count > 0)
        snprintf(trouble,
                 cap,
                 "%llu uncorrected memory errors since its start; reset it",
                 count);
}

static int
report_device(const struct driver *driver, const struct nvml *nvml, int ordinal)
{
    CUdevice device;
    CUuuid uuid;
    size_t memory = 0;
    char name[256] = "", type[64], uuid_text[48], trouble[256] = "";
    CUresult rc = driver->get(&device, ordinal);
    if (rc == CUDA_SUCCESS)
        rc = driver->uuid(&uuid, device);
    if (rc == CUDA_SUCCESS)
        rc = driver->name(name, (int)sizeof name, device);
    if (rc == CUDA_SUCCESS)
        rc = driver->memory(&memory, device);
    if (rc != CUDA_SUCCESS)
        return report_result(driver, "cuDeviceGet", rc);
    orr_device_uuid_text((const uint8_t *)uuid.bytes, uuid_text);
    orr_device_type_of(name, type, sizeof type);
    if (nvml)
        check_ecc(nvml, uuid_text, trouble, sizeof trouble);
    printf("device %s %zu %d %s %s\n",
           uuid_text,
           memory,
           trouble[0] == '\0',
           type,
           trouble);
    return -1;
}

int orr_device_probe_main(int argc, char **argv)
{
    struct driver driver;
    struct nvml nvml;
    int count = 0;
    char text[400];
    if (argc != 3)
        return 2;
    setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 1); /* as in rank_env */
    if (!load_driver(argv[2], &driver)) {
        snprintf(text,
                 sizeof text,
                 "no GPU driver: %s; install it, or configure emulated devices",
                 dlerror());
        return report_error(ORR_ENODEV, text);
    }
    CUresult rc = driver.init(0);
    if (rc == CUDA_SUCCESS)
        rc = driver.count(&count);
    if (rc != CUDA_SUCCESS)
        return report_result(&driver, "cuInit", rc);
    bool has_nvml = load_nvml(&nvml);
    for (int i = 0; i < count && i < ORR_DEVICES_MAX; i++) {
        int failed = report_device(&driver, has_nvml ? &nvml : NULL, i);
        if (failed >= 0)
            return failed;
    }
    puts("end");
    return fflush(stdout) == 0 ? 0 : 1;
}
