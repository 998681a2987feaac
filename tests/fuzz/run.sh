#!/bin/sh
# run.sh - fuzz every target for FUZZ_SECONDS (60) each, from its corpus, with clang's libFuzzer under ASan and UBSan.
# New inputs go to build/fuzz/found/<target>; move the telling ones into tests/fuzz/corpus/<target>, where ctest replays them.
set -eu

top=$(cd "$(dirname "$0")/../.." && pwd)
seconds=${FUZZ_SECONDS:-60}
command -v clang >/dev/null || { echo "run.sh: needs clang with libFuzzer: apt-get install clang libclang-rt-14-dev" >&2; exit 1; }

cd "$top"
cmake --preset fuzz --log-level=WARNING
cmake --build --preset fuzz
for corpus in tests/fuzz/corpus/*/; do
    target=$(basename "$corpus")
    [ -x "build/fuzz/bin/$target" ] || { echo "run.sh: $corpus has no target of that name" >&2; exit 1; }
    mkdir -p "build/fuzz/found/$target"
    echo "== $target, $seconds s"
    "build/fuzz/bin/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="build/fuzz/found/$target-" "build/fuzz/found/$target" "$corpus" 2>&1 | grep -E '^(stat::|SUMMARY|==)' || true
    if ls "build/fuzz/found/$target-"* >/dev/null 2>&1; then
        echo "run.sh: $target failed; see build/fuzz/found/$target-*" >&2
        exit 1
    fi
done
