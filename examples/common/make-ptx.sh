#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make-ptx.sh [FOLDER ...] - kernels.ptx from kernels.cu in each folder (all that have one), after a change; needs nvcc.
# Without comments, which name the compiler's build, and for the oldest PTX version that has all it uses.
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- */kernels.cu
for kernels; do
    folder=${kernels%/kernels.cu}
    nvcc -ptx -arch=compute_75 -O3 -o - "$folder/kernels.cu" |
        sed -e '/^[[:space:]]*\/\//d' -e '/./,$!d' -e 's/^\.version.*/.version 7.0/' >"$folder/kernels.ptx"
done
