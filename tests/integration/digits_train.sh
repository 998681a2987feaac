#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# digits_train.sh BUILD SOURCE - the digits example by itself, as real processes on emulated
# devices: the digest repeats and ignores the placement; a dead rank ends the others.
set -u
build=$1
run=$2/examples/run-local.sh
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
    echo "FAIL: $*" >&2
    tail -n 20 "$work"/* >&2
    exit 1
}

# last_line WORLD DEVICES STEPS: what rank 0 says at the end
last_line() {
    DEVICES=$2 timeout 120 "$run" digits "$1" --steps "$3" --log-every 5 >"$work/out" 2>"$work/err" ||
        fail "$1 ranks on $2 devices: exit code $?"
    [ "$(grep -c '^accuracy=0\.[0-9]* digest=[0-9a-f]\{16\}$' "$work/out")" = 1 ] ||
        fail "$1 ranks: want one line with accuracy and digest"
    grep -q "^step=$3 loss=[0-9.]*$" "$work/out" || fail "$1 ranks: want the loss of step $3"
    tail -n 1 "$work/out"
}

alone=$(last_line 1 1 12) || exit 1
[ "$(last_line 1 1 12)" = "$alone" ] || fail "1 rank: a second run differs from '$alone'"
four=$(last_line 4 2 12) || exit 1
[ "$(last_line 4 2 12)" = "$four" ] || fail "4 ranks: a second run differs from '$four'"
[ "$(last_line 4 4 12)" = "$four" ] || fail "4 ranks: on 4 devices it differs from '$four'"

# A rank is killed in the middle of a long run.
DEVICES=1
list=$work/gpu0
"$build/bin/emu-device" "$list" || fail "no device"
export ORRERY_EMULATOR_DEVICES=$list LD_LIBRARY_PATH=$build/lib/emulator
export WORLD_SIZE=4 MASTER_ADDR=127.0.0.1 MASTER_PORT=$((20000 + $$ % 10000))
for rank in 0 1 2 3; do
    RANK=$rank LOCAL_RANK=0 "$build/bin/digits" --steps 1000000 --log-every 1 \
        >"$work/out$rank" 2>"$work/err$rank" &
    pids+=($!)
done
deadline=$((SECONDS + 60))
until grep -q '^step=3 ' "$work/out0"; do
    [ $SECONDS -lt $deadline ] || fail "no third step in 60 s"
    kill -0 "${pids[0]}" 2>/dev/null || fail "rank 0 ended early"
    sleep 0.05
done
kill -9 "${pids[2]}"
started=$SECONDS
for rank in 0 1 3; do
    timeout 30 tail --pid="${pids[$rank]}" -f /dev/null || fail "rank $rank hangs after rank 2 died"
    wait "${pids[$rank]}"
    code=$?
    [ $code = 1 ] || fail "rank $rank: exit code $code after rank 2 died, want 1"
    grep -q "^digits: rank $rank: " "$work/err$rank" || fail "rank $rank did not say why it ended"
done
[ $((SECONDS - started)) -le 10 ] || fail "the others took $((SECONDS - started)) s to notice"
pids=()
exit 0
