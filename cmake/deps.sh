#!/bin/sh
# deps.sh - install what Orrery needs to build and test on Debian 12, and nothing that is there already.
# Why each of them: docs/dependencies.md.  As root directly, else through sudo.
set -eu

packages="build-essential cmake ninja-build pkg-config libzmq3-dev libyaml-dev libraft-dev libuv1-dev libcmocka-dev
          libhiredis-dev redis-server libsodium-dev libzstd-dev
          clang-format python3 python3-zmq python3-msgpack procps iproute2 spin"

missing=""
for p in $packages; do
    [ "$(dpkg-query -W -f '${Status}' "$p" 2>/dev/null)" = "install ok installed" ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then sudo=""; else
    sudo="sudo"
    command -v sudo >/dev/null || { echo "deps.sh: need root or sudo to install:$missing" >&2; exit 1; }
fi
command -v apt-get >/dev/null || { echo "deps.sh: no apt-get here; install by hand:$missing" >&2; exit 1; }

echo "installing:$missing"
$sudo apt-get update -qq
# shellcheck disable=SC2086  # a list of words
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
