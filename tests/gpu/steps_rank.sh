# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154  # sourced by acceptance.sh, whose variables it uses
# steps_rank.sh - the steps of acceptance.sh for the two libraries that Orrery preloads into ranks, without a host.

our_cuda=$bundle/lib/rank/libcuda.so.1
our_nccl=$bundle/lib/rank/libnccl.so.2
stopper=$bundle/lib/test/libcuda_stopper.so
cutter=$bundle/lib/test/libnccl_cut_core.so

# real NAME: the path of the library behind ours, as the loader finds it.
real() { ldd "$bin/digits" | sed -n "s/.*$1 => \\(.*\\) (.*/\\1/p"; }

# The driver's suite with our libcuda.so.1 before the driver; then again while the process is stopped at random moments, its
# memory taken from the device and given back.
step_interposed_cuda() {
    suite conformance_cuda LD_PRELOAD="$our_cuda"
    # shellcheck disable=SC2034  # suite reads it
    suite_name=stopped_
    suite conformance_cuda LD_PRELOAD="$our_cuda:$stopper" STOPPER_MIN="${STOPPER_MIN:-20}"
    note stopper "$(sed -n 's/^stopper: \([0-9]* stops.*\)/\1/p' "$out/$one_step.log" | tail -n 1)"
}

# NCCL's suite with our libnccl.so.2 before NCCL; then again with all communicators destroyed and made anew at random cuts.
step_interposed_nccl() {
    suite conformance_nccl_gpu LD_PRELOAD="$our_nccl"
    # shellcheck disable=SC2034  # suite reads it
    suite_name=cut_
    suite conformance_nccl_gpu LD_PRELOAD="$cutter:$our_nccl" ORRERY_REAL_LIBNCCL="$(real 'libnccl\.so\.2')" NCCL_CONFORMANCE_CUTS=1
}

# NCCL's suite on worlds of 2, 4 and 8 ranks, all on the one device: our libnccl.so.2 puts them together, NCCL sees one. Then with cuts.
spliced_suite() { # spliced_suite CUTS
    [ "$GPU_EMULATED" = 0 ] || export ORRERY_SPLICE_BYTES=2097152 # its device is small
    suite conformance_nccl_gpu CONFORMANCE_SHARED_DEVICE=1 NCCL_CONFORMANCE_DEVICES=8 ORRERY_REDUCE=ordered NCCL_CONFORMANCE_CUTS="$1" \
        LD_PRELOAD="$cutter:$our_nccl" ORRERY_REAL_LIBNCCL="$(real 'libnccl\.so\.2')"
}
step_spliced() { spliced_suite 999999; }
step_spliced_cuts() { spliced_suite 3; }

# Rates and times of each kind of memory: a line for each in memory.log. The driver's own way, for comparison, is in probes.log.
step_memory() {
    local code worst=0 kind room size sizes=() all=${MEMORY_MIB:-1024 16384 40960} skipped=
    [ "$GPU_EMULATED" = 0 ] || all=${MEMORY_MIB:-16 48}
    room=$(awk '/^MemAvailable/ { print int($2 / 1024) - 8192 }' /proc/meminfo) # what is saved goes to host memory
    for size in $all; do
        if [ "$size" -le "$room" ]; then sizes+=("$size"); else echo "$size MiB: only $room MiB of host memory to spare"; fi
    done
    for kind in alloc pool vmm graph; do
        timeout 100 "$bin/probe_interposed" "$our_cuda" $kind "${sizes[@]}"
        code=$?
        case $code in
        0) ;;
        77) skipped="$skipped $kind" ;;
        *) worst=1 && note "failed_$kind" $code ;;
        esac
    done
    note skipped "$skipped"
    note out_gib_s "$(sed -n 's/.*"out_gib_s":\([0-9.]*\).*/\1/p' "$out/$one_step.log" | sort -n | tail -n 1)"
    note in_gib_s "$(sed -n 's/.*"in_gib_s":\([0-9.]*\).*/\1/p' "$out/$one_step.log" | sort -n | tail -n 1)"
    [ $worst = 0 ] || fail "see memory.log"
}

# median FILE: of the numbers in it
median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

# timed LIST PRELOAD: one run of the example; its seconds are added to a list
timed() {
    local began end result
    began=$(date +%s%N)
    result=$(LD_PRELOAD=$2 RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=$((20000 + $$ % 10000)) \
        "$bin/digits" --steps "$overhead_steps" --log-every "$overhead_steps" | tail -n 1)
    end=$(date +%s%N)
    echo "$(((end - began) / 1000))" >>"$GPU_WORK/$1"
    echo "$1 $(((end - began) / 1000)) us $result"
    [ "$result" = "${overhead_result:=$result}" ] || fail "$1: $result, not $overhead_result"
}

# The example with both libraries and without, in turn, and what is added to a single call. On the emulator the figure is noise.
step_overhead() {
    local runs=${OVERHEAD_RUNS:-9} overhead_steps=$((steps * 2)) overhead_result='' run started=$SECONDS added
    timed warm-up ""
    for ((run = 0; run < runs && SECONDS - started < 90; run++)); do
        timed direct ""
        timed interposed "$our_cuda:$our_nccl"
    done
    note runs "$run"
    note direct_us "$(median "$GPU_WORK/direct")"
    note interposed_us "$(median "$GPU_WORK/interposed")"
    added=$(awk -v a="$(median "$GPU_WORK/direct")" -v b="$(median "$GPU_WORK/interposed")" 'BEGIN { printf "%.3f", (b / a - 1) * 100 }')
    note added_percent "$added"
    timeout 100 "$bin/probe_calls" "$(real 'libcuda\.so\.1')" "$our_cuda" "$(real 'libnccl\.so\.2')" "$our_nccl" || fail "probe_calls"
    note added_ns_a_collective "$(sed -n 's/.*"ncclAllReduce".*"added_ns":\([-0-9.]*\).*/\1/p' "$out/$one_step.log")"
    note added_ns_a_call "$(sed -n 's/.*"cuStreamQuery".*"added_ns":\([-0-9.]*\).*/\1/p' "$out/$one_step.log")"
    [ "$GPU_EMULATED" = 1 ] || awk -v a="$added" 'BEGIN { exit !(a <= 0.5) }' || fail "it takes $added % longer with the libraries, want 0.5 at most"
}
