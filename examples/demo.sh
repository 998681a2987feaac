#!/bin/sh
# demo.sh - one region, two clusters of two nodes, two emulated GPUs each: a training job of eight ranks, and one that must wait.
# Everything is a separate process on this machine, and all of it is gone when this ends.  `make demo` builds and calls it.
set -eu

top=$(cd "$(dirname "$0")/.." && pwd)
bin=${ORRERY_BIN:-$top/build/bin}
orrery=$bin/orrery
dir=$(mktemp -d "${TMPDIR:-/tmp}/orrery-demo.XXXXXX")
export ORRERY_STATE="$dir/fleet"
followers=""

say() { printf '\n== %s\n' "$*"; }

finish() {
    code=$?
    trap - EXIT INT TERM
    [ -z "$followers" ] || kill $followers 2>/dev/null || true
    "$orrery" dev down --state "$ORRERY_STATE" >/dev/null || code=1
    if pgrep -f "$dir" >/dev/null; then
        echo "demo: processes are left behind:" >&2
        pgrep -af "$dir" >&2
        code=1
    fi
    [ "$code" = 0 ] || for log in "$ORRERY_STATE"/*/host.log; do echo "-- $log"; tail -n 20 "$log"; done >&2
    rm -rf "$dir"
    [ "$code" != 0 ] || say "all down, nothing left behind"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

spec() { # spec NAME STEPS EXTRA-LINES: a digits job of eight ranks on the four devices of a cluster
    cat <<EOF
name: $1
command: ["$bin/digits", --data, "$top/examples/digits/data/digits.csv", --steps, "$2", --log-every, "$3"]
world: 8
gpus: {min: 4, max: 4}
checkpoint: {mode: none}
$4
EOF
}

field() { sed -n 's/.*"'"$1"'": *"\{0,1\}\([^",}]*\).*/\1/p' | head -n 1; }

say "a fleet of seven hosts: region r1, clusters c1 c2, nodes n1..n4 with two emulated GPUs each"
"$orrery" dev up --state "$ORRERY_STATE" --clusters 2 --nodes 2 --gpus 2
"$orrery" tree

mkfifo "$dir/events"
sed -u 's/^/event  /' <"$dir/events" &
"$orrery" events -f >"$dir/events" &
followers="$!" # sed ends with it

say "the main job: eight ranks, data parallel, on the four devices of one cluster"
spec digits "${DEMO_STEPS:-2000}" 100 "" >"$dir/first.yaml"
first=$("$orrery" submit "$dir/first.yaml" -o json | field job)
until cluster=$("$orrery" show "$first" -o json | field cluster) && [ -n "$cluster" ]; do sleep 0.1; done

say "a second job that wants the same cluster, and must wait"
others=c1; [ "$cluster" = c1 ] && others=c2
spec patient "$((${DEMO_STEPS:-2000} / 10))" 50 "placement: {exclude: [$others]}" >"$dir/second.yaml"
second=$("$orrery" submit "$dir/second.yaml" -o json | field job)
"$orrery" ps

say "what a reader sees who troubles nobody: soft state"
"$orrery" top --once

"$orrery" logs -f "$first" | sed -u 's/^/digits /'
"$orrery" wait "$first"
"$orrery" logs -f "$second" | sed -u 's/^/second /'
"$orrery" wait "$second"

say "what became of them"
"$orrery" ps -a
for job in "$first" "$second"; do
    result=$("$orrery" logs "$job" | grep '^accuracy=') || { echo "demo: $job printed no result" >&2; exit 1; }
    echo "$job $result"
done
