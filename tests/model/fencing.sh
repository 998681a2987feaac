#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fencing.sh - check fencing.pml with spin: the rules hold, and without any one of them pan finds two generations.
#   CHANGES=n   more faults in one history (default 5; 7 takes minutes and gigabytes)
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# check NAME EXPECTED_ERRORS DEFINES...
check() {
    name=$1 expected=$2
    shift 2
    spin "-DCHANGES_MAX=${CHANGES:-5}" "$@" -a "$here/fencing.pml" >spin.log 2>&1 || { cat spin.log; exit 1; }
    cc -O2 -DSAFETY -DCOLLAPSE -DMEMLIM="${MEMORY_MB:-1000}" -o pan pan.c
    ./pan -m1000000 -w23 >pan.log 2>&1 || { cat pan.log; exit 1; }
    if grep -q 'too small\|out of memory\|max search depth' pan.log; then
        cat pan.log
        echo "FAIL $name: the search is not complete"
        exit 1
    fi
    errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.log)
    states=$(sed -n 's/ *\([0-9.e+]*\) states, stored.*/\1/p' pan.log)
    if [ "$errors" != "$expected" ]; then
        cat pan.log
        echo "FAIL $name: $errors errors, expected $expected"
        exit 1
    fi
    echo "ok   $name: $states states, errors: $errors"
}

check "safety" 0
check "safety while nodes join" 0 -DJOIN
check "a generation runs when faults have stopped" 0 -DCALM
check "generation 2 runs when the node stays dead" 0 -DDEAD
check "mutant: the cluster needs no majority" 1 -DNO_MAJORITY
check "mutant: ranks do not freeze" 1 -DNO_FREEZE
check "mutant: a node that only talks counts" 1 -DNO_UNHEARD
check "mutant: a moment of majority suffices" 1 -DNO_WINDOW
check "mutant: the cluster's present list decides" 1 -DCURRENT_LIST -DJOIN
check "mutant: a list that the node did not confirm decides" 1 -DANY_LIST
check "mutant: nothing thaws" 1 -DCALM -DNO_THAW
