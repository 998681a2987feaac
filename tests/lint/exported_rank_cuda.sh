#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# exported_rank_cuda.sh LIBRARY NAMES_PY NAMES_DEF [CUDA_HOME]: the preloaded libcuda.so.1 exports each name of names.def and no other
# cu*; and, where there is a toolkit of CUDA 13.0, that list is what names.py makes of it.
set -eu
list=$(mktemp)
trap 'rm -f "$list" "$list.nm" "$list.py"' EXIT
sed -n 's/^[A-Z]*(\(cu[A-Za-z0-9_]*\).*/\1/p' "$3" | sort >"$list"
nm -D --defined-only "$1" | awk '$2 == "T" && $3 ~ /^cu[A-Z]/ { print $3 }' | sort >"$list.nm"
test -s "$list"
if ! diff "$list" "$list.nm"; then
    echo "names.def (<) and the exported symbols (>) differ" >&2
    exit 1
fi
if [ -n "${4:-}" ] && grep -q 'define CUDA_VERSION 13000$' "$4/include/cuda.h" && [ -e "$4/lib64/stubs/libcuda.so" ]; then
    python3 -B "$2" "$4" >"$list.py"
    diff "$3" "$list.py" || { echo "names.def is not what names.py makes of $4: run it again" >&2 && exit 1; }
fi
echo "$(wc -l <"$list") calls"
