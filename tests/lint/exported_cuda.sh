#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# exported_cuda.sh LIBRARY COMPILER INCLUDE EMULATOR: the cu* symbols that the emulated driver
# exports are those of its two lists and no others, so that the conformance suite, which goes by
# the first list, leaves none out.
set -eu
list=$(mktemp)
trap 'rm -f "$list" "$list.nm"' EXIT
printf '%s\n' '#include "orrery/gpu_abi.h"' '#define EXPORT(name) symbol name' \
    '#define UNSUPPORTED(name) symbol name' '#include "exports.def"' '#include "unsupported.def"' \
    'symbol cuCtxCreate_v2' |
    "$2" -E -P -x c -I "$3" -I "$4" - | sed -n 's/^symbol \(cu[A-Za-z0-9_]*\)$/\1/p' | sort >"$list"
nm -D --defined-only "$1" | awk '$2 == "T" && $3 ~ /^cu[A-Z]/ { print $3 }' | sort >"$list.nm"
test -s "$list"
if ! diff "$list" "$list.nm"; then
    echo "the lists in gateways/emulator/cuda/*.def (<) and the exported symbols (>) differ" >&2
    exit 1
fi
echo "$(wc -l <"$list") exported calls, all listed"
