#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""names.py CUDA_HOME: prints names.def, made from the toolkit's cuda.h and the exports of its stub library.

Run again for a newer toolkit; what a name is (WRAPPED, NOTED, FORWARD, GATED) is decided by the lists here.
"""
import re
import subprocess
import sys

# Handled in C of our own, with the program's types.
WRAPPED = """
cuInit
cuGetProcAddress cuGetProcAddress_v2
cuMemAlloc_v2 cuMemAllocPitch_v2 cuMemFree_v2 cuMemGetAddressRange_v2 cuPointerGetAttribute cuPointerGetAttributes
cuMemAllocAsync cuMemAllocAsync_ptsz cuMemAllocFromPoolAsync cuMemAllocFromPoolAsync_ptsz cuMemFreeAsync cuMemFreeAsync_ptsz
cuMemPoolCreate cuMemPoolDestroy
cuMemCreate cuMemRelease cuMemMap cuMemUnmap cuMemSetAccess cuMemExportToShareableHandle cuMemImportFromShareableHandle
cuMemRetainAllocationHandle cuMemGetAllocationPropertiesFromHandle cuMulticastBindMem
cuDevicePrimaryCtxRetain cuDevicePrimaryCtxRelease cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxReset
cuDevicePrimaryCtxReset_v2 cuCtxCreate_v2 cuCtxCreate_v3 cuCtxCreate_v4 cuCtxDestroy cuCtxDestroy_v2 cuCtxFromGreenCtx
cuCtxEnablePeerAccess
cuLaunchHostFunc cuLaunchHostFunc_ptsz cuStreamAddCallback cuStreamAddCallback_ptsz
cuIpcOpenMemHandle cuIpcOpenMemHandle_v2 cuIpcOpenEventHandle cuGraphAddNode cuGraphAddNode_v2
""".split()

# Passed on; from the first success on the process cannot be suspended.
NOTED = {
    "cuMemAllocManaged": "cuMemAllocManaged",
    "cuIpcGetMemHandle": "cuIpcGetMemHandle",
    "cuIpcGetEventHandle": "cuIpcGetEventHandle",
    "cuMulticastCreate": "cuMulticastCreate",
    "cuMemGetHandleForAddressRange": "cuMemGetHandleForAddressRange",
    "cuMemPoolExportToShareableHandle": "an exported memory pool",
    "cuMemPoolImportFromShareableHandle": "an imported memory pool",
    "cuImportExternalMemory": "cuImportExternalMemory",
    "cuImportExternalSemaphore": "cuImportExternalSemaphore",
    "cuGraphicsMapResources": "graphics interoperation",
    "cuGraphicsMapResources_ptsz": "graphics interoperation",
    "cuGraphAddMemAllocNode": "a graph that allocates memory",
    "cuArrayCreate": "CUDA arrays",
    "cuArrayCreate_v2": "CUDA arrays",
    "cuArray3DCreate": "CUDA arrays",
    "cuArray3DCreate_v2": "CUDA arrays",
    "cuMipmappedArrayCreate": "CUDA arrays",
    "cuMemMapArrayAsync": "CUDA arrays",
    "cuMemMapArrayAsync_ptsz": "CUDA arrays",
}

# Never touch a device, or concern other processes, or have floating-point arguments: a bare jump.
FORWARD = re.compile(
    r"cuGetError(Name|String)$|cuDriverGetVersion$|cuGetExportTable$|cuCheckpoint|cuTensorMap|cuCoredump|cuLogs|"
    r"cuProfiler|cuParamSetf$|cuTexRefSetMipmapLevel(Bias|Clamp)$|cuGL|cuEGL|cuVDPAU|cuGraphicsEGL|cuGraphicsGL|cuGraphicsVDPAU"
)
NOT_IN_HEADER = {"cuGraphInstantiateWithFlags": 3}


def prototypes(path):
    text = open(path, encoding="utf-8").read()
    text = re.sub(r"//.*", "", re.sub(r"/\*.*?\*/", "", text, flags=re.S))
    counts = {}
    for m in re.finditer(r"CUresult\s+CUDAAPI\s+(\w+)\s*\(([^;]*?)\)\s*;", text, flags=re.S):
        arguments = " ".join(m.group(2).split())
        n = 0 if arguments in ("void", "") else arguments.count(",") + 1
        counts[m.group(1)] = max(n, counts.get(m.group(1), 0))
    return counts


def main():
    home = sys.argv[1]
    counts = prototypes(f"{home}/include/cuda.h")
    nm = subprocess.run(["nm", "-D", "--defined-only", f"{home}/lib64/stubs/libcuda.so"], check=True, capture_output=True)
    names = sorted(line.split()[2] for line in nm.stdout.decode().splitlines() if line.split()[1] == "T")
    print("""/* SPDX-License-Identifier: Apache-2.0
 * names.def - all calls of CUDA 13.0's driver library. Made by names.py; do not edit.
 * WRAPPED: a function of ours. GATED(name, n): passes the gate, then goes on with its n
 * arguments. NOTED: the same, and a success makes the process not suspendable. FORWARD: a jump.
 */
/* clang-format off */""")
    for name in names:
        plain = re.sub(r"_pt(sz|ds)$", "", name)
        base = re.sub(r"_v\d+$", "", plain)
        n = max((counts.get(k, NOT_IN_HEADER.get(k, -1)) for k in (name, plain, base)), default=-1)
        if name in WRAPPED:
            print(f"WRAPPED({name})")
        elif FORWARD.match(name):
            print(f"FORWARD({name})")
        elif n < 0 or n > 11:
            sys.exit(f"{name}: how many arguments? say it in NOT_IN_HEADER")
        elif name in NOTED:
            print(f'NOTED({name}, {n}, "{NOTED[name]}")')
        else:
            print(f"GATED({name}, {n})")
    missing = [n for n in list(WRAPPED) + list(NOTED) if n not in names]
    if missing:
        sys.exit(f"not in the library: {missing}")


main()
