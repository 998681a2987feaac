# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154  # sourced by acceptance.sh, whose variables it uses
# step_orrery.sh - the step `orrery` of acceptance.sh: two hosts on this machine, one with the region and its cluster,
# one with the node that owns the GPU, which is killed while a job runs on it.

spec() { # spec NAME WORLD STEPS [SHELL [CHECKPOINT]]: the example, all of its ranks on the one device
    local device="${ORRERY_EMULATOR_DEVICES+export ORRERY_EMULATOR_DEVICES=$ORRERY_EMULATOR_DEVICES;}"
    [[ $node_devices == *cuda* ]] || device= # the node says which
    cat <<EOF
name: $1
command: [/bin/sh, -c, "${4-} $device exec '$bin/digits' --steps $3 --log-every $(($3 / 10))"]
workdir: $GPU_WORK
env: {LD_LIBRARY_PATH: "$LD_LIBRARY_PATH", GPU_WORK: "$GPU_WORK"}
world: $2
gpus: 1
checkpoint: {mode: ${5-none}}
EOF
}

config() { # config HOST ROLES
    cat <<EOF
host: $1
region: r1
state: $GPU_WORK/$one_step/$1
listen: ["ipc://$GPU_WORK/$1.sock"]
roles:
$2
EOF
}

start_host() { # start_host NAME; its pid is then in host_pid
    mkdir -p "$GPU_WORK/$one_step/$1"
    "$bin/orrery" host --config "$GPU_WORK/$1.yaml" >>"$out/orrery-$1.log" 2>&1 &
    host_pid=$!
}

# until_true WHAT SECONDS COMMAND...: looks ten times a second, as long as the node's host runs
until_true() {
    local what=$1 deadline=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || fail "not in time: $what"
        kill -0 "$node_pid" 2>/dev/null || fail "no $what: the node's host says $(tail -n 1 "$out/orrery-n1.log")"
        sleep 0.1
    done
}

field() { sed -n 's/.*"'"$1"'": *"\{0,1\}\([^",}]*\).*/\1/p' | head -n 1; }
orrery() { "$bin/orrery" "$@"; }
has_device() { [[ "$(orrery node ls -o json | field state)/$(orrery node ls -o json | field gpus)" == up/[1-9]* ]]; }
has_registered_again() { [ "$(grep -c 'registered with c1' "$out/orrery-n1.log")" = 2 ]; }
rank_pid() { grep -lzx "ORRERY_JOB=$1" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3 | head -n 1; }
result_of() { orrery logs "$1" | grep '^accuracy='; }
in_step() { orrery logs "$1" | grep -q '^step='; }

# How many steps take so many seconds here: what the example does in three, past its start.
last_step() { sed -n 's/^step=\([0-9]*\) .*/\1/p' "$GPU_WORK/pace" | tail -n 1; }
is_past() { [ "$(last_step)" -gt "$1" ]; }
steps_in() {
    local pid first last begin end
    "$bin/digits" --steps 100000000 --log-every $((steps / 30)) >"$GPU_WORK/pace" &
    pid=$!
    until_true "a step of the example" 60 is_past 1
    first=$(last_step) begin=$(date +%s%N)
    sleep 3
    last=$(last_step) end=$(date +%s%N)
    kill -9 $pid
    echo $(((last - first) * $1 * 1000 / ((end - begin) / 1000000)))
}

# The job's process must be the same before and after, and so must its result be that of an undisturbed run.
kill_and_readopt() {
    local long job pid direct result
    long=$(steps_in "${KILL_SECONDS:-20}") || exit 1
    note long_steps "$long"
    spec long 1 "$long" >"$GPU_WORK/long.yaml"
    job=$(orrery submit "$GPU_WORK/long.yaml") || fail "submit"
    until_true "the first steps of $job" 60 in_step "$job"
    pid=$(rank_pid "$job")
    [ -n "$pid" ] || fail "no process of $job"
    kill -9 "$node_pid"
    wait "$node_pid" 2>/dev/null
    kill -0 "$pid" || fail "the rank died with its node's host"
    start_host n1
    node_pid=$host_pid
    until_true "n1 is back" 60 has_registered_again
    until_true "n1 has its device again" 60 has_device
    [ "$(rank_pid "$job")" = "$pid" ] || fail "the rank is not the process it was: was it over before the host came back?"
    note readopted true
    orrery wait "$job" --timeout 100s || fail "$job after its host was killed: exit code $?"
    result=$(result_of "$job")
    direct=$(train 1 "$long") || fail "the same alone: $direct"
    [ "$result" = "$direct" ] || fail "after the kill $result, alone $direct"
    [ "$(orrery show "$job" -o json | field generation)" = 1 ] || fail "$job was started again"
}

# On the emulator, who uses a device is told by the device's file alone, not by the management library: so jobs that are to be
# stopped run on a node's own emulated devices there.
node_devices='{kind: cuda}'
use_devices_for_stops() { [ "$GPU_EMULATED" = 0 ] || node_devices='{kind: emulated, count: 1, memory: 256MiB}'; }

node_config() { # node_config NAME: a node that owns the GPU
    config "$1" "  node:
    name: $1
    cluster: {name: c1, host: r1, endpoint: \"ipc://$GPU_WORK/r1.sock\"}
    slots: 8
    devices: $node_devices" >"$GPU_WORK/$1.yaml"
}

# The hosts r1 and n1, up and with the GPU.
start_fleet() {
    rm -f "$out"/orrery-*.log
    config r1 "  region: {}
  cluster: {name: c1}" >"$GPU_WORK/r1.yaml"
    node_config n1
    export ORRERY_REGION=ipc://$GPU_WORK/r1.sock
    start_host r1
    control_pid=$host_pid
    start_host n1
    node_pid=$host_pid
    until_true "node n1 with a device" 60 has_device
}

step_orrery() {
    local job direct result two type
    start_fleet
    orrery node ls
    orrery node ls -o json
    type=$(orrery node ls -o json | field gpu_type)
    note device "$type"
    [ "$GPU_EMULATED" = 1 ] || nvidia-smi --query-gpu=name --format=csv,noheader | tr ' ' - | grep -qF -- "$type" ||
        fail "the node says $type, nvidia-smi does not"
    note device_memory_bytes "$(orrery node ls -o json | field gpu_memory_bytes)"

    direct=$(train 1 "$steps") || fail "the example alone: $direct"
    spec digits 1 "$steps" >"$GPU_WORK/digits.yaml"
    job=$(orrery submit "$GPU_WORK/digits.yaml") || fail "submit"
    orrery wait "$job" --timeout 60s || fail "$job: exit code $?: $(orrery logs --stderr "$job" | tail -n 3)"
    result=$(result_of "$job")
    note result "$result"
    result_is_good "$result" || fail "want accuracy >= 0.95, not $result"
    [ "$result" = "$direct" ] || fail "$result under Orrery, $direct alone"

    kill_and_readopt

    spec two 2 "$steps" >"$GPU_WORK/two.yaml" # spliced; whether they are stopped as others are: `elastic`
    two=$(orrery submit "$GPU_WORK/two.yaml") && orrery wait "$two" --timeout 40s
    note two_ranks_on_one_device "$(result_of "$two" || orrery logs --stderr "$two" | tail -n 1)"
    orrery cancel "$two" >/dev/null 2>&1
    kill "$node_pid" "$control_pid" && wait "$node_pid" "$control_pid"
    note hosts_end $?
}
