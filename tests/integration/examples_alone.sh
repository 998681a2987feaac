#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# examples_alone.sh BUILD SOURCE PROGRAM - an example by itself, as real processes: its digests repeat and ignore the
# placement; what it cannot work with is named; a dead rank ends the others.
set -u
build=$1
source=$2
program=$3
export BUILD=$build
work=$(mktemp -d)
pids=()
cleanup() {
    [ ${#pids[@]} -eq 0 ] || kill -9 "${pids[@]}" 2>/dev/null
    wait
    rm -rf "$work"
}
trap cleanup EXIT
fail() {
    echo "FAIL: $program: $*" >&2
    tail -n 20 "$work"/{out,err}* >&2
    exit 1
}

case $program in
digits) world=4 steps=12 wrong=(3 --steps 1) data=yes ;;
mlp) world=4 steps=12 wrong=(3 --steps 1) data=yes ;;
pipeline) world=8 steps=6 wrong=(6 --steps 1) data=yes ;;
adam) world=4 steps=12 wrong=(3 --steps 1) data=yes ;;
tcp) world=4 steps=200 wrong=(1 --steps 1) data=no ;;
*) fail "not an example" ;;
esac
every=$((steps / 3))

# last_line WORLD DEVICES DIGESTS: what rank 0 says at the end
last_line() {
    DEVICES=$2 timeout 60 "$source/examples/run-local.sh" "$program" "$1" --steps $steps --log-every $every \
        --digests "$work/$3" --digest-every $every >"$work/out" 2>"$work/err" || fail "$1 ranks on $2 devices: exit code $?"
    grep -q "^step=$((3 * every)) " "$work/out" || fail "$1 ranks: want a line for step $((3 * every))"
    tail -n 1 "$work/out" | grep -x '[a-z]*=[0-9.]* .*digest=[0-9a-f]\{16\}' || fail "$1 ranks: want a line with a digest"
}

# refused CODE TEXT WORLD [option ...]
refused() {
    local want=$1 text=$2 code
    shift 2
    timeout 60 "$source/examples/run-local.sh" "$program" "$@" >"$work/out" 2>"$work/err"
    code=$?
    [ $code = "$want" ] || fail "$*: exit code $code, want $want"
    grep -q "^$program: .*$text" "$work/err" || fail "$*: want '$text' on stderr"
}

first=$(last_line $world 2 first) || exit 1
again=$(last_line $world $((world < 4 ? world : 4)) again) || exit 1
[ "$first" = "$again" ] || fail "on other devices '$again', want '$first'"
for ((rank = 0; rank < world; rank++)); do
    [ "$(wc -l <"$work/first.$rank")" = 3 ] || fail "rank $rank: want 3 lines of state digests"
    cmp "$work/first.$rank" "$work/again.$rank" || fail "rank $rank: the state differs between two runs"
done
[ "$(sort -u "$work/first.0" | wc -l)" = 3 ] || fail "the state does not change"

refused 2 "world\|WORLD_SIZE" "${wrong[@]}"
if [ $data = yes ]; then
    refused 1 "/nonexistent: No such file.*--data" $world --data /nonexistent
    sed '7s/,/;/' "$source/examples/digits/data/digits.csv" >"$work/torn.csv"
    refused 1 "torn.csv:7: column 1" $world --data "$work/torn.csv"
fi

# A rank is killed in the middle of a long run.
list=$work/gpu0
"$build/bin/emu-device" "$list" || fail "no device"
export ORRERY_EMULATOR_DEVICES=$list ORRERY_EMULATOR_NCCL_SHARED_DEVICES=1 LD_LIBRARY_PATH=$build/lib/emulator
export WORLD_SIZE=$world MASTER_ADDR=127.0.0.1 MASTER_PORT=$((20000 + $$ % 10000))
for ((rank = 0; rank < world; rank++)); do
    RANK=$rank LOCAL_RANK=0 "$build/bin/$program" --steps 1000000 --log-every 1 >"$work/out$rank" 2>"$work/err$rank" &
    pids+=($!)
done
deadline=$((SECONDS + 30))
until grep -q '^step=3 ' "$work/out0"; do
    [ $SECONDS -lt $deadline ] || fail "no third step in 30 s"
    kill -0 "${pids[0]}" 2>/dev/null || fail "rank 0 ended early"
    sleep 0.05
done
kill -9 "${pids[2]}"
started=$SECONDS
for ((rank = 0; rank < world; rank++)); do
    [ $rank != 2 ] || continue
    timeout 30 tail --pid="${pids[$rank]}" -f /dev/null || fail "rank $rank hangs after rank 2 died"
    wait "${pids[$rank]}"
    code=$?
    [ $code = 1 ] || fail "rank $rank: exit code $code after rank 2 died, want 1"
    grep -q "^$program: rank $rank: " "$work/err$rank" || fail "rank $rank did not say why it ended"
done
[ $((SECONDS - started)) -le 10 ] || fail "the others took $((SECONDS - started)) s to notice"
pids=()
exit 0
