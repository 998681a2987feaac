/* SPDX-License-Identifier: Apache-2.0
 * device.c - what a program may ask about a device. The numbers that the file does not
 * hold are those of a small compute-9.0 device, so that programs choose the same paths.
 */
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    CUdevice_attribute attribute;
    int value;
} attributes[] = {
    {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X, 1024},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y, 1024},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z, 64},
    {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, 2147483647},
    {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y, 65535},
    {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z, 65535},
    {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 49152},
    {CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY, 65536},
    {CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32},
    {CU_DEVICE_ATTRIBUTE_MAX_PITCH, 2147483647},
    {CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK, 65536},
    {CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 1000000},
    {CU_DEVICE_ATTRIBUTE_GPU_OVERLAP, 1},
    {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 4},
    {CU_DEVICE_ATTRIBUTE_KERNEL_EXEC_TIMEOUT, 0},
    {CU_DEVICE_ATTRIBUTE_INTEGRATED, 0},
    {CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY, 1},
    {CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, 0},
    {CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS, 1},
    {CU_DEVICE_ATTRIBUTE_ECC_ENABLED, 0},
    {CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID, 0},
    {CU_DEVICE_ATTRIBUTE_TCC_DRIVER, 0},
    {CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, 1000000},
    {CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, 64},
    {CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, 1 << 20},
    {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, 2048},
    {CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT, 2},
    {CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1},
    {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 9},
    {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0},
    {CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 233472},
    {CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR, 65536},
    {CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, 0},
    {CU_DEVICE_ATTRIBUTE_MULTI_GPU_BOARD, 0},
    {CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS, 0},
    {CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS, 0},
    {CU_DEVICE_ATTRIBUTE_COMPUTE_PREEMPTION_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM, 1},
    {CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH, 0},
    {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 232448},
    {CU_DEVICE_ATTRIBUTE_CAN_FLUSH_REMOTE_WRITES, 0},
    {CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR, 32},
    {CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK, 1024},
    {CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH, 0},
    {CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS, 1},
    {CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR, 1},
    {CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_UNIFIED_FUNCTION_POINTERS, 0},
    {CU_DEVICE_ATTRIBUTE_MULTICAST_SUPPORTED, 0},
};

/* A PCI place that follows from the UUID: the same on every look, distinct on a
 * machine. */
static void
pci_place(const struct emu_device *d, unsigned *ret_domain, unsigned *ret_bus)
{
    *ret_domain = (unsigned)d->info.uuid[13] << 8 | d->info.uuid[14];
    *ret_bus = d->info.uuid[15];
}

EMU_API CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    struct emu_device *d;
    CUresult rc = emu_enter_device(ordinal, &d);
    if (rc)
        return rc;
    if (!device)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *device = ordinal;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuDeviceGetCount(int *count)
{
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    if (!count)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *count = (int)emu.n_devices;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuDeviceGetName(char *name, int len, CUdevice dev)
{
    struct emu_device *d;
    CUresult rc = emu_enter_device(dev, &d);
    if (rc)
        return rc;
    if (!name || len <= 0)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    snprintf(name, (size_t)len, "%s", d->info.name);
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice dev)
{
    struct emu_device *d;
    CUresult rc = emu_enter_device(dev, &d);
    if (rc)
        return rc;
    if (!uuid)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    memcpy(uuid->bytes, d->info.uuid, sizeof uuid->bytes);
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuDeviceTotalMem(size_t *bytes, CUdevice dev)
{
    struct emu_device *d;
    CUresult rc = emu_enter_device(dev, &d);
    if (rc)
        return rc;
    if (!bytes)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *bytes = d->info.memory_bytes;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuDeviceGetAttribute(int *pi, CUdevice_attribute attrib, CUdevice dev)
{
    struct emu_device *d;
    unsigned domain, bus;
    CUresult rc = emu_enter_device(dev, &d);
    if (rc)
        return rc;
    if (!pi)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    pci_place(d, &domain, &bus);
    if (attrib == CU_DEVICE_ATTRIBUTE_PCI_BUS_ID)
        *pi = (int)bus;
    else if (attrib == CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID)
        *pi = (int)domain;
    else {
        rc = CUDA_ERROR_INVALID_VALUE;
        for (size_t i = 0; rc && i < sizeof attributes / sizeof attributes[0]; i++)
            if (attributes[i].attribute == attrib) {
                *pi = attributes[i].value;
                rc = CUDA_SUCCESS;
            }
    }
    return emu_leave(rc);
}

EMU_API CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice dev)
{
    struct emu_device *d;
    CUresult rc = emu_enter_device(dev, &d);
    if (rc)
        return rc;
    if (!major || !minor)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *major = 9;
    *minor = 0;
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuDeviceGetPCIBusId(char *pciBusId, int len, CUdevice dev)
{
    struct emu_device *d;
    unsigned domain, bus;
    CUresult rc = emu_enter_device(dev, &d);
    if (rc)
        return rc;
    if (!pciBusId || len <= 0)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    pci_place(d, &domain, &bus);
    snprintf(pciBusId, (size_t)len, "%04X:%02X:00.0", domain, bus);
    return emu_leave(CUDA_SUCCESS);
}

EMU_API CUresult cuDeviceGetByPCIBusId(CUdevice *dev, const char *pciBusId)
{
    unsigned domain, bus, want_domain = 0, want_bus;
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    if (!dev || !pciBusId ||
        (sscanf(pciBusId, "%x:%x:%*x", &want_domain, &want_bus) != 2))
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    for (unsigned i = 0; i < emu.n_devices; i++) {
        pci_place(&emu.devices[i], &domain, &bus);
        if (domain == want_domain && bus == want_bus) {
            *dev = (int)i;
            return emu_leave(CUDA_SUCCESS);
        }
    }
    return emu_leave(CUDA_ERROR_INVALID_DEVICE);
}

EMU_API CUresult cuDeviceCanAccessPeer(int *canAccessPeer,
                                       CUdevice dev,
                                       CUdevice peerDev)
{
    struct emu_device *d;
    CUresult rc = emu_enter_device(dev, &d);
    if (rc)
        return rc;
    if (!canAccessPeer)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (peerDev < 0 || (unsigned)peerDev >= emu.n_devices)
        return emu_leave(CUDA_ERROR_INVALID_DEVICE);
    *canAccessPeer = 0; /* peer copies work; kernels do not reach a peer's memory */
    return emu_leave(CUDA_SUCCESS);
}
