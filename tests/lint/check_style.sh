#!/bin/sh
# check_style.sh - what a machine can see of the house's style: licence line, layout, length, unfinished words.
# Usage: check_style.sh [PROJECT_DIR]
cd "${1:-.}" || exit 2
bad=0
say() { echo "style: $*"; bad=1; }

files=$(git ls-files '*.c' '*.h' '*.def' 2>/dev/null)
[ -n "$files" ] || files=$(find include runtime actors gateways tests bench examples -name '*.[ch]' -o -name '*.def')
[ "$(echo "$files" | wc -l)" -gt 50 ] || say "only a few files found; has the tree moved?"

for f in $files; do
    [ -f "$f" ] || continue
    head -n 2 "$f" | grep -q 'SPDX-License-Identifier: Apache-2.0' || say "$f: no SPDX line"
    lines=$(wc -l <"$f")
    case "$f" in *.def | include/orrery/gpu_abi.h) max=2000 ;; *.h) max=300 ;; tests/conformance/*) max=700 ;; tests/*) max=600 ;; *) max=600 ;; esac
    [ "$lines" -le "$max" ] || say "$f: $lines lines, at most $max; is there a natural seam?"
done

# shellcheck disable=SC2086  # a list of files
if grep -nE '\b(TODO|FIXME|XXX|HACK)\b' $files; then say "unfinished, by its own words"; fi

if command -v clang-format >/dev/null; then
    # shellcheck disable=SC2046,SC2086
    clang-format --dry-run -Werror $(echo "$files" | grep '\.[ch]$') || say "run make format"
fi
exit $bad
