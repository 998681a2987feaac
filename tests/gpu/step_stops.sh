# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154  # sourced by acceptance.sh, whose variables it uses
# step_stops.sh - the steps `image`, `stops` and `elastic` of acceptance.sh: jobs that are suspended, saved, moved and restored.

# took NAME COMMAND...: an order and the milliseconds until it was carried out, as a note
took() {
    local name=$1 began
    shift
    began=$(date +%s%N)
    timeout 90 "$bin/orrery" "$@" || fail "orrery $*: exit code $?"
    note "${name}_ms" $((($(date +%s%N) - began) / 1000000))
}

phase_of() { orrery show "$1" -o json | field phase; }
has_phase() { [ "$(phase_of "$1")" = "$2" ]; }
node_of() { orrery show "$1" -o json | sed -n 's/.*"node": *"\([^"]*\)".*/\1/p' | head -n 1; }
is_on() { [ "$(node_of "$1")" = "$2" ] && has_phase "$1" running; }
# Of the job itself: its checkpoints, which follow, have both, too.
level_of() { orrery show "$1" -o json | grep -o '"level": *"[a-z]*"' | head -n 1 | field level; }
generation_of() { orrery show "$1" -o json | grep -o '"generation": *[0-9]*' | head -n 1 | field generation; }

# MiB of the device that are in use, whoever asks; nothing on the emulator.
device_used() { nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits 2>/dev/null | head -n 1; }

# A second node with the same GPU, so that a job can move: the GPU is free of the one before the other takes it.
start_second_node() {
    node_config n2
    start_host n2
    second_pid=$host_pid
    until_true "node n2" 60 has_two_nodes
}
has_two_nodes() { [ "$(orrery node ls -o json | grep -o '"state": *"up"' | wc -l)" = 2 ]; }

# tree PID: it and all that it has started, keepers before their ranks: a rank's end must be in nobody's record.
tree() {
    local stat rest
    echo "$1"
    for stat in /proc/[0-9]*/stat; do
        rest=$(sed 's/.*) . //' "$stat" 2>/dev/null)
        [ "${rest%% *}" != "$1" ] || tree "$(basename "$(dirname "$stat")")"
    done
}

# The machine of a node is gone, with all that ran on it; then it is back.
kill_machine() { # kill_machine HOST PID
    local pid
    for pid in $(tree "$2") $(grep -lzx "ORRERY_NODE=$1" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3); do
        kill -9 "$pid" 2>/dev/null
    done
    start_host "$1"
}

# ---- CRIU on this kernel, and ranks with TCP connections between them; no GPU ----

tcp_spec() { # tcp_spec NAME STEPS CHECKPOINT
    cat <<EOF
name: $1
command: ['$bin/tcp', --steps, '$2']
workdir: $GPU_WORK
env: {GPU_WORK: "$GPU_WORK"}
world: 4
checkpoint: {mode: $3, every: 1h}
EOF
}

tcp_result() { orrery logs "$1" | grep '^records='; }

step_image() {
    local job truth tcp_steps=${TCP_STEPS:-60000}
    show "${ORRERY_CRIU:-$bin/criu}" --version
    show "${ORRERY_CRIU:-$bin/criu}" check
    use_devices_for_stops
    start_fleet
    show "$bin/orrery" doctor
    note image "$("$bin/orrery" doctor | grep -i image | head -n 1)"
    tcp_spec truth "$tcp_steps" none >"$GPU_WORK/truth.yaml"
    tcp_spec tcp "$tcp_steps" auto >"$GPU_WORK/tcp.yaml"
    truth=$(orrery submit "$GPU_WORK/truth.yaml") && orrery wait "$truth" --timeout 60s || fail "the example undisturbed"
    job=$(orrery submit "$GPU_WORK/tcp.yaml") || fail "submit"
    until_true "$job runs" 30 has_phase "$job" running
    note level "$(level_of "$job")"
    took checkpoint checkpoint "$job"
    kill_machine n1 "$node_pid"
    node_pid=$host_pid
    orrery wait "$job" --timeout 80s || fail "$job after it was restored: exit code $?: $(orrery logs --stderr "$job" | tail -n 3)"
    note generation "$(generation_of "$job")"
    note result "$(tcp_result "$job")"
    [ "$(tcp_result "$job")" = "$(tcp_result "$truth")" ] || fail "$(tcp_result "$job"), undisturbed $(tcp_result "$truth")"
    kill "$node_pid" "$control_pid" && wait "$node_pid" "$control_pid"
}

# ---- the example on the GPU ----

suspend_and_resume() { # suspend_and_resume JOB N
    local job=$1 before guest
    before=$(device_used)
    took "suspend_$2" suspend "$job"
    has_phase "$job" suspended || fail "$job is $(phase_of "$job") after suspend"
    note "device_used_mib_$2" "${before:-unknown} then $(device_used)"
    guest=$(orrery submit "$GPU_WORK/guest.yaml") && orrery wait "$guest" --timeout 60s || fail "a guest on the device of $job"
    result_is_good "$(result_of "$guest")" || fail "the guest: $(result_of "$guest")"
    took "resume_$2" resume "$job"
}

image_and_move() { # image_and_move JOB; the job has the level image
    local job=$1 from to
    took checkpoint checkpoint "$job"
    note checkpoint "$(orrery checkpoint ls "$job" | tail -n 1)"
    took verify checkpoint verify "$job"
    start_second_node
    from=$(node_of "$job")
    to=n1
    [ "$from" = n1 ] && to=n2
    took migrate migrate "$job" --to "node:$to"
    until_true "$job runs on $to" 60 is_on "$job" "$to"
    note generation_moved "$(generation_of "$job")"
    took checkpoint_2 checkpoint "$job"
    if [ "$to" = n2 ]; then
        kill_machine n2 "$second_pid"
        second_pid=$host_pid
    else
        kill_machine n1 "$node_pid"
        node_pid=$host_pid
    fi
    note restored_after_kill true
}

step_stops() {
    local job long direct result level
    use_devices_for_stops
    start_fleet
    long=$(steps_in "${STOP_SECONDS:-60}") || exit 1
    note long_steps "$long"
    spec guest 1 "$steps" >"$GPU_WORK/guest.yaml"
    spec stops 1 "$long" "" auto >"$GPU_WORK/stops.yaml"
    job=$(orrery submit "$GPU_WORK/stops.yaml") || fail "submit"
    until_true "the first steps of $job" 60 in_step "$job"
    level=$(level_of "$job")
    note level "$level"
    suspend_and_resume "$job" 1
    suspend_and_resume "$job" 2
    if [ "$level" = image ]; then
        image_and_move "$job"
    else
        note no_image "$(orrery show "$job" -o json | field why_level)"
    fi
    orrery wait "$job" --timeout 150s || fail "$job: exit code $?: $(orrery logs --stderr "$job" | tail -n 3)"
    result=$(result_of "$job")
    direct=$(train 1 "$long") || fail "the same alone: $direct"
    note result "$result"
    [ "$result" = "$direct" ] || fail "stopped and moved: $result, alone $direct"
    kill "$node_pid" "$control_pid" ${second_pid:+"$second_pid"} && wait "$node_pid" "$control_pid"
}

# ---- eight ranks on the one GPU, spliced ----

elastic_spec() { # elastic_spec NAME STEPS
    spec "$1" 8 "$2" "" auto >"$GPU_WORK/$1.yaml"
    echo 'reduce: ordered' >>"$GPU_WORK/$1.yaml"
}

# Seconds that are noted are those of whole runs, their start among them.
step_elastic() {
    local job truth long began
    use_devices_for_stops
    start_fleet
    long=$(steps_in "${ELASTIC_SECONDS:-4}") || exit 1
    note steps "$long"
    spec guest 1 "$steps" >"$GPU_WORK/guest.yaml"
    elastic_spec truth "$long"
    elastic_spec stopped "$long"
    began=$SECONDS
    train 1 "$long" >/dev/null || fail "one rank alone"
    note one_rank_s $((SECONDS - began))
    began=$SECONDS
    truth=$(orrery submit "$GPU_WORK/truth.yaml") && orrery wait "$truth" --timeout 150s ||
        fail "eight ranks on the device: $(orrery logs --stderr "$truth" | tail -n 3)"
    note eight_ranks_s $((SECONDS - began))
    job=$(orrery submit "$GPU_WORK/stopped.yaml") || fail "submit"
    until_true "the first steps of $job" 60 in_step "$job"
    note level "$(level_of "$job")"
    suspend_and_resume "$job" 1
    if [ "$(level_of "$job")" = image ]; then
        took checkpoint checkpoint "$job"
        kill_machine n1 "$node_pid"
        node_pid=$host_pid
    fi
    orrery wait "$job" --timeout 150s || fail "$job: exit code $?: $(orrery logs --stderr "$job" | tail -n 3)"
    note result "$(result_of "$job")"
    [ "$(result_of "$job")" = "$(result_of "$truth")" ] || fail "stopped: $(result_of "$job"), undisturbed $(result_of "$truth")"
    kill "$node_pid" "$control_pid" && wait "$node_pid" "$control_pid"
}
