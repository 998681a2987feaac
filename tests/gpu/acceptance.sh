#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# acceptance.sh [--emulated] [--bundle DIR] [--out DIR] [STEP ...]
#
# What shows that Orrery works with a real GPU (docs/gpu-acceptance.md). Each step has a deadline;
# its output goes to OUT/STEP.log, and one JSON line about it to OUT/summary.jsonl.
#   --emulated     on an emulated device of the bundle, to try the script itself
#   --bundle DIR   what bundle.sh made, or a build tree (the folder above this script)
#   --out DIR      default: $OUT or ./gpu-results
# STEP: facts conformance-cuda conformance-nccl digits orrery probes, which are the default; of stops and images: interposed-cuda
# interposed-nccl memory overhead image stops torch; of ranks that share a device: spliced spliced-cuts elastic ddp; and nccl-shared,
# torch-shared, experiments.
# Exit code: 0 all steps passed, 1 one did not, 2 wrong usage.
set -u
here=$(cd "$(dirname "$0")" && pwd)
self=$here/$(basename "$0")
bundle=$(dirname "$here")
out=${OUT:-gpu-results}
emulated=0
one_step=
all_steps="facts conformance-cuda conformance-nccl digits orrery probes"
stop_steps="interposed-cuda interposed-nccl memory overhead image stops torch"
elastic_steps="spliced spliced-cuts elastic ddp"

deadline_of() {
    case $1 in
    facts) echo 60 ;;
    conformance-cuda) echo 150 ;;
    conformance-nccl) echo 200 ;;
    digits) echo 100 ;;
    orrery) echo 240 ;;
    probes) echo 300 ;;
    nccl-shared) echo 400 ;;
    interposed-cuda) echo 200 ;;
    interposed-nccl) echo 200 ;;
    overhead) echo 150 ;;
    memory) echo 400 ;;
    image) echo 180 ;;
    stops) echo 300 ;;
    torch) echo 400 ;;
    spliced) echo 560 ;;
    spliced-cuts) echo 560 ;;
    elastic) echo 240 ;;
    ddp) echo 500 ;;
    torch-shared) echo 150 ;;
    *)
        echo "acceptance.sh: no step $1; there are: $all_steps $stop_steps $elastic_steps nccl-shared torch-shared" >&2
        return 1
        ;;
    esac
}

while [ $# -gt 0 ]; do
    case $1 in
    --emulated) emulated=1 ;;
    --bundle) bundle=$(cd "$2" && pwd) && shift || exit 2 ;;
    --out) out=$2 && shift ;;
    --one) one_step=$2 && shift ;; # the process of one step, under its deadline
    -*) sed -n '3,14s/^# \{0,1\}//p' "$self" >&2 && exit 2 ;;
    *) break ;;
    esac
    shift
done
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
[ -x "$bundle/bin/orrery" ] || {
    echo "acceptance.sh: $bundle/bin/orrery: not there; make the bundle with bundle.sh and name it in --bundle" >&2
    exit 2
}

# note KEY VALUE: a fact for the step's JSON line; numbers and true/false as they are.
note() {
    local value=$2
    case $value in
    true | false) ;;
    "" | *[!0-9.]* | .* | *.*.* | *. | 0[0-9]*)
        value=\"$(printf %s "$value" | tr '\n\t"\\' "  ''" | cut -c 1-300)\"
        ;;
    esac
    printf ',"%s":%s' "$1" "$value" >>"$out/$one_step.notes"
}
fail() {
    echo "FAIL: $*"
    note why "$*"
    exit 1
}
# shellcheck source=SCRIPTDIR/environment.sh
. "$here/environment.sh"
# shellcheck source=SCRIPTDIR/steps.sh
. "$here/steps.sh"
# shellcheck source=SCRIPTDIR/step_orrery.sh
. "$here/step_orrery.sh"
# shellcheck source=SCRIPTDIR/steps_rank.sh
. "$here/steps_rank.sh"
# shellcheck source=SCRIPTDIR/step_stops.sh
. "$here/step_stops.sh"
# shellcheck source=SCRIPTDIR/step_torch.sh
. "$here/step_torch.sh"

if [ -n "$one_step" ]; then
    "step_${one_step//-/_}"
    exit
fi

# shellcheck disable=SC2086  # a list of words
[ $# -gt 0 ] || set -- $all_steps
for step; do deadline_of "$step" >/dev/null || exit 2; done
environment_open || exit 1
trap environment_close EXIT
trap 'exit 130' INT TERM
failed=0
for step; do
    rm -f "$out/$step.notes"
    started=$(date +%s.%N)
    timeout -k 10 "$(deadline_of "$step")" "$self" --bundle "$bundle" --out "$out" --one "$step" >"$out/$step.log" 2>&1
    code=$?
    environment_sweep
    ok=true
    [ $code = 0 ] || ok=false failed=1
    case $code in
    124 | 137) one_step=$step note why "not over after $(deadline_of "$step") s" ;;
    esac
    awk -v step="$step" -v ok=$ok -v code=$code -v started="$started" -v ended="$(date +%s.%N)" \
        -v notes="$(cat "$out/$step.notes" 2>/dev/null)" \
        'BEGIN { printf "{\"step\":\"%s\",\"ok\":%s,\"exit\":%d,\"seconds\":%.1f%s}\n", step, ok, code, ended - started, notes }' |
        tee -a "$out/summary.jsonl"
    rm -f "$out/$step.notes"
done
exit $failed
