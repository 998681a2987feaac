# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154  # sourced by acceptance.sh, whose variables it uses
# environment.sh - where the driver and NCCL are, for acceptance.sh: exported by environment_open, and so seen by
# the process of each step. On --emulated: the bundle's own libraries, and one device in /dev/shm.
#   LD_LIBRARY_PATH   what programs, and by their job's `env` ranks, find the two libraries with
#   GPU_WORK          a private folder, short enough for the sockets in it; gone at the end
#   GPU_EMULATED      1 or 0

# The folder of libnccl.so.2: named in NCCL_LIB_DIR, of the Python package, of the loader, or anywhere.
find_nccl() {
    local dir
    for dir in "${NCCL_LIB_DIR:-}" \
        "$(python3 -c 'import nvidia.nccl as n; print(list(n.__path__)[0] + "/lib")' 2>/dev/null)" \
        "$(ldconfig -p 2>/dev/null | sed -n 's|.*libnccl\.so\.2 .*=> \(.*\)/libnccl\.so\.2$|\1|p' | head -n 1)"; do
        [ -n "$dir" ] && [ -e "$dir/libnccl.so.2" ] && echo "$dir" && return
    done
    dir=$(timeout 20 find / -xdev -name libnccl.so.2 -not -path '*/emulator/*' 2>/dev/null | head -n 1)
    [ -n "$dir" ] && dirname "$dir"
}

# The folder of libcuda.so.1 where the loader does not know it by itself.
find_driver() {
    ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1 ' && return
    local dir
    for dir in ${LD_LIBRARY_PATH//:/ } /usr/local/nvidia/lib64 /usr/lib64 /usr/lib/x86_64-linux-gnu; do
        [ -e "$dir/libcuda.so.1" ] && echo "$dir" && return
    done
}

environment_open() {
    export GPU_EMULATED=$emulated GPU_WORK
    : "${LD_LIBRARY_PATH:=}"
    GPU_WORK=$(mktemp -d "${TMPDIR:-/tmp}/orr-gpu-XXXXXX") || return 1
    export ORRERY_RUN=$GPU_WORK/run # where ranks find their node: another host of this machine has its own
    if [ "$emulated" = 1 ]; then
        ORRERY_EMULATOR_DEVICES=$(mktemp -u /dev/shm/orr-gpu-XXXXXX)
        export LD_LIBRARY_PATH=$bundle/lib/emulator ORRERY_EMULATOR_DEVICES
        "$bundle/bin/emu-device" "$ORRERY_EMULATOR_DEVICES" 256 || return 1
    else
        LD_LIBRARY_PATH=$(find_nccl):$(find_driver):$LD_LIBRARY_PATH
        export LD_LIBRARY_PATH=${LD_LIBRARY_PATH//::/:}
        unset CUDA_VISIBLE_DEVICES
    fi
    # Only where the machine has no C++ library: programs of this machine must find its own, newer one.
    ! ldd "$bundle/bin/orrery" | grep -qE 'lib(stdc\+\+|gcc_s)\.so.* not found' ||
        LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$bundle/lib/cxx
    export CONFORMANCE_PTX=$bundle/share/conformance/kernels.ptx
}

# What a step that was cut off left behind: all of it has GPU_WORK in its environment.
environment_sweep() {
    local pid
    for pid in /proc/[0-9]*; do
        if tr '\0' '\n' 2>/dev/null <"$pid/environ" | grep -qx "GPU_WORK=$GPU_WORK"; then
            kill -9 "${pid#/proc/}" 2>/dev/null
        fi
    done
}

environment_close() {
    environment_sweep
    rm -rf "$GPU_WORK"
    [ "$emulated" = 0 ] || rm -f "$ORRERY_EMULATOR_DEVICES"
}
