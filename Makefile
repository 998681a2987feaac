# Orrery: two commands matter, `make demo` and `make test`.  Both install what is missing and build first.
.POSIX:
.PHONY: all deps build criu demo test soak bench fuzz model format clean

all: build

deps:
	@sh cmake/deps.sh

build: deps
	@cmake --preset release --log-level=WARNING -DBUILD_TESTING=OFF
	@cmake --build --preset release
	@ln -sfn release/bin build/bin
	@[ ! -x build/criu/criu ] || ln -sfn ../../criu/criu build/release/bin/criu

# The program that makes images of ranks, where the system's is older than 4.2 (docs/images.md).
criu: deps
	@sh cmake/criu.sh --again

# A real training job through region, cluster, node and job actors, on emulated GPUs where there is none: suspended for another one,
# resumed, and moved to another cluster where images work; without a CRIU all but the last is shown.
demo: build
	@sh cmake/criu.sh >/dev/null && ln -sfn ../../criu/criu build/release/bin/criu || true
	@sh examples/demo.sh

# Unit, lint, sim, fuzz-corpus, conformance and integration tests under ASan+UBSan; the kernel again under TSan; what ranks preload as
# it is, since a sanitizer's runtime would have to come before it.
test: deps
	@sh cmake/criu.sh >/dev/null || true
	@cmake --preset tsan --log-level=WARNING
	@cmake --build --preset tsan --target kernel_tests
	@ctest --preset tsan -L kernel --no-tests=error -j2
	@cmake --preset release --log-level=WARNING -DBUILD_TESTING=ON
	@cmake --build --preset release --target workloads barrier_model preloaded_tests
	@ctest --preset release -L preloaded --no-tests=error -j2
	@cmake --preset asan --log-level=WARNING
	@cmake --build --preset asan
	@ctest --preset asan --no-tests=error -j2

# Simulated fleets with faults, ever new seeds, under ASan+UBSan; SOAK_MINUTES=60 make soak.  Prints the seed that fails.
# Then a real fleet whose processes are killed and stopped at random; jobs with a few random orders each, SEQUENCES (10) of them for
# each of four examples; at last long outages: a minute without Redis, two without the control plane.
soak: deps
	@cmake --preset release --log-level=WARNING -DBUILD_TESTING=OFF
	@cmake --build --preset release --target workloads
	@cmake --preset asan --log-level=WARNING
	@cmake --build --preset asan --target orrery chaos_rank
	@build/asan/bin/orrery sim --quiet --seed "$${SOAK_SEED:-$$(date +%s)}" --minutes "$${SOAK_MINUTES:-10}"
	@ORRERY_BIN="$$(pwd)/build/asan/bin" ORRERY_LIB="$$(pwd)/build/release/lib" /usr/bin/python3 -B tests/integration/chaos.py --seed "$${SOAK_SEED:-$$(date +%s)}" \
	    --minutes 3 --jobs 60 --clusters 2 --nodes 3
	@export SOAK=1 STOPS=50 BARRIERS=50 SEQUENCES="$${SEQUENCES:-10}" ORRERY_BIN="$$(pwd)/build/asan/bin" ORRERY_LIB="$$(pwd)/build/release/lib" \
	    ORRERY_WORKLOADS="$$(pwd)/build/release" ORRERY_CRIU="$$(pwd)/build/criu/criu"; \
	for t in stops resize sequences barriers families regions machines cooperative stop_faults fence softstate; do \
	    /usr/bin/python3 -B tests/integration/test_$$t.py || exit 1; done

# Numbers as JSON lines: see bench/README.md.
bench: build
	@bench/run all

fuzz: deps
	@sh tests/fuzz/run.sh

# The fencing rules under spin, with more faults in one history than `make test` has time for; the barrier in larger worlds.
model: deps
	@CHANGES=6 sh tests/model/fencing.sh
	@cmake --preset release --log-level=WARNING -DBUILD_TESTING=OFF
	@cmake --build --preset release --target barrier_model
	@build/release/bin/barrier_model long

format:
	@git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	rm -rf build
