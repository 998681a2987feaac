#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""failover.py - from the death of a region's leader to the first submit that is acknowledged after it.

Usage: failover.py [ROUNDS]   (ORRERY_BIN: folder of the programs; bench/run failover sets it)
Each round kills the leader of three (SIGKILL), submits once, and makes the region whole again. The same with SIGSTOP: a leader
that hangs keeps its connections. The peer is the same submit when nothing fails. JSON lines as in bench/README.md.
"""
import json
import math
import os
import pathlib
import signal
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "integration"))
from fleet import Fleet, shell  # noqa: E402


def quantile(values, q):
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)]


def timed_submit(f, key):
    started = time.monotonic()
    f.cli("submit", "true.yaml", "--key", key, "--timeout", "60s", expect=0)
    return time.monotonic() - started


def rounds(f, name, n, fault, mend):
    took = []
    for i in range(n):
        f.wait_alike(60)
        leader = f.leader()
        pid = f.host_pid(leader)
        started = time.monotonic()
        os.kill(pid, fault)
        timed_submit(f, f"{name}-{i}")
        took.append(time.monotonic() - started)
        mend(pid, leader)
    return took


def report(name, took, peer):
    for q in (50, 99):
        value = quantile(took, q / 100)
        print(json.dumps({"bench": f"failover_{name}_p{q}", "value": round(value, 3), "unit": "s",
                          "peer": "a submit when nothing fails, p50", "peer_value": round(peer, 4),
                          "ratio": round(value / peer, 1)}), flush=True)


def main():
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    with Fleet(replicas=3, nodes=1, gpus=0) as f:
        (f.top / "true.yaml").write_text(shell("true"))
        peer = quantile([timed_submit(f, f"quiet-{i}") for i in range(n)], 0.5)
        report("kill", rounds(f, "kill", n, signal.SIGKILL, lambda *_: f.restart()), peer)
        report("hang", rounds(f, "hang", n, signal.SIGSTOP, lambda pid, _: os.kill(pid, signal.SIGCONT)), peer)


main()
