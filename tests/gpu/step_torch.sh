# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154  # sourced by acceptance.sh, whose variables it uses
# step_torch.sh - the steps `torch`, `ddp` and `torch-shared` of acceptance.sh: examples/pytorch_ddp.py, unmodified, alone and stopped.

torch_script=$bundle/share/examples/pytorch_ddp.py
torch_steps=${TORCH_STEPS:-300}

torch_spec() { # torch_spec NAME WORLD ALLOCATOR [option of the script ...]
    local name=$1 world=$2 allocator=$3
    shift 3
    cat <<EOF
name: $name
command: [/bin/sh, -c, "exec python3 -B '$torch_script' --steps $torch_steps --pause 0.05 $*"]
workdir: $GPU_WORK
env: {LD_LIBRARY_PATH: "$LD_LIBRARY_PATH", GPU_WORK: "$GPU_WORK", PATH: "$PATH", HOME: "$GPU_WORK", PYTORCH_CUDA_ALLOC_CONF: "$allocator"}
world: $world
gpus: {min: 1, max: $device_count}
reduce: ordered
checkpoint: {mode: auto, every: 1h}
EOF
}

torch_alone() { # torch_alone ALLOCATOR [option ...]: all that it prints
    local allocator=$1
    shift
    PYTORCH_CUDA_ALLOC_CONF=$allocator timeout 100 python3 -B "$torch_script" --steps "$torch_steps" "$@"
}

is_training() { orrery logs "$1" | grep -q '^step='; }

# The losses of a job that was stopped must be those of a run that never was, to the last bit.
torch_variant() { # torch_variant NAME ALLOCATOR IMAGE [option ...]
    local name=$1 allocator=$2 image=$3 job
    shift 3
    torch_alone "$allocator" "$@" >"$GPU_WORK/$name.truth" || { note "$name" "alone it ends with $?" && return 1; }
    torch_spec "$name" 1 "$allocator" "$@" >"$GPU_WORK/$name.yaml"
    job=$(orrery submit "$GPU_WORK/$name.yaml") || return 1
    until_true "the first steps of $name" 90 is_training "$job"
    note "${name}_level" "$(level_of "$job")"
    took "${name}_suspend" suspend "$job"
    note "${name}_device_used_mib" "$(device_used)"
    took "${name}_resume" resume "$job"
    if [ "$image" = image ] && [ "$(level_of "$job")" = image ]; then
        took "${name}_checkpoint" checkpoint "$job"
        kill_machine n1 "$node_pid"
        node_pid=$host_pid
        until_true "n1 is back" 60 has_device
    fi
    orrery wait "$job" --timeout 100s || { note "$name" "exit code $?: $(orrery logs --stderr "$job" | tail -n 2)" && return 1; }
    orrery logs "$job" | sort -u | sort >"$GPU_WORK/$name.stopped" # steps after the checkpoint may be there twice
    sort <"$GPU_WORK/$name.truth" | diff - "$GPU_WORK/$name.stopped" | head -n 5
    sort <"$GPU_WORK/$name.truth" | cmp -s - "$GPU_WORK/$name.stopped" || { note "$name" "other losses than alone" && return 1; }
    note "$name" "$(tail -n 1 "$GPU_WORK/$name.truth")"
}

has_torch() {
    python3 -c 'import torch; assert torch.cuda.is_available()' && return
    note skipped "there is no PyTorch here that sees a GPU"
    [ "$GPU_EMULATED" = 1 ] || fail "no PyTorch"
    return 1
}

step_torch() {
    local worst=0 device_count=1
    has_torch || return 0
    start_fleet
    torch_variant caching "" image || worst=1
    torch_variant pools backend:cudaMallocAsync inplace || worst=1
    torch_variant segments expandable_segments:True inplace || worst=1
    torch_variant graphs "" inplace --graph || worst=1
    kill "$node_pid" "$control_pid" && wait "$node_pid" "$control_pid"
    [ $worst = 0 ] || fail "see torch.log"
}

# Four ranks of DistributedDataParallel on fewer devices, spliced; one job is left alone, another one is stopped, moved to another number
# of devices where there are some, saved, killed with its machine and restored. Both must print the same losses.
ddp_job() { # ddp_job NAME; its id is then in ddp_id
    torch_spec "$1" 4 "" --hidden 512 >"$GPU_WORK/$1.yaml"
    ddp_id=$(orrery submit "$GPU_WORK/$1.yaml") || fail "submit $1"
}

ddp_done() { # ddp_done NAME
    orrery wait "$ddp_id" --timeout 150s || fail "$1: exit code $?: $(orrery logs --stderr "$ddp_id" | tail -n 3)"
    orrery logs "$ddp_id" | sort -u >"$GPU_WORK/$1.lines" # steps after a checkpoint may be there twice
}

ddp_disturb() {
    local job=$1 devices
    until_true "the first steps of $job" 90 is_training "$job"
    note level "$(level_of "$job")"
    took suspend suspend "$job"
    note device_used_mib "$(device_used)"
    took resume resume "$job"
    for devices in 1 "$device_count"; do
        [ "$device_count" = 1 ] || took "resize_$devices" resize "$job" "$devices"
    done
    [ "$(level_of "$job")" = image ] || return 0
    took checkpoint checkpoint "$job"
    kill_machine n1 "$node_pid"
    node_pid=$host_pid
    until_true "n1 is back" 60 has_device
}

step_ddp() {
    local ddp_id device_count
    has_torch || return 0
    start_fleet
    device_count=$(orrery node ls -o json | field gpus)
    note devices "$device_count"
    [ "$device_count" -le 2 ] || device_count=2
    ddp_job truth
    ddp_done truth
    ddp_job stopped
    ddp_disturb "$ddp_id"
    ddp_done stopped
    diff "$GPU_WORK/truth.lines" "$GPU_WORK/stopped.lines" | head -n 5
    cmp -s "$GPU_WORK/truth.lines" "$GPU_WORK/stopped.lines" || fail "other losses than undisturbed: see ddp.log"
    note result "$(grep '^digest=' "$GPU_WORK/stopped.lines")"
    kill "$node_pid" "$control_pid" && wait "$node_pid" "$control_pid"
}

# Two ranks of DistributedDataParallel on the one device, without splicing, each as of a machine of its own. What happens is the result.
step_torch_shared() {
    local rank pids=()
    for rank in 0 1; do
        RANK=$rank WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=$((20000 + $$ % 10000)) NCCL_HOSTID=rank$rank \
            LD_PRELOAD=$our_cuda:$our_nccl NCCL_DEBUG=WARN timeout 100 python3 -B "$torch_script" --steps 50 >"$GPU_WORK/ddp.$rank" 2>&1 &
        pids+=($!)
    done
    for rank in 0 1; do wait "${pids[rank]}"; done
    tail -n 5 "$GPU_WORK"/ddp.*
    note ddp_two_ranks_one_device "$(tail -n 1 "$GPU_WORK/ddp.0")"
}
