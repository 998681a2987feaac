#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test_acceptance.sh BUILD - acceptance.sh itself, on an emulated device: what is right passes, what is wrong is told.
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=$1
out=$(mktemp -d /tmp/orr-acc-XXXXXX) # short, for the sockets
export TMPDIR=$out
trap 'rm -rf "$out"' EXIT
fail() {
    echo "FAIL: $*" >&2
    tail -n 20 "$out"/*.log "$out"/summary.jsonl >&2
    exit 1
}
accept() { "$here/acceptance.sh" --emulated --bundle "$build" --out "$out" "$@"; }
said() { grep -q "^{\"step\":\"$1\",\"ok\":$2,.*$3" "$out/summary.jsonl"; }

accept no-such-step 2>/dev/null
[ $? = 2 ] || fail "a step that there is not: want exit code 2"

DIGITS_STEPS=10 accept digits
[ $? = 1 ] || fail "too little training: want exit code 1"
said digits false '"why":"one rank: want accuracy >= 0.95' || fail "too little training: want the reason"

rm "$out/summary.jsonl"
DIGITS_STEPS=150 KILL_SECONDS=4 accept facts digits orrery probes || fail "exit code $?"
said facts true '"libc":' || fail "facts"
said digits true '"result":"accuracy=0.9' || fail "digits"
said orrery true '"readopted":true' || fail "orrery"
said probes true '' || fail "probes"
grep -q '"probe":"suspend","ok":true,.*"cycle":2' "$out/probes.log" || fail "the driver's suspend"
grep -q '"probe":"the same at the same address","ok":true' "$out/probes.log" || fail "memory out and back"
[ "$(wc -l <"$out/summary.jsonl")" = 4 ] || fail "one line a step"
rm "$out/summary.jsonl"
OVERHEAD_RUNS=2 DIGITS_STEPS=50 accept interposed-cuda interposed-nccl memory overhead || fail "the preloaded libraries: exit code $?"
said interposed-cuda true '"stopper":"[0-9]* stops, [0-9]* refused, 0 wrong' || fail "interposed-cuda"
said interposed-nccl true '"cut_passed":' || fail "interposed-nccl"
said memory true '"skipped":" graph"' || fail "memory: the emulator has no graphs, and all else"
grep -q '"probe":"interposed","ok":true,"kind":"pool",.*"cycle":2,"memory_right":true' "$out/memory.log" || fail "memory of a pool"
said overhead true '"added_ns_a_collective":' || fail "overhead"
STOP_SECONDS=6 ELASTIC_SECONDS=2 DIGITS_STEPS=150 TCP_STEPS=2000 accept stops elastic || fail "stops: exit code $?"
said stops true '"resume_2_ms":' || fail "stops"
said elastic true '"resume_1_ms":' || fail "eight ranks on the device"
left=$(grep -lzF "GPU_WORK=$out/" /proc/[0-9]*/environ 2>/dev/null)
[ -z "$left" ] || fail "processes are left behind: $left"
exit 0
