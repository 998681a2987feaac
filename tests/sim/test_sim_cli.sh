#!/bin/sh
# test_sim_cli.sh - `orrery sim`: what it prints of seeds that hold and of one that does not, and its exit codes.
# Usage: test_sim_cli.sh PROGRAM BROKEN_PROGRAM   (tests/sim/sim_seeds.c, without and with a bug)
set -u
good=$1
broken=$2
dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
bad=0
is() { # is WHAT EXPECTED GOT
    [ "$2" = "$3" ] || { echo "$1: expected $2, got $3"; bad=1; }
}
has() { # has FILE REGEX
    grep -Eq -- "$2" "$1" || { echo "no line with: $2 in:"; cat "$1"; bad=1; }
}

# The same seed is the same history, another is another.
"$good" sim --seed 7 --time 10s >"$dir/a"
is "a seed that holds" 0 $?
"$good" sim --seed 7 --time 10s >"$dir/b"
is "the same seed" "$(cat "$dir/a")" "$(cat "$dir/b")"
has "$dir/a" '^seed 7: holds, hash [0-9a-f]{16}, [0-9]+ messages, 24 jobs ended'
"$good" sim --seed 8 --time 10s >"$dir/b"
[ "$(sed 's/.*hash //' "$dir/a")" != "$(sed 's/.*hash //' "$dir/b")" ] || { echo "two seeds, one history"; bad=1; }
"$good" sim --seed 1 --seeds 3 --faults none --jobs 4 --time 5s --quiet >"$dir/a"
is "quiet seeds" 0 $?
has "$dir/a" '^3 seeds hold'
"$good" sim --seed 1 --jobs 2 --time 2s --trace "$dir/trace" >/dev/null
python3 -c 'import json, sys; [json.loads(line)["msg"] for line in open(sys.argv[1])]' "$dir/trace" || bad=1

# A bug: the seed, the sentence, the faults that it takes, the messages, and how to see it again.
"$broken" sim --seed 1 --quiet --replicas 1 --seeds 100 --jobs 8 --time 8s --nodes 4 >"$dir/a"
is "a seed that breaks" 1 $?
has "$dir/a" '^seed [0-9]+: BROKEN, '
has "$dir/a" '^it takes [0-9]+ of [0-9]+ faults \(found in [0-9]+ runs\):'
has "$dir/a" '^the last messages about eu1-'
has "$dir/a" '^ +[0-9]+  [a-z0-9]+ +-> [a-z0-9]+ +[a-z_]+ +\{'
again=$(sed -n 's/^again: orrery //p' "$dir/a")
# shellcheck disable=SC2086  # words
"$broken" $again >"$dir/b"
is "the same again" 1 $?
is "what broke" "$(sed -n 's/^then, after/after/p' "$dir/a")" "$(sed -n 's/^then, after/after/p' "$dir/b")"
# shellcheck disable=SC2086
"$good" $again >"$dir/b"
is "without the bug" 0 $?

# What it does not understand.
for word in "--seeds many" "--faults rain" "--time soon" "--replicas 9" "--nodes 1" "--only 1,x" "--what" "word"; do
    # shellcheck disable=SC2086
    "$good" sim $word >"$dir/a" 2>"$dir/err"
    is "$word" 2 $?
    has "$dir/err" '^orrery sim: '
done
exit $bad
