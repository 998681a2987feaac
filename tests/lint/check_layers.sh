#!/bin/sh
# check_layers.sh - fail if a folder includes or calls what its layer may not (docs/architecture.md, "Layers").
# Usage: check_layers.sh [PROJECT_DIR]
cd "${1:-.}" || exit 2
bad=0
checked=0

deny() { # deny FOLDER REGEX WHY [FILE TO SKIP]
    [ -d "$1" ] || { echo "layer: $1: no such folder; has the tree moved?"; bad=1; return; }
    checked=$((checked + 1))
    if grep -rnE --include='*.[ch]' --include='*.def' "$2" "$1" | grep -vE "^(${4:-$^}):"; then
        echo "layer: $1: $3"
        bad=1
    fi
}

inc='#[[:space:]]*include[[:space:]]*[<"]'
edges='zmq|czmq|yaml|msgpack|hiredis|uv|raft|cuda|nccl'
deny include "${inc}(${edges}|system\.h|transport\.h|runtime/|actors/|gateways/)" "public headers depend on libc only" \
    include/orrery/yaml.h
deny actors "${inc}(${edges}|pthread|unistd|sys/|fcntl|system\.h|transport\.h|runtime/|\.\./|gateways/)" "actors see include/orrery only"
deny actors '(^|[^A-Za-z0-9_.])(malloc|calloc|realloc|free|time|clock_gettime|getenv|usleep|sleep|printf|fprintf|rand|random|open|read|write|socket|exit|abort) *\(' "actors are pure"
deny runtime "${inc}(hiredis|yaml|cuda|nccl|actors/|\.\./actors|gateways/)" "the kernel knows no actor and no edge"

# No actor folder includes another: they share messages only.
for a in actors/*/; do
    a=$(basename "$a")
    for b in actors/*/; do
        b=$(basename "$b")
        [ "$a" = "$b" ] && continue
        deny "actors/$a" "${inc}(\.\./)?${b}(/|[_a-z]*\.h)" "actors/$a may not include actors/$b"
    done
done

# No edge includes an actor or another edge.  gateways/host is the composition root; gateways/sim composes the actors with
# edges of its own, and no others.
for a in gateways/*/; do
    a=$(basename "$a")
    [ "$a" = host ] && continue
    [ "$a" = sim ] || deny "gateways/$a" "${inc}((actors|region|cluster|job|node)/|\.\./\.\./actors)" "edges talk to actors by message"
    for b in gateways/*/; do
        b=$(basename "$b")
        [ "$a" = "$b" ] && continue
        deny "gateways/$a" "${inc}(\.\./|gateways/)?${b}/" "gateways/$a may not include gateways/$b" gateways/device/device_emulated.c
    done
done
[ "$checked" -gt 10 ] || { echo "layer: only $checked rules applied"; bad=1; }
exit $bad
