#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run-local.sh PROGRAM WORLD [option of the program ...] - an example without Orrery: WORLD processes on
# emulated devices of this machine, as torchrun would start them. Ends with the exit code of
# the first rank that fails; the others are then stopped.
#   BUILD=DIR        build tree (build, in the root of the source tree)
#   DEVICES=N        emulated devices, shared by the ranks (4)
#   MASTER_PORT=P    where the ranks meet
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=${BUILD:-$here/../build}
devices=${DEVICES:-4}
program=$build/bin/${1:?usage: run-local.sh PROGRAM WORLD [option of the program ...]}
world=${2:?usage: run-local.sh PROGRAM WORLD [option of the program ...]}
shift 2
[ -x "$program" ] || {
    echo "run-local.sh: $program: not built: run make, or name the build tree in BUILD" >&2
    exit 1
}

dir=$(mktemp -d /dev/shm/example-XXXXXX) || exit 1
pids=()
cleanup() {
    [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null
    wait
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

for ((d = 0; d < devices; d++)); do
    "$build/bin/emu-device" "$dir/gpu$d" || exit 1
    list=${list:+$list:}$dir/gpu$d
done
export ORRERY_EMULATOR_DEVICES=$list
export ORRERY_EMULATOR_NCCL_SHARED_DEVICES=1 # without Orrery nobody puts the ranks of a device together
export LD_LIBRARY_PATH=$build/lib/emulator${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export WORLD_SIZE=$world MASTER_ADDR=127.0.0.1
export MASTER_PORT=${MASTER_PORT:-$((20000 + $$ % 10000))}

for ((rank = 0; rank < world; rank++)); do
    RANK=$rank LOCAL_RANK=$rank "$program" "$@" &
    pids+=($!)
done
for ((rank = 0; rank < world; rank++)); do
    wait -n || exit
done
pids=()
