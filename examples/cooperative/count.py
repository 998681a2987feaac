#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A rank that can be stopped and goes on elsewhere without CRIU: it saves its own state (python/orrery).

Usage: count.py STEPS [SECONDS_PER_STEP [PREFIX]]     the last line says what it computed: the same however often it was stopped;
                                                      after each step a line with a digest of its state goes to PREFIX.RANK
"""
import os
import pickle
import sys
import time
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "python"))
import orrery  # noqa: E402

run = {"step": 0, "sum": int(os.environ.get("RANK", "0"))}
weights = bytearray(1 << 16)


def step():
    run["step"] += 1
    run["sum"] = (run["sum"] * 31 + run["step"]) % (1 << 61)
    weights[run["step"] % len(weights)] = run["step"] % 256


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    pause = float(sys.argv[2]) if len(sys.argv) > 2 else 0.01
    record = open(f"{sys.argv[3]}.{os.environ.get('RANK', '0')}", "a", buffering=1) if len(sys.argv) > 3 else None
    orrery.region("weights", weights)
    orrery.state("run", lambda: pickle.dumps(run), lambda data: run.update(pickle.loads(data)))
    if orrery.restored():
        print(f"goes on after step {run['step']}", flush=True)
    while run["step"] < steps:
        orrery.point()
        step()
        if record:
            record.write(f"{run['step']} sum={run['sum']} weights={zlib.crc32(weights):08x}\n")
        time.sleep(pause)
    print(f"steps={run['step']} digest={run['sum']:x}-{zlib.crc32(weights):08x}", flush=True)


if __name__ == "__main__":
    main()
