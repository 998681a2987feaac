# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154  # sourced by acceptance.sh, whose variables it uses
# steps.sh - the steps of acceptance.sh that need no host. Each runs in a process of its own and ends it with
# an error when the step has not passed.

bin=$bundle/bin
steps=${DIGITS_STEPS:-2000}
workload="orrery digits mlp pipeline tcp conformance_cuda conformance_nccl_gpu probe_checkpoint probe_interposed probe_memory"

# show COMMAND...: run it when it is there; what it says goes to the log.
show() {
    printf '\n$ %s\n' "$*"
    timeout 20 "$@" 2>&1
}

# What the bundle needs of this machine's libc, and whether the loader finds all.
check_loader() {
    local program missing
    note libc "$(ldd --version | sed -n '1s/.* //p')"
    for program in $workload; do
        show ldd "$bin/$program"
        missing=$(ldd "$bin/$program" 2>&1 | grep -E 'not found|version .* not' | head -n 3)
        [ -z "$missing" ] || fail "$program: $missing: is the machine's libc older than the bundle's (share/libc-needed)," \
            "or is a library not found? NCCL_LIB_DIR=DIR names NCCL's folder"
    done
}

step_facts() {
    note emulated "$([ "$GPU_EMULATED" = 1 ] && echo true || echo false)"
    note bundle "$(cat "$bundle/share/revision" 2>/dev/null || echo 'a build tree')"
    note kernel "$(uname -r)"
    note cpus "$(nproc)"
    note memory_mib "$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)"
    note library_path "$LD_LIBRARY_PATH"
    show cat /etc/os-release
    show cat /proc/version
    show cat /proc/driver/nvidia/version
    show grep Cap /proc/self/status
    show sh -c 'mount | grep -E "cgroup|/dev/shm"'
    show sh -c 'zcat /proc/config.gz | grep -E "SOFT_DIRTY|CHECKPOINT_RESTORE|USERFAULTFD|CGROUP_FREEZER"'
    show sh -c 'ls -l /dev/nvidia* ; which criu cuda-checkpoint python3'
    show sh -c 'env | grep -E "^(CUDA|NVIDIA|NCCL|LD_)"'
    show nvidia-smi -q
    note gpu "$(nvidia-smi --query-gpu=name,driver_version,persistence_mode,compute_mode,memory.total,memory.used --format=csv,noheader 2>&1 | head -n 1)"
    show df -h /dev/shm /tmp
    show free -m
    check_loader
    show sh -c "python3 -c 'import torch; print(torch.__version__, torch.cuda.nccl.version(), torch.__file__)'"
    show python3 -B "$here/torch_facts.py"
    note torch "$(sed -n 's/^torch: //p' "$out/$one_step.log")"
    show sh -c 'cat /proc/sys/kernel/yama/ptrace_scope /proc/sys/kernel/pid_max; cat /proc/sys/user/max_net_namespaces'
    note cgroup "$(stat -fc %T /sys/fs/cgroup)"
    note root "$([ "$(id -u)" = 0 ] && echo true || echo false)"
    local driver
    driver=$(ldd "$bin/digits" | sed -n 's/.*libcuda\.so\.1 => \(.*\) (.*/\1/p')
    note driver "$driver"
    note nccl "$(ldd "$bin/digits" | sed -n 's/.*libnccl\.so\.2 => \(.*\) (.*/\1/p')"
    note checkpoint_calls "$(grep -aoE 'cuCheckpoint[A-Za-z]+' "$(readlink -f "$driver")" | sort -u | wc -l)"
}

# suite PROGRAM [VARIABLE=VALUE ...]: a conformance suite; the cases that failed become a note (passed: of all in this step).
suite() {
    local code program=$1
    shift
    env "$@" "$bin/$program"
    code=$?
    note "${suite_name-}passed" "$(grep -c '^\[       OK \]' "$out/$one_step.log")"
    note "${suite_name-}failed" "$(sed -n 's/^\[  FAILED  \] \([a-z].*\)/\1/p' "$out/$one_step.log" | sort -u | tr '\n' ' ')"
    [ $code = 0 ] || fail "exit code $code; the last case was $(sed -n 's/^\[ RUN      \] //p' "$out/$one_step.log" | tail -n 1)"
}

step_conformance_cuda() { suite conformance_cuda; }
step_conformance_nccl() { suite conformance_nccl_gpu; }
step_nccl_shared() { CONFORMANCE_SHARED_DEVICE=1 NCCL_DEBUG=WARN suite conformance_nccl_gpu; }

# train WORLD STEPS: the example by itself, one process a rank on the one device; prints the last line of rank 0.
# With more than one rank NCCL must believe in as many machines, or it refuses the shared device.
train() {
    local rank code=0
    local pids=()
    for ((rank = 0; rank < $1; rank++)); do
        RANK=$rank WORLD_SIZE=$1 LOCAL_RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=$((20000 + $$ % 10000)) \
            NCCL_HOSTID=rank$rank "$bin/digits" --steps "$2" --log-every "$(($2 / 10))" \
            >"$GPU_WORK/rank.$rank" 2>&1 &
        pids+=($!)
    done
    for rank in "${!pids[@]}"; do wait "${pids[rank]}" || code=$?; done
    tail -n 5 "$GPU_WORK"/rank.* >&2
    tail -n 1 "$GPU_WORK/rank.0"
    return $code
}
result_is_good() {
    [[ $1 =~ ^accuracy=(0\.[0-9]+)\ digest=[0-9a-f]{16}$ ]] && awk -v a="${BASH_REMATCH[1]}" 'BEGIN { exit !(a >= 0.95) }'
}

step_digits() {
    local first second two started=$SECONDS
    first=$(train 1 "$steps") || fail "one rank: $first"
    note result "$first"
    result_is_good "$first" || fail "one rank: want accuracy >= 0.95, not $first"
    second=$(train 1 "$steps") || fail "one rank again: $second"
    [ "$second" = "$first" ] || fail "a second run differs: $second"
    note seconds_each "$(((SECONDS - started) / 2))"
    two=$(NCCL_DEBUG=WARN timeout 40 "$self" --bundle "$bundle" --out "$out" --one two-ranks) # an experiment, not a condition
    note two_ranks_on_one_device "${two:-no result in 40 s}"
}

step_two_ranks() {
    train 2 "$steps"
}

step_probes() {
    local code worst=0 size room sizes=${PROBE_MIB:-1024 16384 61440} copy_mib=8192
    [ "$GPU_EMULATED" = 0 ] || { copy_mib=96 && sizes=${PROBE_MIB:-8 32}; }
    show nvidia-smi
    "$bin/probe_memory" $copy_mib || worst=1
    "$bin/probe_checkpoint" lock
    code=$?
    if [ $code = 77 ]; then
        note skipped "the driver has no checkpoint calls"
        sizes=
    elif [ $code != 0 ]; then
        worst=1
    fi
    room=$(awk '/^MemAvailable/ { print int($2 / 1024) - 8192 }' /proc/meminfo) # what is saved goes to host memory
    for size in $sizes; do
        [ "$size" -le "$room" ] || { echo "$size MiB: only $room MiB of host memory to spare" && continue; }
        timeout 120 "$bin/probe_checkpoint" suspend "$size" || worst=1
    done
    show nvidia-smi
    note lines "$(grep -c '^{"probe"' "$out/$one_step.log")"
    note wrong "$(grep '"ok":false' "$out/$one_step.log" | sed 's/.*"probe":"\([^"]*\)".*/\1/' | sort -u | tr '\n' ' ')"
    [ $worst = 0 ] || fail "see probes.log"
}
