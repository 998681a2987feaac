#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# bundle.sh [DIR] - all that docs/gpu-acceptance.md runs on a machine with a GPU, in one folder that can lie anywhere
# there (build/gpu-bundle). Needs no GPU and no toolkit. The optimised build it is made from stays in build/gpu.
#
#   bin/         programs; they find lib/ beside bin/, and neither driver nor NCCL in the bundle
#   lib/         shared libraries that the machine may not have; its own libc and C++ library are used
#   lib/rank     what Orrery preloads into ranks     lib/test  what stops them in the suites
#   lib/criu     CRIU and its libraries; bin/criu starts it
#   lib/cxx/     this machine's C++ library, for one that has none
#   lib/emulator the emulated driver and NCCL, to try the bundle without a GPU
#   gpu/         acceptance.sh and its parts        share/  data, PTX, and what the bundle was made from
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
build=$top/build/gpu
bundle=${1:-$top/build/gpu-bundle}
bytes_max=$((60 << 20))
programs="orrery orrery-init digits mlp pipeline tcp hold emu-device with_devices conformance_cuda conformance_nccl_gpu
          probe_checkpoint probe_interposed probe_memory probe_calls"
rank_libraries="libcuda.so.1 libnccl.so.2 liborrery-rank.so"

# RPATH, not RUNPATH: it holds for the libraries of our libraries, too.
# shellcheck disable=SC2016  # the loader expands $ORIGIN
cmake -S "$top" -B "$build" -G Ninja --log-level=WARNING -DCMAKE_BUILD_TYPE=RelWithDebInfo -DBUILD_TESTING=ON \
    -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON -DCMAKE_INSTALL_RPATH='$ORIGIN/../lib' \
    -DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags
# shellcheck disable=SC2086  # a list of targets
cmake --build "$build" -j "${JOBS:-2}" --target $programs emu_cuda emu_nccl orrery_rank rank_cuda rank_nccl cuda_stopper nccl_cut_core

rm -rf "$bundle"
mkdir -p "$bundle/bin" "$bundle"/lib/{cxx,emulator,rank,test} "$bundle/gpu" "$bundle/share/examples"
for program in $programs; do
    strip --strip-debug -o "$bundle/bin/$program" "$build/bin/$program"
done
cp "$build/lib/emulator/libcuda.so.1" "$build/lib/emulator/libnccl.so.2" "$bundle/lib/emulator"
for library in $rank_libraries; do
    strip --strip-debug -o "$bundle/lib/rank/$library" "$build/lib/rank/$library"
done
cp "$build"/lib/test/*.so "$bundle/lib/test"
cp -r "$build/share/digits" "$build/share/conformance" "$bundle/share"
cp "$top"/tests/gpu/{acceptance,environment,steps,steps_rank,step_orrery,step_stops,step_torch}.sh "$top/tests/gpu/torch_facts.py" \
    "$bundle/gpu"
cp "$top/examples/pytorch_ddp.py" "$bundle/share/examples"
cp "$top/LICENSE" "$bundle"

# carry DIR FILE...: what the loader finds here for them, into DIR; libc's own parts are never carried.
carry() {
    local to=$1
    shift
    for file; do LD_LIBRARY_PATH=$build/lib/emulator ldd "$file" 2>/dev/null || true; done |
        sed -n 's/.* => \(\/.*\) (.*/\1/p' | sort -u | while read -r library; do
        case ${library##*/} in
        libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | librt.so.* | libresolv.so.* | ld-linux*) ;;
        libcuda.so.1 | libnccl.so.2 | liborrery-rank.so) ;;
        libstdc++.so.* | libgcc_s.so.*) cp "$library" "$bundle/lib/cxx" ;;
        *) cp "$library" "$to" ;;
        esac
    done
}
# shellcheck disable=SC2086  # a list of programs
(cd "$build/bin" && carry "$bundle/lib" $programs)

# CRIU is a program of its own, with libraries of its own.
if criu=$(sh "$top/cmake/criu.sh"); then
    mkdir -p "$bundle/lib/criu"
    strip --strip-debug -o "$bundle/lib/criu/criu" "$criu"
    carry "$bundle/lib/criu" "$criu"
    cat >"$bundle/bin/criu" <<'END'
#!/bin/sh
# CRIU with the libraries beside it.
here=$(dirname "$(readlink -f "$0")")/../lib/criu
LD_LIBRARY_PATH=$here exec "$here/criu" "$@"
END
    chmod +x "$bundle/bin/criu"
else
    echo "bundle.sh: without CRIU: jobs can be suspended there, not moved" >&2
fi

# The oldest libc that will do.
find "$bundle" -type f -not -name orrery-init \( -path '*/bin/*' -o -name '*.so*' \) -not -path '*/cxx/*' -exec objdump -T {} + |
    grep -o 'GLIBC_2\.[0-9]*' | sort -Vu | tail -n 1 | sed 's/GLIBC_//' >"$bundle/share/libc-needed"
git -C "$top" describe --always --dirty --abbrev=12 >"$bundle/share/revision" 2>/dev/null || echo unknown >"$bundle/share/revision"

bytes=$(du -sb "$bundle" | cut -f 1)
[ "$bytes" -le "$bytes_max" ] || {
    echo "bundle.sh: $bundle has $bytes bytes, more than $bytes_max" >&2
    exit 1
}
echo "$bundle: $((bytes >> 10)) KiB, for libc $(cat "$bundle/share/libc-needed") or newer"
