#!/bin/sh
# criu.sh - a CRIU that works on this machine's kernel: the system's where it is new enough, else one built from Debian's source
# package into build/criu.  Prints the path of the program, or why there is none.
#
# Older ones say "Looks good" and fail: 4.1 cannot dump a TCP socket since Linux 6.16 (docs/images.md).  The source comes from
# Debian sid on the mirror that this machine's apt is configured with, into a private apt state: nothing of the system's is
# changed but build dependencies, which are installed from its own release.  apt verifies the signed index and the tarball's hash.
# A failed try is not repeated for a day; `make criu` (argument --again) tries at once.
set -u

min=4.2
source_dir=$(cd "$(dirname "$0")/.." && pwd)
out=$source_dir/build/criu
limit_s=${ORRERY_CRIU_TIMEOUT:-600}

# 4.2.1 >= 4.2
is_new_enough() {
    v=$("$1" --version 2>/dev/null | sed -n 's/^Version: *//p')
    [ -n "$v" ] && [ "$(printf '%s\n%s\n' "$min" "$v" | sort -V | head -n 1)" = "$min" ]
}

fail() {
    mkdir -p "$out" && echo "$1" >"$out/why-not"
    echo "criu: $1; what needs it will say so and be skipped" >&2
    exit 1
}

for program in "$(command -v criu || true)" "$out/criu"; do
    if [ -n "$program" ] && [ -x "$program" ] && is_new_enough "$program"; then
        echo "$program"
        exit 0
    fi
done

if [ "${1:-}" != --again ] && [ -n "$(find "$out/why-not" -mtime -1 2>/dev/null)" ]; then
    echo "criu: not tried again: $(cat "$out/why-not"); make criu tries at once" >&2
    exit 1
fi

# Once more under a limit of time.
if [ -z "${ORRERY_CRIU_INNER:-}" ]; then
    ORRERY_CRIU_INNER=1 timeout -k 10 "$limit_s" sh "$0" "$@"
    rc=$?
    [ "$rc" != 124 ] || fail "building it took more than $limit_s s"
    exit "$rc"
fi

command -v apt-get >/dev/null || fail "no criu >= $min here and no apt-get to get its source"
[ "$(id -u)" = 0 ] || fail "no criu >= $min here; building it installs packages and needs root"
mkdir -p "$out/apt/lists/partial" "$out/apt/cache/archives/partial" || fail "cannot write $out"
rm -f "$out/why-not"
exec 3>"$out/build.log"

packages="build-essential pkg-config dpkg-dev libprotobuf-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler libnl-3-dev
          libnl-route-3-dev libcap-dev libnet1-dev libbsd-dev libgnutls28-dev libnftables-dev libaio-dev uuid-dev"
missing=""
for p in $packages; do
    [ "$(dpkg-query -W -f '${Status}' "$p" 2>/dev/null)" = "install ok installed" ] || missing="$missing $p"
done
if [ -n "$missing" ]; then
    echo "installing:$missing" >&2
    apt-get update -qq >&3 2>&1
    # shellcheck disable=SC2086  # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&3 2>&1 ||
        fail "cannot install its build dependencies, see build/criu/build.log"
fi

# The mirror of the release that this machine runs.
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
mirror=$(apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 2>/dev/null |
    sed -n "s/^$codename main //p" | head -n 1)
[ -n "$mirror" ] || mirror=$(apt-get indextargets --no-release-info --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 2>/dev/null |
    sed -n "s/^$codename main //p" | head -n 1)
[ -n "$mirror" ] || fail "no Debian mirror in this machine's apt configuration"

echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$out/apt/sources.list"
: >"$out/apt/status"
own_apt() {
    apt-get -o Dir::State="$out/apt" -o Dir::State::Lists="$out/apt/lists" -o Dir::State::status="$out/apt/status" \
        -o Dir::Cache="$out/apt/cache" -o Dir::Etc::sourcelist="$out/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o APT::Sandbox::User=root -o Acquire::Retries=2 -o Acquire::http::Timeout=20 "$@"
}
own_apt update >&3 2>&1 || fail "cannot read the index of Debian sid, see build/criu/build.log"
cd "$out" || exit 1
rm -rf criu-* criu_*.orig.tar.*
own_apt source --download-only --tar-only criu >&3 2>&1 || fail "cannot fetch the source package, see build/criu/build.log"
tarball=$(ls criu_*.orig.tar.* 2>/dev/null | grep -v '\.asc$' | head -n 1)
[ -n "$tarball" ] || fail "the source package has no orig tarball"
version=$(echo "$tarball" | sed 's/^criu_\(.*\)\.orig\.tar\..*/\1/')
[ "$(printf '%s\n%s\n' "$min" "$version" | sort -V | head -n 1)" = "$min" ] || fail "Debian sid has $version, too old"
# What was tried with Orrery; another version is taken on apt's word alone.
if [ "$version" = 4.2.1 ]; then
    echo "29ec0ee09e296479fe7048c80980e8ef1d0684d0b0204c2b101dfea19f6725b9  $tarball" | sha256sum -c - >&3 2>&1 ||
        fail "$tarball is not the tarball that is known as 4.2.1"
fi
rm -rf src && mkdir src && tar -xf "$tarball" -C src --strip-components=1 || fail "cannot unpack $tarball"
echo "building criu $version" >&2
make -C src -j"$(nproc)" WERROR=0 criu >&3 2>&1 || fail "criu $version does not build here, see build/criu/build.log"
cp src/criu/criu criu.new && mv criu.new criu || fail "cannot write $out/criu"
is_new_enough "$out/criu" || fail "the criu that was built does not run, see build/criu/build.log"
rm -rf src apt "$tarball"
echo "$out/criu"
