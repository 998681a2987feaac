#!/bin/sh
# demo.sh - one region, two clusters of two nodes, two emulated GPUs each: a training job of eight ranks that is suspended for
# another one, resumed, and moved to the other cluster while it runs; beside it its twin, which nobody disturbs.
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
checkpoint: {mode: auto}
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

steps=${DEMO_STEPS:-1200}
say "the main job: eight ranks, data parallel, on the four devices of one cluster; and its twin on the other"
spec digits "$steps" 200 "" >"$dir/first.yaml"
spec twin "$steps" 200 "" >"$dir/twin.yaml"
first=$("$orrery" submit "$dir/first.yaml" -o json | field job)
until home=$("$orrery" show "$first" -o json | field cluster) && [ -n "$home" ]; do sleep 0.1; done
twin=$("$orrery" submit "$dir/twin.yaml" -o json | field job)
away=c1; [ "$home" = c1 ] && away=c2

say "a third job that wants $home, and must wait"
spec urgent "$((steps / 2))" 100 "placement: {exclude: [$away]}" >"$dir/urgent.yaml"
urgent=$("$orrery" submit "$dir/urgent.yaml" -o json | field job)
until "$orrery" logs "$first" | grep -q 'step='; do sleep 0.2; done
"$orrery" ps

say "the first one is suspended in the middle of its training: the third has its devices, and ends"
"$orrery" suspend "$first"
"$orrery" wait "$urgent"
"$orrery" ps

say "and goes on where it was"
"$orrery" resume "$first"
became="suspended and resumed"

say "what a reader sees who troubles nobody: soft state"
"$orrery" top --once

"$orrery" wait "$twin"
level=$("$orrery" show "$first" | sed -n 's/^level *//p')
if [ "${level%% *}" = image ]; then
    say "its twin is done: the first one moves to $away, with its memory, its connections and its log"
    "$orrery" checkpoint "$first"
    "$orrery" migrate "$first" --to "cluster:$away" # a failure ends the demo
    became="suspended, resumed and moved"
    "$orrery" checkpoint ls "$first"
else
    say "no images on this machine, so no move: $level"
fi
"$orrery" logs -f "$first" | sed -u 's/^/digits /'
"$orrery" wait "$first"

say "what became of them"
"$orrery" ps -a
for job in "$first" "$twin" "$urgent"; do
    result=$("$orrery" logs "$job" | grep '^accuracy=') || { echo "demo: $job printed no result" >&2; exit 1; }
    echo "$job $result"
done
digest() { "$orrery" logs "$1" | sed -n 's/^accuracy=.*digest=//p'; }
[ "$(digest "$first")" = "$(digest "$twin")" ] || { echo "demo: the digests of $first and $twin differ" >&2; exit 1; }
say "$first was $became: the same digest as $twin, bit for bit"
