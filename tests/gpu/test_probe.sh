#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test_probe.sh WITH_DEVICES PROBE EMULATOR INTERPOSED LIBRARY - probe_checkpoint on the emulated driver, and probe_interposed with
# Orrery's libcuda.so.1: a good one passes, one with a fault is found out.
set -u
export LD_LIBRARY_PATH=$3
with_devices=$1 probe=$2 interposed=$4 library=$5
fail() {
    echo "FAIL: $*" >&2
    exit 1
}
# expect CODE LINE ARGUMENT...: the exit code, and a line among what it says
expect() {
    local code=$1 line=$2 said
    shift 2
    said=$(timeout 60 "$with_devices" 1 256 "$probe" "$@")
    [ $? = "$code" ] || fail "$*: want exit code $code: $said"
    grep -q "$line" <<<"$said" || fail "$*: want $line in: $said"
}

expect 0 '"probe":"suspend","ok":true.*"cycle":2.*"calls_wait":true,"memory_right":true' suspend 8 32
expect 0 '"probe":"lock of a busy process times out","ok":true,"result":"CUDA_ERROR_NOT_READY"' lock
ORRERY_EMULATOR_CHECKPOINT=keeps-memory expect 1 '"probe":"suspend","ok":false' suspend 32
ORRERY_EMULATOR_CHECKPOINT=waits-for-ever expect 1 'times out","ok":false,"result":"CUDA_SUCCESS"' lock
expect 2 '' suspend
probe=$interposed
expect 0 '"ok":true,"kind":"alloc","mib":32,"cycle":2,"memory_right":true' "$library" alloc 32
expect 0 '"ok":true,"kind":"vmm","mib":32,"cycle":2,"memory_right":true' "$library" vmm 32
expect 77 '"kind":"graph","skipped"' "$library" graph 32
expect 1 '"ok":false,"kind":"alloc"' "$LD_LIBRARY_PATH/libcuda.so.1" alloc 32 # not interposed
exit 0
